//! The control socket of `weir proxy`: its answers, and a client.
//!
//! HTTP with JSON over a unix socket that only its owner may open. Addresses, listeners and rules are text, in the forms of
//! the rules file. Routes are listed in `docs/operate/proxy.md`.

mod client;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::client::{ProxyClient, ProxyClientError, escaped};

/// Where the control process answers if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/weir/proxy/control.sock";

/// `GET /v1/status`: the control process and the datapath.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Version of Weir.
    pub version: String,
    /// Number of the control process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Interfaces that are looked at.
    pub interfaces: Vec<ProxyInterface>,
    /// Sockets of this machine.
    pub sockets: ProxySockets,
    /// Rules.
    pub rules: usize,
    /// Connections at the last count.
    pub connections: u64,
    /// Connections that fit.
    pub capacity: u64,
    /// The rules file that is followed, if there is one.
    pub file: Option<String>,
    /// Why the rules file as it is now is not in effect.
    pub file_trouble: Option<String>,
    /// What else is wrong.
    pub trouble: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyInterface {
    /// Its name.
    pub name: String,
    /// `uplink` or `client`.
    pub role: String,
    /// `tcx` or `clsact`.
    pub hook: String,
    /// Whether it is there, with our programs on it.
    pub is_alive: bool,
}

/// How sockets of this machine are led to backends that its packets cannot be sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxySockets {
    /// The cgroup whose processes these are; `None` if sockets are left alone.
    pub cgroup: Option<String>,
    /// Whether our programs are there.
    pub is_alive: bool,
    /// Why sockets are left alone though they should not be.
    pub trouble: Option<String>,
}

/// `GET /v1/rules`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RulesAnswer {
    /// Interfaces that are looked at.
    pub interfaces: Vec<ProxyInterface>,
    /// Sockets of this machine.
    pub sockets: ProxySockets,
    /// The rules, by name.
    pub rules: Vec<RuleView>,
    /// Backends that were removed and still have connections, or had a moment ago.
    pub leaving: Vec<LeavingView>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// Where it comes from: `file` or `command`.
    pub source: String,
    /// What clients call.
    pub listen: Vec<String>,
    /// Who answers.
    pub backends: Vec<BackendView>,
    /// Services of Kubernetes whose endpoints are among the backends.
    #[serde(default)]
    pub services: Vec<ServiceView>,
    /// How backends are checked.
    pub health: String,
    /// Whether it was told to take no new connections.
    pub is_drained: bool,
    /// Connections.
    pub connections: u64,
}

/// A service of Kubernetes whose endpoints are backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// As it is written in the rule.
    pub service: String,
    /// Endpoints that are backends, those that take nothing new included.
    pub endpoints: usize,
    /// Why there are none, or why they may not be those of now.
    pub trouble: Option<String>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// Where.
    pub address: String,
    /// The weight that counts.
    pub weight: u16,
    /// `up`, `down`, `draining`, or `idle` (its weight is 0).
    pub state: String,
    /// What was wrong with the last check.
    pub trouble: Option<String>,
    /// `here` if it is an address of this machine.
    pub place: Option<String>,
    /// Connections.
    pub connections: u64,
}

/// A backend that was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeavingView {
    /// What clients called.
    pub listen: String,
    /// Where.
    pub address: String,
    /// Connections.
    pub connections: u64,
    /// Seconds since it was removed.
    pub seconds: f64,
}

/// `GET /v1/connections`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsAnswer {
    /// The connections, as far as there was room.
    pub connections: Vec<ConnectionView>,
    /// How many there are of those that were asked for.
    pub total: u64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// `tcp` or `udp`.
    pub transport: String,
    /// The client.
    pub client: String,
    /// What it called.
    pub listen: String,
    /// Who answers.
    pub backend: String,
    /// The rule; empty if it is gone.
    pub rule: String,
    /// Port of the client that the backend sees.
    pub client_port_used: u16,
    /// How far it is: `syn`, `established`, `half-closed`, `closing`, `unreplied`, `replied`, `ended`.
    pub state: String,
    /// Seconds since it began.
    pub age_seconds: f64,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// Whether the client called the backend itself, and is here only because its port was taken.
    pub is_direct: bool,
}

/// `GET /v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// Connections at the last count.
    pub connections: u64,
    /// Connections that fit.
    pub capacity: u64,
    /// By rule.
    pub rules: Vec<RuleStats>,
    /// Packets that belong to no rule and were not treated like others, by reason.
    pub other: BTreeMap<String, u64>,
}

/// What a rule carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleStats {
    /// Its name.
    pub name: String,
    /// All of it.
    pub sum: Carried,
    /// Connections now.
    pub connections: u64,
    /// Packets that were not treated like others, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// By backend.
    pub backends: Vec<BackendStats>,
}

/// What a backend carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendStats {
    /// Where.
    pub address: String,
    /// `up`, `down`, `draining` or `idle`.
    pub state: String,
    /// What it carried.
    pub sum: Carried,
    /// Connections now.
    pub connections: u64,
}

/// Packets and connections since the rule or the backend is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Packets to backends, as on the wire.
    pub forward_packets: u64,
    /// Their bytes.
    pub forward_bytes: u64,
    /// Packets from backends.
    pub reverse_packets: u64,
    /// Their bytes.
    pub reverse_bytes: u64,
    /// Connections that began.
    pub opened: u64,
    /// TCP connections that ended.
    pub closed: u64,
    /// Sockets of this machine that were led to backends as they connected. They are in none of the other numbers.
    pub sockets: u64,
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, other: Self) {
        self.forward_packets += other.forward_packets;
        self.forward_bytes += other.forward_bytes;
        self.reverse_packets += other.reverse_packets;
        self.reverse_bytes += other.reverse_bytes;
        self.opened += other.opened;
        self.closed += other.closed;
        self.sockets += other.sockets;
    }
}

/// `GET /v1/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// In a word: `diverted`, `passed`, `refused`, `dropped`.
    pub verdict: String,
    /// The rule that decides.
    pub rule: Option<String>,
    /// The backend, if it is certain already.
    pub backend: Option<String>,
    /// How that comes, step by step.
    pub steps: Vec<String>,
}

/// Answer to what changes rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeAnswer {
    /// What changes.
    pub diff: RulesDiff,
    /// Whether it was done.
    pub is_applied: bool,
    /// What the user should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What changes between two sets of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesDiff {
    /// The rules that differ, by name.
    pub rules: Vec<RuleDiff>,
}

/// How one rule changes, as lines of `key: value`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDiff {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// Lines that go.
    pub removed: Vec<String>,
    /// Lines that come.
    pub added: Vec<String>,
}

/// What becomes of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It is another.
    Changed,
}

impl fmt::Display for RulesDiff {
    /// One line each; nothing at all if nothing changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            let mark = match rule.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            writeln!(f, "{mark} rule {}", rule.name)?;
            rule.removed.iter().try_for_each(|line| writeln!(f, "-   {line}"))?;
            rule.added.iter().try_for_each(|line| writeln!(f, "+   {line}"))?;
            if rule.removed.is_empty() && rule.added.is_empty() {
                f.write_str("    the order of its lines\n")?;
            }
        }
        Ok(())
    }
}
