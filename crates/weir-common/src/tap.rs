//! Layouts of the `tap` object: rules as the kernel reads them, what is kept in each socket, and the records of two rings.
//!
//! All integers are in host byte order. IPv4 addresses are written as mapped IPv6 ones. Directions are numbered
//! [`SENT`] and [`RECEIVED`], reasons of gaps as in [`reason`].

mod record;
mod rule;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::{
    record::{
        CLOSED, Caller, ClosedRecord, ControlHeader, DATA, Ends, FINISHED, GAP, HEADER_LENGTH, OPENED,
        OpenedRecord, RecordHeader,
    },
    rule::{CGROUP, CommandKey, Control, ListenerKey, NetworkKey, NumberKey, PID, Rule, RuleSet, payload},
};

/// Room that records have for bytes. Each takes the smallest that is enough for it. Constants, because the kernel reserves
/// nothing else in a ring.
pub const CLASSES: [usize; 5] = [96, 256, 1024, 4096, 16_384];

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
    /// Whether `totals` are set: 1, or 2 if the other side had ended before.
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
    /// The kernel's count of bytes received at that moment.
    pub end_total: u64,
    /// Bytes that the speaker has said since the other one did.
    pub spoken: u64,
    /// Of datagrams: for which other end the verdict is; 0 if the socket has none. Then the verdict is for all of them, as far
    /// as rules do not look at ends.
    pub remote: u64,
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
    /// Calls that moved bytes of sockets, and that a rule let through.
    pub accepted: u64,
    /// Those that none let through.
    pub rejected: u64,
    /// Control records for which there was no room.
    pub untold: u64,
    /// Calls on sockets for which there was no memory.
    pub unfollowed: u64,
    /// Datagrams that rules about other ends did not let through, because it is not known who the other end is.
    pub nameless: u64,
    /// Connections that rules let through and of which nothing was told.
    pub unopened: u64,
    /// Connections of which the closing was not told.
    pub unclosed: u64,
}

/// Words of [`Counts`].
pub const COUNT_WORDS: usize = 7;

const _: () = {
    assert!(size_of::<RecordHeader>() == HEADER_LENGTH);
    assert!(size_of::<Side>() == 8 * SIDE_WORDS);
    assert!(size_of::<Counts>() == 8 * COUNT_WORDS);
    assert!(size_of::<Rule>() == 24);
    assert!(size_of::<Entry>().is_multiple_of(8));
    assert!(size_of::<OpenedRecord>() == 24 + 40 + 40 + 8);
    assert!(size_of::<NetworkKey>() == 24);
};
