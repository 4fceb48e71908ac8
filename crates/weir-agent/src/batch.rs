//! [`Batch`]: records of one tick on their way to every consumer, with what they count at each observation point.

#[cfg(test)]
pub(crate) mod samples;
mod sightings;

use std::{
    collections::BTreeMap,
    ops::{AddAssign, SubAssign},
    sync::Arc,
    time::Duration,
};

pub(crate) use sightings::seen_again;
use weir_flow::{Count, PointId, Record, Tick, filter::Filter};

/// Most records of one batch. A tick with more yields several, so that its memory has a bound; what looks at all sightings
/// of a connection in one tick then misses those in another batch.
pub const MOST_RECORDS: usize = 32_768;

/// Records, and the packets and bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records whose forward direction was seen at the point.
    pub records: u64,
    /// What was counted at the point.
    pub count: Count,
}

/// Tallies by observation point.
pub type Tallies = BTreeMap<PointId, Tally>;

/// Records of one tick. Never changed once it is made: all consumers share it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The end of the interval.
    pub tick: Tick,
    /// Length of the interval.
    pub length: Duration,
    /// Flows that changed or ended in it.
    pub records: Box<[Record]>,
    /// What they count, by point.
    pub tallies: Tallies,
    /// Whether the interval has no more batches.
    pub is_last: bool,
    /// Points of the forward and the reverse direction of each record.
    places: Box<[[PointId; 2]]>,
}

/// Records that leave the flow table, with the points at which their forward and their reverse direction were counted.
#[derive(Debug, Default)]
pub struct Collected {
    /// The records.
    pub records: Vec<Record>,
    places: Vec<[PointId; 2]>,
}

impl Collected {
    /// Adds a record; says whether there are now as many as a batch may have.
    pub fn add(&mut self, record: Record, places: [PointId; 2]) -> bool {
        self.records.push(record);
        self.places.push(places);
        self.records.len() >= MOST_RECORDS
    }

    /// What all of them count.
    pub fn tallies(&self) -> Tallies {
        tallies(&self.records, &self.places)
    }

    /// A batch of those that match.
    pub fn into_batch(mut self, tick: Tick, length: Duration, filter: &Filter, is_last: bool) -> Arc<Batch> {
        if !filter.is_empty() {
            let matching: Vec<bool> = self.records.iter().map(|record| filter.matches(record)).collect();
            let mut keep = matching.iter();
            self.records.retain(|_| keep.next().copied().unwrap_or_default());
            let mut keep = matching.iter();
            self.places.retain(|_| keep.next().copied().unwrap_or_default());
        }
        let tallies = self.tallies();
        let (records, places) = (self.records.into_boxed_slice(), self.places.into_boxed_slice());
        Arc::new(Batch { tick, length, records, tallies, is_last, places })
    }
}

impl Batch {
    /// A batch that was read from a disk. What its records count was noted when it was written.
    pub(crate) fn restored(
        tick: Tick,
        length: Duration,
        records: Box<[Record]>,
        tallies: Tallies,
        is_last: bool,
    ) -> Self {
        let places = records.iter().map(|record| [record.point.id; 2]).collect();
        Self { tick, length, records, tallies, is_last, places }
    }

    /// The same interval with only those records that match.
    #[must_use]
    pub fn matching(&self, filter: &Filter) -> Self {
        let both = self.records.iter().zip(&self.places).filter(|(record, _)| filter.matches(record));
        let (records, places): (Vec<Record>, Vec<[PointId; 2]>) =
            both.map(|(record, places)| (record.clone(), *places)).unzip();
        let tallies = tallies(&records, &places);
        let (records, places) = (records.into_boxed_slice(), places.into_boxed_slice());
        Self { tick: self.tick, length: self.length, records, tallies, is_last: self.is_last, places }
    }
}

/// What is in `whole` and not in `part`.
pub(crate) fn without(whole: &Tallies, part: &Tallies) -> Tallies {
    let mut rest = whole.clone();
    for (id, tally) in part {
        *rest.entry(*id).or_default() -= *tally;
    }
    rest
}

/// What records count, each at its two points.
fn tallies(records: &[Record], places: &[[PointId; 2]]) -> Tallies {
    let mut tallies = Tallies::new();
    for (record, [forward, reverse]) in records.iter().zip(places) {
        let tally = tallies.entry(*forward).or_default();
        tally.records += 1;
        tally.count += record.delta.forward.count();
        let back = record.delta.reverse.count();
        if back != Count::default() {
            tallies.entry(*reverse).or_default().count += back;
        }
    }
    tallies
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.count += other.count;
    }
}

impl SubAssign for Tally {
    /// What is left; never less than nothing.
    fn sub_assign(&mut self, other: Self) {
        self.records = self.records.saturating_sub(other.records);
        self.count.packets = self.count.packets.saturating_sub(other.count.packets);
        self.count.bytes = self.count.bytes.saturating_sub(other.count.bytes);
    }
}
