//! [`Names`]: which name led to which address, for whom, and when.
//!
//! A name is valid from the answer until its time to live is over, and a little longer, because programs connect a moment
//! after they have asked, or keep an answer longer than they may.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use weir_flow::Monotonic;

/// Shortest time between two looks through a full table.
const LOOK: Duration = Duration::from_secs(1);

/// How much longer than its time to live a name is valid.
pub(super) const GRACE: Duration = Duration::from_mins(1);

/// Longest time to live that is believed.
pub(super) const MOST_TTL: Duration = Duration::from_hours(24);

/// How much earlier than the answer a flow may seem to begin: its beginning is known to a tick of the kernel, 10 ms at
/// most. Names that were valid without this come first.
pub(super) const EARLIER: Duration = Duration::from_millis(12);

/// How long a name that is no longer valid is kept, for flows whose first record comes late.
pub(super) const KEPT: Duration = Duration::from_mins(5);

/// Most names of addresses. About 8 MiB, three times that if each name is as long as it may be.
pub(super) const MOST_NAMES: usize = 65_536;

/// Most of them that one client got: whoever makes up names leaves room for everybody else.
pub(super) const MOST_OF_CLIENT: u32 = 16_384;

/// Most of them for one address.
pub(super) const MOST_OF_ADDRESS: usize = 512;

/// A name of an address, as one client got it.
#[derive(Clone, Debug)]
struct Known {
    client: IpAddr,
    name: Arc<str>,
    from: Monotonic,
    until: Monotonic,
}

/// Names by address.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_address: HashMap<IpAddr, Vec<Known>>,
    /// How many of them each client got.
    by_client: HashMap<IpAddr, u32>,
    count: usize,
    swept: Monotonic,
}

impl Names {
    /// Names of addresses that are kept, those included that were valid a moment ago.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes in that a client got an address for a name. False if there was no room.
    pub(super) fn learn(
        &mut self,
        client: IpAddr,
        name: &Arc<str>,
        (address, ttl): (IpAddr, u32),
        time: Monotonic,
    ) -> bool {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            // These say "there is none", or mean something else on each machine.
            return true;
        }
        let lasting = Duration::from_secs(ttl.into()).min(MOST_TTL) + GRACE;
        let until = later(time, lasting);
        // Looking through all of them takes a while: whoever fills the table must not have it done for each message.
        if self.is_full_for(client) && time - self.swept >= LOOK {
            self.sweep(time);
        }
        let is_full = self.is_full_for(client);
        let known = self.by_address.entry(address).or_default();
        let same = known.iter_mut().find(|it| it.client == client && it.name == *name && it.until >= time);
        if let Some(same) = same {
            same.until = same.until.max(until);
            return true;
        }
        if is_full || known.len() >= MOST_OF_ADDRESS {
            if known.is_empty() {
                self.by_address.remove(&address);
            }
            return false;
        }
        known.push(Known { client, name: Arc::clone(name), from: time, until });
        self.count += 1;
        *self.by_client.entry(client).or_default() += 1;
        true
    }

    fn is_full_for(&self, client: IpAddr) -> bool {
        self.count >= MOST_NAMES || self.by_client.get(&client).is_some_and(|count| *count >= MOST_OF_CLIENT)
    }

    /// The name of an address for a flow that began at that time, with `peer` at the other end: the last one that the peer
    /// itself got, else the one that everybody got, if that is one.
    pub(super) fn find(&self, address: IpAddr, peer: IpAddr, began: Monotonic) -> Option<&Arc<str>> {
        let known = self.by_address.get(&address)?;
        let at = |latest| {
            let valid = move |it: &&Known| it.from <= latest && began <= it.until;
            let own = known.iter().filter(valid).filter(|it| it.client == peer).max_by_key(|it| it.from);
            own.map(|own| &own.name).or_else(|| only(known.iter().filter(valid).map(|it| &it.name)))
        };
        at(began).or_else(|| at(later(began, EARLIER)))
    }

    /// Forgets what was valid too long ago, once a minute.
    pub(super) fn expire(&mut self, now: Monotonic) {
        if now - self.swept >= GRACE {
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Monotonic) {
        self.swept = now;
        let mut count = 0;
        self.by_client.clear();
        self.by_address.retain(|_, known| {
            known.retain(|it| now <= later(it.until, KEPT));
            count += known.len();
            for it in known.iter() {
                *self.by_client.entry(it.client).or_default() += 1;
            }
            !known.is_empty()
        });
        self.count = count;
    }
}

/// The name that all of them are.
fn only<'n>(mut names: impl Iterator<Item = &'n Arc<str>>) -> Option<&'n Arc<str>> {
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)
}

/// That much later.
fn later(time: Monotonic, by: Duration) -> Monotonic {
    Monotonic(time.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}
