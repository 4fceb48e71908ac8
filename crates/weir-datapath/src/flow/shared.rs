//! Array maps that user space reads and writes by `mmap`, without a system call (since 5.5, fc9702273e2e).

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use zerocopy::FromBytes;

/// A mapped array of `T`, whose elements are a multiple of 8 bytes.
///
/// The kernel writes one generation of it while user space owns the other. Access is by volatile words, so that the
/// compiler neither repeats nor tears what it reads.
pub(crate) struct SharedArray<T> {
    memory: MmapRaw,
    entries: usize,
    element: PhantomData<T>,
}

impl<T: FromBytes + Copy> SharedArray<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8), "elements are whole words");
        size_of::<T>() / 8
    };

    /// Maps all `entries` of the array.
    pub(crate) fn new(map: &Map, entries: u32) -> io::Result<Self> {
        let Map::Array(data) = map else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an array map"));
        };
        let entries = entries as usize;
        let memory = Self::map(data, entries * size_of::<T>())?;
        Ok(Self { memory, entries, element: PhantomData })
    }

    fn map(data: &MapData, bytes: usize) -> io::Result<MmapRaw> {
        let descriptor = data.fd().as_fd().as_raw_fd();
        // The map itself is shorter than whole pages only in its last one, which the kernel maps all the same.
        MmapOptions::new().len(bytes).map_raw(descriptor)
    }

    /// One word of an element.
    pub(crate) fn word(&self, index: usize, word: usize) -> u64 {
        // SAFETY: `pointer` checked the index, and mapped words are always readable.
        unsafe { self.pointer(index, word).read_volatile() }
    }

    /// Overwrites one word of an element.
    pub(crate) fn set_word(&self, index: usize, word: usize, value: u64) {
        // SAFETY: as above; nobody else writes the generation that user space owns.
        unsafe { self.pointer(index, word).write_volatile(value) }
    }

    /// A copy of an element.
    pub(crate) fn read(&self, index: usize) -> T {
        // SAFETY: as above; T may have any bit pattern.
        unsafe { self.pointer(index, 0).cast::<T>().read_volatile() }
    }

    /// Zeroes an element.
    pub(crate) fn clear(&self, index: usize) {
        for word in 0..Self::WORDS {
            self.set_word(index, word, 0);
        }
    }

    fn pointer(&self, index: usize, word: usize) -> *mut u64 {
        assert!(index < self.entries && word < Self::WORDS, "element {index} of {}", self.entries);
        #[expect(clippy::cast_ptr_alignment, reason = "mappings start at a page")]
        // SAFETY: the assertion above keeps the pointer within the mapping.
        unsafe {
            self.memory.as_mut_ptr().cast::<u64>().add(index * Self::WORDS + word)
        }
    }
}
