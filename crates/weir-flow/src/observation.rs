//! What the datapath read about one flow: numbers only, no names.

use weir_packet::Tuple;

use crate::{Count, Monotonic, PointId};

/// What was counted of one flow at one point since the last read. Several CPUs may have counted the same flow; each
/// yields an observation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who talked to whom.
    pub tuple: Tuple,
    /// Where it was seen.
    pub point: PointId,
    /// How much.
    pub traffic: Traffic,
    /// First packet of this observation; resolution is one jiffy (1/HZ s) when it comes from the kernel.
    pub first: Monotonic,
    /// Last packet of this observation, with the same resolution.
    pub last: Monotonic,
    /// The socket of the *sender*, where the kernel knew it: it belongs to the source of `tuple`.
    ///
    /// At egress the kernel hands over the packets with the local socket that sent them. At ingress there is none,
    /// because traffic control runs before the receiving socket is looked up; where there is one all the same (the
    /// node's side of a veth pair), the packet brought it along from its sender in the other namespace.
    pub owner: SocketOwner,
}

/// Counters and last-seen values of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes on the wire from the link-layer header on (from the IP header on devices without one).
    pub bytes: u64,
    /// Frames on the wire.
    pub packets: u64,
    /// Packets as the kernel handed them over: a super-packet is one.
    pub skbs: u64,
    /// Σ `skb->len`, for comparison with interface counters only.
    pub skb_bytes: u64,
    /// Wire length of the last frame in bytes.
    pub last_length: u32,
    /// TCP flags of all packets, or-ed (nine bits, FIN lowest).
    pub tcp_flags: u16,
    /// TCP flags of the last packet.
    pub last_tcp_flags: u16,
    /// Packets with SYN and without ACK (openings); stops at 255 in each observation.
    pub syn: u32,
    /// Packets with FIN or RST; stops at 255 in each observation.
    pub fin_rst: u32,
    /// DSCP of the last packet.
    pub dscp: u8,
    /// TTL or hop limit of the last packet.
    pub ttl: u8,
}

/// What the kernel knew about the socket at one of the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOwner {
    /// Socket cookie, unique on this machine until reboot; 0 where no packet had a socket.
    pub cookie: u64,
    /// Cgroup v2 id of the socket; 0 where unknown.
    pub cgroup: u64,
}

impl Traffic {
    /// Packets and bytes alone.
    #[must_use]
    pub const fn count(&self) -> Count {
        Count { packets: self.packets, bytes: self.bytes }
    }
}
