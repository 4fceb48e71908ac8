//! [`EmbeddedStore`]: history in one directory, without any other program.
//!
//! Raw flows go to an append log first; when that has enough rows, or is old enough, it becomes a Parquet segment.
//! Sums by edge go to a `SQLite` database every ten seconds. `docs/internals/store.md` describes the files and what
//! happens when the agent or the machine dies.

mod read;
mod rollups;
#[cfg(test)]
mod tests;
mod write;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use weir_flow::{Record, Tick};

use super::{
    EdgeQuery, Edges, FlowQuery, Flows, HintQuery, Hints, Series, SeriesQuery, Store, StoreError, answering,
    database, directory::Directory, log, rollup::Level, scan::Snapshot,
};
use write::Writer;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Raw flows older than this are removed.
    pub flows_age: Duration,
    /// Most bytes of raw flows; the oldest are removed first.
    pub flows_bytes: u64,
    /// Sums of ten seconds older than this are removed.
    pub ten_seconds_age: Duration,
    /// Sums of a minute older than this are removed.
    pub minute_age: Duration,
    /// Sums of an hour older than this are removed.
    pub hour_age: Duration,
    /// Rows of a segment; so many at most are in memory.
    pub segment_rows: usize,
    /// Longest time that rows are in no segment.
    pub segment_age: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            flows_age: Duration::from_hours(24),
            flows_bytes: 2 << 30,
            ten_seconds_age: Duration::from_hours(2),
            minute_age: Duration::from_hours(48),
            hour_age: Duration::from_hours(90 * 24),
            segment_rows: super::segment::ROWS,
            segment_age: Duration::from_mins(10),
        }
    }
}

impl StoreConfig {
    /// How long sums of a level are kept.
    pub(super) const fn age(&self, level: Level) -> Duration {
        match level {
            Level::TenSeconds => self.ten_seconds_age,
            Level::Minute => self.minute_age,
            Level::Hour => self.hour_age,
        }
    }
}

/// History in a directory.
pub struct EmbeddedStore {
    directory: Directory,
    /// None where it was opened for reading.
    writer: Option<Mutex<Writer>>,
    /// Connections that nobody uses at the moment.
    readers: Mutex<Vec<database::Reader>>,
}

/// Connections that are kept open.
const MOST_READERS: usize = 4;

/// Times that a reader looks again because a writer changed files under its eyes.
const LOOKS: usize = 5;

impl EmbeddedStore {
    /// Opens the store for writing, and makes it if there is none. What a crash left is put in order.
    pub fn open(path: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        let directory = Directory::create(path)?;
        let writer = Writer::open(directory.clone(), config)?;
        Ok(Self { directory, writer: Some(Mutex::new(writer)), readers: Mutex::default() })
    }

    /// Opens a store for reading, also beside an agent that writes. Appending is refused.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let directory = Directory::existing(path)?;
        if directory.list()?.is_empty() && !directory.database().exists() {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, "nothing in it is of a store");
            return Err(StoreError::NoStore { directory: path.to_owned(), error });
        }
        Ok(Self { directory, writer: None, readers: Mutex::default() })
    }

    /// What last went wrong with putting rows that are safe in the log into segments and sums; it is tried again.
    pub fn trouble(&self) -> Option<String> {
        self.writer.as_ref().and_then(|writer| lock(writer).trouble.clone())
    }

    /// Names of files that could not be read and were set aside, from this start or earlier ones.
    pub fn damaged(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.directory.list()?.damaged)
    }

    /// Turns what is in the log into a segment and sends everything to the disk, as at the end.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.writer.as_ref().map_or(Ok(()), |writer| lock(writer).rotate())
    }

    /// All raw flows at this moment.
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        match &self.writer {
            Some(writer) => Ok(lock(writer).snapshot()),
            None => self.snapshot_of_files(),
        }
    }

    fn snapshot_of_files(&self) -> Result<Snapshot, StoreError> {
        for _ in 0..LOOKS {
            if let Some(snapshot) = self.look()? {
                return Ok(snapshot);
            }
        }
        // The writer makes segments faster than this can read logs: all but the newest rows.
        let segments = self.directory.list()?.segments.into_iter().map(|(name, _)| name).collect();
        Ok(Snapshot { segments: Arc::new(segments), open: Vec::new() })
    }

    /// Lists segments and reads logs; `None` where a log went away meanwhile, because it became a segment.
    fn look(&self) -> Result<Option<Snapshot>, StoreError> {
        let listing = self.directory.list()?;
        let mut open = Vec::new();
        for number in listing.logs {
            if listing.segments.iter().any(|(name, _)| name.number == number) {
                continue;
            }
            let path = self.directory.log(number);
            match log::read(&path) {
                Ok(contents) => open.extend(contents.unwrap_or_default().batches.into_iter().map(Arc::new)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(StoreError::Read { file: path, error }),
            }
        }
        let segments = listing.segments.into_iter().map(|(name, _)| name).collect();
        Ok(Some(Snapshot { segments: Arc::new(segments), open }))
    }
}

impl Store for EmbeddedStore {
    fn append(&self, records: &[Record], tick: &Tick) -> Result<(), StoreError> {
        match &self.writer {
            Some(writer) => lock(writer).append(records, tick),
            None => Err(StoreError::ReadOnly { directory: self.directory.path().to_owned() }),
        }
    }

    fn edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        self.read_edges(query)
    }

    fn series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        self.read_series(query)
    }

    fn flows(&self, query: &FlowQuery) -> Result<Flows, StoreError> {
        answering::flows(self, query)
    }

    fn hints(&self, query: &HintQuery) -> Result<Hints, StoreError> {
        answering::hints(self, query)
    }
}

/// A thread that panicked while it held the lock has left whole values behind: every change is made at the end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
