//! What holds for any bytes and for any packet.

use std::{net::IpAddr, vec, vec::Vec};

use proptest::{array, collection, option, prelude::*, sample};

use super::frame;
use crate::{
    Buffer, Headers, Link, Parsed, Tuple, WINDOW, Window, answering_type, ethertype, parse, parse_bytes,
    plain, protocol,
};

fn link() -> impl Strategy<Value = Link> {
    sample::select(&[Link::Ethernet, Link::Ip][..])
}

fn known_ethertype() -> impl Strategy<Value = Option<u16>> {
    option::of(prop_oneof![Just(ethertype::IPV4), Just(ethertype::IPV6), any::<u16>()])
}

/// Bytes that get far into the parser more often than chance alone would.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let headers = array::uniform4(sample::select(&[0u8, 6, 17, 43, 44, 51, 58, 60, 132, 135][..]));
    let noise = collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        noise.clone(),
        (any::<bool>(), any::<[bool; 3]>(), 0u8..64, headers, noise).prop_map(
            |(is_ipv6, [has_options, is_fragment, is_short], length, headers, mut bytes)| {
                if bytes.len() >= 70 {
                    let kind = if is_ipv6 { ethertype::IPV6 } else { ethertype::IPV4 };
                    bytes[12..14].copy_from_slice(&kind.to_be_bytes());
                    let (first, protocol, length_at) = if is_ipv6 { (0x60, 20, 18) } else { (0x45, 23, 16) };
                    bytes[14] = if has_options { first & 0xf0 | bytes[14] & 0x0f } else { first };
                    bytes[protocol] = headers[0];
                    bytes[54..56].copy_from_slice(&[headers[1], length & 1]);
                    bytes[62] = headers[2];
                    if is_short {
                        bytes[length_at..length_at + 2].copy_from_slice(&[0, length]);
                    }
                    if !is_ipv6 && !is_fragment {
                        bytes[20..22].copy_from_slice(&[0x40, 0]);
                    }
                }
                bytes
            }
        ),
    ]
}

/// A packet to be built, and what is to be read from it.
#[derive(Debug, Clone)]
struct Packet {
    is_ipv6: bool,
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    ports: [u16; 2],
    tcp_flags: u16,
    tcp_words: u8,
    option_words: usize,
    extensions: Vec<(u8, u8)>,
    tags: Vec<(u16, u16)>,
    stripped_vlan: Option<u16>,
    dscp: u8,
    ttl: u8,
}

fn packet() -> impl Strategy<Value = Packet> {
    let tag = (sample::select(&[0x8100u16, 0x88a8, 0x9100][..]), any::<u16>());
    // At most 14 + 4 * 4 + 40 + 2 * 16 = 102 bytes before the transport header, so that 14 more fit the window.
    let extension = (sample::select(&[0u8, 43, 44, 51, 60, 135, 139, 140][..]), 0u8..=1);
    (
        (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>()),
        sample::select(&[1u8, 2, 6, 17, 47, 58, 132, 255][..]),
        (any::<[u16; 2]>(), 0u16..0x200, 5u8..=15, 0usize..=10),
        collection::vec(extension, 0..=2),
        collection::vec(tag, 0..=4),
        option::of(any::<u16>()),
        (0u8..64, any::<u8>()),
    )
        .prop_map(|(addresses, protocol, transport, extensions, tags, stripped_vlan, (dscp, ttl))| {
            Packet {
                is_ipv6: addresses.0,
                source: addresses.1,
                destination: addresses.2,
                protocol,
                ports: transport.0,
                tcp_flags: transport.1,
                tcp_words: transport.2,
                option_words: transport.3,
                extensions,
                tags,
                stripped_vlan,
                dscp,
                ttl,
            }
        })
}

impl Packet {
    fn transport(&self) -> (Vec<u8>, usize) {
        let [source, destination] = self.ports;
        let [a, b] = source.to_be_bytes();
        match self.protocol {
            protocol::TCP => (
                frame::tcp(source, destination, self.tcp_flags, self.tcp_words),
                usize::from(self.tcp_words) * 4,
            ),
            protocol::UDP => (frame::udp(source, destination), 8),
            protocol::SCTP => (frame::tcp(source, destination, 0, 5), 12),
            number if number == self.icmp() => (vec![a, b, 0, 0, 0, 0, 0, 0], 8),
            _ => (vec![0xff; 40], 0),
        }
    }

    fn icmp(&self) -> u8 {
        if self.is_ipv6 { protocol::ICMPV6 } else { protocol::ICMP }
    }

    fn network(&self, transport: &[u8]) -> Vec<u8> {
        if !self.is_ipv6 {
            let mut packet =
                frame::ipv4_with(self.protocol, &vec![1; self.option_words * 4], frame::DONT, transport);
            packet[1] = self.dscp << 2;
            packet[8] = self.ttl;
            packet[12..16].copy_from_slice(&self.source[..4]);
            packet[16..20].copy_from_slice(&self.destination[..4]);
            return packet;
        }
        let mut packet = transport.to_vec();
        let mut next_header = self.protocol;
        for &(kind, length) in &self.extensions {
            packet = match kind {
                44 => frame::fragment(next_header, 0, false, &packet),
                _ => frame::extension(kind == 51, next_header, length, &packet),
            };
            next_header = kind;
        }
        let mut packet = frame::ipv6(next_header, &packet);
        packet[0] = 0x60 | self.dscp >> 2;
        packet[1] = self.dscp << 6;
        packet[7] = self.ttl;
        packet[8..24].copy_from_slice(&self.source);
        packet[24..40].copy_from_slice(&self.destination);
        packet
    }

    fn ethertype(&self) -> u16 {
        if self.is_ipv6 { ethertype::IPV6 } else { ethertype::IPV4 }
    }

    fn address(&self, bytes: [u8; 16]) -> IpAddr {
        let [a, b, c, d, ..] = bytes;
        if self.is_ipv6 { bytes.into() } else { [a, b, c, d].into() }
    }

    fn expected_ports(&self) -> [u16; 2] {
        let [kind, code] = self.ports[0].to_be_bytes();
        match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => self.ports,
            number if number == self.icmp() => match answering_type(self.is_ipv6, kind) {
                Some(answer) if code == 0 => [kind.into(), answer.into()],
                _ => [kind.into(), code.into()],
            },
            _ => [0, 0],
        }
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("test frames are short")
}

/// What the fast path makes of a packet, put together as the kernel program does.
fn plain_headers(packet: &[u8], offset: u32) -> Option<Headers> {
    let (plain, network) = match packet.first()? >> 4 {
        4 => (plain::ipv4(packet.first_chunk()?)?, plain::IPV4_BYTES),
        _ => (plain::ipv6(packet.first_chunk()?)?, plain::IPV6_BYTES),
    };
    let (tcp_flags, transport) = if plain.protocol == protocol::TCP {
        plain::tcp_flags(packet[network..].first_chunk()?)
    } else {
        (0, plain::UDP_BYTES as u64)
    };
    let end = u32::try_from(network as u64 + transport).expect("headers are short") + offset;
    Some(Headers {
        tuple: plain.tuple(),
        header_length: end.min(offset + length_of(packet)),
        tcp_flags,
        dscp: plain.dscp,
        ttl: plain.ttl,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_at_any_length_are_parsed_without_panic(
        bytes in bytes(),
        frame_length in prop_oneof![any::<u32>(), 0u32..300],
        link in link(),
        known in known_ethertype(),
        vlan in any::<Option<u16>>(),
    ) {
        if let Parsed::Ip(headers) = parse_bytes(&bytes, frame_length, link, known, vlan) {
            prop_assert!(headers.header_length <= frame_length);
            prop_assert!(headers.tcp_flags < 0x200 && headers.dscp < 64);
            prop_assert_eq!(headers.tuple.reversed().reversed(), headers.tuple);
            prop_assert_eq!(Tuple::from_words(headers.tuple.words()), headers.tuple);
            prop_assert!(!(headers.tuple.is_fragment() && headers.tuple.is_truncated()));
            if headers.tuple.is_fragment() || headers.tuple.is_truncated() {
                prop_assert_eq!((headers.tuple.source_port(), headers.tuple.destination_port()), (0, 0));
            }
        }
    }

    #[test]
    fn bytes_beyond_the_length_do_not_matter(
        bytes in bytes(),
        length in 0usize..=200,
        other in any::<u8>(),
        link in link(),
    ) {
        let length = length.min(bytes.len());
        let frame_length = length_of(&bytes);
        let expect = parse_bytes(&bytes[..length], frame_length, link, None, None);
        let mut buffer = Buffer::new();
        buffer.bytes.fill(other);
        let kept = length.min(WINDOW);
        buffer.bytes[..kept].copy_from_slice(&bytes[..kept]);
        prop_assert_eq!(parse(&mut Window::new(&mut buffer, length), frame_length, link, None, None), expect);
        // A frame that ends there, in a window that holds more.
        let short = parse_bytes(&bytes, length_of(&bytes[..length]), link, None, None);
        prop_assert_eq!(short, parse_bytes(&bytes[..length], length_of(&bytes[..length]), link, None, None));
    }

    #[test]
    fn both_paths_agree_on_any_bytes(bytes in bytes()) {
        let packet = bytes.get(14..).unwrap_or_default();
        if let Some(expect) = plain_headers(packet, 0) {
            prop_assert_eq!(parse_bytes(packet, length_of(packet), Link::Ip, None, None), Parsed::Ip(expect));
        }
    }

    #[test]
    fn what_was_built_is_read(packet in packet()) {
        let (transport, transport_bytes) = packet.transport();
        let network = packet.network(&transport);
        let frame = frame::ethernet(&packet.tags, packet.ethertype(), &network);
        let parsed = parse_bytes(&frame, length_of(&frame), Link::Ethernet, None, packet.stripped_vlan);
        let Parsed::Ip(headers) = parsed else { panic!("{parsed:?}") };
        let tuple = headers.tuple;
        prop_assert_eq!(tuple.source(), packet.address(packet.source));
        prop_assert_eq!(tuple.destination(), packet.address(packet.destination));
        prop_assert_eq!(tuple.protocol(), packet.protocol);
        prop_assert_eq!([tuple.source_port(), tuple.destination_port()], packet.expected_ports());
        let outermost = packet.stripped_vlan.or(packet.tags.first().map(|(_, tag)| *tag));
        prop_assert_eq!(tuple.vlan(), outermost.map(|tag| tag & 0xfff));
        prop_assert!(!tuple.is_fragment() && !tuple.is_truncated());
        prop_assert_eq!((headers.dscp, headers.ttl), (packet.dscp, packet.ttl));
        prop_assert_eq!(headers.tcp_flags, if packet.protocol == protocol::TCP { packet.tcp_flags } else { 0 });
        prop_assert_eq!(headers.header_length as usize, frame.len() - transport.len() + transport_bytes);

        // The same packet without its Ethernet header.
        let raw = parse_bytes(&network, length_of(&network), Link::Ip, Some(packet.ethertype()), outermost);
        let offset = length_of(&frame) - length_of(&network);
        prop_assert_eq!(raw, Parsed::Ip(Headers { header_length: headers.header_length - offset, ..headers }));

        // The fast path reads it exactly if it is plain.
        let is_plain = matches!(packet.protocol, protocol::TCP | protocol::UDP)
            && if packet.is_ipv6 { packet.extensions.is_empty() } else { packet.option_words == 0 };
        let without_tag = parse_bytes(&network, length_of(&network), Link::Ip, None, None);
        let expect = plain_headers(&network, 0).map(Parsed::Ip);
        prop_assert_eq!(expect, is_plain.then_some(without_tag));
    }
}
