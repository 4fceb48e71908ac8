//! [`Store`]: the entries and the index that finds them, in memory that is bounded from the start.
//!
//! The whole room is reserved when the store is made; pages that are never written cost nothing. So nothing grows or
//! moves later, and the bound needs no allowance for the moment in which a table that doubles exists twice.

use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::{
    entry::{Entry, Stage},
    key::Key,
};

/// Entries found by key.
pub(super) struct Store {
    /// In use or [`Stage::Free`]; never longer than its first capacity.
    entries: Vec<Entry>,
    /// Positions of the free entries.
    free: Vec<u32>,
    index: HashTable<Slot>,
    hasher: RandomState,
    capacity: usize,
}

/// Where an entry is, with enough of its hash to find the next place for it without reading it.
#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    position: u32,
}

impl Store {
    /// A store for as many entries as fit `memory_bytes`, at least one.
    pub(super) fn new(memory_bytes: usize) -> Self {
        let capacity = capacity(memory_bytes);
        Self {
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            // Twice the room, so that tombstones are swept in place: hashbrown then never grows the table.
            index: HashTable::with_capacity(2 * capacity),
            hasher: RandomState::default(),
            capacity,
        }
    }

    /// Position of the entry with this key.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        let hash = self.hash(key);
        let is_it = |slot: &Slot| slot.hash == hash && self.entries[slot.position as usize].key == *key;
        self.index.find(spread(hash), is_it).map(|slot| slot.position)
    }

    /// Adds an entry whose key is not there yet; `None` when the store is full.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<u32> {
        let hash = self.hash(&entry.key);
        let position = if let Some(position) = self.free.pop() {
            self.entries[position as usize] = entry;
            position
        } else if self.entries.len() < self.capacity {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("capacity fits 32 bits")
        } else {
            return None;
        };
        self.index.insert_unique(spread(hash), Slot { hash, position }, |slot| spread(slot.hash));
        Some(position)
    }

    /// Makes the key of an entry free for another flow; the entry stays until it is released.
    pub(super) fn unlink(&mut self, position: u32) {
        let hash = self.hash(&self.entries[position as usize].key);
        if let Ok(slot) = self.index.find_entry(spread(hash), |slot| slot.position == position) {
            slot.remove();
        }
    }

    /// Gives back the room of an entry that is unlinked.
    pub(super) fn release(&mut self, position: u32) {
        self.entries[position as usize].stage = Stage::Free;
        self.free.push(position);
    }

    #[inline]
    pub(super) fn get_mut(&mut self, position: u32) -> &mut Entry {
        &mut self.entries[position as usize]
    }

    /// All entries in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.stage != Stage::Free)
    }

    /// Positions that were ever used, some of which may be free now.
    pub(super) fn positions(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.entries.len()).expect("capacity fits 32 bits")
    }

    /// Entries in use.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no entry can be added.
    pub(super) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Most entries at a time.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that were ever written to: the entries used at the busiest time, and the index.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.len() * (size_of::<Entry>() + size_of::<u32>()) + self.index.allocation_size()
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits are enough to tell entries apart")]
    fn hash(&self, key: &Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}

/// Fills a word from half of it: hashbrown takes the position from the low bits and a check from the top ones.
#[inline]
const fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

/// Entries for which there is room, with an index of twice that capacity (hashbrown fills 7 of 8 buckets, whose
/// number is a power of two, and adds one byte a bucket and a group of 16).
fn capacity(memory_bytes: usize) -> usize {
    let fits = |exponent: u32| {
        let buckets = 1_usize << exponent;
        let index_bytes = buckets * (size_of::<Slot>() + 1) + 16;
        let room = memory_bytes.saturating_sub(index_bytes) / (size_of::<Entry>() + size_of::<u32>());
        room.min(buckets / 8 * 7 / 2)
    };
    (3..31).map(fits).max().unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_never_reserves_more_than_its_bound() {
        for memory_bytes in [20_000, 1 << 20, 5_000_000, 24 << 20, 64 << 20] {
            let store = Store::new(memory_bytes);
            let reserved = store.entries.capacity() * size_of::<Entry>()
                + store.free.capacity() * size_of::<u32>()
                + store.index.allocation_size();
            assert!(reserved <= memory_bytes, "{reserved} of {memory_bytes}");
            assert!(reserved * 10 >= memory_bytes * 8, "{reserved} of {memory_bytes} wastes too much");
        }
    }
}
