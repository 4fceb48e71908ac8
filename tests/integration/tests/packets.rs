//! The capturing programs, seen from outside: what passed is what is captured, byte for byte, or the ledger says why not.

use weir_datapath::packets::{AttachBy, PacketOptions};
use weir_flow::Direction;
use weir_integration::{Veth, capturing::Capturing, require_root, traffic::UdpFlow};
use weir_packet::Parsed;

const ETHERNET_IPV4_UDP: usize = 14 + 28;

fn every_packet_is_captured(options: &PacketOptions) {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut capturing = Capturing::on(&veth.left, options);
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    flow.send(100, 50);
    flow.reply(40);
    capturing.read(101);
    let finished = capturing.finish();
    assert_eq!(finished.egress.seen.packets, 100);
    assert_eq!(finished.egress.written, finished.egress.seen);
    assert_eq!(finished.ingress.written.packets, 1);
    for packet in &capturing.captured {
        let payload = match packet.direction {
            Direction::Egress => [0x5a; 50].as_slice(),
            Direction::Ingress => &[0xa5; 40],
        };
        assert_eq!(packet.frame[ETHERNET_IPV4_UDP..], *payload);
        assert_eq!(packet.length as usize, ETHERNET_IPV4_UDP + payload.len());
        assert_eq!((packet.segments, packet.wire_bytes), (1, u64::from(packet.length)));
        let Parsed::Ip(headers) = packet.parsed else { panic!("{packet:?}") };
        let ports = match packet.direction {
            Direction::Egress => (flow.source().port(), flow.destination().port()),
            Direction::Ingress => (flow.destination().port(), flow.source().port()),
        };
        assert_eq!((headers.tuple.source_port(), headers.tuple.destination_port()), ports);
        assert_ne!(packet.owner.cookie, 0, "the socket survives the wire: {packet:?}");
    }
}

#[test]
fn every_packet_is_captured_by_tcx() {
    every_packet_is_captured(&PacketOptions::default());
}

#[test]
fn every_packet_is_captured_by_clsact() {
    every_packet_is_captured(&PacketOptions { attach_by: AttachBy::Clsact, ..PacketOptions::default() });
}
