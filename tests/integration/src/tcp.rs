//! TCP connections of a test, what the kernel says of them, and a wire that loses what is sent.

use std::{
    io,
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use crate::{Veth, VethEnd};

/// Longest time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two ends of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that accepted.
    pub server: TcpStream,
}

/// What the kernel says of a TCP socket (`TCP_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments on their way.
    pub unacknowledged: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Smallest round-trip time in microseconds.
    pub minimum_rtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
}

impl Connection {
    /// Connects the left end of a wire to the right one.
    pub fn over(wire: &Veth) -> Self {
        let listener = wire.right.namespace.run(|| TcpListener::bind((wire.right.ipv4, 0)));
        let listener = listener.expect("the address is there");
        let address = listener.local_addr().expect("it is bound");
        let client = wire.left.namespace.run(|| TcpStream::connect(address)).expect("the wire works");
        let (server, _) = listener.accept().expect("it was connected");
        for end in [&client, &server] {
            end.set_nodelay(true).expect("TCP has this option");
        }
        Self { client, server }
    }
}

/// A TCP socket that has begun to connect and waits.
pub fn begin_to_connect(from: &VethEnd, to: SocketAddr) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
    from.namespace.run(|| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
        let outcome = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
        assert!(matches!(outcome, Ok(()) | Err(nix::errno::Errno::EINPROGRESS)), "{outcome:?}");
        socket
    })
}

/// Sends what the left end of a wire sends to the right one to a link-layer address that nobody has, or ends that.
pub fn lose(wire: &Veth, is_lossy: bool) {
    let address = if is_lossy { "02:00:00:00:ff:ff" } else { &wire.right.mac };
    let (name, peer) = (&wire.left.name, wire.right.ipv4);
    wire.left.namespace.ip(&format!("neigh replace {peer} lladdr {address} nud permanent dev {name}"));
}

/// Cookie of a socket.
pub fn cookie(socket: &impl AsFd) -> u64 {
    const SO_COOKIE: libc::c_int = 57;
    u64::from_ne_bytes(option(socket, libc::SOL_SOCKET, SO_COOKIE))
}

/// What the kernel says of a TCP socket.
pub fn tcp_info(socket: &impl AsFd) -> TcpInfo {
    let info: [u8; 152] = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO);
    // Offsets of `struct tcp_info` (include/uapi/linux/tcp.h).
    let number = |offset: usize| {
        u32::from_ne_bytes([info[offset], info[offset + 1], info[offset + 2], info[offset + 3]])
    };
    TcpInfo {
        unacknowledged: number(24),
        rtt_us: number(68),
        retransmits: number(100),
        minimum_rtt_us: number(148),
    }
}

fn option<const N: usize>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> [u8; N] {
    let mut value = MaybeUninit::<[u8; N]>::zeroed();
    let mut length = libc::socklen_t::try_from(N).expect("it is small");
    // SAFETY: there is room for as many bytes as said.
    let outcome = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
    // SAFETY: any bytes are valid, and all were set before the call.
    unsafe { value.assume_init() }
}

/// Waits until something holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}
