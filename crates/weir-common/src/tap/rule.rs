//! Rules as the kernel reads them, and the keys by which it looks up whom they mean.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{PORT_STARTS, RULES};

/// What is in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Control {
    /// Grows with each change of the rules; 0 while there are none.
    pub generation: u32,
    /// Which of two sets, 0 or 1.
    pub set: u32,
}

/// A rule. What it matches is in the masks of its set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rule {
    /// Bytes of a socket, all bits if there is no limit.
    pub connection: u64,
    /// Bytes per second, all bits if there is no limit.
    pub per_second: u64,
    /// Bytes of a call.
    pub call: u32,
    /// Number, 1 to 255.
    pub id: u8,
    /// One of [`payload`].
    pub payload: u8,
    /// Not used, zero.
    pub reserved: [u8; 2],
}

/// What is copied.
pub mod payload {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// Headers.
    pub const HEADERS: u8 = 1;
    /// Everything.
    pub const FULL: u8 = 2;
}

/// A set of rules. Masks have a bit per rule, the lowest for the one that comes first.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RuleSet {
    /// Rules for everybody.
    pub all: u64,
    /// Rules for any network.
    pub any_network: u64,
    /// Rules for any port.
    pub any_port: u64,
    /// Rules for what goes each way.
    pub ways: [u64; 2],
    /// Rules for unknown roles, clients and servers (see [`role`](super::role)).
    pub roles: [u64; 4],
    /// 1 if commands matter.
    pub commands: u32,
    /// 1 if cgroups matter.
    pub cgroups: u32,
    /// 1 if networks or ports matter.
    pub ends: u32,
    /// Not used, zero.
    pub reserved: u32,
    /// Rules for the ports from the start with the same number on, to the next start.
    pub port_masks: [u64; PORT_STARTS],
    /// Where ranges of ports begin, ascending. The first is 0; what is not used is `u16::MAX`, with the mask of the last.
    pub port_starts: [u16; PORT_STARTS],
    /// The rules.
    pub rules: [Rule; RULES],
}

/// Key of a process's number or of a cgroup, in one of the two sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NumberKey {
    /// The number.
    pub number: u64,
    /// The set.
    pub set: u32,
    /// [`PID`] or [`CGROUP`].
    pub kind: u32,
}

/// The number of a process.
pub const PID: u32 = 0;
/// The identifier of a cgroup.
pub const CGROUP: u32 = 1;

/// Key of a command, in one of the two sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CommandKey {
    /// The name.
    pub command: [u64; 2],
    /// The set.
    pub set: u64,
}

/// Key of a network: the set in the first 64 bits, then the address. As many as the kernel's library wants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NetworkKey {
    /// The set.
    pub set: [u8; 8],
    /// The address; IPv4 mapped.
    pub address: [u8; 16],
}

/// Key of what somebody waits for connections on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Port, host order.
    pub port: u16,
    /// Which round of looking.
    pub round: u16,
}
