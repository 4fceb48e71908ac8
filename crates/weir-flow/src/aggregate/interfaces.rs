//! [`Interfaces`]: which two observation points are the two directions of one interface.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::{Direction, Point, PointId, Role};

/// Points by number, paired to interfaces with small numbers of their own.
#[derive(Default)]
pub(super) struct Interfaces {
    points: HashMap<PointId, Location, RandomState>,
    pairs: Vec<Option<Pair>>,
    /// By role, how many interfaces there are at which packets are counted that come in.
    ways_in: Vec<(Role, usize)>,
}

/// Where an observation belongs.
#[derive(Clone, Copy)]
pub(super) struct Location {
    /// Number of the interface.
    pub(super) interface: u32,
    /// Direction in which the packets passed it.
    pub(super) direction: Direction,
    /// Whether it shows both directions of a flow the same way.
    pub(super) is_loopback: bool,
}

/// The points of one interface: ingress, egress.
struct Pair {
    points: [Side; 2],
}

/// One direction of an interface.
enum Side {
    /// Not counted. The point is that of the other direction, turned round.
    Mirrored(Arc<Point>),
    /// Counted.
    Present(Arc<Point>),
    /// No longer counted.
    Removed(Arc<Point>),
}

impl Interfaces {
    /// Adds a point, or changes the name or role of one that is known.
    pub(super) fn set(&mut self, point: Arc<Point>) {
        let direction = point.direction;
        let known = self.points.get(&point.id).map(|location| location.interface);
        let interface = known.or_else(|| self.other_half(&point)).unwrap_or_else(|| self.vacancy());
        let is_loopback = point.role == Role::Loopback;
        self.points.insert(point.id, Location { interface, direction, is_loopback });
        let slot = &mut self.pairs[interface as usize];
        let mirrored = || Arc::new(Point { direction: direction.opposite(), ..(*point).clone() });
        match slot {
            None => {
                let other = Side::Mirrored(mirrored());
                let this = Side::Present(point);
                let points = if direction == Direction::Ingress { [this, other] } else { [other, this] };
                *slot = Some(Pair { points });
            }
            Some(pair) => {
                if let other @ Side::Mirrored(_) = &mut pair.points[direction.opposite() as usize] {
                    *other = Side::Mirrored(mirrored());
                }
                pair.points[direction as usize] = Side::Present(point);
            }
        }
        self.list_ways_in();
    }

    /// Forgets a point; what was counted at it stays until [`Interfaces::sweep`].
    pub(super) fn remove(&mut self, id: PointId) {
        let Some(Location { interface, direction, .. }) = self.points.remove(&id) else { return };
        if let Some(pair) = &mut self.pairs[interface as usize] {
            let side = &mut pair.points[direction as usize];
            *side = Side::Removed(Arc::clone(side.point()));
        }
        self.list_ways_in();
    }

    /// Where a point is.
    #[inline]
    pub(super) fn locate(&self, id: PointId) -> Option<Location> {
        self.points.get(&id).copied()
    }

    /// The point of one direction of an interface.
    pub(super) fn point(&self, interface: u32, direction: Direction) -> &Arc<Point> {
        let pair = self.pairs[interface as usize].as_ref();
        pair.expect("an interface stays until its flows have ended").points[direction as usize].point()
    }

    /// Whether one direction of an interface is counted now.
    pub(super) fn is_counted(&self, interface: u32, direction: Direction) -> bool {
        let pair = self.pairs[interface as usize].as_ref();
        pair.is_some_and(|pair| matches!(pair.points[direction as usize], Side::Present(_)))
    }

    /// Whether packets are counted that come in at another interface of the same role.
    pub(super) fn have_other_way_in(&self, interface: u32, role: Role) -> bool {
        let counts = self.ways_in.iter().find(|(known, _)| *known == role).map_or(0, |(_, count)| *count);
        counts > usize::from(self.is_counted(interface, Direction::Ingress))
    }

    /// Whether no direction of an interface is counted any more.
    pub(super) fn is_gone(&self, interface: u32) -> bool {
        self.pairs[interface as usize].as_ref().is_none_or(Pair::is_gone)
    }

    /// Frees the numbers of the interfaces that are gone. No flow may still refer to them.
    pub(super) fn sweep(&mut self) {
        for slot in &mut self.pairs {
            if slot.as_ref().is_some_and(Pair::is_gone) {
                *slot = None;
            }
        }
    }

    fn list_ways_in(&mut self) {
        self.ways_in.clear();
        for pair in self.pairs.iter().flatten() {
            let Side::Present(point) = &pair.points[Direction::Ingress as usize] else { continue };
            match self.ways_in.iter_mut().find(|(role, _)| *role == point.role) {
                Some((_, count)) => *count += 1,
                None => self.ways_in.push((point.role, 1)),
            }
        }
    }

    /// The interface of which `point` is the direction that is not counted, but the other one is.
    fn other_half(&self, point: &Point) -> Option<u32> {
        let is_it = |pair: &Pair| {
            let other = pair.points[point.direction.opposite() as usize].point();
            !matches!(pair.points[point.direction as usize], Side::Present(_))
                && !pair.is_gone()
                && (other.ifindex, &other.netns) == (point.ifindex, &point.netns)
        };
        let position = self.pairs.iter().position(|pair| pair.as_ref().is_some_and(is_it))?;
        Some(u32::try_from(position).expect("there are fewer than 2^31 interfaces"))
    }

    /// A number that no interface has.
    fn vacancy(&mut self) -> u32 {
        let position = self.pairs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        u32::try_from(position).expect("there are fewer than 2^31 interfaces")
    }
}

impl Pair {
    fn is_gone(&self) -> bool {
        !self.points.iter().any(|side| matches!(side, Side::Present(_)))
    }
}

impl Side {
    const fn point(&self) -> &Arc<Point> {
        match self {
            Self::Mirrored(point) | Self::Present(point) | Self::Removed(point) => point,
        }
    }
}
