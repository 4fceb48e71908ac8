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

/// Which chunks are free.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// Rows of free chunks that do not touch: length by first chunk.
    free: BTreeMap<usize, usize>,
    given_up: Vec<Extent>,
}

impl Room {
    pub(super) fn new(chunks: usize) -> Self {
        Self { free: BTreeMap::from([(0, chunks)]), given_up: Vec::new() }
    }

    /// Chunks that a table of so many entries takes.
    pub(super) fn needed(entries: usize) -> usize {
        entries.div_ceil(CHUNK_BACKENDS)
    }

    /// Marks chunks as used that are already.
    pub(super) fn occupy(&mut self, extent: Extent) {
        let end = extent.first + extent.chunks;
        let Some((&first, &chunks)) = self.free.range(..=extent.first).next_back() else { return };
        if end > first + chunks {
            return;
        }
        self.free.remove(&first);
        for (from, to) in [(first, extent.first), (end, first + chunks)] {
            if from < to {
                self.free.insert(from, to - from);
            }
        }
    }

    /// Takes chunks, or says how long the longest free row is.
    pub(super) fn take(&mut self, chunks: usize) -> Result<Extent, usize> {
        let Some((&first, _)) = self.free.iter().find(|(_, length)| **length >= chunks) else {
            return Err(self.free.values().copied().max().unwrap_or(0));
        };
        let extent = Extent { first, chunks };
        self.occupy(extent);
        Ok(extent)
    }

    /// Gives chunks up; they stay taken until [`Room::settle`].
    pub(super) fn give_up(&mut self, extent: Extent) {
        self.given_up.push(extent);
    }

    /// Frees chunks that no program has been told of.
    pub(super) fn free(&mut self, extent: Extent) {
        let Extent { mut first, mut chunks } = extent;
        if let Some(behind) = self.free.remove(&(first + chunks)) {
            chunks += behind;
        }
        let before = self.free.range(..first).next_back().map(|(start, length)| (*start, *length));
        if let Some((start, length)) = before.filter(|(start, length)| start + length == first) {
            first = start;
            chunks += length;
        }
        self.free.insert(first, chunks);
    }

    /// Whether chunks were given up and not settled.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// Frees what was given up. To be called when no program runs any more that began before.
    pub(super) fn settle(&mut self) {
        for extent in std::mem::take(&mut self.given_up) {
            self.free(extent);
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
    fn freed_chunks_are_one_row_again() {
        let mut room = Room::new(12);
        let extents = [3, 4, 5].map(|chunks| room.take(chunks).unwrap());
        for place in [0, 2, 1] {
            room.free(extents[place]);
        }
        assert_eq!(room.take(12).unwrap().first, 0);
        assert_eq!(room.take(1), Err(0));
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
