//! Hash maps in batches: emptying one (since 5.6, 057996380a42), and walking over one that others write meanwhile.
//!
//! Owns the buffers and the position within a map. Promises that every entry that is there all the time is seen once.

use std::{io, os::fd::BorrowedFd};

use super::{Command, bpf, number};

/// Largest buffer, in entries: more never helps, because the kernel returns to us between buckets anyway.
const MOST_ENTRIES: usize = 1 << 20;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Buffers for entries whose keys and values are `K` and `V` words of 64 bits, and a position in a map of such.
#[derive(Debug)]
struct Batches<const K: usize, const V: usize> {
    keys: Vec<[u64; K]>,
    values: Vec<[u64; V]>,
    /// Where the kernel goes on; `None` at the beginning. The kernel writes a position of 4 bytes for hash maps; room for a
    /// key is what the interface promises.
    position: Option<[u64; K]>,
}

impl<const K: usize, const V: usize> Batches<K, V> {
    /// Buffers for `entries` at a time; they grow where a bucket of the map holds more.
    fn new(entries: usize) -> Self {
        Self { keys: vec![[0; K]; entries.max(1)], values: vec![[0; V]; entries.max(1)], position: None }
    }

    /// Hands over the next entries. Returns how many, and whether that was the end of the map; then the next step begins anew.
    fn step(
        &mut self,
        command: Command,
        map: BorrowedFd<'_>,
        mut visit: impl FnMut(&[u64; K], &[u64; V]),
    ) -> io::Result<(usize, bool)> {
        loop {
            let mut next_position = [0u64; K];
            let mut attributes = BatchAttributes {
                in_batch: self.position.as_ref().map_or(0, |position| position.as_ptr() as u64),
                out_batch: next_position.as_mut_ptr() as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map_fd: number(map),
                ..BatchAttributes::default()
            };
            // SAFETY: every pointer is to a buffer of this function or of self that outlives the call and holds
            // `count` entries of the sizes that the map was created with.
            let outcome = unsafe { bpf(command, &mut attributes) };
            let is_end = match outcome {
                Ok(_) => false,
                Err(error) => match error.raw_os_error() {
                    // A bucket holds more than the buffer: nothing was taken, try again with twice the room.
                    Some(libc::ENOSPC) if self.keys.len() < MOST_ENTRIES => {
                        let doubled = self.keys.len() * 2;
                        self.keys.resize(doubled, [0; K]);
                        self.values.resize(doubled, [0; V]);
                        continue;
                    }
                    Some(libc::EINTR | libc::EAGAIN) => continue,
                    Some(libc::ENOENT) => true,
                    _ => return Err(error),
                },
            };
            let count = (attributes.count as usize).min(self.keys.len());
            for (key, value) in self.keys.iter().zip(&self.values).take(count) {
                visit(key, value);
            }
            self.position = (!is_end).then_some(next_position);
            return Ok((count, is_end));
        }
    }
}

/// Empties hash maps.
#[derive(Debug)]
pub(crate) struct BatchReader<const K: usize, const V: usize>(Batches<K, V>);

impl<const K: usize, const V: usize> BatchReader<K, V> {
    /// Takes about `entries` at a time.
    pub(crate) fn new(entries: usize) -> Self {
        Self(Batches::new(entries))
    }

    /// Takes every entry out of the map and hands it to `sink`.
    ///
    /// The map must not be written meanwhile, or entries may be missed.
    pub(crate) fn drain(
        &mut self,
        map: BorrowedFd<'_>,
        mut sink: impl FnMut(&[u64; K], &[u64; V]),
    ) -> io::Result<()> {
        // An earlier map may have ended with an error.
        self.0.position = None;
        while !self.0.step(Command::MapLookupAndDeleteBatch, map, &mut sink)?.1 {}
        Ok(())
    }
}

/// A walk over a hash map that others may write meanwhile: an entry that is there all the time is seen once, unless the
/// map is so full that its bucket does not fit the buffer.
#[derive(Debug)]
pub(crate) struct BatchWalk<const K: usize, const V: usize>(Batches<K, V>);

impl<const K: usize, const V: usize> BatchWalk<K, V> {
    /// Looks at about `entries` at a time.
    pub(crate) fn new(entries: usize) -> Self {
        Self(Batches::new(entries))
    }

    /// Hands over the next entries. Returns how many, and whether the walk has come to its end; then the next one begins.
    pub(crate) fn step(
        &mut self,
        map: BorrowedFd<'_>,
        visit: impl FnMut(&[u64; K], &[u64; V]),
    ) -> io::Result<(usize, bool)> {
        self.0.step(Command::MapLookupBatch, map, visit)
    }
}
