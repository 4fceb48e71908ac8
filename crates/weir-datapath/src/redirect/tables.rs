//! Room for tables of backends: which chunks belong to which rule.
//!
//! A table is written into chunks that no program reads, then its rule is changed to name them. Chunks that are given up
//! are not used again before every program that may have read the old rule has come to its end. Where there is no room
//! for both, a table is written over the old one: programs read one entry, and old and new ones name backends of the same
//! rule. Where there is room, but not in a row, tables of other rules move ([`gather`]). So tables that fit at all can be had.

mod gather;

use std::{cmp::Reverse, collections::BTreeMap};

use weir_common::redirect::CHUNK_BACKENDS;

use self::gather::{Gather, Layout};
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

    /// What of it is not part of another one.
    fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let before = (self.first, self.end().min(other.first));
        let behind = (self.first.max(other.end()), self.end());
        let rows = [before, behind].into_iter().filter(|(from, to)| from < to);
        rows.map(|(from, to)| Self { first: from, chunks: to - from })
    }
}

/// A table that a rule shall have in the place of what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    pub(super) rule: RuleId,
    /// 0 if it needs none.
    pub(super) chunks: usize,
}

/// Where a table comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Placement {
    pub(super) rule: RuleId,
    pub(super) extent: Option<Extent>,
    /// Whether it is still the table of before, which only makes room.
    pub(super) is_old: bool,
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
    fn stay(&self, chunks: usize, held: Option<Extent>) -> Option<Extent> {
        let held = held?;
        let new = Extent { chunks, ..held };
        let is_free = |row: Extent| self.free.get(&row.first).is_some_and(|free| *free >= row.chunks);
        new.without(held).all(is_free).then_some(new)
    }

    /// Where a table can be: elsewhere, or where the old one is. Fails with the longest row that is free.
    fn place(&self, chunks: usize, held: Option<Extent>) -> Result<Extent, usize> {
        self.find(chunks).or_else(|free| self.stay(chunks, held).ok_or(free))
    }

    /// Chunks that are free right before a table.
    fn gap_before(&self, extent: Extent) -> Option<usize> {
        let (first, chunks) = self.free.range(..extent.first).next_back()?;
        (first + chunks == extent.first).then_some(*chunks)
    }

    /// Chunks that are free right behind a table.
    fn gap_behind(&self, extent: Extent) -> Option<usize> {
        self.free.get(&extent.end()).copied()
    }

    /// Where tables come to be, in rounds: what is given up in one is settled before the next. `held` is what rules have.
    /// Changes nothing; fails with the chunks that a table needs and those that are left for it.
    pub(super) fn plan(
        &self,
        needs: &[Need],
        held: &BTreeMap<RuleId, Extent>,
    ) -> Result<Vec<Vec<Placement>>, (usize, usize)> {
        let mut room = self.clone();
        let mut layout = Layout::new(held);
        let mut pending = needs.to_vec();
        // Those that must find other room come first, the longest before all.
        pending.sort_by_key(|need| {
            let is_shorter = held.get(&need.rule).is_some_and(|held| need.chunks <= held.chunks);
            (is_shorter, Reverse(need.chunks))
        });
        let mut rounds = Vec::new();
        let mut gather = Gather::Jump;
        while !pending.is_empty() {
            let mut round = Vec::new();
            pending.retain(|need| {
                let extent = match room.place(need.chunks, layout.of(need.rule)) {
                    _ if need.chunks == 0 => None,
                    Ok(extent) => Some(extent),
                    Err(_) => return true,
                };
                layout.set(&mut room, need.rule, extent);
                round.push(Placement { rule: need.rule, extent, is_old: false });
                gather = Gather::Jump;
                false
            });
            if !pending.is_empty() && room.given_up.is_empty() {
                round.extend(room.gather(&mut layout, &pending, &mut gather)?);
            }
            room.settle();
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// A round that makes room for one of these, none of which has any.
    fn gather(
        &mut self,
        layout: &mut Layout<'_>,
        pending: &[Need],
        gather: &mut Gather,
    ) -> Result<Vec<Placement>, (usize, usize)> {
        let free: usize = self.free.values().sum();
        let left = |need: &Need| free + layout.of(need.rule).map_or(0, |held| held.chunks);
        let Some(need) = pending.iter().find(|need| need.chunks <= left(need)) else {
            return Err(pending.first().map_or((0, free), |need| (need.chunks, left(need))));
        };
        let shortage = (need.chunks, left(need));
        let mut moves = gather.round(self, layout, need);
        if moves.is_empty() && *gather == Gather::Jump {
            *gather = Gather::Draw;
            moves = gather.round(self, layout, need);
        }
        if moves.is_empty() {
            return Err(shortage);
        }
        let is_old = |rule: RuleId| pending.iter().any(|need| need.rule == rule);
        let placement = |(rule, to)| Placement { rule, extent: Some(to), is_old: is_old(rule) };
        Ok(moves.into_iter().map(placement).collect())
    }

    /// A table has been moved: what it had and does not use any more is given up, which means that it stays taken until
    /// [`Room::settle`].
    pub(super) fn replace(&mut self, held: Option<Extent>, new: Option<Extent>) {
        let nothing = Extent { first: 0, chunks: 0 };
        let (held, new) = (held.unwrap_or(nothing), new.unwrap_or(nothing));
        new.without(held).for_each(|row| self.occupy(row));
        self.given_up.extend(held.without(new));
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
mod tests;
