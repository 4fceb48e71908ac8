//! What interfaces count themselves, compared with what the counting programs see.

use std::time::{Duration, Instant};

use weir_datapath::{
    flow::FlowOptions,
    interface::{Interface, Interfaces},
    witness::{Agreement, Class, Counted, NoWitness, class, compare},
};
use weir_flow::{Direction, PointId};
use weir_integration::{
    Namespace, Veth,
    counting::Counting,
    require_root,
    traffic::{ManyFlows, UdpFlow, Until, tcp_talk},
};

/// Longest time that packets may be on their way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything about one interface that is counted in both directions.
struct Watched {
    counting: Counting,
    points: [PointId; 2],
    interfaces: Interfaces,
    start: Interface,
}

impl Watched {
    fn new(namespace: &Namespace, name: &str) -> Self {
        let mut interfaces = Interfaces::open(namespace.netns()).expect("reading needs no privilege");
        let mut counting = Counting::load(namespace, &FlowOptions::default());
        let find = |interfaces: &mut Interfaces| {
            let all = interfaces.list().expect("reading needs no privilege");
            all.into_iter().find(|one| &*one.name == name).expect("we just made it")
        };
        let found = find(&mut interfaces);
        let points = counting.attach(name, found.index, found.link);
        let points = points.try_into().expect("two directions");
        let start = find(&mut interfaces);
        Self { counting, points, interfaces, start }
    }

    /// Compares both directions, ingress first.
    fn agreements(&mut self) -> [Agreement; 2] {
        let seen = self.counting.drain_all().clone();
        let end = self.interfaces.stats(self.start.index).expect("it can be read").expect("it is there");
        let counted = Counted::exactly(self.start.stats, end);
        let offloads = self.interfaces.offloads(&self.start.name);
        let one = |direction, point| {
            let class = class(&self.start, offloads, direction);
            compare(class, direction, &seen.ledger(point), &counted)
        };
        let [ingress, egress] = self.points;
        [one(Direction::Ingress, ingress), one(Direction::Egress, egress)]
    }

    /// In the end they agree: the kernel may still be about to take in what was sent last.
    fn check(&mut self, classes: [Class; 2]) {
        let expected = classes.map(|class| Agreement { class, skbs_difference: 0, bytes_difference: 0 });
        let end = Instant::now() + PATIENCE;
        let mut agreements = self.agreements();
        while agreements != expected && Instant::now() < end {
            agreements = self.agreements();
        }
        assert_eq!(agreements, expected, "{}", self.start.name);
        let seen = &self.counting.seen;
        assert!(self.points.iter().all(|point| seen.ledger(*point).skbs > 0), "both directions had traffic");
    }
}

/// Small and large packets, super-packets by TCP and by UDP, both directions, both families.
fn everything(veth: &Veth) {
    for ipv6 in [false, true] {
        tcp_talk(&veth.left, &veth.right, ipv6, 500_000, 500_000);
        let flow = UdpFlow::open(&veth.left, &veth.right, ipv6);
        flow.send(100, 10);
        flow.send(100, 1400);
        flow.reply(700);
    }
}

#[test]
fn both_ends_of_a_pair_are_exact_witnesses() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    for end in [&veth.left, &veth.right] {
        let mut watched = Watched::new(&end.namespace, &end.name);
        everything(&veth);
        UdpFlow::open(&veth.left, &veth.right, false).send_super(50, 40, 1000);
        UdpFlow::open(&veth.right, &veth.left, true).send_super(50, 40, 1000);
        watched.check([Class::Exact; 2]);
    }
}

#[test]
fn loopback_is_an_exact_witness_but_for_the_ethernet_header() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let namespace = &veth.left.namespace;
    let mut watched = Watched::new(namespace, "lo");
    let inside = Veth { left: veth.left.clone(), right: veth.left.clone() };
    everything(&inside);
    watched.check([Class::ExactMinusEthernet, Class::Between]);

    // Below that size nothing is cut up.
    namespace.ip("link set lo mtu 9000");
    let mut watched = Watched::new(namespace, "lo");
    everything(&inside);
    watched.check([Class::ExactMinusEthernet; 2]);
}

#[test]
fn without_segmentation_offload_a_pair_cuts_up_some_of_what_it_sends() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    veth.left.namespace.offload("left0", "tso off");
    let mut watched = Watched::new(&veth.left.namespace, "left0");
    everything(&veth);
    UdpFlow::open(&veth.left, &veth.right, false).send_super(50, 40, 1000);
    watched.check([Class::Exact, Class::Between]);
}

#[test]
fn with_receive_offload_a_pair_counts_before_it_joins() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    veth.left.namespace.offload("left0", "gro on");
    veth.right.namespace.offload("right0", "tso off");
    let mut near = Watched::new(&veth.left.namespace, "left0");
    let mut far = Watched::new(&veth.right.namespace, "right0");
    everything(&veth);
    UdpFlow::open(&veth.right, &veth.left, false).send_super(50, 40, 1000);
    near.check([Class::Between, Class::Exact]);
    far.check([Class::Exact, Class::Between]);
}

#[test]
fn a_far_end_that_polls_makes_no_alarm() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    veth.right.namespace.offload("right0", "gro on");
    let mut watched = Watched::new(&veth.left.namespace, "left0");
    everything(&veth);
    watched.check([Class::Exact; 2]);
}

#[test]
fn a_queueing_discipline_is_no_witness_of_what_is_sent() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    veth.left.namespace.tc("qdisc add dev left0 root pfifo limit 1000");
    let mut watched = Watched::new(&veth.left.namespace, "left0");
    everything(&veth);
    watched.check([Class::Exact, Class::None(NoWitness::QueueingDiscipline)]);
}

#[test]
fn a_bridge_counts_the_packets_that_pass_it() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let namespace = &veth.left.namespace;
    namespace.ip_batch(&[
        "link add br0 type bridge mcast_snooping 0",
        "address flush dev left0",
        "link set left0 master br0 arp on",
        "link set br0 address 02:00:00:00:01:01 arp off up",
        "address add 10.99.1.1/24 dev br0",
        "address add fd99:1::1/64 dev br0 nodad",
        "neigh replace 10.99.1.2 lladdr 02:00:00:00:01:02 nud permanent dev br0",
        "neigh replace fd99:1::2 lladdr 02:00:00:00:01:02 nud permanent dev br0",
    ]);
    let mut watched = Watched::new(namespace, "br0");
    everything(&veth);
    watched.check([Class::Skbs; 2]);
}

#[test]
fn what_the_far_end_refuses_makes_no_alarm() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut watched = Watched::new(&veth.left.namespace, "left0");
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    flow.send(10, 100);
    // The carrier goes with the far end, but the interface itself stays up for a moment in which packets are lost.
    veth.right.namespace.ip("link set right0 down");
    for _ in 0..10 {
        flow.sender.send(&[0; 100]).ok();
    }
    let [ingress, egress] = watched.agreements();
    assert!(!ingress.is_alarm() && !egress.is_alarm(), "{ingress:?} {egress:?}");
}

#[test]
fn an_exact_witness_agrees_under_load_within_its_readings() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut watched = Watched::new(&veth.left.namespace, "left0");
    let flows = ManyFlows { ipv6: false, threads: 2, flows_a_thread: 500, payload: 64 };
    flows.run(&veth.left, &veth.right, Until::Rounds(200));
    UdpFlow::open(&veth.right, &veth.left, false).send(1, 1);
    watched.check([Class::Exact; 2]);
}
