//! Words for numbers and enumerations: protocols, end reasons, confidence; and the names of who is at an end.

use std::borrow::Cow;

use weir_packet::protocol;

use super::Value;
use crate::{
    Detail, EndReason, Endpoint, Initiator, ProcessConfidence, Question, Record, Workload, WorkloadKind,
};

/// Keywords of the protocols above IP that people know by name (IANA "Assigned Internet Protocol Numbers", lower
/// case; `icmpv6` and `ospf` in their everyday form). Other protocols go by number.
const PROTOCOLS: &[(u8, &str)] = &[
    (protocol::ICMP, "icmp"),
    (2, "igmp"),
    (4, "ipv4"),
    (protocol::TCP, "tcp"),
    (protocol::UDP, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (46, "rsvp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (protocol::ICMPV6, "icmpv6"),
    (88, "eigrp"),
    (89, "ospf"),
    (94, "ipip"),
    (97, "etherip"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (115, "l2tp"),
    (protocol::SCTP, "sctp"),
    (136, "udplite"),
    (137, "mpls-in-ip"),
];

/// Keyword of a protocol above IP, or `None` where it goes by number.
pub fn transport_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(candidate, _)| *candidate == number).map(|(_, name)| *name)
}

/// Number of a protocol by its keyword, in any case.
pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(_, candidate)| candidate.eq_ignore_ascii_case(name)).map(|(number, _)| *number)
}

/// Every keyword.
pub(crate) fn transport_names() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().map(|(_, name)| *name)
}

pub(crate) const fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Idle => "idle",
        EndReason::Fin => "fin",
        EndReason::Reset => "reset",
        EndReason::Shutdown => "shutdown",
    }
}

pub(crate) const fn initiator(initiator: Initiator) -> &'static str {
    match initiator {
        Initiator::Proven => "proven",
        Initiator::Listener => "listener",
        Initiator::FirstPacket => "first-packet",
        Initiator::LowerPort => "lower-port",
    }
}

pub(crate) const fn detail(detail: Detail) -> &'static str {
    match detail {
        Detail::Flow => "flow",
        Detail::Folded => "folded",
    }
}

pub(crate) const fn confidence(confidence: ProcessConfidence) -> &'static str {
    match confidence {
        ProcessConfidence::Proven => "proven",
        ProcessConfidence::Listener => "listener",
    }
}

/// What the last DNS message of a record is about.
pub(super) fn question(record: &Record) -> Option<&Question> {
    record.dns.as_ref()?.question.as_ref()
}

pub(super) fn workload(end: &Endpoint) -> Option<&Workload> {
    end.identity.workload.as_deref()
}

pub(super) fn pod(end: &Endpoint) -> Option<&Workload> {
    workload(end).filter(|workload| workload.kind == WorkloadKind::Pod)
}

/// The labels in one text, `name=value` with commas between.
pub(super) fn labels(end: &Endpoint) -> Value<'_> {
    match pod(end).map(|pod| &*pod.labels) {
        None | Some([]) => Value::Absent,
        Some(labels) => {
            let texts: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            Value::Text(Cow::Owned(texts.join(",")))
        }
    }
}
