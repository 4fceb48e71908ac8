//! The ledger: counters that prove nothing was lost.

use std::ops::{Add, AddAssign};

/// Packets and bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Everything that one observation point saw over some time, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Every packet that passed.
    pub seen: Count,
    /// Packets as the kernel handed them over.
    pub skbs: u64,
    /// Σ `skb->len`.
    pub skb_bytes: u64,
    /// Σ of the flows that were read.
    pub flows: Count,
    /// Rejected by the filter.
    pub filtered: Count,
    /// Counted at another observation point.
    pub duplicate: Count,
    /// Neither IPv4 nor IPv6.
    pub non_ip: Count,
    /// IP whose header is cut short or contradicts itself.
    pub parse_error: Count,
    /// No room in the kernel's table: known in total only.
    pub overflow: Count,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.skbs += other.skbs;
        self.skb_bytes += other.skb_bytes;
        self.flows += other.flows;
        self.filtered += other.filtered;
        self.duplicate += other.duplicate;
        self.non_ip += other.non_ip;
        self.parse_error += other.parse_error;
        self.overflow += other.overflow;
    }
}

impl Ledger {
    /// Everything that has a name: flows and what was left out of them.
    #[must_use]
    pub fn accounted(&self) -> Count {
        self.flows + self.filtered + self.duplicate + self.non_ip + self.parse_error + self.overflow
    }

    /// Whether every packet and byte that was seen is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.seen == self.accounted()
    }
}
