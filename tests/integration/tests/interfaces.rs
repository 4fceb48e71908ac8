//! Interfaces as the kernel makes them: discovery, roles, events, counters.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_datapath::{
    flow::Directions,
    interface::{Interface, Interfaces, Kind, LinkEvent, Watcher, list},
    role::default_points,
};
use weir_flow::Role;
use weir_integration::{
    Namespace, Neighbours, Veth, cannot_run, require_root,
    traffic::{ManyFlows, UdpFlow, Until},
};
use weir_packet::Link;

/// What is promised for attaching to a new interface.
const SOON: Duration = Duration::from_secs(1);

fn find<'a>(interfaces: &'a [Interface], name: &str) -> &'a Interface {
    interfaces
        .iter()
        .find(|interface| &*interface.name == name)
        .unwrap_or_else(|| panic!("no interface {name}"))
}

fn listed(namespace: &Namespace) -> Vec<Interface> {
    list(namespace.netns()).expect("reading needs no privilege")
}

fn role_of(namespace: &Namespace, name: &str) -> Role {
    find(&listed(namespace), name).role
}

/// Collects events until `enough` says so; fails if that takes longer than promised.
fn events_until(watcher: &mut Watcher, enough: impl Fn(&[LinkEvent]) -> bool) -> Vec<LinkEvent> {
    let start = Instant::now();
    let mut events = Vec::new();
    loop {
        events.extend(watcher.next_events().expect("reading needs no privilege"));
        if enough(&events) {
            return events;
        }
        let left = SOON.checked_sub(start.elapsed()).unwrap_or_else(|| panic!("too late, only {events:?}"));
        let mut descriptors = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).expect("it is short");
        poll(&mut descriptors, timeout).expect("the descriptor is open");
    }
}

fn has_new(events: &[LinkEvent], name: &str) -> bool {
    events.iter().any(|event| matches!(event, LinkEvent::New(interface) if &*interface.name == name))
}

fn has_removed(events: &[LinkEvent], name: &str) -> bool {
    events.iter().any(|event| matches!(event, LinkEvent::Removed { name: removed, .. } if &**removed == name))
}

#[test]
fn kinds_roles_and_headers_of_real_interfaces() {
    if !require_root() {
        return;
    }
    let (node, pod) = (Namespace::new(), Namespace::new());
    let peer = format!("peer name p0 netns {}", pod.path());
    let netkit_peer = format!("peer name p1 netns {}", pod.path());
    let tunnel = "local 10.99.1.1 remote 10.99.1.2";
    node.ip("link add d0 type ifb");
    for (name, arguments, kind, role, link) in [
        ("br0", "type bridge".to_owned(), Kind::Bridge, Role::Bridge, Link::Ethernet),
        ("v0", format!("type veth {peer}"), Kind::Veth, Role::PodEdge, Link::Ethernet),
        ("w0", "type veth peer name w1".to_owned(), Kind::Veth, Role::Other, Link::Ethernet),
        ("nk0", format!("type netkit mode l3 {netkit_peer}"), Kind::Netkit, Role::PodEdge, Link::Ip),
        ("d0.5", "link d0 type vlan id 5".to_owned(), Kind::Vlan, Role::Other, Link::Ethernet),
        ("mv0", "link d0 type macvlan".to_owned(), Kind::Macvlan, Role::Other, Link::Ethernet),
        ("vx0", "type vxlan id 7 dstport 4789 dev d0".to_owned(), Kind::Vxlan, Role::Tunnel, Link::Ethernet),
        ("gv0", "type geneve id 7 remote 10.99.1.2".to_owned(), Kind::Geneve, Role::Tunnel, Link::Ethernet),
        ("gre1", format!("type gre {tunnel}"), Kind::Gre, Role::Tunnel, Link::Ip),
        ("gt1", format!("type gretap {tunnel}"), Kind::Gre, Role::Tunnel, Link::Ethernet),
        ("ipip1", format!("type ipip {tunnel}"), Kind::Ipip, Role::Tunnel, Link::Ip),
        ("sit1", format!("type sit {tunnel}"), Kind::Sit, Role::Tunnel, Link::Ip),
        ("wg0", "type wireguard".to_owned(), Kind::Wireguard, Role::Tunnel, Link::Ip),
        ("bond7", "type bond".to_owned(), Kind::Bond, Role::Uplink, Link::Ethernet),
        ("team7", "type team".to_owned(), Kind::Team, Role::Uplink, Link::Ethernet),
        ("i0", "type ifb".to_owned(), Kind::Ifb, Role::Other, Link::Ethernet),
    ] {
        let words = format!("link add {name} {arguments}");
        let made = node.command("ip").args(words.split_whitespace()).output().unwrap();
        if !made.status.success() {
            println!(
                "this kernel or iproute2 has no {kind}: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            );
            continue;
        }
        let interfaces = listed(&node);
        let interface = find(&interfaces, name);
        assert_eq!((&interface.kind, interface.role, interface.link), (&kind, role, link), "{name}");
    }
    for (name, mode, kind, link) in
        [("tun7", "tun", Kind::Tun, Link::Ip), ("tap7", "tap", Kind::Tap, Link::Ethernet)]
    {
        node.ip(&format!("tuntap add {name} mode {mode}"));
        let interfaces = listed(&node);
        let interface = find(&interfaces, name);
        assert_eq!((&interface.kind, interface.role, interface.link), (&kind, Role::Tunnel, link));
    }
    node.ip("link set v0 master br0");
    node.ip("link set tap7 master br0");
    let interfaces = listed(&node);
    assert_eq!(find(&interfaces, "v0").master, Some(find(&interfaces, "br0").index));
    assert_eq!(find(&interfaces, "v0").role, Role::PodEdge);
    assert_eq!(find(&interfaces, "tap7").role, Role::PodEdge);
    let (w0, w1) = (find(&interfaces, "w0"), find(&interfaces, "w1"));
    assert_eq!((w0.link_index, w1.link_index), (Some(w1.index), Some(w0.index)));
    assert_eq!((w0.link_netnsid, find(&interfaces, "v0").link_netnsid.is_some()), (None, true));
}

#[test]
fn from_within_a_container_its_pair_is_the_uplink() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let pod = &veth.right.namespace;
    assert_eq!(role_of(pod, "right0"), Role::Uplink, "an address in a network, and no default route");
    pod.ip("address flush dev right0");
    assert_eq!(role_of(pod, "right0"), Role::PodEdge, "no address: a node's end of a pod");
    pod.ip("address add 10.99.1.2 peer 10.99.1.1 dev right0");
    assert_eq!(role_of(pod, "right0"), Role::PodEdge, "an address of its own alone");
    pod.ip("route add default via 10.99.1.1 dev right0");
    assert_eq!(role_of(pod, "right0"), Role::Uplink, "an IPv4 default route");
    pod.ip("route del default");
    pod.ip("address add fd99:1::2/128 dev right0 nodad");
    pod.ip("route add default dev right0");
    assert_eq!(role_of(pod, "right0"), Role::Uplink, "a default route without a gateway");
    pod.ip("route del default");
    pod.ip("-6 route add default dev right0");
    assert_eq!(role_of(pod, "right0"), Role::Uplink, "an IPv6 default route");

    let interfaces = listed(pod);
    let index = |name| find(&interfaces, name).index;
    let points = default_points(&interfaces);
    assert_eq!(points, [(index("right0"), Directions::Both), (index("lo"), Directions::Egress)]);
}

#[test]
fn a_containerised_node_tells_its_uplink_from_the_edges_of_its_pods() {
    if !require_root() {
        return;
    }
    let (node, outside, pod) = (Namespace::new(), Namespace::new(), Namespace::new());
    Veth::connect((&outside, "node"), (&node, "eth0"), 1, Neighbours::Static);
    Veth::connect((&node, "pod1"), (&pod, "eth0"), 2, Neighbours::Static);
    node.ip("route add default via 10.99.1.1");
    assert_eq!(role_of(&node, "eth0"), Role::Uplink);
    assert_eq!(role_of(&node, "pod1"), Role::PodEdge);
    node.ip("route del default");
    node.ip("route add default nexthop via 10.99.1.1 nexthop via 10.99.2.2");
    assert_eq!(role_of(&node, "eth0"), Role::Uplink);
    assert_eq!(role_of(&node, "pod1"), Role::Uplink, "one of two ways out");
}

#[test]
fn a_macvlan_in_a_container_is_its_uplink() {
    if !require_root() {
        return;
    }
    let (node, pod) = (Namespace::new(), Namespace::new());
    node.ip("link add d0 type ifb");
    node.ip(&format!("link add eth0 link d0 netns {} type macvlan", pod.path()));
    assert_eq!(role_of(&pod, "eth0"), Role::Uplink);
}

#[test]
fn hundreds_of_interfaces_are_all_listed() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let commands: Vec<_> = (0..400).map(|number| format!("link add many{number} type ifb")).collect();
    namespace.ip_batch(&commands);
    let names: BTreeSet<_> = listed(&namespace).into_iter().map(|interface| interface.name).collect();
    for number in 0..400 {
        assert!(names.contains(format!("many{number}").as_str()), "many{number}");
    }
}

#[test]
fn lists_are_whole_while_interfaces_come_and_go() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let commands: Vec<_> = (0..60).map(|number| format!("link add stay{number} type ifb")).collect();
    namespace.ip_batch(&commands);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                namespace.ip_batch(&["link add come type ifb", "link set come up", "link del come"]);
            }
        });
        let mut interfaces = Interfaces::open(namespace.netns()).unwrap();
        for _ in 0..200 {
            let staying =
                interfaces.list().unwrap().iter().filter(|one| one.name.starts_with("stay")).count();
            assert_eq!(staying, 60);
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_happens_to_an_interface_is_reported_within_a_second() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let mut watcher = Watcher::open(namespace.netns()).unwrap();
    assert!(watcher.interfaces().any(|interface| interface.kind == Kind::Loopback));
    assert_eq!(watcher.next_events().unwrap(), []);

    namespace.ip("link add first type ifb");
    let events = events_until(&mut watcher, |events| has_new(events, "first"));
    let Some(LinkEvent::New(first)) = events.into_iter().next() else { panic!("only one thing happened") };

    namespace.ip("link set first name second");
    let events = events_until(&mut watcher, |events| !events.is_empty());
    let [LinkEvent::Renamed { interface, old_name }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((interface.index, &*interface.name, &**old_name), (first.index, "second", "first"));

    namespace.ip("link set second up");
    let is_up = |event: &LinkEvent| matches!(event, LinkEvent::Changed(interface) if interface.up);
    events_until(&mut watcher, |events| events.iter().any(is_up));

    namespace.ip_batch(&["link del second", "link add second type ifb"]);
    let events = events_until(&mut watcher, |events| has_new(events, "second"));
    assert_eq!(events.first(), Some(&LinkEvent::Removed { index: first.index, name: "second".into() }));
    let again = watcher.interfaces().find(|interface| &*interface.name == "second").unwrap();
    assert_ne!(again.index, first.index);
}

#[test]
fn an_index_that_is_used_again_is_another_interface() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link add same index 77 type ifb");
    let mut watcher = Watcher::open(namespace.netns()).unwrap();
    namespace.ip_batch(&["link del same", "link add same index 77 type ifb"]);
    let events = events_until(&mut watcher, |events| has_new(events, "same"));
    assert!(has_removed(&events, "same"), "{events:?}");
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip_batch(&["link add br0 type bridge", "link add port type ifb", "link set port master br0"]);
    let mut watcher = Watcher::open(namespace.netns()).unwrap();
    namespace.ip("link set port nomaster");
    let left = |event: &LinkEvent| matches!(event, LinkEvent::Changed(one) if &*one.name == "port" && one.master.is_none());
    let events = events_until(&mut watcher, |events| events.iter().any(left));
    assert!(!has_removed(&events, "port"), "{events:?}");
}

#[test]
fn an_interface_that_moves_to_another_namespace_is_gone_here_and_new_there() {
    if !require_root() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.ip("link add d0 type ifb");
    let mut watchers = [&here, &there].map(|namespace| Watcher::open(namespace.netns()).unwrap());
    here.ip(&format!("link set d0 netns {}", there.path()));
    events_until(&mut watchers[0], |events| has_removed(events, "d0"));
    events_until(&mut watchers[1], |events| has_new(events, "d0"));
}

#[test]
fn a_default_route_changes_the_role_without_a_change_of_the_interface() {
    if !require_root() {
        return;
    }
    let (node, outside) = (Namespace::new(), Namespace::new());
    outside.ip(&format!("link add out type veth peer name eth0 netns {}", node.path()));
    node.ip("link set eth0 up");
    let mut watcher = Watcher::open(node.netns()).unwrap();
    assert_eq!(watcher.interfaces().find(|one| &*one.name == "eth0").unwrap().role, Role::PodEdge);
    node.ip("address add 10.99.1.2/32 dev eth0");
    node.ip("link set eth0 arp off");
    outside.ip("link set out up");
    node.ip("route add default dev eth0");
    let is_uplink = |event: &LinkEvent| matches!(event, LinkEvent::Changed(one) if &*one.name == "eth0" && one.role == Role::Uplink);
    events_until(&mut watcher, |events| events.iter().any(is_uplink));
}

#[test]
fn lost_messages_lose_no_interface() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip_batch(&["link add vanishes type ifb", "link add old type ifb"]);
    let mut watcher = Watcher::open(namespace.netns()).unwrap();
    let mut commands: Vec<_> = (0..500).map(|number| format!("link add flood{number} type ifb")).collect();
    for mtu in 1001..1005 {
        commands.extend((0..500).map(|number| format!("link set flood{number} mtu {mtu}")));
    }
    commands.extend(["link del vanishes", "link set old name young"].map(str::to_owned));
    namespace.ip_batch(&commands);
    let events = events_until(&mut watcher, |events| events.len() >= 502);
    assert!(watcher.overruns() > 0, "the flood was too small to test anything");
    for number in 0..500 {
        assert!(has_new(&events, &format!("flood{number}")), "flood{number}");
    }
    assert!(has_removed(&events, "vanishes"));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, LinkEvent::Renamed { old_name, .. } if &**old_name == "old"))
    );
    assert_eq!(watcher.interfaces().cloned().map(|one| one.name).collect::<Vec<_>>(), {
        let listed = listed(&namespace);
        listed.into_iter().map(|one| one.name).collect::<Vec<_>>()
    });
}

#[test]
fn traffic_is_no_event_and_counters_are_read_when_asked() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut watcher = Watcher::open(veth.left.namespace.netns()).unwrap();
    let mut interfaces = Interfaces::open(veth.left.namespace.netns()).unwrap();
    let before = interfaces.stats(veth.left.index).unwrap().unwrap();
    UdpFlow::open(&veth.left, &veth.right, false).send(10, 100);
    let counted = interfaces.stats(veth.left.index).unwrap().unwrap() - before;
    assert_eq!((counted.tx.packets, counted.tx.bytes), (10, 10 * 142));
    assert_eq!((counted.rx.packets, counted.tx.dropped, counted.tx.errors), (0, 0, 0));
    assert_eq!(watcher.next_events().unwrap(), []);
    veth.left.namespace.ip("link del left0");
    assert_eq!(interfaces.stats(veth.left.index).unwrap(), None);
}

#[test]
fn many_flows_count_what_they_send() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut interfaces = Interfaces::open(veth.right.namespace.netns()).unwrap();
    for (ipv6, header) in [(false, 42), (true, 62)] {
        let before = interfaces.stats(veth.right.index).unwrap().unwrap();
        let flows = ManyFlows { ipv6, threads: 2, flows_a_thread: 1000, payload: 64 };
        let sent = flows.run(&veth.left, &veth.right, Until::Rounds(10));
        let counted = interfaces.stats(veth.right.index).unwrap().unwrap() - before;
        assert_eq!(sent.iter().map(|thread| thread.sent.datagrams).sum::<u64>(), 20_000);
        assert_eq!((counted.rx.packets, counted.rx.bytes), (20_000, 20_000 * (64 + header)));
        assert_eq!(counted.tx.packets, 0, "nobody answers");
    }
}

#[test]
fn offloads_are_read_in_the_right_namespace() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let interfaces = Interfaces::open(veth.left.namespace.netns()).unwrap();
    let Some(usual) = interfaces.offloads("left0") else {
        cannot_run("this kernel has no ethtool ioctl");
        return;
    };
    assert_eq!((usual.tso, usual.gro), (true, false));
    veth.left.namespace.offload("left0", "tso off gro on");
    let changed = interfaces.offloads("left0").unwrap();
    assert_eq!((changed.tso, changed.gro), (false, true));
    assert_eq!(interfaces.offloads("right0"), None);
}
