//! Which interface has which row of the ledger, and which observation points it is.
//!
//! Shared between the thread that attaches and the thread that drains. A row is given out when an interface is
//! attached and comes free two drains after it was detached, when no generation can hold anything of it any more. An
//! interface that comes back before that gets another row: flows carry the row, so nothing of before is taken for new.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use weir_flow::{Direction, Point, PointId, Role};

/// Generations that may still hold packets of a detached interface.
const DRAINS_TO_REST: u8 = 2;

/// Both observation points of one interface.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) ingress: Arc<Point>,
    pub(super) egress: Arc<Point>,
}

impl Pair {
    pub(super) fn of(&self, direction: Direction) -> &Arc<Point> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

#[derive(Clone)]
struct Listed {
    pair: Pair,
    row: u16,
}

/// The row of an interface that was detached.
struct Resting {
    listed: Listed,
    ifindex: u32,
    /// Drains until the row comes free.
    drains: u8,
}

/// The state behind [`Points`].
struct State {
    by_ifindex: HashMap<u32, Listed>,
    resting: Vec<Resting>,
    free_rows: Vec<u16>,
    next_id: u32,
    unlisted: Pair,
}

/// The registry of interfaces.
#[derive(Clone)]
pub(crate) struct Points(Arc<Mutex<State>>);

/// Why an interface cannot get a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All rows are taken.
    NoRow,
    /// Another interface has the same low 16 bits of its index.
    SameIndexBits { other: u32 },
    /// It is listed already.
    Listed,
}

impl Points {
    /// A registry for a ledger with `rows` rows (two for each interface, the first two for "unlisted").
    pub(super) fn new(rows: u32, netns: Option<&Arc<str>>) -> Self {
        let name: Arc<str> = "(unlisted)".into();
        let point = |id, direction| {
            Arc::new(Point {
                id: PointId(id),
                netns: netns.cloned(),
                ifindex: 0,
                interface: Arc::clone(&name),
                direction,
                role: Role::Other,
            })
        };
        let unlisted = Pair { ingress: point(0, Direction::Ingress), egress: point(1, Direction::Egress) };
        let last = u16::try_from(rows.saturating_sub(2)).unwrap_or(u16::MAX - 1);
        let free_rows = (2..=last).step_by(2).rev().collect();
        let (by_ifindex, resting) = (HashMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { by_ifindex, resting, free_rows, next_id: 2, unlisted })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the state whole, so a panic elsewhere does not matter here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an interface a row and two points.
    pub(super) fn list(
        &self,
        ifindex: u32,
        name: &Arc<str>,
        role: Role,
        netns: Option<&Arc<str>>,
    ) -> Result<(u16, Pair), Refusal> {
        let mut state = self.state();
        if state.by_ifindex.contains_key(&ifindex) {
            return Err(Refusal::Listed);
        }
        if let Some(other) = state.by_ifindex.keys().find(|other| *other & 0xffff == ifindex & 0xffff) {
            return Err(Refusal::SameIndexBits { other: *other });
        }
        let row = state.free_rows.pop().ok_or(Refusal::NoRow)?;
        let pair = state.new_pair(ifindex, name, role, netns);
        state.by_ifindex.insert(ifindex, Listed { pair: pair.clone(), row });
        Ok((row, pair))
    }

    /// Starts the rest of an interface that was detached.
    pub(super) fn retire(&self, ifindex: u32) {
        let mut state = self.state();
        if let Some(listed) = state.by_ifindex.remove(&ifindex) {
            state.resting.push(Resting { listed, ifindex, drains: DRAINS_TO_REST });
        }
    }

    /// A view for one drain: all rows that may hold something.
    pub(super) fn view(&self) -> View {
        let state = self.state();
        let resting = state.resting.iter().map(|resting| &resting.listed);
        let rows = state.by_ifindex.values().chain(resting).cloned();
        View {
            rows: rows.map(|listed| (listed.row, listed.pair)).collect(),
            unlisted: state.unlisted.clone(),
        }
    }

    /// What the interface with this index is, if it has, or had a moment ago, this row for either direction.
    pub(crate) fn role_at(&self, row: u32, ifindex: u32) -> Option<Role> {
        let state = self.state();
        let resting = state.resting.iter().map(|resting| &resting.listed);
        let mut listed = state.by_ifindex.get(&ifindex).into_iter().chain(resting);
        let found = listed.find(|it| u32::from(it.row) == row & !1 && it.pair.ingress.ifindex == ifindex)?;
        Some(found.pair.ingress.role)
    }

    /// Counts a finished drain and returns the interfaces that nothing is left of: their entries in the kernel's table
    /// can be erased.
    pub(super) fn drained(&self) -> Vec<u32> {
        let mut state = self.state();
        let mut gone = Vec::new();
        let State { by_ifindex, resting, free_rows, .. } = &mut *state;
        resting.retain_mut(|resting| {
            if resting.drains > 0 {
                resting.drains -= 1;
                return true;
            }
            free_rows.push(resting.listed.row);
            if !by_ifindex.contains_key(&resting.ifindex) {
                gone.push(resting.ifindex);
            }
            false
        });
        gone
    }
}

impl State {
    fn new_pair(&mut self, ifindex: u32, name: &Arc<str>, role: Role, netns: Option<&Arc<str>>) -> Pair {
        let id = self.next_id;
        self.next_id += 2;
        let point = |id, direction| {
            Arc::new(Point {
                id: PointId(id),
                netns: netns.cloned(),
                ifindex,
                interface: Arc::clone(name),
                direction,
                role,
            })
        };
        Pair { ingress: point(id, Direction::Ingress), egress: point(id + 1, Direction::Egress) }
    }
}

/// Points as they are during one drain.
pub(super) struct View {
    /// Row of ingress, and both points.
    pub(super) rows: Vec<(u16, Pair)>,
    pub(super) unlisted: Pair,
}

/// The kernel's code of a role.
pub(super) const fn role_code(role: Role) -> u8 {
    use weir_common::flow;
    match role {
        Role::PodEdge => flow::ROLE_POD_EDGE,
        Role::Uplink => flow::ROLE_UPLINK,
        Role::Tunnel => flow::ROLE_TUNNEL,
        Role::Loopback => flow::ROLE_LOOPBACK,
        Role::Bridge => flow::ROLE_BRIDGE,
        Role::Other => flow::ROLE_OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(points: &Points, ifindex: u32) -> Result<u16, Refusal> {
        points.list(ifindex, &"veth0".into(), Role::Other, None).map(|(row, _)| row)
    }

    #[test]
    fn a_row_comes_free_two_drains_after_its_interface_went() {
        let points = Points::new(4, None);
        assert_eq!(list(&points, 7), Ok(2));
        assert_eq!(list(&points, 8), Err(Refusal::NoRow));
        points.retire(7);
        assert_eq!(points.drained(), []);
        assert_eq!(points.drained(), []);
        assert_eq!(list(&points, 8), Err(Refusal::NoRow), "the second generation was not read yet");
        assert_eq!(points.drained(), [7]);
        assert_eq!(list(&points, 8), Ok(2));
    }

    #[test]
    fn an_interface_that_comes_back_at_once_gets_a_row_of_its_own() {
        let points = Points::new(8, None);
        let (row, first) = points.list(7, &"veth0".into(), Role::Other, None).unwrap();
        points.retire(7);
        let (again, second) = points.list(7, &"veth1".into(), Role::Other, None).unwrap();
        assert_ne!(row, again, "packets of before are not to count for the new points");
        assert_ne!(first.ingress.id, second.ingress.id);
        let rows: Vec<u16> = points.view().rows.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows.len(), 2, "both are read: {rows:?}");
        assert_eq!(points.role_at(row.into(), 7), Some(Role::Other));
        for _ in 0..4 {
            assert_eq!(points.drained(), [], "it is attached again");
        }
        assert_eq!(points.view().rows.len(), 1);
        assert_eq!(points.role_at(row.into(), 7), None);
        assert_eq!(points.role_at(u32::from(again) + 1, 7), Some(Role::Other), "egress has the next row");
        assert_eq!(points.role_at(again.into(), 8), None);
    }

    #[test]
    fn indexes_that_share_their_low_bits_are_refused_not_confused() {
        let points = Points::new(64, None);
        assert!(list(&points, 5).is_ok());
        assert_eq!(list(&points, 5 + 0x1_0000), Err(Refusal::SameIndexBits { other: 5 }));
        assert_eq!(list(&points, 5), Err(Refusal::Listed));
    }
}
