//! Tables come to be where they shall, whatever was there before, and no program reads what is another rule's.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

/// Takes the first row that is long enough.
fn take(room: &mut Room, chunks: usize) -> Result<Extent, usize> {
    let extent = room.find(chunks)?;
    room.replace(None, Some(extent));
    Ok(extent)
}

/// Chunks of a map, and whose they are.
struct Map {
    room: Room,
    held: BTreeMap<RuleId, Extent>,
    owners: Vec<Option<RuleId>>,
}

impl Map {
    fn new(chunks: usize) -> Self {
        Self { room: Room::new(chunks), held: BTreeMap::new(), owners: vec![None; chunks] }
    }

    /// Gives rules tables of these lengths, if there is a way. Returns the rounds that it took.
    fn change(&mut self, wanted: &[(RuleId, usize)]) -> Option<usize> {
        let needs: Vec<Need> =
            wanted.iter().map(|(rule, chunks)| Need { rule: *rule, chunks: *chunks }).collect();
        let plan = self.room.plan(&needs, &self.held).ok()?;
        for round in &plan {
            self.carry_out(round);
        }
        for (rule, chunks) in wanted {
            assert_eq!(self.held.get(rule).map_or(0, |extent| extent.chunks), *chunks, "{rule:?}");
        }
        let free: usize = self.room.free.values().sum();
        assert_eq!(free, self.owners.iter().filter(|owner| owner.is_none()).count());
        Some(plan.len())
    }

    fn carry_out(&mut self, round: &[Placement]) {
        // Until the end of the round, programs may read what they read before.
        let mut written = self.owners.clone();
        for Placement { rule, extent, is_old } in round {
            for chunk in extent.iter().flat_map(|extent| extent.first..extent.end()) {
                assert!(
                    written[chunk].is_none_or(|owner| owner == *rule),
                    "{chunk} is read for another rule"
                );
                written[chunk] = Some(*rule);
            }
            let length = self.held.get(rule).map(|extent| extent.chunks);
            assert!(!is_old || extent.map(|extent| extent.chunks) == length);
            self.room.replace(self.held.remove(rule), *extent);
            self.held.extend(extent.map(|extent| (*rule, extent)));
        }
        self.room.settle();
        self.owners.fill(None);
        for (rule, extent) in &self.held {
            self.owners[extent.first..extent.end()].fill(Some(*rule));
        }
    }
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
        (&[6, 2, 2], &[2, 2, 4], Some(2)),
        // A row that is too short joins the one that is there.
        (&[2, 6], &[4, 2], Some(2)),
        (&[6], &[4, 4], Some(1)),
        (&[10], &[2, 8], Some(2)),
        // Others make room: the last ones go into gaps, or all draw near.
        (&[2, 2, 2, 2, 2], &[0, 2, 0, 2, 4], Some(3)),
        (&[2, 2, 2, 2, 2], &[0, 2, 0, 2, 2, 4], Some(3)),
        (&[6, 4], &[4, 6], Some(3)),
        (&[4, 6], &[0, 10], Some(3)),
        (&[6, 2, 2], &[2, 2, 6], Some(4)),
        (&[1, 3, 1, 3, 1], &[0, 3, 0, 3, 0, 4], Some(4)),
    ] {
        let mut map = Map::new(10);
        let named = |chunks: &[usize]| (0..).map(RuleId).zip(chunks.iter().copied()).collect::<Vec<_>>();
        for one in named(held) {
            assert_eq!(map.change(&[one]), Some(1));
        }
        assert_eq!(map.change(&named(wanted)), rounds, "{held:?} to {wanted:?}");
    }
}

proptest! {
    #[test]
    fn tables_that_fit_at_all_can_be_had(
        is_odd in any::<bool>(),
        changes in vec(vec((0_u32..24, 0_usize..5), 1..24), 1..12),
    ) {
        const CHUNKS: usize = 96;
        let mut map = Map::new(CHUNKS);
        for change in changes {
            // Those of one size are multiples of all that are smaller, or they are not.
            let sizes = if is_odd { [0, 1, 3, 7, 31] } else { [0, 1, 4, 16, 64] };
            let wanted: BTreeMap<RuleId, usize> =
                change.into_iter().map(|(rule, size)| (RuleId(rule), sizes[size])).collect();
            let stay: usize =
                map.held.iter().filter(|(rule, _)| !wanted.contains_key(rule)).map(|(_, extent)| extent.chunks).sum();
            let fits = stay + wanted.values().sum::<usize>() <= CHUNKS;
            let rounds = map.change(&wanted.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(rounds.is_some(), fits);
        }
    }
}
