//! The counting programs, seen from outside: what was sent is what is counted, and every packet has a place.

use weir_datapath::flow::{AttachBy, FlowOptions, Hook};
use weir_flow::{Count, Direction};
use weir_integration::{
    Veth,
    counting::{Counting, link_counters},
    require_root,
    traffic::{UdpFlow, tcp_talk},
};
use weir_packet::Tuple;

const ETHERNET: u64 = 14;
const IPV4_UDP: u64 = 28;

fn tuple(flow: &UdpFlow) -> Tuple {
    use std::net::IpAddr;
    use weir_packet::{Details, ipv4_words, ipv6_words, protocol};
    let words = |address| match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    };
    let (source, destination) = (flow.source(), flow.destination());
    let details = Details::new(source.is_ipv6(), protocol::UDP).with_ports(source.port(), destination.port());
    Tuple::new(words(source.ip()), words(destination.ip()), details)
}

fn udp_is_counted_exactly(options: &FlowOptions) {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let (mut counting, ingress, egress) = Counting::on(&veth.left, options);
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    let sent = flow.send(100, 200);
    flow.reply(50);
    let seen = counting.drain_all();

    let length = ETHERNET + IPV4_UDP + 200;
    let expected = Count { packets: sent.datagrams, bytes: sent.datagrams * length };
    assert_eq!(seen.flow(egress, tuple(&flow)), expected);
    let answer = Count { packets: 1, bytes: ETHERNET + IPV4_UDP + 50 };
    assert_eq!(seen.flow(ingress, tuple(&flow).reversed()), answer);
    assert_eq!(seen.ledger(egress).seen, expected);
    assert_eq!(seen.ledger(ingress).seen, answer);
}

#[test]
fn udp_is_counted_exactly_by_tcx() {
    udp_is_counted_exactly(&FlowOptions::default());
}

#[test]
fn udp_is_counted_exactly_by_clsact() {
    udp_is_counted_exactly(&FlowOptions { attach_by: AttachBy::Clsact, ..FlowOptions::default() });
}

#[test]
fn udp_is_counted_exactly_by_packet_sockets() {
    udp_is_counted_exactly(&FlowOptions { hook: Hook::Socket, ..FlowOptions::default() });
}

#[test]
fn super_packets_count_as_the_frames_that_they_are_on_the_wire() {
    if !require_root() {
        return;
    }
    for ipv6 in [false, true] {
        let veth = Veth::new();
        let (mut counting, ingress, egress) = Counting::on(&veth.left, &FlowOptions::default());
        tcp_talk(&veth.left, &veth.right, ipv6, 1_000_000, 3_000_000);
        let seen = counting.drain_all();
        for (point, direction) in [(ingress, Direction::Ingress), (egress, Direction::Egress)] {
            let ledger = seen.ledger(point);
            assert_eq!(link_counters(&veth.left, direction), (ledger.skbs, ledger.skb_bytes));
            assert!(ledger.seen.packets > ledger.skbs, "no super-packet was seen: {ledger:?}");
            assert!(ledger.seen.bytes > ledger.skb_bytes);
            assert_eq!(ledger.seen, ledger.flows);
        }
    }
}
