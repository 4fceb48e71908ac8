//! Timelines: packets and ticks as text, records as text.
//!
//! A packet: `0.5 eth0 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74`, that is time in seconds, interface, direction, ends,
//! protocol, TCP flags (`-` for none) and wire length, then perhaps `x3` (three packets) or `cookie=7`. A tick:
//! `tick 1`. The end: `finish 2`.
//!
//! A record: `1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth0/egress +1+0 =1+0 74B proven`, that is the time of the tick, the
//! forward direction and its point, packets since the last record each way, packets in all each way, bytes in all both
//! ways, how the source was chosen, and the end reason, if any.

use std::{fmt::Write as _, net::Ipv4Addr, sync::Arc, time::Duration};

use weir_packet::{Details, Tuple, ipv4_words, protocol};

use crate::{
    Detail, Direction, FlowTable, Monotonic, Observation, Point, PointId, Record, Role, SocketOwner,
    TableConfig, Tick, Traffic, Wall,
};

/// Wall time of monotonic zero.
pub(super) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// Feeds a timeline to a table of default settings and compares the records.
#[track_caller]
pub(super) fn check(timeline: &str, expect: &str) {
    check_with(FlowTable::new(TableConfig::default()), timeline, expect);
}

/// Feeds a timeline to this table and compares the records.
#[track_caller]
pub(super) fn check_with(mut table: FlowTable, timeline: &str, expect: &str) {
    let got: Vec<String> =
        play(&mut table, timeline).iter().map(|(at, record)| describe(*at, record)).collect();
    let expect: Vec<&str> = expect.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(got, expect, "\n{}\n", got.join("\n"));
}

/// Feeds a timeline to a table and returns its records with the times of their ticks.
pub(super) fn play(table: &mut FlowTable, timeline: &str) -> Vec<(Tick, Record)> {
    let mut records = Vec::new();
    for line in timeline.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let drained = match words.as_slice() {
            ["tick", at] => table.tick(tick(at)),
            ["finish", at] => table.finish(tick(at)),
            ["remove", interface] => {
                table.remove_point(point(interface, "in").id);
                table.remove_point(point(interface, "out").id);
                continue;
            }
            [at, interface, direction, packet @ ..] => {
                for direction in ["in", "out"] {
                    table.set_point(Arc::new(point(interface, direction)));
                }
                table.observe(&observation(at, &point(interface, direction), packet));
                continue;
            }
            _ => panic!("neither a packet nor a tick: {line}"),
        };
        assert!(drained.balance.is_balanced(), "{:?}", drained.balance);
        assert_eq!(table.balance(), drained.balance);
        let at = words[1];
        records.extend(drained.records.into_iter().map(|record| (tick(at), record)));
    }
    records
}

fn describe(at: Tick, record: &Record) -> String {
    let mut text = format!("{}: ", at.monotonic.0 / 1_000_000_000);
    let names = [(protocol::TCP, "tcp"), (protocol::UDP, "udp"), (protocol::ICMP, "icmp")];
    let number = record.tuple.protocol();
    text += names.iter().find(|(known, _)| *known == number).map_or("other", |(_, name)| name);
    let (delta, total) = (record.delta, record.total);
    write!(
        text,
        " {}:{} > {}:{} {}/{} +{}+{} ={}+{} {}B {}",
        record.tuple.source(),
        record.tuple.source_port(),
        record.tuple.destination(),
        record.tuple.destination_port(),
        record.point.interface,
        record.point.direction,
        delta.forward.packets,
        delta.reverse.packets,
        total.forward.packets,
        total.reverse.packets,
        total.count().bytes,
        format!("{:?}", record.initiator).to_lowercase(),
    )
    .expect("writing to a string cannot fail");
    if let Some(reason) = record.end_reason {
        write!(text, " {}", format!("{reason:?}").to_lowercase()).expect("writing to a string cannot fail");
    }
    if record.detail == Detail::Folded {
        text += " folded";
    }
    text
}

fn nanoseconds(seconds: &str) -> u64 {
    let duration = Duration::from_secs_f64(seconds.parse().expect("time"));
    u64::try_from(duration.as_nanos()).expect("the time is small")
}

pub(super) fn tick(at: &str) -> Tick {
    let monotonic = Monotonic(nanoseconds(at));
    Tick { monotonic, wall: Wall(0) + EPOCH + Duration::from_nanos(monotonic.0) }
}

/// The point of an interface whose name ends in its number.
pub(super) fn point(interface: &str, direction: &str) -> Point {
    let ifindex = interface.bytes().last().map_or(0, |digit| u32::from(digit & 0xf));
    let (direction, number) = match direction {
        "in" => (Direction::Ingress, 2 * ifindex),
        "out" => (Direction::Egress, 2 * ifindex + 1),
        other => panic!("neither in nor out: {other}"),
    };
    Point {
        id: PointId(number),
        netns: None,
        ifindex,
        interface: interface.into(),
        direction,
        role: if interface.starts_with("lo") { Role::Loopback } else { Role::Other },
    }
}

fn observation(at: &str, point: &Point, packet: &[&str]) -> Observation {
    let [source, ">", destination, protocol_name, flags, length, extra @ ..] = packet else {
        panic!("not a packet: {packet:?}");
    };
    let (source, source_port) = end(source);
    let (destination, destination_port) = end(destination);
    let details = match *protocol_name {
        "tcp" => Details::new(false, protocol::TCP),
        "udp" => Details::new(false, protocol::UDP),
        "ping" => Details::new(false, protocol::ICMP).with_icmp_query(),
        "icmp" => Details::new(false, protocol::ICMP),
        other => panic!("unknown protocol {other}"),
    };
    let (mut packets, mut owner) = (1, SocketOwner::default());
    for word in extra {
        if let Some(times) = word.strip_prefix('x') {
            packets = times.parse().expect("number of packets");
        } else if let Some(cookie) = word.strip_prefix("cookie=") {
            owner.cookie = cookie.parse().expect("cookie");
        }
    }
    let bits = [('F', 1), ('S', 2), ('R', 4), ('P', 8), ('A', 16)];
    let tcp_flags =
        bits.iter().filter(|(letter, _)| flags.contains(*letter)).fold(0, |sum, (_, bit)| sum | bit);
    let length: u32 = length.parse().expect("length");
    let bytes = packets * u64::from(length);
    Observation {
        tuple: Tuple::new(source, destination, details.with_ports(source_port, destination_port)),
        point: point.id,
        traffic: Traffic {
            bytes,
            packets,
            skbs: packets,
            skb_bytes: bytes,
            last_length: length,
            tcp_flags,
            last_tcp_flags: tcp_flags,
            syn: u32::from(tcp_flags & 0x12 == 2),
            fin_rst: u32::from(tcp_flags & 5 != 0),
            dscp: 0,
            ttl: 64,
        },
        first: Monotonic(nanoseconds(at)),
        last: Monotonic(nanoseconds(at)),
        owner,
    }
}

fn end(text: &str) -> ([u64; 2], u16) {
    let (address, port) = text.split_once(':').expect("address:port");
    let address: Ipv4Addr = address.parse().expect("address");
    (ipv4_words(address.octets()), port.parse().expect("port"))
}
