//! Room for tables of backends: which chunks belong to which rule.
//!
//! A table is written into chunks that no program reads, then its rule is changed to name them. Chunks that are given up
//! are not used again before every program that may have read the old rule has come to its end.

use std::collections::BTreeMap;

use weir_common::redirect::CHUNK_BACKENDS;

/// Chunks in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) first: usize,
    pub(super) chunks: usize,
}

/// Which chunks are used.
#[derive(Clone, Debug)]
pub(super) struct Room {
    chunks: usize,
    /// Length by first chunk.
    used: BTreeMap<usize, usize>,
    given_up: Vec<Extent>,
}

impl Room {
    pub(super) fn new(chunks: usize) -> Self {
        Self { chunks, used: BTreeMap::new(), given_up: Vec::new() }
    }

    /// Chunks that a table of so many entries takes.
    pub(super) fn needed(entries: usize) -> usize {
        entries.div_ceil(CHUNK_BACKENDS)
    }

    /// Marks chunks as used that are already.
    pub(super) fn occupy(&mut self, extent: Extent) {
        self.used.insert(extent.first, extent.chunks);
    }

    /// Takes chunks, or says how long the longest free row is.
    pub(super) fn take(&mut self, chunks: usize) -> Result<Extent, usize> {
        let mut first = 0;
        let mut longest = 0;
        let ends = self.used.iter().map(|(first, chunks)| (*first, first + chunks));
        for (start, end) in ends.chain([(self.chunks, self.chunks)]) {
            let free = start.saturating_sub(first);
            if free >= chunks {
                self.used.insert(first, chunks);
                return Ok(Extent { first, chunks });
            }
            longest = longest.max(free);
            first = end;
        }
        Err(longest)
    }

    /// Gives chunks up; they stay taken until [`Room::settle`].
    pub(super) fn give_up(&mut self, extent: Extent) {
        self.given_up.push(extent);
    }

    /// Frees chunks that no program has been told of.
    pub(super) fn free(&mut self, extent: Extent) {
        self.used.remove(&extent.first);
    }

    /// Whether chunks were given up and not settled.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// Frees what was given up. To be called when no program runs any more that began before.
    pub(super) fn settle(&mut self) {
        for extent in self.given_up.drain(..) {
            self.used.remove(&extent.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_not_reused_before_they_are_settled() {
        let mut room = Room::new(10);
        let first = room.take(6).unwrap();
        assert_eq!(room.take(6), Err(4));
        let second = room.take(4).unwrap();
        assert_eq!((first.first, second.first), (0, 6));
        room.give_up(first);
        assert_eq!(room.take(1), Err(0));
        room.settle();
        assert_eq!(room.take(2).unwrap().first, 0);
        assert_eq!(room.take(4).unwrap().first, 2);
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let mut room = Room::new(10);
        room.occupy(Extent { first: 3, chunks: 2 });
        assert_eq!(room.take(4).unwrap().first, 5);
        assert_eq!(room.take(3).unwrap().first, 0);
        assert_eq!(room.take(2), Err(1));
        assert_eq!(Room::needed(251), 16);
    }
}
