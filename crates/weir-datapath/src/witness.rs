//! Interfaces as witnesses: do an interface's own counters agree with our ledger?
//!
//! Pure arithmetic over numbers that others read. What a driver counts differs, so every direction of every interface has a
//! class that says what can be compared. Only [`Class::Exact`] and [`Class::ExactMinusEthernet`] are known to count what
//! the hooks see, packet for packet and byte for byte; only they may raise an alarm, the others are shown with their class.
//! The classes hold for the TC hooks: they come after the driver's receive counter and before its transmit counter.

use std::fmt;

use weir_flow::{Direction, Ledger};

use crate::interface::{DirectionStats, Interface, Kind, LinkStats, Offloads};

/// Bytes of an Ethernet header, which loopback does not count.
const ETHERNET: u64 = 14;
const NO_QUEUE: [&str; 2] = ["noqueue", "noop"];

/// What one direction of an interface counts, in the terms of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Packets as the kernel hands them over, with all of their bytes.
    Exact,
    /// The same, without the Ethernet header (loopback).
    ExactMinusEthernet,
    /// Packets as the kernel hands them over; which bytes is up to the driver.
    Skbs,
    /// Frames on the wire and their bytes.
    Wire,
    /// Nothing that could be compared.
    None(NoWitness),
}

/// Why counters cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWitness {
    /// Between the hook and the counter a queue may drop, or hold back.
    QueueingDiscipline,
    /// An XDP program may drop, send or divert packets unseen.
    Xdp,
    /// The interface dropped packets on the other side of the hook, of unknown length.
    Drops,
}

/// How the witness compares with the ledger. Positive: the interface counted more than we did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// What was compared.
    pub class: Class,
    /// Difference in packets, in the unit of the class.
    pub skbs_difference: i64,
    /// Difference in bytes; 0 where bytes cannot be compared.
    pub bytes_difference: i64,
}

/// What an interface counted over some time, at least and at most. Reading counters and switching programs take time in
/// which packets pass; with a reading before and after each, what was in between is known to lie within these bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// From the later reading at the start to the earlier one at the end.
    pub least: LinkStats,
    /// From the earlier reading at the start to the later one at the end.
    pub most: LinkStats,
}

impl Class {
    /// Whether a difference proves that packets were lost or counted twice.
    pub const fn may_alarm(self) -> bool {
        matches!(self, Self::Exact | Self::ExactMinusEthernet)
    }

    /// The name shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactMinusEthernet => "exact-14",
            Self::Skbs => "skbs",
            Self::Wire => "wire",
            Self::None(_) => "none",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(reason) => write!(f, "none ({reason})"),
            _ => f.pad(self.as_str()),
        }
    }
}

impl fmt::Display for NoWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::QueueingDiscipline => "a queueing discipline",
            Self::Xdp => "an XDP program",
            Self::Drops => "dropped packets",
        })
    }
}

impl Counted {
    /// From readings that nothing can have passed between, such as in a test.
    pub fn exactly(start: LinkStats, end: LinkStats) -> Self {
        Self { least: end - start, most: end - start }
    }

    /// From a reading before and after the start, and one before and after the end.
    pub fn between(start: (LinkStats, LinkStats), end: (LinkStats, LinkStats)) -> Self {
        Self { least: end.0 - start.1, most: end.1 - start.0 }
    }
}

impl Agreement {
    /// Whether a witness that may raise an alarm does.
    pub const fn is_alarm(&self) -> bool {
        self.class.may_alarm() && (self.skbs_difference != 0 || self.bytes_difference != 0)
    }
}

/// What one direction of an interface counts. `offloads` as far as they are known: without them the usual is assumed.
///
/// A pair that was set to keep VLAN tags in the packet counts 4 bytes more than we do for each: that cannot be seen here.
pub fn class(interface: &Interface, offloads: Option<Offloads>, direction: Direction) -> Class {
    if interface.xdp {
        return Class::None(NoWitness::Xdp);
    }
    let offloads = offloads.unwrap_or(Offloads { tso: true, gro: false });
    let (queues, sees_frames) = match direction {
        Direction::Ingress => (false, offloads.gro),
        Direction::Egress => {
            (interface.qdisc.as_deref().is_some_and(|qdisc| !NO_QUEUE.contains(&qdisc)), !offloads.tso)
        }
    };
    if queues {
        return Class::None(NoWitness::QueueingDiscipline);
    }
    match interface.kind {
        Kind::Veth | Kind::Dummy if sees_frames => Class::Wire,
        Kind::Veth | Kind::Dummy => Class::Exact,
        // What loopback sends it hands over at once: nothing joins packets there.
        Kind::Loopback if offloads.tso => Class::ExactMinusEthernet,
        // The host on the other side of virtio takes and gives super-packets whole.
        Kind::Physical if interface.bus.as_deref() != Some("virtio") => Class::Wire,
        _ => Class::Skbs,
    }
}

/// Compares what we saw with what the interface counted over the same time.
pub fn compare(class: Class, direction: Direction, ledger: &Ledger, counted: &Counted) -> Agreement {
    let (least, most) = match direction {
        Direction::Ingress => (counted.least.rx, counted.most.rx),
        Direction::Egress => (counted.least.tx, counted.most.tx),
    };
    let (packets, bytes) = match class {
        Class::Exact => (ledger.skbs, Some(ledger.skb_bytes)),
        Class::ExactMinusEthernet => {
            (ledger.skbs, Some(ledger.skb_bytes.saturating_sub(ledger.skbs * ETHERNET)))
        }
        Class::Skbs => (ledger.skbs, None),
        Class::Wire => (ledger.seen.packets, Some(ledger.seen.bytes)),
        Class::None(_) => return Agreement { class, skbs_difference: 0, bytes_difference: 0 },
    };
    // What the device refused to send passed the hook and is missing in its counter; its length nobody knows.
    if direction == Direction::Egress && most.dropped != 0 {
        let class = Class::None(NoWitness::Drops);
        return Agreement { class, skbs_difference: 0, bytes_difference: 0 };
    }
    let distance = |field: fn(&DirectionStats) -> u64, ours: u64| beyond(ours, field(&least), field(&most));
    Agreement {
        class,
        skbs_difference: distance(|stats| stats.packets, packets),
        bytes_difference: bytes.map_or(0, |bytes| distance(|stats| stats.bytes, bytes)),
    }
}

/// How far the witness's bounds lie beyond our number: 0 if it is within them.
const fn beyond(ours: u64, least: u64, most: u64) -> i64 {
    if ours < least {
        least.wrapping_sub(ours).cast_signed()
    } else if ours > most {
        most.wrapping_sub(ours).cast_signed()
    } else {
        0
    }
}
