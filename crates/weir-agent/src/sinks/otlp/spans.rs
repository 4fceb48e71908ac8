//! A connection that has ended, as a span.
//!
//! It is a span of kind `internal`, never of a client or a server: those stand for calls, and whoever draws a map of
//! services counts them as such. A connection may carry none, or thousands.
//!
//! Identifiers are made from the connection, not drawn: two agents that see the two ends of one connection make the same trace
//! without a word between them, and the span of the server is the child of that of the client. They hold the addresses, the ports,
//! the minute in which the connection began and, where ports were used before in that minute, how often. So where an
//! address is translated on the way, or where clocks differ by more than what is left of the minute, traces come apart.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use sha1::{Digest as _, Sha1};
use weir_flow::{
    Detail, EndReason, Endpoint, Initiator, Record, Role, TcpFailure, WorkloadKind, community_id,
    field::{FIELDS, Value},
};

use super::wire;
use crate::{outlet::Parcel, sinks::prometheus::FIRST_EPHEMERAL, store::Entity};

/// Fields of `Span` and `Status` (opentelemetry/proto/trace/v1/trace.proto).
const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;
const PARENT_SPAN_ID: u32 = 4;
const NAME: u32 = 5;
const KIND: u32 = 6;
const START_TIME: u32 = 7;
const END_TIME: u32 = 8;
const ATTRIBUTES: u32 = 9;
const STATUS: u32 = 15;
const STATUS_MESSAGE: u32 = 2;
const STATUS_CODE: u32 = 3;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u64 = 1;

/// Connections that are remembered, so that another sighting of the same one does not become one more span.
const REMEMBERED: usize = 65_536;

/// Longest time that a packet takes from one interface of a machine to another. What begins later on the same ports is
/// another connection.
const PASSAGE_NS: u64 = 100_000_000;

const MINUTE_NS: u64 = 60_000_000_000;

/// Who tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Nobody knows whose it is.
    Unknown,
    /// Where it was accepted.
    Server,
    /// Where it was opened.
    Client,
}

/// A record that is to become a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Where it is.
    pub(super) parcel: usize,
    pub(super) record: usize,
    /// How many connections there were before on the same ports in the same minute.
    pub(super) earlier: u32,
}

struct Identifiers {
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
}

/// Which connections became spans lately.
#[derive(Debug, Default)]
pub(super) struct Told {
    connections: HashMap<Ports, Last>,
    order: VecDeque<Ports>,
}

/// Addresses, ports and the minute, in short.
type Ports = [u8; 16];

/// The last connection on some ports.
#[derive(Clone, Copy, Debug)]
struct Last {
    end_ns: u64,
    earlier: u32,
}

impl Told {
    /// The records that are to become spans: one of each connection that has ended, the one nearest to a workload.
    pub(super) fn choose(&mut self, parcels: &[Parcel]) -> Vec<Chosen> {
        let mut ended: Vec<(usize, usize, &Record)> = Vec::new();
        for (parcel, records) in parcels.iter().map(|parcel| &parcel.batch.records).enumerate() {
            let records = records.iter().enumerate().filter(|(_, record)| is_connection_that_ended(record));
            ended.extend(records.map(|(index, record)| (parcel, index, record)));
        }
        ended.sort_by_key(|(_, _, record)| (distance(record.point.role), record.start));
        let mut chosen: Vec<Chosen> = ended
            .into_iter()
            .filter_map(|(parcel, index, record)| {
                self.note(record).map(|earlier| Chosen { parcel, record: index, earlier })
            })
            .collect();
        chosen.sort_unstable_by_key(|chosen| (chosen.parcel, chosen.record));
        chosen
    }

    /// How many came before it, unless it is one that is known.
    fn note(&mut self, record: &Record) -> Option<u32> {
        let ports = ports(record);
        match self.connections.entry(ports) {
            Entry::Occupied(mut known) => {
                let Last { end_ns, earlier } = *known.get();
                if record.start.0 <= end_ns.saturating_add(PASSAGE_NS) {
                    return None;
                }
                let last = Last { end_ns: record.end.0, earlier: earlier.saturating_add(1) };
                known.insert(last);
                Some(last.earlier)
            }
            Entry::Vacant(place) => {
                place.insert(Last { end_ns: record.end.0, earlier: 0 });
                self.order.push_back(ports);
                if self.order.len() > REMEMBERED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.connections.remove(&oldest);
                }
                Some(0)
            }
        }
    }
}

/// Appends a connection as field `field`; `earlier` is how many came before it on the same ports in the same minute.
pub(super) fn append(out: &mut Vec<u8>, field: u32, record: &Record, earlier: u32) {
    let Identifiers { trace, span, parent } = identifiers(record, earlier);
    wire::message(out, field, |out| {
        wire::bytes(out, TRACE_ID, &trace);
        wire::bytes(out, SPAN_ID, &span);
        if let Some(parent) = parent {
            wire::bytes(out, PARENT_SPAN_ID, &parent);
        }
        wire::bytes(out, NAME, name(record).as_bytes());
        wire::number(out, KIND, INTERNAL);
        wire::fixed64(out, START_TIME, record.start.0);
        wire::fixed64(out, END_TIME, record.end.0);
        for field in FIELDS {
            wire::attribute(out, ATTRIBUTES, field.name, &field.value(record));
        }
        let Some(failure) = record.outcome.tcp_failure else { return };
        wire::text_attribute(out, ATTRIBUTES, "error.type", error_type(failure));
        wire::message(out, STATUS, |out| {
            wire::bytes(out, STATUS_MESSAGE, failure.as_str().as_bytes());
            wire::number(out, STATUS_CODE, ERROR);
        });
    });
}

/// Whether the record is the end of something with two ends. The end of Weir is not the end of a connection.
fn is_connection_that_ended(record: &Record) -> bool {
    let has_ended = record.end_reason.is_some_and(|reason| reason != EndReason::Shutdown);
    has_ended && record.detail == Detail::Flow && record.tuple.has_ports() && !record.tuple.is_fragment()
}

/// How far from a workload the interface is.
const fn distance(role: Role) -> u8 {
    match role {
        Role::PodEdge => 0,
        Role::Loopback => 1,
        Role::Uplink => 2,
        _ => 3,
    }
}

/// `TCP reviews:9080`: few different ones, as names of spans should be.
fn name(record: &Record) -> String {
    let transport = Value::Protocol(record.tuple.protocol()).to_string().to_uppercase();
    let end = &record.destination;
    let service = end.identity.service.as_ref().map(|service| service.name.to_string());
    let whom = service.unwrap_or_else(|| Entity::of(end, record.detail).name().to_owned());
    let is_guessed = record.initiator == Initiator::LowerPort && end.port >= FIRST_EPHEMERAL;
    if is_guessed { format!("{transport} {whom}") } else { format!("{transport} {whom}:{}", end.port) }
}

fn side(record: &Record) -> Side {
    let is_local = |end: &Endpoint| end.process.is_some() || end.owner.cookie != 0;
    // Who opened it is known if that was seen, or if the other one listens.
    match record.initiator {
        Initiator::Proven | Initiator::Listener if is_local(&record.source) => Side::Client,
        Initiator::Proven | Initiator::Listener if is_local(&record.destination) => Side::Server,
        _ => Side::Unknown,
    }
}

fn ports(record: &Record) -> Ports {
    let minute = record.start.0 / MINUTE_NS;
    hash(&[community_id(&record.tuple).as_bytes(), &minute.to_be_bytes()])
}

fn identifiers(record: &Record, earlier: u32) -> Identifiers {
    let ports = ports(record);
    let trace = if earlier == 0 { ports } else { hash(&[&ports, &earlier.to_be_bytes()]) };
    let of = |side: &[u8]| hash(&[&trace, side]);
    let (span, parent) = match side(record) {
        Side::Client => (of(b"client"), None),
        // Somebody outside of the cluster has no agent that could tell of the other end.
        Side::Server => (of(b"server"), has_agent(&record.source).then(|| of(b"client"))),
        Side::Unknown => (of(b"unknown"), None),
    };
    Identifiers { trace, span, parent }
}

fn has_agent(end: &Endpoint) -> bool {
    let kind = end.identity.workload.as_ref().map(|workload| workload.kind);
    matches!(kind, Some(WorkloadKind::Pod | WorkloadKind::Node))
}

/// The same everywhere and in every version.
fn hash<const LENGTH: usize>(parts: &[&[u8]]) -> [u8; LENGTH] {
    let mut sha1 = Sha1::new();
    for part in parts {
        sha1.update(part);
    }
    let digest = sha1.finalize();
    std::array::from_fn(|index| digest[index])
}

/// As the names of the system's errors, where there is one.
const fn error_type(failure: TcpFailure) -> &'static str {
    match failure {
        TcpFailure::Refused => "econnrefused",
        TcpFailure::Unanswered => "etimedout",
        TcpFailure::Reset => "econnreset",
    }
}
