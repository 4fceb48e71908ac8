//! A ring buffer, read in place.
//!
//! The loader's own reader gives each record back to the kernel before the next one; this one gives back many at once, and
//! knows how far the kernel has written, which the order of two rings depends on.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};

/// In front of each record: its length with two flags, and a number that only the kernel needs.
const HEADER: usize = 8;
/// The record is being written.
const BUSY: u32 = 1 << 31;
/// The record was given up.
const DISCARDED: u32 = 1 << 30;
/// Bytes that may be read before the kernel gets them back.
const HELD: usize = 256 << 10;

/// A ring buffer that nobody else reads.
pub(super) struct Ring {
    consumer: MmapRaw,
    producer: MmapRaw,
    page: usize,
    mask: usize,
    position: usize,
    released: usize,
    map: MapData,
}

impl Ring {
    /// Takes over a ring of that many bytes.
    pub(super) fn new(map: Map, bytes: u32) -> io::Result<Self> {
        let Map::RingBuf(map) = map else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a ring buffer"));
        };
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let bytes = bytes as usize;
        let descriptor = map.fd().as_fd().as_raw_fd();
        let consumer = MmapOptions::new().len(page).map_raw(descriptor)?;
        // The data are there twice, one behind the other, so that no record is in two parts.
        let producer =
            MmapOptions::new().offset(page as u64).len(page + 2 * bytes).map_raw_read_only(descriptor)?;
        let mut ring = Self { consumer, producer, page, mask: bytes - 1, position: 0, released: 0, map };
        ring.position = ring.consumer().load(Ordering::Relaxed);
        ring.released = ring.position;
        Ok(ring)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// How far the kernel has got: everything in front of it was begun to be written.
    pub(super) fn produced(&self) -> usize {
        #[expect(clippy::cast_ptr_alignment, reason = "mappings start at a page")]
        let counter = self.producer.as_ptr().cast::<AtomicUsize>();
        // SAFETY: the first word of the page is the kernel's position.
        unsafe { &*counter }.load(Ordering::Acquire)
    }

    /// How far it was read.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// Bytes that wait, with what is being written.
    pub(super) fn waiting(&self) -> usize {
        self.produced().wrapping_sub(self.position)
    }

    /// Whether everything in front of `until` was read.
    pub(super) fn has_reached(&self, until: usize) -> bool {
        // Positions only grow, and wrap after centuries.
        self.position >= until
    }

    /// The next record in front of `until`, unless it is still being written.
    pub(super) fn next(&mut self, until: usize) -> Option<&[u8]> {
        if self.position.wrapping_sub(self.released) >= HELD {
            self.release();
        }
        loop {
            if self.has_reached(until) {
                return None;
            }
            let place = self.page + (self.position & self.mask);
            // SAFETY: the position is within the data, which are there twice.
            let record = unsafe { self.producer.as_ptr().add(place) };
            #[expect(clippy::cast_ptr_alignment, reason = "records are aligned to eight bytes")]
            // SAFETY: as above.
            let header = unsafe { &*record.cast::<AtomicU32>() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !(BUSY | DISCARDED)) as usize;
            self.position += (HEADER + length).next_multiple_of(8);
            if header & DISCARDED == 0 {
                // SAFETY: the kernel has written the record, and does not touch it before it is given back.
                let bytes = unsafe { record.add(HEADER) };
                // SAFETY: as above.
                return Some(unsafe { std::slice::from_raw_parts(bytes, length) });
            }
        }
    }

    /// Gives back what was read.
    pub(super) fn release(&mut self) {
        if self.released != self.position {
            self.released = self.position;
            self.consumer().store(self.position, Ordering::Release);
        }
    }

    fn consumer(&self) -> &AtomicUsize {
        #[expect(clippy::cast_ptr_alignment, reason = "mappings start at a page")]
        let counter = self.consumer.as_ptr().cast::<AtomicUsize>();
        // SAFETY: the first word of the page is our position, which nobody else writes.
        unsafe { &*counter }
    }
}
