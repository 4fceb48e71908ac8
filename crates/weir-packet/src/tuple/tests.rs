//! What a tuple says, and that its words lose nothing.

use std::{format, net::IpAddr};

use proptest::{option, prelude::*};

use super::{Details, Tuple, ipv4_words, ipv6_words, protocol};

fn udp(source_port: u16, destination_port: u16) -> Tuple {
    let details = Details::new(false, protocol::UDP).with_ports(source_port, destination_port);
    Tuple::new(ipv4_words([192, 0, 2, 1]), ipv4_words([198, 51, 100, 7]), details)
}

fn icmp(details: Details) -> Tuple {
    Tuple::new(ipv4_words([192, 0, 2, 1]), ipv4_words([198, 51, 100, 7]), details)
}

#[test]
fn words_are_in_the_documented_order() {
    let details = Details::new(true, 6).with_ports(0x1234, 0x5678).with_vlan(0xfabc);
    let mut source = [0; 16];
    source[0] = 0x20;
    source[15] = 1;
    let tuple = Tuple::new(ipv6_words(source), ipv4_words([1, 2, 3, 4]), details);
    let word = 1 << 53 | 1 << 52 | 0xabc << 40 | 6 << 32 | 0x5678 << 16 | 0x1234;
    assert_eq!(tuple.words(), [0x20 << 56, 1, 0, 0xffff_0102_0304, word]);
}

#[test]
fn the_kernel_s_direction_bit_is_not_part_of_a_tuple() {
    let tuple = udp(1, 2);
    let mut words = tuple.words();
    words[4] |= 0xfe << 56;
    assert_eq!(Tuple::from_words(words), tuple);
}

#[test]
fn icmp_type_and_code_come_back_from_both_forms() {
    let query = Details::new(false, protocol::ICMP).with_ports(8, 0).with_icmp_query();
    let timestamp = Details::new(false, protocol::ICMP).with_ports(13, 14).with_icmp_query();
    let unreachable = Details::new(false, protocol::ICMP).with_ports(3, 4);
    for (details, expect) in [
        (query, Some((8, 0))),
        (timestamp, Some((13, 0))),
        (unreachable, Some((3, 4))),
        (Details::new(false, protocol::ICMP).with_fragment(), None),
        (Details::new(false, protocol::ICMP).with_truncated(), None),
        (Details::new(false, protocol::ICMPV6).with_ports(3, 4), None),
    ] {
        assert_eq!(icmp(details).icmp(), expect);
    }
    assert_eq!(icmp(query).reversed().icmp(), Some((0, 0)));
}

#[test]
fn ports_are_those_of_protocols_that_have_them() {
    for (number, expect) in [(6, true), (17, true), (132, true), (1, false), (47, false), (136, false)] {
        let details = Details::new(false, number);
        assert_eq!(icmp(details).has_ports(), expect, "protocol {number}");
        assert!(!icmp(details.with_fragment()).has_ports());
        assert!(!icmp(details.with_truncated()).has_ports());
    }
}

#[test]
fn debug_output_is_readable() {
    let text = format!("{:?}", udp(53, 4096));
    assert!(text.contains("192.0.2.1") && text.contains("(53, 4096)"), "{text}");
}

proptest! {
    #[test]
    fn parts_come_back_and_reversing_twice_changes_nothing(
        source in any::<[u8; 16]>(),
        destination in any::<[u8; 16]>(),
        is_ipv6 in any::<bool>(),
        number in any::<u8>(),
        ports in any::<(u16, u16)>(),
        vlan in option::of(0u16..0x1000),
        marks in any::<[bool; 3]>(),
    ) {
        let mut details = Details::new(is_ipv6, number).with_ports(ports.0, ports.1);
        details = vlan.map_or(details, |tag| details.with_vlan(tag));
        let [is_fragment, is_truncated, is_query] = marks;
        details = if is_fragment { details.with_fragment() } else { details };
        details = if is_truncated { details.with_truncated() } else { details };
        details = if is_query { details.with_icmp_query() } else { details };
        let short = |bytes: [u8; 16]| [bytes[0], bytes[1], bytes[2], bytes[3]];
        let words = |bytes| if is_ipv6 { ipv6_words(bytes) } else { ipv4_words(short(bytes)) };
        let address = |bytes| if is_ipv6 { IpAddr::from(bytes) } else { short(bytes).into() };

        let tuple = Tuple::new(words(source), words(destination), details);
        prop_assert_eq!((tuple.source(), tuple.destination()), (address(source), address(destination)));
        prop_assert_eq!((tuple.source_port(), tuple.destination_port()), ports);
        prop_assert_eq!((tuple.protocol(), tuple.is_ipv6(), tuple.vlan()), (number, is_ipv6, vlan));
        prop_assert_eq!([tuple.is_fragment(), tuple.is_truncated(), tuple.is_icmp_query()], marks);
        prop_assert_eq!(Tuple::from_words(tuple.words()), tuple);

        let reversed = tuple.reversed();
        prop_assert_eq!(reversed.reversed(), tuple);
        prop_assert_eq!((reversed.source(), reversed.destination()), (tuple.destination(), tuple.source()));
        prop_assert_eq!((reversed.source_port(), reversed.destination_port()), (ports.1, ports.0));
        prop_assert_eq!(reversed.words()[4] >> 32, tuple.words()[4] >> 32);
    }
}
