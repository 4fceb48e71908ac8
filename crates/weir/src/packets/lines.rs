//! A single packet as people and programs see it: as a record that filters understand, as a line, as JSON.

use std::{fmt::Write as _, sync::Arc};

use weir_datapath::packets::Packet;
use weir_flow::{
    Counters, Detail, Direction, End, Endpoint, Identity, Initiator, Outcome, Process, ProcessConfidence,
    ProcessLookup, Quality, Record, SocketOwner, Traffic,
    field::{Field, TcpFlags, Value},
    format::{self, printable},
};
use weir_packet::{Headers, Parsed};

use crate::clock;

/// Fields of a record that say something about a packet.
const FIELDS: [&str; 27] = [
    "network.interface.name",
    "network.netns",
    "flow.direction",
    "flow.observation",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "network.transport",
    "network.type",
    "flow.vlan",
    "flow.tcp.flags",
    "flow.icmp.type",
    "flow.icmp.code",
    "flow.ip.dscp",
    "flow.ip.ttl",
    "flow.fragment",
    "flow.truncated",
    "flow.community_id",
    "source.process.pid",
    "source.process.executable.name",
    "source.process.confidence",
    "source.socket.cookie",
    "source.cgroup.id",
    "destination.process.pid",
    "destination.process.executable.name",
    "destination.process.confidence",
];

/// The flow that this packet alone would be, or `None` if it is not IP. The source is who sent it.
pub(crate) fn record(packet: &Packet<'_>, processes: Option<&dyn ProcessLookup>) -> Option<Record> {
    let Parsed::Ip(headers) = packet.parsed else { return None };
    let Headers { tuple, tcp_flags, dscp, ttl, .. } = headers;
    let traffic = Traffic {
        bytes: packet.wire_bytes,
        packets: packet.segments.into(),
        skbs: 1,
        skb_bytes: packet.length.into(),
        last_length: packet.length,
        tcp_flags,
        last_tcp_flags: tcp_flags,
        dscp,
        ttl,
        ..Traffic::default()
    };
    let counters = Counters { forward: traffic, reverse: Traffic::default() };
    let endpoint = |tuple: weir_flow::Tuple, owner: SocketOwner| {
        let end = End { owner, tuple, point: packet.point };
        let port = if tuple.has_ports() { tuple.source_port() } else { 0 };
        let process = processes.and_then(|processes| processes.process(&end));
        Endpoint { address: tuple.source(), port, owner, process, identity: Identity::default() }
    };
    Some(Record {
        tuple,
        source: endpoint(tuple, packet.owner),
        destination: endpoint(tuple.reversed(), SocketOwner::default()),
        point: Arc::clone(packet.point),
        delta: counters,
        total: counters,
        start: packet.wall,
        end: packet.wall,
        first: packet.time,
        last: packet.time,
        initiator: Initiator::FirstPacket,
        end_reason: None,
        detail: Detail::Flow,
        outcome: Outcome::default(),
        quality: Quality::default(),
        dns: None,
    })
}

/// Appends one line: `23:33:50.123456 eth0 out TCP 10.0.0.5->10.0.0.6 55136->443 [ACK] (len=66) curl > nginx`.
pub(crate) fn text(packet: &Packet<'_>, record: Option<&Record>, out: &mut String) {
    let way = match packet.point.direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    let time = clock::local_time_of_packet(packet.wall);
    write!(out, "{time} {} {way} ", printable(&packet.point.interface)).expect("a string takes any text");
    match (record, packet.parsed) {
        (Some(record), _) => flow(record, out),
        (None, Parsed::NonIp { ethertype }) => match name(ethertype) {
            Some(name) => out.push_str(name),
            None => write!(out, "ethertype={ethertype:#06x}").expect("a string takes any text"),
        },
        (None, _) => out.push_str("malformed"),
    }
    write!(out, " (len={})", packet.length).expect("a string takes any text");
    for note in notes(packet, record) {
        out.push(' ');
        out.push_str(&note);
    }
    out.push('\n');
}

fn flow(record: &Record, out: &mut String) {
    format::conversation(&record.tuple, TcpFlags(record.delta.forward.tcp_flags), out);
    if let Some(vlan) = record.tuple.vlan() {
        write!(out, " vlan={vlan}").expect("a string takes any text");
    }
}

/// Names of the types that one meets (IEEE registration authority).
const fn name(ethertype: u16) -> Option<&'static str> {
    Some(match ethertype {
        // The type field of such a frame is its length.
        0 => "802.3",
        0x0806 => "ARP",
        0x8035 => "RARP",
        0x8847 | 0x8848 => "MPLS",
        0x8863 | 0x8864 => "PPPoE",
        0x888e => "EAPOL",
        0x88cc => "LLDP",
        _ => return None,
    })
}

/// What else is worth saying: which processes, and that it is a super-packet.
fn notes(packet: &Packet<'_>, record: Option<&Record>) -> Vec<String> {
    let mut notes: Vec<String> = record.map(processes).into_iter().flatten().collect();
    if packet.is_super() {
        notes.push(format!("super-packet: {} frames, {} bytes", packet.segments, packet.wire_bytes));
    }
    notes
}

/// The comment in a capture file; empty if there is nothing to say.
pub(crate) fn comment(packet: &Packet<'_>, record: Option<&Record>) -> String {
    notes(packet, record).join("; ")
}

fn processes(record: &Record) -> Option<String> {
    let name = |process: &Process| {
        let mark = if process.confidence == ProcessConfidence::Proven { "" } else { "?" };
        format!("{}({}){mark}", printable(&process.executable), process.pid)
    };
    let source = record.source.process.as_deref().map(name);
    let destination = record.destination.process.as_deref().map(name);
    match (source, destination) {
        (None, None) => None,
        (source, destination) => {
            Some(format!("{}>{}", source.unwrap_or_default(), destination.unwrap_or_default()))
        }
    }
}

/// Appends one JSON object. Numbers of the packet begin with `packet.`, everything else is named as for flows.
pub(crate) fn json(packet: &Packet<'_>, record: Option<&Record>, out: &mut String) {
    let integer = |number: u64| Value::Integer(number);
    let (kind, ethertype) = match packet.parsed {
        Parsed::Ip(_) => ("ip", Value::Absent),
        Parsed::NonIp { ethertype } => ("non-ip", integer(ethertype.into())),
        Parsed::Malformed => ("malformed", Value::Absent),
    };
    let text = |text: &str| Value::Text(text.to_owned().into());
    let own = [
        ("packet.time", Value::Timestamp(packet.wall)),
        ("packet.kind", text(kind)),
        ("packet.ethertype", ethertype),
        ("packet.length", integer(packet.length.into())),
        ("packet.captured", integer(packet.frame.len() as u64)),
        ("packet.segments", integer(packet.segments.into())),
        ("packet.wire_bytes", integer(packet.wire_bytes)),
    ];
    if let Some(record) = record {
        let fields = FIELDS.iter().filter_map(|name| Field::by_name(name));
        format::json_object(own.into_iter().chain(fields.map(|it| (it.name, it.value(record)))), out);
        return;
    }
    let place = [
        ("network.interface.name", text(&packet.point.interface)),
        ("flow.direction", text(packet.point.direction.as_str())),
        ("flow.observation", text(packet.point.role.as_str())),
    ];
    format::json_object(own.into_iter().chain(place), out);
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use weir_flow::{Monotonic, Point, PointId, Role, Wall};
    use weir_packet::{Details, Link, Tuple, ipv4_words, protocol};

    use super::*;

    /// Everything of this machine is curl's.
    struct Curl;

    impl ProcessLookup for Curl {
        fn process(&self, end: &End<'_>) -> Option<Arc<Process>> {
            let confidence = ProcessConfidence::Proven;
            let process = || Arc::new(Process { pid: 4711, executable: "curl\x1b".into(), confidence });
            (end.owner.cookie != 0).then(process)
        }
    }

    fn shown(parsed: Parsed, segments: u32) -> (String, String) {
        let point = Arc::new(Point {
            id: PointId(1),
            netns: None,
            ifindex: 1,
            interface: "eth0".into(),
            direction: Direction::Egress,
            role: Role::Uplink,
        });
        let packet = Packet {
            point: &point,
            link: Link::Ethernet,
            time: Monotonic(0),
            wall: Wall(1_700_000_000_123_456_789),
            owner: SocketOwner { cookie: 5, cgroup: 0 },
            parsed,
            segments,
            wire_bytes: 66 * u64::from(segments),
            length: 66,
            frame: &[0; 60],
        };
        let record = record(&packet, Some(&Curl));
        let (mut line, mut object) = (String::new(), String::new());
        text(&packet, record.as_ref(), &mut line);
        json(&packet, record.as_ref(), &mut object);
        // The time of day depends on the zone of this machine.
        (line.split_once(' ').unwrap().1.to_owned(), object)
    }

    fn tcp() -> Parsed {
        let details = Details::new(false, protocol::TCP).with_ports(55136, 443);
        let tuple = Tuple::new(ipv4_words([10, 0, 0, 5]), ipv4_words([10, 0, 0, 6]), details);
        Parsed::Ip(Headers { tuple, header_length: 66, tcp_flags: 0x12, dscp: 0, ttl: 64 })
    }

    #[test]
    fn a_packet_is_one_line() {
        assert_snapshot!(shown(tcp(), 1).0, @"eth0 out TCP 10.0.0.5->10.0.0.6 55136->443 [SYN|ACK] (len=66) curl?(4711)>");
        assert_snapshot!(shown(tcp(), 45).0, @"eth0 out TCP 10.0.0.5->10.0.0.6 55136->443 [SYN|ACK] (len=66) curl?(4711)> super-packet: 45 frames, 2970 bytes");
        assert_snapshot!(shown(Parsed::NonIp { ethertype: 0x0806 }, 1).0, @"eth0 out ARP (len=66)");
        assert_snapshot!(shown(Parsed::Malformed, 1).0, @"eth0 out malformed (len=66)");
    }

    #[test]
    fn a_packet_is_one_object() {
        assert_snapshot!(shown(tcp(), 1).1, @r#"{"packet.time":"2023-11-14T22:13:20.123456789Z","packet.kind":"ip","packet.length":66,"packet.captured":60,"packet.segments":1,"packet.wire_bytes":66,"network.interface.name":"eth0","flow.direction":"egress","flow.observation":"uplink","source.address":"10.0.0.5","source.port":55136,"destination.address":"10.0.0.6","destination.port":443,"network.transport":"tcp","network.type":"ipv4","flow.tcp.flags":"SYN|ACK","flow.ip.dscp":0,"flow.ip.ttl":64,"flow.fragment":false,"flow.truncated":false,"flow.community_id":"1:3cNyUGNaGpP/Xzb6UOETJKQWokM=","source.process.pid":4711,"source.process.executable.name":"curl\u001b","source.process.confidence":"proven","source.socket.cookie":5}"#);
        assert_snapshot!(shown(Parsed::NonIp { ethertype: 0x0806 }, 1).1, @r#"{"packet.time":"2023-11-14T22:13:20.123456789Z","packet.kind":"non-ip","packet.ethertype":2054,"packet.length":66,"packet.captured":60,"packet.segments":1,"packet.wire_bytes":66,"network.interface.name":"eth0","flow.direction":"egress","flow.observation":"uplink"}"#);
    }

    #[test]
    fn every_field_of_a_packet_exists() {
        for name in FIELDS {
            assert!(Field::by_name(name).is_some(), "{name}");
        }
    }
}
