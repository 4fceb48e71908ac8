//! Answers from raw flows: edges, courses, flows, groups, values.

use std::{collections::HashMap, ops::ControlFlow};

use weir_flow::{
    Record, Role, Wall,
    field::Field,
    filter::Filter,
    group::{Group, Sums, by_role},
};

use super::EmbeddedStore;
use crate::store::{
    Coverage, Cut, Edge, EdgeKey, EdgeQuery, Edges, FlowQuery, Flows, Hint, HintQuery, Hints, Limits, Origin,
    Range, Rows, Series, SeriesQuery, StoreError, Traffic,
    answer::{edges_of, series_of},
    query::Precision,
    rollup::{edge_tally, sum_key, traffic},
    scan::{Scan, Scanned, Snapshot},
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sightings {
    /// All.
    All,
    /// One of each role.
    Once,
}

impl EmbeddedStore {
    pub(super) fn read_edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        let can_sum = query.filter.fields().iter().all(|field| EdgeKey::knows(field.name));
        if query.precision == Precision::Rollup && can_sum {
            return self.summed_edges(query);
        }
        let mut tally = edge_tally();
        let (_, coverage) =
            self.tally(&mut tally, query.range, &query.filter, query.limits, Sightings::Once)?;
        let edges = (0..tally.len())
            .map(|group| Edge { key: sum_key(&tally, group).edge, traffic: traffic(&tally, group) })
            .collect();
        let folded = tally.others().iter().map(|(role, sums)| (*role, of_sums(sums))).collect();
        Ok(edges_of(edges, folded, query.limits.rows, coverage))
    }

    pub(super) fn read_series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        let fields = query.filter.fields();
        let mut asked = fields.iter().chain(&query.group_by);
        let step = super::rollups::step(query);
        if asked.all(|field| EdgeKey::knows(field.name))
            && let Some(level) = super::rollups::level_of(step)
        {
            return self.summed_series(query, step, level);
        }
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        // Intervals begin at whole multiples of their length, as those of sums do.
        let (since_ms, until_ms) = query.range.ms();
        let (since_ms, until_ms) =
            (since_ms.div_euclid(step_ms) * step_ms, -(-until_ms).div_euclid(step_ms) * step_ms);
        let range = Range { since: wall(since_ms), until: wall(until_ms) };
        let mut parts: Vec<Part> = query.group_by.iter().map(|field| Part::Field(field)).collect();
        parts.push(Part::Interval { since_ms, step_ms });
        let mut tally = Tally::by(parts, Counted::Opened);
        let (_, coverage) = self.tally(&mut tally, range, &query.filter, query.limits, Sightings::Once)?;
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

    pub(super) fn read_flows(&self, query: &FlowQuery) -> Result<Flows, StoreError> {
        let identity = || IDENTITY.iter().filter_map(|name| Field::by_name(name));
        let parts: Vec<Part> = if query.group_by.is_empty() {
            identity().map(Part::Field).chain([Part::Start]).collect()
        } else {
            query.group_by.iter().map(|field| Part::Field(field)).collect()
        };
        let counted = if query.group_by.is_empty() { Counted::Buffers } else { Counted::Plain };
        let mut tally = Tally::by(parts, counted);
        let (scanned, mut coverage) =
            self.tally(&mut tally, query.range, &query.filter, query.limits, Sightings::All)?;
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
            let (records, missing) = self.records(&tally, &shown, &scanned);
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

    pub(super) fn read_hints(&self, query: &HintQuery) -> Result<Hints, StoreError> {
        let mut tally = Tally::by(vec![Part::Field(query.field)], Counted::Plain);
        let (_, mut coverage) =
            self.tally(&mut tally, query.range, &Filter::default(), query.limits, Sightings::All)?;
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

    /// Adds up what matches, and says what that covers.
    fn tally(
        &self,
        tally: &mut Tally,
        range: Range,
        filter: &Filter,
        limits: Limits,
        sightings: Sightings,
    ) -> Result<(Scanned, Coverage), StoreError> {
        let snapshot = self.snapshot()?;
        let scan = Scan {
            directory: &self.directory,
            snapshot: &snapshot,
            range,
            filter,
            columns: tally.columns(),
            spare: tally.spare(),
            time: limits.time,
        };
        let scanned = scan.run(&mut |batch, selected, source| {
            match sightings {
                Sightings::All => tally.add(batch, selected, source),
                Sightings::Once => {
                    let mut selected = selected.to_vec();
                    counted_once(batch, &mut selected);
                    tally.add(batch, &selected, source);
                }
            }
            if tally.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut cuts = scanned.cuts.clone();
        if tally.has_folded() && !cuts.contains(&Cut::Memory) {
            cuts.push(Cut::Memory);
        }
        cuts.extend(not_kept(&snapshot, range));
        cuts.extend(self.set_aside(range)?);
        let range = Range { since: scanned.since.unwrap_or(range.since), ..range };
        Ok((scanned, Coverage { range, origin: Origin::Raw, cuts }))
    }

    /// Files of the time that were set aside.
    fn set_aside(&self, range: Range) -> Result<Vec<Cut>, StoreError> {
        let (since_ms, until_ms) = range.ms();
        let damaged = self.directory.list()?.damaged.into_iter();
        let is_of_the_time = |name: &String| {
            crate::store::directory::SegmentName::of_damaged(name)
                .is_none_or(|segment| segment.last_ms >= since_ms && segment.first_ms < until_ms)
        };
        Ok(damaged.filter(is_of_the_time).map(Cut::Damaged).collect())
    }

    /// The last records of the flows that are shown, with the counters of the whole span, and the sums of those whose
    /// file is gone by now.
    fn records(&self, tally: &Tally, shown: &[usize], scanned: &Scanned) -> (Vec<Record>, Vec<(Role, Sums)>) {
        let mut order: Vec<(Place, usize)> =
            shown.iter().enumerate().map(|(rank, group)| (tally.total(*group).latest, rank)).collect();
        order.sort_unstable();
        let mut ranked: Vec<(usize, Record)> = Vec::with_capacity(shown.len());
        let mut missing = Vec::new();
        for places in order.chunk_by(|(left, _), (right, _)| left.source == right.source) {
            let rows: Vec<u32> = places.iter().map(|(place, _)| place.row).collect();
            let records = scanned.records(&self.directory, places[0].0.source, &rows);
            for ((_, rank), record) in places.iter().zip(records) {
                let total = tally.total(shown[*rank]);
                match record {
                    Some(mut record) => {
                        let delta = &mut record.delta;
                        for (traffic, count, skbs) in [
                            (&mut delta.forward, total.sums.forward, total.skbs[0]),
                            (&mut delta.reverse, total.sums.reverse, total.skbs[1]),
                        ] {
                            (traffic.packets, traffic.bytes, traffic.skbs) =
                                (count.packets, count.bytes, skbs);
                        }
                        ranked.push((*rank, record));
                    }
                    None => missing.push((tally.role(shown[*rank]), total.sums)),
                }
            }
        }
        ranked.sort_unstable_by_key(|(rank, _)| *rank);
        (ranked.into_iter().map(|(_, record)| record).collect(), missing)
    }
}

/// Says so where the question goes back further than the store.
fn not_kept(snapshot: &Snapshot, range: Range) -> Option<Cut> {
    let segments = snapshot.segments.first().map(|name| name.first_ms);
    let open = snapshot.open.iter().find(|batch| batch.rows > 0).map(|batch| batch.first_ms());
    let oldest = wall(segments.into_iter().chain(open).min()?);
    (oldest > range.since).then_some(Cut::Before(oldest))
}

fn of_sums(sums: &Sums) -> Traffic {
    Traffic { records: sums.flows, opened: 0, forward: sums.forward, reverse: sums.reverse }
}

/// A moment.
pub(super) fn wall(ms: i64) -> Wall {
    Wall(u64::try_from(ms).unwrap_or_default().saturating_mul(1_000_000))
}
