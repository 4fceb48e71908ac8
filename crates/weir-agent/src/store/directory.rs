//! The directory of a store: who may write in it, what lies there under which name, and how files get there whole.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the agent that writes; holds its process number |
//! | `rollups.sqlite` | sums, names, what is summed already |
//! | `log-NNNNNNNN` | rows that are in no segment yet |
//! | `flows-NNNNNNNN-FIRST-LAST.parquet` | a segment: number, times of its first and last row in milliseconds |
//! | `….damaged` | a file that could not be read and was set aside |

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;

use super::StoreError;

const LOCK: &str = "lock";
const DAMAGED: &str = "damaged";

/// How often the lock is tried, and how long is waited in between: a process that ends, or one that it has just
/// started, may hold it a moment longer.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(25);

/// A directory that holds a store.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

/// The right to write, for as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// What a name says of a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// Segments are numbered in the order in which they were begun.
    pub(super) number: u64,
    /// Time of the first row, milliseconds since 1970.
    pub(super) first_ms: i64,
    /// Time of the last row.
    pub(super) last_ms: i64,
}

/// What lies in the directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their numbers.
    pub(super) segments: Vec<(SegmentName, u64)>,
    /// Numbers of the logs, in order.
    pub(super) logs: Vec<u64>,
    /// Names of files that were set aside.
    pub(super) damaged: Vec<String>,
    /// Files that a writer did not finish.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Directory {
    /// Uses a directory that exists.
    pub(super) fn existing(path: &Path) -> Result<Self, StoreError> {
        let missing = |error| StoreError::NoStore { directory: path.to_owned(), error };
        if !fs::metadata(path).map_err(missing)?.is_dir() {
            return Err(missing(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self(path.to_owned()))
    }

    /// Makes the directory if need be. Only its owner may look into it.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::Write { file: path.to_owned(), error })?;
        Self::existing(path)
    }

    /// Takes the right to write, if nobody has it. One who is about to end is waited for.
    pub(super) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.0.join(LOCK);
        let failed = |error| StoreError::Write { file: path.clone(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if !(0..LOCK_TRIES).any(|attempt| try_lock(&file, attempt)) {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            let holder = holder.trim().parse().ok();
            return Err(StoreError::Locked { directory: self.0.clone(), holder });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.0.join("rollups.sqlite")
    }

    /// Where the log with this number is.
    pub(super) fn log(&self, number: u64) -> PathBuf {
        self.0.join(format!("log-{number:08}"))
    }

    /// Where a segment is.
    pub(super) fn segment(&self, name: &SegmentName) -> PathBuf {
        self.0.join(name.to_string())
    }

    /// Lists what is there.
    pub(super) fn list(&self) -> Result<Listing, StoreError> {
        let failed = |error| StoreError::Read { file: self.0.clone(), error };
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
            if extension == Some(DAMAGED) {
                listing.damaged.push(name);
            } else if extension == Some("partial") {
                listing.unfinished.push(entry.path());
            } else if let Some(number) = name.strip_prefix("log-").and_then(|number| number.parse().ok()) {
                listing.logs.push(number);
            } else if let Some(segment) = SegmentName::parse(&name) {
                // A segment may be removed while it is listed.
                if let Ok(metadata) = entry.metadata() {
                    listing.segments.push((segment, metadata.len()));
                }
            }
        }
        listing.segments.sort();
        listing.logs.sort_unstable();
        listing.damaged.sort();
        Ok(listing)
    }

    /// Writes a file so that it is there whole or not at all, even if the power fails: under another name, to the
    /// disk, then renamed, and the name to the disk.
    pub(super) fn write_whole(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let partial = path.with_added_extension("partial");
        let failed = |error| StoreError::Write { file: path.to_owned(), error };
        let mut file = File::create(&partial).map_err(failed)?;
        write(&mut file)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&partial, path).map_err(failed)?;
        self.sync()
    }

    /// Puts a file aside under a name that says so, which is given back.
    pub(super) fn set_aside(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let aside = path.with_added_extension(DAMAGED);
        fs::rename(path, &aside).map_err(|error| StoreError::Write { file: path.to_owned(), error })?;
        self.sync()?;
        Ok(aside)
    }

    /// Sends the names of files to the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.0).and_then(|directory| directory.sync_all());
        synced.map_err(|error| StoreError::Write { file: self.0.clone(), error })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a lock is free, except to those who wait for ever"
)]
fn try_lock(file: &File, attempt: u32) -> bool {
    if attempt > 0 {
        std::thread::sleep(LOCK_WAIT);
    }
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

impl Listing {
    /// Whether nothing of a store is there.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.logs.is_empty() && self.damaged.is_empty()
    }
}

impl SegmentName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("flows-")?.strip_suffix(".parquet")?.split('-');
        let mut next = || parts.next()?.parse::<i64>().ok();
        let (number, first_ms, last_ms) = (u64::try_from(next()?).ok()?, next()?, next()?);
        parts.next().is_none().then_some(Self { number, first_ms, last_ms })
    }

    /// The segment that a file was before it was set aside.
    pub(super) fn of_damaged(name: &str) -> Option<Self> {
        Self::parse(name.strip_suffix(DAMAGED)?.strip_suffix('.')?)
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, first_ms, last_ms } = self;
        write!(f, "flows-{number:08}-{first_ms}-{last_ms}.parquet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_segment_reads_back() {
        let name = SegmentName { number: 7, first_ms: 1_732_232_030_000, last_ms: 1_732_232_090_000 };
        assert_eq!(name.to_string(), "flows-00000007-1732232030000-1732232090000.parquet");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for other in ["flows-1-2.parquet", "flows-1-2-3-4.parquet", "flows-a-2-3.parquet", "flows-1-2-3"] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::create(place.path()).unwrap();
        let lock = directory.lock().unwrap();
        let told = directory.lock().unwrap_err().to_string();
        assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
        drop(lock);
        directory.lock().unwrap();
    }
}
