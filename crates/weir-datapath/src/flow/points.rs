//! Which interface has which row of the ledger, and which observation points it is.
//!
//! Shared between the thread that attaches and the thread that drains. A row is given out when an interface is
//! attached and comes free two drains after it was detached, when no generation can hold anything of it any more.

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

struct Listed {
    pair: Pair,
    row: u16,
    /// Drains until the row comes free; `None` while attached.
    rest: Option<u8>,
}

/// The state behind [`Points`].
struct State {
    by_ifindex: HashMap<u32, Listed>,
    free_rows: Vec<u16>,
    next_id: u32,
    unlisted: Pair,
}

/// The registry of interfaces.
#[derive(Clone)]
pub(super) struct Points(Arc<Mutex<State>>);

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

/// An interface whose row came free: its entry in the kernel's table can be erased.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) ifindex: u32,
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
        Self(Arc::new(Mutex::new(State { by_ifindex: HashMap::new(), free_rows, next_id: 2, unlisted })))
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
        if let Some(listed) = state.by_ifindex.get(&ifindex) {
            if listed.rest.is_none() {
                return Err(Refusal::Listed);
            }
            // It was detached a moment ago and comes back before its row has come to rest: same row, new points.
            let row = listed.row;
            let pair = state.new_pair(ifindex, name, role, netns);
            state.by_ifindex.insert(ifindex, Listed { pair: pair.clone(), row, rest: None });
            return Ok((row, pair));
        }
        if let Some(other) = state.by_ifindex.keys().find(|other| *other & 0xffff == ifindex & 0xffff) {
            return Err(Refusal::SameIndexBits { other: *other });
        }
        let row = state.free_rows.pop().ok_or(Refusal::NoRow)?;
        let pair = state.new_pair(ifindex, name, role, netns);
        state.by_ifindex.insert(ifindex, Listed { pair: pair.clone(), row, rest: None });
        Ok((row, pair))
    }

    /// Starts the rest of an interface that was detached.
    pub(super) fn retire(&self, ifindex: u32) {
        if let Some(listed) = self.state().by_ifindex.get_mut(&ifindex) {
            listed.rest = Some(DRAINS_TO_REST);
        }
    }

    /// A view for one drain: points by interface and by row.
    pub(super) fn view(&self) -> View {
        let state = self.state();
        View {
            by_ifindex: state
                .by_ifindex
                .iter()
                .map(|(index, listed)| (*index, listed.pair.clone()))
                .collect(),
            rows: state.by_ifindex.values().map(|listed| (listed.row, listed.pair.clone())).collect(),
            unlisted: state.unlisted.clone(),
        }
    }

    /// Counts a finished drain and returns the interfaces whose rows came free by it.
    pub(super) fn drained(&self) -> Vec<Freed> {
        let mut state = self.state();
        let mut freed = Vec::new();
        let State { by_ifindex, free_rows, .. } = &mut *state;
        by_ifindex.retain(|ifindex, listed| match &mut listed.rest {
            None => true,
            Some(0) => {
                free_rows.push(listed.row);
                freed.push(Freed { ifindex: *ifindex });
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        });
        freed
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
    by_ifindex: HashMap<u32, Pair>,
    /// Row of ingress, and both points.
    pub(super) rows: Vec<(u16, Pair)>,
    pub(super) unlisted: Pair,
}

impl View {
    /// Where a flow was seen.
    pub(super) fn point(&self, ifindex: u32, direction: Direction) -> &Arc<Point> {
        self.by_ifindex.get(&ifindex).unwrap_or(&self.unlisted).of(direction)
    }
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
        assert_eq!(points.drained(), [Freed { ifindex: 7 }]);
        assert_eq!(list(&points, 8), Ok(2));
    }

    #[test]
    fn an_interface_that_comes_back_at_once_keeps_its_row_but_not_its_points() {
        let points = Points::new(8, None);
        let (row, first) = points.list(7, &"veth0".into(), Role::Other, None).unwrap();
        points.retire(7);
        let (again, second) = points.list(7, &"veth1".into(), Role::Other, None).unwrap();
        assert_eq!(row, again);
        assert_ne!(first.ingress.id, second.ingress.id);
        assert_eq!(points.drained(), [], "it is attached again");
    }

    #[test]
    fn indexes_that_share_their_low_bits_are_refused_not_confused() {
        let points = Points::new(64, None);
        assert!(list(&points, 5).is_ok());
        assert_eq!(list(&points, 5 + 0x1_0000), Err(Refusal::SameIndexBits { other: 5 }));
        assert_eq!(list(&points, 5), Err(Refusal::Listed));
    }
}
