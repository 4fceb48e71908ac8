//! [`Tally`]: adds rows up by what they have in common, column by column, in bounded memory.
//!
//! What the rows of a group have in common is a key of a few small numbers, which are given out as texts and values
//! are first met; so a row costs a look-up by some words, and no text is compared. The role of the interface is always
//! part of the key: counters of different roles are never added. When there are too many groups, the smallest are
//! folded into one sum per role, so that no sum gets lost.

mod key;
mod names;

use std::{cmp::Reverse, hash::BuildHasher as _};

use arrow_array::types::{Int64Type, TimestampMillisecondType, UInt64Type};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use weir_flow::{
    Count, Direction, Role,
    field::Value,
    group::{Summed, Sums},
};

use super::{
    batch::Batch,
    schema::{self, AGAIN, RECORDED},
};
pub(super) use key::{Part, Side, Spare};
use names::Names;

/// Groups that are kept when there are too many; there may be twice as many before.
pub(super) const MOST_GROUPS: usize = 65_536;

/// Most texts and values that have numbers.
const MOST_NAMES: usize = 400_000;

/// Where a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Number of the source that was scanned.
    pub(super) source: u32,
    /// Row in it.
    pub(super) row: u32,
}

/// The sum of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) sums: Sums,
    /// Packets as the kernel handed them over, forward and reverse.
    pub(super) skbs: [u64; 2],
    /// Flows of which these are the first records.
    pub(super) opened: u64,
    /// The latest row.
    pub(super) latest: Place,
    latest_ms: i64,
}

/// Sums by key.
pub(super) struct Tally {
    parts: Vec<Part>,
    counted: Counted,
    /// Words of a key.
    width: usize,
    keys: Vec<u32>,
    totals: Vec<Total>,
    table: HashTable<u32>,
    hasher: FixedState,
    names: Names,
    /// What was folded.
    others: Vec<(Role, Sums)>,
}

/// The columns that every tally needs.
const COUNTERS: [&str; 7] = [
    "flow.observation",
    "flow.direction",
    "flow.bytes",
    "flow.packets",
    "flow.reverse.bytes",
    "flow.reverse.packets",
    RECORDED,
];

/// Those besides, by what is counted.
const OPENED: [&str; 1] = ["flow.before.packets"];
const BUFFERS: [&str; 2] = ["flow.joined", "flow.reverse.joined"];

/// What is counted besides packets and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Nothing.
    Plain,
    /// Flows that began.
    Opened,
    /// Buffers of the kernel.
    Buffers,
}

impl Tally {
    /// A tally of rows that have these parts in common.
    pub(super) fn by(parts: Vec<Part>, counted: Counted) -> Self {
        let width = 1 + parts.iter().map(Part::width).sum::<usize>();
        Self {
            parts,
            counted,
            width,
            keys: Vec::new(),
            totals: Vec::new(),
            table: HashTable::new(),
            hasher: FixedState::default(),
            names: Names::default(),
            others: Vec::new(),
        }
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> Vec<usize> {
        let more: &[&str] = match self.counted {
            Counted::Plain => &[],
            Counted::Opened => &OPENED,
            Counted::Buffers => &BUFFERS,
        };
        let named = COUNTERS.iter().chain(more);
        let mut columns: Vec<usize> = named.filter_map(|name| schema::position(name)).collect();
        for part in &self.parts {
            part.require(&mut columns);
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Of these columns, those that can sometimes be spared.
    pub(super) fn spare(&self) -> Vec<Spare> {
        let spare: Vec<Spare> = self.parts.iter().flat_map(Part::spare).collect();
        let mut others = Vec::new();
        for part in self.parts.iter().filter(|part| part.spare().is_empty()) {
            part.require(&mut others);
        }
        spare.into_iter().filter(|spare| !others.contains(&spare.column)).collect()
    }

    /// Groups so far.
    pub(super) fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether it has no room for more names, so that the scan must end.
    pub(super) fn is_full(&self) -> bool {
        self.names.len() > MOST_NAMES
    }

    /// Whether something was folded, so that the sums of groups may be too small.
    pub(super) fn has_folded(&self) -> bool {
        !self.others.is_empty()
    }

    /// Adds the rows that are `selected`.
    pub(super) fn add(&mut self, batch: &Batch, selected: &[bool], source: u32) {
        let counters = Counters::of(batch);
        let mut words: Vec<Vec<u32>> = Vec::with_capacity(self.width);
        words.push(counters.role.iter().map(|role| u32::try_from(*role).unwrap_or_default()).collect());
        for part in &self.parts {
            part.words(batch, &mut self.names, &mut words);
        }
        // Neighbours are often of one group, because of the order of rows in segments.
        let differs = differs_from_row_before(&words, batch.rows);
        let (mut key, mut group, mut is_known) = (Vec::with_capacity(self.width), 0, false);
        for row in 0..batch.rows {
            is_known &= !differs[row];
            if !selected[row] {
                continue;
            }
            if !is_known {
                key.clear();
                key.extend(words.iter().map(|column| column[row]));
                (group, is_known) = (self.group(&key), true);
            }
            let place = Place { source, row: batch.number_of(row) };
            counters.add_to(&mut self.totals[group], row, place);
        }
        if self.totals.len() > 2 * MOST_GROUPS {
            self.fold();
        }
    }

    fn group(&mut self, key: &[u32]) -> usize {
        let Self { keys, table, hasher, width, totals, .. } = self;
        let key_of = |group: u32| {
            let start = group as usize * *width;
            &keys[start..start + *width]
        };
        let hash = hasher.hash_one(key);
        if let Some(group) = table.find(hash, |group| key_of(*group) == key) {
            return *group as usize;
        }
        let group = totals.len();
        let number = u32::try_from(group).expect("groups are folded long before 2^32");
        table.insert_unique(hash, number, |group| hasher.hash_one(key_of(*group)));
        keys.extend_from_slice(key);
        totals.push(Total::default());
        group
    }

    /// Keeps the largest groups.
    fn fold(&mut self) {
        let mut order = self.by_bytes();
        order.select_nth_unstable(MOST_GROUPS);
        let rest = order.split_off(MOST_GROUPS);
        for (_, group) in rest {
            let group = group as usize;
            let (role, sums) = (self.role(group), self.totals[group].sums);
            self.fold_into_others(role, sums);
        }
        // Those that stay move to the front, in their order.
        order.sort_unstable_by_key(|(_, group)| *group);
        let width = self.width;
        for (place, (_, group)) in order.iter().enumerate() {
            let group = *group as usize;
            self.keys.copy_within(group * width..(group + 1) * width, place * width);
            self.totals[place] = self.totals[group];
        }
        self.keys.truncate(order.len() * width);
        self.totals.truncate(order.len());
        self.table.clear();
        for group in 0..self.totals.len() {
            let (hasher, keys) = (&self.hasher, &self.keys);
            let hash_of = |group: usize| hasher.hash_one(&keys[group * width..(group + 1) * width]);
            let number = u32::try_from(group).expect("groups are folded long before 2^32");
            self.table.insert_unique(hash_of(group), number, |group| hash_of(*group as usize));
        }
    }

    /// Groups with their bytes, such that the largest are the least.
    fn by_bytes(&self) -> Vec<(Reverse<u64>, u32)> {
        let bytes = self.totals.iter().map(|total| Reverse(total.sums.both().bytes));
        bytes.zip(0..).collect()
    }

    fn fold_into_others(&mut self, role: Role, sums: Sums) {
        match self.others.iter_mut().find(|(candidate, _)| *candidate == role) {
            Some((_, others)) => *others += sums,
            None => self.others.push((role, sums)),
        }
    }

    /// Counts each group as one flow instead of its records.
    pub(super) fn count_once(&mut self) {
        for total in &mut self.totals {
            total.sums.flows = 1;
        }
    }

    /// The words of a group's key.
    pub(super) fn key(&self, group: usize) -> &[u32] {
        &self.keys[group * self.width..(group + 1) * self.width]
    }

    /// The role of a group.
    pub(super) fn role(&self, group: usize) -> Role {
        Role::ALL[self.key(group)[0] as usize]
    }

    /// The sum of a group.
    pub(super) fn total(&self, group: usize) -> &Total {
        &self.totals[group]
    }

    /// The parts with the words that each has in the key of a group.
    pub(super) fn parts(&self, group: usize) -> impl Iterator<Item = (&Part, &[u32])> {
        let mut rest = &self.key(group)[1..];
        self.parts.iter().map(move |part| {
            let (words, after) = rest.split_at(part.width());
            rest = after;
            (part, words)
        })
    }

    /// The names that words stand for.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The values of the fields among the parts.
    pub(super) fn values(&self, group: usize) -> Vec<Value<'static>> {
        self.parts(group).filter_map(|(part, words)| part.value(words, &self.names)).collect()
    }

    /// What was folded, by role.
    pub(super) fn others(&self) -> &[(Role, Sums)] {
        &self.others
    }

    /// Groups with their sums, the largest first, and the sum of those beyond the first `limit`.
    pub(super) fn ranked(&self, limit: usize) -> (Vec<usize>, Vec<(Role, Sums)>) {
        let mut order = self.by_bytes();
        order.sort_unstable();
        let mut order: Vec<usize> = order.into_iter().map(|(_, group)| group as usize).collect();
        let rest = order.split_off(limit.min(order.len()));
        let rest = rest.into_iter().map(|group| (self.role(group), self.totals[group].sums));
        let mut others =
            weir_flow::group::by_role(&rest.chain(self.others.iter().copied()).collect::<Vec<_>>());
        others.retain(|item| item.role_and_sums().1 != Sums::default());
        (order, others)
    }
}

/// For each row whether any word is another one than in the row before.
fn differs_from_row_before(words: &[Vec<u32>], rows: usize) -> Vec<bool> {
    let mut differs = vec![false; rows];
    if let Some(first) = differs.first_mut() {
        *first = true;
    }
    for column in words {
        for (differs, pair) in differs.iter_mut().skip(1).zip(column.windows(2)) {
            *differs |= pair[0] != pair[1];
        }
    }
    differs
}

/// The counters of a batch, ready to be added.
struct Counters<'b> {
    role: Vec<usize>,
    direction: Vec<Direction>,
    forward_bytes: &'b [u64],
    forward_packets: &'b [u64],
    reverse_bytes: &'b [u64],
    reverse_packets: &'b [u64],
    before: &'b [i64],
    joined: [&'b [i64]; 2],
    recorded: &'b [i64],
}

impl<'b> Counters<'b> {
    fn of(batch: &'b Batch) -> Self {
        let unsigned = |name| numbers::<UInt64Type>(batch, name);
        let signed = |name| numbers::<Int64Type>(batch, name);
        Self {
            role: enumerated(batch, "flow.observation", |text| {
                Role::ALL.iter().position(|role| role.as_str() == text).unwrap_or(Role::ALL.len() - 1)
            }),
            direction: enumerated(batch, "flow.direction", |text| {
                let found = Direction::ALL.into_iter().find(|direction| direction.as_str() == text);
                found.unwrap_or(Direction::Ingress)
            }),
            forward_bytes: unsigned("flow.bytes"),
            forward_packets: unsigned("flow.packets"),
            reverse_bytes: unsigned("flow.reverse.bytes"),
            reverse_packets: unsigned("flow.reverse.packets"),
            before: signed("flow.before.packets"),
            joined: [signed("flow.joined"), signed("flow.reverse.joined")],
            recorded: numbers::<TimestampMillisecondType>(batch, RECORDED),
        }
    }

    fn add_to(&self, total: &mut Total, row: usize, place: Place) {
        let at = |numbers: &[u64]| numbers.get(row).copied().unwrap_or_default();
        let at_signed = |numbers: &[i64]| numbers.get(row).copied().unwrap_or_default();
        let forward = Count { packets: at(self.forward_packets), bytes: at(self.forward_bytes) };
        let reverse = Count { packets: at(self.reverse_packets), bytes: at(self.reverse_bytes) };
        let direction = self.direction[row];
        let back = match Role::ALL[self.role[row]] {
            Role::Loopback => direction,
            _ => direction.opposite(),
        };
        let mut passed = [Count::default(); 2];
        passed[direction as usize] += forward;
        passed[back as usize] += reverse;
        let [ingress, egress] = passed;
        total.sums += Sums { flows: 1, forward, reverse, ingress, egress };
        total.skbs[0] += forward.packets.wrapping_sub(at_signed(self.joined[0]).cast_unsigned());
        total.skbs[1] += reverse.packets.wrapping_sub(at_signed(self.joined[1]).cast_unsigned());
        total.opened += u64::from(at_signed(self.before) == 0);
        let recorded_ms = at_signed(self.recorded);
        if total.sums.flows == 1 || recorded_ms >= total.latest_ms {
            (total.latest, total.latest_ms) = (place, recorded_ms);
        }
    }
}

fn numbers<'b, T: arrow_array::types::ArrowPrimitiveType>(batch: &'b Batch, name: &str) -> &'b [T::Native] {
    let column = schema::position(name).and_then(|position| batch.numbers::<T>(position));
    column.map_or(&[], |array| array.values())
}

/// What each row's text stands for; rows without one are taken for the empty text.
fn enumerated<T: Copy>(batch: &Batch, name: &str, of: impl Fn(&str) -> T) -> Vec<T> {
    let none = of("");
    let Some(texts) = schema::position(name).and_then(|position| batch.texts(position)) else {
        return vec![none; batch.rows];
    };
    let meanings: Vec<T> = texts.different.iter().map(|text| of(text.unwrap_or_default())).collect();
    texts.map(&meanings, none)
}

/// Which rows count: a flow that was seen at several interfaces of a role counts at one of them.
pub(super) fn counted_once(batch: &Batch, selected: &mut [bool]) {
    if let Some(again) = schema::position(AGAIN).and_then(|position| batch.truths(position)) {
        for (selected, again) in selected.iter_mut().zip(again.values()) {
            *selected &= !again;
        }
    }
}
