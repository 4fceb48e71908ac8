//! A flow as people see it: both directions, named ends.

use std::{net::IpAddr, sync::Arc};

use weir_packet::Tuple;

use crate::{
    Count, Direction, Dns, Identity, Monotonic, Outcome, Point, Quality, Role, SocketOwner, Traffic, Wall,
};

/// A flow at one interface, both directions, as of one tick.
///
/// `source` is the side that opened it, as far as that is known ([`Initiator`] says how). The forward direction is
/// from source to destination. A later record of the same flow has its ends the other way round only if proof turned up
/// in between ([`Initiator::Proven`]); its totals are then swapped too.
#[derive(Clone, Debug)]
pub struct Record {
    /// Addresses and ports of the forward direction.
    pub tuple: Tuple,
    /// The side that opened the flow.
    pub source: Endpoint,
    /// The other side.
    pub destination: Endpoint,
    /// Where the *forward* direction was, or would be, seen; the reverse direction is at the same interface, the
    /// other way round (on loopback, which shows both at egress and again at ingress, the same way). Where only the reverse direction is counted, this has the number of that point.
    pub point: Arc<Point>,
    /// Counters since the previous record of this flow: these can be summed. `tcp_flags` are those of the interval; what
    /// describes the last packet (length, flags, DSCP, TTL) is that of the last packet ever seen.
    pub delta: Counters,
    /// Counters since the flow was first seen.
    pub total: Counters,
    /// First packet of the flow, wall time (derived once, so it never moves).
    pub start: Wall,
    /// Last packet of the flow so far, wall time.
    pub end: Wall,
    /// First packet, monotonic.
    pub first: Monotonic,
    /// Last packet, monotonic.
    pub last: Monotonic,
    /// How `source` was chosen.
    pub initiator: Initiator,
    /// Why the flow is over, or `None` while it goes on.
    pub end_reason: Option<EndReason>,
    /// What this record stands for.
    pub detail: Detail,
    /// What became of the flow.
    pub outcome: Outcome,
    /// What the sockets at its ends know of the way between them, where they were asked.
    pub quality: Quality,
    /// What its DNS messages said, if it has any that were read.
    pub dns: Option<Box<Dns>>,
}

impl Record {
    /// Direction in which packets of the reverse direction pass the interface.
    pub fn reverse_direction(&self) -> Direction {
        match self.point.role {
            Role::Loopback => self.point.direction,
            _ => self.point.direction.opposite(),
        }
    }
}

/// Both directions of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// From source to destination.
    pub forward: Traffic,
    /// From destination to source.
    pub reverse: Traffic,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 where the protocol has none or it is unknown.
    pub port: u16,
    /// The socket at this end, where it is local and known.
    pub owner: SocketOwner,
    /// The process that owns the socket, where known.
    pub process: Option<Arc<Process>>,
    /// The workload and container at this end, where somebody looked for them.
    pub identity: Identity,
}

/// A process at one end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process identifier, in the namespace that Weir runs in.
    pub pid: u32,
    /// Name of the executable (the last part of its path), or the command name of a process without one.
    pub executable: Arc<str>,
    /// How it was found.
    pub confidence: ProcessConfidence,
}

/// Finds processes for the ends of records.
///
/// It is asked for both ends of every record that is made, so it must be quick: a look-up, no system call.
pub trait ProcessLookup: Send {
    /// The process at this end, if the end is local and its process known.
    fn process(&self, end: &End<'_>) -> Option<Arc<Process>>;
}

/// One end of a flow, as a [`ProcessLookup`] is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// What the kernel knew of the socket at this end.
    pub owner: SocketOwner,
    /// The flow as this end sends it: the source is this end.
    pub tuple: Tuple,
    /// Where what this end sends was, or would be, seen.
    pub point: &'a Point,
}

/// How sure the process of an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessConfidence {
    /// It holds a descriptor of this very socket (joined by cookie, or by 5-tuple in one namespace).
    Proven,
    /// It listens on the port; the connection itself may belong to another process.
    Listener,
}

/// How the source of a record was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Initiator {
    /// It sent the SYN, or got the SYN|ACK, or it asked (ICMP query), or nothing could come back (ICMP errors, traffic to
    /// a multicast address).
    Proven,
    /// The other side has a socket that listens on the port.
    Listener,
    /// The first packet seen came from it, at a time when both sides could be seen. Never said of TCP, whose first packet
    /// is proof.
    FirstPacket,
    /// The other side has the lower port, or nothing is known at all. Where both ports are ephemeral and only one side has
    /// sent, it is that side.
    LowerPort,
}

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// No packet for the idle timeout.
    Idle,
    /// Both sides sent FIN.
    Fin,
    /// One side sent RST.
    Reset,
    /// Weir stopped, the capture ended, or the interface went away.
    Shutdown,
}

/// How much detail a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// One flow.
    Flow,
    /// The sum of flows that no longer fit the memory: only point, protocol and family are known, the addresses are
    /// unspecified and the ports 0.
    Folded,
}

impl Initiator {
    /// Every reason, the surest first.
    pub const ALL: [Self; 4] = [Self::Proven, Self::Listener, Self::FirstPacket, Self::LowerPort];
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Fin, Self::Reset, Self::Shutdown];
}

impl Counters {
    /// Packets and bytes of both directions.
    #[must_use]
    pub fn count(&self) -> Count {
        self.forward.count() + self.reverse.count()
    }
}
