//! Reads raw flows: the newest first, only the columns that are needed, only files and row groups of the time.
//!
//! A thread reads ahead while what was read is taken, which takes about half as long.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use weir_flow::{Record, Wall, filter::Filter};

use super::{
    answer::Cut,
    batch::Batch,
    directory::{Directory, SegmentName},
    query::Range,
    schema::{self, COLUMNS, RECORDED},
    segment::{Reader, Unreadable},
    tally::Spare,
};

/// All raw flows at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// In the order of their numbers.
    pub(super) segments: Arc<Vec<SegmentName>>,
    /// Rows that are in no segment yet, in the order in which they came.
    pub(super) open: Vec<Arc<Batch>>,
}

/// What to read.
pub(super) struct Scan<'a> {
    pub(super) directory: &'a Directory,
    pub(super) snapshot: &'a Snapshot,
    pub(super) range: Range,
    pub(super) filter: &'a Filter,
    /// Columns that are needed of the rows that match.
    pub(super) columns: Vec<usize>,
    /// Those of them that can sometimes be spared.
    pub(super) spare: Vec<Spare>,
    /// Longest time that reading may take.
    pub(super) time: Duration,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Where the numbers of sources lead.
    sources: Vec<Source>,
    pub(super) cuts: Vec<Cut>,
    /// Beginning of what was read, where that is later than was asked for.
    pub(super) since: Option<Wall>,
}

#[derive(Clone, Debug)]
enum Source {
    Open(Arc<Batch>),
    Group { segment: SegmentName, group: usize },
}

/// Batches that are read before somebody takes them.
const AHEAD: usize = 4;

/// What the reading thread hands over.
enum Part {
    /// Rows, and which of them match.
    Rows { segment: SegmentName, group: usize, batch: Batch, selected: Vec<bool> },
    /// Time is up before this was read.
    Late { at_ms: i64 },
    /// This could not be read.
    Unreadable(SegmentName),
}

/// Takes matching rows: the batch, which of its rows match, and the number of the source.
pub(super) type Take<'t> = &'t mut dyn FnMut(&Batch, &[bool], u32) -> ControlFlow<()>;

impl Scan<'_> {
    /// Reads everything that matches.
    pub(super) fn run(&self, take: Take<'_>) -> Scanned {
        let started = Instant::now();
        let mut scanned = Scanned::default();
        let (since_ms, until_ms) = self.range.ms();
        let first_of = |batch: &Batch| if batch.rows == 0 { i64::MAX } else { batch.first_ms() };
        for batch in self.snapshot.open.iter().rev() {
            if first_of(batch) < until_ms && self.whole(batch, take, &mut scanned).is_break() {
                return self.stopped(first_of(batch), Cut::Memory, scanned);
            }
        }
        let segments = self.snapshot.segments.iter().rev();
        let segments: Vec<&SegmentName> =
            segments.filter(|segment| segment.last_ms >= since_ms && segment.first_ms < until_ms).collect();
        thread::scope(|scope| {
            let (ready, parts) = sync_channel(AHEAD);
            let segments = &segments;
            scope.spawn(move || self.read_ahead(segments, started, &ready));
            // Rows of a segment are in no order of time, so one that was begun is taken to its end.
            let mut last: Option<(SegmentName, ControlFlow<()>)> = None;
            for part in parts {
                match part {
                    Part::Rows { segment, group, batch, selected } => {
                        if let Some((earlier, ControlFlow::Break(()))) = &last
                            && *earlier != segment
                        {
                            return self.stopped(earlier.first_ms, Cut::Memory, scanned);
                        }
                        scanned.begin(&segment, group);
                        last = Some((segment, take(&batch, &selected, scanned.last_source())));
                    }
                    Part::Late { at_ms } => return self.stopped(at_ms, Cut::Time(self.time), scanned),
                    Part::Unreadable(segment) => scanned.cuts.push(Cut::Damaged(segment.to_string())),
                }
            }
            scanned
        })
    }

    /// Reads segments until nobody wants more.
    fn read_ahead(&self, segments: &[&SegmentName], started: Instant, ready: &SyncSender<Part>) {
        for segment in segments {
            let part = if started.elapsed() > self.time {
                Part::Late { at_ms: segment.last_ms }
            } else {
                match self.segment(segment, ready) {
                    Ok(ControlFlow::Break(())) => return,
                    Ok(ControlFlow::Continue(())) | Err(Unreadable::Gone) => continue,
                    Err(Unreadable::Io(_) | Unreadable::Damaged(_) | Unreadable::Format { .. }) => {
                        Part::Unreadable((*segment).clone())
                    }
                }
            };
            let is_last = matches!(part, Part::Late { .. });
            if ready.send(part).is_err() || is_last {
                return;
            }
        }
    }

    /// An answer that ends early covers what is newer.
    fn stopped(&self, at_ms: i64, cut: Cut, mut scanned: Scanned) -> Scanned {
        let at = Wall(u64::try_from(at_ms).unwrap_or_default().saturating_mul(1_000_000));
        scanned.since = Some(at.max(self.range.since));
        scanned.cuts.push(cut);
        scanned
    }

    fn whole(&self, batch: &Arc<Batch>, take: Take<'_>, scanned: &mut Scanned) -> ControlFlow<()> {
        let selected = self.select(batch);
        if !selected.contains(&true) {
            return ControlFlow::Continue(());
        }
        scanned.sources.push(Source::Open(Arc::clone(batch)));
        take(batch, &selected, scanned.last_source())
    }

    /// Reads one segment, as long as somebody takes what it reads.
    fn segment(
        &self,
        segment: &SegmentName,
        ready: &SyncSender<Part>,
    ) -> Result<ControlFlow<()>, Unreadable> {
        let reader = Reader::open(&self.directory.segment(segment))?;
        let (since_ms, until_ms) = self.range.ms();
        let mut deciding = vec![schema::position(RECORDED).expect("it is a column of the schema")];
        for field in self.filter.fields() {
            schema::require(field, &mut deciding);
        }
        for group in (0..reader.groups()).rev() {
            let (first_ms, last_ms) = reader.times_ms(group);
            if last_ms < since_ms || first_ms >= until_ms {
                continue;
            }
            let mut send = |batch, selected| {
                let sent = ready.send(Part::Rows { segment: segment.clone(), group, batch, selected });
                if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let mut taken = self.columns.clone();
            for Spare { column, unless } in &self.spare {
                if unless.iter().all(|other| reader.is_full(group, *other)) {
                    taken.retain(|taken| taken != column);
                }
            }
            let columns = (deciding.as_slice(), taken.as_slice());
            if reader.read_group(group, columns, &|batch| self.select(batch), &mut send)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Rows of the time that match.
    fn select(&self, batch: &Batch) -> Vec<bool> {
        let (since_ms, until_ms) = self.range.ms();
        let mut selected = batch.select(self.filter);
        for (selected, recorded_ms) in selected.iter_mut().zip(batch.times_ms()) {
            *selected &= (since_ms..until_ms).contains(recorded_ms);
        }
        selected
    }
}

impl Scanned {
    /// Makes a row group the last source, unless it is.
    fn begin(&mut self, segment: &SegmentName, group: usize) {
        let is_same = matches!(
            self.sources.last(),
            Some(Source::Group { segment: last, group: number }) if last == segment && *number == group
        );
        if !is_same {
            self.sources.push(Source::Group { segment: segment.clone(), group });
        }
    }

    fn last_source(&self) -> u32 {
        u32::try_from(self.sources.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The records in some rows of a source, in the order of `rows`. Those of a file that is gone by now are missing.
    pub(super) fn records(&self, directory: &Directory, source: u32, rows: &[u32]) -> Vec<Option<Record>> {
        let record = |batch: &Batch, row: u32| {
            usize::try_from(row).ok().filter(|row| *row < batch.rows).map(|row| batch.record(row))
        };
        match &self.sources[source as usize] {
            Source::Open(batch) => rows.iter().map(|row| record(batch, *row)).collect(),
            Source::Group { segment, group } => {
                let all: Vec<usize> = (0..COLUMNS.len()).collect();
                let mut sorted = rows.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                let batch = Reader::open(&directory.segment(segment))
                    .and_then(|reader| reader.some(*group, &all, sorted.clone()));
                let Ok(batch) = batch else { return vec![None; rows.len()] };
                let place = |row| sorted.binary_search(row).ok().filter(|place| *place < batch.rows);
                rows.iter().map(|row| place(row).map(|place| batch.record(place))).collect()
            }
        }
    }
}
