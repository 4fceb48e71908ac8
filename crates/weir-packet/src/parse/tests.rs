//! What single frames are, as tables. The properties are in `properties`.

mod frame;
mod properties;

use std::{format, string::String, vec, vec::Vec};

use super::{Link, Parsed, ethertype, parse_bytes};
use crate::{Tuple, protocol, tuple::Details};
use frame::{MORE, ethernet, extension, fragment, ipv4, ipv4_with, ipv6, tcp, udp};

/// One line that says all of a tuple except the addresses, which are the same everywhere here.
fn line(tuple: &Tuple) -> String {
    let vlan = tuple.vlan().map_or(String::new(), |vlan| format!(" vlan {vlan}"));
    let mark = |is_set, mark| if is_set { mark } else { "" };
    format!(
        "{} {}>{}{vlan}{}{}{}",
        tuple.protocol(),
        tuple.source_port(),
        tuple.destination_port(),
        mark(tuple.is_fragment(), " fragment"),
        mark(tuple.is_truncated(), " truncated"),
        mark(tuple.is_icmp_query(), " query"),
    )
}

fn summary(parsed: Parsed) -> String {
    match parsed {
        Parsed::Malformed => "malformed".into(),
        Parsed::NonIp { ethertype } => format!("non-ip {ethertype:#06x}"),
        Parsed::Ip(headers) => {
            let tuple = headers.tuple;
            let expected: [std::net::IpAddr; 2] = if tuple.is_ipv6() {
                [frame::SOURCE_V6.into(), frame::DESTINATION_V6.into()]
            } else {
                [frame::SOURCE.into(), frame::DESTINATION.into()]
            };
            assert_eq!([tuple.source(), tuple.destination()], expected);
            assert_eq!((headers.dscp, headers.ttl), (46, 64));
            let flags = match headers.tcp_flags {
                0 => String::new(),
                flags => format!(" flags {flags:#05x}"),
            };
            format!("{} header {}{flags}", line(&tuple), headers.header_length)
        }
    }
}

fn length_of(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).expect("test frames are short")
}

#[track_caller]
fn check(frame: &[u8], expect: &str) {
    assert_eq!(summary(parse_bytes(frame, length_of(frame), Link::Ethernet, None, None)), expect);
}

#[track_caller]
fn check_v4(packet: &[u8], expect: &str) {
    check(&ethernet(&[], ethertype::IPV4, packet), expect);
}

#[track_caller]
fn check_v6(packet: &[u8], expect: &str) {
    check(&ethernet(&[], ethertype::IPV6, packet), expect);
}

#[test]
fn transport_headers_give_ports_flags_and_length() {
    check_v4(&ipv4(protocol::TCP, &tcp(1234, 80, 0x002, 10)), "6 1234>80 header 74 flags 0x002");
    check_v4(&ipv4(protocol::TCP, &tcp(1234, 80, 0x1ff, 5)), "6 1234>80 header 54 flags 0x1ff");
    check_v4(&ipv4(protocol::UDP, &udp(68, 67)), "17 68>67 header 42");
    check_v4(
        &ipv4(protocol::SCTP, &[0x0b, 0x59, 0x0b, 0x5a, 0, 0, 0, 0, 0, 0, 0, 0]),
        "132 2905>2906 header 46",
    );
    check_v6(&ipv6(protocol::TCP, &tcp(1234, 80, 0x012, 5)), "6 1234>80 header 74 flags 0x012");
    check_v6(&ipv6(protocol::UDP, &udp(546, 547)), "17 546>547 header 62");
}

#[test]
fn a_data_offset_below_five_words_counts_as_five() {
    check_v4(&ipv4(protocol::TCP, &tcp(1, 2, 0x010, 4)), "6 1>2 header 54 flags 0x010");
}

#[test]
fn protocols_without_known_ports_are_keyed_by_number() {
    // IGMP, GRE, ESP, OSPF, UDP-Lite, DCCP, and one that nobody has been given.
    for number in [2, 47, 50, 89, 136, 33, 253] {
        check_v4(&ipv4(number, &[0xff; 16]), &format!("{number} 0>0 header 34"));
        check_v6(&ipv6(number, &[0xff; 16]), &format!("{number} 0>0 header 54"));
    }
}

#[test]
fn the_other_family_s_icmp_is_a_protocol_like_any() {
    check_v4(&ipv4(protocol::ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]), "58 0>0 header 34");
    check_v6(&ipv6(protocol::ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]), "1 0>0 header 54");
}

#[test]
fn icmp_queries_have_both_types_for_ports() {
    // Community ID specification, "ICMP": request and reply are each other's reverse.
    for (kind, answer) in [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)] {
        for (kind, answer) in [(kind, answer), (answer, kind)] {
            let expect = format!("1 {kind}>{answer} query header 42");
            check_v4(&ipv4(protocol::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]), &expect);
        }
    }
    for (kind, answer) in [(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)] {
        for (kind, answer) in [(kind, answer), (answer, kind)] {
            let expect = format!("58 {kind}>{answer} query header 62");
            check_v6(&ipv6(protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]), &expect);
        }
    }
}

#[test]
fn other_icmp_messages_have_type_and_code_for_ports() {
    check_v4(&ipv4(protocol::ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]), "1 3>1 header 42");
    check_v4(&ipv4(protocol::ICMP, &[11, 0, 0, 0, 0, 0, 0, 0]), "1 11>0 header 42");
    check_v6(&ipv6(protocol::ICMPV6, &[2, 0, 0, 0, 0, 0, 5, 0]), "58 2>0 header 62");
    // A query with a code keeps it (RFC 4620 4: node information about a name).
    check_v6(&ipv6(protocol::ICMPV6, &[139, 1, 0, 0, 0, 0, 0, 0]), "58 139>1 header 62");
}

#[test]
fn the_outermost_tag_is_the_vlan() {
    let packet = ipv4(protocol::UDP, &udp(1, 2));
    for (tags, expect) in [
        (vec![(0x8100, 0x2064)], "17 1>2 vlan 100 header 46"),
        (vec![(0x88a8, 200), (0x8100, 100)], "17 1>2 vlan 200 header 50"),
        (vec![(0x9100, 200), (0x8100, 100)], "17 1>2 vlan 200 header 50"),
        (vec![(0x8100, 4), (0x8100, 3), (0x8100, 2), (0x8100, 1)], "17 1>2 vlan 4 header 58"),
        // A priority tag has identifier 0 (IEEE 802.1Q 9.6).
        (vec![(0x8100, 0xe000)], "17 1>2 vlan 0 header 46"),
        // More than four tags are not followed.
        (vec![(0x8100, 1); 5], "non-ip 0x8100"),
    ] {
        check(&ethernet(&tags, ethertype::IPV4, &packet), expect);
    }
}

#[test]
fn a_stripped_tag_is_the_outermost_one() {
    let packet = ipv4(protocol::UDP, &udp(1, 2));
    for (tags, expect) in
        [(vec![], "17 1>2 vlan 300 header 42"), (vec![(0x8100, 100)], "17 1>2 vlan 300 header 46")]
    {
        let frame = ethernet(&tags, ethertype::IPV4, &packet);
        let parsed = parse_bytes(&frame, length_of(&frame), Link::Ethernet, None, Some(300));
        assert_eq!(summary(parsed), expect);
    }
}

#[test]
fn what_is_not_ip_is_named_and_not_read() {
    for kind in [0x0806, 0x88cc, 0x8863, 0x8864, 0x8847, 0x86de] {
        check(&ethernet(&[], kind, &[0x45; 46]), &format!("non-ip {kind:#06x}"));
    }
    check(&ethernet(&[(0x8100, 5)], 0x0806, &[0; 46]), "non-ip 0x0806");
    // 802.3: a length in place of the type, here of a spanning tree message.
    check(&ethernet(&[], 0x0026, &[0x42; 46]), "non-ip 0x0000");
    check(&ethernet(&[], 0x05ff, &[0x45; 46]), "non-ip 0x0000");
}

#[test]
fn frames_whose_addresses_cannot_be_read_are_malformed() {
    let packet = ipv4(protocol::UDP, &udp(1, 2));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("shorter than an Ethernet header", vec![2; 13]),
        ("tag cut short", ethernet(&[], 0x8100, &[0, 5, 8])),
        ("no IPv4 header", ethernet(&[], ethertype::IPV4, &[])),
        ("IPv4 header cut short", ethernet(&[], ethertype::IPV4, &packet[..19])),
        ("IPv6 header cut short", ethernet(&[], ethertype::IPV6, &ipv6(17, &udp(1, 2))[..39])),
        ("IPv6 in a frame of type IPv4", ethernet(&[], ethertype::IPV4, &ipv6(17, &udp(1, 2)))),
        ("IPv4 in a frame of type IPv6", ethernet(&[], ethertype::IPV6, &ipv4(17, &[0; 40]))),
    ];
    for (name, frame) in cases {
        assert_eq!(
            summary(parse_bytes(&frame, length_of(&frame), Link::Ethernet, None, None)),
            "malformed",
            "{name}"
        );
    }
}

#[test]
fn an_ipv4_header_that_contradicts_itself_is_malformed() {
    // RFC 791 3.1: the header has at least five words, and the total length includes it.
    let good = ipv4_with(protocol::UDP, &[1; 4], 0, &udp(1, 2));
    for total in [0, 60, 1500_u16] {
        let mut packet = good.clone();
        packet[0] = 0x4f;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        check_v4(&packet, "malformed");
    }
    check_v4(&good, "17 1>2 header 46");
    for (offset, value, name) in [
        (0, 0x44, "header of four words"),
        (0, 0x40, "header of no words"),
        (0, 0x55, "version 5"),
        (3, 23, "total length shorter than the header"),
        (3, 1, "total length of one byte"),
    ] {
        let mut packet = good.clone();
        packet[offset] = value;
        let frame = ethernet(&[], ethertype::IPV4, &packet);
        assert_eq!(
            summary(parse_bytes(&frame, length_of(&frame), Link::Ethernet, None, None)),
            "malformed",
            "{name}"
        );
    }
}

#[test]
fn options_are_passed_over() {
    // RFC 791 3.1: up to ten words, here of "no operation".
    for words in 0..=10 {
        let packet = ipv4_with(protocol::TCP, &vec![1; words * 4], 0, &tcp(5, 6, 0x018, 5));
        check_v4(&packet, &format!("6 5>6 header {} flags 0x018", 54 + words * 4));
    }
}

#[test]
fn only_the_first_fragment_has_ports() {
    let payload = udp(7, 8);
    check_v4(&ipv4_with(17, &[], MORE, &payload), "17 7>8 header 42");
    check_v4(&ipv4_with(17, &[], MORE | 1, &payload), "17 0>0 fragment header 34");
    check_v4(&ipv4_with(17, &[], 185, &payload), "17 0>0 fragment header 34");
    check_v6(&ipv6(44, &fragment(17, 0, true, &payload)), "17 7>8 header 70");
    check_v6(&ipv6(44, &fragment(17, 1, true, &payload)), "17 0>0 fragment header 62");
    check_v6(&ipv6(44, &fragment(17, 8191, false, &payload)), "17 0>0 fragment header 62");
    // Whole, although it has a fragment header (RFC 6946).
    check_v6(&ipv6(44, &fragment(17, 0, false, &payload)), "17 7>8 header 70");
    // What a later fragment would continue may itself be an extension header (RFC 8200 4.5).
    check_v6(&ipv6(44, &fragment(60, 185, false, &payload)), "60 0>0 fragment header 62");
}

#[test]
fn extension_headers_are_passed_over() {
    let datagram = udp(9, 10);
    for kind in [0, 43, 60, 135, 139, 140] {
        check_v6(&ipv6(kind, &extension(false, 17, 0, &datagram)), "17 9>10 header 70");
        check_v6(&ipv6(kind, &extension(false, 17, 3, &datagram)), "17 9>10 header 94");
    }
    check_v6(&ipv6(51, &extension(true, 17, 4, &datagram)), "17 9>10 header 86");
    // The order that RFC 8200 4.1 recommends.
    let packet = extension(false, 17, 0, &datagram);
    let packet = extension(true, 60, 1, &packet);
    let packet = fragment(51, 0, false, &packet);
    let packet = extension(false, 44, 0, &packet);
    let packet = extension(false, 43, 0, &packet);
    check_v6(&ipv6(0, &packet), "17 9>10 header 106");
    // Nothing follows "no next header" (RFC 8200 4.7), and nobody can read behind ESP.
    check_v6(&ipv6(0, &extension(false, 59, 0, &datagram)), "59 0>0 header 62");
    check_v6(&ipv6(60, &extension(false, 50, 0, &datagram)), "50 0>0 header 62");
    // Messages of mobility, HIP and shim6 come before nothing.
    for kind in [135, 139, 140] {
        check_v6(
            &ipv6(0, &extension(false, kind, 0, &extension(false, 59, 2, &[]))),
            &format!("{kind} 0>0 header 62"),
        );
    }
}

#[test]
fn more_than_eight_extension_headers_are_a_truncated_flow() {
    let chain = |count: usize| {
        let mut packet = udp(9, 10);
        let mut next_header = 17;
        for _ in 0..count {
            packet = extension(false, next_header, 0, &packet);
            next_header = 60;
        }
        ipv6(next_header, &packet)
    };
    check(&ethernet(&[], ethertype::IPV6, &chain(8)), "17 9>10 header 126");
    check(&ethernet(&[], ethertype::IPV6, &chain(9)), "60 0>0 truncated header 118");
}

#[test]
fn a_transport_header_out_of_reach_is_a_truncated_flow() {
    // Beyond the window of 128 bytes, but within the frame.
    check_v6(&ipv6(0, &extension(false, 6, 9, &tcp(1, 2, 2, 5))), "6 0>0 truncated header 154");
    // A chain that goes on beyond the window.
    check_v6(
        &ipv6(0, &extension(false, 60, 20, &extension(false, 6, 0, &[0; 40]))),
        "60 0>0 truncated header 222",
    );
    // Cut off by the frame's end.
    check_v4(&ipv4(17, &[0, 1, 0]), "17 0>0 truncated header 37");
    check_v4(&ipv4(1, &[]), "1 0>0 truncated header 34");
    check_v6(&ipv6(0, &[17, 0, 0]), "0 0>0 truncated header 54");
}

#[test]
fn ports_are_known_without_the_rest_of_their_header() {
    let short = &tcp(1, 2, 0x018, 5)[..13];
    check_v4(&ipv4(6, short), "6 1>2 header 47");
    check_v4(&ipv4(6, &tcp(1, 2, 0x018, 5)[..14]), "6 1>2 header 48 flags 0x018");
    check_v4(&ipv4(17, &udp(1, 2)[..4]), "17 1>2 header 38");
}

#[test]
fn a_capture_s_cut_does_not_make_a_flow_malformed() {
    let frame = ethernet(&[], ethertype::IPV4, &ipv4_with(6, &[1; 12], 0, &tcp(1, 2, 0x018, 5)));
    for (kept, expect) in [
        (14, "malformed"),
        (33, "malformed"),
        (34, "6 0>0 truncated header 66"),
        (46, "6 0>0 truncated header 66"),
        (50, "6 1>2 header 66"),
        (60, "6 1>2 header 66 flags 0x018"),
    ] {
        let parsed = parse_bytes(&frame[..kept], length_of(&frame), Link::Ethernet, None, None);
        assert_eq!(summary(parsed), expect, "{kept} bytes kept");
    }
}

#[test]
fn padding_is_not_read_as_ports() {
    // Ethernet pads to 60 bytes (IEEE 802.3 4.2.3.3); the packet has two bytes of payload.
    let mut frame = ethernet(&[], ethertype::IPV4, &ipv4(17, &[0xab, 0xcd]));
    frame.resize(60, 0xee);
    check(&frame, "17 0>0 truncated header 42");
    let mut frame = ethernet(&[], ethertype::IPV6, &ipv6(17, &[0xab, 0xcd]));
    frame.resize(60, 0xee);
    check(&frame, "17 0>0 truncated header 60");
}

#[test]
fn a_length_of_zero_means_to_the_frame_s_end() {
    // Super-packets beyond 64 KiB; in IPv6 also jumbograms (RFC 2675 3).
    let mut packet = ipv4(6, &tcp(1, 2, 0x010, 5));
    packet[2..4].fill(0);
    check_v4(&packet, "6 1>2 header 54 flags 0x010");
    let mut packet = ipv6(6, &tcp(1, 2, 0x010, 5));
    packet[4..6].fill(0);
    check_v6(&packet, "6 1>2 header 74 flags 0x010");
    let mut packet = ipv6(0, &extension(false, 6, 0, &tcp(1, 2, 0x010, 5)));
    packet[4..6].fill(0);
    packet[42..48].copy_from_slice(&[0xc2, 4, 0, 1, 0, 0]);
    check_v6(&packet, "6 1>2 header 82 flags 0x010");
}

#[test]
fn raw_packets_go_by_the_device_or_by_their_version() {
    let v4 = ipv4(17, &udp(1, 2));
    let v6 = ipv6(17, &udp(1, 2));
    for (packet, known, expect) in [
        (&v4[..], None, "17 1>2 header 28"),
        (&v6[..], None, "17 1>2 header 48"),
        (&v4[..], Some(ethertype::IPV4), "17 1>2 header 28"),
        (&v4[..], Some(ethertype::IPV6), "malformed"),
        (&v6[..], Some(ethertype::IPV4), "malformed"),
        (&v4[..], Some(0x8847), "non-ip 0x8847"),
        (&[0x50; 40][..], None, "non-ip 0x0000"),
        (&[][..], None, "malformed"),
        (&[][..], Some(ethertype::IPV4), "malformed"),
    ] {
        assert_eq!(summary(parse_bytes(packet, length_of(packet), Link::Ip, known, None)), expect);
    }
    let parsed = parse_bytes(&v4, length_of(&v4), Link::Ip, None, Some(7));
    assert_eq!(summary(parsed), "17 1>2 vlan 7 header 28");
}

#[test]
fn ipv4_mapped_addresses_stay_apart_from_ipv4() {
    let mut packet = ipv6(17, &udp(1, 2));
    packet[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    packet[24..40].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7]);
    let other = ipv4(17, &udp(1, 2));
    let tuple = |packet: &[u8]| match parse_bytes(packet, length_of(packet), Link::Ip, None, None) {
        Parsed::Ip(headers) => headers.tuple,
        other => panic!("{other:?}"),
    };
    let (mapped, plain) = (tuple(&packet), tuple(&other));
    assert_ne!(mapped, plain);
    assert_eq!(mapped.words()[..4], plain.words()[..4]);
    assert_eq!(mapped.source().to_canonical(), plain.source());
    assert_eq!(Details::new(true, 17).with_ports(1, 2).bits(), mapped.words()[4]);
}
