//! Who opened a flow, and how sure that is.
//!
//! Only the handshake, a question, or a direction that cannot be answered prove it. Everything else is a guess of known
//! quality ([`Initiator`]); a guess is kept once it was told, unless proof turns up, so that the ends of a flow do not
//! change places back and forth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use weir_packet::Tuple;

use crate::{
    Initiator,
    aggregate::key::{Way, is_one_way},
};

/// A socket that waits for others to talk to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The address that it is bound to; `None` or an unspecified address stand for any.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Number of its protocol (IANA).
    pub protocol: u8,
}

/// The listeners that are known.
#[derive(Default)]
pub(crate) struct Listeners(HashSet<Listener, RandomState>);

impl FromIterator<Listener> for Listeners {
    fn from_iter<I: IntoIterator<Item = Listener>>(listeners: I) -> Self {
        let normal = |listener: Listener| Listener {
            address: listener.address.filter(|address| !address.is_unspecified()),
            ..listener
        };
        Self(listeners.into_iter().map(normal).collect())
    }
}

impl Listeners {
    /// Whether a socket listens at the destination of `tuple`.
    fn has_destination_of(&self, tuple: &Tuple) -> bool {
        let (port, protocol) = (tuple.destination_port(), tuple.protocol());
        let listens = |address| self.0.contains(&Listener { address, port, protocol });
        !self.0.is_empty() && tuple.has_ports() && (listens(None) || listens(Some(tuple.destination())))
    }
}

/// What is known of a flow that bears on who opened it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// The tuple of the canonical way.
    pub(crate) tuple: Tuple,
    /// By way: packets with SYN and without ACK.
    pub(crate) openings: [u32; 2],
    /// By way: whether any packet had SYN.
    pub(crate) had_syn: [bool; 2],
    /// The way of the first packet.
    pub(crate) opener: Way,
    /// Whether the first packet of the flow was seen as such: it came while everything was watched, and ahead of the
    /// first packet of the other way by more than the clock's resolution.
    pub(crate) opener_is_certain: bool,
    /// Whether all packets so far went the way of the first one.
    pub(crate) went_one_way: bool,
}

/// The lowest port that Linux gives to a socket that asks for none (`net.ipv4.ip_local_port_range`).
const LOWEST_EPHEMERAL: u16 = 32_768;

impl Evidence {
    /// The way from the side that opened the flow, and how that is known.
    pub(crate) fn weigh(&self, listeners: &Listeners) -> (Way, Initiator) {
        if let Some(way) = self.proof() {
            return (way, Initiator::Proven);
        }
        let forward_listens = listeners.has_destination_of(&self.tuple);
        let reverse_listens = listeners.has_destination_of(&self.tuple.reversed());
        match (forward_listens, reverse_listens) {
            (true, false) => return (Way::Canonical, Initiator::Listener),
            (false, true) => return (Way::Reverse, Initiator::Listener),
            _ => {}
        }
        if self.opener_is_certain {
            return (self.opener, Initiator::FirstPacket);
        }
        let (source, destination) = (self.tuple.source_port(), self.tuple.destination_port());
        // Of two ports that nobody chose the lower one says nothing, and who looks at the other end sees the same way.
        if self.went_one_way && source.min(destination) >= LOWEST_EPHEMERAL {
            return (self.opener, Initiator::LowerPort);
        }
        let way = match source.cmp(&destination) {
            std::cmp::Ordering::Greater => Way::Canonical,
            std::cmp::Ordering::Less => Way::Reverse,
            std::cmp::Ordering::Equal => self.opener,
        };
        (way, Initiator::LowerPort)
    }

    /// The way from the side that certainly opened the flow.
    pub(crate) fn proof(&self) -> Option<Way> {
        match self.openings.map(|openings| openings > 0) {
            [true, false] => return Some(Way::Canonical),
            [false, true] => return Some(Way::Reverse),
            // A simultaneous open, or two connections one after the other.
            [true, true] => return None,
            [false, false] => {}
        }
        // SYN, but never without ACK: this side answered.
        match self.had_syn {
            [true, false] => return Some(Way::Reverse),
            [false, true] => return Some(Way::Canonical),
            _ => {}
        }
        if is_one_way(&self.tuple) || is_group(self.tuple.destination()) {
            return Some(Way::Canonical);
        }
        if is_group(self.tuple.source()) {
            return Some(Way::Reverse);
        }
        if self.tuple.is_icmp_query() {
            return Some(if asks(&self.tuple) { Way::Canonical } else { Way::Reverse });
        }
        None
    }
}

/// Whether packets are only ever sent to this address.
pub(crate) fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address == Ipv4Addr::BROADCAST,
        IpAddr::V6(address) => Ipv6Addr::is_multicast(&address),
    }
}

/// Whether an ICMP query asks rather than answers, by the types that `weir_packet::answering_type` pairs.
const fn asks(tuple: &Tuple) -> bool {
    match tuple.source_port() {
        8 | 10 | 13 | 15 | 17 => !tuple.is_ipv6(),
        128 | 130 | 133 | 135 | 139 | 144 => tuple.is_ipv6(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use weir_packet::{Details, answering_type, protocol};

    use super::*;

    #[test]
    fn of_every_pair_of_icmp_types_one_asks() {
        for (is_ipv6, number) in [(false, protocol::ICMP), (true, protocol::ICMPV6)] {
            let mut pairs = 0;
            for kind in 0..=u8::MAX {
                let Some(answer) = answering_type(is_ipv6, kind) else { continue };
                let details = Details::new(is_ipv6, number).with_icmp_query();
                let query = Tuple::new([1; 2], [2; 2], details.with_ports(kind.into(), answer.into()));
                assert_ne!(asks(&query), asks(&query.reversed()), "{kind} {answer}");
                pairs += 1;
            }
            assert!(pairs > 0);
        }
    }

    #[test]
    fn a_simultaneous_open_proves_nothing() {
        let details = Details::new(false, protocol::TCP).with_ports(10, 20);
        let evidence = Evidence {
            tuple: Tuple::new([1; 2], [2; 2], details),
            openings: [1, 1],
            had_syn: [true, true],
            opener: Way::Canonical,
            opener_is_certain: false,
            went_one_way: false,
        };
        assert_eq!(evidence.weigh(&Listeners::default()), (Way::Reverse, Initiator::LowerPort));
    }

    #[test]
    fn what_only_ever_went_one_way_between_ports_that_nobody_chose_was_opened_that_way() {
        let weigh = |ports: (u16, u16), went_one_way| {
            let details = Details::new(false, protocol::UDP).with_ports(ports.0, ports.1);
            let evidence = Evidence {
                tuple: Tuple::new([1; 2], [2; 2], details),
                openings: [0; 2],
                had_syn: [false; 2],
                opener: Way::Canonical,
                opener_is_certain: false,
                went_one_way,
            };
            evidence.weigh(&Listeners::default())
        };
        assert_eq!(weigh((40_000, 53_053), true), (Way::Canonical, Initiator::LowerPort));
        assert_eq!(weigh((53_053, 40_000), true), (Way::Canonical, Initiator::LowerPort));
        // With an answer it may have begun either way, and with a chosen port that port is the server's.
        assert_eq!(weigh((40_000, 53_053), false), (Way::Reverse, Initiator::LowerPort));
        assert_eq!(weigh((53, 40_000), true), (Way::Reverse, Initiator::LowerPort));
    }

    #[test]
    fn listeners_at_both_ends_prove_nothing() {
        let details = Details::new(false, protocol::UDP).with_ports(10, 20);
        let listener =
            |port| Listener { address: Some("::".parse().unwrap()), port, protocol: protocol::UDP };
        let listeners: Listeners = [listener(10), listener(20)].into_iter().collect();
        let evidence = Evidence {
            tuple: Tuple::new([0, 0xffff_0a00_0001], [0, 0xffff_0a00_0002], details),
            openings: [0; 2],
            had_syn: [false; 2],
            opener: Way::Canonical,
            opener_is_certain: true,
            went_one_way: false,
        };
        assert_eq!(evidence.weigh(&listeners), (Way::Canonical, Initiator::FirstPacket));
        let listeners: Listeners = [listener(10)].into_iter().collect();
        assert_eq!(evidence.weigh(&listeners), (Way::Reverse, Initiator::Listener));
    }
}
