//! Answers from raw flows, for every store that can hand out its rows in columns: edges, courses, flows, groups, values.
//!
//! A store reads ([`Raw`]); what is made of the rows is the same for all, so all give the same answers.

use std::{collections::HashMap, time::Duration};

use weir_flow::{
    Record, Role, Wall,
    field::Field,
    filter::Filter,
    group::{Group, Sums, by_role},
};

use super::{
    Coverage, Cut, Edge, EdgeQuery, Edges, FlowQuery, Flows, Hint, HintQuery, Hints, Limits, Range, Rows,
    Series, SeriesQuery, StoreError, Traffic,
    answer::{edges_of, series_of},
    batch::Batch,
    rollup::{edge_tally, sum_key, traffic},
    tally::{Counted, Part, Place, Tally, counted_once},
};

/// Fields that tell flows apart, besides when they began.
const IDENTITY: [&str; 12] = [
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "network.transport",
    "network.type",
    "network.interface.name",
    "network.netns",
    "flow.icmp.type",
    "flow.icmp.code",
    "flow.vlan",
    "flow.detail",
];

/// Which rows of several sightings of a flow are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sightings {
    /// All.
    All,
    /// One of each role.
    Once,
}

/// Which rows are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'q> {
    pub(super) range: Range,
    pub(super) filter: &'q Filter,
    pub(super) limits: Limits,
    pub(super) sightings: Sightings,
    /// Whether some of them will be asked for once more, by their places.
    pub(super) again: bool,
}

/// Raw flows that can be read.
pub(super) trait Raw {
    /// What it takes to find rows again.
    type Scanned;

    /// Adds up what matches, and says what that covers.
    fn add_up(&self, tally: &mut Tally, asked: Asked<'_>) -> Result<(Self::Scanned, Coverage), StoreError>;

    /// The records at places of [`Raw::add_up`], which are in order. Those that are gone by now are missing.
    fn records(&self, scanned: &Self::Scanned, places: &[Place]) -> Result<Vec<Option<Record>>, StoreError>;
}

impl Sightings {
    /// Adds the selected rows that count.
    pub(super) fn add(self, tally: &mut Tally, batch: &Batch, selected: &[bool], source: u32) {
        match self {
            Self::All => tally.add(batch, selected, source),
            Self::Once => {
                let mut selected = selected.to_vec();
                counted_once(batch, &mut selected);
                tally.add(batch, &selected, source);
            }
        }
    }
}

/// The service map.
pub(super) fn edges(raw: &impl Raw, query: &EdgeQuery) -> Result<Edges, StoreError> {
    let mut tally = edge_tally();
    let asked = once(query.range, &query.filter, query.limits);
    let (_, coverage) = raw.add_up(&mut tally, asked)?;
    let edges = (0..tally.len())
        .map(|group| Edge { key: sum_key(&tally, group).edge, traffic: traffic(&tally, group) })
        .collect();
    let folded = tally.others().iter().map(|(role, sums)| (*role, of_sums(sums))).collect();
    Ok(edges_of(edges, folded, query.limits.rows, coverage))
}

fn once(range: Range, filter: &Filter, limits: Limits) -> Asked<'_> {
    Asked { range, filter, limits, sightings: Sightings::Once, again: false }
}

/// Courses over time, of intervals of this length.
pub(super) fn series(raw: &impl Raw, query: &SeriesQuery, step: Duration) -> Result<Series, StoreError> {
    let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    // Intervals begin at whole multiples of their length, as those of sums do.
    let (since_ms, until_ms) = query.range.ms();
    let (since_ms, until_ms) =
        (since_ms.div_euclid(step_ms) * step_ms, -(-until_ms).div_euclid(step_ms) * step_ms);
    let range = Range { since: wall(since_ms), until: wall(until_ms) };
    let mut parts: Vec<Part> = query.group_by.iter().map(|field| Part::Field(field)).collect();
    parts.push(Part::Interval { since_ms, step_ms });
    let mut tally = Tally::by(parts, Counted::Opened);
    let (_, coverage) = raw.add_up(&mut tally, once(range, &query.filter, query.limits))?;
    let points = (0..tally.len()).map(|group| {
        let interval = tally.parts(group).find_map(|(part, words)| match part {
            Part::Interval { .. } => Some(words[0] as usize),
            _ => None,
        });
        let interval = interval.unwrap_or_default();
        ((tally.role(group), tally.values(group)), interval, traffic(&tally, group))
    });
    let intervals = usize::try_from((until_ms - since_ms) / step_ms).unwrap_or_default();
    let coverage = Coverage { range: Range { since: range.since, ..coverage.range }, ..coverage };
    Ok(series_of(points, intervals, step, query, coverage))
}

/// Flows, or groups of them.
pub(super) fn flows(raw: &impl Raw, query: &FlowQuery) -> Result<Flows, StoreError> {
    let identity = || IDENTITY.iter().filter_map(|name| Field::by_name(name));
    let parts: Vec<Part> = if query.group_by.is_empty() {
        identity().map(Part::Field).chain([Part::Start]).collect()
    } else {
        query.group_by.iter().map(|field| Part::Field(field)).collect()
    };
    let counted = if query.group_by.is_empty() { Counted::Buffers } else { Counted::Plain };
    let mut tally = Tally::by(parts, counted);
    let again = query.group_by.is_empty();
    let asked = Asked {
        range: query.range,
        filter: &query.filter,
        limits: query.limits,
        sightings: Sightings::All,
        again,
    };
    let (scanned, mut coverage) = raw.add_up(&mut tally, asked)?;
    if query.group_by.is_empty() {
        // Each group is one flow, however often it was recorded.
        tally.count_once();
    }
    let (shown, mut others) = tally.ranked(query.limits.rows);
    if tally.len() > shown.len() {
        coverage.cuts.push(Cut::Rows(query.limits.rows));
    }
    let listed = shown.iter().map(|group| (tally.role(*group), tally.total(*group).sums));
    let totals = by_role(&listed.chain(others.iter().copied()).collect::<Vec<_>>());
    let rows = if query.group_by.is_empty() {
        let (records, missing) = latest(raw, &tally, &shown, &scanned)?;
        others = by_role(&[others, missing].concat());
        Rows::Flows(records)
    } else {
        let group = |group: &usize| {
            let (values, role) = (tally.values(*group), tally.role(*group));
            Group { values, role, sums: tally.total(*group).sums }
        };
        Rows::Groups(shown.iter().map(group).collect())
    };
    Ok(Flows { rows, others, totals, coverage })
}

/// Values of a field.
pub(super) fn hints(raw: &impl Raw, query: &HintQuery) -> Result<Hints, StoreError> {
    let mut tally = Tally::by(vec![Part::Field(query.field)], Counted::Plain);
    let every = Filter::default();
    let asked = Asked {
        range: query.range,
        filter: &every,
        limits: query.limits,
        sightings: Sightings::All,
        again: false,
    };
    let (_, mut coverage) = raw.add_up(&mut tally, asked)?;
    let prefix = query.prefix.to_lowercase();
    let mut by_value: HashMap<String, Hint> = HashMap::new();
    for group in 0..tally.len() {
        let Some(value) = tally.values(group).pop().filter(|value| !value.is_absent()) else { continue };
        let text = value.to_string();
        if !text.to_lowercase().starts_with(&prefix) {
            continue;
        }
        let sums = tally.total(group).sums;
        let hint = by_value.entry(text).or_insert(Hint { value, records: 0, bytes: 0 });
        // Those of other roles may be the same packets.
        if sums.both().bytes >= hint.bytes {
            (hint.records, hint.bytes) = (sums.flows, sums.both().bytes);
        }
    }
    let mut hints: Vec<(String, Hint)> = by_value.into_iter().collect();
    hints.sort_by(|(left, a), (right, b)| (b.bytes, left).cmp(&(a.bytes, right)));
    if hints.len() > query.limits.rows {
        hints.truncate(query.limits.rows);
        coverage.cuts.push(Cut::Rows(query.limits.rows));
    }
    Ok(Hints { hints: hints.into_iter().map(|(_, hint)| hint).collect(), coverage })
}

/// Records of flows, and the sums of those without one.
type Latest = (Vec<Record>, Vec<(Role, Sums)>);

/// The last records of the flows that are shown, with the counters of the whole span, and the sums of those whose
/// row is gone by now.
fn latest<R: Raw>(
    raw: &R,
    tally: &Tally,
    shown: &[usize],
    scanned: &R::Scanned,
) -> Result<Latest, StoreError> {
    let mut order: Vec<(Place, usize)> =
        shown.iter().enumerate().map(|(rank, group)| (tally.total(*group).latest, rank)).collect();
    order.sort_unstable();
    let mut ranked: Vec<(usize, Record)> = Vec::with_capacity(shown.len());
    let mut missing = Vec::new();
    let places: Vec<Place> = order.iter().map(|(place, _)| *place).collect();
    for ((_, rank), record) in order.iter().zip(raw.records(scanned, &places)?) {
        let total = tally.total(shown[*rank]);
        match record {
            Some(mut record) => {
                let delta = &mut record.delta;
                for (traffic, count, skbs) in [
                    (&mut delta.forward, total.sums.forward, total.skbs[0]),
                    (&mut delta.reverse, total.sums.reverse, total.skbs[1]),
                ] {
                    (traffic.packets, traffic.bytes, traffic.skbs) = (count.packets, count.bytes, skbs);
                }
                ranked.push((*rank, record));
            }
            None => missing.push((tally.role(shown[*rank]), total.sums)),
        }
    }
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    Ok((ranked.into_iter().map(|(_, record)| record).collect(), missing))
}

fn of_sums(sums: &Sums) -> Traffic {
    Traffic { records: sums.flows, opened: 0, forward: sums.forward, reverse: sums.reverse }
}

/// A moment.
pub(super) fn wall(ms: i64) -> Wall {
    Wall(u64::try_from(ms).unwrap_or_default().saturating_mul(1_000_000))
}
