//! Exactness while both generations are written at full rate. Runs alone: it takes every CPU.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use weir_datapath::flow::FlowOptions;
use weir_flow::{Count, Direction, Ledger, PointId};
use weir_integration::{
    Veth, VethEnd, blast,
    counting::{Counting, link_counters},
    frames::{self, FrameSender},
    require_root, require_tool,
};

/// ARP requests among the datagrams of a blast.
const ARP_REQUESTS: u64 = 10;

/// Times that each tagged flow sends.
const ROUNDS: u64 = 200;

/// Flows for a table that is too small for them.
const FLOWS: u32 = 50_000;

const DRAIN_EVERY: Duration = Duration::from_millis(100);

/// So often both sides are drained at least while datagrams are sent.
const DRAINS: usize = 20;

/// Drains both sides every 100 ms while `work` runs, which may look how often, and twice after it.
fn drain_during<T: Send>(sides: [&mut Counting; 2], work: impl FnOnce(&AtomicUsize) -> T + Send) -> T {
    let [left, right] = sides;
    let drains = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, running) = mpsc::sync_channel::<()>(0);
        let worker = scope.spawn(|| {
            let result = work(&drains);
            drop(done);
            result
        });
        while running.recv_timeout(DRAIN_EVERY) == Err(RecvTimeoutError::Timeout) {
            left.drain();
            right.drain();
            drains.fetch_add(1, Ordering::Relaxed);
        }
        left.drain_all();
        right.drain_all();
        worker.join().expect("the traffic does not fail")
    })
}

struct Wire {
    veth: Veth,
    left: Counting,
    right: Counting,
    points: [[PointId; 2]; 2],
}

impl Wire {
    fn new() -> Self {
        let veth = Veth::new();
        let (left, left_in, left_out) = Counting::on(&veth.left, &FlowOptions::default());
        let (right, right_in, right_out) = Counting::on(&veth.right, &FlowOptions::default());
        Self { veth, left, right, points: [[left_in, left_out], [right_in, right_out]] }
    }

    /// Every point agrees with the counters of its interface, and nothing was left out.
    fn check(&self, extra_non_ip: u64) {
        let sides: [(&VethEnd, &Counting); 2] =
            [(&self.veth.left, &self.left), (&self.veth.right, &self.right)];
        for ((end, counting), points) in sides.into_iter().zip(self.points) {
            for (point, direction) in points.into_iter().zip(Direction::ALL) {
                let ledger = counting.seen.ledger(point);
                let what = format!("{} {direction}: {ledger:?}", end.name);
                assert_eq!(link_counters(end, direction), (ledger.skbs, ledger.skb_bytes), "{what}");
                let flows =
                    counting.seen.flows_of(point).fold(Count::default(), |sum, (_, count)| sum + *count);
                assert_eq!(flows, ledger.flows, "{what}");
                let nothing = Count::default();
                let Ledger { filtered, duplicate, parse_error, overflow, non_ip, .. } = ledger;
                assert_eq!([filtered, duplicate, parse_error, overflow], [nothing; 4], "{what}");
                let expected =
                    if (end.name == "left0") == (direction == Direction::Egress) { extra_non_ip } else { 0 };
                assert_eq!(non_ip.packets, expected, "{what}");
            }
            assert_eq!(counting.seen.unlisted, Ledger::default());
        }
    }
}

fn udp_blast(ipv6: bool, time: Duration) {
    if !require_root() {
        return;
    }
    let mut wire = Wire::new();
    let Wire { veth, left, right, .. } = &mut wire;
    let arp = FrameSender::new(&veth.left);
    let stop = AtomicBool::new(false);
    let veth: &Veth = veth;
    let stop = &stop;
    let sent: u64 = drain_during([left, right], move |drains| {
        thread::scope(|scope| {
            let senders = blast::udp(scope, (&veth.left, &veth.right), ipv6, 64, stop);
            arp.send(&(0..ARP_REQUESTS).map(|_| frames::arp()).collect::<Vec<_>>());
            let (_timer, timeout) = mpsc::sync_channel::<()>(0);
            assert_eq!(timeout.recv_timeout(time), Err(RecvTimeoutError::Timeout));
            // The senders take what there is of the processors.
            let end = Instant::now() + Duration::from_mins(2);
            while drains.load(Ordering::Relaxed) < DRAINS && Instant::now() < end {
                assert_eq!(timeout.recv_timeout(DRAIN_EVERY), Err(RecvTimeoutError::Timeout));
            }
            stop.store(true, Ordering::Relaxed);
            senders.into_iter().map(|sender| sender.join().expect("it sends").datagrams).sum()
        })
    });
    wire.check(ARP_REQUESTS);
    let ledger = wire.left.seen.ledger(wire.points[0][1]);
    assert_eq!(ledger.flows.packets, sent, "the generator's own count");
    let drains = wire.left.seen.drains;
    println!("{sent} datagrams, {} a second, {drains} drains, difference 0", sent / time.as_secs().max(1));
    assert!(drains > DRAINS, "only {drains} drains while {sent} datagrams were sent");
}

#[test]
fn udp_from_every_cpu_is_counted_to_the_last_byte() {
    udp_blast(false, Duration::from_secs(20));
}

#[test]
fn udp_over_ipv6_from_every_cpu_is_counted_to_the_last_byte() {
    udp_blast(true, Duration::from_secs(5));
}

#[test]
fn tcp_with_super_packets_is_counted_to_the_last_byte() {
    if !require_root() || !require_tool("iperf3") {
        return;
    }
    let mut wire = Wire::new();
    let Wire { veth, left, right, .. } = &mut wire;
    let (client, server) = (&veth.left, &veth.right);
    drain_during([left, right], move |_| iperf3(client, server, &server.ipv4.to_string()));
    wire.check(0);
    let ledger = wire.left.seen.ledger(wire.points[0][1]);
    assert!(ledger.seen.packets > 2 * ledger.skbs, "offloads are on: {ledger:?}");
}

/// The kernel of a test machine need not have VLAN devices, so the tags are made by hand. They are inline when they
/// leave, and the receiving side strips the outermost before TC sees the frame.
#[test]
fn tagged_traffic_is_counted_to_the_last_byte() {
    if !require_root() {
        return;
    }
    let mut wire = Wire::new();
    let Wire { veth, left, right, .. } = &mut wire;
    let sender = FrameSender::new(&veth.left);
    let ends = |flow: u16| ((Ipv4Addr::new(10, 1, 0, 1), 1000 + flow), (Ipv4Addr::new(10, 99, 1, 2), 443));
    // A plain tag, and a service tag in front of one.
    let tags: [&[[u8; 4]]; 2] = [&[[0x81, 0, 0x20, 7]], &[[0x88, 0xa8, 0, 42], [0x81, 0, 0, 7]]];
    let frames: Vec<Vec<u8>> = (0..1000)
        .map(|flow| {
            let (source, destination) = ends(flow);
            let frame = frames::udp(source, destination, usize::from(flow));
            frames::tagged(&frame, tags[usize::from(flow % 2)])
        })
        .collect();
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let frames = &frames;
    drain_during([left, right], move |_| (0..ROUNDS).for_each(|_| sender.send(frames)));

    let total = Count { packets: 1000 * ROUNDS, bytes: bytes as u64 * ROUNDS };
    let sides = [
        (&wire.veth.left, &wire.left, wire.points[0][1], Direction::Egress, 0),
        (&wire.veth.right, &wire.right, wire.points[1][0], Direction::Ingress, 4 * total.packets),
    ];
    for (end, counting, point, direction, stripped) in sides {
        let ledger = counting.seen.ledger(point);
        assert_eq!((ledger.seen, ledger.flows), (total, total), "{direction}");
        assert_eq!(link_counters(end, direction), (ledger.skbs, ledger.skb_bytes + stripped), "{direction}");
        for (tuple, count) in counting.seen.flows_of(point) {
            let flow = tuple.source_port() - 1000;
            assert_eq!(tuple.vlan(), Some(if flow % 2 == 0 { 7 } else { 42 }), "{tuple:?}");
            let length = frames[usize::from(flow)].len() as u64;
            assert_eq!(*count, Count { packets: ROUNDS, bytes: ROUNDS * length });
        }
        assert_eq!(counting.seen.flows_of(point).count(), 1000);
    }
}

/// Two seconds of TCP in both directions.
fn iperf3(client: &VethEnd, server: &VethEnd, address: &str) {
    let mut serving = server
        .namespace
        .command("iperf3")
        .args(["-s", "-1", "--forceflush", "-B", address])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("iperf3 starts");
    let mut line = String::new();
    let mut output = std::io::BufReader::new(serving.stdout.take().expect("it is piped"));
    while !line.contains("listening") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut output, &mut line).expect("it is text");
        assert!(read > 0, "iperf3 ended before it listened");
    }
    client.namespace.tool("iperf3", &format!("-c {address} -t 2 -P 2 --bidir"));
    drop(output);
    serving.wait().expect("iperf3 ends");
}

#[test]
fn a_table_that_is_too_small_loses_detail_and_never_totals_then_grows() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let options = FlowOptions {
        memory_bytes: 256 << 20,
        slots: Some(16),
        overflow: Some(256),
        ..FlowOptions::default()
    };
    let (mut counting, _, egress) = Counting::on(&veth.left, &options);
    let sender = FrameSender::new(&veth.left);
    let ends = |flow: u32| {
        let [_, high, middle, low] = flow.to_be_bytes();
        let port = 1024 + u16::try_from(flow % 50_000).expect("it is below 50,000");
        ((Ipv4Addr::new(10, 1 + high, middle, low), port), (Ipv4Addr::new(10, 99, 1, 2), 443))
    };
    let frame = |flow: u32, round: u32| {
        let (source, destination) = ends(flow);
        frames::udp(source, destination, ((flow * 7 + round * 13) % 400) as usize)
    };

    let round: Vec<Vec<u8>> = (0..FLOWS).map(|flow| frame(flow, 0)).collect();
    sender.send(&round);
    counting.drain();
    let first = counting.seen.ledger(egress);
    assert!(first.overflow.packets > 0, "{first:?}");
    assert_eq!(first.seen.packets, u64::from(FLOWS));

    let start = Instant::now();
    loop {
        sender.send(&round);
        let before = counting.seen.ledger(egress).overflow;
        counting.drain_all();
        if counting.seen.ledger(egress).overflow == before {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "the table did not grow: {:?}",
            counting.seen.overflow_capacity
        );
    }
    println!("grown to {} entries after {:?}", counting.seen.overflow_capacity, start.elapsed());

    counting.seen.flows.clear();
    let overflow = counting.seen.ledger(egress).overflow;
    let mut expected = HashMap::new();
    for number in 1..=3 {
        let frames: Vec<Vec<u8>> = (0..FLOWS).map(|flow| frame(flow, number)).collect();
        for (flow, frame) in (0..).zip(&frames) {
            let (source, destination) = ends(flow);
            let count = Count { packets: 1, bytes: frame.len() as u64 };
            *expected.entry(frames::udp_tuple(source, destination)).or_insert(Count::default()) += count;
        }
        sender.send(&frames);
        counting.drain();
    }
    counting.drain_all();
    assert_eq!(counting.seen.ledger(egress).overflow, overflow, "no detail was lost after the growth");
    let wrong =
        expected.iter().filter(|(tuple, count)| counting.seen.flow(egress, **tuple) != **count).count();
    assert_eq!((wrong, counting.seen.flows_of(egress).count()), (0, FLOWS as usize));
}
