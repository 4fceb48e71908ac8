//! Layouts of the `sockets` object: what its walk over open files needs to know, and what it reports.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where fields lie in structures of the running kernel, in bytes from the start of the structure.
///
/// User space reads them from the kernel's type information; the program has no idea of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Offsets {
    /// `struct file`: its inode.
    pub file_inode: u32,
    /// `struct file`: what its kind of file keeps, for sockets the `struct socket`.
    pub file_private: u32,
    /// `struct inode`: kind and permissions.
    pub inode_mode: u32,
    /// `struct socket`: the file it belongs to.
    pub socket_file: u32,
    /// `struct socket`: the `struct sock`.
    pub socket_sock: u32,
    /// `struct sock`: address family.
    pub sock_family: u32,
    /// `struct sock`: protocol number.
    pub sock_protocol: u32,
    /// `struct sock`: state, as for TCP.
    pub sock_state: u32,
    /// `struct sock`: the byte that says whether the socket is for IPv6 alone.
    pub sock_v6only: u32,
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
    /// `struct sock`: its network namespace.
    pub sock_net: u32,
    /// `struct sock`: its cookie.
    pub sock_cookie: u32,
    /// `struct net`: inode number.
    pub net_inode: u32,
    /// `struct task_struct`: the first thread of the process.
    pub task_leader: u32,
    /// `struct task_struct`: its `struct pid`.
    pub task_pid: u32,
    /// `struct task_struct`: when it started.
    pub task_started: u32,
    /// `struct task_struct`: command name.
    pub task_command: u32,
    /// `struct pid`: how deep its namespace lies.
    pub pid_level: u32,
    /// `struct pid`: the first of its numbers, one per level.
    pub pid_numbers: u32,
    /// Size of such a number with its namespace (`struct upid`).
    pub pid_number_size: u32,
    /// In such a number, the number itself.
    pub pid_number: u32,
}

/// Bytes of a command name, terminated by zero (`TASK_COMM_LEN`).
pub const COMMAND_LENGTH: usize = 16;

/// A process as the kernel knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProcessRecord {
    /// When it started, in nanoseconds since boot.
    pub started: u64,
    /// Process identifier, in the pid namespace of the reader.
    pub pid: u32,
    /// Not used, zero.
    pub reserved: u32,
    /// Command name, terminated by zero.
    pub command: [u8; COMMAND_LENGTH],
}

/// Words in a [`ProcessRecord`].
pub const PROCESS_WORDS: usize = 4;

/// Openings that are kept until user space fetches them; the oldest make room.
pub const OPENINGS: usize = 8192;

/// An open file that is an IPv4 or IPv6 socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketRecord {
    /// Socket cookie; 0 while nobody has asked for it.
    pub cookie: u64,
    /// The process that has the file open.
    pub process: ProcessRecord,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Protocol number (16 bits, because Multipath TCP has 262).
    pub protocol: u16,
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, network order.
    pub remote_port: u16,
    /// State, numbered as for TCP (`include/net/tcp_states.h`).
    pub state: u8,
    /// The byte that [`Offsets::sock_v6only`] points to.
    pub v6only: u8,
    /// Not used, zero.
    pub reserved: [u8; 2],
    /// Local address, network order; an IPv4 address fills the first four bytes.
    pub local: [u8; 16],
    /// Remote address, likewise.
    pub remote: [u8; 16],
}

const _: () = {
    assert!(size_of::<Offsets>() == 26 * 4);
    assert!(size_of::<ProcessRecord>() == 8 * PROCESS_WORDS);
    assert!(size_of::<SocketRecord>() == 88);
};
