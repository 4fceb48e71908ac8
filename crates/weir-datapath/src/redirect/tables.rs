//! Room for tables of backends: which chunks belong to which rule.
//!
//! A table is written into chunks that no program reads, then its rule is changed to name them. Chunks that are given up
//! are not used again before every program that may have read the old rule has come to its end. Where there is no room
//! for both, a table is written over the old one: programs read one entry, and old and new ones name backends of the same
//! rule.

use std::{cmp::Reverse, collections::BTreeMap};

use weir_common::redirect::CHUNK_BACKENDS;

use super::desired::RuleId;

/// Chunks in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) first: usize,
    pub(super) chunks: usize,
}

impl Extent {
    /// The chunk behind it.
    fn end(self) -> usize {
        self.first + self.chunks
    }

    /// What lies behind a shorter one with the same beginning.
    fn behind(self, shorter: Self) -> Option<Self> {
        let chunks = self.chunks.checked_sub(shorter.chunks).filter(|chunks| *chunks > 0)?;
        Some(Self { first: shorter.end(), chunks })
    }
}

/// A table that a rule shall have in the place of what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    pub(super) rule: RuleId,
    /// 0 if it needs none.
    pub(super) chunks: usize,
    pub(super) held: Option<Extent>,
}

/// Where a table comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Placement {
    pub(super) rule: RuleId,
    pub(super) extent: Option<Extent>,
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
        let end = extent.end();
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

    /// The first row that is long enough, or how long the longest one is.
    fn find(&self, chunks: usize) -> Result<Extent, usize> {
        match self.free.iter().find(|(_, length)| **length >= chunks) {
            Some((&first, _)) => Ok(Extent { first, chunks }),
            None => Err(self.free.values().copied().max().unwrap_or(0)),
        }
    }

    /// The place of the old table, if the new one fits there.
    fn stay(&self, need: &Need) -> Option<Extent> {
        let held = need.held?;
        let new = Extent { chunks: need.chunks, ..held };
        let fits = new
            .behind(held)
            .is_none_or(|more| self.free.get(&more.first).is_some_and(|row| *row >= more.chunks));
        fits.then_some(new)
    }

    /// Where tables come to be, in rounds: what is given up in one is settled before the next. Changes nothing; fails
    /// with the chunks that a table needs and the longest row that is left for it.
    pub(super) fn plan(&self, needs: &[Need]) -> Result<Vec<Vec<Placement>>, (usize, usize)> {
        let mut room = self.clone();
        let mut pending = needs.to_vec();
        // Those that must find other room come first, the longest before all.
        pending.sort_by_key(|need| {
            (need.held.is_some_and(|held| need.chunks <= held.chunks), Reverse(need.chunks))
        });
        let mut rounds = Vec::new();
        while !pending.is_empty() {
            let mut round = Vec::new();
            let mut shortage = (0, 0);
            pending.retain(|need| {
                let extent = match room.find(need.chunks).or_else(|free| room.stay(need).ok_or(free)) {
                    _ if need.chunks == 0 => None,
                    Ok(extent) => Some(extent),
                    Err(free) => {
                        shortage = (need.chunks, free);
                        return true;
                    }
                };
                room.replace(need.held, extent);
                round.push(Placement { rule: need.rule, extent });
                false
            });
            if !pending.is_empty() && room.given_up.is_empty() {
                return Err(shortage);
            }
            room.settle();
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// A table has been moved: what it had and does not use any more is given up, which means that it stays taken until
    /// [`Room::settle`].
    pub(super) fn replace(&mut self, held: Option<Extent>, new: Option<Extent>) {
        match (held, new) {
            (Some(held), Some(new)) if held.first == new.first => {
                self.given_up.extend(held.behind(new));
                if let Some(more) = new.behind(held) {
                    self.occupy(more);
                }
            }
            (held, new) => {
                if let Some(new) = new {
                    self.occupy(new);
                }
                self.given_up.extend(held);
            }
        }
    }

    fn free(&mut self, extent: Extent) {
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

    /// Takes the first row that is long enough.
    fn take(room: &mut Room, chunks: usize) -> Result<Extent, usize> {
        let extent = room.find(chunks)?;
        room.replace(None, Some(extent));
        Ok(extent)
    }

    #[test]
    fn chunks_are_not_reused_before_they_are_settled() {
        let mut room = Room::new(10);
        let first = take(&mut room, 6).unwrap();
        assert_eq!(take(&mut room, 6), Err(4));
        let second = take(&mut room, 4).unwrap();
        assert_eq!((first.first, second.first), (0, 6));
        room.replace(Some(first), None);
        assert_eq!(take(&mut room, 1), Err(0));
        room.settle();
        assert_eq!(take(&mut room, 2).unwrap().first, 0);
        assert_eq!(take(&mut room, 4).unwrap().first, 2);
    }

    #[test]
    fn freed_chunks_are_one_row_again() {
        let mut room = Room::new(12);
        let extents = [3, 4, 5].map(|chunks| take(&mut room, chunks).unwrap());
        for place in [0, 2, 1] {
            room.replace(Some(extents[place]), None);
            room.settle();
        }
        assert_eq!(take(&mut room, 12).unwrap().first, 0);
        assert_eq!(take(&mut room, 1), Err(0));
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let mut room = Room::new(10);
        room.occupy(Extent { first: 3, chunks: 2 });
        assert_eq!(take(&mut room, 4).unwrap().first, 5);
        assert_eq!(take(&mut room, 3).unwrap().first, 0);
        assert_eq!(take(&mut room, 2), Err(1));
        assert_eq!(Room::needed(251), 16);
    }

    #[test]
    fn tables_move_in_as_many_rounds_as_the_room_asks_for() {
        // Chunks that rules have, those that they shall have, and the rounds that it takes; `None` if there is no way.
        for (held, wanted, rounds) in [
            (&[][..], &[4, 6][..], Some(1)),
            (&[], &[4, 7], None),
            // Free room for all of them, for some of them, for none: those stay where they are.
            (&[2, 2], &[2, 2], Some(1)),
            (&[4, 4], &[4, 4], Some(1)),
            (&[5, 5], &[5, 5], Some(1)),
            (&[5, 5], &[3, 5], Some(1)),
            // What others give up is waited for.
            (&[8], &[0, 4], Some(2)),
            (&[6, 4], &[4, 6], None),
            (&[6, 2, 2], &[2, 2, 4], Some(2)),
            // A row that is too short joins the one that is there.
            (&[2, 6], &[4, 2], Some(2)),
            (&[6, 2, 2], &[2, 2, 6], None),
            (&[4, 6], &[0, 10], None),
            (&[6], &[4, 4], Some(1)),
            (&[10], &[2, 8], Some(2)),
        ] {
            let mut room = Room::new(10);
            let extents: Vec<Extent> = held.iter().map(|chunks| take(&mut room, *chunks).unwrap()).collect();
            let needs: Vec<Need> = (0_u32..)
                .zip(wanted)
                .map(|(rule, chunks)| Need {
                    rule: RuleId(rule),
                    chunks: *chunks,
                    held: extents.get(rule as usize).copied(),
                })
                .collect();
            let plan = room.plan(&needs);
            assert_eq!(plan.as_ref().ok().map(Vec::len), rounds, "{held:?} to {wanted:?}: {plan:?}");
            for round in plan.into_iter().flatten() {
                for placed in round {
                    room.replace(needs[placed.rule.0 as usize].held, placed.extent);
                    assert_eq!(placed.extent.map_or(0, |it| it.chunks), wanted[placed.rule.0 as usize]);
                }
                room.settle();
            }
            let used = wanted.iter().sum::<usize>();
            let free = room.free.values().sum::<usize>();
            assert!(rounds.is_none() || used + free == 10, "{held:?} to {wanted:?}: {free} free");
        }
    }
}
