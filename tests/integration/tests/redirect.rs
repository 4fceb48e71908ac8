//! The programs of the redirect, run on packets without a wire: every translated packet is the one that would have been
//! built, byte by byte, with the checksum of a network card left right.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use weir_datapath::redirect::{
    CHECKSUM_COMPLETE, DropReason, OnEmpty, PacketRun, Redirect, RuleId, Standing, Transport, run_packet,
};
use weir_integration::{
    Namespace,
    redirecting::{
        BpfFileSystem, backend, one_to_one,
        reference::{Before, Check, Description, Part, icmp_error},
    },
    require_root,
};

#[path = "redirect/here.rs"]
mod here;
#[path = "redirect/room.rs"]
mod room;
#[path = "redirect/turns.rs"]
mod turns;

const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it works in a test")
}

/// What a connection of a test is between.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    listen: SocketAddr,
    backend: SocketAddr,
}

fn ends(is_ipv6: bool, client_port: u16) -> Ends {
    if is_ipv6 {
        Ends {
            client: SocketAddr::new("2001:db8:1::1".parse().expect("it works in a test"), client_port),
            listen: address("[2001:db8:2::10]:12345"),
            backend: address("[2001:db8:3::138]:23456"),
        }
    } else {
        Ends {
            client: SocketAddr::new("10.0.0.1".parse().expect("it works in a test"), client_port),
            listen: address("10.0.0.10:12345"),
            backend: address("10.0.0.138:23456"),
        }
    }
}

fn all_rules() -> weir_datapath::redirect::Desired {
    let mut pairs = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for is_ipv6 in [false, true] {
            let Ends { listen, backend, .. } = ends(is_ipv6, 0);
            pairs.push((transport, listen, backend));
        }
    }
    one_to_one(&pairs)
}

/// Runs `work` with a redirect in a namespace of its own.
fn with_redirect(capacity: u32, work: impl FnOnce(&mut Redirect) + Send) {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let file_system = BpfFileSystem::new();
    namespace.run(|| {
        let (mut redirect, _) = file_system.open(capacity);
        work(&mut redirect);
    });
}

fn run(program: BorrowedFd<'_>, frame: &[u8], flags: u32) -> PacketRun {
    run_packet(program, frame, flags).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
}

fn described(is_tcp: bool, source: SocketAddr, destination: SocketAddr, flags: u8) -> Description {
    Description {
        before: Before::default(),
        is_tcp,
        source,
        destination,
        flags,
        payload: (0..101).collect(),
        check: Check::Full,
        part: Part::Whole,
    }
}

fn count(redirect: &Redirect, name: &str) -> u64 {
    let counters = redirect.counters().expect("it works in a test");
    let (reason, ..) =
        DropReason::NAMES.into_iter().find(|(_, there, _)| *there == name).expect("it works in a test");
    let of_rules = counters.rules.values().filter_map(|rule| rule.reasons.get(&reason)).sum::<u64>();
    of_rules + counters.other.get(&reason).copied().unwrap_or(0)
}

/// Runs a packet of each direction, first and later ones, and compares.
#[track_caller]
fn check_both_ways(redirect: &Redirect, base: &Description, ends: Ends, flags: u32, case: &str) {
    let client = redirect.program("weir_client_l2").expect("it works in a test");
    let answer = redirect.program("weir_answer_l2").expect("it works in a test");
    let of = |source, destination, tcp_flags| {
        Description { source, destination, flags: tcp_flags, ..base.clone() }.frame()
    };
    for (step, program, source, destination, tcp_flags, new_source, new_destination) in [
        ("first packet", client, ends.client, ends.listen, SYN, ends.client, ends.backend),
        ("first answer", answer, ends.backend, ends.client, SYN | ACK, ends.listen, ends.client),
        ("second packet", client, ends.client, ends.listen, ACK, ends.client, ends.backend),
        ("second answer", answer, ends.backend, ends.client, ACK, ends.listen, ends.client),
    ] {
        let outcome = run(program, &of(source, destination, tcp_flags), flags);
        assert_eq!(outcome.verdict, NEXT, "{case}: {step}");
        let expected = of(new_source, new_destination, tcp_flags);
        assert_eq!(outcome.frame, expected, "{case}: {step}");
    }
}

#[test]
fn every_kind_of_packet_is_the_one_that_would_have_been_built() {
    with_redirect(65_536, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let mut port = 1024;
        for is_ipv6 in [false, true] {
            let extras: &[usize] = if is_ipv6 { &[0, 1, 5] } else { &[0, 1, 10] };
            for (transport, check) in [(true, Check::Full), (false, Check::Full), (false, Check::None)] {
                for &extras in extras {
                    for tags in 0..=2 {
                        for payload in [0, 1, 3, 8, 101, 1000] {
                            for flags in [0, CHECKSUM_COMPLETE] {
                                port += 1;
                                let ends = ends(is_ipv6, port);
                                let base = Description {
                                    before: Before { is_ip_link: false, tags, extras },
                                    payload: (0..payload)
                                        .map(|byte: usize| u8::try_from(byte % 256).unwrap_or(0))
                                        .collect(),
                                    check,
                                    ..described(transport, ends.client, ends.listen, 0)
                                };
                                let case = format!(
                                    "ipv6 {is_ipv6} tcp {transport} {check:?} extras {extras} tags {tags} payload {payload} flags {flags}"
                                );
                                check_both_ways(redirect, &base, ends, flags, &case);
                            }
                        }
                    }
                }
            }
        }
        let counters = redirect.counters().unwrap();
        let opened: u64 = counters.backends.values().map(|backend| backend.opened).sum();
        assert_eq!(opened, u64::from(port) - 1024);
        assert_eq!(redirect.expire().unwrap().connections, opened);
    });
}

#[test]
fn fragments_follow_the_first_one_and_strangers_pass() {
    with_redirect(1024, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let answer = redirect.program("weir_answer_l2").unwrap();
        for is_ipv6 in [false, true] {
            for flags in [0, CHECKSUM_COMPLETE] {
                let ends = ends(is_ipv6, 2000 + u16::from(is_ipv6) + u16::try_from(flags).unwrap());
                for (program, from, to, new_from, new_to) in [
                    (client, ends.client, ends.listen, ends.client, ends.backend),
                    (answer, ends.backend, ends.client, ends.listen, ends.client),
                ] {
                    for part in [Part::First(64), Part::Later(64)] {
                        let packet = Description { part, ..described(false, from, to, 0) };
                        let expected = Description { part, ..described(false, new_from, new_to, 0) };
                        let outcome = run(program, &packet.frame(), flags);
                        assert_eq!(
                            (outcome.verdict, outcome.frame),
                            (NEXT, expected.frame()),
                            "{part:?} {is_ipv6}"
                        );
                    }
                }
                // Fragments of another datagram: to a listener dropped, else none of our business.
                let mut unknown =
                    Description { part: Part::Later(64), ..described(false, ends.client, ends.listen, 0) };
                unknown.source.set_ip(if is_ipv6 {
                    "2001:db8::9".parse().unwrap()
                } else {
                    "10.9.9.9".parse().unwrap()
                });
                assert_eq!(run(client, &unknown.frame(), flags).verdict, SHOT);
                unknown.destination = SocketAddr::new(unknown.source.ip(), 1);
                assert_eq!(run(client, &unknown.frame(), flags).verdict, NEXT);
                // Another port of the listener's address: all of its fragments pass.
                let mut other = described(false, ends.client, ends.listen, 0);
                let other_client = if is_ipv6 { "2001:db8::8" } else { "10.9.9.8" };
                other.source.set_ip(other_client.parse().unwrap());
                other.destination.set_port(9);
                for part in [Part::First(64), Part::Later(64)] {
                    let packet = Description { part, ..other.clone() }.frame();
                    let outcome = run(client, &packet, flags);
                    assert_eq!((outcome.verdict, outcome.frame), (NEXT, packet), "{part:?}");
                }
            }
        }
        assert!(count(redirect, "fragment_missed") >= 4);
        assert!(count(redirect, "fragment_translated") >= 8);
    });
}

#[test]
fn an_icmp_error_shows_its_receiver_the_packet_that_it_sent() {
    with_redirect(1024, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let answer = redirect.program("weir_answer_l2").unwrap();
        let mut port = 3000;
        for is_ipv6 in [false, true] {
            let router: IpAddr =
                if is_ipv6 { "2001:db8:9::9".parse().unwrap() } else { "10.9.9.9".parse().unwrap() };
            for is_tcp in [true, false] {
                for flags in [0, CHECKSUM_COMPLETE] {
                    for repeated in [if is_ipv6 { 48 } else { 28 }, 60, 68, 100] {
                        for from_router in [true, false] {
                            port += 1;
                            let ends = ends(is_ipv6, port);
                            let sent = described(is_tcp, ends.client, ends.listen, SYN);
                            let under_way = described(is_tcp, ends.client, ends.backend, SYN);
                            run(client, &sent.frame(), 0);
                            let before = Before { tags: usize::from(repeated == 60), ..Before::default() };
                            // About a packet to the backend.
                            let (from, to) = (ends.backend.ip(), ends.client.ip());
                            let from = if from_router { router } else { from };
                            let about = &under_way.packet()[..repeated];
                            let expected_from = if from_router { router } else { ends.listen.ip() };
                            let error = icmp_error(before, from, to, about);
                            let expected = icmp_error(before, expected_from, to, &sent.packet()[..repeated]);
                            let outcome = run(answer, &error, flags);
                            let case = format!(
                                "ipv6 {is_ipv6} tcp {is_tcp} {repeated} bytes router {from_router} flags {flags}"
                            );
                            assert_eq!((outcome.verdict, outcome.frame), (NEXT, expected), "{case}");
                            // About an answer, which the client saw come from the listener.
                            let seen = described(is_tcp, ends.listen, ends.client, SYN | ACK);
                            let answered = described(is_tcp, ends.backend, ends.client, SYN | ACK);
                            let from = if from_router { router } else { ends.client.ip() };
                            let error =
                                icmp_error(before, from, ends.listen.ip(), &seen.packet()[..repeated]);
                            let expected =
                                icmp_error(before, from, ends.backend.ip(), &answered.packet()[..repeated]);
                            let outcome = run(client, &error, flags);
                            assert_eq!((outcome.verdict, outcome.frame), (NEXT, expected), "{case}, answer");
                        }
                    }
                }
            }
        }
        assert_eq!(count(redirect, "icmp_translated"), 2 * (u64::from(port) - 3000));
    });
}

#[test]
fn frames_for_others_are_let_go_unless_the_interface_is_part_of_another() {
    with_redirect(64, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let ends = ends(false, 7777);
        let mut frame = described(true, ends.client, ends.listen, SYN).frame();
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0xee, 0xee]);
        assert_eq!(run(client, &frame, 0).frame, frame);
        assert_eq!(redirect.counters().unwrap().rules[&RuleId(1)].sum.opened, 0);
        frame[..6].fill(0);
        assert_ne!(run(client, &frame, 0).frame, frame);
    });
}

#[test]
fn packets_without_a_rule_stay_as_they_are() {
    with_redirect(1024, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let ends = ends(false, 4000);
        let mut frames = Vec::new();
        for is_tcp in [true, false] {
            let mut other_port = described(is_tcp, ends.client, ends.listen, SYN);
            other_port.destination.set_port(12346);
            let mut other_address = described(is_tcp, ends.client, ends.listen, SYN);
            other_address.destination.set_ip("10.0.0.11".parse().unwrap());
            frames.push(other_port.frame());
            frames.push(other_address.frame());
            frames.push(described(is_tcp, ends.backend, ends.client, ACK).frame());
            frames.push(described(is_tcp, ends.client, ends.backend, ACK).frame());
        }
        // A connection that began before the rule.
        frames.push(described(true, ends.client, ends.listen, ACK).frame());
        // Cut short everywhere, and bytes at random.
        let whole = described(true, ends.client, ends.listen, SYN).frame();
        // Shorter ones the kernel does not take.
        for length in 34..54 {
            frames.push(whole[..length].to_vec());
        }
        let mut state = 1_u64;
        for length in [54, 55, 60, 100, 300] {
            for kind in [[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6]] {
                let mut frame: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        u8::try_from(state >> 56).unwrap_or(0)
                    })
                    .collect();
                frame[12..14].copy_from_slice(&kind);
                frames.push(frame);
            }
        }
        for name in ["weir_client_l2", "weir_answer_l2", "weir_uplink_l2"] {
            let program = redirect.program(name).unwrap();
            for frame in &frames {
                let outcome = run(program, frame, 0);
                assert_eq!((outcome.verdict, &outcome.frame), (NEXT, frame), "{name}");
            }
        }
        assert_eq!(redirect.expire().unwrap().connections, 0);
    });
}

#[test]
fn without_a_backend_the_client_is_refused_dropped_or_let_through() {
    with_redirect(1024, |redirect| {
        let mut desired = all_rules();
        for rule in &mut desired.rules {
            rule.table = [].into();
        }
        for (on_empty, tcp, udp) in
            [(OnEmpty::Reset, REDIRECT, SHOT), (OnEmpty::Drop, SHOT, SHOT), (OnEmpty::Pass, NEXT, NEXT)]
        {
            for rule in &mut desired.rules {
                rule.on_empty = on_empty;
            }
            redirect.publish(&desired).unwrap();
            let client = redirect.program("weir_client_l2").unwrap();
            for is_ipv6 in [false, true] {
                for (is_tcp, verdict) in [(true, tcp), (false, udp)] {
                    for flags in [0, CHECKSUM_COMPLETE] {
                        let ends = ends(is_ipv6, 5000);
                        let mut packet = described(is_tcp, ends.client, ends.listen, SYN);
                        if flags != 0 {
                            // What is cut off is not in the card's sum any more, which the kernel then gives up.
                            packet.payload.clear();
                        }
                        let outcome = run(client, &packet.frame(), flags);
                        assert_eq!(outcome.verdict, verdict, "{on_empty:?} ipv6 {is_ipv6} tcp {is_tcp}");
                        if verdict == REDIRECT {
                            check_reset(&packet, &outcome.frame, ends);
                        }
                    }
                }
            }
        }
        for name in ["no_backend_reset", "no_backend_dropped", "no_backend_passed"] {
            assert!(count(redirect, name) >= 4, "{name}");
        }
    });
}

/// A reset that answers `packet`: from the listener, with a good checksum, acknowledging what was sent.
fn check_reset(packet: &Description, frame: &[u8], ends: Ends) {
    let expected = Description {
        source: ends.listen,
        destination: ends.client,
        flags: RST | ACK,
        payload: Vec::new(),
        ..packet.clone()
    };
    let mut expected = expected.frame();
    let transport = expected.len() - 20;
    assert_eq!(frame.len(), expected.len());
    assert_eq!(frame[..6], packet.frame()[6..12], "link-layer addresses are exchanged");
    assert_eq!(frame[6..12], packet.frame()[..6]);
    // Numbers, window and so the checksum differ from the reference.
    let acknowledged = 0x0102_0304_u32 + u32::try_from(packet.payload.len()).expect("it works in a test") + 1;
    assert_eq!(frame[transport + 4..transport + 12], [[0; 4], acknowledged.to_be_bytes()].concat());
    assert_eq!(frame[transport + 12..transport + 16], [0x50, RST | ACK, 0, 0]);
    assert!(is_checked(frame, transport, ends), "{frame:02x?}");
    expected[..12].copy_from_slice(&frame[..12]);
    expected[transport + 4..].copy_from_slice(&frame[transport + 4..]);
    assert_eq!(frame, expected);
}

/// Whether a TCP checksum is right.
fn is_checked(frame: &[u8], transport: usize, ends: Ends) -> bool {
    let mut bytes = Vec::new();
    for address in [ends.client.ip(), ends.listen.ip()] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, 6, 0, 20]);
    bytes.extend(&frame[transport..]);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[test]
fn connections_of_a_backend_that_is_gone_end() {
    with_redirect(1024, |redirect| {
        let mut desired = all_rules();
        redirect.publish(&desired).unwrap();
        let ends = ends(false, 6000);
        let client = redirect.program("weir_client_l2").unwrap();
        for is_tcp in [true, false] {
            assert_eq!(
                run(client, &described(is_tcp, ends.client, ends.listen, SYN).frame(), 0).verdict,
                NEXT
            );
        }
        // Draining keeps them, also without the backend in the table.
        for backend in &mut desired.backends {
            backend.standing = Standing::Draining;
        }
        redirect.publish(&desired).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let packet = described(true, ends.client, ends.listen, ACK).frame();
        assert_eq!(run(client, &packet, 0).frame, described(true, ends.client, ends.backend, ACK).frame());
        let new = SocketAddr::new(ends.client.ip(), 6001);
        assert_eq!(run(client, &described(true, new, ends.listen, SYN).frame(), 0).verdict, REDIRECT);
        // Gone ends TCP by a reset, and UDP finds the new one.
        let mut replaced = all_rules();
        for (rule, old) in replaced.rules.iter_mut().zip(&mut desired.backends) {
            let mut to = old.address;
            to.set_port(9999);
            replaced.backends.push(backend(100 + rule.id.0, rule.id.0, to));
            rule.table = [weir_datapath::redirect::BackendId(100 + rule.id.0); 251].into();
        }
        for backend in replaced.backends.iter_mut().filter(|backend| backend.id.0 < 100) {
            backend.standing = Standing::Gone;
        }
        assert_eq!(redirect.publish(&replaced).unwrap().connections_ended, 2);
        let client = redirect.program("weir_client_l2").unwrap();
        let outcome = run(client, &packet, 0);
        assert_eq!((outcome.verdict, outcome.frame[47] & RST), (REDIRECT, RST));
        let udp = described(false, ends.client, ends.listen, 0).frame();
        let mut to = ends.backend;
        to.set_port(9999);
        assert_eq!(run(client, &udp, 0).frame, described(false, ends.client, to, 0).frame());
        assert_eq!((count(redirect, "ended"), count(redirect, "chosen_again")), (1, 1));
    });
}

#[test]
fn a_taken_port_is_changed_and_changed_back() {
    with_redirect(4096, |redirect| {
        // Two listeners, one backend: the answers to both come from the same place.
        let to = address("10.0.0.138:80");
        let (first, second) = (address("10.0.0.10:80"), address("10.0.0.11:80"));
        let desired = one_to_one(&[(Transport::Tcp, first, to), (Transport::Tcp, second, to)]);
        redirect.publish(&desired).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let answer = redirect.program("weir_answer_l2").unwrap();
        for port in 7000..7100 {
            let own = SocketAddr::new("10.0.0.1".parse().unwrap(), port);
            let kept = run(client, &described(true, own, first, SYN).frame(), 0);
            assert_eq!(kept.frame, described(true, own, to, SYN).frame());
            let changed = run(client, &described(true, own, second, SYN).frame(), CHECKSUM_COMPLETE);
            let given = u16::from_be_bytes([changed.frame[34], changed.frame[35]]);
            assert!(given >= 61_000, "{given}");
            let seen = SocketAddr::new(own.ip(), given);
            assert_eq!(changed.frame, described(true, seen, to, SYN).frame());
            // A direct connection from the same port.
            let direct = run(client, &described(true, own, to, SYN).frame(), 0);
            let other = u16::from_be_bytes([direct.frame[34], direct.frame[35]]);
            assert!(other >= 61_000 && other != given);
            for (source, destination, expected_source) in
                [(to, own, first), (to, seen, second), (to, SocketAddr::new(own.ip(), other), to)]
            {
                let outcome = run(answer, &described(true, source, destination, ACK | SYN).frame(), 0);
                assert_eq!(outcome.frame, described(true, expected_source, own, ACK | SYN).frame());
            }
        }
        assert_eq!((count(redirect, "port_changed"), count(redirect, "direct_changed")), (100, 100));
    });
}

#[test]
fn a_full_table_drops_or_passes_and_never_half_enters() {
    with_redirect(64, |redirect| {
        let ends = ends(false, 0);
        let mut desired = one_to_one(&[(Transport::Tcp, ends.listen, ends.backend)]);
        for (on_full, verdict) in
            [(weir_datapath::redirect::OnFull::Drop, SHOT), (weir_datapath::redirect::OnFull::Pass, NEXT)]
        {
            desired.rules[0].on_full = on_full;
            redirect.publish(&desired).unwrap();
            let client = redirect.program("weir_client_l2").unwrap();
            let mut outcomes = [0_u32; 2];
            for port in 8000..8400 {
                let own = SocketAddr::new(ends.client.ip(), port);
                let packet = described(true, own, ends.listen, SYN);
                let outcome = run(client, &packet.frame(), 0);
                let is_entered = outcome.frame == described(true, own, ends.backend, SYN).frame();
                outcomes[usize::from(is_entered)] += 1;
                if !is_entered {
                    assert_eq!((outcome.verdict, outcome.frame), (verdict, packet.frame()));
                }
            }
            assert!(outcomes[0] > 200 && outcomes[1] >= 32, "{outcomes:?}");
        }
        let entries = redirect.expire().unwrap();
        assert_eq!(entries.looked_at, entries.connections * 2);
        assert!(count(redirect, "full_dropped") > 200 && count(redirect, "full_passed") > 200);
    });
}

#[test]
fn a_client_may_use_its_port_again() {
    with_redirect(1024, |redirect| {
        redirect.publish(&all_rules()).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let answer = redirect.program("weir_answer_l2").unwrap();
        let ends = ends(false, 9000);
        let to = |flags| described(true, ends.client, ends.listen, flags).frame();
        let from = |flags| described(true, ends.backend, ends.client, flags).frame();
        for round in 1..=3 {
            run(client, &to(SYN), 0);
            run(answer, &from(SYN | ACK), 0);
            run(client, &to(FIN | ACK), 0);
            run(answer, &from(FIN | ACK), 0);
            run(client, &to(ACK), 0);
            let counters = redirect.counters().unwrap();
            let rule = &counters.rules[&RuleId(1)].sum;
            assert_eq!((rule.opened, rule.closed), (round, round));
        }
    });
}

#[test]
fn ranges_prefixes_and_all_ports_find_their_rule() {
    with_redirect(1024, |redirect| {
        let to = [address("10.9.0.1:0"), address("10.9.0.2:0"), address("10.9.0.3:77")];
        let mut desired = one_to_one(&[
            (Transport::Tcp, address("10.0.0.10:0"), to[0]),
            (Transport::Tcp, address("10.1.0.0:1"), to[1]),
            (Transport::Tcp, address("10.0.0.0:1"), to[2]),
        ]);
        desired.rules[1].listener.prefix.length = 16;
        desired.rules[1].listener.ports = weir_datapath::redirect::Ports { first: 100, last: 200 };
        desired.rules[2].listener.prefix.address = "10.1.2.0".parse().unwrap();
        desired.rules[2].listener.prefix.length = 24;
        desired.rules[2].listener.ports = weir_datapath::redirect::Ports { first: 300, last: 400 };
        redirect.publish(&desired).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let own = address("172.16.0.1:5555");
        for (listen, expected) in [
            ("10.0.0.10:1", Some("10.9.0.1:1")),
            ("10.0.0.10:65535", Some("10.9.0.1:65535")),
            ("10.0.0.11:80", None),
            ("10.1.255.1:100", Some("10.9.0.2:100")),
            ("10.1.2.1:200", Some("10.9.0.2:200")),
            ("10.1.2.1:201", None),
            ("10.1.2.1:399", Some("10.9.0.3:77")),
            ("10.1.3.1:399", None),
        ] {
            let packet = described(true, own, address(listen), SYN);
            let destination = expected.map_or(packet.destination, address);
            let outcome = run(client, &packet.frame(), 0);
            assert_eq!(outcome.frame, described(true, own, destination, SYN).frame(), "{listen}");
        }
        // Two rules less: their ports are of no interest any more once no connection uses them.
        desired.rules.truncate(1);
        redirect.publish(&desired).unwrap();
        let outcome = run(
            redirect.program("weir_client_l2").unwrap(),
            &described(true, own, address("10.1.2.1:150"), SYN).frame(),
            0,
        );
        assert_eq!(outcome.frame, described(true, own, address("10.1.2.1:150"), SYN).frame());
    });
}
