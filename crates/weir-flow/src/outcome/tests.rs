use std::net::Ipv4Addr;

use weir_packet::{Details, ipv4_words, ipv6_words};

use super::*;
use crate::Traffic;

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn to(destination: Ipv4Addr, number: u8) -> Tuple {
    let details = Details::new(false, number).with_ports(40_000, 53);
    Tuple::new(ipv4_words(SOURCE.octets()), ipv4_words(destination.octets()), details)
}

/// `SYN SYN` are two packets, `-` is one without flags.
fn traffic(packets: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for packet in packets.split_whitespace() {
        let bits = [('F', FIN), ('S', SYN), ('R', RST), ('A', ACK), ('P', 8)];
        let flags =
            bits.iter().filter(|(letter, _)| packet.contains(*letter)).fold(0, |sum, (_, bit)| sum | bit);
        traffic.packets += 1;
        traffic.tcp_flags |= flags;
        traffic.syn += u32::from(flags & (SYN | ACK) == SYN);
    }
    traffic
}

fn outcome(
    tuple: &Tuple,
    [forward, reverse]: [&str; 2],
    end: Option<EndReason>,
    answers: Answers,
) -> Outcome {
    Outcome::of(tuple, &Counters { forward: traffic(forward), reverse: traffic(reverse) }, end, answers)
}

#[test]
fn a_failure_is_told_when_it_is_known_and_not_before() {
    let tuple = to(Ipv4Addr::new(10, 0, 0, 2), protocol::TCP);
    let idle = Some(EndReason::Idle);
    for (packets, end, failure, is_unanswered) in [
        // Still waiting.
        (["S S", ""], None, None, None),
        (["S S S", ""], idle, Some(TcpFailure::Unanswered), Some(true)),
        // Given up by the source itself.
        (["S R", ""], Some(EndReason::Reset), Some(TcpFailure::Unanswered), Some(true)),
        // Weir stopped: an answer may be on its way.
        (["S", ""], Some(EndReason::Shutdown), None, None),
        (["S", "RA"], None, Some(TcpFailure::Refused), Some(false)),
        (["S S", "RA RA"], Some(EndReason::Reset), Some(TcpFailure::Refused), Some(false)),
        // Half-open probing is no failure of the other side.
        (["S R", "SA"], Some(EndReason::Reset), None, Some(false)),
        (["S A P", "SA A"], idle, None, Some(false)),
        (["S A P", "SA RA"], None, Some(TcpFailure::Reset), Some(false)),
        (["S A RA", "SA A"], Some(EndReason::Reset), Some(TcpFailure::Reset), Some(false)),
        // Its beginning was not seen.
        (["PA", "A RA"], Some(EndReason::Reset), Some(TcpFailure::Reset), Some(false)),
        // Closed by both, then a straggler.
        (["S A FA", "SA FA R"], Some(EndReason::Fin), None, Some(false)),
        // Acknowledges what was not seen: the answers come another way.
        (["S A PA", ""], idle, None, None),
        // A straggler of a connection that is over.
        (["RA", ""], Some(EndReason::Reset), None, None),
        (["R", ""], Some(EndReason::Reset), None, None),
        (["", "SA"], idle, None, None),
    ] {
        let got = outcome(&tuple, packets, end, Answers::Counted);
        assert_eq!(got, Outcome { tcp_failure: failure, is_unanswered }, "{packets:?} {end:?}");
    }
}

#[test]
fn a_missing_answer_is_no_failure_where_it_could_not_be_seen() {
    let tuple = to(Ipv4Addr::new(10, 0, 0, 2), protocol::TCP);
    let got = outcome(&tuple, ["S", ""], Some(EndReason::Idle), Answers::Uncertain);
    assert_eq!(got, Outcome::default());
    let refused = outcome(&tuple, ["S", "RA"], None, Answers::Uncertain);
    assert_eq!(refused.tcp_failure, Some(TcpFailure::Refused));
}

#[test]
fn any_protocol_can_go_unanswered_but_what_is_sent_to_many_cannot() {
    let idle = Some(EndReason::Idle);
    let check = |tuple: &Tuple, expect| {
        let got = outcome(tuple, ["- -", ""], idle, Answers::Counted);
        assert_eq!(got, Outcome { tcp_failure: None, is_unanswered: expect }, "{tuple:?}");
    };
    let peer = Ipv4Addr::new(10, 0, 0, 2);
    check(&to(peer, protocol::UDP), Some(true));
    check(&to(peer, 47), Some(true));
    check(&to(Ipv4Addr::new(224, 0, 0, 251), protocol::UDP), None);
    check(&to(Ipv4Addr::BROADCAST, protocol::UDP), None);
    check(&to(Ipv4Addr::new(10, 0, 0, 255), protocol::UDP), None);
    check(&to(Ipv4Addr::UNSPECIFIED, protocol::UDP), None);
    check(&to(peer, protocol::UDP).reversed().reversed(), Some(true));
    let words = |address: [u64; 2], other: [u64; 2], details| Tuple::new(address, other, details);
    let mapped = |address: Ipv4Addr| ipv4_words(address.octets());
    let udp = Details::new(false, protocol::UDP);
    check(&words(mapped(SOURCE), mapped(peer), udp.with_fragment()), None);
    check(&words(mapped(SOURCE), mapped(peer), Details::new(false, protocol::UDP).with_truncated()), None);
    // DHCP asks before there is an address.
    let dhcp = Details::new(false, protocol::UDP).with_ports(68, 67);
    check(&words(mapped(Ipv4Addr::UNSPECIFIED), mapped(peer), dhcp), None);
    // ICMP errors; echo requests want their answer.
    let unreachable = Details::new(false, protocol::ICMP).with_ports(3, 1);
    check(&words(mapped(SOURCE), mapped(peer), unreachable), None);
    let echo = Details::new(false, protocol::ICMP).with_icmp_query().with_ports(8, 0);
    check(&words(mapped(SOURCE), mapped(peer), echo), Some(true));
    let v6 = Details::new(true, protocol::UDP).with_ports(1, 2);
    let group = ipv6_words("ff02::fb".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let host = ipv6_words("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    check(&words(host, group, v6), None);
    check(&words(host, host, Details::new(true, protocol::UDP).with_ports(1, 2)), Some(true));
}
