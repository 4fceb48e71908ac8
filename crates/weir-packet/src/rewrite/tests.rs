#![expect(clippy::cast_possible_truncation, reason = "frames are short, and halves are wanted")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    vec,
    vec::Vec,
};

use proptest::prelude::*;

use super::{
    reference::{Before, Check, Description, Part, icmp_error},
    *,
};
use crate::{
    Buffer, Link, Window,
    tuple::{ipv4_words, ipv6_words},
    window::WINDOW,
};

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    }
}

fn link(before: Before) -> Link {
    if before.is_ip_link { Link::Ip } else { Link::Ethernet }
}

/// What `layout` finds in a frame, and with an ICMP error what is within.
fn read(frame: &[u8], link: Link) -> (Found, Layout, Option<Layout>) {
    let mut buffer = Buffer::new();
    let length = frame.len().min(WINDOW);
    buffer.bytes[..length].copy_from_slice(&frame[..length]);
    let mut window = Window::new(&mut buffer, length);
    let ethertype = if frame.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
    let mut layout = Layout::default();
    let found = super::layout(&mut window, frame.len() as u32, link, ethertype, &mut layout);
    let mut inner = Layout::default();
    let is_readable =
        found == Found::IcmpError && inner_layout(&mut window, frame.len() as u32, &layout, &mut inner);
    (found, layout, is_readable.then_some(inner))
}

fn put(frame: &mut [u8], at: u32, bytes: &[u8]) {
    frame[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
}

fn put_address(frame: &mut [u8], layout: &Layout, at: u32, address: [u64; 2]) {
    if layout.is_ipv6 == 0 {
        put(frame, at, &(address[1] as u32).to_be_bytes());
    } else {
        put(frame, at, &address[0].to_be_bytes());
        put(frame, at + 8, &address[1].to_be_bytes());
    }
}

fn put_ports(frame: &mut [u8], at: u32, ports: u32) {
    put(frame, at, &swapped(ports).to_be_bytes());
}

/// What the kernel's helper does with `BPF_F_MARK_MANGLED_0`.
fn change_check(frame: &mut [u8], at: u32, change: Sum, is_udp: bool) {
    let at = at as usize;
    let check = u16::from_ne_bytes([frame[at], frame[at + 1]]);
    if is_udp && check == 0 {
        return;
    }
    let changed = match change.applied_to(check) {
        0 if is_udp => 0xffff,
        changed => changed,
    };
    frame[at..at + 2].copy_from_slice(&changed.to_ne_bytes());
}

fn carry_out(frame: &mut [u8], layout: &Layout, target: &Target, check: Check) {
    let plan = Plan::new(layout, target);
    put_address(frame, layout, plan.address_at, target.address);
    if layout.is_ipv6 == 0 {
        put(frame, layout.network + 10, &plan.ip_check.to_ne_bytes());
    }
    if layout.fragment == Fragment::Later {
        return;
    }
    put_ports(frame, layout.transport, target.ports);
    let is_udp = layout.protocol == 17;
    let check_at = layout.transport + if is_udp { 6 } else { 16 };
    if check == Check::Partial {
        let at = check_at as usize;
        let old = u16::from_ne_bytes([frame[at], frame[at + 1]]);
        let new = plan.pseudo.add(u32::from(old)).folded();
        frame[at..at + 2].copy_from_slice(&new.to_ne_bytes());
        return;
    }
    change_check(frame, check_at, plan.pseudo, is_udp);
    change_check(frame, check_at, plan.plain, is_udp);
}

fn carry_out_icmp(frame: &mut [u8], outer: &Layout, inner: &Layout, target: &Target) {
    let plan = IcmpPlan::new(outer, inner, target);
    if plan.changes_outer {
        put_address(frame, outer, plan.outer_address_at, target.address);
        if outer.is_ipv6 == 0 {
            put(frame, outer.network + 10, &plan.outer_ip_check.to_ne_bytes());
        }
    }
    put_address(frame, inner, plan.inner_address_at, target.address);
    if inner.is_ipv6 == 0 {
        put(frame, inner.network + 10, &plan.inner_ip_check.to_ne_bytes());
    }
    put_ports(frame, inner.transport, plan.inner_ports);
    if inner.has_check != 0 {
        let at = inner.transport + if inner.protocol == 17 { 6 } else { 16 };
        put(frame, at, &plan.inner_check.to_ne_bytes());
    }
    change_check(frame, outer.transport + 2, plan.message, false);
    change_check(frame, outer.transport + 2, plan.pseudo, false);
}

fn address(is_ipv6: bool) -> BoxedStrategy<IpAddr> {
    if is_ipv6 {
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))).boxed()
    } else {
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))).boxed()
    }
}

fn end(is_ipv6: bool) -> impl Strategy<Value = SocketAddr> {
    (address(is_ipv6), any::<u16>()).prop_map(|(address, port)| SocketAddr::new(address, port))
}

/// A packet, another address for one end, and both other ports.
fn case() -> impl Strategy<Value = (Description, bool, SocketAddr, u16)> {
    any::<bool>().prop_flat_map(|is_ipv6| {
        // With two tags and a fragment header, the TCP header behind one more would not be within the window.
        let extras = if is_ipv6 { 0..=4_usize } else { 0..=10_usize };
        let before = (any::<bool>(), 0..=2_usize, extras).prop_map(|(is_ip_link, tags, extras)| Before {
            is_ip_link,
            tags,
            extras,
        });
        let part = prop_oneof![
            6 => Just(Part::Whole),
            1 => (3..6_usize).prop_map(|words| Part::First(words * 8)),
            1 => (3..6_usize).prop_map(|words| Part::Later(words * 8)),
        ];
        let check = prop_oneof![4 => Just(Check::Full), 1 => Just(Check::None), 1 => Just(Check::Partial)];
        let payload = proptest::collection::vec(any::<u8>(), 64..300);
        let ends = (end(is_ipv6), end(is_ipv6), end(is_ipv6));
        (before, any::<bool>(), ends, any::<u8>(), payload, check, part, any::<bool>(), any::<u16>())
            .prop_map(
                |(
                    before,
                    is_tcp,
                    (source, destination, other),
                    flags,
                    payload,
                    check,
                    part,
                    is_source,
                    port,
                )| {
                    let check = if is_tcp && check == Check::None { Check::Full } else { check };
                    let check = if part == Part::Whole || check == Check::None { check } else { Check::Full };
                    let packet =
                        Description { before, is_tcp, source, destination, flags, payload, check, part };
                    (packet, is_source, other, port)
                },
            )
    })
}

/// The description after a translation, and what it is translated to.
fn translated(packet: &Description, is_source: bool, other: SocketAddr, port: u16) -> (Description, Target) {
    let mut expected = packet.clone();
    let side = if is_source { Side::Source } else { Side::Destination };
    let (changed, kept) = match side {
        Side::Source => (&mut expected.source, &mut expected.destination),
        Side::Destination => (&mut expected.destination, &mut expected.source),
    };
    *changed = other;
    kept.set_port(port);
    let ports = u32::from(expected.source.port()) | u32::from(expected.destination.port()) << 16;
    (expected, Target { side, address: words(other.ip()), ports })
}

/// Whether two frames are the same but for the two ways to write zero in the checksum of a packet that is not done.
fn is_same(actual: &[u8], expected: &[u8], layout: &Layout, check: Check) -> bool {
    if check != Check::Partial || layout.fragment == Fragment::Later {
        return actual == expected;
    }
    let at = layout.transport as usize + if layout.protocol == 17 { 6 } else { 16 };
    let of = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]) % 0xffff;
    actual[..at] == expected[..at] && actual[at + 2..] == expected[at + 2..] && of(actual) == of(expected)
}

proptest! {
    #[test]
    fn a_translated_packet_is_the_packet_that_would_have_been_built((packet, is_source, other, port) in case()) {
        let (expected, target) = translated(&packet, is_source, other, port);
        let mut frame = packet.frame();
        let (found, layout, _) = read(&frame, link(packet.before));
        let is_later = matches!(packet.part, Part::Later(_));
        prop_assert_eq!(found, if is_later { Found::LaterFragment } else { Found::Transport });
        carry_out(&mut frame, &layout, &target, packet.check);
        prop_assert!(is_same(&frame, &expected.frame(), &layout, packet.check));
    }

    #[test]
    fn translating_back_gives_the_packet_again((packet, is_source, other, port) in case()) {
        let (expected, target) = translated(&packet, is_source, other, port);
        let (changed, kept) =
            if is_source { (packet.source, packet.destination) } else { (packet.destination, packet.source) };
        let (_, back) = translated(&expected, is_source, changed, kept.port());
        let mut frame = packet.frame();
        for target in [target, back] {
            let (_, layout, _) = read(&frame, link(packet.before));
            carry_out(&mut frame, &layout, &target, packet.check);
        }
        let (_, layout, _) = read(&frame, link(packet.before));
        prop_assert!(is_same(&frame, &packet.frame(), &layout, packet.check));
    }

    #[test]
    fn an_error_repeats_the_packet_that_its_receiver_sent(
        (packet, is_source, other, port) in case(),
        // Not within a checksum, half of which cannot be put right.
        repeated in (7..50_usize).prop_map(|words| words * 4),
        from_router in any::<bool>(),
        router in any::<u32>(),
    ) {
        // The sender sent `packet`, which was translated on its way. The error is about what it became.
        let packet = Description {
            before: Before { extras: packet.before.extras.min(1), is_ip_link: packet.before.is_ip_link, tags: 0 },
            part: Part::Whole,
            check: if packet.check == Check::Partial { Check::Full } else { packet.check },
            ..packet
        };
        let (under_way, target) = translated(&packet, is_source, other, port);
        let outer = Before { extras: 0, ..packet.before };
        let router = match packet.source {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(router)),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::from(router))),
        };
        // Where the destination was translated the error comes from there, else it goes to the source.
        let (from, to) = if from_router {
            (router, if is_source { under_way.source.ip() } else { packet.source.ip() })
        } else if is_source {
            (packet.destination.ip(), under_way.source.ip())
        } else {
            (under_way.destination.ip(), packet.source.ip())
        };
        let repeated = repeated.min(under_way.packet().len());
        let mut frame = icmp_error(outer, from, to, &under_way.packet()[..repeated]);
        // Packets that go the error's way are translated back, at the end that faces it.
        let ports = u32::from(packet.source.port()) | u32::from(packet.destination.port()) << 16;
        let restored = if is_source { packet.source.ip() } else { packet.destination.ip() };
        let back = Target { side: target.side.opposite(), address: words(restored), ports: swapped(ports) };
        let (found, layout, inner) = read(&frame, link(outer));
        prop_assert_eq!(found, Found::IcmpError);
        let Some(inner) = inner else {
            prop_assert!(repeated < under_way.packet().len() && repeated < 60, "{repeated} bytes suffice");
            return Ok(());
        };
        carry_out_icmp(&mut frame, &layout, &inner, &back);
        let facing = if is_source { under_way.source.ip() } else { under_way.destination.ip() };
        let original = if is_source { packet.source.ip() } else { packet.destination.ip() };
        let (from, to) = if is_source {
            (from, if to == facing { original } else { to })
        } else {
            (if from == facing { original } else { from }, to)
        };
        prop_assert_eq!(frame, icmp_error(outer, from, to, &packet.packet()[..repeated]));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_ip in any::<bool>()) {
        let link = if is_ip { Link::Ip } else { Link::Ethernet };
        let (found, layout, inner) = read(&bytes, link);
        let length = bytes.len() as u32;
        if found == Found::Transport {
            prop_assert!(layout.transport + 8 <= length && layout.network + 20 <= layout.transport);
        }
        if let Some(inner) = inner {
            prop_assert!(inner.transport + 4 <= length && inner.network >= layout.transport + 8);
        }
    }
}

#[test]
fn what_is_never_translated_is_told_apart() {
    let packet = Description {
        before: Before::default(),
        is_tcp: true,
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "198.51.100.7:80".parse().unwrap(),
        flags: 2,
        payload: vec![0; 64],
        check: Check::Full,
        part: Part::Whole,
    };
    let change = |at: usize, value: u8| {
        let mut frame = packet.frame();
        frame[at] = value;
        frame
    };
    for (case, frame, expected) in [
        ("TCP", packet.frame(), Found::Transport),
        ("ARP", change(13, 0x06), Found::Other),
        ("GRE", change(14 + 9, 47), Found::Other),
        (
            "echo request",
            {
                let mut frame = change(14 + 9, 1);
                frame[34] = 8;
                frame
            },
            Found::Other,
        ),
        (
            "ICMP redirect",
            {
                let mut frame = change(14 + 9, 1);
                frame[34] = 5;
                frame
            },
            Found::Other,
        ),
        ("version 5", change(14, 0x55), Found::Malformed),
        ("four words of header", change(14, 0x44), Found::Malformed),
        ("total length within the TCP header", change(14 + 3, 39), Found::Malformed),
        ("cut within the TCP header", packet.frame()[..14 + 20 + 19].to_vec(), Found::Malformed),
        ("cut within the IP header", packet.frame()[..14 + 19].to_vec(), Found::Malformed),
        ("nothing", Vec::new(), Found::Malformed),
    ] {
        assert_eq!(read(&frame, Link::Ethernet).0, expected, "{case}");
    }
}

#[test]
fn a_route_with_segments_left_is_not_touched() {
    let packet = Description {
        before: Before { extras: 1, ..Before::default() },
        is_tcp: false,
        source: "[2001:db8::1]:40000".parse().unwrap(),
        destination: "[2001:db8::2]:53".parse().unwrap(),
        flags: 0,
        payload: vec![0; 64],
        check: Check::Full,
        part: Part::Whole,
    };
    let mut frame = packet.frame();
    frame[14 + 6] = 43;
    frame[14 + 40 + 3] = 1;
    assert_eq!(read(&frame, Link::Ethernet).0, Found::Extensions);
    frame[14 + 40 + 3] = 0;
    assert_eq!(read(&frame, Link::Ethernet).0, Found::Transport);
    let seven = Description { before: Before { extras: 7, ..Before::default() }, ..packet };
    assert_eq!(read(&seven.frame(), Link::Ethernet).0, Found::Extensions);
}

#[test]
fn udp_without_a_checksum_stays_without_and_zero_is_written_as_ones() {
    let mut check = [0, 0];
    change_check(&mut check, 0, Sum::ZERO.replace(1, 2), true);
    assert_eq!(check, [0, 0]);
    // A sum that becomes all ones would give the checksum 0.
    let mut check = 0x1234_u16.to_ne_bytes();
    let change = Sum::ZERO.replace_short(0x1234, 0).plus(Sum::ZERO);
    change_check(&mut check, 0, Sum::ZERO.add(0x1234).plus(Sum::ZERO), true);
    assert_eq!(check, [0xff, 0xff], "{change:?}");
}
