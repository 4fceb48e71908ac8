//! A node that forwards: what was counted where it came in is no traffic of its own where it leaves.

use std::net::{IpAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt::IpTransparent};
use weir_datapath::flow::{Device, FlowOptions};
use weir_flow::{Ledger, PointId, Role};
use weir_integration::{Namespace, Neighbours, Veth, counting::Counting, require_root, traffic::UdpFlow};
use weir_packet::Link;

const PAYLOAD: usize = 64;

/// A pod, a node that forwards, and a host outside.
struct Route {
    node: Namespace,
    /// Left is the pod, right the node.
    edge: Veth,
    /// Left is the node, right the host outside.
    uplink: Veth,
}

impl Route {
    fn new() -> Self {
        let (pod, node, outside) = (Namespace::new(), Namespace::new(), Namespace::new());
        let edge = Veth::connect((&pod, "eth0"), (&node, "pod0"), 1, Neighbours::Static);
        let uplink = Veth::connect((&node, "eth0"), (&outside, "node0"), 2, Neighbours::Static);
        pod.ip(&format!("route add default via {}", edge.right.ipv4));
        outside.ip(&format!("route add default via {}", uplink.left.ipv4));
        node.sysctl("net/ipv4/ip_forward", "1");
        Self { node, edge, uplink }
    }

    /// A flow from the pod to the host outside.
    fn through(&self) -> UdpFlow {
        let (from, to) = (&self.edge.left, &self.uplink.right);
        UdpFlow::between((&from.namespace, IpAddr::V4(from.ipv4)), (&to.namespace, IpAddr::V4(to.ipv4)))
    }

    /// Counts at the node's way out, and says where.
    fn counting(&self) -> (Counting, PointId) {
        let mut counting = Counting::load(&self.node, &FlowOptions::default());
        let [_, egress] = counting.attach_deduplicating(&self.uplink.left);
        (counting, egress)
    }
}

/// What a point saw since the last look.
fn news(counting: &mut Counting, point: PointId, before: &mut Ledger) -> (u64, u64) {
    let now = counting.drain_all().ledger(point);
    let news = (now.flows.packets - before.flows.packets, now.duplicate.packets - before.duplicate.packets);
    *before = now;
    news
}

#[test]
fn forwarded_packets_are_duplicates_while_they_are_counted_where_they_come_in() {
    if !require_root() {
        return;
    }
    let route = Route::new();
    let (mut counting, egress) = route.counting();
    let flow = route.through();
    let mut before = Ledger::default();
    flow.send(10, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (10, 0), "nothing else is counted yet");

    let [ingress, _] = counting.attach_deduplicating(&route.edge.right);
    flow.send(20, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (0, 20));
    assert_eq!(counting.seen.ledger(ingress).flows.packets, 20);

    assert!(counting.detach(&route.edge.right));
    flow.send(30, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (30, 0), "it is counted nowhere else any more");
}

#[test]
fn packets_of_one_tuple_are_told_apart_by_where_they_came_from() {
    if !require_root() {
        return;
    }
    let route = Route::new();
    let (mut counting, egress) = route.counting();
    counting.attach_deduplicating(&route.edge.right);
    let through = route.through();
    // The node sends with the pod's address and port, as it does for what it fragments or translates.
    let own = route.node.run(|| {
        route.node.sysctl("net/ipv4/ip_nonlocal_bind", "1");
        UdpSocket::bind(through.source()).expect("any address may be bound")
    });
    setsockopt(&own, IpTransparent, &true).expect("root may");
    own.connect(through.destination()).expect("there is a route");
    let mut before = Ledger::default();
    for round in 1..=3 {
        through.send(10 * round, PAYLOAD);
        for _ in 0..round {
            own.send(&[0; PAYLOAD]).expect("the host outside listens");
        }
        assert_eq!(news(&mut counting, egress, &mut before), (round, 10 * round), "round {round}");
    }
}

#[test]
fn a_bridge_can_be_marked_as_counted_at_its_ports() {
    if !require_root() {
        return;
    }
    let route = Route::new();
    let (mut counting, egress) = route.counting();
    let edge = &route.edge.right;
    let device =
        |role| Device { index: edge.index, name: edge.name.as_str().into(), link: Link::Ethernet, role };
    let flow = route.through();
    let mut before = Ledger::default();
    counting.attacher.mark_counted(&device(Role::Other)).expect("it is not attached");
    flow.send(10, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (0, 10));
    counting.attacher.mark_counted(&device(Role::PodEdge)).expect("it is not attached");
    flow.send(15, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (15, 0), "each role counts for itself");
    counting.attacher.unmark_counted(edge.index);
    flow.send(20, PAYLOAD);
    assert_eq!(news(&mut counting, egress, &mut before), (20, 0));
}

#[test]
fn an_interface_that_is_attached_again_at_once_counts_anew() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let (mut counting, _, first) = Counting::on(&veth.left, &FlowOptions::default());
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    flow.send(10, PAYLOAD);
    assert!(counting.detach(&veth.left));
    let [_, second] = counting.attach_deduplicating(&veth.left);
    flow.send(3, PAYLOAD);
    let seen = counting.drain_all();
    assert_eq!(seen.ledger(first).flows.packets, 10, "these were not read yet when it came back");
    assert_eq!(seen.ledger(second).flows.packets, 3);
    for _ in 0..3 {
        counting.drain();
    }
    flow.send(4, PAYLOAD);
    assert_eq!(
        counting.drain_all().ledger(second).flows.packets,
        7,
        "the end of the first is not the end of it"
    );
}
