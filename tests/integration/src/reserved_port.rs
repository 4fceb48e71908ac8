//! [`ReservedPort`]: a port that stays with a test while whoever listens at it goes away and comes back.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

/// A port of the loopback interface, as long as this is there: a socket is bound to it, so neither binding nor connecting
/// picks it. Who listens there must have set `SO_REUSEADDR`, as most servers and the standard library do.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl ReservedPort {
    /// Any that is free.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("there are descriptors");
        setsockopt(&socket, sockopt::ReuseAddr, &true).expect("every socket has it");
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("there is a port");
        let address: SockaddrIn = getsockname(socket.as_raw_fd()).expect("it is bound");
        Self { address: SocketAddr::from((address.ip(), address.port())), _socket: socket }
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
