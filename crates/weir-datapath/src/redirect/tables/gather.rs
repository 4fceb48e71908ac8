//! Bringing free chunks together where they are enough, but not in a row: tables of rules move, in rounds.
//!
//! A table that moves is written where nothing is read, or partly over itself, which is as good as over itself (see
//! [`super::Room`]). What it leaves is free in the next round.

use std::collections::BTreeMap;

use super::{Extent, Need, Room};
use crate::redirect::desired::RuleId;

/// Where tables are, as a plan goes on.
pub(super) struct Layout<'a> {
    before: &'a BTreeMap<RuleId, Extent>,
    /// Those that are somewhere else since; `None` if they are nowhere.
    since: BTreeMap<RuleId, Option<Extent>>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(before: &'a BTreeMap<RuleId, Extent>) -> Self {
        Self { before, since: BTreeMap::new() }
    }

    /// Where the table of a rule is.
    pub(super) fn of(&self, rule: RuleId) -> Option<Extent> {
        self.since.get(&rule).copied().unwrap_or_else(|| self.before.get(&rule).copied())
    }

    /// The table of a rule comes to be there.
    pub(super) fn set(&mut self, room: &mut Room, rule: RuleId, extent: Option<Extent>) {
        room.replace(self.of(rule), extent);
        self.since.insert(rule, extent);
    }

    /// All tables, the first in the map first.
    fn all(&self) -> Vec<(RuleId, Extent)> {
        let stay = self.before.iter().filter(|(rule, _)| !self.since.contains_key(rule));
        let moved = self.since.iter().filter_map(|(rule, extent)| Some((*rule, (*extent)?)));
        let mut all: Vec<_> = stay.map(|(rule, extent)| (*rule, *extent)).chain(moved).collect();
        all.sort_by_key(|(_, extent)| extent.first);
        all
    }
}

/// How free chunks are brought together for one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gather {
    /// The last tables go into gaps before: few of them have to.
    Jump,
    /// All tables draw near to each other, away from the place behind the one that is to grow.
    Draw,
}

impl Gather {
    /// One round, or nothing if this way leads no further.
    pub(super) fn round(
        self,
        room: &mut Room,
        layout: &mut Layout<'_>,
        need: &Need,
    ) -> Vec<(RuleId, Extent)> {
        match self {
            Self::Jump => jump(room, layout, need),
            Self::Draw => draw(room, layout, need),
        }
    }
}

fn jump(room: &mut Room, layout: &mut Layout<'_>, need: &Need) -> Vec<(RuleId, Extent)> {
    let mut moves = Vec::new();
    for (rule, extent) in layout.all().into_iter().rev() {
        let to = room.find(extent.chunks).ok().filter(|to| to.first < extent.first && rule != need.rule);
        let Some(to) = to else { continue };
        layout.set(room, rule, Some(to));
        moves.push((rule, to));
        let mut settled = room.clone();
        settled.settle();
        if settled.place(need.chunks, layout.of(need.rule)).is_ok() {
            break;
        }
    }
    moves
}

fn draw(room: &mut Room, layout: &mut Layout<'_>, need: &Need) -> Vec<(RuleId, Extent)> {
    let mut all = layout.all();
    let first_above = match layout.of(need.rule) {
        Some(held) => all.partition_point(|(_, extent)| extent.first <= held.first),
        None => all.len(),
    };
    let above = all.split_off(first_above);
    let mut moves = Vec::new();
    for (rule, extent) in all {
        if let Some(gap) = room.gap_before(extent) {
            moves.push((rule, Extent { first: extent.first - gap, ..extent }));
            layout.set(room, rule, moves.last().map(|(_, to)| *to));
        }
    }
    for (rule, extent) in above.into_iter().rev() {
        if let Some(gap) = room.gap_behind(extent) {
            moves.push((rule, Extent { first: extent.first + gap, ..extent }));
            layout.set(room, rule, moves.last().map(|(_, to)| *to));
        }
    }
    moves
}
