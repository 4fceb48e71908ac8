//! What the kernel tells: sockets that were opened and closed, bytes, and bytes that were not copied.
//!
//! Positions are bytes of one direction of a socket. They begin with 0 where the connection began, or where the tap first
//! saw it. Times are nanoseconds of `CLOCK_MONOTONIC`. Pids are those of the first pid namespace.

use std::net::SocketAddr;

use super::rule::{Role, RuleId, Way};

/// Number of a socket (its cookie), never used twice until the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What the kernel tells, one thing at a time.
#[expect(clippy::large_enum_variant, reason = "one at a time is passed on, and few are kept")]
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A rule lets a socket through.
    Opened(Opened),
    /// Bytes that were sent or received.
    Data(Data<'a>),
    /// Bytes that were sent or received, and were not copied.
    Gap(Gap),
    /// A side of a TCP connection ended: the process sent a FIN, or read the end of the stream.
    Finished(Finished),
    /// A TCP socket is gone.
    Closed(Closed),
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A stream, with a beginning and an end.
    Tcp,
    /// Datagrams: each [`Data`] with offset 0 begins one.
    Udp,
    /// A Unix socket of any kind. It has no addresses.
    Unix,
}

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Command name of the process, terminated by zero.
    pub command: [u8; 16],
    /// Its cgroup (v2), or 0.
    pub cgroup: u64,
    /// Its user.
    pub user: u32,
}

/// A rule lets a socket through. Told once per socket, when its first call matches or when the tap finds it open, and
/// again if the socket connects anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The socket.
    pub socket: SocketId,
    /// When.
    pub time_ns: u64,
    /// Who made the call, or has it open.
    pub process: Process,
    /// What it speaks.
    pub transport: Transport,
    /// Our end; the unspecified address and port 0 for Unix sockets.
    pub local: SocketAddr,
    /// The other end, if there is one.
    pub remote: Option<SocketAddr>,
    /// What our end is, where that is known. Of sockets that were found open it is a conclusion: they are servers if
    /// somebody waits for connections on their port.
    pub role: Option<Role>,
    /// Whether it was open before the tap saw it, so that what was said before is not known.
    pub is_existing: bool,
    /// Whether it has moved bytes that a rule let through before this could be told.
    pub is_late: bool,
    /// The rule.
    pub rule: RuleId,
}

/// What bytes and gaps have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The socket.
    pub socket: SocketId,
    /// When the call had moved the bytes.
    pub time_ns: u64,
    /// Which way they went.
    pub way: Way,
    /// Position of the first of them.
    pub position: u64,
    /// The rule that let them through.
    pub rule: RuleId,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Bytes that the whole call moved.
    pub operation: u32,
    /// Bytes of the call in front of these.
    pub offset: u32,
    /// The other end of a datagram, where the socket has none of its own and the call named it.
    pub peer: Option<SocketAddr>,
}

/// Bytes, as they were in the memory of the process at the end of the call.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Whose and where.
    pub place: Place,
    /// The bytes. An empty datagram has none.
    pub bytes: &'a [u8],
}

/// Bytes that were not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose and where.
    pub place: Place,
    /// How many.
    pub length: u64,
    /// Why.
    pub reason: GapReason,
}

/// A side of a TCP connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The socket.
    pub socket: SocketId,
    /// When.
    pub time_ns: u64,
    /// The side: sent if the process sent a FIN, received if it read the end.
    pub way: Way,
}

/// A TCP socket is gone: nothing follows for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The socket.
    pub socket: SocketId,
    /// When.
    pub time_ns: u64,
    /// What was sent.
    pub sent: Side,
    /// What was received.
    pub received: Side,
}

/// Why bytes were not copied. [`GapReason::ALL`] has the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GapReason {
    /// Beyond the rule's limit of a call or a connection.
    Limit,
    /// Beyond what the rule may copy in a second.
    Budget,
    /// The rule copies none, or headers alone.
    Payload,
    /// The memory of the process could not be read.
    Fault,
    /// Behind the last segment that is followed.
    Segments,
    /// Sent from a file: no memory of the process holds them.
    Sendfile,
    /// Moved through a pipe.
    Splice,
    /// Moved by `io_uring`.
    IoUring,
    /// The call came by the 32-bit interface.
    Compat,
    /// The process told the kernel to discard them, or its buffer was too small.
    Truncated,
    /// One of several messages of a call, and which one is not counted (`Settings::count_messages`).
    Messages,
    /// Moved outside of a system call, by the kernel itself.
    Kernel,
    /// A call that is not known.
    Other,
}

impl GapReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them with their names, in the order of their numbers.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Limit, "limit"),
        (Self::Budget, "budget"),
        (Self::Payload, "payload"),
        (Self::Fault, "fault"),
        (Self::Segments, "segments"),
        (Self::Sendfile, "sendfile"),
        (Self::Splice, "splice"),
        (Self::IoUring, "io_uring"),
        (Self::Compat, "compat"),
        (Self::Truncated, "truncated"),
        (Self::Messages, "messages"),
        (Self::Kernel, "kernel"),
        (Self::Other, "other"),
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The ledger of one direction, in bytes: `seen = captured + lost + the sum of gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// What calls moved.
    pub seen: u64,
    /// Told as [`Data`].
    pub captured: u64,
    /// Copied for nothing: there was no room to tell.
    pub lost: u64,
    /// Told as [`Gap`], by reason.
    pub gaps: [u64; GapReason::COUNT],
    /// Of the gaps, those that there was no room to tell.
    pub untold: u64,
    /// Moved by calls that no rule let through; not part of `seen`.
    pub rejected: u64,
    /// What the kernel says was moved beyond `seen` and `rejected`: no hook saw it. Only in [`Closed`].
    pub unseen: Option<u64>,
}

impl Side {
    /// The sum of all gaps.
    pub fn gap(&self) -> u64 {
        self.gaps.iter().sum()
    }

    /// Whether it adds up.
    pub fn is_balanced(&self) -> bool {
        self.seen == self.captured + self.lost + self.gap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_they_are_listed() {
        for (index, (reason, name)) in GapReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(reason.name(), name);
        }
    }

    #[test]
    fn a_side_balances_only_if_every_byte_is_somewhere() {
        let mut side = Side { seen: 10, captured: 4, lost: 3, ..Side::default() };
        assert!(!side.is_balanced());
        side.gaps[GapReason::Fault as usize] = 3;
        assert!(side.is_balanced());
    }
}
