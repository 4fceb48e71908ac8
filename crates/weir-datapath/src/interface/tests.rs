//! Messages, patterns, and the kernel that runs the tests.

use std::process;

use super::{message, rtnetlink::messages, *};

/// A message body about an interface: header, then attributes.
fn link_message(family: u8, hardware: u16, index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend_from_slice(&hardware.to_ne_bytes());
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&1_u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for (kind, value) in attributes {
        bytes.extend_from_slice(&attribute(*kind, value));
    }
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn an_interface_is_read_from_the_attributes_that_matter() {
    let counters: Vec<u8> = (1..=24_u64).flat_map(u64::to_ne_bytes).collect();
    let bytes = link_message(
        0,
        1,
        7,
        &[
            (3, b"veth7\0"),
            (4, &1400_u32.to_ne_bytes()),
            (5, &9_u32.to_ne_bytes()),
            (6, b"noqueue\0"),
            (10, &3_u32.to_ne_bytes()),
            (18, &attribute(1, b"veth\0")),
            (23, &counters),
            (37, &2_i32.to_ne_bytes()),
            (43, &attribute(2, &[1])),
            (57, b"virtio\0"),
            (999, b"from a later kernel"),
        ],
    );
    let interface = message::link(&bytes).unwrap().unwrap();
    let expected = Interface {
        index: 7,
        name: Arc::from("veth7"),
        kind: Kind::Veth,
        role: Role::Other,
        link: Link::Ethernet,
        up: true,
        master: Some(3),
        link_index: Some(9),
        link_netnsid: Some(2),
        mtu: 1400,
        qdisc: Some(Arc::from("noqueue")),
        bus: Some(Arc::from("virtio")),
        xdp: true,
        stats: LinkStats {
            rx: DirectionStats { packets: 1, bytes: 3, errors: 5, dropped: 7 },
            tx: DirectionStats { packets: 2, bytes: 4, errors: 6, dropped: 8 },
        },
    };
    assert_eq!(interface, expected);
}

#[test]
fn kinds_follow_from_their_name_and_hardware() {
    for (name, hardware, kind, link) in [
        (None, 1, Kind::Physical, Link::Ethernet),
        (None, 772, Kind::Loopback, Link::Ethernet),
        (None, 0xffff, Kind::Other(Arc::from("void")), Link::Ip),
        (Some("tun"), 1, Kind::Tap, Link::Ethernet),
        (Some("tun"), 0xfffe, Kind::Tun, Link::Ip),
        (Some("wireguard"), 0xfffe, Kind::Wireguard, Link::Ip),
        (Some("ip6tnl"), 769, Kind::Ipip, Link::Ip),
        (Some("gretap"), 1, Kind::Gre, Link::Ethernet),
        (Some("from-2031"), 1, Kind::Other(Arc::from("from-2031")), Link::Ethernet),
    ] {
        let kind_attribute = name.map(|name| attribute(1, name.as_bytes()));
        let mut attributes: Vec<(u16, &[u8])> = vec![(3, b"x")];
        attributes.extend(kind_attribute.as_ref().map(|value| (18, &**value)));
        let interface = message::link(&link_message(0, hardware, 1, &attributes)).unwrap().unwrap();
        assert_eq!((interface.kind, interface.link), (kind, link));
    }
}

#[test]
fn what_a_bridge_says_of_its_ports_is_not_about_interfaces() {
    let bytes = link_message(7, 1, 7, &[(3, b"port\0")]);
    assert_eq!(message::link(&bytes).unwrap(), None);
    assert_eq!(message::removed_link(&bytes).unwrap(), None);
}

#[test]
fn cut_messages_are_errors() {
    let whole = link_message(0, 1, 7, &[(4, &1500_u32.to_ne_bytes()), (3, b"eth0\0")]);
    for length in 0..whole.len() - 3 {
        message::link(&whole[..length]).unwrap_err();
    }
    message::link(&link_message(0, 1, 7, &[(3, b"x"), (4, b"123")])).unwrap_err();
    message::route_interfaces(&[0; 11]).unwrap_err();
    message::on_link_address(&[0; 7]).unwrap_err();
    let mut datagram = 40_u32.to_ne_bytes().to_vec();
    datagram.resize(39, 0);
    assert!(messages(&datagram).next().unwrap().is_err());
}

#[test]
fn a_route_may_lead_out_of_several_interfaces() {
    let mut route = vec![2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
    let hop = |index: u32| {
        let gateway = attribute(5, &[10, 0, 0, 1]);
        let length = u16::try_from(8 + gateway.len()).unwrap();
        [&length.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes(), &gateway].concat()
    };
    route.extend(attribute(9, &[hop(4), hop(5)].concat()));
    assert_eq!(message::route_interfaces(&route).unwrap(), [4, 5]);
    assert!(message::is_default_route(&route));
    route[7] = 7;
    assert_eq!(message::route_interfaces(&route).unwrap(), [0; 0]);
}

#[test]
fn patterns_match_as_in_a_shell() {
    for (pattern, name, expected) in [
        ("eth0", "eth0", true),
        ("eth0", "eth01", false),
        ("eth?", "eth0", true),
        ("eth?", "eth", false),
        ("*", "", true),
        ("*", "lo", true),
        ("e*0", "eth0", true),
        ("e*0", "enp0s31f60", true),
        ("e*0", "enp0s31", false),
        ("*s*f*", "enp0s31f6", true),
        ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ("ve*", "eve", false),
        ("", "", true),
        ("", "lo", false),
        ("weird*", "weird*name", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn interfaces_are_selected_once_and_unknown_ones_are_named() {
    let interfaces: Vec<Interface> = ["lo", "eth0", "eth1", "wlan0"]
        .iter()
        .zip(1..)
        .map(|(name, index)| {
            let bytes = link_message(0, 1, index, &[(3, name.as_bytes())]);
            message::link(&bytes).unwrap().unwrap()
        })
        .collect();
    let names = |patterns: &[&str]| -> Vec<String> {
        select(&interfaces, patterns).unwrap().iter().map(|interface| interface.name.to_string()).collect()
    };
    assert_eq!(names(&["wlan0", "eth*", "eth1"]), ["eth0", "eth1", "wlan0"]);
    assert_eq!(names(&[]), [""; 0]);
    let error = select(&interfaces, &["eth0", "eht0"]).unwrap_err();
    assert_eq!(error.to_string(), "no interface eht0: there are lo, eth0, eth1, wlan0");
}

#[test]
fn loopback_is_listed_without_any_privilege() {
    let netns = Netns::open(&process::id().to_string()).unwrap();
    let interfaces = list(&netns).unwrap();
    let loopback = interfaces.iter().find(|interface| interface.kind == Kind::Loopback).unwrap();
    assert_eq!((&*loopback.name, loopback.index, loopback.role), ("lo", 1, Role::Loopback));
    assert_eq!(loopback.link, Link::Ethernet);
}
