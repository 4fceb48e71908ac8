//! Interfaces as witnesses: do an interface's own counters agree with our ledger?
//!
//! Pure arithmetic over numbers that others read. What a driver counts differs, so every direction of every interface has a
//! class that says what can be compared. Only [`Class::Exact`] and [`Class::ExactMinusEthernet`] are known to count what
//! the hooks see, packet for packet and byte for byte; only they may raise an alarm, the others are shown with their class.
//! The classes hold for the TC hooks: they come after the driver's receive counter and before its transmit counter.

use std::{fmt, ops::RangeInclusive};

use weir_flow::{Direction, Ledger};

use crate::interface::{Interface, Kind, LinkStats, Offloads};

/// Bytes of an Ethernet header, which some interfaces do not count.
const ETHERNET: u64 = 14;
/// A device takes super-packets of less than 64 KiB, and TCP makes them of two segments at least, so that beyond this MTU
/// they are cut up after the egress hook. Loopback's is 65,536.
const LARGEST_UNCUT_MTU: u32 = 32_000;
const NO_QUEUE: [&str; 2] = ["noqueue", "noop"];

/// What one direction of an interface counts, in the terms of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Packets as the kernel hands them over, with all of their bytes.
    Exact,
    /// The same, without the Ethernet header (loopback).
    ExactMinusEthernet,
    /// Some packets as the kernel hands them over, some as frames on the wire, with or without the Ethernet header: what
    /// is counted lies between the two.
    Between,
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
            Self::Between => "between",
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
    let queues = interface.qdisc.as_deref().is_some_and(|qdisc| !NO_QUEUE.contains(&qdisc));
    let changes_packets = match direction {
        Direction::Egress if queues => return Class::None(NoWitness::QueueingDiscipline),
        Direction::Egress => !offloads.tso || interface.mtu > LARGEST_UNCUT_MTU,
        // What loopback receives nobody joins.
        Direction::Ingress => offloads.gro && interface.kind != Kind::Loopback,
    };
    match interface.kind {
        Kind::Veth | Kind::Dummy | Kind::Loopback if changes_packets => Class::Between,
        Kind::Veth | Kind::Dummy => Class::Exact,
        Kind::Loopback => Class::ExactMinusEthernet,
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
    if let Class::None(_) = class {
        return Agreement { class, skbs_difference: 0, bytes_difference: 0 };
    }
    // What the device refused to send passed the hook and is missing in its counter; its length nobody knows.
    if direction == Direction::Egress && most.dropped != 0 {
        let class = Class::None(NoWitness::Drops);
        return Agreement { class, skbs_difference: 0, bytes_difference: 0 };
    }
    let expected = expected(class, direction, ledger);
    let distance = |ours: &[RangeInclusive<u64>], least, most| {
        let distances = ours.iter().map(|ours| beyond(ours, least, most));
        distances.min_by_key(|distance| distance.unsigned_abs()).unwrap_or(0)
    };
    Agreement {
        class,
        skbs_difference: distance(&[expected.packets], least.packets, most.packets),
        bytes_difference: distance(&expected.bytes, least.bytes, most.bytes),
    }
}

/// What the interface should have counted.
struct Expected {
    packets: RangeInclusive<u64>,
    /// Any of these; none where bytes are not compared.
    bytes: Vec<RangeInclusive<u64>>,
}

fn expected(class: Class, direction: Direction, ledger: &Ledger) -> Expected {
    let Ledger { seen, skbs, skb_bytes, .. } = *ledger;
    let exactly = |number: u64| number..=number;
    let minus_ethernet = |bytes: u64, headers: u64| bytes.saturating_sub(headers * ETHERNET);
    match class {
        // The far end of a pair counts for us if it polls (it has an XDP program or joins packets), and it counts after it
        // took the Ethernet header off. It may live where we cannot see it.
        Class::Exact if direction == Direction::Egress => Expected {
            packets: exactly(skbs),
            bytes: vec![exactly(skb_bytes), exactly(minus_ethernet(skb_bytes, skbs))],
        },
        Class::Exact => Expected { packets: exactly(skbs), bytes: vec![exactly(skb_bytes)] },
        Class::ExactMinusEthernet => {
            Expected { packets: exactly(skbs), bytes: vec![exactly(minus_ethernet(skb_bytes, skbs))] }
        }
        Class::Between => Expected {
            packets: skbs..=seen.packets,
            bytes: vec![minus_ethernet(skb_bytes, seen.packets)..=seen.bytes],
        },
        Class::Wire => Expected { packets: exactly(seen.packets), bytes: vec![exactly(seen.bytes)] },
        Class::Skbs | Class::None(_) => Expected { packets: exactly(skbs), bytes: Vec::new() },
    }
}

/// How far what was counted lies beyond our numbers: 0 if the ranges meet.
fn beyond(ours: &RangeInclusive<u64>, least: u64, most: u64) -> i64 {
    if *ours.end() < least {
        least.wrapping_sub(*ours.end()).cast_signed()
    } else if *ours.start() > most {
        most.wrapping_sub(*ours.start()).cast_signed()
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_flow::{Count, Role};
    use weir_packet::Link;

    use super::*;
    use crate::interface::DirectionStats;

    fn interface(kind: Kind, qdisc: &str) -> Interface {
        Interface {
            index: 1,
            name: Arc::from("x"),
            kind,
            role: Role::Other,
            link: Link::Ethernet,
            up: true,
            master: None,
            link_index: None,
            link_netnsid: None,
            mtu: 1500,
            qdisc: Some(Arc::from(qdisc)),
            bus: None,
            xdp: false,
            stats: LinkStats::default(),
        }
    }

    #[test]
    fn each_direction_of_each_kind_has_its_class() {
        let queue = Class::None(NoWitness::QueueingDiscipline);
        for (kind, qdisc, ingress, egress) in [
            (Kind::Veth, "noqueue", Class::Exact, Class::Exact),
            (Kind::Veth, "fq_codel", Class::Exact, queue),
            (Kind::Dummy, "noqueue", Class::Exact, Class::Exact),
            (Kind::Loopback, "noqueue", Class::ExactMinusEthernet, Class::ExactMinusEthernet),
            (Kind::Physical, "mq", Class::Wire, queue),
            (Kind::Physical, "noqueue", Class::Wire, Class::Wire),
            (Kind::Bridge, "noqueue", Class::Skbs, Class::Skbs),
            (Kind::Wireguard, "noqueue", Class::Skbs, Class::Skbs),
        ] {
            let interface = interface(kind, qdisc);
            assert_eq!(class(&interface, None, Direction::Ingress), ingress, "{} {qdisc}", interface.kind);
            assert_eq!(class(&interface, None, Direction::Egress), egress, "{} {qdisc}", interface.kind);
        }
        let virtio = Interface { bus: Some(Arc::from("virtio")), ..interface(Kind::Physical, "noqueue") };
        assert_eq!(class(&virtio, None, Direction::Ingress), Class::Skbs);
        let xdp = Interface { xdp: true, ..interface(Kind::Veth, "noqueue") };
        assert_eq!(class(&xdp, None, Direction::Ingress), Class::None(NoWitness::Xdp));
    }

    #[test]
    fn what_is_cut_up_or_joined_is_counted_between_packets_and_frames() {
        let veth = interface(Kind::Veth, "noqueue");
        for (tso, gro, ingress, egress) in [
            (true, false, Class::Exact, Class::Exact),
            (false, false, Class::Exact, Class::Between),
            (true, true, Class::Between, Class::Exact),
        ] {
            let offloads = Some(Offloads { tso, gro });
            assert_eq!(class(&veth, offloads, Direction::Ingress), ingress);
            assert_eq!(class(&veth, offloads, Direction::Egress), egress);
        }
        let loopback = Interface { mtu: 65_536, ..interface(Kind::Loopback, "noqueue") };
        assert_eq!(class(&loopback, None, Direction::Egress), Class::Between);
        assert_eq!(class(&loopback, None, Direction::Ingress), Class::ExactMinusEthernet);
    }

    fn counters(packets: u64, bytes: u64, dropped: u64) -> LinkStats {
        let direction = DirectionStats { packets, bytes, dropped, errors: 0 };
        LinkStats { rx: direction, tx: direction }
    }

    /// Ten packets of 1,000 bytes that stand for twelve frames of 1,012 bytes in all.
    const LEDGER: (u64, u64, Count) = (10, 1000, Count { packets: 12, bytes: 1012 });

    fn check(class: Class, counted: Counted, expected: (i64, i64)) {
        let (skbs, skb_bytes, seen) = LEDGER;
        let ledger = Ledger { seen, skbs, skb_bytes, ..Ledger::default() };
        for direction in Direction::ALL {
            let agreement = compare(class, direction, &ledger, &counted);
            assert_eq!((agreement.skbs_difference, agreement.bytes_difference), expected, "{class}");
            assert_eq!(agreement.is_alarm(), class.may_alarm() && expected != (0, 0));
        }
    }

    #[test]
    fn each_class_compares_what_it_can() {
        let start = counters(5, 500, 0);
        let counted = |packets: u64, bytes: u64| {
            Counted::exactly(start, counters(start.rx.packets + packets, start.rx.bytes + bytes, 0))
        };
        check(Class::Exact, counted(10, 1000), (0, 0));
        check(Class::Exact, counted(11, 1060), (1, 60));
        check(Class::Exact, counted(9, 940), (-1, -60));
        check(Class::Exact, counted(12, 1012), (2, 12));
        check(Class::Between, counted(10, 860), (0, 0));
        check(Class::Between, counted(12, 1012), (0, 0));
        check(Class::Between, counted(13, 1013), (1, 1));
        check(Class::Between, counted(9, 831), (-1, -1));
        check(Class::ExactMinusEthernet, counted(10, 860), (0, 0));
        check(Class::ExactMinusEthernet, counted(10, 1000), (0, 140));
        check(Class::Skbs, counted(10, 7), (0, 0));
        check(Class::Wire, counted(12, 1012), (0, 0));
        check(Class::Wire, counted(10, 1000), (-2, -12));
        check(Class::None(NoWitness::Xdp), counted(0, 0), (0, 0));
    }

    #[test]
    fn a_far_end_that_polls_counts_without_the_ethernet_header() {
        let ledger = Ledger { skbs: 10, skb_bytes: 1000, ..Ledger::default() };
        let counted = Counted::exactly(LinkStats::default(), counters(10, 860, 0));
        assert!(!compare(Class::Exact, Direction::Egress, &ledger, &counted).is_alarm());
        assert!(compare(Class::Exact, Direction::Ingress, &ledger, &counted).is_alarm());
        let one_less = Counted::exactly(LinkStats::default(), counters(10, 846, 0));
        assert_eq!(compare(Class::Exact, Direction::Egress, &ledger, &one_less).bytes_difference, -14);
    }

    #[test]
    fn under_load_only_what_lies_beyond_the_readings_is_a_difference() {
        let between = |end_before: u64, end_after: u64| {
            Counted::between(
                (counters(0, 0, 0), counters(2, 200, 0)),
                (counters(end_before, end_before * 100, 0), counters(end_after, end_after * 100, 0)),
            )
        };
        check(Class::Exact, between(10, 12), (0, 0));
        check(Class::Exact, between(12, 14), (0, 0));
        check(Class::Exact, between(13, 14), (1, 100));
        let (skbs, skb_bytes, seen) = LEDGER;
        let ledger = Ledger { seen, skbs, skb_bytes, ..Ledger::default() };
        let agreement = compare(Class::Exact, Direction::Ingress, &ledger, &between(8, 9));
        assert_eq!((agreement.skbs_difference, agreement.bytes_difference), (-1, -100));
        // Nine packets with their headers weigh more than ten without: then the number of packets tells.
        let agreement = compare(Class::Exact, Direction::Egress, &ledger, &between(8, 9));
        assert!(agreement.is_alarm());
    }

    #[test]
    fn what_was_dropped_while_sending_cannot_be_compared() {
        let counted = Counted::exactly(LinkStats::default(), counters(9, 900, 1));
        let ledger = Ledger { skbs: 10, skb_bytes: 1000, ..Ledger::default() };
        let agreement = compare(Class::Exact, Direction::Egress, &ledger, &counted);
        assert_eq!(agreement.class, Class::None(NoWitness::Drops));
        assert!(!agreement.is_alarm());
        assert!(compare(Class::Exact, Direction::Ingress, &ledger, &counted).is_alarm());
    }
}
