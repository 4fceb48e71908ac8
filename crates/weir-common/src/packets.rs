//! Layouts of the `packets` object: one record per packet in a ring buffer, and the counters that say what became of
//! every packet.
//!
//! All integers are in host byte order. A record is a [`PacketHeader`] and behind it the first bytes of the packet, in
//! room of one of the [`SNAP_CLASSES`]; what lies behind the captured bytes is whatever the ring held before.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::Count;

/// Room that records have for the bytes of a packet. Each takes the smallest that is enough for it.
///
/// Constants, because the kernel reserves nothing else in a ring buffer. Common headers, twice that, a page's worth of
/// protocol text, a jumbo frame, and a super-packet of segmentation offload.
pub const SNAP_CLASSES: [usize; 5] = [128, 256, 1024, 9216, 65_536];

/// Most bytes of a packet that can be captured.
pub const MOST_SNAP_LENGTH: u32 = 65_536;

/// Words of a [`PacketHeader`].
pub const HEADER_WORDS: usize = 14;

/// Words of a [`PacketRow`].
pub const ROW_WORDS: usize = 10;

/// What is known of a captured packet, in front of its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PacketHeader {
    /// When the program saw it, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Cookie of the socket that it belongs to, or 0.
    pub cookie: u64,
    /// Cgroup (v2) id of that socket, or 0.
    pub cgroup: u64,
    /// Words of a `weir_packet::Tuple`, if `kind` is [`KIND_IP`].
    pub tuple: [u64; 5],
    /// Bytes of all its frames on the wire.
    pub wire_bytes: u64,
    /// Frames on the wire: more than one for a super-packet.
    pub segments: u32,
    /// `skb->len`: without a stripped VLAN tag.
    pub length: u32,
    /// Bytes of the packet that follow this header.
    pub captured: u32,
    /// Index of the interface.
    pub ifindex: u32,
    /// Row of the ledger: the observation point.
    pub row: u32,
    /// Bytes from the link header to the end of the transport header, if `kind` is [`KIND_IP`].
    pub header_length: u32,
    /// TCP flags, nine bits.
    pub tcp_flags: u16,
    /// EtherType: behind all tags if `kind` is [`KIND_NON_IP`], else what the device says.
    pub ethertype: u16,
    /// EtherType of the VLAN tag that the hardware stripped or will insert, or 0 if there is none.
    pub vlan_ethertype: u16,
    /// That tag.
    pub vlan_tag: u16,
    /// DSCP.
    pub dscp: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// Not used, zero.
    pub reserved: [u8; 5],
}

/// An IP packet, whose headers were read.
pub const KIND_IP: u8 = 0;
/// Neither IPv4 nor IPv6.
pub const KIND_NON_IP: u8 = 1;
/// Claims to be IP, but its header is cut short or contradicts itself.
pub const KIND_MALFORMED: u8 = 2;

/// Row of the ledger: what one CPU saw at one observation point, in packets as the kernel hands them over (a
/// super-packet is one) and their bytes (`skb->len` and a stripped tag).
///
/// `seen` is the sum of `filtered`, `lost` and `written`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PacketRow {
    /// Every packet, counted before anything else happens to it.
    pub seen: Count,
    /// Rejected by the filter in the kernel.
    pub filtered: Count,
    /// No room in the ring buffer.
    pub lost: Count,
    /// Handed over to user space.
    pub written: Count,
    /// Of these, longer than what was captured of them.
    pub cut: Count,
}

const _: () = {
    assert!(size_of::<PacketHeader>() == 8 * HEADER_WORDS);
    assert!(size_of::<PacketRow>() == 8 * ROW_WORDS);
};
