//! [`Meter`]: sums of edges as metrics, once an interval.
//!
//! The sums, and which edges have their own, are those of the `prometheus` sink. Flows that waited in the spool count when they
//! are delivered. Sums that do not arrive are told again, growing ones anew and differences as they were.

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric::Data,
        number_data_point,
    },
};
use prost::Message as _;
use tokio::runtime::Runtime;
use weir_flow::{Monotonic, Role, field::Value};

use super::{
    Signal,
    client::{Client, MOST_UNDER_WAY},
    config::{MetricsPlan, Temporality},
    envelope::{ENTRY, Envelope},
    sending::{Line, Outcome},
    wire,
};
use crate::{
    batch::Batch,
    outlet::{BackOff, LONGEST_PAUSE, Patience, WriteError},
    sinks::prometheus::{EdgeSnapshot, EdgeTable, Sums},
    store::{EdgeKey, Entity},
};

/// Bytes that an edge takes at most, mostly: ten points of three hundred.
const EDGE_BYTES: usize = 4096;

/// Stands for all edges that have no place of their own, as in `/metrics`.
const OTHERS: &str = "__other__";

/// Tells sums.
pub(super) struct Meter {
    client: Client,
    table: EdgeTable,
    interval: Duration,
    temporality: Temporality,
    began: Instant,
    began_ns: u64,
    /// When they are to be told next.
    next: Instant,
    back_off: BackOff,
    /// What is being brought.
    export: Option<Export>,
    /// With differences: what was told, and when.
    told: HashMap<Edge, Sums>,
    told_ns: u64,
    /// Time of the last ones. Clocks may be set back, but what is told later is later.
    newest_ns: u64,
}

/// An edge, or all others of a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Edge {
    One(EdgeKey),
    Others(Role),
}

/// Sums at one moment, on their way.
pub(super) struct Export {
    pub(super) rows: Vec<Row>,
    line: Line,
    /// What was told when they have arrived.
    told: HashMap<Edge, Sums>,
    pub(super) now_ns: u64,
}

/// Sums of an edge, and since when.
pub(super) struct Row {
    pub(super) edge: Edge,
    pub(super) sums: Sums,
    pub(super) since_ns: u64,
}

impl Meter {
    pub(super) fn new(plan: MetricsPlan, most_bytes: usize) -> Self {
        let MetricsPlan { target, interval, temporality, edges } = plan;
        let (began, began_ns) = (Instant::now(), now_ns());
        Self {
            client: Client::new(Signal::Metrics, target, most_bytes, MOST_UNDER_WAY),
            table: EdgeTable::new(edges),
            interval,
            temporality,
            began,
            began_ns,
            next: began + interval,
            back_off: BackOff::default(),
            export: None,
            told: HashMap::new(),
            told_ns: began_ns,
            newest_ns: began_ns,
        }
    }

    /// Adds the flows of a batch.
    pub(super) fn add(&self, batch: &Batch) {
        self.table.add_at(batch, Monotonic(nanoseconds(self.began.elapsed())));
    }

    /// Whether differences are on their way.
    pub(super) fn has_unfinished(&self) -> bool {
        self.export.is_some()
    }

    /// When they are to be told next.
    pub(super) fn is_due_at(&self) -> Instant {
        self.next
    }

    /// Brings the sums of this moment, or differences that did not arrive before, and says when that is to be done again.
    pub(super) fn bring(
        &mut self,
        envelope: &Envelope,
        runtime: &Runtime,
        patience: &Patience,
    ) -> Result<Outcome, WriteError> {
        let brought = self.try_to_bring(envelope, runtime, patience);
        let pause = match &brought {
            Ok(_) => {
                self.back_off.reset();
                self.interval
            }
            Err(WriteError::RetryAfter { after, .. }) => self.back_off.time().max(*after).min(LONGEST_PAUSE),
            Err(WriteError::Retry(_) | WriteError::Reject(_)) => self.back_off.time(),
        };
        self.next = Instant::now() + pause;
        brought
    }

    fn try_to_bring(
        &mut self,
        envelope: &Envelope,
        runtime: &Runtime,
        patience: &Patience,
    ) -> Result<Outcome, WriteError> {
        let mut export = match self.export.take() {
            Some(export) => export,
            None => self.begin(),
        };
        let Export { rows, line, now_ns, .. } = &mut export;
        let temporality = self.temporality;
        let make = |Range { start: first, end }: Range<usize>, most_bytes: usize| {
            let last = end.min(first + (most_bytes / EDGE_BYTES).max(1));
            let mut buffer = Vec::new();
            envelope.open(&mut buffer);
            for metric in metrics(&rows[first..last], *now_ns, temporality) {
                wire::header(&mut buffer, ENTRY, metric.encoded_len());
                metric.encode_raw(&mut buffer);
            }
            (envelope.seal(buffer), last - first)
        };
        if let Err(error) = line.bring(rows.len(), &mut self.client, runtime, patience, make) {
            self.export = Some(export).filter(|_| temporality == Temporality::Delta);
            return Err(error);
        }
        Ok(self.arrived(export))
    }

    /// From now on, differences are those to these.
    pub(super) fn arrived(&mut self, export: Export) -> Outcome {
        (self.told, self.told_ns) = (export.told, export.now_ns);
        export.line.outcome
    }

    pub(super) fn begin(&mut self) -> Export {
        let since_began = self.began_ns + nanoseconds(self.began.elapsed());
        let now_ns = now_ns().max(since_began).max(self.newest_ns + 1);
        self.newest_ns = now_ns;
        let EdgeSnapshot { edges, others, .. } = self.table.snapshot();
        let ones = edges.into_iter().map(|(key, sums)| (Edge::One(key), sums));
        let all = ones.chain(others.into_iter().map(|(role, sums)| (Edge::Others(role), sums)));
        let mut told = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for (edge, sums) in all {
            match self.temporality {
                Temporality::Cumulative => {
                    // The start of a sum that is no earlier than its time says that nobody knows it.
                    let since_ns = (self.began_ns + sums.since.0).min(now_ns - 1);
                    rows.push(Row { edge, sums, since_ns });
                }
                Temporality::Delta => {
                    // An edge that lost its place and has it again began anew.
                    let before = self.told.get(&edge).filter(|before| before.since == sums.since);
                    let difference = before.map_or(sums, |before| sums.less(before));
                    if !difference.is_empty() {
                        rows.push(Row { edge: edge.clone(), sums: difference, since_ns: self.told_ns });
                    }
                    told.insert(edge, sums);
                }
            }
        }
        rows.sort_unstable_by(|left, right| left.edge.cmp(&right.edge));
        Export { rows, line: Line::default(), told, now_ns }
    }
}

/// Edges as metrics.
pub(super) fn metrics(rows: &[Row], now_ns: u64, temporality: Temporality) -> Vec<Metric> {
    let aggregation_temporality = match temporality {
        Temporality::Cumulative => AggregationTemporality::Cumulative,
        Temporality::Delta => AggregationTemporality::Delta,
    } as i32;
    let (mut bytes, mut packets, mut retransmits, mut connections, mut times) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for Row { edge, sums, since_ns } in rows {
        let attributes = attributes(edge);
        let point = |name: &str, value: &str, number: u64| NumberDataPoint {
            attributes: [attributes.as_slice(), &[text(name, value)]].concat(),
            start_time_unix_nano: *since_ns,
            time_unix_nano: now_ns,
            value: Some(number_data_point::Value::AsInt(i64::try_from(number).unwrap_or(i64::MAX))),
            ..NumberDataPoint::default()
        };
        for (way, count, resent) in
            [("forward", sums.forward, sums.retransmits), ("reverse", sums.reverse, sums.reverse_retransmits)]
        {
            bytes.push(point("direction", way, count.bytes));
            packets.push(point("direction", way, count.packets));
            if resent > 0 {
                retransmits.push(point("direction", way, resent));
            }
        }
        connections.push(point("state", "opened", sums.opened));
        let ends = [
            ("closed", sums.closed),
            ("refused", sums.refused),
            ("unanswered", sums.unanswered),
            ("reset", sums.reset),
        ];
        // Most edges never see a failure.
        connections.extend(
            ends.into_iter()
                .filter(|(_, flows)| *flows > 0)
                .map(|(state, flows)| point("state", state, flows)),
        );
        if sums.rtts > 0 {
            times.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: *since_ns,
                time_unix_nano: now_ns,
                count: sums.rtts,
                sum: Some(sums.rtt.as_secs_f64()),
                ..HistogramDataPoint::default()
            });
        }
    }
    let sum = |name: &str, unit: &str, description: &str, data_points: Vec<NumberDataPoint>| {
        let data = Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true });
        metric(name, unit, description, data)
    };
    let mut metrics = vec![
        sum("network.flow.bytes", "By", "Bytes of frames.", bytes),
        sum("network.flow.packets", "{packet}", "Frames.", packets),
        sum("network.flow.connections", "{connection}", "Flows that began, ended, or failed.", connections),
    ];
    if !retransmits.is_empty() {
        let description = "TCP segments that were sent again.";
        metrics.push(sum("network.flow.retransmits", "{segment}", description, retransmits));
    }
    if !times.is_empty() {
        let data = Data::Histogram(Histogram { data_points: times, aggregation_temporality });
        metrics.push(metric("network.flow.rtt", "s", "Smoothed round-trip times of TCP sockets.", data));
    }
    metrics
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// Who talks to whom, by the names of the fields.
fn attributes(edge: &Edge) -> Vec<KeyValue> {
    let EdgeKey { source, destination, transport, port, role } = match edge {
        Edge::One(key) => key,
        Edge::Others(role) => {
            return vec![
                text("source.k8s.owner.name", OTHERS),
                text("destination.k8s.owner.name", OTHERS),
                text("flow.observation", role.as_str()),
            ];
        }
    };
    let mut attributes = Vec::with_capacity(10);
    end("source", source, &mut attributes);
    end("destination", destination, &mut attributes);
    attributes.extend(port.map(|port| pair("destination.port", any_value::Value::IntValue(port.into()))));
    attributes.push(text("network.transport", &Value::Protocol(*transport).to_string()));
    attributes.push(text("flow.observation", role.as_str()));
    attributes
}

fn end(side: &str, entity: &Entity, attributes: &mut Vec<KeyValue>) {
    match entity {
        Entity::Workload { kind, namespace, name } => {
            let namespace = namespace.as_ref();
            attributes.extend(namespace.map(|name| text(&format!("{side}.k8s.namespace.name"), name)));
            attributes.push(text(&format!("{side}.k8s.owner.kind"), kind));
            attributes.push(text(&format!("{side}.k8s.owner.name"), name));
        }
        Entity::Process(name) => attributes.push(text(&format!("{side}.process.executable.name"), name)),
        Entity::Address(address) => attributes.push(text(&format!("{side}.address"), address)),
        Entity::Others => attributes.push(text(&format!("{side}.k8s.owner.name"), OTHERS)),
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    pair(name, any_value::Value::StringValue(value.to_owned()))
}

fn pair(name: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn now_ns() -> u64 {
    nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
