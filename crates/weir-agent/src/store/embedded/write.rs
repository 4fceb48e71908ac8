//! The writing side: log, rotation, retention, and putting in order what a crash left.

use std::{fs, path::Path, sync::Arc, time::Duration};

use weir_flow::{Record, Tick};

use super::StoreConfig;
use crate::store::{
    StoreError,
    batch::Batch,
    database::{self, Applied},
    directory::{Directory, Lock, SegmentName},
    encode,
    log::{self, Contents, Log},
    retention,
    rollup::{Level, Pending},
    scan::Snapshot,
    segment::{self, ROWS, Unreadable},
};

/// Batches with fewer rows are joined, so many at a time.
const SMALL: usize = 4_096;
const JOINED: usize = 32;

/// How often old sums are removed, and names that nothing needs any more.
const EXPIRE_EVERY_MS: i64 = 10 * 60 * 1_000;
const FORGET_EVERY_MS: i64 = 24 * 60 * 60 * 1_000;

/// How long after a failure putting things in order is tried again.
const RETRY_MS: i64 = 10_000;

/// Segments' worth of rows that are kept in memory while no segment can be written, before rows are refused.
const PATIENCE: usize = 4;

/// What holds the right to write.
pub(super) struct Writer {
    directory: Directory,
    config: StoreConfig,
    database: database::Writer,
    log: Log,
    number: u64,
    /// The rows of the log.
    open: Vec<Arc<Batch>>,
    open_rows: usize,
    /// Times of the first and the last row of the log.
    span_ms: Option<(i64, i64)>,
    pending: Pending,
    /// The ten seconds whose sums are pending.
    interval: i64,
    segments: Arc<Vec<SegmentName>>,
    /// Bytes of each segment.
    sizes: Vec<u64>,
    /// By which old history goes.
    clock: retention::Clock,
    expired_ms: i64,
    forgot_ms: i64,
    retry_ms: i64,
    pub(super) trouble: Option<String>,
    _lock: Lock,
}

impl Writer {
    /// Takes the right to write and puts in order what is there.
    pub(super) fn open(directory: Directory, config: StoreConfig) -> Result<Self, StoreError> {
        let lock = directory.lock()?;
        let mut listing = directory.list()?;
        for path in listing.unfinished {
            fs::remove_file(&path).map_err(|error| StoreError::Write { file: path, error })?;
        }
        let mut whole = Vec::new();
        for (name, size) in listing.segments {
            let path = directory.segment(&name);
            match segment::Reader::open(&path) {
                Err(Unreadable::Gone) => {}
                // Torn, or of another format, which must not be taken for this one.
                Err(Unreadable::Damaged(_) | Unreadable::Format { .. }) => {
                    directory.set_aside(&path)?;
                }
                // The place may recover; until then, answers name the file.
                Ok(_) | Err(Unreadable::Io(_)) => whole.push((name, size)),
            }
        }
        // A log whose rows are in a segment was about to be removed.
        let is_done = |number: &u64| whole.iter().any(|(name, _)| name.number == *number);
        for number in listing.logs.extract_if(.., |number| is_done(number)) {
            remove(&directory.log(number))?;
        }
        let database = open_database(&directory)?;
        let applied = database.applied()?;
        let newest = whole.last().map_or(0, |(name, _)| name.number);
        let next = listing.logs.last().copied().unwrap_or(0).max(newest).max(applied.log) + 1;
        let (names, sizes): (Vec<SegmentName>, Vec<u64>) = whole.into_iter().unzip();
        let mut writer = Self {
            log: Log::create(&directory, next)?,
            directory,
            config,
            database,
            number: next,
            open: Vec::new(),
            open_rows: 0,
            span_ms: None,
            pending: Pending::default(),
            interval: 0,
            segments: Arc::new(names),
            sizes,
            clock: retention::Clock::default(),
            expired_ms: 0,
            forgot_ms: 0,
            retry_ms: 0,
            trouble: None,
            _lock: lock,
        };
        for number in listing.logs {
            writer.recover(number, applied)?;
        }
        // What is noted is not misled by rows of a time when the clock was wrong.
        let newest_ms = || writer.segments.iter().map(|name| name.last_ms).max();
        let last_ms = writer.database.kept_by_ms()?.or_else(newest_ms);
        writer.clock = retention::Clock::since(last_ms);
        Ok(writer)
    }

    /// Turns a log that a crash left into a segment, and adds to the sums what is not in them yet.
    fn recover(&mut self, number: u64, applied: Applied) -> Result<(), StoreError> {
        let path = self.directory.log(number);
        let read = log::read(&path).map_err(|error| StoreError::Read { file: path.clone(), error })?;
        let Some(Contents { batches, .. }) = read else {
            self.directory.set_aside(&path)?;
            return Ok(());
        };
        let frames = batches.len() as u64;
        let known = match number.cmp(&applied.log) {
            std::cmp::Ordering::Less => frames,
            std::cmp::Ordering::Equal => applied.frames,
            std::cmp::Ordering::Greater => 0,
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        for batch in batches.iter().skip(known).filter(|batch| batch.rows > 0) {
            self.pending.add(batch);
        }
        self.database.flush(&self.pending, Applied { log: number, frames }.max(applied))?;
        self.pending.clear();
        let batches: Vec<Arc<Batch>> =
            batches.into_iter().filter(|batch| batch.rows > 0).map(Arc::new).collect();
        if let Some((first_ms, last_ms)) = span_ms(&batches) {
            self.database.checkpoint()?;
            self.write_segment(SegmentName { number, first_ms, last_ms }, &batches)?;
        }
        remove(&path)
    }

    /// Keeps the records of a tick.
    pub(super) fn append(&mut self, records: &[Record], tick: &Tick) -> Result<(), StoreError> {
        let now_ms = i64::try_from(tick.wall.0 / 1_000_000).unwrap_or(i64::MAX);
        let kept_by_ms = self.clock.now_ms(tick);
        if self.open_rows >= PATIENCE * self.config.segment_rows {
            // Whatever stands in the way must go first.
            self.rotate()?;
        }
        let batches: Vec<Batch> = encode::batches(records, tick, ROWS).collect();
        self.log.append(&batches)?;
        for batch in batches {
            self.pending.add(&batch);
            self.open_rows += batch.rows;
            let (first_ms, last_ms) = self.span_ms.unwrap_or((now_ms, now_ms));
            self.span_ms = Some((first_ms.min(now_ms), last_ms.max(now_ms)));
            self.open.push(Arc::new(batch));
            self.join_small();
        }
        if now_ms >= self.retry_ms || now_ms < self.retry_ms - RETRY_MS {
            match self.put_in_order(now_ms, kept_by_ms) {
                Ok(()) => self.trouble = None,
                Err(error) => {
                    self.trouble = Some(chain(&error));
                    self.retry_ms = now_ms.saturating_add(RETRY_MS);
                }
            }
        }
        Ok(())
    }

    /// Sums, segments and retention, as far as they are due. The rows are safe in the log whether this works or not.
    /// `kept_by_ms` is the time by which old history goes.
    fn put_in_order(&mut self, now_ms: i64, kept_by_ms: i64) -> Result<(), StoreError> {
        self.log.sync()?;
        let interval = Level::TenSeconds.interval_of(now_ms.div_euclid(1_000));
        if interval != self.interval {
            self.flush_sums()?;
            self.database.note_kept_by_ms(kept_by_ms)?;
            self.interval = interval;
        }
        let age = self.span_ms.map_or(0, |(first_ms, _)| now_ms.saturating_sub(first_ms));
        if self.open_rows >= self.config.segment_rows || age >= ms(self.config.segment_age) {
            self.rotate()?;
            self.remove_old_segments(kept_by_ms)?;
        }
        if (now_ms - self.expired_ms).abs() >= EXPIRE_EVERY_MS {
            let before = |level| {
                (level, (kept_by_ms - ms(self.config.age(level))).div_euclid(1_000) - Level::seconds(level))
            };
            self.database.expire(Level::ALL.map(before))?;
            self.expired_ms = now_ms;
        }
        if (now_ms - self.forgot_ms).abs() >= FORGET_EVERY_MS {
            self.database.forget_unused()?;
            self.forgot_ms = now_ms;
        }
        Ok(())
    }

    fn flush_sums(&mut self) -> Result<(), StoreError> {
        self.database.flush(&self.pending, Applied { log: self.number, frames: self.log.frames })?;
        self.pending.clear();
        Ok(())
    }

    /// Turns the log into a segment and begins another.
    pub(super) fn rotate(&mut self) -> Result<(), StoreError> {
        let Some((first_ms, last_ms)) = self.span_ms else { return Ok(()) };
        self.flush_sums()?;
        // Before the log goes, its sums must be safe from a power failure too.
        self.database.checkpoint()?;
        let batches = self.open.clone();
        self.write_segment(SegmentName { number: self.number, first_ms, last_ms }, &batches)?;
        let log = Log::create(&self.directory, self.number + 1)?;
        let done = self.directory.log(self.number);
        (self.log, self.number) = (log, self.number + 1);
        (self.open, self.open_rows, self.span_ms) = (Vec::new(), 0, None);
        remove(&done)
    }

    fn write_segment(&mut self, name: SegmentName, batches: &[Arc<Batch>]) -> Result<(), StoreError> {
        if self.segments.last().is_some_and(|last| *last == name) {
            // An earlier attempt got this far.
            return Ok(());
        }
        segment::write(&self.directory, &name, batches)?;
        let path = self.directory.segment(&name);
        let size = fs::metadata(&path).map_err(|error| StoreError::Read { file: path, error })?.len();
        Arc::make_mut(&mut self.segments).push(name);
        self.sizes.push(size);
        Ok(())
    }

    /// Removes segments that are too old, and the oldest while all together are too large.
    fn remove_old_segments(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let oldest_ms = now_ms.saturating_sub(ms(self.config.flows_age));
        let mut bytes: u64 = self.sizes.iter().sum();
        let mut index = 0;
        while let (Some(name), Some(size)) = (self.segments.get(index), self.sizes.get(index)) {
            // Not every older one comes before: the clock may have been wrong for a while.
            if name.last_ms >= oldest_ms && bytes <= self.config.flows_bytes {
                index += 1;
                continue;
            }
            remove(&self.directory.segment(name))?;
            bytes -= size;
            Arc::make_mut(&mut self.segments).remove(index);
            self.sizes.remove(index);
        }
        Ok(())
    }

    fn join_small(&mut self) {
        let is_small = |batch: &&Arc<Batch>| batch.rows < SMALL;
        let small = self.open.iter().rev().take(JOINED).take_while(is_small).count();
        if small == JOINED {
            let last = self.open.split_off(self.open.len() - JOINED);
            self.open.push(Arc::new(Batch::joined(&last)));
        }
    }

    /// All raw flows.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { segments: Arc::clone(&self.segments), open: self.open.clone() }
    }

    /// Sums that are not in the database.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }
}

/// A database that is none, or damaged, is set aside and begun anew; a newer one is left alone.
fn open_database(directory: &Directory) -> Result<database::Writer, StoreError> {
    let path = directory.database();
    match database::Writer::open(&path) {
        Err(StoreError::Database { error, .. }) if is_damage(&error) => {
            directory.set_aside(&path)?;
            for suffix in ["-wal", "-shm"] {
                let mut beside = path.clone().into_os_string();
                beside.push(suffix);
                remove(Path::new(&beside))?;
            }
            database::Writer::open(&path)
        }
        opened => opened,
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    error.sqlite_error_code().is_some_and(|code| matches!(code, DatabaseCorrupt | NotADatabase))
}

/// Removes a file, which may be gone already.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Write { file: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn span_ms(batches: &[Arc<Batch>]) -> Option<(i64, i64)> {
    let times = || batches.iter().flat_map(|batch| batch.times_ms());
    Some((*times().min()?, *times().max()?))
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The error with its causes.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
