//! Layouts of the `flow` object: what the counting programs write and the drain reads.
//!
//! All integers are in host byte order. Times are jiffies of the running kernel, truncated to 32 bits; user space
//! calibrates them. One CPU alone writes an entry, and user space reads it only when its generation is no longer
//! written (see `docs/internals/datapath.md`), so nothing here is atomic.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Generations of everything that is written per packet: one is live, the other belongs to user space.
pub const GENERATIONS: u32 = 2;

/// Words in a flow key, as hashed and compared by the kernel program.
pub const KEY_WORDS: usize = 6;

/// Words in a flow value.
pub const VALUE_WORDS: usize = 8;

/// Where in key word 5 the row of the ledger begins.
pub const ROW_SHIFT: u32 = 32;

/// Where in key word 5 the CPU begins.
pub const CPU_SHIFT: u32 = 48;

/// Key of a flow at one observation point, on one CPU.
///
/// Words 0 and 1 are the source address, 2 and 3 the destination, 4 ports, protocol, family and VLAN
/// (`weir_packet::Tuple`), 5 the interface index (low 32 bits), the row of the ledger ([`ROW_SHIFT`], 16 bits: that of
/// [`PointEntry::row`] for ingress, the next one for egress) and the CPU ([`CPU_SHIFT`], 16 bits). Word 5 is never zero
/// in a used entry, because no interface has index 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    /// The words, in the order described above.
    pub words: [u64; KEY_WORDS],
}

/// What one CPU counted for one flow in one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowValue {
    /// Σ `skb->len`, as the kernel saw the packets (super-packets count once, stripped tags do not).
    pub skb_bytes: u64,
    /// Bytes on the wire: Σ `skb->len` + stripped VLAN tags + the headers that segmentation repeats.
    pub bytes: u64,
    /// Frames on the wire. At [`FlowValue::SATURATED`] the entry takes no more: further packets count as overflow, or, in
    /// entries of flows that the filter rejects, which begin there, as filtered.
    pub packets: u32,
    /// Socket buffers, that is packets as the kernel handed them over.
    pub skbs: u32,
    /// Time of the first packet, in jiffies.
    pub first: u32,
    /// Time of the last packet, in jiffies.
    pub last: u32,
    /// Wire length of the last frame in bytes; of a super-packet, that of a full segment.
    pub last_length: u32,
    /// TCP flags of all packets, or-ed: the low nine bits of RFC 9293 3.1, FIN first.
    pub tcp_flags: u16,
    /// TCP flags of the last packet.
    pub last_tcp_flags: u16,
    /// Packets with SYN and without ACK, saturating.
    pub syn: u8,
    /// Packets with FIN or RST, saturating.
    pub fin_rst: u8,
    /// DSCP of the last packet, 0 to 63.
    pub dscp: u8,
    /// TTL or hop limit of the last packet.
    pub ttl: u8,
    /// Outcome of the filter, one of the `VERDICT_` constants.
    pub verdict: u8,
    /// Whether the flow is at a DNS port, so that its packets are handed over: 1 or 0.
    pub is_dns: u8,
    /// Not used, zero.
    pub reserved: [u8; 2],
    /// Cookie of the socket that the first packet with a socket belonged to, or 0.
    pub cookie: u64,
    /// Cgroup (v2) id of that socket, or 0.
    pub cgroup: u64,
}

impl FlowValue {
    /// Packets at which an entry takes no more, far from where a 32-bit count would wrap.
    pub const SATURATED: u32 = 1 << 31;
}

/// The flow passed the filter: its packets are reported.
pub const VERDICT_KEEP: u8 = 0;
/// The flow did not pass the filter: its packets are counted as filtered.
pub const VERDICT_FILTERED: u8 = 1;

/// One of the per-CPU slots in front of the hash map. Empty where word 5 of the key is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Slot {
    /// Key of the flow, all zero while the slot is empty.
    pub key: FlowKey,
    /// Its counts.
    pub value: FlowValue,
    /// Fills two cache lines.
    pub reserved: [u64; 2],
}

/// A pair of counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Count {
    /// Frames on the wire.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// Row of the ledger: everything that one CPU saw at one observation point in one generation.
///
/// `seen` equals the sum of all flows of that point and CPU plus every other counter here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LedgerRow {
    /// Every packet, whatever becomes of it.
    pub seen: Count,
    /// Socket buffers, for comparison with the counters of the interface.
    pub skbs: u64,
    /// Σ `skb->len`, for comparison with the counters of the interface.
    pub skb_bytes: u64,
    /// Rejected by the filter in the kernel.
    pub filtered: Count,
    /// Counted at another observation point of this node.
    pub duplicate: Count,
    /// Neither IPv4 nor IPv6: ARP, LLDP, PPPoE, MPLS and the like.
    pub non_ip: Count,
    /// Claims to be IP, but its header is cut short or contradicts itself.
    pub parse_error: Count,
    /// No room for the flow in the table: counted here, in total only.
    pub overflow: Count,
    /// Fills two cache lines.
    pub reserved: [u64; 2],
}

/// Entry of the table from interface to ledger row, indexed by the low 16 bits of the interface index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PointEntry {
    /// Interface index that this entry is for; packets of any other interface count in row 0, "unlisted".
    pub ifindex: u32,
    /// Row of the ledger for ingress; egress is the next one. Even, and 0 only for "unlisted".
    pub row: u16,
    /// Role of the interface, one of the `ROLE_` constants.
    pub role: u8,
    /// Bits of the `POINT_` constants.
    pub flags: u8,
}

/// Role not known or of no consequence.
pub const ROLE_OTHER: u8 = 0;
/// The node's side of a pod's or container's interface.
pub const ROLE_POD_EDGE: u8 = 1;
/// The node's way out: a physical or virtual network card.
pub const ROLE_UPLINK: u8 = 2;
/// A tunnel device: VXLAN, Geneve, WireGuard, tun and the like.
pub const ROLE_TUNNEL: u8 = 3;
/// The loopback interface.
pub const ROLE_LOOPBACK: u8 = 4;
/// A bridge.
pub const ROLE_BRIDGE: u8 = 5;

/// Packets that leave here after having come in at an interface of the same role with [`POINT_COUNTED`] are duplicates.
pub const POINT_DEDUPLICATE: u8 = 1;
/// What comes in here is counted, here or at the interface behind it (a bridge, whose ports are counted).
pub const POINT_COUNTED: u8 = 2;
/// What comes in here is not counted; for packet sockets, which see both directions.
pub const POINT_SKIP_INGRESS: u8 = 4;
/// What goes out here is not counted; for packet sockets.
pub const POINT_SKIP_EGRESS: u8 = 8;

/// Most conditions in a filter of the kernel (see [`FilterTerm`]).
pub const FILTER_TERMS: usize = 32;

/// Field of a condition: either address lies in a prefix.
pub const TERM_ADDRESS: u8 = 1;
/// Field of a condition: either port lies in a range.
pub const TERM_PORT: u8 = 2;
/// Field of a condition: the protocol lies in a range.
pub const TERM_PROTOCOL: u8 = 3;
/// Field of a condition: the family is IPv6 (`low` = 1) or IPv4 (`low` = 0).
pub const TERM_FAMILY: u8 = 4;

/// One condition on a 5-tuple, the same for both directions of a flow.
///
/// Conditions with the same `clause` are alternatives; a packet passes when every clause has one that holds.
/// (Conjunctive normal form without negation, which is enough for a superset.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FilterTerm {
    /// One of the `TERM_` constants; 0 ends the list.
    pub field: u8,
    /// Number of the clause, ascending from 1 without gaps.
    pub clause: u8,
    /// Not used, zero.
    pub reserved: [u8; 2],
    /// Lower end of a port or protocol range, or the family.
    pub low: u16,
    /// Upper end of a port or protocol range, inclusive.
    pub high: u16,
    /// Address words of a prefix (IPv4 mapped into IPv6), already masked.
    pub address: [u64; 2],
    /// Mask words of a prefix.
    pub mask: [u64; 2],
}

const _: () = {
    assert!(size_of::<FlowKey>() == 48);
    assert!(size_of::<FlowValue>() == 8 * VALUE_WORDS);
    assert!(size_of::<Slot>() == 128);
    assert!(size_of::<LedgerRow>() == 128);
    assert!(size_of::<PointEntry>() == 8);
    assert!(size_of::<FilterTerm>() == 40);
};
