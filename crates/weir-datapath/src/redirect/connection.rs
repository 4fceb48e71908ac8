//! Connections as they are shown.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::desired::{BackendId, RuleId, Transport};

/// Whose connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionsOf {
    /// Of a rule.
    Rule(RuleId),
    /// To a backend.
    Backend(BackendId),
    /// From a client's address.
    Client(IpAddr),
}

/// A connection as the client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// The protocol.
    pub transport: Transport,
    /// The client.
    pub client: SocketAddr,
    /// What it believes to talk to.
    pub listen: SocketAddr,
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnectionState {
    /// TCP: the handshake is under way.
    Syn,
    /// TCP: both ends have spoken.
    Established,
    /// TCP: one end has closed.
    HalfClosed,
    /// TCP: both ends have closed, or one has reset.
    Closing,
    /// UDP: no answer yet.
    UdpUnreplied,
    /// UDP: both ends have spoken.
    Udp,
    /// Ended by us: the next packet of the client is answered by a reset.
    Ended,
}

impl ConnectionState {
    /// Its name, as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
            Self::UdpUnreplied => "unreplied",
            Self::Udp => "replied",
            Self::Ended => "ended",
        }
    }
}

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// As the client knows it.
    pub tuple: Tuple,
    /// The rule that it came by.
    pub rule: RuleId,
    /// The backend.
    pub backend: BackendId,
    /// Where its packets go.
    pub backend_address: SocketAddr,
    /// The port of the client that the backend sees.
    pub client_port_used: u16,
    /// How far it is.
    pub state: ConnectionState,
    /// Time since it began.
    pub age: Duration,
    /// Time since its last packet, in either direction; short of the truth by up to 640 ms.
    pub idle: Duration,
    /// Whether the backend has answered.
    pub is_replied: bool,
    /// Whether the client talks to the backend itself, and is here only because its port was taken.
    pub is_direct: bool,
}
