//! [`EdgeTable`]: sums of edges since the start, and which of them are shown.
//!
//! Every number only grows, as counters must. So an edge that gets its place late begins at zero then; what it had before is
//! in the sum of the others and stays there. An edge that loses its place (idle, or far behind one that has none) is gone
//! with its numbers; if it comes back, it begins at zero, which Prometheus takes as a restart.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use weir_flow::{Count, Initiator, Monotonic, Record, Role, TcpFailure};

use super::Plan;
use crate::{
    batch::{Batch, seen_again},
    store::{EdgeKey, Entity},
};

/// How often places are given anew; what an edge had counts half as much each time.
const TURN: Duration = Duration::from_mins(1);

/// How many edges without a place are watched, for each place.
const CANDIDATES: usize = 4;

/// From here on a destination port that was only guessed to be the server's says nothing.
pub(crate) const FIRST_EPHEMERAL: u16 = 32_768;

/// Edges, of which the largest have a place of their own.
#[derive(Debug)]
pub struct EdgeTable {
    plan: Plan,
    inner: Mutex<Inner>,
}

/// What was counted between two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// From source to destination.
    pub forward: Count,
    /// From destination to source.
    pub reverse: Count,
    /// Flows that began.
    pub opened: u64,
    /// Flows that ended.
    pub closed: u64,
    /// Connections that ended because nobody let them in.
    pub refused: u64,
    /// Connections that ended because nobody answered.
    pub unanswered: u64,
    /// Connections that one side broke off.
    pub reset: u64,
    /// Segments that the source sent again.
    pub retransmits: u64,
    /// Segments that the destination sent again.
    pub reverse_retransmits: u64,
    /// Sum of the round-trip times that were told.
    pub rtt: Duration,
    /// How many these are.
    pub rtts: u64,
    /// When counting began.
    pub since: Monotonic,
}

/// What the table says at one moment.
#[derive(Clone, Debug, Default)]
pub struct EdgeSnapshot {
    /// Edges that have a place, in no order.
    pub edges: Vec<(EdgeKey, Sums)>,
    /// All others, by role.
    pub others: Vec<(Role, Sums)>,
    /// Edges that lost their place so far.
    pub retired: u64,
}

#[derive(Debug, Default)]
struct Inner {
    places: HashMap<EdgeKey, Place>,
    candidates: HashMap<EdgeKey, u64>,
    others: HashMap<Role, Sums>,
    retired: u64,
    turned: Monotonic,
}

#[derive(Debug)]
struct Place {
    sums: Sums,
    /// Bytes, those of earlier turns counting ever less.
    recent: u64,
    last: Monotonic,
}

impl EdgeTable {
    /// An empty table.
    pub fn new(plan: Plan) -> Self {
        Self { plan, inner: Mutex::default() }
    }

    /// Adds the flows of a batch, each at one interface of a role.
    pub fn add(&self, batch: &Batch) {
        self.add_at(batch, batch.tick.monotonic);
    }

    /// The same for a batch that may have waited, even since before the machine started: its own time says nothing of how
    /// long edges are idle. `now` never goes back.
    pub fn add_at(&self, batch: &Batch, now: Monotonic) {
        let again = seen_again(&batch.records);
        let mut inner = self.inner();
        for (record, _) in batch.records.iter().zip(again).filter(|(_, again)| !again) {
            inner.add(key_of(record), &Sums::of(record), now, self.plan.edges);
        }
        let turn = u64::try_from(TURN.as_nanos()).unwrap_or(u64::MAX);
        if now.0.saturating_sub(inner.turned.0) >= turn {
            inner.turned = now;
            inner.turn(now, self.plan);
        }
    }

    /// Everything, at this moment.
    pub fn snapshot(&self) -> EdgeSnapshot {
        let inner = self.inner();
        EdgeSnapshot {
            edges: inner.places.iter().map(|(key, place)| (key.clone(), place.sums)).collect(),
            others: inner.others.iter().map(|(role, sums)| (*role, *sums)).collect(),
            retired: inner.retired,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, key: EdgeKey, sums: &Sums, now: Monotonic, most: usize) {
        let is_known = key.source != Entity::Others;
        if let Some(place) = self.places.get_mut(&key) {
            place.add(sums, now);
        } else if is_known && self.places.len() < most {
            let mut place = Place { sums: Sums::from(now), recent: 0, last: now };
            place.add(sums, now);
            self.places.insert(key, place);
        } else {
            self.others.entry(key.role).or_insert_with(|| Sums::from(now)).add(sums);
            if !is_known {
                return;
            }
            // When this is full, the first of the next turn get in.
            if let Some(recent) = self.candidates.get_mut(&key) {
                *recent = recent.saturating_add(sums.bytes());
            } else if self.candidates.len() < most.saturating_mul(CANDIDATES) {
                self.candidates.insert(key, sums.bytes());
            }
        }
    }

    /// Takes places from edges that are idle or small, and gives them to the largest that have none.
    fn turn(&mut self, now: Monotonic, plan: Plan) {
        let idle = u64::try_from(plan.idle.as_nanos()).unwrap_or(u64::MAX);
        let before = self.places.len();
        self.places.retain(|_, place| now.0.saturating_sub(place.last.0) < idle);
        self.retired += (before - self.places.len()) as u64;

        let mut candidates: Vec<(EdgeKey, u64)> = self.candidates.drain().collect();
        candidates.sort_unstable_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        let mut weakest: Vec<(u64, EdgeKey)> =
            self.places.iter().map(|(key, place)| (place.recent, key.clone())).collect();
        weakest.sort_unstable();
        let mut weakest = weakest.into_iter();
        for (key, recent) in candidates {
            if self.places.len() >= plan.edges {
                // Twice as much, so that two of about the same size do not take turns.
                let Some((_, weaker)) = weakest.next().filter(|(bytes, _)| recent / 2 > *bytes) else {
                    break;
                };
                self.places.remove(&weaker);
                self.retired += 1;
            }
            self.places.insert(key, Place { sums: Sums::from(now), recent, last: now });
        }
        for place in self.places.values_mut() {
            place.recent /= 2;
        }
    }
}

impl Place {
    fn add(&mut self, sums: &Sums, now: Monotonic) {
        self.sums.add(sums);
        self.recent = self.recent.saturating_add(sums.bytes());
        self.last = now;
    }
}

impl Sums {
    fn from(since: Monotonic) -> Self {
        Self { since, ..Self::default() }
    }

    fn of(record: &Record) -> Self {
        let has_ended = record.end_reason.is_some();
        let failure = record.outcome.tcp_failure.filter(|_| has_ended);
        let is = |kind| u64::from(failure == Some(kind));
        Self {
            forward: record.delta.forward.count(),
            reverse: record.delta.reverse.count(),
            opened: u64::from(record.delta.count() == record.total.count()),
            closed: u64::from(has_ended),
            refused: is(TcpFailure::Refused),
            unanswered: is(TcpFailure::Unanswered),
            reset: is(TcpFailure::Reset),
            retransmits: record.quality.retransmits.unwrap_or(0).into(),
            reverse_retransmits: record.quality.reverse_retransmits.unwrap_or(0).into(),
            rtt: record.quality.rtt.unwrap_or_default(),
            rtts: u64::from(record.quality.rtt.is_some()),
            since: Monotonic::default(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.forward += other.forward;
        self.reverse += other.reverse;
        self.opened += other.opened;
        self.closed += other.closed;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.reset += other.reset;
        self.retransmits += other.retransmits;
        self.reverse_retransmits += other.reverse_retransmits;
        self.rtt = self.rtt.saturating_add(other.rtt);
        self.rtts += other.rtts;
    }

    /// What was added since `before`, an earlier state of the same sums.
    #[must_use]
    pub fn less(&self, before: &Self) -> Self {
        let count = |now: Count, before: Count| Count {
            packets: now.packets.saturating_sub(before.packets),
            bytes: now.bytes.saturating_sub(before.bytes),
        };
        Self {
            forward: count(self.forward, before.forward),
            reverse: count(self.reverse, before.reverse),
            opened: self.opened.saturating_sub(before.opened),
            closed: self.closed.saturating_sub(before.closed),
            refused: self.refused.saturating_sub(before.refused),
            unanswered: self.unanswered.saturating_sub(before.unanswered),
            reset: self.reset.saturating_sub(before.reset),
            retransmits: self.retransmits.saturating_sub(before.retransmits),
            reverse_retransmits: self.reverse_retransmits.saturating_sub(before.reverse_retransmits),
            rtt: self.rtt.saturating_sub(before.rtt),
            rtts: self.rtts.saturating_sub(before.rtts),
            since: self.since,
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::from(self.since)
    }

    fn bytes(&self) -> u64 {
        self.forward.bytes.saturating_add(self.reverse.bytes)
    }
}

/// The edge of a record, without a port that is most likely that of the client.
fn key_of(record: &Record) -> EdgeKey {
    let mut key = EdgeKey::of(record);
    if record.initiator == Initiator::LowerPort {
        key.port = key.port.filter(|port| *port < FIRST_EPHEMERAL);
    }
    key
}
