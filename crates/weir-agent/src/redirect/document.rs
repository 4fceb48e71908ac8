//! The rules file as it is written, one field per key. The comments are the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::LengthText;

/// A rules file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RulesDocument {
    /// Interfaces whose packets are looked at, such as `eth0` or `veth0=client`. Role `uplink`, which goes without
    /// saying: connections of this machine that leave by it. Role `client`: connections of others that come in by it.
    /// Those of `-i` come before.
    pub interfaces: Vec<String>,
    /// Connections for which there is room, both transports together; 262144 to begin with. Another number takes effect
    /// with the next start, and no connection notices; those that there are must fit with an eighth to spare.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub connections: Option<u32>,
    /// Where to answer `GET /metrics` besides the control socket, such as `127.0.0.1:9470`. Changes only with a restart.
    pub metrics: Option<String>,
    /// The rules.
    pub rules: Vec<RuleDocument>,
}

/// A rule: connections to one of the listeners go to one of the backends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleDocument {
    /// Its name: up to 63 letters, digits, `-`, `_` and `.`.
    #[serde(default)]
    pub name: String,
    /// What clients call: `tcp:10.0.0.10:80`, `udp:[fd00::1]:53`, a range of ports `tcp:10.0.0.10:80-90`, every port
    /// `tcp:10.0.0.10:*`, a network `tcp:10.1.0.0/16:443`.
    pub listen: Vec<String>,
    /// Who answers: `ADDRESS:PORT`, or `ADDRESS` alone to keep the port; behind it `,weight=N` (0 to 256, 1 goes
    /// without saying) and `,drain` (keeps its connections, takes none). `service:NAMESPACE/NAME:PORT` stands for the
    /// endpoints of a service of Kubernetes, by the number or the name of its port; each gets what is behind it.
    pub backends: Vec<String>,
    /// How backends are checked: `tcp` (a connection opens), `http:/PATH` (a status below 400), `udp:HEX` (an answer to
    /// this datagram), `none`.
    #[serde(default = "none")]
    pub health: String,
    /// Port of the checks, if it is not that of the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub health_port: Option<u16>,
    /// Time from one check of a backend to the next.
    #[serde(default = "two_seconds")]
    pub health_interval: LengthText,
    /// How long a check may take.
    #[serde(default = "one_second")]
    pub health_timeout: LengthText,
    /// Checks in a row that must succeed until a backend that is down counts as up.
    #[serde(default = "rise")]
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// Checks in a row that must fail until a backend counts as down.
    #[serde(default = "fall")]
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
    /// How long a client keeps its backend after its last connection began. Without it, only weights decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<LengthText>,
    /// What becomes of a new connection if no backend may take it: `rst` (refused; UDP is dropped), `drop`, `pass` (to
    /// the address that the client called).
    #[serde(default)]
    pub on_empty: OnEmptyDocument,
    /// What becomes of a new connection if the table is full: `drop`, or `pass` (to the address that the client called).
    #[serde(default)]
    pub on_full: OnFullDocument,
    /// What becomes of the client's port on the way to the backend: `preserve`, `on_collision` (another if two
    /// connections could not be told apart), `always` (another).
    #[serde(default)]
    pub port_policy: PortPolicyDocument,
    /// How long connections are remembered that say nothing.
    #[serde(default)]
    pub timeouts: TimeoutsDocument,
    /// Most new connections a second; packets that would begin more are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub new_per_second: Option<u32>,
    /// How long TCP connections may go on after their backend or the whole rule was removed. Then they are reset.
    #[serde(default = "five_minutes")]
    pub drain_timeout: LengthText,
    /// Keeps the connections of all backends and lets them take none.
    #[serde(default)]
    pub drain: bool,
}

/// How long connections are remembered that say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct TimeoutsDocument {
    /// TCP, until both sides have said something.
    pub syn: LengthText,
    /// TCP, once it is open.
    pub established: LengthText,
    /// TCP, after both sides have said that they are done.
    pub closing: LengthText,
    /// UDP that was answered.
    pub udp: LengthText,
    /// UDP that never was, however often it is sent: then a backend is chosen again.
    pub udp_unreplied: LengthText,
}

/// What becomes of a new connection that no backend may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnEmptyDocument {
    #[default]
    #[expect(missing_docs, reason = "a comment would make it a schema of its own; the key explains it")]
    Rst,
    #[expect(missing_docs, reason = "see above")]
    Drop,
    #[expect(missing_docs, reason = "see above")]
    Pass,
}

/// What becomes of a new connection for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnFullDocument {
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Drop,
    #[expect(missing_docs, reason = "see above")]
    Pass,
}

/// What becomes of the client's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PortPolicyDocument {
    #[expect(missing_docs, reason = "see above")]
    Preserve,
    #[default]
    #[expect(missing_docs, reason = "see above")]
    OnCollision,
    #[expect(missing_docs, reason = "see above")]
    Always,
}

fn none() -> String {
    "none".to_owned()
}

fn two_seconds() -> LengthText {
    "2s".into()
}

fn one_second() -> LengthText {
    "1s".into()
}

fn five_minutes() -> LengthText {
    "5m".into()
}

fn rise() -> u32 {
    2
}

fn fall() -> u32 {
    3
}

impl Default for TimeoutsDocument {
    /// Not shorter than what RFC 5382 (REQ-5) and RFC 4787 (REQ-5) ask of address translators.
    fn default() -> Self {
        Self {
            syn: "1m".into(),
            established: "124m".into(),
            closing: "30s".into(),
            udp: "2m".into(),
            udp_unreplied: "5m".into(),
        }
    }
}
