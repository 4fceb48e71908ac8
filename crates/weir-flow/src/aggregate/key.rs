//! What a flow is filed under: the tuple in its canonical direction, the interface and the orientation.
//!
//! Two directions are one flow when the tuples are each other's reverse and the packets passed the interface in
//! opposite directions. That a to b was seen at ingress *and* at egress of one interface (a hairpin) makes two flows,
//! because these are the same packets, seen twice. Loopback shows every packet of both directions at egress and again
//! at ingress: there a flow is what was seen at one of them.

use std::hash::{Hash, Hasher};

use weir_packet::Tuple;

use super::interfaces::Location;
use crate::Direction;

/// One of the two directions of a flow: the one whose tuple is canonical, or its reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the end that sorts first.
    Canonical,
    /// From the end that sorts last.
    Reverse,
}

impl Way {
    /// Position of this way in a pair.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The other way.
    pub(crate) const fn opposite(self) -> Self {
        match self {
            Self::Canonical => Self::Reverse,
            Self::Reverse => Self::Canonical,
        }
    }
}

/// Key of a flow in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Canonical tuple.
    pub(super) tuple: Tuple,
    /// Number of the interface (from bit 2), whether it is a loopback (bit 1), and whether the canonical way passes it
    /// at egress (bit 0).
    place: u32,
}

impl Key {
    /// The key of a flow and the way in which `tuple` points.
    #[inline]
    pub(super) fn new(tuple: &Tuple, location: Location) -> (Self, Way) {
        let Location { interface, direction, is_loopback } = location;
        let (tuple, way) = canonical(tuple);
        let same_way = is_loopback || way == Way::Canonical;
        let at_egress = (direction == Direction::Egress) == same_way;
        (Self { tuple, place: interface << 2 | u32::from(is_loopback) << 1 | u32::from(at_egress) }, way)
    }

    /// Number of the interface.
    pub(super) const fn interface(self) -> u32 {
        self.place >> 2
    }

    /// Direction in which packets of one way pass the interface.
    pub(super) fn direction(self, way: Way) -> Direction {
        let same_way = self.place & 2 != 0 || way == Way::Canonical;
        if (self.place & 1 != 0) == same_way { Direction::Egress } else { Direction::Ingress }
    }

    /// The tuple of one way.
    pub(super) const fn tuple_of(&self, way: Way) -> Tuple {
        match way {
            Way::Canonical => self.tuple,
            Way::Reverse => self.tuple.reversed(),
        }
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.tuple.words() {
            state.write_u64(word);
        }
        state.write_u32(self.place);
    }
}

/// Whether nothing can come back: an ICMP message that neither asks nor answers. Its "ports" are type and code, so its
/// reverse means nothing and must not be mixed up with another message.
pub(crate) const fn is_one_way(tuple: &Tuple) -> bool {
    tuple.icmp().is_some() && !tuple.is_icmp_query()
}

/// The canonical tuple, and which way `tuple` points: the lower (address, port) is the source.
#[inline]
pub(crate) fn canonical(tuple: &Tuple) -> (Tuple, Way) {
    let [source_high, source_low, destination_high, destination_low, _] = tuple.words();
    let source = (source_high, source_low, tuple.source_port());
    let destination = (destination_high, destination_low, tuple.destination_port());
    if source <= destination || is_one_way(tuple) {
        (*tuple, Way::Canonical)
    } else {
        (tuple.reversed(), Way::Reverse)
    }
}
