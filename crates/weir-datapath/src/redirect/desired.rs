//! What is wanted: rules and backends, as plain values.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weir_common::redirect::{MOST_BACKENDS, MOST_RULES};

/// Number of a rule: 1 to [`RuleId::LAST`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RuleId(pub u32);

impl RuleId {
    /// The highest number.
    pub const LAST: Self = Self(MOST_RULES - 1);
}

/// Number of a backend: 1 to [`BackendId::LAST`]. Means one address of one rule as long as a connection names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BackendId(pub u32);

impl BackendId {
    /// The highest number.
    pub const LAST: Self = Self(MOST_BACKENDS - 1);
}

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A range of ports. 0 to 65535 are all, `first == last` is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A range of addresses; of full length, one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that are fixed: at most 32 or 128.
    pub length: u8,
}

/// What a rule listens on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Listener {
    /// The protocol.
    pub transport: Transport,
    /// The addresses.
    pub prefix: Prefix,
    /// The ports.
    pub ports: Ports,
}

/// What happens to a new connection that no backend takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnEmpty {
    /// TCP gets a reset, UDP is dropped.
    Reset,
    /// Dropped.
    Drop,
    /// Goes on to the listener's own address.
    Pass,
}

/// What happens to a new connection that the table has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnFull {
    /// Dropped.
    Drop,
    /// Goes on to the listener's own address.
    Pass,
}

/// What becomes of the client's port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortPolicy {
    /// It stays; a connection whose port is taken is dropped.
    Preserve,
    /// It stays unless it is taken.
    OnCollision,
    /// It is always another one, from 61000 on.
    Always,
}

/// After how long without packets a connection is forgotten. Kept in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub syn: Duration,
    /// TCP after it.
    pub established: Duration,
    /// TCP after both ends closed it, or one reset it.
    pub closing: Duration,
    /// UDP.
    pub udp: Duration,
    /// Age, not silence, at which UDP without an answer is forgotten.
    pub udp_unreplied: Duration,
}

impl Default for Timeouts {
    /// RFC 5382 5 (two hours and four minutes), RFC 4787 4.3 (two minutes).
    fn default() -> Self {
        Self {
            syn: Duration::from_mins(1),
            established: Duration::from_mins(124),
            closing: Duration::from_secs(10),
            udp: Duration::from_mins(2),
            udp_unreplied: Duration::from_mins(5),
        }
    }
}

/// A rule with one listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleState {
    /// Its number.
    pub id: RuleId,
    /// What it listens on. Listeners of different rules have no address and port in common.
    pub listener: Listener,
    /// The consistent table of backends, whose length is best a prime; empty if none takes new connections.
    pub table: Arc<[BackendId]>,
    /// How long a client keeps its backend after its last connection began.
    pub affinity: Option<Duration>,
    /// Without a backend.
    pub on_empty: OnEmpty,
    /// Without room.
    pub on_full: OnFull,
    /// The client's port.
    pub ports: PortPolicy,
    /// How long connections last.
    pub timeouts: Timeouts,
    /// Most new connections per second.
    pub new_per_second: Option<u32>,
}

/// What a backend is good for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// Takes new connections.
    Up,
    /// Keeps its connections and takes none.
    Draining,
    /// Its connections end: TCP by a reset, UDP chooses again.
    Gone,
}

/// A backend of one rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BackendState {
    /// Its number.
    pub id: BackendId,
    /// Its rule.
    pub rule: RuleId,
    /// Its address; port 0 keeps the port that the client chose.
    pub address: SocketAddr,
    /// What it is good for.
    pub standing: Standing,
}

/// Everything that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// The rules.
    pub rules: Vec<RuleState>,
    /// Their backends. Those of a rule that is gone stay as long as their connections shall go on.
    pub backends: Vec<BackendState>,
}
