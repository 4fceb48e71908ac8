//! The table itself.

use std::borrow::Cow;

use super::{
    Cardinality::{self, High, Low, Medium},
    Field, Kind, TcpFlags, Value, names,
};
use crate::{
    Detail, Dns, Endpoint, Record, ResponseCode, TcpFailure, Traffic, Unknown, WorkloadConfidence,
    community_id,
};

const TCP: u8 = weir_packet::protocol::TCP;

/// Every field of a [`Record`], in the order in which outputs and docs list them.
pub const FIELDS: &[Field] = &[
    Field::new("flow.start", Kind::Timestamp, "First packet of the flow.", |record| {
        Value::Timestamp(record.start)
    }),
    Field::new("flow.end", Kind::Timestamp, "Last packet of the flow so far, of either direction.", |record| {
        Value::Timestamp(record.end)
    }),
    Field::new("flow.duration", Kind::Duration, "From the first packet to the last, on the monotonic clock.", |record| {
        Value::Duration(record.last - record.first)
    })
    .unit("seconds"),
    Field::new("source.address", Kind::Address, "Address of the side that opened the flow.", |record| {
        address(record, &record.source)
    })
    .groupable(High),
    Field::new("source.port", Kind::Port, "Its port; TCP, UDP and SCTP only.", |record| {
        port(record, &record.source)
    })
    .groupable(High),
    Field::new("destination.address", Kind::Address, "Address of the other side.", |record| {
        address(record, &record.destination)
    })
    .groupable(High),
    Field::new("destination.port", Kind::Port, "Its port; TCP, UDP and SCTP only.", |record| {
        port(record, &record.destination)
    })
    .groupable(Medium),
    Field::new(
        "network.transport",
        Kind::Protocol,
        "Protocol above IP: its keyword (`tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `gre`, …), or its IANA number where \
         it has no common one.",
        |record| Value::Protocol(record.tuple.protocol()),
    )
    .groupable(Low),
    Field::new("network.type", Kind::Text, "Version of IP.", |record| {
        Value::text(Some(if record.tuple.is_ipv6() { "ipv6" } else { "ipv4" }))
    })
    .values(&["ipv4", "ipv6"])
    .groupable(Low),
    Field::new("network.interface.name", Kind::Text, "Interface that the packets passed.", |record| {
        Value::text(Some(&record.point.interface))
    })
    .groupable(Medium),
    Field::new(
        "network.netns",
        Kind::Text,
        "Network namespace of the interface, where it is not Weir's own.",
        |record| Value::text(record.point.netns.as_deref()),
    )
    .groupable(Medium),
    Field::new(
        "flow.direction",
        Kind::Text,
        "Which way packets from source to destination pass the interface, seen from the node. Those of the reverse \
         direction pass it the other way.",
        |record| Value::text(Some(record.point.direction.as_str())),
    )
    .values(&["ingress", "egress"])
    .groupable(Low),
    Field::new(
        "flow.observation",
        Kind::Text,
        "Role of the interface. Counters of one role may be added, those of different roles may not.",
        |record| Value::text(Some(record.point.role.as_str())),
    )
    .values(&["pod-edge", "uplink", "tunnel", "loopback", "bridge", "other"])
    .groupable(Low),
    Field::new("flow.bytes", Kind::Bytes, "Bytes from source to destination since the previous record.", |record| {
        Value::Integer(record.delta.forward.bytes)
    })
    .counter("bytes"),
    Field::new("flow.packets", Kind::Integer, "Frames from source to destination since the previous record.", |record| {
        Value::Integer(record.delta.forward.packets)
    })
    .counter("packets"),
    Field::new(
        "flow.skbs",
        Kind::Integer,
        "Packets from source to destination as the kernel handed them over, in which a super-packet of segmentation \
         offload is one; for comparison with the counters of the interface.",
        |record| Value::Integer(record.delta.forward.skbs),
    )
    .counter("packets"),
    Field::new("flow.reverse.bytes", Kind::Bytes, "Like `flow.bytes`, from destination to source.", |record| {
        Value::Integer(record.delta.reverse.bytes)
    })
    .counter("bytes"),
    Field::new("flow.reverse.packets", Kind::Integer, "Like `flow.packets`, from destination to source.", |record| {
        Value::Integer(record.delta.reverse.packets)
    })
    .counter("packets"),
    Field::new("flow.reverse.skbs", Kind::Integer, "Like `flow.skbs`, from destination to source.", |record| {
        Value::Integer(record.delta.reverse.skbs)
    })
    .counter("packets"),
    Field::new("flow.total.bytes", Kind::Bytes, "Bytes from source to destination since the flow was first seen.", |record| {
        Value::Integer(record.total.forward.bytes)
    })
    .unit("bytes"),
    Field::new("flow.total.packets", Kind::Integer, "Frames from source to destination since the flow was first seen.", |record| {
        Value::Integer(record.total.forward.packets)
    })
    .unit("packets"),
    Field::new("flow.reverse.total.bytes", Kind::Bytes, "Like `flow.total.bytes`, from destination to source.", |record| {
        Value::Integer(record.total.reverse.bytes)
    })
    .unit("bytes"),
    Field::new("flow.reverse.total.packets", Kind::Integer, "Like `flow.total.packets`, from destination to source.", |record| {
        Value::Integer(record.total.reverse.packets)
    })
    .unit("packets"),
    Field::new(
        "flow.last_length",
        Kind::Bytes,
        "Length on the wire of the last frame from source to destination; of a super-packet, that of a full segment.",
        |record| seen(&record.total.forward, |traffic| Value::Integer(traffic.last_length.into())),
    )
    .unit("bytes"),
    Field::new(
        "flow.tcp.flags",
        Kind::Flags,
        "TCP flags of all packets from source to destination since the flow was first seen, or-ed: `SYN|ACK`, or \
         `none`.",
        |record| tcp_flags(record, &record.total.forward),
    )
    .groupable(Medium),
    Field::new("flow.reverse.tcp.flags", Kind::Flags, "Like `flow.tcp.flags`, from destination to source.", |record| {
        tcp_flags(record, &record.total.reverse)
    })
    .groupable(Medium),
    Field::new(
        "flow.tcp.failure",
        Kind::Text,
        "How the connection failed: the SYN was answered by RST, or by nothing at all until the flow was over, or it was \
         established and then ended by RST. Absent where it did not fail, or where nobody can know.",
        |record| Value::text(record.outcome.tcp_failure.map(TcpFailure::as_str)),
    )
    .values(&["refused", "unanswered", "reset"])
    .groupable(Low),
    Field::new(
        "flow.unanswered",
        Kind::Boolean,
        "Whether the source sent and nothing came back until the flow was over. Absent until that is known; where answers \
         need not pass this interface or may be counted elsewhere; and of multicast, broadcast and addresses that may be.",
        |record| record.outcome.is_unanswered.map_or(Value::Absent, Value::Boolean),
    )
    .groupable(Low),
    Field::new(
        "flow.tcp.rtt",
        Kind::Duration,
        "Smoothed round-trip time, as the kernel knew it when it was last asked, of the socket of the source; of the \
         destination where only that is on this machine.",
        |record| record.quality.rtt.map_or(Value::Absent, Value::Duration),
    )
    .unit("seconds"),
    Field::new(
        "flow.tcp.minimum_rtt",
        Kind::Duration,
        "Smallest round-trip time of the last five minutes, from the same socket.",
        |record| record.quality.minimum_rtt.map_or(Value::Absent, Value::Duration),
    )
    .unit("seconds"),
    Field::new(
        "flow.tcp.retransmits",
        Kind::Integer,
        "Segments that the socket of the source sent again, SYN included, since the previous record. Absent where the \
         source is not on this machine or its socket is not known.",
        |record| Value::integer(record.quality.retransmits),
    )
    .counter("segments"),
    Field::new(
        "flow.reverse.tcp.retransmits",
        Kind::Integer,
        "Like `flow.tcp.retransmits`, by the socket of the destination.",
        |record| Value::integer(record.quality.reverse_retransmits),
    )
    .counter("segments"),
    Field::new("dns.question.name", Kind::Text, "Name that the last DNS message of the flow asked for, or answered.", |record| {
        Value::text(names::question(record).map(|question| &*question.name))
    })
    .groupable(High),
    Field::new("dns.question.type", Kind::Text, "Type of the records that it wanted: `A`, `AAAA`, …; `TYPE1234` where a number has no name.", |record| {
        names::question(record).map_or(Value::Absent, |question| Value::Text(question.record_type.name()))
    })
    .groupable(Low),
    Field::new("dns.response_code", Kind::Text, "Code of the last DNS response of the flow.", |record| {
        Value::text(dns(record).and_then(|dns| dns.response_code).map(ResponseCode::name))
    })
    .values(ResponseCode::NAMES)
    .groupable(Low),
    Field::new(
        "dns.lookup.duration",
        Kind::Duration,
        "Longest time from a DNS query to its response, from where the query was seen first to where the response was: of \
         the responses since the previous record, or, where there were none, of the last ones before.",
        |record| dns(record).and_then(|dns| dns.lookup_duration).map_or(Value::Absent, Value::Duration),
    )
    .unit("seconds"),
    Field::new("flow.dns.queries", Kind::Integer, "DNS queries since the previous record.", |record| {
        Value::integer(dns(record).map(|dns| dns.queries))
    })
    .counter("queries"),
    Field::new("flow.dns.responses", Kind::Integer, "DNS responses since the previous record whose query was seen.", |record| {
        Value::integer(dns(record).map(|dns| dns.responses))
    })
    .counter("responses"),
    Field::new("flow.dns.failures", Kind::Integer, "Those of them whose code is not `NOERROR`.", |record| {
        Value::integer(dns(record).map(|dns| dns.failures))
    })
    .counter("responses"),
    Field::new(
        "flow.dns.unanswered",
        Kind::Integer,
        "DNS queries that got no response for five seconds, where these ended since the previous record.",
        |record| Value::integer(dns(record).map(|dns| dns.unanswered)),
    )
    .counter("queries"),
    Field::new("flow.icmp.type", Kind::Integer, "Type of ICMP or ICMPv6.", |record| {
        Value::integer(icmp(record).map(|(kind, _)| kind))
    })
    .groupable(Medium),
    Field::new("flow.icmp.code", Kind::Integer, "Code of ICMP or ICMPv6.", |record| {
        Value::integer(icmp(record).map(|(_, code)| code))
    })
    .groupable(Medium),
    Field::new("flow.ip.dscp", Kind::Integer, "Differentiated services code point of the last packet from source to destination.", |record| {
        seen(&record.total.forward, |traffic| Value::Integer(traffic.dscp.into()))
    })
    .groupable(Low),
    Field::new("flow.ip.ttl", Kind::Integer, "Time to live, or hop limit, of the last packet from source to destination.", |record| {
        seen(&record.total.forward, |traffic| Value::Integer(traffic.ttl.into()))
    })
    .groupable(Medium),
    Field::new("flow.vlan", Kind::Integer, "Identifier of the outermost VLAN tag.", |record| {
        Value::integer(record.tuple.vlan())
    })
    .groupable(Medium),
    Field::new(
        "flow.fragment",
        Kind::Boolean,
        "Whether these are later fragments of IP packets, whose ports nobody can know.",
        |record| Value::Boolean(record.tuple.is_fragment()),
    )
    .groupable(Low),
    Field::new(
        "flow.truncated",
        Kind::Boolean,
        "Whether the transport header lies so deep in the packets that it was not read, so that ports are unknown.",
        |record| Value::Boolean(record.tuple.is_truncated()),
    )
    .groupable(Low),
    Field::new(
        "flow.community_id",
        Kind::Text,
        "Community ID version 1, the same for both directions, by which other tools know the flow.",
        |record| match record.detail {
            Detail::Flow => Value::Text(Cow::Owned(community_id(&record.tuple))),
            Detail::Folded => Value::Absent,
        },
    )
    .groupable(High),
    Field::new(
        "flow.end_reason",
        Kind::Text,
        "Why the flow is over; absent while it goes on.",
        |record| Value::text(record.end_reason.map(names::end_reason)),
    )
    .values(&["idle", "fin", "reset", "shutdown"])
    .groupable(Low),
    Field::new(
        "flow.initiator.confidence",
        Kind::Text,
        "How the source was chosen: it was seen to open the flow, the other side listens, it sent the first packet \
         seen, or the other side has the lower port.",
        |record| Value::text(Some(names::initiator(record.initiator))),
    )
    .values(&["proven", "listener", "first-packet", "lower-port"])
    .groupable(Low),
    Field::new(
        "flow.detail",
        Kind::Text,
        "What the record stands for: one flow, or the sum of flows that no longer fitted the memory, of which only \
         interface, protocol and version of IP are known.",
        |record| Value::text(Some(names::detail(record.detail))),
    )
    .values(&["flow", "folded"])
    .groupable(Low),
    Field::new("source.process.pid", Kind::Integer, "Process that owns the socket of the source.", |record| {
        Value::integer(record.source.process.as_ref().map(|process| process.pid))
    })
    .groupable(Medium),
    Field::new("source.process.executable.name", Kind::Text, "Name of its executable, or of the command.", |record| {
        Value::text(record.source.process.as_ref().map(|process| &*process.executable))
    })
    .groupable(Medium),
    Field::new(
        "source.process.confidence",
        Kind::Text,
        "Whether the process holds this very socket, or just listens on its port.",
        |record| Value::text(record.source.process.as_ref().map(|process| names::confidence(process.confidence))),
    )
    .values(&["proven", "listener"])
    .groupable(Low),
    Field::new("source.socket.cookie", Kind::Integer, "Cookie of the socket of the source, unique until reboot.", |record| {
        Value::identifier(record.source.owner.cookie)
    })
    .groupable(High),
    Field::new("source.cgroup.id", Kind::Integer, "Cgroup (version 2) of the socket of the source.", |record| {
        Value::identifier(record.source.owner.cgroup)
    })
    .groupable(Medium),
    Field::new("source.k8s.namespace.name", Kind::Text, "Namespace of the pod or service at the source.", |record| {
        Value::text(names::workload(&record.source).and_then(|workload| workload.namespace.as_deref()))
    })
    .groupable(Medium),
    Field::new("source.k8s.pod.name", Kind::Text, "Pod at the source; of an address of a service, the pod behind it where known.", |record| {
        Value::text(names::pod(&record.source).map(|pod| &*pod.name))
    })
    .groupable(Medium),
    Field::new("source.k8s.pod.uid", Kind::Text, "Identifier of that pod, never given twice.", |record| {
        Value::text(names::pod(&record.source).map(|pod| &*pod.uid).filter(|uid| !uid.is_empty()))
    })
    .groupable(Medium),
    Field::new(
        "source.k8s.pod.labels",
        Kind::Text,
        "Labels of that pod that the configuration asks for: `app=web,tier=front`.",
        |record| names::labels(&record.source),
    )
    .groupable(Medium),
    Field::new(
        "source.k8s.owner.kind",
        Kind::Text,
        "Kind of what the workload belongs to in the end: `Deployment`, `DaemonSet`, `StatefulSet`, `CronJob`, …; `Pod`, \
         `Service` or `Node` if to nothing.",
        |record| Value::text(names::workload(&record.source).map(|workload| &*workload.owner_kind)),
    )
    .groupable(Low),
    Field::new(
        "source.k8s.owner.name",
        Kind::Text,
        "Name of what the workload belongs to in the end; its own name if to nothing.",
        |record| Value::text(names::workload(&record.source).map(|workload| &*workload.owner_name)),
    )
    .groupable(Medium),
    Field::new("source.k8s.node.name", Kind::Text, "Node that the pod runs on, or that has the address.", |record| {
        Value::text(names::workload(&record.source).and_then(|workload| workload.node.as_deref()))
    })
    .groupable(Medium),
    Field::new("source.k8s.service.name", Kind::Text, "Service that has the address of the source.", |record| {
        Value::text(record.source.identity.service.as_ref().map(|service| &*service.name))
    })
    .groupable(Medium),
    Field::new(
        "source.k8s.confidence",
        Kind::Text,
        "How the workload was found: by the container of the socket, by address and time, behind the address of a service, \
         or in a list of the cluster that may be out of date.",
        |record| Value::text(record.source.identity.confidence.map(WorkloadConfidence::as_str)),
    )
    .values(&["proven", "address", "translated", "stale"])
    .groupable(Low),
    Field::new(
        "source.k8s.unknown",
        Kind::Text,
        "Why no workload is known, where one was looked for.",
        |record| Value::text(record.source.identity.unknown.map(Unknown::as_str)),
    )
    .values(&[
        "not-yet-synced",
        "no-pod-for-address",
        "not-at-that-time",
        "api-unreachable",
        "local-address",
        "not-unicast",
        "folded",
    ])
    .groupable(Low),
    Field::new("source.dns.name", Kind::Text, "Domain name by which the address of the source was found: the last one for which the other end had got it from DNS, else what all others who got it had asked for.", |record| {
        Value::text(record.source.identity.dns_name.as_deref())
    })
    .groupable(High),
    Field::new("source.container.id", Kind::Text, "Container that owns the socket of the source, if it is on this machine.", |record| {
        Value::text(record.source.identity.container.as_ref().map(|container| &*container.id))
    })
    .groupable(Medium),
    Field::new("source.container.name", Kind::Text, "Name of that container within its pod.", |record| {
        Value::text(record.source.identity.container.as_ref().and_then(|container| container.name.as_deref()))
    })
    .groupable(Medium),
    Field::new("destination.process.pid", Kind::Integer, "Process that owns the socket of the destination.", |record| {
        Value::integer(record.destination.process.as_ref().map(|process| process.pid))
    })
    .groupable(Medium),
    Field::new("destination.process.executable.name", Kind::Text, "Name of its executable, or of the command.", |record| {
        Value::text(record.destination.process.as_ref().map(|process| &*process.executable))
    })
    .groupable(Medium),
    Field::new(
        "destination.process.confidence",
        Kind::Text,
        "Whether the process holds this very socket, or just listens on its port.",
        |record| Value::text(record.destination.process.as_ref().map(|process| names::confidence(process.confidence))),
    )
    .values(&["proven", "listener"])
    .groupable(Low),
    Field::new("destination.socket.cookie", Kind::Integer, "Cookie of the socket of the destination, unique until reboot.", |record| {
        Value::identifier(record.destination.owner.cookie)
    })
    .groupable(High),
    Field::new("destination.cgroup.id", Kind::Integer, "Cgroup (version 2) of the socket of the destination.", |record| {
        Value::identifier(record.destination.owner.cgroup)
    })
    .groupable(Medium),
    Field::new("destination.k8s.namespace.name", Kind::Text, "Namespace of the pod or service at the destination.", |record| {
        Value::text(names::workload(&record.destination).and_then(|workload| workload.namespace.as_deref()))
    })
    .groupable(Medium),
    Field::new("destination.k8s.pod.name", Kind::Text, "Pod at the destination; of an address of a service, the pod behind it where known.", |record| {
        Value::text(names::pod(&record.destination).map(|pod| &*pod.name))
    })
    .groupable(Medium),
    Field::new("destination.k8s.pod.uid", Kind::Text, "Identifier of that pod, never given twice.", |record| {
        Value::text(names::pod(&record.destination).map(|pod| &*pod.uid).filter(|uid| !uid.is_empty()))
    })
    .groupable(Medium),
    Field::new(
        "destination.k8s.pod.labels",
        Kind::Text,
        "Labels of that pod that the configuration asks for: `app=web,tier=front`.",
        |record| names::labels(&record.destination),
    )
    .groupable(Medium),
    Field::new(
        "destination.k8s.owner.kind",
        Kind::Text,
        "Kind of what the workload belongs to in the end: `Deployment`, `DaemonSet`, `StatefulSet`, `CronJob`, …; `Pod`, \
         `Service` or `Node` if to nothing.",
        |record| Value::text(names::workload(&record.destination).map(|workload| &*workload.owner_kind)),
    )
    .groupable(Low),
    Field::new(
        "destination.k8s.owner.name",
        Kind::Text,
        "Name of what the workload belongs to in the end; its own name if to nothing.",
        |record| Value::text(names::workload(&record.destination).map(|workload| &*workload.owner_name)),
    )
    .groupable(Medium),
    Field::new("destination.k8s.node.name", Kind::Text, "Node that the pod runs on, or that has the address.", |record| {
        Value::text(names::workload(&record.destination).and_then(|workload| workload.node.as_deref()))
    })
    .groupable(Medium),
    Field::new("destination.k8s.service.name", Kind::Text, "Service that has the address of the destination.", |record| {
        Value::text(record.destination.identity.service.as_ref().map(|service| &*service.name))
    })
    .groupable(Medium),
    Field::new(
        "destination.k8s.confidence",
        Kind::Text,
        "How the workload was found: by the container of the socket, by address and time, behind the address of a service, \
         or in a list of the cluster that may be out of date.",
        |record| Value::text(record.destination.identity.confidence.map(WorkloadConfidence::as_str)),
    )
    .values(&["proven", "address", "translated", "stale"])
    .groupable(Low),
    Field::new(
        "destination.k8s.unknown",
        Kind::Text,
        "Why no workload is known, where one was looked for.",
        |record| Value::text(record.destination.identity.unknown.map(Unknown::as_str)),
    )
    .values(&[
        "not-yet-synced",
        "no-pod-for-address",
        "not-at-that-time",
        "api-unreachable",
        "local-address",
        "not-unicast",
        "folded",
    ])
    .groupable(Low),
    Field::new("destination.dns.name", Kind::Text, "Domain name by which the address of the destination was found: the last one for which the other end had got it from DNS, else what all others who got it had asked for.", |record| {
        Value::text(record.destination.identity.dns_name.as_deref())
    })
    .groupable(High),
    Field::new("destination.container.id", Kind::Text, "Container that owns the socket of the destination, if it is on this machine.", |record| {
        Value::text(record.destination.identity.container.as_ref().map(|container| &*container.id))
    })
    .groupable(Medium),
    Field::new("destination.container.name", Kind::Text, "Name of that container within its pod.", |record| {
        Value::text(record.destination.identity.container.as_ref().and_then(|container| container.name.as_deref()))
    })
    .groupable(Medium),
];

impl Field {
    /// A field that can be filtered, and neither grouped by nor added.
    const fn new(name: &'static str, kind: Kind, doc: &'static str, get: fn(&Record) -> Value<'_>) -> Self {
        Self {
            name,
            kind,
            unit: "",
            doc,
            cardinality: High,
            filterable: true,
            groupable: false,
            additive: false,
            values: &[],
            get,
        }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn counter(self, unit: &'static str) -> Self {
        Self { unit, additive: true, ..self }
    }

    const fn values(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }

    const fn groupable(self, cardinality: Cardinality) -> Self {
        Self { cardinality, groupable: true, ..self }
    }
}

fn address<'r>(record: &Record, end: &Endpoint) -> Value<'r> {
    match record.detail {
        Detail::Flow => Value::Address(end.address),
        Detail::Folded => Value::Absent,
    }
}

fn port<'r>(record: &Record, end: &Endpoint) -> Value<'r> {
    let known = record.tuple.has_ports() && record.detail == Detail::Flow;
    Value::integer(known.then_some(end.port))
}

fn dns(record: &Record) -> Option<&Dns> {
    record.dns.as_deref()
}

fn icmp(record: &Record) -> Option<(u8, u8)> {
    match record.detail {
        Detail::Flow => record.tuple.icmp(),
        Detail::Folded => None,
    }
}

fn tcp_flags<'r>(record: &Record, traffic: &Traffic) -> Value<'r> {
    if record.tuple.protocol() != TCP {
        return Value::Absent;
    }
    seen(traffic, |traffic| Value::Flags(TcpFlags(traffic.tcp_flags)))
}

/// A value that exists only where there were packets.
fn seen<'r>(traffic: &Traffic, value: fn(&Traffic) -> Value<'r>) -> Value<'r> {
    if traffic.packets == 0 { Value::Absent } else { value(traffic) }
}
