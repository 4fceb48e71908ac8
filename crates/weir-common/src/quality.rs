//! Layouts of the `quality` object: what is known of the way of a TCP connection.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where fields lie in structures of the running kernel, in bytes from the start of the structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Offsets {
    /// `struct tcp_sock`: smoothed round-trip time, in eighths of a microsecond.
    pub srtt: u32,
    /// The same: smallest round-trip time, in microseconds.
    pub minimum_rtt: u32,
    /// The same: segments sent again.
    pub retransmits: u32,
    /// Not used, zero.
    pub reserved: u32,
}

/// What a socket knows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QualityRecord {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Smoothed round-trip time, in eighths of a microsecond; 0 before the first sample.
    pub srtt_eighths_us: u32,
    /// Smallest round-trip time, in microseconds; all ones before the first sample.
    pub minimum_rtt_us: u32,
    /// Segments sent again, SYN included.
    pub retransmits: u32,
    /// Not used, zero.
    pub reserved: u32,
}

/// Words in a [`QualityRecord`].
pub const QUALITY_WORDS: usize = 3;

/// Closed sockets that are kept until user space fetches them. What no longer fits is counted.
pub const CLOSINGS: usize = 16_384;

const _: () = {
    assert!(size_of::<Offsets>() == 16);
    assert!(size_of::<QualityRecord>() == 8 * QUALITY_WORDS);
};
