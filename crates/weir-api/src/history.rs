//! What the agent remembers: `/api/v1/flows`, `/edges`, `/series` and `/hints`.

mod flows;
mod moment;
mod parameters;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_flow::{Role, Wall, field::Value};

pub use self::{
    flows::{FlowsAnswer, Group, Sums, fields_of, values_of},
    moment::Moment,
    parameters::{EdgesParameters, FlowsParameters, HintsParameters, SeriesParameters},
};
use crate::ledger::Count;

/// Names of fields and their values, as `weir … -o json` prints them; what is absent is left out.
pub type Fields = BTreeMap<String, serde_json::Value>;

/// What an answer covers, and what it leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    /// Beginning of what was looked at, RFC 3339.
    pub since: String,
    /// End of what was looked at, which is not part of it, RFC 3339.
    pub until: String,
    /// Where the answer comes from.
    pub origin: Origin,
    /// Why it is less than was asked for; empty if it is not.
    pub cuts: Vec<Cut>,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Origin {
    /// Raw flows.
    #[serde(rename = "raw")]
    Raw,
    /// Sums of ten seconds.
    #[serde(rename = "10s")]
    TenSeconds,
    /// Sums of a minute.
    #[serde(rename = "1m")]
    Minute,
    /// Sums of an hour.
    #[serde(rename = "1h")]
    Hour,
}

/// Why an answer is less than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cut {
    /// Which of the limits.
    pub reason: CutReason,
    /// The same for people, and what to do.
    pub text: String,
}

/// Which limit an answer met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CutReason {
    /// There are more rows; the answer has the sum of the others.
    Rows,
    /// Reading took too long; `since` says how far back it got.
    Time,
    /// There are too many different things; small ones are summed up.
    Memory,
    /// Nothing older is kept.
    History,
    /// A file could not be read.
    Damaged,
}

/// Packets and bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Records of flows that were summed.
    pub records: u64,
    /// Flows that began.
    pub opened: u64,
    /// From source to destination.
    pub forward: Count,
    /// From destination to source.
    pub reverse: Count,
}

/// Traffic at one role of interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoleTraffic {
    /// What the interfaces are for.
    pub role: String,
    /// How much.
    pub traffic: Traffic,
}

/// The service map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EdgesAnswer {
    /// What this covers.
    pub coverage: Coverage,
    /// The most bytes first.
    pub edges: Vec<Edge>,
    /// What is not listed, by role. Roles are never added up.
    pub others: Vec<RoleTraffic>,
}

/// The traffic between two ends on one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// Who opened the flows.
    pub source: Entity,
    /// Whom they were opened to.
    pub destination: Entity,
    /// Protocol above IP: its keyword or number.
    pub transport: String,
    /// Port at the destination; null where the protocol has none.
    pub port: Option<u16>,
    /// What the interfaces are for at which it was counted: one role for each edge.
    pub role: String,
    /// How much.
    pub traffic: Traffic,
}

/// An end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entity {
    /// `workload`, `process`, `address` or `others`.
    pub sort: String,
    /// Of a workload: `Deployment`, `DaemonSet`, …, `Pod`, `Service`, `Node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of a workload: its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name, executable or address; empty for others.
    pub name: String,
}

/// The ends of the service map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesAnswer {
    /// What this covers.
    pub coverage: Coverage,
    /// The most bytes first.
    pub nodes: Vec<Node>,
    /// Nodes that are not listed.
    pub left_out: usize,
    /// Traffic of edges that are in no node, by role. Roles are never added up.
    pub others: Vec<RoleTraffic>,
}

/// An end of the service map with all its edges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Who it is.
    #[serde(flatten)]
    pub entity: Entity,
    /// Others that opened flows to it.
    pub clients: usize,
    /// Others to whom it opened flows.
    pub servers: usize,
    /// Flows that it opened.
    pub opened: u64,
    /// Flows that were opened to it.
    pub accepted: u64,
    /// What it sent.
    pub sent: Count,
    /// What was sent to it.
    pub received: Count,
}

/// Courses over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesAnswer {
    /// What this covers. The first interval begins at `since`.
    pub coverage: Coverage,
    /// Length of an interval in seconds.
    pub step_seconds: f64,
    /// The most bytes first.
    pub lines: Vec<Line>,
    /// What is not among the lines, by role.
    pub others: Vec<RoleTraffic>,
}

/// One course over time. Its columns have one number for each interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// What the interfaces are for.
    pub role: String,
    /// Values of the fields that were grouped by.
    #[schema(value_type = Object)]
    pub values: Fields,
    /// Flows that began.
    pub opened: Vec<u64>,
    /// Frames from source to destination.
    pub packets: Vec<u64>,
    /// Bytes from source to destination.
    pub bytes: Vec<u64>,
    /// Frames from destination to source.
    pub reverse_packets: Vec<u64>,
    /// Bytes from destination to source.
    pub reverse_bytes: Vec<u64>,
}

/// Values of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HintsAnswer {
    /// What this covers.
    pub coverage: Coverage,
    /// The name of the field.
    pub field: String,
    /// The most bytes first.
    pub hints: Vec<Hint>,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hint {
    /// The value.
    #[schema(value_type = Object)]
    pub value: serde_json::Value,
    /// Records that had it.
    pub records: u64,
    /// Their bytes, both directions, at the role where there were most.
    pub bytes: u64,
}

/// A parameter of a request that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadParameter {
    /// All of it in one sentence.
    pub error: String,
    /// Which parameter.
    pub parameter: String,
    /// The value that it had.
    pub value: String,
    /// What to do.
    pub remedy: String,
}

impl From<weir_flow::Count> for Count {
    fn from(count: weir_flow::Count) -> Self {
        Self { packets: count.packets, bytes: count.bytes }
    }
}

impl From<Count> for weir_flow::Count {
    fn from(count: Count) -> Self {
        Self { packets: count.packets, bytes: count.bytes }
    }
}

/// A moment as text.
pub fn moment_text(wall: Wall) -> String {
    Value::Timestamp(wall).to_string()
}

/// The role with a name.
pub(crate) fn role_of(name: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| role.as_str() == name)
}
