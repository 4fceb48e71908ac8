//! [`Talks`]: what the messages of each flow at a DNS port said.
//!
//! Counters start anew with each record of the flow; what was asked and answered last stays until the flow ends, because
//! its last record comes long after its messages.

use std::time::Duration;

use hashbrown::HashMap;
use weir_flow::{Dns, Monotonic, Question, ResponseCode, Tuple};

/// Most flows. About 12 MiB. Where there are more, those are forgotten first of which everything was told.
pub(super) const MOST_TALKS: usize = 65_536;

/// Shortest time between two looks through a full table.
const LOOK: Duration = Duration::from_secs(1);

/// How long it waits for a record, or for another message: longer than the longest interval, and than flows without
/// packets go on.
const KEPT: Duration = Duration::from_mins(10);

/// A flow at an interface, whichever way it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    ifindex: u32,
    tuple: Tuple,
}

impl Place {
    /// The flow to which packets with this tuple belong.
    pub(super) fn new(ifindex: u32, tuple: Tuple) -> Self {
        Self { ifindex, tuple: tuple.min(tuple.reversed()) }
    }
}

/// What is told of a flow.
#[derive(Debug)]
struct Talk {
    /// Counters since the last record.
    dns: Dns,
    /// When its last message passed.
    heard: Monotonic,
}

/// By flow.
#[derive(Debug, Default)]
pub(super) struct Talks {
    by_place: HashMap<Place, Talk>,
    swept: Monotonic,
    /// When a full table was last looked through.
    looked: Monotonic,
}

/// There was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Talks {
    /// A query passed.
    pub(super) fn query(&mut self, place: Place, question: &Question, time: Monotonic) -> Result<(), NoRoom> {
        let dns = self.dns(place, time)?;
        dns.queries += 1;
        dns.question = Some(question.clone());
        Ok(())
    }

    /// A response passed.
    pub(super) fn response(
        &mut self,
        place: Place,
        question: &Question,
        (code, duration): (ResponseCode, Duration),
        time: Monotonic,
    ) -> Result<(), NoRoom> {
        let dns = self.dns(place, time)?;
        dns.responses += 1;
        dns.failures += u32::from(code.is_failure());
        dns.question = Some(question.clone());
        dns.response_code = Some(code);
        // Where it is the first one since the last record, the longest of before is history.
        let longest = if dns.responses == 1 { None } else { dns.lookup_duration };
        dns.lookup_duration = longest.max(Some(duration));
        Ok(())
    }

    /// A query that passed was not answered in time.
    pub(super) fn unanswered(
        &mut self,
        place: Place,
        question: &Question,
        time: Monotonic,
    ) -> Result<(), NoRoom> {
        let dns = self.dns(place, time)?;
        dns.unanswered += 1;
        dns.question.get_or_insert_with(|| question.clone());
        Ok(())
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// What a record of the flow is to tell; from then on it counts anew.
    pub(super) fn tell(&mut self, place: &Place) -> Option<Dns> {
        let dns = &mut self.by_place.get_mut(place)?.dns;
        let told = dns.clone();
        (dns.queries, dns.responses, dns.failures, dns.unanswered) = (0, 0, 0, 0);
        Some(told)
    }

    /// The same for the last record of the flow.
    pub(super) fn end(&mut self, place: &Place) -> Option<Dns> {
        self.by_place.remove(place).map(|talk| talk.dns)
    }

    /// Forgets, once a minute, what waited too long for a record; returns for how many flows.
    pub(super) fn expire(&mut self, now: Monotonic) -> u64 {
        if now - self.swept < Duration::from_mins(1) {
            return 0;
        }
        self.swept = now;
        let mut untold = 0;
        self.by_place.retain(|_, talk| {
            let is_kept = now - talk.heard < KEPT;
            untold += u64::from(!is_kept && !talk.is_told());
            is_kept
        });
        untold
    }

    fn dns(&mut self, place: Place, time: Monotonic) -> Result<&mut Dns, NoRoom> {
        if self.by_place.len() >= MOST_TALKS && !self.by_place.contains_key(&place) {
            // Looking through all of them takes a while: whoever fills the table must not have it done for each message.
            if time - self.looked >= LOOK {
                self.looked = time;
                self.by_place.retain(|_, talk| !talk.is_told());
            }
            if self.by_place.len() >= MOST_TALKS {
                return Err(NoRoom);
            }
        }
        let talk = self.by_place.entry(place).or_insert_with(|| Talk { dns: Dns::default(), heard: time });
        talk.heard = time;
        Ok(&mut talk.dns)
    }
}

impl Talk {
    /// Whether records have told everything.
    fn is_told(&self) -> bool {
        let Dns { queries, responses, unanswered, .. } = self.dns;
        queries == 0 && responses == 0 && unanswered == 0
    }
}
