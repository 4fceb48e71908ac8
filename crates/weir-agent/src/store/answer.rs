//! What a store answers.

use std::{cmp::Reverse, collections::HashMap, ops::AddAssign, time::Duration};

use weir_flow::{
    Count, Record, Role, Wall,
    field::{Field, Value},
    group::{Group, Sums},
};

use super::{
    entity::EdgeKey,
    query::{Range, SeriesQuery},
    rollup::Level,
};

/// What an answer covers, and what it leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The span of time that was looked at: that of the question, grown to whole intervals of sums, or less where the
    /// answer was cut.
    pub range: Range,
    /// Where it comes from.
    pub origin: Origin,
    /// Why it is less than was asked for; empty if it is not.
    pub cuts: Vec<Cut>,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Raw flows.
    Raw,
    /// Sums.
    Rollup(Level),
}

/// Why an answer is less than was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// There was more than the limit; the answer has the sum of the others.
    Rows(usize),
    /// Reading took longer than allowed. What is older than the range of the answer was not looked at.
    Time(Duration),
    /// There were too many different things: small ones may be summed up as others, also those that grew later.
    Memory,
    /// Older rows are no longer kept, or never were.
    Before(Wall),
    /// A file could not be read.
    Damaged(String),
}

/// Packets and bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records that were summed.
    pub records: u64,
    /// Flows that began.
    pub opened: u64,
    /// From source to destination.
    pub forward: Count,
    /// From destination to source.
    pub reverse: Count,
}

/// The traffic between two entities, on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Between whom.
    pub key: EdgeKey,
    /// How much.
    pub traffic: Traffic,
}

/// The service map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edges {
    /// The most bytes first.
    pub edges: Vec<Edge>,
    /// What is not listed, by role.
    pub others: Vec<(Role, Traffic)>,
    /// What this covers.
    pub coverage: Coverage,
}

/// One course over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The role at which it was counted.
    pub role: Role,
    /// The values of the fields that were grouped by.
    pub values: Vec<Value<'static>>,
    /// One for each interval.
    pub points: Vec<Traffic>,
}

/// Courses over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Length of an interval. The first begins where the range of the coverage does.
    pub step: Duration,
    /// The fields that were grouped by.
    pub fields: Vec<&'static Field>,
    /// The most bytes first.
    pub lines: Vec<Line>,
    /// What is not among the lines, by role.
    pub others: Vec<(Role, Traffic)>,
    /// What this covers.
    pub coverage: Coverage,
}

/// Flows or groups.
#[derive(Clone, Debug)]
pub struct Flows {
    /// The most bytes first.
    pub rows: Rows,
    /// What is not among the rows, by role.
    pub others: Vec<(Role, Sums)>,
    /// Everything, by role.
    pub totals: Vec<(Role, Sums)>,
    /// What this covers.
    pub coverage: Coverage,
}

/// Rows of an answer about flows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// One for each flow and interface: the last record of the flow in the span of time, whose counters of the interval
    /// are those of the whole span.
    Flows(Vec<Record>),
    /// One for each combination of values.
    Groups(Vec<Group<'static>>),
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The value.
    pub value: Value<'static>,
    /// Records that had it.
    pub records: u64,
    /// Bytes of these records, both directions, at the role where there were most.
    pub bytes: u64,
}

/// Values of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The most bytes first.
    pub hints: Vec<Hint>,
    /// What this covers.
    pub coverage: Coverage,
}

impl Traffic {
    /// Bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.forward.bytes + self.reverse.bytes
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.opened += other.opened;
        self.forward += other.forward;
        self.reverse += other.reverse;
    }
}

/// Makes an answer of edges: each at one role, the largest first, the rest summed up.
pub(super) fn edges_of(
    mut edges: Vec<Edge>,
    folded: Vec<(Role, Traffic)>,
    limit: usize,
    mut coverage: Coverage,
) -> Edges {
    let rank = |role: Role| Role::ALL.iter().position(|candidate| *candidate == role);
    edges.sort_by(|Edge { key: left, .. }, Edge { key: right, .. }| {
        let between = |key: &EdgeKey| (key.transport, key.port, rank(key.role));
        (&left.source, &left.destination, between(left)).cmp(&(
            &right.source,
            &right.destination,
            between(right),
        ))
    });
    edges.dedup_by(|later, first| {
        let (later, first) = (&later.key, &first.key);
        (&later.source, &later.destination, later.transport, later.port)
            == (&first.source, &first.destination, first.transport, first.port)
    });
    edges.sort_by_key(|edge| Reverse(edge.traffic.bytes()));
    let rest = edges.split_off(limit.min(edges.len()));
    if !rest.is_empty() {
        coverage.cuts.push(Cut::Rows(limit));
    }
    let rest = rest.into_iter().map(|edge| (edge.key.role, edge.traffic));
    Edges { edges, others: added(rest.chain(folded)), coverage }
}

/// Makes courses of points: the largest first, the rest summed up.
pub(super) fn series_of(
    points: impl Iterator<Item = ((Role, Vec<Value<'static>>), usize, Traffic)>,
    intervals: usize,
    step: Duration,
    query: &SeriesQuery,
    mut coverage: Coverage,
) -> Series {
    let mut lines: HashMap<(Role, Vec<Value<'static>>), Vec<Traffic>> = HashMap::new();
    for (line, interval, traffic) in points {
        let points = lines.entry(line).or_insert_with(|| vec![Traffic::default(); intervals]);
        if let Some(point) = points.get_mut(interval) {
            *point += traffic;
        }
    }
    let mut lines: Vec<Line> =
        lines.into_iter().map(|((role, values), points)| Line { role, values, points }).collect();
    let bytes = |line: &Line| line.points.iter().map(Traffic::bytes).sum::<u64>();
    lines.sort_by(|left, right| {
        (Reverse(bytes(left)), left.role, &left.values).cmp(&(
            Reverse(bytes(right)),
            right.role,
            &right.values,
        ))
    });
    let rest = lines.split_off(query.limits.rows.min(lines.len()));
    if !rest.is_empty() {
        coverage.cuts.push(Cut::Rows(query.limits.rows));
    }
    let rest = rest.iter().flat_map(|line| line.points.iter().map(|point| (line.role, *point)));
    Series { step, fields: query.group_by.clone(), others: added(rest), lines, coverage }
}

/// Sums by role, in the order in which totals prefer roles.
fn added(items: impl Iterator<Item = (Role, Traffic)>) -> Vec<(Role, Traffic)> {
    let mut sums = Role::ALL.map(|role| (role, Traffic::default()));
    for (role, traffic) in items {
        for (_, sum) in sums.iter_mut().filter(|(candidate, _)| *candidate == role) {
            *sum += traffic;
        }
    }
    sums.into_iter().filter(|(_, sum)| *sum != Traffic::default()).collect()
}
