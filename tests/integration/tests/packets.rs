//! The capturing programs, seen from outside: what passed is what is captured, byte for byte, or the ledger says why not.

use std::net::{IpAddr, UdpSocket};

use weir_datapath::packets::{AttachBy, PacketOptions};
use weir_flow::{Direction, filter::Filter};
use weir_integration::{
    Veth,
    capturing::{Capturing, Finished},
    checks,
    frames::{self, FrameSender},
    require_root, require_tool,
    tcpdump::Tcpdump,
    traffic::{UdpFlow, tcp_talk},
};
use weir_packet::{Link, Parsed, parse_bytes, protocol};

#[test]
fn every_packet_is_captured_whatever_the_way_and_the_snap_length() {
    if !require_root() {
        return;
    }
    for attach_by in [AttachBy::Best, AttachBy::Clsact] {
        for snap_length in [1, 13, 60, 128, 129, 256, 1_000, 9_216, 65_536] {
            let options = PacketOptions { attach_by, ..PacketOptions::with_snap_length(snap_length) };
            checks::every_packet_is_captured(&options);
        }
    }
}

/// Traffic of every kind, both ways.
fn mixed_traffic(veth: &Veth) {
    for ipv6 in [false, true] {
        for (from, to) in [(&veth.left, &veth.right), (&veth.right, &veth.left)] {
            let flow = UdpFlow::open(from, to, ipv6);
            flow.send(20, 100);
            flow.send(3, 1);
            // Fragments.
            flow.send(2, 5_000);
            // Nobody listens: the kernel answers with ICMP.
            let socket = from.namespace.run(|| UdpSocket::bind((from.address(ipv6), 0)));
            let socket = socket.expect("the address is ours");
            socket.send_to(b"anybody?", (to.address(ipv6), 9)).expect("there is a route");
        }
        tcp_talk(&veth.left, &veth.right, ipv6, 100_000, 300_000);
    }
    // Frames as they come from nowhere: tags (which the kernel takes off at the other end before anybody looks), things
    // that are not IP, things that are broken.
    for end in [&veth.left, &veth.right] {
        let sender = FrameSender::new(end);
        let udp = frames::udp((end.ipv4, 1), ([10, 99, 1, 250].into(), 2), 64);
        let mut broken = udp.clone();
        broken[14] = 0x42;
        sender.send(&[
            frames::tagged(&udp, &[[0x81, 0, 0x20, 5]]),
            frames::tagged(&udp, &[[0x88, 0xa8, 0, 6], [0x81, 0, 0, 7]]),
            frames::arp(),
            frames::tagged(&frames::arp(), &[[0x81, 0, 0, 9]]),
            broken,
            udp[..30].to_vec(),
            udp,
        ]);
    }
}

/// What Weir and tcpdump saw of the same traffic at the left end of a wire, sorted, by direction.
struct Both {
    capturing: Capturing,
    finished: Finished,
    tcpdump: [Vec<Vec<u8>>; 2],
}

fn side_by_side(offloads: Option<&str>) -> Both {
    let veth = Veth::new();
    if let Some(settings) = offloads {
        for end in [&veth.left, &veth.right] {
            end.namespace.offload(&end.name, settings);
        }
    }
    let mut capturing = Capturing::on(&veth.left, &PacketOptions::with_snap_length(65_536));
    let tcpdumps = Direction::ALL.map(|direction| Tcpdump::on(&veth.left, direction));
    mixed_traffic(&veth);
    capturing.read_until_quiet();
    let finished = capturing.finish();
    let written = [finished.ingress.written, finished.egress.written];
    let [ingress, egress] = tcpdumps;
    let [least_in, least_out] = written.map(|count| usize::try_from(count.packets).expect("it is a count"));
    Both { capturing, finished, tcpdump: [ingress.finish(least_in), egress.finish(least_out)] }
}

fn assert_same(weir: &[&[u8]], tcpdump: &[Vec<u8>], what: &str) {
    let (mut weir, mut tcpdump) = (weir.to_vec(), tcpdump.to_vec());
    weir.sort_unstable();
    tcpdump.sort_unstable();
    assert!(weir.len() > 30, "{what}: only {} frames", weir.len());
    for frame in &tcpdump {
        assert!(weir.contains(&frame.as_slice()), "{what}: weir lacks {frame:02x?}");
    }
    for frame in &weir {
        assert!(tcpdump.iter().any(|other| other == frame), "{what}: tcpdump lacks {frame:02x?}");
    }
    assert_eq!(weir, tcpdump, "{what}");
}

fn is_tcp(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Ip(headers) if headers.tuple.protocol() == protocol::TCP)
}

#[test]
fn weir_and_tcpdump_see_the_same_super_packets() {
    if !require_root() || !require_tool("tcpdump") {
        return;
    }
    let both = side_by_side(None);
    for (direction, tcpdump) in Direction::ALL.into_iter().zip(&both.tcpdump) {
        assert_same(&both.capturing.frames(direction), tcpdump, direction.as_str());
    }
    assert!(both.capturing.captured.iter().any(|packet| packet.segments > 1), "no super-packet");
    assert_eq!(both.finished.ingress.cut.packets + both.finished.egress.cut.packets, 0);
}

#[test]
fn weir_and_tcpdump_see_the_same_frames_without_offloads() {
    if !require_root() || !require_tool("tcpdump") {
        return;
    }
    let both = side_by_side(Some("tso off gso off gro off tx off rx off sg off txvlan off rxvlan off"));
    let [ingress, egress] = &both.tcpdump;
    assert_same(&both.capturing.frames(Direction::Ingress), ingress, "ingress");

    // TCP always hands over super-packets without a checksum. The kernel cuts and completes them behind TC and before
    // tcpdump's place, so these compare by what Weir says that they are on the wire.
    let is_tcp_frame = |frame: &&Vec<u8>| {
        let length = u32::try_from(frame.len()).expect("a frame is short");
        is_tcp(&parse_bytes(frame, length, Link::Ethernet, None, None))
    };
    let (tcp, rest): (Vec<_>, Vec<_>) = egress.iter().partition(is_tcp_frame);
    let sent = || both.capturing.captured.iter().filter(|packet| packet.direction == Direction::Egress);
    let weir_rest: Vec<&[u8]> =
        sent().filter(|packet| !is_tcp(&packet.parsed)).map(|packet| packet.frame.as_slice()).collect();
    let rest: Vec<Vec<u8>> = rest.into_iter().cloned().collect();
    assert_same(&weir_rest, &rest, "egress but TCP");
    let (mut frames, mut bytes) = (0, 0);
    for packet in sent().filter(|packet| is_tcp(&packet.parsed)) {
        frames += packet.segments as usize;
        bytes += packet.wire_bytes;
    }
    let tcpdump_bytes: usize = tcp.iter().map(|frame| frame.len()).sum();
    assert_eq!((frames, bytes), (tcp.len(), tcpdump_bytes as u64), "TCP frames and bytes on the wire");
}

#[test]
fn what_does_not_fit_the_ring_is_lost_and_counted() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let options = PacketOptions { ring_bytes: 4096, ..PacketOptions::default() };
    let mut capturing = Capturing::on(&veth.left, &options);
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    flow.send(1_000, 100);
    flow.reply(100);
    let finished = capturing.finish();
    assert_eq!(finished.egress.seen.packets, 1_000);
    assert!(finished.egress.lost.packets > 900, "{finished:?}");
    assert!(finished.egress.written.packets >= 10, "{finished:?}");
    assert_eq!(finished.ingress.lost.packets, 1, "nobody made room: {finished:?}");
}

#[test]
fn a_filter_keeps_replies_and_counts_the_rest() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let [wanted, other] = [false, true].map(|ipv6| UdpFlow::open(&veth.left, &veth.right, ipv6));
    let filter = format!("dst.port={} and proto=udp", wanted.destination().port());
    let filter = Filter::parse(&filter).unwrap().pushdown();
    let mut capturing = Capturing::on(&veth.left, &PacketOptions { filter, ..PacketOptions::default() });
    wanted.send(10, 100);
    wanted.reply(100);
    other.send(7, 100);
    other.reply(100);
    FrameSender::new(&veth.left).send(&[frames::arp()]);
    capturing.read(11);
    let finished = capturing.finish();
    assert_eq!(finished.egress.written.packets, 10);
    assert_eq!(finished.ingress.written.packets, 1, "the reply has the port as its source");
    assert_eq!(finished.egress.filtered.packets, 8);
    assert_eq!(finished.ingress.filtered.packets, 1);
    let addresses = [veth.left.ipv4, veth.right.ipv4].map(IpAddr::V4);
    for packet in &capturing.captured {
        let Parsed::Ip(headers) = packet.parsed else { panic!("{packet:?}") };
        assert!(addresses.contains(&headers.tuple.source()), "{packet:?}");
    }
}

#[test]
fn nothing_stays_attached() {
    if !require_root() || !require_tool("tc") {
        return;
    }
    for attach_by in [AttachBy::Best, AttachBy::Clsact] {
        let veth = Veth::new();
        let state = || veth.left.namespace.tc(&format!("qdisc show dev {}", veth.left.name));
        let before = state();
        let mut capturing =
            Capturing::on(&veth.left, &PacketOptions { attach_by, ..PacketOptions::default() });
        assert_eq!(state() != before, attach_by == AttachBy::Clsact);
        capturing.finish();
        assert_eq!(state(), before);
        // With the programs gone, packets leave no trace.
        UdpFlow::open(&veth.left, &veth.right, false).send(10, 10);
        let finished = capturing.finish();
        assert_eq!(finished.egress.seen.packets, 0);
    }
}
