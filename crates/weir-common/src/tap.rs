//! Layouts of the `tap` object: rules as the kernel reads them, what is kept in each socket, and the records of two rings.
//!
//! All integers are in host byte order. IPv4 addresses are written as mapped IPv6 ones. Directions are numbered
//! [`SENT`] and [`RECEIVED`], reasons of gaps as in [`reason`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Room that records have for bytes. Each takes the smallest that is enough for it. Constants, because the kernel reserves
/// nothing else in a ring.
pub const CLASSES: [usize; 4] = [256, 1024, 4096, 16_384];

/// Most rules of a set.
pub const RULES: usize = 64;

/// Where ranges of ports begin, at most.
pub const PORT_STARTS: usize = 256;

/// Most bytes of one side that are headers, until the other side speaks.
pub const HEADER_BYTES: u32 = 2048;

/// Most segments of a call that are followed.
pub const SEGMENTS: u64 = 1024;

/// Bytes that a process sends.
pub const SENT: u8 = 0;
/// Bytes that a process receives.
pub const RECEIVED: u8 = 1;

/// How many reasons there are.
pub const REASONS: usize = 13;

/// Why bytes are not copied.
pub mod reason {
    /// Beyond a limit.
    pub const LIMIT: u8 = 0;
    /// Beyond what a rule may copy in a second.
    pub const BUDGET: u8 = 1;
    /// The rule wants none, or headers alone.
    pub const PAYLOAD: u8 = 2;
    /// Memory that cannot be read.
    pub const FAULT: u8 = 3;
    /// Too many segments.
    pub const SEGMENTS: u8 = 4;
    /// From a file.
    pub const SENDFILE: u8 = 5;
    /// Through a pipe.
    pub const SPLICE: u8 = 6;
    /// By `io_uring`.
    pub const IO_URING: u8 = 7;
    /// 32-bit interface.
    pub const COMPAT: u8 = 8;
    /// Discarded by the kernel on behalf of the process.
    pub const TRUNCATED: u8 = 9;
    /// One of several messages.
    pub const MESSAGES: u8 = 10;
    /// Outside of a system call.
    pub const KERNEL: u8 = 11;
    /// Unknown call.
    pub const OTHER: u8 = 12;
}

/// Where fields lie in structures of the running kernel, in bytes, and a few settings. User space reads them from the
/// kernel's type information; [`Places::ready`] proves that it did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Places {
    /// 1 once the rest is filled in.
    pub ready: u32,
    /// 1 if Unix sockets are tapped.
    pub unix: u32,
    /// The process that taps: a rule for everybody does not mean it.
    pub own_pid: u32,
    /// Bytes in the ring at which user space is woken.
    pub wake: u32,
    /// 1 if messages of one call are counted.
    pub messages: u32,
    /// 1 if entries of sockets are kept in a table.
    pub table: u32,
    /// 1 if system calls are looked at after they have ended.
    pub ended: u32,
    /// `struct sock`: address family.
    pub sock_family: u32,
    /// `struct sock`: protocol.
    pub sock_protocol: u32,
    /// `struct sock`: state.
    pub sock_state: u32,
    /// `struct sock`: local port, host order.
    pub sock_local_port: u32,
    /// `struct sock`: remote port, network order.
    pub sock_remote_port: u32,
    /// `struct sock`: local IPv4 address.
    pub sock_local_v4: u32,
    /// `struct sock`: remote IPv4 address.
    pub sock_remote_v4: u32,
    /// `struct sock`: local IPv6 address.
    pub sock_local_v6: u32,
    /// `struct sock`: remote IPv6 address.
    pub sock_remote_v6: u32,
    /// `struct sock`: cookie.
    pub sock_cookie: u32,
    /// `struct sock`: its `struct socket`.
    pub sock_socket: u32,
    /// `struct inode`: number.
    pub inode_number: u32,
    /// `struct sock`: its flags.
    pub sock_flags: u32,
    /// `struct sock`: its network namespace.
    pub sock_net: u32,
    /// `struct sock`: the byte that says whether it belongs to the kernel.
    pub sock_kernel: u32,
    /// The bit in that byte.
    pub sock_kernel_mask: u32,
    /// `struct net`: inode number.
    pub net_inode: u32,
    /// `struct tcp_sock`: where the next byte that is sent goes.
    pub tcp_write: u32,
    /// `struct tcp_sock`: the next byte that is read.
    pub tcp_copied: u32,
    /// `struct tcp_sock`: the next byte that is expected.
    pub tcp_next: u32,
    /// `struct tcp_sock`: the first byte that is not acknowledged.
    pub tcp_unacknowledged: u32,
    /// `struct tcp_sock`: bytes acknowledged, 64 bits.
    pub tcp_acknowledged: u32,
    /// `struct tcp_sock`: bytes received in order, 64 bits.
    pub tcp_received: u32,
    /// `struct task_struct`: word that says whether the call came by the 32-bit interface.
    pub task_status: u32,
    /// `struct task_struct`: first thread of the process.
    pub task_leader: u32,
    /// `struct task_struct`: command name.
    pub task_command: u32,
    /// `struct task_struct`: number of the process.
    pub task_tgid: u32,
    /// `struct task_struct`: number of the thread.
    pub task_pid: u32,
    /// `struct task_struct`: its `struct css_set`.
    pub task_cgroups: u32,
    /// `struct task_struct`: its `struct cred`.
    pub task_cred: u32,
    /// `struct task_struct`: its `struct files_struct`.
    pub task_files: u32,
    /// `struct cred`: effective user.
    pub cred_user: u32,
    /// `struct css_set`: the cgroup of version 2.
    pub set_cgroup: u32,
    /// `struct cgroup`: its `struct kernfs_node`.
    pub cgroup_node: u32,
    /// `struct cgroup`: the state of its parent.
    pub cgroup_parent: u32,
    /// `struct cgroup_subsys_state`: its cgroup.
    pub state_cgroup: u32,
    /// `struct kernfs_node`: identifier.
    pub node_id: u32,
    /// `struct pt_regs`: number of the system call.
    pub regs_number: u32,
    /// `struct pt_regs`: its result.
    pub regs_result: u32,
    /// `struct pt_regs`: its arguments.
    pub regs_arguments: [u32; 6],
    /// `struct socket`: its `struct sock`.
    pub socket_sock: u32,
    /// `struct socket`: its file.
    pub socket_file: u32,
    /// `struct file`: the `struct socket` of a socket's file.
    pub file_private: u32,
    /// `struct file`: its inode.
    pub file_inode: u32,
    /// `struct inode`: kind and permissions.
    pub inode_mode: u32,
    /// `struct files_struct`: its table.
    pub files_table: u32,
    /// `struct fdtable`: array of files.
    pub table_files: u32,
    /// `struct fdtable`: how many.
    pub table_length: u32,
}

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
    /// Rules for unknown roles, clients and servers (see [`role`]).
    pub roles: [u64; 4],
    /// 1 if commands matter.
    pub commands: u32,
    /// 1 if cgroups matter.
    pub cgroups: u32,
    /// Rules for the ports from the start with the same number on, to the next start.
    pub port_masks: [u64; PORT_STARTS],
    /// Where ranges of ports begin, ascending. The first is 0; what is not used is `u16::MAX`, with the mask of the last.
    pub port_starts: [u16; PORT_STARTS],
    /// The rules.
    pub rules: [Rule; RULES],
}

/// What an end was when the connection began.
pub mod role {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// It connected.
    pub const CLIENT: u8 = 1;
    /// It accepted.
    pub const SERVER: u8 = 2;
}

/// What is known of where the positions of a connection begin.
pub mod base {
    /// Nothing.
    pub const UNKNOWN: u8 = 0;
    /// The tap saw the connection first when it was there already.
    pub const JOINED: u8 = 1;
    /// The tap saw the connection begin.
    pub const BEGINNING: u8 = 2;
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

/// The ledger of a direction: `seen = captured + lost + the sum of gaps`. Of what was rejected nothing else is counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Side {
    /// Moved by calls that a rule let through.
    pub seen: u64,
    /// In data records.
    pub captured: u64,
    /// No room for a data record.
    pub lost: u64,
    /// Of the gaps: no room for a gap record.
    pub untold: u64,
    /// Moved by calls that no rule let through.
    pub rejected: u64,
    /// By reason.
    pub gaps: [u64; REASONS],
}

/// Words of a [`Side`].
pub const SIDE_WORDS: usize = 18;

/// What is kept in each socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Entry {
    /// Ledgers, by direction.
    pub sides: [Side; 2],
    /// Number by which the socket is told.
    pub identity: u64,
    /// Whether the opening was told; more than 1 if two threads had the same thought.
    pub told: u64,
    /// Which calls the verdict below is for.
    pub cgroup: u64,
    /// Likewise.
    pub command: [u64; 2],
    /// Likewise.
    pub pid: u32,
    /// Likewise.
    pub generation: u32,
    /// The rule that lets bytes through, by direction: its place in the set and 1, or 0.
    pub verdict: [u8; 2],
    /// See [`role`].
    pub role: u8,
    /// What `bases` are (see [`base`]).
    pub base: u8,
    /// Whether the ends of the sides were told.
    pub finished: [u8; 2],
    /// Whether `totals` are set.
    pub has_totals: u8,
    /// Who spoke last, and 1; 0 for nobody.
    pub speaker: u8,
    /// Sequence numbers at which positions begin, by direction.
    pub bases: [u32; 2],
    /// The kernel's counts there.
    pub base_totals: [u64; 2],
    /// Where the last call ended, by direction.
    pub positions: [u64; 2],
    /// What the kernel says that was moved since the base, when the connection ended.
    pub totals: [u64; 2],
    /// Bytes that the speaker has said since the other one did.
    pub spoken: u64,
    /// Of datagrams: for which other end the verdict is.
    pub remote: u64,
    /// Thread that is receiving a datagram, and from whom.
    pub peer_tid: u32,
    /// Port, host order.
    pub peer_port: u16,
    /// 1 if there is one.
    pub peer_is_known: u16,
    /// Address.
    pub peer: [u8; 16],
}

/// What one rule may copy in this second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Budget {
    /// The second.
    pub second: u64,
    /// Bytes that were copied in it.
    pub used: u64,
}

/// Counts of a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counts {
    /// Calls that moved bytes of sockets that may be tapped.
    pub calls: u64,
    /// Those that no rule let through.
    pub rejected: u64,
    /// Control records for which there was no room.
    pub untold: u64,
    /// Calls on sockets for which there was no memory.
    pub unfollowed: u64,
}

/// Words of [`Counts`].
pub const COUNT_WORDS: usize = 4;

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
    /// See [`role`].
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

const _: () = {
    assert!(size_of::<RecordHeader>() == HEADER_LENGTH);
    assert!(size_of::<Side>() == 8 * SIDE_WORDS);
    assert!(size_of::<Counts>() == 8 * COUNT_WORDS);
    assert!(size_of::<Rule>() == 24);
    assert!(size_of::<Entry>().is_multiple_of(8));
    assert!(size_of::<OpenedRecord>() == 24 + 40 + 40 + 8);
    assert!(size_of::<NetworkKey>() == 24);
};
