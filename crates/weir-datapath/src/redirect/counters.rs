//! What is counted, and what calls report.

use std::collections::BTreeMap;

use weir_common::redirect::{BackendCounts, Reason};

use super::desired::{BackendId, RuleId};

/// Why a packet was not treated like others: dropped, passed as it was, or treated specially.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DropReason(pub(super) Reason);

impl DropReason {
    /// All reasons, with what metrics call them and what they mean.
    pub const NAMES: [(Self, &'static str, &'static str); 24] = [
        (Self(Reason::Malformed), "malformed", "passed: headers cut short or contradictory"),
        (Self(Reason::Extensions), "extensions", "passed: a routing header or too many extension headers"),
        (
            Self(Reason::IcmpUnreadable),
            "icmp_unreadable",
            "passed: an ICMP error about a packet that cannot be read",
        ),
        (Self(Reason::IcmpTranslated), "icmp_translated", "translated: an ICMP error about a connection"),
        (Self(Reason::FragmentMissed), "fragment_missed", "dropped: a fragment whose first one was not seen"),
        (
            Self(Reason::FragmentTranslated),
            "fragment_translated",
            "translated: a fragment that is not the first",
        ),
        (Self(Reason::NoBackendPassed), "no_backend_passed", "passed: no backend takes new connections"),
        (Self(Reason::NoBackendDropped), "no_backend_dropped", "dropped: no backend takes new connections"),
        (Self(Reason::NoBackendReset), "no_backend_reset", "reset: no backend takes new connections"),
        (Self(Reason::FullPassed), "full_passed", "passed: the table of connections is full"),
        (Self(Reason::FullDropped), "full_dropped", "dropped: the table of connections is full"),
        (
            Self(Reason::RateLimited),
            "rate_limited",
            "dropped: more new connections per second than the rule allows",
        ),
        (
            Self(Reason::PortChanged),
            "port_changed",
            "translated: the client's port was taken, it got another one",
        ),
        (Self(Reason::NoPort), "no_port", "dropped: the client's port was taken and no other one was free"),
        (Self(Reason::Hairpin), "hairpin", "passed: the only backend is the client itself"),
        (Self(Reason::Ended), "ended", "reset or dropped: the connection was ended"),
        (Self(Reason::ChosenAgain), "chosen_again", "translated: UDP chose another backend"),
        (
            Self(Reason::Repaired),
            "repaired",
            "translated: half of a connection was missing and was made anew",
        ),
        (
            Self(Reason::DirectChanged),
            "direct_changed",
            "translated: a direct connection to a backend got another port",
        ),
        (Self(Reason::WriteFailed), "write_failed", "dropped: the kernel refused a change under way"),
        (
            Self(Reason::NotWritable),
            "not_writable",
            "dropped: the kernel refused to make a packet of a connection writable",
        ),
        (Self(Reason::Interrupted), "interrupted", "passed: the CPU was at work on another packet"),
        (Self(Reason::Vanished), "vanished", "passed: the rule vanished under way; dropped: the backend did"),
        (
            Self(Reason::BackendHere),
            "backend_here",
            "passed: only backends on this machine are left, and the socket was not led there",
        ),
    ];

    /// What metrics call it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.0 as usize].1
    }
}

/// What a backend carried since it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendCounters {
    /// Packets to it, as on the wire.
    pub forward_packets: u64,
    /// Their bytes, link headers included.
    pub forward_bytes: u64,
    /// Packets from it.
    pub reverse_packets: u64,
    /// Their bytes.
    pub reverse_bytes: u64,
    /// Connections that began.
    pub opened: u64,
    /// TCP connections that ended.
    pub closed: u64,
    /// Sockets of this host that were led to it, without a packet being changed. Not in the other numbers.
    pub opened_here: u64,
}

impl BackendCounters {
    /// Adds what another one carried.
    pub fn add(&mut self, other: &Self) {
        self.forward_packets += other.forward_packets;
        self.forward_bytes += other.forward_bytes;
        self.reverse_packets += other.reverse_packets;
        self.reverse_bytes += other.reverse_bytes;
        self.opened += other.opened;
        self.closed += other.closed;
        self.opened_here += other.opened_here;
    }
}

impl From<BackendCounts> for BackendCounters {
    fn from(counts: BackendCounts) -> Self {
        Self {
            forward_packets: counts.forward_packets,
            forward_bytes: counts.forward_bytes,
            reverse_packets: counts.reverse_packets,
            reverse_bytes: counts.reverse_bytes,
            opened: counts.opened,
            closed: counts.closed,
            opened_here: counts.opened_here,
        }
    }
}

/// What a rule carried since it is there: the sum of its backends, those that are gone included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleCounters {
    /// The sum.
    pub sum: BackendCounters,
    /// Packets that were not treated like others; reasons that never occurred are left out.
    pub reasons: BTreeMap<DropReason, u64>,
}

/// All counters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By rule.
    pub rules: BTreeMap<RuleId, RuleCounters>,
    /// By backend.
    pub backends: BTreeMap<BackendId, BackendCounters>,
    /// What belongs to no rule.
    pub other: BTreeMap<DropReason, u64>,
    /// Connections at the last full sweep of [`Redirect::expire`](super::Redirect::expire).
    pub connections: u64,
    /// Connections that fit.
    pub capacity: u64,
}

/// What a call of [`Redirect::publish`](super::Redirect::publish) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// Rules that were added, changed or removed.
    pub rules_changed: u64,
    /// Backends that were added, changed or removed.
    pub backends_changed: u64,
    /// Connections of backends that went away.
    pub connections_ended: u64,
}

/// What a call of [`Redirect::expire`](super::Redirect::expire) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Entries that were looked at, two for each connection.
    pub looked_at: u64,
    /// Connections that were removed.
    pub removed: u64,
    /// Connections there are, once the last sweep came to its end.
    pub connections: u64,
    /// Whether this call came to the end of the table.
    pub is_whole: bool,
}
