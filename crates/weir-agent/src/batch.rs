//! [`Batch`]: records of one tick on their way to every consumer, with what they count at each observation point.

#[cfg(test)]
pub(crate) mod samples;

use std::{
    collections::BTreeMap,
    ops::{AddAssign, SubAssign},
    sync::Arc,
    time::Duration,
};

use weir_flow::{Count, PointId, Record, Tick, filter::Filter};

/// Most records of one batch; a tick with more yields several.
pub const MOST_RECORDS: usize = 4096;

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

/// Collects the records of one tick and cuts them into batches.
#[derive(Debug)]
pub struct Batches {
    tick: Tick,
    length: Duration,
    records: Vec<Record>,
    places: Vec<[PointId; 2]>,
    tallies: Tallies,
}

impl Batches {
    /// Begins a tick.
    pub fn new(tick: Tick, length: Duration) -> Self {
        Self { tick, length, records: Vec::new(), places: Vec::new(), tallies: Tallies::new() }
    }

    /// Adds a record that was counted at these points (of its forward and its reverse direction); gives back a batch
    /// whenever one is full.
    pub fn add(&mut self, record: Record, place: [PointId; 2]) -> Option<Arc<Batch>> {
        add_to(&mut self.tallies, place, &record);
        self.places.push(place);
        self.records.push(record);
        (self.records.len() >= MOST_RECORDS).then(|| self.cut(false))
    }

    /// Ends the tick; the last batch may be empty.
    pub fn finish(mut self) -> Arc<Batch> {
        self.cut(true)
    }

    fn cut(&mut self, is_last: bool) -> Arc<Batch> {
        Arc::new(Batch {
            tick: self.tick,
            length: self.length,
            records: std::mem::take(&mut self.records).into_boxed_slice(),
            tallies: std::mem::take(&mut self.tallies),
            is_last,
            places: std::mem::take(&mut self.places).into_boxed_slice(),
        })
    }
}

impl Batch {
    /// The same interval with only those records that match.
    #[must_use]
    pub fn matching(&self, filter: &Filter) -> Self {
        let mut chosen = Self {
            tick: self.tick,
            length: self.length,
            records: Box::default(),
            tallies: Tallies::new(),
            is_last: self.is_last,
            places: Box::default(),
        };
        let (mut records, mut places) = (Vec::new(), Vec::new());
        for (record, place) in self.records.iter().zip(&self.places) {
            if filter.matches(record) {
                add_to(&mut chosen.tallies, *place, record);
                records.push(record.clone());
                places.push(*place);
            }
        }
        (chosen.records, chosen.places) = (records.into_boxed_slice(), places.into_boxed_slice());
        chosen
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

/// Adds what a record counts at its two points.
pub(crate) fn add_to(tallies: &mut Tallies, [forward, reverse]: [PointId; 2], record: &Record) {
    let tally = tallies.entry(forward).or_default();
    tally.records += 1;
    tally.count += record.delta.forward.count();
    let back = record.delta.reverse.count();
    if back != Count::default() {
        tallies.entry(reverse).or_default().count += back;
    }
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
