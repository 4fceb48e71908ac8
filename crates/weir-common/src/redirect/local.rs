//! Layouts for connections of this host's own sockets, which get another address before there is a packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which sockets are this host's, and which backends they may be led to. All zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LocalConfig {
    /// Cookie of the network namespace whose sockets are meant.
    pub netns: u64,
    /// 1 if an interface redirects packets of this host, so that its sockets are led to backends on it. Otherwise they are
    /// only if they call an address of this host.
    pub has_uplink: u64,
}

/// An address of this host: packets to it never leave by an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OwnAddress {
    /// The address.
    pub address: [u64; 2],
    /// 1 for IPv6.
    pub is_ipv6: u64,
}

/// Addresses of this host that are known to programs.
pub const MOST_OWN_ADDRESSES: u32 = 4096;

/// Listeners that one socket can talk to at the same time.
pub const SOCKET_FLOWS: usize = 8;

/// A listener that a socket talks to, and who answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketFlow {
    /// Address of the listener.
    pub listener: [u64; 2],
    /// Address of the backend.
    pub backend: [u64; 2],
    /// Port of the listener.
    pub listener_port: u16,
    /// Port of the backend; 0 where there is no flow.
    pub backend_port: u16,
    /// Number of the rule.
    pub rule: u32,
    /// Number of the backend.
    pub number: u32,
    /// 1 if the socket is connected to it.
    pub is_connected: u32,
}

/// What a socket talks to. It goes away with the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketFlows {
    /// Listeners and backends.
    pub flows: [SocketFlow; SOCKET_FLOWS],
    /// Which one is replaced next.
    pub next: u64,
}

/// What [`AffinityKey::is_ipv6`](super::AffinityKey::is_ipv6) is for the sockets of this host, which are one client: their
/// addresses are not known yet.
pub const AFFINITY_OWN: u32 = 2;

const _: () = {
    assert!(size_of::<LocalConfig>() == 16);
    assert!(size_of::<OwnAddress>() == 24);
    assert!(size_of::<SocketFlow>() == 48);
    assert!(size_of::<SocketFlows>() == 48 * SOCKET_FLOWS + 8);
};
