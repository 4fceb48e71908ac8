//! Records of the two rings: bytes and gaps in one; openings, ends and closings in the other.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Side;

/// Kind of record in the ring of bytes: bytes follow.
pub const DATA: u8 = 1;
/// Kind of record in the ring of bytes: nothing follows.
pub const GAP: u8 = 2;

/// What stands in front of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RecordHeader {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Cookie of the socket.
    pub socket: u64,
    /// Position of the first byte.
    pub position: u64,
    /// Bytes of the gap.
    pub length: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes of the whole call.
    pub operation: u32,
    /// Bytes of the call in front of these.
    pub offset: u32,
    /// Bytes that follow.
    pub captured: u32,
    /// [`DATA`] or [`GAP`].
    pub kind: u8,
    /// Direction.
    pub way: u8,
    /// Number of the rule.
    pub rule: u8,
    /// Why, of a gap.
    pub reason: u8,
    /// 1 if the peer is known.
    pub has_peer: u16,
    /// Its port, host order.
    pub peer_port: u16,
    /// Not used, zero.
    pub reserved: u32,
    /// Its address.
    pub peer: [u8; 16],
}

/// Bytes of a [`RecordHeader`].
pub const HEADER_LENGTH: usize = 80;

/// Kind of control record.
pub const OPENED: u32 = 1;
/// Kind of control record.
pub const FINISHED: u32 = 2;
/// Kind of control record.
pub const CLOSED: u32 = 3;

/// What all control records begin with; a [`FINISHED`] one is nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControlHeader {
    /// When.
    pub time_ns: u64,
    /// Cookie of the socket.
    pub socket: u64,
    /// [`OPENED`], [`FINISHED`] or [`CLOSED`].
    pub kind: u32,
    /// Direction, of [`FINISHED`]; whether totals are known, of [`CLOSED`].
    pub detail: u32,
}

/// Who makes a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Caller {
    /// Command name of the process.
    pub command: [u64; 2],
    /// Its cgroup.
    pub cgroup: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Effective user.
    pub user: u32,
    /// Not used, zero.
    pub reserved: u32,
}

/// Both ends of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ends {
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// One of `AF_INET`, `AF_INET6`, `AF_UNIX`.
    pub family: u16,
    /// Number of the protocol.
    pub protocol: u16,
}

/// A socket that a rule lets through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OpenedRecord {
    /// Beginning of all control records.
    pub header: ControlHeader,
    /// Who.
    pub caller: Caller,
    /// The socket's ends.
    pub ends: Ends,
    /// Number of the rule.
    pub rule: u8,
    /// See [`role`](super::role).
    pub role: u8,
    /// 1 if it was open before the tap.
    pub is_existing: u8,
    /// 1 if it has moved bytes that a rule let through before this was told.
    pub is_late: u8,
    /// Not used, zero.
    pub reserved: [u8; 4],
}

/// A socket that is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ClosedRecord {
    /// Beginning of all control records.
    pub header: ControlHeader,
    /// Ledgers, by direction.
    pub sides: [Side; 2],
    /// What the kernel says that was moved, by direction.
    pub totals: [u64; 2],
}
