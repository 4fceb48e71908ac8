//! [`Spool`]: batches on disk that wait for one sink, oldest first, within a number of bytes.
//!
//! A spool is a directory of files to which frames are appended ([`segment`]), a small file that says how far the sink
//! has got, and a lock. When there is no room, the oldest file goes of which nothing is being delivered. What is appended
//! survives the death of the process; after a power failure the last seconds may be missing. A spool knows no threads and
//! no accounts: it says what it did.

mod find;
mod position;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::{VecDeque, hash_map::RandomState},
    fs::{self, File, OpenOptions},
    hash::BuildHasher as _,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FlockOperation;
use thiserror::Error;

use self::segment::{FileHead, Found, FrameHead};
use super::ParcelId;
use crate::{
    batch::{Batch, Tallies},
    store::decode_records,
};

/// Where a spool is and how large it may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Its directory.
    pub path: PathBuf,
    /// Most bytes of all its files.
    pub bytes: u64,
}

/// Why a spool does not do what it is asked.
#[derive(Debug, Error)]
pub(super) enum SpoolError {
    #[error("cannot write the spool file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the spool {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the spool {} is in use: give each sink a directory of its own", path.display())]
    Locked { path: PathBuf },
    #[error("a batch of {frame} bytes has no room in a spool of {limit}: give it more")]
    TooLarge { frame: usize, limit: u64 },
    #[error("all {limit} bytes of the spool are being delivered: give it more")]
    InFlight { limit: u64 },
}

/// A spool that is open.
#[derive(Debug)]
pub(super) struct Spool {
    config: SpoolConfig,
    /// Whose points the tallies are about.
    run: u64,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The last segment, if frames are appended to it.
    writer: Option<File>,
    /// What is read next.
    cursor: Place,
    reader: Option<(u64, File)>,
    position: File,
    next_number: u64,
    /// Frames that were read and are not settled, oldest first.
    in_flight: VecDeque<Flight>,
    _lock: File,
}

/// Where a frame is: number of the file, and offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    offset: u64,
}

/// A frame that is being delivered.
#[derive(Debug)]
struct Flight {
    place: Place,
    bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    head: FileHead,
    is_earlier: bool,
    /// Where the first frame is that was not delivered when the file was opened.
    first_unread: u64,
    /// Where the next frame goes: the end of the last whole one.
    length: u64,
    frames: u32,
    /// Bytes between frames that make no sense: beginning and end.
    gaps: Vec<(u64, u64)>,
    unread: Unread,
}

/// What nobody has read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) tallies: Tallies,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
}

/// What went because there was no room.
#[derive(Debug)]
pub(super) struct Evicted {
    pub(super) tallies: Tallies,
    pub(super) is_earlier: bool,
}

/// What was found when a spool was opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// What an earlier run left.
    pub(super) earlier: Unread,
    /// Places where files made no sense; nobody knows what was there.
    pub(super) damaged: Vec<String>,
}

/// What there is at the place of a frame.
enum Read {
    Whole(FrameHead, Batch),
    /// Its records are damaged, or not there.
    Head(FrameHead),
    /// Nobody knows what was there.
    Nothing,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Taken {
    Batch {
        id: ParcelId,
        batch: Arc<Batch>,
        is_earlier: bool,
        bytes: u64,
    },
    /// It cannot be had any more.
    Damaged {
        place: String,
        tallies: Tallies,
        is_earlier: bool,
    },
}

/// Bytes of a file at which the next one begins, if the whole spool has room for so many files.
const SEGMENT: u64 = 8 << 20;
const SEGMENTS: u64 = 16;

impl Spool {
    /// Opens a spool and looks through what is there.
    pub(super) fn open(config: &SpoolConfig, run: u64) -> Result<(Self, Opened), SpoolError> {
        let directory = &config.path;
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Write { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(write(directory))?;
        let own_file = |name: &str| {
            let path = directory.join(name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(&path).map_err(write(&path))
        };
        let lock = own_file("lock")?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(SpoolError::Locked { path: directory.clone() });
        }
        let position = own_file("position")?;
        let mut spool = Self {
            config: config.clone(),
            run,
            segments: VecDeque::new(),
            writer: None,
            cursor: Place::default(),
            reader: None,
            position,
            next_number: 1,
            in_flight: VecDeque::new(),
            _lock: lock,
        };
        let opened = spool.find().map_err(|source| SpoolError::Read { path: directory.clone(), source })?;
        Ok((spool, opened))
    }

    /// A batch in the form in which it is appended. Takes a while for a large one.
    pub(super) fn frame(batch: &Batch) -> Vec<u8> {
        segment::frame(batch)
    }

    /// Appends a batch. Once this returns, the death of the process does not lose it. Says what had to go for it, also where
    /// it fails.
    pub(super) fn append(
        &mut self,
        frame: &[u8],
        batch: &Batch,
        evicted: &mut Vec<Evicted>,
    ) -> Result<(Place, ParcelId), SpoolError> {
        let size = frame.len() as u64;
        let most = (self.config.bytes / SEGMENTS).clamp(1, SEGMENT);
        let is_full = |segment: &Segment| segment.frames > 0 && segment.length + size > most;
        if self.writer.is_some() && self.segments.back().is_some_and(is_full) {
            self.writer = None;
        }
        let (head, limit) = (segment::file_head(0, self.run).len() as u64, self.config.bytes);
        if size + head > limit {
            return Err(SpoolError::TooLarge { frame: frame.len(), limit });
        }
        // The file that is written to may go too.
        while self.bytes() + size + if self.writer.is_none() { head } else { 0 } > limit {
            if !self.evict(evicted) {
                return Err(SpoolError::InFlight { limit });
            }
        }
        if self.writer.is_none() {
            self.begin_segment()?;
        }
        let file = self.writer.as_mut().expect("a file has just been begun");
        let segment = self.segments.back_mut().expect("the file is the last one");
        let path = segment::path(&self.config.path, segment.number);
        if let Err(source) = file.write_all(frame) {
            // What is there of it must not stand before the next one. Where cutting fails too, this file is done with.
            if file.set_len(segment.length).is_err() {
                self.writer = None;
            }
            return Err(SpoolError::Write { path, source });
        }
        let place = Place { segment: segment.number, offset: segment.length };
        let id = segment.parcel_id(segment.length);
        segment.frames += 1;
        segment.length += size;
        segment.unread.insert(&batch.tallies, batch.records.len() as u64, size);
        Ok((place, id))
    }

    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        let number = self.next_number;
        let path = segment::path(&self.config.path, number);
        let failed = |source| SpoolError::Write { path: path.clone(), source };
        let bytes = segment::file_head(random(), self.run);
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        self.next_number += 1;
        let written = file.write_all(&bytes).and_then(|()| {
            let head = segment::read_file_head(&File::open(&path)?)?;
            head.ok_or_else(|| io::Error::other("what was written does not read back"))
        });
        let head = written.inspect_err(|_| drop(fs::remove_file(&path))).map_err(failed)?;
        let (length, is_earlier) = (head.length, false);
        self.segments.push_back(Segment {
            number,
            head,
            is_earlier,
            first_unread: length,
            length,
            frames: 0,
            gaps: Vec::new(),
            unread: Unread::default(),
        });
        self.writer = Some(file);
        Ok(())
    }

    /// Removes the oldest file of which nothing is being delivered: what is being delivered stays on disk until it has
    /// arrived, whatever becomes of this process. Adds what was in it that nobody had read. Says whether there was such a file.
    fn evict(&mut self, evicted: &mut Vec<Evicted>) -> bool {
        let place = self.segments.iter().position(|segment| !self.is_in_flight(segment.number));
        let Some(segment) = place.and_then(|place| self.segments.remove(place)) else { return false };
        if place == Some(self.segments.len()) {
            self.writer = None;
        }
        self.remove(segment.number);
        if segment.unread.frames > 0 {
            evicted.push(Evicted { tallies: segment.unread.tallies, is_earlier: segment.is_earlier });
        }
        true
    }

    /// Whether something of a file is being delivered.
    fn is_in_flight(&self, number: u64) -> bool {
        self.in_flight.binary_search_by_key(&number, |flight| flight.place.segment).is_ok()
    }

    fn remove(&mut self, number: u64) {
        if self.reader.as_ref().is_some_and(|(open, _)| *open == number) {
            self.reader = None;
        }
        // Where this fails the file is found again by the next run, which knows that it was read.
        fs::remove_file(segment::path(&self.config.path, number)).ok();
    }

    /// Where the next frame is that nobody has read.
    pub(super) fn next_place(&mut self) -> Option<Place> {
        let segment = self.segments.iter().find(|segment| segment.unread.frames > 0)?;
        if segment.number != self.cursor.segment || self.cursor.offset < segment.head.length {
            self.cursor = Place { segment: segment.number, offset: segment.first_unread };
        }
        if let Some((_, end)) = segment.gaps.iter().find(|(start, _)| *start == self.cursor.offset) {
            self.cursor.offset = *end;
        }
        Some(self.cursor)
    }

    /// Passes over the next frame: the caller has its batch.
    pub(super) fn pass(&mut self, batch: &Batch, bytes: u64) -> ParcelId {
        let place = self.cursor;
        let segment = self.current().expect("the caller asked for the next place");
        segment.unread.remove(&batch.tallies, batch.records.len() as u64, bytes);
        let id = segment.parcel_id(place.offset);
        self.in_flight.push_back(Flight { place, bytes });
        self.cursor.offset += bytes;
        id
    }

    fn current(&mut self) -> Option<&mut Segment> {
        let number = self.cursor.segment;
        self.segments.iter_mut().find(|segment| segment.number == number)
    }

    /// Reads the next frame. An error is one of the system, and may pass: nothing is passed over then.
    pub(super) fn take(&mut self) -> Result<Option<Taken>, SpoolError> {
        let Some(place) = self.next_place() else { return Ok(None) };
        let path = segment::path(&self.config.path, place.segment);
        let text = |reason: &str| format!("{} at {}: {reason}", path.display(), place.offset);
        let (read, text) = match self.read(place, &path) {
            Ok(read) => (read, text("its checksum is wrong")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Read::Nothing, text("it is gone")),
            Err(source) => {
                self.reader = None;
                return Err(SpoolError::Read { path, source });
            }
        };
        Ok(Some(match read {
            Read::Whole(head, batch) => {
                let bytes = head.end() - place.offset;
                let id = self.pass(&batch, bytes);
                let is_earlier = self.current().is_some_and(|segment| segment.is_earlier);
                Taken::Batch { id, batch: Arc::new(batch), is_earlier, bytes }
            }
            Read::Head(head) => self.skip_damaged(Some(head), text),
            Read::Nothing => self.skip_damaged(None, text),
        }))
    }

    fn read(&mut self, place: Place, path: &Path) -> io::Result<Read> {
        let file = match self.reader.take() {
            Some((number, file)) if number == place.segment => file,
            _ => File::open(path)?,
        };
        let file = &self.reader.insert((place.segment, file)).1;
        let Some(segment) = self.segments.iter().find(|segment| segment.number == place.segment) else {
            return Ok(Read::Nothing);
        };
        let Found::Frame(head) = segment::read_frame_head(file, place.offset, segment.length)? else {
            return Ok(Read::Nothing);
        };
        let records = segment::read_body(file, &head)?;
        let records = records.and_then(|body| decode_records(&body, &segment.head.columns));
        Ok(match records {
            Some(records) => {
                let batch =
                    Batch::restored(head.tick, head.length, records, head.tallies.clone(), head.is_last);
                Read::Whole(head, batch)
            }
            None => Read::Head(head),
        })
    }

    /// Passes over a frame whose records cannot be had; where not even its head can, over the rest of the file.
    fn skip_damaged(&mut self, head: Option<FrameHead>, place: String) -> Taken {
        let offset = self.cursor.offset;
        let segment = self.current().expect("the place is one of a segment");
        let is_earlier = segment.is_earlier;
        let (tallies, end) = match head {
            Some(head) => {
                segment.unread.remove(&head.tallies, head.records, head.end() - offset);
                let end = head.end();
                (head.tallies, end)
            }
            None => (std::mem::take(&mut segment.unread).tallies, segment.length),
        };
        self.cursor.offset = end;
        Taken::Damaged { place, tallies, is_earlier }
    }

    /// So many frames, the oldest of those that were read, are done with: notes it and removes files that nobody needs.
    pub(super) fn settle(&mut self, frames: usize) -> Result<(), SpoolError> {
        self.in_flight.drain(..frames.min(self.in_flight.len()));
        while let Some(first) = self.segments.front()
            && first.unread.frames == 0
            && !self.is_in_flight(first.number)
            && (self.segments.len() > 1 || self.writer.is_none())
        {
            let number = first.number;
            self.segments.pop_front();
            self.remove(number);
        }
        let Some(segment) = self.segments.front() else { return Ok(()) };
        let next = self.in_flight.front().map_or(self.cursor, |flight| flight.place);
        let offset = if next.segment == segment.number { next.offset } else { 0 };
        let bytes = position::bytes(segment.head.id, offset);
        let path = || self.config.path.join("position");
        self.position.write_all_at(&bytes, 0).map_err(|source| SpoolError::Write { path: path(), source })
    }

    /// What nobody has read yet.
    pub(super) fn unread(&self) -> Unread {
        let mut sum = Unread::default();
        for segment in &self.segments {
            sum.records += segment.unread.records;
            sum.bytes += segment.unread.bytes;
            sum.frames += segment.unread.frames;
        }
        sum
    }

    /// Bytes of frames that are not settled.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.unread().bytes + self.in_flight.iter().map(|flight| flight.bytes).sum::<u64>()
    }

    /// Whether a file is there.
    pub(super) fn has(&self, number: u64) -> bool {
        self.segments.iter().any(|segment| segment.number == number)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}

impl Segment {
    /// The name of the batch at this offset: whatever is damaged before it, it stays the same.
    fn parcel_id(&self, offset: u64) -> ParcelId {
        ParcelId(u128::from(self.head.id) << 64 | u128::from(offset))
    }
}

impl Unread {
    fn insert(&mut self, tallies: &Tallies, records: u64, bytes: u64) {
        for (point, tally) in tallies {
            *self.tallies.entry(*point).or_default() += *tally;
        }
        self.records += records;
        self.bytes += bytes;
        self.frames += 1;
    }

    fn remove(&mut self, tallies: &Tallies, records: u64, bytes: u64) {
        for (point, tally) in tallies {
            *self.tallies.entry(*point).or_default() -= *tally;
        }
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.frames = self.frames.saturating_sub(1);
    }

    fn add(&mut self, other: &Self) {
        for (point, tally) in &other.tallies {
            *self.tallies.entry(*point).or_default() += *tally;
        }
        self.records += other.records;
        self.bytes += other.bytes;
        self.frames += other.frames;
    }
}

/// A number that nobody else has.
pub(super) fn random() -> u64 {
    // Its keys come from the system.
    RandomState::new().hash_one(std::process::id())
}
