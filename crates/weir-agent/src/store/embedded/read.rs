//! Answers of this store: from sums where they can, else from raw flows.

use std::ops::ControlFlow;

use weir_flow::Record;

use super::EmbeddedStore;
use crate::store::{
    Coverage, Cut, EdgeKey, EdgeQuery, Edges, Origin, Range, Series, SeriesQuery, StoreError,
    answering::{self, Asked, Raw, wall},
    query::Precision,
    scan::{Scan, Scanned, Snapshot},
    tally::{Place, Tally},
};

impl EmbeddedStore {
    pub(super) fn read_edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        let can_sum = query.filter.fields().iter().all(|field| EdgeKey::knows(field.name));
        if query.precision == Precision::Rollup && can_sum {
            return self.summed_edges(query);
        }
        answering::edges(self, query)
    }

    pub(super) fn read_series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        let fields = query.filter.fields();
        let mut asked = fields.iter().chain(&query.group_by);
        let step = query.step_length();
        if asked.all(|field| EdgeKey::knows(field.name))
            && let Some(level) = super::rollups::level_of(step)
        {
            return self.summed_series(query, step, level);
        }
        answering::series(self, query, step)
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
}

impl Raw for EmbeddedStore {
    type Scanned = Scanned;

    fn add_up(&self, tally: &mut Tally, asked: Asked<'_>) -> Result<(Scanned, Coverage), StoreError> {
        let Asked { range, filter, limits, sightings, .. } = asked;
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
            sightings.add(tally, batch, selected, source);
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

    fn records(&self, scanned: &Scanned, places: &[Place]) -> Result<Vec<Option<Record>>, StoreError> {
        let mut records = Vec::with_capacity(places.len());
        for places in places.chunk_by(|left, right| left.source == right.source) {
            let rows: Vec<u32> = places.iter().map(|place| place.row).collect();
            records.extend(scanned.records(&self.directory, places[0].source, &rows));
        }
        Ok(records)
    }
}

/// Says so where the question goes back further than the store.
fn not_kept(snapshot: &Snapshot, range: Range) -> Option<Cut> {
    let segments = snapshot.segments.first().map(|name| name.first_ms);
    let open = snapshot.open.iter().find(|batch| batch.rows > 0).map(|batch| batch.first_ms());
    let oldest = wall(segments.into_iter().chain(open).min()?);
    (oldest > range.since).then_some(Cut::Before(oldest))
}
