//! The bytes that chosen processes send and receive, copied where the system calls end, with an account of each byte that
//! was not copied.
//!
//! Plain bytes of sockets: what they mean is for others. Nothing is copied before a rule asks for it, rules are evaluated
//! in the kernel, and nothing is ever changed. Opt-in: nothing else loads this object.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    fmt, io,
    ops::AddAssign,
    time::Duration,
};

use weir_common::tap as layout;
use zerocopy::transmute;

mod compile;
mod error;
mod event;
mod hooks;
mod load;
mod pace;
mod places;
mod read;
mod record;
mod ring;
mod rule;
pub mod selfcheck;
mod settings;
mod tables;
mod trial;
mod walk;

use self::{compile::compile, load::Loaded, tables::named};
use crate::{object::LoadError, sockets::kernel_types::KernelTypes};

pub use error::TapError;
pub use event::{
    Closed, Data, Event, Finished, Gap, GapReason, Opened, Place, Process, Side, SocketId, Transport,
};
pub use pace::interrupt_nobody;
pub use rule::{
    HEADER_BYTES, Limits, MOST_CALL, MOST_RULES, Payload, Processes, Role, Rule, RuleError, RuleId, Way,
};
pub use settings::{Chosen, Settings, Tier};

/// Counts since the tap was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that moved bytes, whoever made them, while rules were in force.
    pub calls: u64,
    /// Of these, calls that no rule let through.
    pub rejected: u64,
    /// What was sent by calls that a rule let through.
    pub sent: Side,
    /// What was received by them.
    pub received: Side,
    /// Both directions together, by rule.
    pub rules: BTreeMap<RuleId, Side>,
    /// How often there was no room to tell an opening, the end of a side or a closing.
    pub untold: u64,
    /// TCP connections of which nothing was told, for want of room; their bytes are lost.
    pub unopened: u64,
    /// TCP connections of which the closing was not told, for want of room.
    pub unclosed: u64,
    /// Calls that the hooks missed because they were busy on that CPU: their bytes are not seen. Since the hooks were
    /// attached.
    pub skipped: u64,
    /// Sockets that could not be followed for want of memory; their calls are among `rejected`.
    pub unfollowed: u64,
    /// Datagrams, among `rejected` too, of sockets without another end that a rule about other ends or ports did not let
    /// through, because nobody told whom they came from or went to.
    pub nameless: u64,
}

/// An open tap. Dropping it detaches.
pub struct Tap {
    loaded: Loaded,
    /// Counts that were there when it was opened.
    before: layout::Counts,
    /// Numbers of rules that were ever in force.
    rules: BTreeSet<RuleId>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Tap {
    /// Attaches the hooks. Nothing is let through before there are rules.
    pub fn open(settings: &Settings) -> Result<(Self, Chosen), TapError> {
        if ARCH != "x86_64" {
            return Err(TapError::Machine(ARCH));
        }
        let types = KernelTypes::of_running_kernel()?;
        let mut tried = Vec::new();
        for tier in Tier::ALL {
            if settings.tier.is_some_and(|wanted| wanted != tier) {
                continue;
            }
            match Self::open_tier(&types, tier, settings) {
                Ok((tap, without)) => {
                    return Ok((tap, Chosen { tier, tried, without }));
                }
                // Asking for less would not help.
                Err(error @ TapError::Load(LoadError::NoObject)) => return Err(error),
                Err(error) => tried.push((tier, error.chain())),
            }
        }
        Err(TapError::NoTier(tried))
    }

    fn open_tier(
        types: &KernelTypes,
        tier: Tier,
        settings: &Settings,
    ) -> Result<(Self, Vec<String>), TapError> {
        let mut loaded = load::load(types, tier, settings)?;
        trial::fire(&mut loaded)?;
        let without = std::mem::take(&mut loaded.without);
        let mut tap = Self { loaded, before: layout::Counts::default(), rules: BTreeSet::new() };
        tap.before = tap.counts()?;
        Ok((tap, without))
    }

    /// Puts rules in force in place of those before, all at once; of several that match, the first in this order wins. An
    /// error changes nothing.
    pub fn set_rules(&mut self, rules: &[Rule]) -> Result<(), TapError> {
        self.loaded.tables.publish(&compile(rules)?, !rules.is_empty())?;
        self.rules.extend(rules.iter().map(|rule| rule.id));
        Ok(())
    }

    /// Looks for sockets that are open already and tells those that the rules let through. Returns how many. To be called
    /// after the rules are in force: what happens meanwhile is told in its order.
    pub fn existing(&mut self) -> Result<u64, TapError> {
        let Loaded { object, reader, has_walks, .. } = &mut self.loaded;
        if !*has_walks {
            // As `Chosen::without` says.
            return Ok(0);
        }
        walk::walk(object, |record| reader.found(record))
    }

    /// Waits until there is something to read, at most as long as `timeout`. A signal ends the wait early.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.loaded.reader.wait(timeout)
    }

    /// Hands over what waits, and returns how much. Of one socket, its opening comes before its bytes, and its closing
    /// after them. Bytes lie in memory that the kernel writes again once `visit` returns.
    pub fn read(&mut self, visit: &mut dyn FnMut(&Event<'_>)) -> Result<usize, TapError> {
        self.loaded.reader.read(visit)
    }

    /// Counts since the tap was opened. While calls are running, one may be in the middle of being counted.
    pub fn totals(&self) -> Result<Totals, TapError> {
        let counts = self.counts()?;
        let mut totals = Totals {
            calls: counts.accepted + counts.rejected - self.before.accepted - self.before.rejected,
            rejected: counts.rejected - self.before.rejected,
            untold: counts.untold - self.before.untold,
            unopened: counts.unopened - self.before.unopened,
            unclosed: counts.unclosed - self.before.unclosed,
            unfollowed: counts.unfollowed - self.before.unfollowed,
            nameless: counts.nameless - self.before.nameless,
            skipped: hooks::skipped(&self.loaded.object),
            ..Totals::default()
        };
        for &rule in &self.rules {
            let sent = self.side(rule, 0)?;
            let received = self.side(rule, 1)?;
            totals.sent += sent;
            totals.received += received;
            let sum = totals.rules.entry(rule).or_default();
            *sum += sent;
            *sum += received;
        }
        Ok(totals)
    }

    /// Detaches, hands over what still waits, and returns the last counts.
    pub fn close(mut self, visit: &mut dyn FnMut(&Event<'_>)) -> Result<Totals, TapError> {
        let skipped = hooks::skipped(&self.loaded.object);
        // A hook that stays while this process lives spoils nothing of what is there.
        let detached = hooks::detach(&mut self.loaded.object);
        self.loaded.tables.settle()?;
        while !self.loaded.reader.is_empty() {
            self.loaded.reader.read(visit)?;
        }
        detached?;
        Ok(Totals { skipped, ..self.totals()? })
    }

    fn counts(&self) -> Result<layout::Counts, TapError> {
        let mut sum = [0; layout::COUNT_WORDS];
        for words in self.loaded.counts.get(&0, 0).map_err(named("COUNTS"))?.iter() {
            for (sum, word) in sum.iter_mut().zip(words) {
                *sum += word;
            }
        }
        Ok(transmute!(sum))
    }

    /// What a rule has let through in one direction.
    fn side(&self, rule: RuleId, way: u32) -> Result<Side, TapError> {
        let mut sum = Side::default();
        for words in self.loaded.sides.get(&(rule.0 * 2 + way), 0).map_err(named("RULE_SIDES"))?.iter() {
            let words: layout::Side = transmute!(*words);
            sum += record::side(&words, None);
        }
        Ok(sum)
    }
}

impl AddAssign for Side {
    /// Adds ledgers; what was not seen is known of the sum only if it is known of both.
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.captured += other.captured;
        self.lost += other.lost;
        self.untold += other.untold;
        self.rejected += other.rejected;
        for (sum, gap) in self.gaps.iter_mut().zip(other.gaps) {
            *sum += gap;
        }
        self.unseen = self.unseen.zip(other.unseen).map(|(sum, unseen)| sum + unseen);
    }
}
