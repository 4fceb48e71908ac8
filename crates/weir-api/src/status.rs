//! `GET /api/v1/status`: how the agent is, in numbers and in words.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ledger::Count;

/// How the agent is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// All of it in one sentence.
    pub summary: String,
    /// Version of Weir.
    pub version: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// End of the last interval, RFC 3339.
    pub last_interval: Option<String>,
    /// Whether it counts and hands on.
    pub is_ready: bool,
    /// The ledger of all points together.
    pub ledger: LedgerSummary,
    /// Interfaces.
    pub interfaces: InterfaceCount,
    /// The flow table.
    pub table: TableStatus,
    /// The table in the kernel, at the last reading.
    pub kernel_table: KernelTableStatus,
    /// Names from a cluster.
    pub kubernetes: KubernetesStatus,
    /// DNS, if messages are read.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// Store, sinks and live view.
    pub consumers: Vec<ConsumerStatus>,
    /// The process.
    pub process: ProcessStatus,
}

/// The ledger of all points together. The same packet may pass several points: sums of different roles are no count of
/// packets, only a proof that nothing is missing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerSummary {
    /// The part of `seen` that has a name, in words; `100.00 %` only when not a byte is missing.
    pub accounted: String,
    /// Whether everything is accounted for, at every point and up to every consumer.
    pub is_balanced: bool,
    /// Records that some consumer should have had and did not get.
    pub dropped_records: u64,
    /// Every packet that passed.
    pub seen: Count,
    /// In flows.
    pub flows: Count,
    /// Rejected by the filter in the kernel.
    pub filtered: Count,
    /// Counted at another point.
    pub duplicate: Count,
    /// Neither IPv4 nor IPv6.
    pub non_ip: Count,
    /// IP whose header is cut short or contradicts itself.
    pub parse_error: Count,
    /// No room in the kernel's table: known in total only.
    pub overflow: Count,
}

/// How many interfaces are counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct InterfaceCount {
    /// Those that are.
    pub attached: usize,
    /// Those that should be.
    pub wanted: usize,
}

/// The flow table of the agent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TableStatus {
    /// Flows that go on.
    pub flows: usize,
    /// Most flows at a time.
    pub capacity: usize,
    /// Memory in use.
    pub bytes: usize,
    /// What was folded into coarser rows for want of room.
    pub folded: Count,
}

/// The table in the kernel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct KernelTableStatus {
    /// Slots in use.
    pub slots_used: usize,
    /// Slots in all.
    pub slots: usize,
    /// Entries of the overflow map in use.
    pub overflow_used: usize,
    /// Entries that it could hold.
    pub overflow: usize,
}

/// How well the cluster is known.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KubernetesStatus {
    /// Why there are no names from a cluster, if there are none.
    pub off: Option<String>,
    /// What is listed and watched.
    pub resources: Vec<ResourceStatus>,
    /// Pods that are known.
    pub pods: usize,
    /// Addresses of pods, nodes and services, those of the last minutes included.
    pub addresses: usize,
}

/// How well one kind of objects is known.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResourceStatus {
    /// Its name, such as `pods`.
    pub name: String,
    /// `syncing`, `current`, `stale` (the API server is not heard of) or `refused` (the role does not grant it).
    pub state: String,
    /// When the API server was last heard of about it, RFC 3339.
    pub heard: Option<String>,
    /// What was wrong last, if it still is.
    pub trouble: Option<String>,
}

/// Lookups and names, since the start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct DnsStatus {
    /// Lookups that got a response, whatever it said. Those that pass interfaces of different roles count once.
    pub answered: u64,
    /// Lookups that got none for five seconds.
    pub unanswered: u64,
    /// Packets with messages for which the ring had no room.
    pub lost_packets: u64,
    /// Lookups that wait for a response, or had one a moment ago.
    pub pending: usize,
    /// Names of addresses that are known.
    pub names: usize,
}

/// How a consumer is doing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Records that it has.
    pub delivered_records: u64,
    /// Records that were lost on the way to it.
    pub dropped_records: u64,
    /// Records that wait in memory.
    pub waiting_records: usize,
    /// Most records that may wait there.
    pub queue_records: usize,
    /// What waits on disk, if the consumer has a spool.
    pub spool: Option<SpoolStatus>,
    /// Seconds between the last interval and the last one that it has.
    pub behind_seconds: f64,
    /// Attempts to deliver.
    pub attempts: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Records that it took and then refused without saying which.
    pub refused_records: u64,
    /// Why the last attempt failed, until one works.
    pub trouble: Option<String>,
    /// When the first of these attempts failed, RFC 3339.
    pub trouble_since: Option<String>,
}

/// What waits on disk for a consumer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolStatus {
    /// Records, those that an earlier run left included.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// Most bytes that there may be.
    pub limit_bytes: u64,
    /// Why nothing can be spooled at present.
    pub trouble: Option<String>,
}

/// What the agent itself takes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ProcessStatus {
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
}
