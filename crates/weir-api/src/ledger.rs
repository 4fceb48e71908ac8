//! `GET /api/v1/ledger`: what every observation point saw, and what became of it, up to each consumer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Packets and bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Records, and what they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The ledger of every point.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerAnswer {
    /// When it was taken, RFC 3339.
    pub time: String,
    /// Whether everything that was seen anywhere is accounted for.
    pub is_balanced: bool,
    /// Every point, in the order in which they came.
    pub points: Vec<PointLedger>,
    /// What earlier runs left in the spools of consumers.
    pub earlier: Vec<EarlierLedger>,
    /// What became of packets at DNS ports, if messages are read. They are in the ledgers of their points besides.
    #[serde(default)]
    pub dns: Option<MessageLedger>,
}

/// What an earlier run left in the spool of one consumer: found = delivered + dropped + spooled.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EarlierLedger {
    /// Name of the consumer.
    pub consumer: String,
    /// Everything that was there at the start.
    pub found: Tally,
    /// What the consumer has by now.
    pub delivered: Tally,
    /// What still waits on disk.
    pub spooled: Tally,
    /// What was lost, by reason.
    pub dropped: Dropped,
    /// Places in files that made no sense: nobody knows what was there.
    pub damaged_places: u64,
}

/// Packets at DNS ports on their way to be read, as the kernel hands them over: seen = written + lost + unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageLedger {
    /// Packets that could hold a message.
    pub seen: u64,
    /// Handed over.
    pub written: u64,
    /// No room in the ring.
    pub lost: u64,
    /// The kernel would not copy them.
    pub unreadable: u64,
}

/// The ledger of one point: seen = flows + filtered + duplicate + `non_ip` + `parse_error` + overflow, and flows = told + held.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PointLedger {
    /// Name of the interface; absent for the sum of points that are gone.
    pub interface: Option<String>,
    /// Name of the network namespace, if it is not the agent's.
    pub netns: Option<String>,
    /// `ingress` or `egress`.
    pub direction: String,
    /// What the interface is for.
    pub role: String,
    /// Whether it is still counted.
    pub is_open: bool,
    /// Every packet that passed.
    pub seen: Count,
    /// In flows that were read.
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
    /// Of `flows`: still in the flow table, not in a record yet.
    pub held: Count,
    /// Of `flows`: in records.
    pub told: Tally,
    /// Of `told`: kept away by the agent's filter.
    pub dismissed: Tally,
    /// What became of the others: `told` = `dismissed` + what each consumer was offered.
    pub consumers: Vec<ConsumerLedger>,
    /// Whether all of these equations hold.
    pub is_balanced: bool,
}

/// What became of records that one consumer was offered: offered = delivered + filtered + dropped + spooled + waiting.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConsumerLedger {
    /// Name of the consumer.
    pub consumer: String,
    /// Everything meant for it since it began.
    pub offered: Tally,
    /// What it has.
    pub delivered: Tally,
    /// What its own filter kept away.
    pub filtered: Tally,
    /// What waits on disk.
    pub spooled: Tally,
    /// What waits in memory.
    pub waiting: Tally,
    /// What was lost, by reason.
    pub dropped: Dropped,
}

/// What was lost, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// Too much waited, so the oldest went.
    pub queue_full: Tally,
    /// The consumer refused it for good.
    pub rejected: Tally,
    /// The agent stopped, or the sink was removed, before it could be delivered.
    pub stopped: Tally,
    /// The spool had no more room, so the oldest went.
    pub spool_full: Tally,
    /// The disk gave back something else than was spooled.
    pub spool_damaged: Tally,
}
