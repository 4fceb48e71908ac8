//! A map that is cheap to copy: what changes is copied first, in small parts, and only if somebody else still reads it.
//!
//! The writer changes its own copy and hands out others as snapshots. A snapshot is a few hundred reference counts; a
//! change after it copies one part of 256. So readers never wait, nor does the writer, and names are there for the
//! next look-up, not after the next copy of everything.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

const PARTS: usize = 256;

/// A hash map in parts. Clones share the parts until one of them changes.
#[derive(Debug)]
pub(super) struct Shards<K, V> {
    parts: Box<[Arc<HashMap<K, V, RandomState>>]>,
    hasher: RandomState,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), hasher: self.hasher.clone() }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let hasher = RandomState::default();
        let part = || Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { parts: std::iter::repeat_with(part).take(PARTS).collect(), hasher }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.parts[self.part(key)].get(key)
    }

    /// Changes the value of `key`, which is made if it was not there.
    pub(super) fn change(&mut self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let part = self.part(&key);
        change(Arc::make_mut(&mut self.parts[part]).entry(key).or_default());
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let part = self.part(&key);
        Arc::make_mut(&mut self.parts[part]).insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        let part = self.part(key);
        if self.parts[part].contains_key(key) {
            Arc::make_mut(&mut self.parts[part]).remove(key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// By bits in the middle: the map inside takes the position from the low ones and a check from the top ones.
    fn part(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) >> 40) as usize % PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_does_not_see_later_changes() {
        let mut map: Shards<u32, u32> = Shards::default();
        (0..1000).for_each(|key| map.insert(key, key));
        let snapshot = map.clone();
        map.change(7, |value| *value = 70);
        map.remove(&8);
        map.insert(1000, 1000);
        assert_eq!((snapshot.get(&7), snapshot.get(&8), snapshot.get(&1000)), (Some(&7), Some(&8), None));
        assert_eq!((map.get(&7), map.get(&8), map.get(&1000)), (Some(&70), None, Some(&1000)));
        assert_eq!((snapshot.len(), map.len()), (1000, 1000));
    }

    #[test]
    fn only_the_part_that_changes_is_copied() {
        let mut map: Shards<u32, u32> = Shards::default();
        (0..10_000).for_each(|key| map.insert(key, key));
        let snapshot = map.clone();
        map.insert(7, 0);
        map.remove(&10_001);
        let shared = map.parts.iter().zip(&snapshot.parts).filter(|(left, right)| Arc::ptr_eq(left, right));
        assert_eq!(shared.count(), PARTS - 1);
    }
}
