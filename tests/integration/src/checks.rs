//! What must hold on every kernel. Run as tests on this one and by `weir-vm-smoke` on others.
//!
//! Each check makes namespaces of its own and panics where something does not hold.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use weir_datapath::{
    dns::DnsPacket,
    flow::{AttachBy, FlowOptions, Hook},
    packets::PacketOptions,
};
use weir_flow::{Count, Direction, Ledger, filter::Filter};
use weir_packet::{Details, Link, Parsed, Tuple, ipv4_words, ipv6_words, protocol};

use crate::{
    Namespace, Veth, blast,
    capturing::Capturing,
    counting::{Counting, Seen, link_counters},
    frames::{self, FrameSender},
    traffic::{UdpFlow, tcp_talk},
    tun::{self, Tun},
};

const ETHERNET: u64 = 14;
const UDP: u64 = 8;

/// The tuple of a UDP flow.
pub fn tuple(flow: &UdpFlow) -> Tuple {
    let words = |address| match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    };
    let (source, destination) = (flow.source(), flow.destination());
    let details = Details::new(source.is_ipv6(), protocol::UDP).with_ports(source.port(), destination.port());
    Tuple::new(words(source.ip()), words(destination.ip()), details)
}

/// Options for each way to see packets: TCX where there is one, clsact, packet sockets.
pub fn ways() -> [(&'static str, FlowOptions); 3] {
    [
        ("the best way", FlowOptions::default()),
        ("clsact", FlowOptions { attach_by: AttachBy::Clsact, ..FlowOptions::default() }),
        ("packet sockets", FlowOptions { hook: Hook::Socket, ..FlowOptions::default() }),
    ]
}

/// On a device without Ethernet headers bytes count from the IP header on, in both directions.
pub fn a_device_without_ethernet_headers_is_counted_exactly(options: &FlowOptions) {
    let (ours, theirs) = (Ipv4Addr::new(10, 99, 9, 1), Ipv4Addr::new(10, 99, 9, 2));
    let namespace = Namespace::new();
    let mut tun = Tun::new(&namespace, ours);
    let mut counting = Counting::load(&namespace, options);
    let points = counting.attach(tun::NAME, tun.index, Link::Ip);
    let [ingress, egress] = points[..] else { panic!("two points, not {points:?}") };

    let socket = namespace.run(|| UdpSocket::bind((ours, 4000))).expect("the address is ours");
    for _ in 0..5 {
        socket.send_to(&[0; 100], (theirs, 5000)).expect("there is a route");
    }
    let frame = frames::udp((theirs, 5000), (ours, 4000), 60);
    for _ in 0..7 {
        tun.receive(&frame[14..]);
    }
    let seen = counting.drain_all();
    for (point, from, to, packets, payload) in
        [(egress, (ours, 4000), (theirs, 5000), 5, 100), (ingress, (theirs, 5000), (ours, 4000), 7, 60)]
    {
        let count = seen.flow(point, frames::udp_tuple(from, to));
        assert_eq!(count, Count { packets, bytes: packets * (20 + UDP + payload) });
        assert_eq!(seen.ledger(point).seen, count, "nothing else passed");
    }
}

/// Datagrams of both families and both directions are counted to the byte, each for its flow.
pub fn udp_is_counted_exactly(options: &FlowOptions) {
    let veth = Veth::new();
    let (mut counting, ingress, egress) = Counting::on(&veth.left, options);
    for (ipv6, ip) in [(false, 20), (true, 40)] {
        counting.seen = Seen::default();
        let flow = UdpFlow::open(&veth.left, &veth.right, ipv6);
        let sent = flow.send(100, 200);
        flow.reply(50);
        let seen = counting.drain_all();

        let expected = Count { packets: sent.datagrams, bytes: sent.datagrams * (ETHERNET + ip + UDP + 200) };
        assert_eq!(seen.flow(egress, tuple(&flow)), expected);
        let answer = Count { packets: 1, bytes: ETHERNET + ip + UDP + 50 };
        assert_eq!(seen.flow(ingress, tuple(&flow).reversed()), answer);
        assert_eq!(seen.ledger(egress).seen, expected);
        assert_eq!(seen.ledger(ingress).seen, answer);
    }
}

/// Datagrams at a DNS port are handed over besides being counted, as much of them as is copied, and others are not.
pub fn datagrams_at_a_dns_port_are_handed_over(options: &FlowOptions) {
    let veth = Veth::new();
    for ipv6 in [false, true] {
        let flow = UdpFlow::open(&veth.left, &veth.right, ipv6);
        let other = UdpFlow::open(&veth.left, &veth.right, ipv6);
        let options = FlowOptions { dns_ports: vec![9, flow.destination().port()], ..options.clone() };
        let (mut counting, ingress, egress) = Counting::on(&veth.left, &options);
        let mut reader = counting.reader.take_dns().expect("there are ports");
        // The first packets of a flow take another way than later ones. The longest come in fragments.
        let lengths = [40, 40, 400, 1000, 3000, 41];
        for length in lengths {
            flow.send(1, length);
            other.send(1, length);
        }
        flow.reply(100);
        let mut seen = Vec::new();
        let read = |packet: &DnsPacket<'_>| {
            assert_eq!(packet.ifindex, veth.left.index);
            let is_query = packet.tuple == tuple(&flow);
            assert!(is_query || packet.tuple == tuple(&flow).reversed(), "{packet:?}");
            let letter = if is_query { 0x5a } else { 0xa5 };
            assert!(packet.body.bytes.iter().all(|byte| *byte == letter), "{packet:?}");
            seen.push((packet.body.bytes.len(), packet.body.is_cut));
        };
        reader.read(read).expect("records are whole");
        let copied = 1280 - 8;
        assert_eq!(
            seen,
            [
                (40, false),
                (40, false),
                (400, false),
                (1000, false),
                (copied, true),
                (41, false),
                (100, false)
            ]
        );
        let ledger = reader.ledger().expect("it can be read");
        assert_eq!((ledger.seen, ledger.written, ledger.lost, ledger.unreadable), (7, 7, 0, 0));
        let seen = counting.drain_all();
        // 3000 bytes are two or three fragments; without ports these are another flow.
        assert_eq!(seen.flow(egress, tuple(&flow)).packets, lengths.len() as u64);
        assert_eq!(seen.flow(ingress, tuple(&flow).reversed()).packets, 1);
    }
}

/// TCP with offloads: frames and bytes of super-packets are those of the wire, and skbs those of the interface.
pub fn super_packets_count_as_the_frames_that_they_are_on_the_wire(bytes: usize) {
    let veth = Veth::new();
    let (mut counting, ingress, egress) = Counting::on(&veth.left, &FlowOptions::default());
    for ipv6 in [false, true] {
        tcp_talk(&veth.left, &veth.right, ipv6, bytes, 3 * bytes);
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

/// A filter in the kernel keeps a flow together with its replies and counts the rest as filtered.
pub fn a_filter_keeps_replies_and_counts_the_rest() {
    let veth = Veth::new();
    let wanted = UdpFlow::open(&veth.left, &veth.right, false);
    let other = UdpFlow::open(&veth.left, &veth.right, false);
    let text = format!("dst.port={} and proto=udp and dst=10.99.1.0/24", wanted.destination().port());
    let filter = Filter::parse(&text).expect("the filter is good").pushdown();
    assert!(!filter.is_empty(), "nothing of {text} runs in the kernel");
    let options = FlowOptions { filter, ..FlowOptions::default() };
    let (mut counting, ingress, egress) = Counting::on(&veth.left, &options);
    for flow in [&wanted, &other] {
        flow.send(10, 100);
        flow.reply(100);
    }
    let seen = counting.drain_all();
    assert_eq!(seen.flow(egress, tuple(&wanted)).packets, 10);
    assert_eq!(seen.flow(ingress, tuple(&wanted).reversed()).packets, 1);
    assert_eq!(seen.flows.len(), 2, "{:?}", seen.flows);
    let frame = ETHERNET + 20 + UDP + 100;
    assert_eq!(seen.ledger(egress).filtered, Count { packets: 10, bytes: 10 * frame });
    assert_eq!(seen.ledger(ingress).filtered, Count { packets: 1, bytes: frame });
}

/// More flows than the table has room for: totals stay exact, then the table grows and detail is whole again.
pub fn a_full_table_loses_detail_and_never_totals_then_grows(flows: u16) {
    let veth = Veth::new();
    let options = FlowOptions {
        memory_bytes: 128 << 20,
        slots: Some(16),
        overflow: Some(256),
        ..FlowOptions::default()
    };
    let (mut counting, _, egress) = Counting::on(&veth.left, &options);
    let sender = FrameSender::new(&veth.left);
    let destination = (Ipv4Addr::new(10, 99, 1, 2), 443);
    let frames: Vec<Vec<u8>> = (0..flows)
        .map(|flow| frames::udp((Ipv4Addr::new(10, 1, 0, 1), flow), destination, usize::from(flow % 99)))
        .collect();
    sender.send(&frames);
    counting.drain();
    let first = counting.seen.ledger(egress);
    assert!(first.overflow.packets > 0, "{first:?}");
    assert_eq!(first.seen.packets, u64::from(flows));

    let start = Instant::now();
    loop {
        sender.send(&frames);
        let before = counting.seen.ledger(egress).overflow;
        counting.drain_all();
        if counting.seen.ledger(egress).overflow == before {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "the table does not grow");
    }
    counting.seen.flows.clear();
    sender.send(&frames);
    counting.drain_all();
    for (flow, frame) in (0..).zip(&frames) {
        let tuple = frames::udp_tuple((Ipv4Addr::new(10, 1, 0, 1), flow), destination);
        let expected = Count { packets: 1, bytes: frame.len() as u64 };
        assert_eq!(counting.seen.flow(egress, tuple), expected, "{tuple:?}");
    }
}

/// Every CPU sends at full rate while both generations are drained; the link counters agree to the last byte.
pub fn a_short_blast_is_counted_to_the_last_byte(time: Duration) {
    let veth = Veth::new();
    let (mut counting, _, egress) = Counting::on(&veth.left, &FlowOptions::default());
    let stop = AtomicBool::new(false);
    let sent: u64 = thread::scope(|scope| {
        let senders = blast::udp(scope, (&veth.left, &veth.right), false, 64, &stop);
        let start = Instant::now();
        while start.elapsed() < time {
            counting.drain();
        }
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().expect("it sends").datagrams).sum()
    });
    let drains = counting.seen.drains;
    let ledger = counting.drain_all().ledger(egress);
    assert_eq!(ledger.flows.packets, sent);
    assert_eq!(link_counters(&veth.left, Direction::Egress), (ledger.skbs, ledger.skb_bytes));
    assert_eq!(ledger.overflow, Ledger::default().overflow);
    println!("{sent} datagrams sent and counted, {drains} drains");
}

/// Every packet of both directions is captured whole, with its addresses, and the ledger has each.
pub fn every_packet_is_captured(options: &PacketOptions) {
    let veth = Veth::new();
    let mut capturing = Capturing::on(&veth.left, options);
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    // Less than the smallest class, and more than the largest but one.
    for payload in [50, 20_000] {
        flow.send(10, payload);
    }
    flow.reply(40);
    // 20,000 bytes are 14 fragments of at most 1,480.
    let sent = 10 + 10 * 14;
    capturing.read(sent + 1);
    let finished = capturing.finish();
    assert_eq!(finished.egress.written, finished.egress.seen);
    assert_eq!(finished.egress.seen.packets, sent as u64);
    assert_eq!(finished.ingress.written.packets, 1);
    let snap_length = options.snap_length as usize;
    for packet in &capturing.captured {
        assert_eq!((packet.segments, packet.wire_bytes), (1, u64::from(packet.length)));
        assert_eq!(packet.frame.len(), (packet.length as usize).min(snap_length));
        let Parsed::Ip(headers) = packet.parsed else { panic!("{packet:?}") };
        let (expected, letter) = match packet.direction {
            Direction::Egress => (tuple(&flow), 0x5a),
            Direction::Ingress => (tuple(&flow).reversed(), 0xa5),
        };
        let is_later_fragment = headers.tuple.is_fragment();
        assert!(is_later_fragment || headers.tuple == expected, "{packet:?}");
        let payload = packet.frame.get(headers.header_length as usize..).unwrap_or_default();
        assert!(payload.iter().all(|byte| *byte == letter), "{packet:?}");
        // An answer brings its sender's socket along over the wire.
        assert_ne!(packet.owner.cookie, 0, "{packet:?}");
    }
}
