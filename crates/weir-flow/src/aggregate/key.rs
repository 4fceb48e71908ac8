//! What a flow is filed under: the tuple in its canonical direction, the interface and the orientation.
//!
//! Two directions are one flow when the tuples are each other's reverse and the packets passed the interface in
//! opposite directions. That a to b was seen at ingress *and* at egress of one interface (loopback, a hairpin) makes
//! two flows, because these are the same packets, seen twice.

use std::hash::{Hash, Hasher};

use weir_packet::Tuple;

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
    /// Number of the interface times two, plus one if the canonical way passes it at egress.
    place: u32,
}

impl Key {
    /// The key of a flow and the way in which `tuple` points.
    #[inline]
    pub(super) fn new(tuple: &Tuple, interface: u32, direction: Direction) -> (Self, Way) {
        let (tuple, way) = canonical(tuple);
        let at_egress = (direction == Direction::Egress) == (way == Way::Canonical);
        (Self { tuple, place: interface << 1 | u32::from(at_egress) }, way)
    }

    /// Number of the interface.
    pub(super) const fn interface(self) -> u32 {
        self.place >> 1
    }

    /// Direction in which packets of one way pass the interface.
    pub(super) const fn direction(self, way: Way) -> Direction {
        match (self.place & 1 == 1, way) {
            (true, Way::Canonical) | (false, Way::Reverse) => Direction::Egress,
            (false, Way::Canonical) | (true, Way::Reverse) => Direction::Ingress,
        }
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
