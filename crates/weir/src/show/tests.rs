use clap::Parser as _;
use insta::assert_snapshot;
use weir_flow::{
    Counters, Detail, Direction, Endpoint, Identity, Initiator, Monotonic, Outcome, Point, PointId, Quality,
    SocketOwner, Traffic, Tuple, Wall,
};
use weir_packet::{Details, ipv4_words, protocol};

use super::*;
use crate::cli::{Cli, Command};

/// Bytes of one packet each way, to these last numbers of 10.0.0.0/24.
fn record(role: Role, destination: (u8, u16), (forward, reverse): (u64, u64)) -> Record {
    let details = Details::new(false, protocol::TCP).with_ports(40_000, destination.1);
    let tuple = Tuple::new(ipv4_words([10, 0, 0, 1]), ipv4_words([10, 0, 0, destination.0]), details);
    let traffic =
        |bytes| Traffic { bytes, packets: 1, tcp_flags: 0x10, last_length: 60, ..Traffic::default() };
    let end = |address, port| Endpoint {
        address,
        port,
        owner: SocketOwner::default(),
        process: None,
        identity: Identity::default(),
    };
    let counters = Counters { forward: traffic(forward), reverse: traffic(reverse) };
    Record {
        tuple,
        source: end(tuple.source(), tuple.source_port()),
        destination: end(tuple.destination(), tuple.destination_port()),
        point: std::sync::Arc::new(Point {
            id: PointId(0),
            netns: None,
            ifindex: 1,
            interface: "eth0".into(),
            direction: Direction::Egress,
            role,
        }),
        delta: counters,
        total: counters,
        start: Wall::default(),
        end: Wall::default(),
        first: Monotonic::default(),
        last: Monotonic::default(),
        initiator: Initiator::Proven,
        end_reason: None,
        detail: Detail::Flow,
        outcome: Outcome::default(),
        quality: Quality::default(),
        dns: None,
    }
}

fn records() -> Vec<Record> {
    vec![
        record(Role::Uplink, (2, 443), (100, 1_000)),
        record(Role::Uplink, (3, 443), (200, 20_000)),
        record(Role::PodEdge, (2, 443), (300, 300)),
        record(Role::Uplink, (2, 53), (60, 60)),
    ]
}

fn shown(arguments: &[&str]) -> String {
    let cli = Cli::try_parse_from([&["weir", "watch"], arguments].concat()).unwrap();
    let Some(Command::Watch(args)) = cli.command else { panic!("it says watch") };
    let mut printer = Printer::new(&args.show, None).unwrap();
    let mut out = String::new();
    let time = |_: &Record| "23:33:50".to_owned();
    printer.begin(&mut out);
    for record in records() {
        printer.take(record, &time, &mut out);
    }
    printer.end(&Room { length: Duration::from_secs(1), width: 100, lines: None }, &time, &mut out);
    out
}

#[test]
fn top_ends_with_the_others_of_each_role() {
    assert_snapshot!(shown(&["-o", "log", "--top", "1"]), @"
    ---
    [23:33:50] TCP 10.0.0.1->10.0.0.3 40000->443 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.3->10.0.0.1 443->40000 [ACK] (len=60) count=1
    (others, pod-edge) flows=1 packets=2 bytes=600
    (others, uplink) flows=2 packets=4 bytes=1220
    ");
    assert_snapshot!(shown(&["-o", "log", "--top", "9"]), @"
    ---
    [23:33:50] TCP 10.0.0.1->10.0.0.3 40000->443 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.3->10.0.0.1 443->40000 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.1->10.0.0.2 40000->443 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.2->10.0.0.1 443->40000 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.1->10.0.0.2 40000->443 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.2->10.0.0.1 443->40000 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.1->10.0.0.2 40000->53 [ACK] (len=60) count=1
    [23:33:50] TCP 10.0.0.2->10.0.0.1 53->40000 [ACK] (len=60) count=1
    (others) flows=0 packets=0 bytes=0
    ");
    assert_snapshot!(shown(&["--top", "1"]), @"
    SOURCE              DESTINATION   PROTO  INTERFACE  SENT/s  BACK/s  PACKETS  TOTAL  AGE  FLAGS
    10.0.0.1:40000      10.0.0.3:443  tcp    eth0 out      200   20.0k        2  20.2k   0s  ACK
    (others, pod-edge)  1 flow                             300     300        2
    (others, uplink)    2 flows                            160   1.06k        4
    total pod-edge: 1 flow, in 300B/s, out 300B/s, 2 packets
    total uplink: 3 flows, in 21.0kB/s, out 360B/s, 6 packets
    ");
}

#[test]
fn groups_never_add_up_different_roles() {
    assert_snapshot!(shown(&["-o", "json", "--group-by", "dport"]), @r#"
    {"destination.port":443,"flow.observation":"uplink","flow.count":2,"flow.packets":2,"flow.bytes":300,"flow.reverse.packets":2,"flow.reverse.bytes":21000}
    {"destination.port":443,"flow.observation":"pod-edge","flow.count":1,"flow.packets":1,"flow.bytes":300,"flow.reverse.packets":1,"flow.reverse.bytes":300}
    {"destination.port":53,"flow.observation":"uplink","flow.count":1,"flow.packets":1,"flow.bytes":60,"flow.reverse.packets":1,"flow.reverse.bytes":60}
    "#);
    assert_snapshot!(shown(&["-o", "csv", "--group-by", "flow.observation,dst", "--top", "2"]), @"
    flow.observation,destination.address,flow.detail,flow.count,flow.packets,flow.bytes,flow.reverse.packets,flow.reverse.bytes
    uplink,10.0.0.3,,1,1,200,1,20000
    uplink,10.0.0.2,,2,2,160,2,1060
    pod-edge,,others,1,1,300,1,300
    ");
    assert_snapshot!(shown(&["--group-by", "dport,proto"]), @"
    DESTINATION.PORT  NETWORK.TRANSPORT  ROLE      FLOWS  SENT/s  BACK/s  PACKETS
    443               tcp                uplink        2     300   21.0k        4
    443               tcp                pod-edge      1     300     300        2
    53                tcp                uplink        1      60      60        2
    total pod-edge: 1 flow, in 300B/s, out 300B/s, 2 packets
    total uplink: 3 flows, in 21.0kB/s, out 360B/s, 6 packets
    ");
}

#[test]
fn the_log_refuses_groups() {
    let cli = Cli::try_parse_from(["weir", "-o", "log", "--group-by", "dst"]).unwrap();
    assert!(Printer::new(&cli.watch.show, None).is_err());
}

#[test]
fn a_table_keeps_no_more_records_than_it_shows_and_no_sum_is_lost() {
    let cli = Cli::try_parse_from(["weir", "watch"]).unwrap();
    let Some(Command::Watch(args)) = cli.command else { panic!("it says watch") };
    let mut printer = Printer::new(&args.show, Some(2)).unwrap();
    let mut out = String::new();
    printer.begin(&mut out);
    for number in 0..10_000 {
        let role = if number % 2 == 0 { Role::Uplink } else { Role::Tunnel };
        let size = 60 + u64::from(number);
        printer.take(record(role, (2, number), (size, 0)), &|_| String::new(), &mut out);
        assert!(printer.kept.len() <= 1024);
    }
    printer.end(
        &Room { length: Duration::from_secs(1), width: 100, lines: None },
        &|_| String::new(),
        &mut out,
    );
    assert_snapshot!(out, @"
    SOURCE            DESTINATION    PROTO  INTERFACE  SENT/s  BACK/s  PACKETS  TOTAL  AGE  FLAGS
    10.0.0.1:40000    10.0.0.2:9999  tcp    eth0 out    10.0k       0        2  10.0k   0s  ACK
    10.0.0.1:40000    10.0.0.2:9998  tcp    eth0 out    10.0k       0        2  10.0k   0s  ACK
    (others, uplink)  4.99k flows                       25.2M       0    9.99k
    (others, tunnel)  4.99k flows                       25.2M       0    9.99k
    total uplink: 5.00k flows, in 0B/s, out 25.2MB/s, 10.0k packets
    total tunnel: 5.00k flows, in 0B/s, out 25.3MB/s, 10.0k packets
    ");
}
