//! What precedes the IP header in a captured frame, by link-layer header type
//! (<https://www.tcpdump.org/linktypes.html>).

use weir_flow::Direction;
use weir_packet::{Link, Parsed, ethertype, parse_bytes};

use super::Frame;

/// Link-layer header types whose frames can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// Nothing; the version field says which IP it is.
    Raw,
    /// Nothing; the type says which IP it is.
    Ip(u16),
    /// Four bytes: a protocol family of the system that captured, in its byte order.
    Null,
    /// The same in network byte order.
    Loop,
    /// 16 bytes that Linux makes up for captures of several interfaces.
    Cooked,
    /// 20 bytes of the same kind.
    Cooked2,
}

impl LinkType {
    /// The type with this number in the registry.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            12 | 14 | 101 => Self::Raw,
            108 => Self::Loop,
            113 => Self::Cooked,
            228 => Self::Ip(ethertype::IPV4),
            229 => Self::Ip(ethertype::IPV6),
            276 => Self::Cooked2,
            _ => return None,
        })
    }

    /// Name of a well-known type that cannot be read, for messages.
    pub(crate) const fn name_of_number(number: u32) -> &'static str {
        match number {
            9 | 50 | 51 | 166 => "PPP",
            105 => "802.11",
            119 | 127 | 163 | 192 => "802.11 with radio headers",
            187 | 201 => "Bluetooth",
            189 | 220 | 249 | 266 => "USB",
            227 => "CAN",
            239 => "netfilter log",
            253 => "netlink",
            _ => "unknown to weir",
        }
    }

    /// Parses a frame, and tells its direction where the header knows it.
    pub(crate) fn parse(self, frame: &Frame<'_>) -> (Parsed, Option<Direction>) {
        let (data, length) = (frame.data, frame.original_length);
        match self {
            Self::Ethernet => (parse_bytes(data, length, Link::Ethernet, None, None), frame.direction),
            Self::Raw => (parse_bytes(data, length, Link::Ip, None, None), frame.direction),
            Self::Ip(kind) => (parse_bytes(data, length, Link::Ip, Some(kind), None), frame.direction),
            Self::Null => (family(frame, |raw| swap_if_foreign(u32::from_le_bytes(raw))), frame.direction),
            Self::Loop => (family(frame, u32::from_be_bytes), frame.direction),
            Self::Cooked => {
                let kind = data.get(14..).and_then(<[u8]>::first_chunk);
                let packet_type = data.get(1).copied();
                (behind(frame, 16, kind), packet_type.and_then(direction).or(frame.direction))
            }
            Self::Cooked2 => {
                let packet_type = data.get(10).copied();
                (behind(frame, 20, data.first_chunk()), packet_type.and_then(direction).or(frame.direction))
            }
        }
    }
}

/// Packet types of Linux: 4 is sent by us, 0 to 3 are received.
const fn direction(packet_type: u8) -> Option<Direction> {
    match packet_type {
        0..=3 => Some(Direction::Ingress),
        4 => Some(Direction::Egress),
        _ => None,
    }
}

/// Parses behind four bytes of protocol family. That of IPv6 differs from system to system.
fn family(frame: &Frame<'_>, read: impl Fn([u8; 4]) -> u32) -> Parsed {
    let Some(raw) = frame.data.first_chunk() else { return Parsed::Malformed };
    let kind = match read(*raw) {
        2 => ethertype::IPV4,
        10 | 24 | 28 | 30 => ethertype::IPV6,
        _ => 0,
    };
    behind(frame, 4, Some(&kind.to_be_bytes()))
}

/// Families are small numbers: a large one was written in the other byte order.
const fn swap_if_foreign(family: u32) -> u32 {
    if family > 0xffff { family.swap_bytes() } else { family }
}

/// Parses behind a header of `header_bytes` that ends in, or tells otherwise, an ethertype. The packet is parsed as
/// behind an Ethernet header with that type, because VLAN tags may follow.
fn behind(frame: &Frame<'_>, header_bytes: u32, kind: Option<&[u8; 2]>) -> Parsed {
    const ETHERNET_BYTES: usize = 14;
    let payload = frame.data.get(header_bytes as usize..);
    let (Some(payload), Some(kind)) = (payload, kind) else { return Parsed::Malformed };
    let mut ethernet = [0; weir_packet::WINDOW];
    ethernet[ETHERNET_BYTES - 2..ETHERNET_BYTES].copy_from_slice(kind);
    let taken = payload.len().min(ethernet.len() - ETHERNET_BYTES);
    ethernet[ETHERNET_BYTES..ETHERNET_BYTES + taken].copy_from_slice(&payload[..taken]);
    let length = frame.original_length.saturating_sub(header_bytes).saturating_add(14);
    parse_bytes(&ethernet[..ETHERNET_BYTES + taken], length, Link::Ethernet, None, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4_UDP: [u8; 28] =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0, 53, 0, 8, 0, 0];

    #[test]
    fn every_link_type_leads_to_the_same_packet() {
        fn check(number: u32, header: &[u8], direction: Option<Direction>) {
            let data = [header, &IPV4_UDP].concat();
            let original_length = u32::try_from(data.len()).unwrap();
            let frame = Frame { interface: 0, time_ns: 0, original_length, direction: None, data: &data };
            let (parsed, seen) = LinkType::from_number(number).unwrap().parse(&frame);
            let Parsed::Ip(headers) = parsed else { panic!("{number}: {parsed:?}") };
            let tuple = headers.tuple;
            assert_eq!(tuple.source().to_string(), "10.0.0.1", "{number}");
            assert_eq!((tuple.source_port(), tuple.destination_port()), (12345, 53), "{number}");
            assert_eq!(seen, direction, "{number}");
        }
        let mut ethernet = [0; 14];
        ethernet[12] = 8;
        check(1, &ethernet, None);
        check(12, &[], None);
        check(101, &[], None);
        check(228, &[], None);
        check(0, &[2, 0, 0, 0], None);
        check(0, &[0, 0, 0, 2], None);
        check(108, &[0, 0, 0, 2], None);
        check(113, &[0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0], Some(Direction::Egress));
        check(
            113,
            &[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x81, 0, 0, 7, 8, 0],
            Some(Direction::Ingress),
        );
        let mut cooked = [0; 20];
        cooked[0] = 8;
        cooked[10] = 4;
        check(276, &cooked, Some(Direction::Egress));
    }

    #[test]
    fn frames_shorter_than_their_header_are_malformed() {
        for number in [0, 1, 12, 108, 113, 228, 229, 276] {
            let frame =
                Frame { interface: 0, time_ns: 0, original_length: 2, direction: None, data: &[0, 4] };
            let (parsed, _) = LinkType::from_number(number).unwrap().parse(&frame);
            assert!(!matches!(parsed, Parsed::Ip(_)), "{number}: {parsed:?}");
        }
    }
}
