//! Files of a spool: a head, then frames, one per batch.
//!
//! ```text
//! file:  magic, checked(number of the file's own, number of the run, names of columns), frames
//! frame: checked(length and checksum of the records, tick, what the batch counts at each point), records
//! checked: length (4 bytes), checksum (4 bytes), bytes
//! ```
//!
//! So a frame whose records are damaged still says how many they were and where the next one is. Where the head itself is
//! damaged, the next frame is looked for: a head is known by its checksum. All numbers are little endian.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use weir_flow::{Count, Monotonic, PointId, Tick, Wall};

use crate::{
    batch::{Batch, Tallies, Tally},
    store::{Columns, encode_records},
};

const MAGIC: &[u8; 8] = b"weirspl1";

/// What a file says of all its frames.
#[derive(Debug)]
pub(super) struct FileHead {
    /// Half of the names of its batches.
    pub(super) id: u64,
    /// Who wrote it: numbers of points mean something only there.
    pub(super) run: u64,
    pub(super) columns: Columns,
    /// Where the first frame begins.
    pub(super) length: u64,
}

/// What a frame says of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) tick: Tick,
    pub(super) length: Duration,
    pub(super) is_last: bool,
    pub(super) records: u64,
    pub(super) tallies: Tallies,
    /// Where its records begin, and how many bytes they are.
    pub(super) body: (u64, u32),
    checksum: u32,
}

/// What stands at some place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame.
    Frame(FrameHead),
    /// The end: nothing, or what a death left of a last frame.
    End,
    /// Something else.
    Nonsense,
}

impl FrameHead {
    /// Where the next frame begins.
    pub(super) fn end(&self) -> u64 {
        self.body.0 + u64::from(self.body.1)
    }
}

/// The bytes at the beginning of a file.
pub(super) fn file_head(id: u64, run: u64) -> Vec<u8> {
    let mut head = Vec::from(id.to_le_bytes());
    head.extend(run.to_le_bytes());
    head.extend(Columns::names().into_bytes());
    let mut bytes = Vec::from(MAGIC.as_slice());
    push_checked(&head, &mut bytes);
    bytes
}

/// Reads the beginning of a file. `None` where it is none of ours, or was not finished.
pub(super) fn read_file_head(file: &File) -> io::Result<Option<FileHead>> {
    let mut magic = [0; MAGIC.len()];
    if !read_whole(file, &mut magic, 0)? || &magic != MAGIC {
        return Ok(None);
    }
    let start = MAGIC.len() as u64;
    let Some(bytes) = read_checked(file, start)? else { return Ok(None) };
    let Some((id, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((run, names)) = rest.split_first_chunk() else { return Ok(None) };
    let Ok(names) = std::str::from_utf8(names) else { return Ok(None) };
    Ok(Some(FileHead {
        id: u64::from_le_bytes(*id),
        run: u64::from_le_bytes(*run),
        columns: Columns::of_names(names),
        length: start + 8 + bytes.len() as u64,
    }))
}

/// A batch as a frame.
pub(super) fn frame(batch: &Batch) -> Vec<u8> {
    let mut records = Vec::new();
    encode_records(&batch.records, &batch.tick, &mut records);
    let length = u32::try_from(records.len()).expect("a batch has fewer than 2^32 bytes");
    let mut head = Vec::from(length.to_le_bytes());
    head.extend(crc32fast::hash(&records).to_le_bytes());
    head.push(u8::from(batch.is_last));
    let nanoseconds = u64::try_from(batch.length.as_nanos()).unwrap_or(u64::MAX);
    let numbers = [batch.tick.wall.0, batch.tick.monotonic.0, nanoseconds, batch.records.len() as u64];
    head.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    for (point, tally) in &batch.tallies {
        head.extend(point.0.to_le_bytes());
        let numbers = [tally.records, tally.count.packets, tally.count.bytes];
        head.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    }
    let mut bytes = Vec::with_capacity(8 + head.len() + records.len());
    push_checked(&head, &mut bytes);
    bytes.extend(records);
    bytes
}

/// Looks at what begins at `offset` of a file that has `length` bytes.
pub(super) fn read_frame_head(file: &File, offset: u64, length: u64) -> io::Result<Found> {
    let mut start = [0; 4];
    if !read_whole(file, &mut start, offset)? {
        return Ok(Found::End);
    }
    let size = u64::from(u32::from_le_bytes(start));
    if size > u64::from(LONGEST_HEAD) {
        return Ok(Found::Nonsense);
    }
    if offset + 8 + size > length {
        return Ok(Found::End);
    }
    let Some(bytes) = read_checked(file, offset)? else { return Ok(Found::Nonsense) };
    let Some(head) = parse_frame_head(&bytes, offset + 8 + size) else { return Ok(Found::Nonsense) };
    Ok(if head.end() > length { Found::End } else { Found::Frame(head) })
}

/// Where the first frame begins that is whole, at `from` or later, in a file that has `length` bytes.
pub(super) fn find_frame(file: &File, from: u64, length: u64) -> io::Result<Option<u64>> {
    let mut start = from;
    let mut window = vec![0; WINDOW];
    while start < length {
        let bytes = &mut window[..usize::try_from(length - start).map_or(WINDOW, |rest| rest.min(WINDOW))];
        if !read_whole(file, bytes, start)? {
            break;
        }
        for (place, candidate) in bytes.windows(8 + LEAST_HEAD).enumerate() {
            let offset = start + place as u64;
            if could_begin_here(candidate, length - offset)
                && let Found::Frame(_) = read_frame_head(file, offset, length)?
            {
                return Ok(Some(offset));
            }
        }
        if bytes.len() < WINDOW {
            break;
        }
        start += (WINDOW - (8 + LEAST_HEAD - 1)) as u64;
    }
    Ok(None)
}

/// Whether these bytes could be the first ones of a frame, of which `left` bytes can be there at most.
fn could_begin_here(bytes: &[u8], left: u64) -> bool {
    let number = |place: usize| {
        let bytes = bytes.get(place..place + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(bytes.map(u32::from_le_bytes).unwrap_or_default())
    };
    let (head, records) = (number(0), number(8));
    let points = head.checked_sub(LEAST_HEAD as u64);
    points.is_some_and(|points| points.is_multiple_of(POINT as u64))
        && head <= u64::from(LONGEST_HEAD)
        && 8 + head + records <= left
}

/// Reads the records of a frame. `None` where they are damaged.
pub(super) fn read_body(file: &File, head: &FrameHead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; head.body.1 as usize];
    let is_whole = read_whole(file, &mut bytes, head.body.0)?;
    Ok((is_whole && crc32fast::hash(&bytes) == head.checksum).then_some(bytes))
}

fn parse_frame_head(mut bytes: &[u8], body: u64) -> Option<FrameHead> {
    let bytes = &mut bytes;
    let (length, checksum) = (u32::from_le_bytes(pop(bytes)?), u32::from_le_bytes(pop(bytes)?));
    let [is_last] = pop(bytes)?;
    let mut number = || Some(u64::from_le_bytes(pop(bytes)?));
    let (wall, monotonic, nanoseconds, records) = (number()?, number()?, number()?, number()?);
    let mut tallies = Tallies::new();
    while !bytes.is_empty() {
        let point = PointId(u32::from_le_bytes(pop(bytes)?));
        let mut number = || Some(u64::from_le_bytes(pop(bytes)?));
        let (records, packets, bytes) = (number()?, number()?, number()?);
        tallies.insert(point, Tally { records, count: Count { packets, bytes } });
    }
    Some(FrameHead {
        tick: Tick { monotonic: Monotonic(monotonic), wall: Wall(wall) },
        length: Duration::from_nanos(nanoseconds),
        is_last: is_last != 0,
        records,
        tallies,
        body: (body, length),
        checksum,
    })
}

fn pop<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn push_checked(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a head has fewer than 2^32 bytes");
    out.extend(length.to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Longest head: 2^16 points, and then some.
const LONGEST_HEAD: u32 = 4 << 20;

/// Bytes of a head without points: length and checksum of the records, whether it is the last, four numbers.
const LEAST_HEAD: usize = 4 + 4 + 1 + 4 * 8;

/// Bytes of what it says of a point.
const POINT: usize = 4 + 3 * 8;

/// Bytes that are read at a time when a frame is looked for.
const WINDOW: usize = 1 << 20;

fn read_checked(file: &File, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut start = [0; 8];
    if !read_whole(file, &mut start, offset)? {
        return Ok(None);
    }
    let [a, b, c, d, rest @ ..] = start;
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > LONGEST_HEAD {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    let is_whole = read_whole(file, &mut bytes, offset + 8)?;
    Ok((is_whole && crc32fast::hash(&bytes) == u32::from_le_bytes(rest)).then_some(bytes))
}

/// Whether there are as many bytes.
fn read_whole(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where this file is put when it cannot be understood.
pub(super) fn path_aside(path: &Path) -> PathBuf {
    path.with_added_extension("damaged")
}

/// Where the file with this number is.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.spool"))
}

/// The number of a file, if it is one of a spool.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".spool")?.parse().ok()
}
