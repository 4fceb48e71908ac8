//! The append log: the rows that are in no segment yet, so that a crash loses none of them.
//!
//! A header says which columns follow; then one frame per batch: length, checksum, [`frame`](super::frame). A frame
//! counts only if it is whole: what a crash left of the last one is cut off.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    StoreError,
    batch::Batch,
    directory::Directory,
    frame,
    schema::{COLUMNS, Storage, position},
};

/// With the number of the format, which goes up when columns change their meaning.
const MAGIC: &[u8; 8] = b"weirlog3";

/// How often the log is sent to the disk. What the kernel has survives the death of the process in any case; this is
/// about power failures.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A log that is written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    synced: Instant,
    /// Bytes that are written and whole.
    length: u64,
    /// Frames that are written and whole.
    pub(super) frames: u64,
}

/// What was read of a log.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Every whole frame, in the order in which they were written.
    pub(super) batches: Vec<Batch>,
}

impl Log {
    /// Begins a log, which must not exist.
    pub(super) fn create(directory: &Directory, number: u64) -> Result<Self, StoreError> {
        let path = directory.log(number);
        let mut header = Vec::from(MAGIC.as_slice());
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        push_checked(names.join("\n").as_bytes(), &mut header);
        directory.write_whole(&path, |file| {
            file.write_all(&header).map_err(|error| StoreError::Write { file: path.clone(), error })
        })?;
        let opened = OpenOptions::new().append(true).open(&path);
        let file = opened.map_err(|error| StoreError::Write { file: path.clone(), error })?;
        Ok(Self { path, file, synced: Instant::now(), length: header.len() as u64, frames: 0 })
    }

    /// Appends batches, all or none of them. Once this returns, the death of the process does not lose them.
    pub(super) fn append(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let mut written = 0;
        for batch in batches {
            let mut payload = Vec::new();
            frame::encode(batch, &mut payload);
            let mut framed = Vec::with_capacity(payload.len() + 8);
            push_checked(&payload, &mut framed);
            if let Err(error) = self.file.write_all(&framed) {
                // What is there of them must not stand before the next ones, nor come twice.
                self.cut()?;
                return Err(StoreError::Write { file: self.path.clone(), error });
            }
            written += framed.len() as u64;
        }
        self.length += written;
        self.frames += batches.len() as u64;
        Ok(())
    }

    /// Sends everything to the disk, if that has not been done lately.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.synced.elapsed() < SYNC_EVERY {
            return Ok(());
        }
        self.synced = Instant::now();
        self.file.sync_data().map_err(|error| StoreError::Write { file: self.path.clone(), error })
    }

    fn cut(&self) -> Result<(), StoreError> {
        let cut = self.file.set_len(self.length);
        cut.map_err(|error| StoreError::Write { file: self.path.clone(), error })
    }
}

/// Reads a log as far as it is whole. `None` where it is no log, or one of another format.
pub(super) fn read(path: &Path) -> io::Result<Option<Contents>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<Contents> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let names = std::str::from_utf8(pop_checked(&mut rest)?).ok()?;
    let columns: Vec<Option<(usize, Storage)>> = names
        .split('\n')
        .map(|name| position(name).map(|position| (position, COLUMNS[position].storage)))
        .collect();
    let mut batches = Vec::new();
    while let Some(batch) = pop_checked(&mut rest).and_then(|payload| frame::decode(payload, &columns)) {
        batches.push(batch);
    }
    Some(Contents { batches })
}

fn push_checked(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a batch has fewer than 2^32 bytes");
    out.extend(length.to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn pop_checked<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return None;
    }
    *bytes = rest;
    Some(payload)
}
