//! [`record_of`]: a record put together again from the values of its fields.
//!
//! For those who get fields instead of records: a store that keeps columns, a client that reads JSON. Every field of
//! the rebuilt record has the value that it was built from. What no field shows is lost: numbers of points and
//! interfaces, monotonic times (they begin at zero), flags and counters that exist for the datapath alone.

mod identity;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weir_packet::{Details, Tuple, answering_type, ipv4_words, ipv6_words, protocol};

use crate::{
    Counters, Detail, Direction, Dns, EndReason, Endpoint, Initiator, Monotonic, Outcome, Point, PointId,
    Process, ProcessConfidence, Quality, Question, Record, RecordType, ResponseCode, Role, SocketOwner,
    TcpFailure, Traffic, Wall,
    field::{TcpFlags, Value, enumerated},
};

/// Puts a record together. `value` gives the value of the field with this name, or the absent one.
pub fn record_of<'v>(value: &dyn Fn(&str) -> Value<'v>) -> Record {
    let fields = Fields { value };
    let detail = fields.one_of(&[Detail::Flow, Detail::Folded], "flow.detail", enumerated::detail);
    let tuple = fields.tuple();
    let duration = match value("flow.duration") {
        Value::Duration(duration) => u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
        _ => 0,
    };
    Record {
        source: fields.endpoint("source", &tuple, tuple.source()),
        destination: fields.endpoint("destination", &tuple, tuple.destination()),
        tuple,
        point: Arc::new(fields.point()),
        delta: Counters {
            forward: fields.interval(["flow.bytes", "flow.packets", "flow.skbs"]),
            reverse: fields.interval(["flow.reverse.bytes", "flow.reverse.packets", "flow.reverse.skbs"]),
        },
        total: Counters {
            forward: Traffic {
                last_length: fields.number("flow.last_length"),
                dscp: fields.number("flow.ip.dscp"),
                ttl: fields.number("flow.ip.ttl"),
                ..fields.whole(["flow.total.bytes", "flow.total.packets", "flow.tcp.flags"])
            },
            reverse: fields.whole([
                "flow.reverse.total.bytes",
                "flow.reverse.total.packets",
                "flow.reverse.tcp.flags",
            ]),
        },
        start: fields.moment("flow.start"),
        end: fields.moment("flow.end"),
        first: Monotonic(0),
        last: Monotonic(duration),
        initiator: fields.one_of(&Initiator::ALL, "flow.initiator.confidence", enumerated::initiator),
        end_reason: fields.some_of(&EndReason::ALL, "flow.end_reason", enumerated::end_reason),
        detail,
        outcome: fields.outcome(),
        quality: fields.quality(),
        dns: fields.dns().map(Box::new),
    }
}

struct Fields<'a, 'v> {
    value: &'a dyn Fn(&str) -> Value<'v>,
}

impl<'v> Fields<'_, 'v> {
    fn get(&self, name: &str) -> Value<'v> {
        (self.value)(name)
    }

    /// Zero where there is none.
    fn number<N: TryFrom<u64> + Default>(&self, name: &str) -> N {
        match self.get(name) {
            Value::Integer(number) => N::try_from(number).unwrap_or_default(),
            Value::Protocol(number) => N::try_from(number.into()).unwrap_or_default(),
            _ => N::default(),
        }
    }

    fn text(&self, name: &str) -> Option<Arc<str>> {
        match self.get(name) {
            Value::Text(text) => Some(text.as_ref().into()),
            _ => None,
        }
    }

    fn truth(&self, name: &str) -> bool {
        self.get(name) == Value::Boolean(true)
    }

    fn moment(&self, name: &str) -> Wall {
        match self.get(name) {
            Value::Timestamp(wall) => wall,
            _ => Wall::default(),
        }
    }

    /// The variant whose name the field has.
    fn some_of<T: Copy>(&self, all: &[T], name: &str, name_of: fn(T) -> &'static str) -> Option<T> {
        match self.get(name) {
            Value::Text(text) => all.iter().copied().find(|candidate| name_of(*candidate) == text),
            _ => None,
        }
    }

    /// The variant whose name the field has, or the first.
    fn one_of<T: Copy>(&self, all: &[T], name: &str, name_of: fn(T) -> &'static str) -> T {
        self.some_of(all, name, name_of).unwrap_or(all[0])
    }

    fn outcome(&self) -> Outcome {
        let is_unanswered = match self.get("flow.unanswered") {
            Value::Boolean(truth) => Some(truth),
            _ => None,
        };
        let tcp_failure = self.some_of(&TcpFailure::ALL, "flow.tcp.failure", TcpFailure::as_str);
        Outcome { tcp_failure, is_unanswered }
    }

    fn quality(&self) -> Quality {
        let duration = |name| match self.get(name) {
            Value::Duration(duration) => Some(duration),
            _ => None,
        };
        let count = |name| match self.get(name) {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        Quality {
            rtt: duration("flow.tcp.rtt"),
            minimum_rtt: duration("flow.tcp.minimum_rtt"),
            retransmits: count("flow.tcp.retransmits"),
            reverse_retransmits: count("flow.reverse.tcp.retransmits"),
        }
    }

    fn dns(&self) -> Option<Dns> {
        // Whoever has any of it has this counter.
        let Value::Integer(_) = self.get("flow.dns.queries") else { return None };
        let question = self.text("dns.question.name").map(|name| {
            let record_type = self.text("dns.question.type");
            let record_type = record_type.and_then(|name| RecordType::by_name(&name));
            Question { name, record_type: record_type.unwrap_or(RecordType(0)) }
        });
        let lookup_duration = match self.get("dns.lookup.duration") {
            Value::Duration(duration) => Some(duration),
            _ => None,
        };
        Some(Dns {
            question,
            response_code: self.some_of(&ResponseCode::ALL, "dns.response_code", ResponseCode::name),
            lookup_duration,
            queries: self.number("flow.dns.queries"),
            responses: self.number("flow.dns.responses"),
            failures: self.number("flow.dns.failures"),
            unanswered: self.number("flow.dns.unanswered"),
        })
    }

    fn tuple(&self) -> Tuple {
        let is_ipv6 = self.get("network.type") == Value::Text("ipv6".into());
        let number: u8 = self.number("network.transport");
        let mut details = Details::new(is_ipv6, number);
        if let Value::Integer(vlan) = self.get("flow.vlan") {
            details = details.with_vlan(u16::try_from(vlan).unwrap_or_default());
        }
        if self.truth("flow.fragment") {
            details = details.with_fragment();
        }
        if self.truth("flow.truncated") {
            details = details.with_truncated();
        }
        let is_icmp = number == if is_ipv6 { protocol::ICMPV6 } else { protocol::ICMP };
        if is_icmp && !self.get("flow.icmp.type").is_absent() {
            let kind: u8 = self.number("flow.icmp.type");
            details = match answering_type(is_ipv6, kind) {
                Some(answer) => details.with_icmp_query().with_ports(kind.into(), answer.into()),
                None => details.with_ports(kind.into(), self.number("flow.icmp.code")),
            };
        } else {
            details = details.with_ports(self.number("source.port"), self.number("destination.port"));
        }
        let words = |name| match self.get(name) {
            Value::Address(IpAddr::V4(address)) => ipv4_words(address.octets()),
            Value::Address(IpAddr::V6(address)) => ipv6_words(address.octets()),
            _ if is_ipv6 => ipv6_words(Ipv6Addr::UNSPECIFIED.octets()),
            _ => ipv4_words(Ipv4Addr::UNSPECIFIED.octets()),
        };
        Tuple::new(words("source.address"), words("destination.address"), details)
    }

    fn endpoint(&self, end: &str, tuple: &Tuple, address: IpAddr) -> Endpoint {
        let name = |attribute: &str| format!("{end}.{attribute}");
        let port = if tuple.has_ports() { self.number(&name("port")) } else { 0 };
        let process = self.text(&name("process.executable.name")).map(|executable| {
            let both = [ProcessConfidence::Proven, ProcessConfidence::Listener];
            let confidence = self.one_of(&both, &name("process.confidence"), enumerated::confidence);
            Arc::new(Process { pid: self.number(&name("process.pid")), executable, confidence })
        });
        let owner = SocketOwner {
            cookie: self.number(&name("socket.cookie")),
            cgroup: self.number(&name("cgroup.id")),
        };
        Endpoint { address, port, owner, process, identity: self.identity(end) }
    }

    fn point(&self) -> Point {
        Point {
            id: PointId(0),
            netns: self.text("network.netns"),
            ifindex: 0,
            interface: self.text("network.interface.name").unwrap_or_else(|| "".into()),
            direction: self.one_of(&Direction::ALL, "flow.direction", Direction::as_str),
            role: self.some_of(&Role::ALL, "flow.observation", Role::as_str).unwrap_or(Role::Other),
        }
    }

    fn interval(&self, [bytes, packets, skbs]: [&str; 3]) -> Traffic {
        Traffic {
            bytes: self.number(bytes),
            packets: self.number(packets),
            skbs: self.number(skbs),
            ..Traffic::default()
        }
    }

    fn whole(&self, [bytes, packets, flags]: [&str; 3]) -> Traffic {
        let tcp_flags = match self.get(flags) {
            Value::Flags(TcpFlags(flags)) => flags,
            _ => 0,
        };
        Traffic { bytes: self.number(bytes), packets: self.number(packets), tcp_flags, ..Traffic::default() }
    }
}
