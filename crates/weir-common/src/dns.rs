//! Layouts for DNS messages: what the `flow` object hands over of them in a ring buffer, and the counters that say what
//! became of every one.
//!
//! All integers are in host byte order. A record is a [`DnsHeader`] and behind it the first bytes of what IP carried, in
//! room of one of the [`DNS_CLASSES`]: a UDP header and its payload, or the payload of a TCP segment. What lies behind
//! the captured bytes is whatever the ring held before.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most ports that DNS is expected at.
pub const MOST_DNS_PORTS: usize = 8;

/// Room that records have. Each takes the smallest that is enough for it, or the largest.
///
/// Constants, because the kernel reserves nothing else in a ring buffer. A query and a short answer; the largest message
/// of plain DNS (RFC 1035 4.2.1) with a UDP header; the largest that common resolvers let a datagram have (1232 bytes)
/// with one.
pub const DNS_CLASSES: [usize; 3] = [128, 520, 1280];

/// Bytes of the ring buffer, a power of two: some thousand messages.
pub const DNS_RING_BYTES: u32 = 1 << 20;

/// Least payload of a TCP segment that is handed over: a length of two bytes and the header of a message (RFC 1035 4.2.2).
/// Ethernet's padding is shorter, so that nothing comes of segments without payload.
pub const DNS_LEAST_SEGMENT: u32 = 14;

/// What is known of a DNS message, in front of its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsHeader {
    /// When the program saw it, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Words of a `weir_packet::Tuple`.
    pub tuple: [u64; 5],
    /// Index of the interface.
    pub ifindex: u32,
    /// Bytes of the packet from where the record begins, link-layer padding included.
    pub length: u32,
    /// How many of them follow this header.
    pub captured: u32,
    /// Row of the ledger: ingress has the even ones, egress the odd ones.
    pub row: u32,
}

/// What one CPU did with packets of DNS ports, in packets as the kernel hands them over. Segments that are too short for
/// a message are not counted here.
///
/// `seen` is the sum of the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsCounts {
    /// Packets that could hold a message.
    pub seen: u64,
    /// Handed over to user space.
    pub written: u64,
    /// No room in the ring buffer.
    pub lost: u64,
    /// The kernel would not copy them.
    pub unreadable: u64,
}

/// Words of a [`DnsCounts`].
pub const DNS_COUNT_WORDS: usize = 4;

const _: () = {
    assert!(size_of::<DnsHeader>() == 64);
    assert!(size_of::<DnsCounts>() == 8 * DNS_COUNT_WORDS);
};
