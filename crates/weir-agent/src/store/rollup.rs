//! Sums of edges by intervals of time: what they are made of, and those that are not in the database yet.

use std::collections::{BTreeMap, BTreeSet};

use weir_flow::{Role, field::Field};

use super::{
    answer::Traffic,
    batch::Batch,
    database::Sum,
    entity::{EdgeKey, Entity},
    query::Range,
    tally::{Counted, Part, Side, Tally},
};

/// Most different edges in one interval. What exceeds it is summed up as one edge between others, per role.
pub(super) const MOST_EDGES: usize = 20_000;

/// How long the intervals of sums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Ten seconds.
    TenSeconds,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Level {
    /// Every level, the finest first.
    pub const ALL: [Self; 3] = [Self::TenSeconds, Self::Minute, Self::Hour];

    /// Seconds of an interval.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }

    /// Name of its table.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::TenSeconds => "edge_10s",
            Self::Minute => "edge_1m",
            Self::Hour => "edge_1h",
        }
    }

    /// Beginning of the interval that a moment is in, seconds since 1970.
    pub(super) const fn interval_of(self, seconds: i64) -> i64 {
        seconds.div_euclid(self.seconds()) * self.seconds()
    }

    /// The intervals that touch a span of time: beginning of the first, end of the last, seconds since 1970.
    pub(super) fn around(self, range: Range) -> (i64, i64) {
        let (since_ms, until_ms) = range.ms();
        let until = self.interval_of(until_ms.saturating_add(999).div_euclid(1_000) + self.seconds() - 1);
        (self.interval_of(since_ms.div_euclid(1_000)), until)
    }
}

/// What is summed: an edge, and whether the flows count elsewhere in the same role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SumKey {
    pub(super) edge: EdgeKey,
    pub(super) again: bool,
}

/// Sums that are not in the database yet.
#[derive(Default)]
pub(super) struct Pending {
    /// By beginning of the ten seconds, seconds since 1970.
    intervals: BTreeMap<i64, Tally>,
}

impl Pending {
    /// Adds the rows of a batch.
    pub(super) fn add(&mut self, batch: &Batch) {
        let starts = batch.times_ms().iter().map(|ms| Level::TenSeconds.interval_of(ms.div_euclid(1_000)));
        let starts: Vec<i64> = starts.collect();
        // The rows of a tick are of one time; nothing depends on that.
        for start in starts.iter().collect::<BTreeSet<_>>() {
            let selected: Vec<bool> = starts.iter().map(|other| other == start).collect();
            self.intervals.entry(*start).or_insert_with(edge_tally).add(batch, &selected, 0);
        }
    }

    /// Hands out everything. What an interval has no room for, or its tally had none for, is between others.
    pub(super) fn each(&self, each: &mut dyn FnMut(Sum<'_>)) {
        for (start, tally) in &self.intervals {
            for group in 0..tally.len() {
                let mut key = sum_key(tally, group);
                if group >= MOST_EDGES {
                    key.edge = others(key.edge.role);
                }
                each(Sum { start: *start, number: None, key: &key, traffic: &traffic(tally, group) });
            }
            for (role, sums) in tally.others() {
                let key = SumKey { edge: others(*role), again: false };
                let traffic =
                    Traffic { records: sums.flows, opened: 0, forward: sums.forward, reverse: sums.reverse };
                each(Sum { start: *start, number: None, key: &key, traffic: &traffic });
            }
        }
    }

    /// Forgets everything: it is in the database.
    pub(super) fn clear(&mut self) {
        self.intervals.clear();
    }
}

/// A tally of edges.
pub(super) fn edge_tally() -> Tally {
    let field = |name| Field::by_name(name).expect("the table of fields has it");
    let parts = vec![
        Part::End(Side::Source),
        Part::End(Side::Destination),
        Part::Field(field("network.transport")),
        Part::Field(field("destination.port")),
        Part::Again,
    ];
    Tally::by(parts, Counted::Opened)
}

/// What a group of an edge tally is about.
pub(super) fn sum_key(tally: &Tally, group: usize) -> SumKey {
    let names = tally.names();
    let mut ends = tally.parts(group).filter_map(|(part, words)| part.entity(words, names));
    let mut end = || ends.next().unwrap_or(Entity::Others);
    let (source, destination) = (end(), end());
    let mut values = tally.values(group).into_iter();
    let mut number = || match values.next() {
        Some(weir_flow::field::Value::Protocol(number)) => Some(u16::from(number)),
        Some(weir_flow::field::Value::Integer(number)) => u16::try_from(number).ok(),
        _ => None,
    };
    let transport = number().and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
    let port = number();
    let again = tally.parts(group).any(|(part, words)| matches!(part, Part::Again) && words[0] == 1);
    SumKey { edge: EdgeKey { source, destination, transport, port, role: tally.role(group) }, again }
}

/// The sum of a group.
pub(super) fn traffic(tally: &Tally, group: usize) -> Traffic {
    let total = tally.total(group);
    Traffic {
        records: total.sums.flows,
        opened: total.opened,
        forward: total.sums.forward,
        reverse: total.sums.reverse,
    }
}

/// The edge of what there was no room for.
pub(super) fn others(role: Role) -> EdgeKey {
    EdgeKey { source: Entity::Others, destination: Entity::Others, transport: 0, port: None, role }
}
