//! Sums of a minute: who talked to whom, as they are added to the table `edge`.
//!
//! A flow counts at one interface of each role, like in the store. The ends are workloads where they are known, else
//! processes of this node, else addresses.

use std::{net::IpAddr, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use weir_flow::{Detail, Direction, Endpoint, Record, Role, Wall, field::transport_name};

use crate::batch::Batch;

/// Most different edges of one transaction. What exceeds it is summed up as one edge between others, per role.
const MOST_EDGES: usize = 20_000;

/// What is summed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Beginning of the minute, seconds since 1970.
    pub(super) minute: i64,
    role: Role,
    direction: Direction,
    source: End,
    destination: End,
    transport: u8,
    /// 0 where there is none.
    port: u16,
}

/// An end of an edge. Texts are shared with the records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    Workload { kind: Arc<str>, namespace: Option<Arc<str>>, name: Arc<str> },
    Process(Arc<str>),
    Address(IpAddr),
    Others,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    records: i64,
    flows: i64,
    failed: i64,
    bytes: i64,
    packets: i64,
    reverse_bytes: i64,
    reverse_packets: i64,
    retransmits: i64,
    rtt_seconds: f64,
    rtt_records: i64,
}

/// Edges of some batches.
#[derive(Debug, Default)]
pub(super) struct Edges(HashMap<Key, Sums, FixedState>);

/// Adds rows given as columns to those that are there.
pub(super) const UPSERT: &str = "
    INSERT INTO edge AS old (time, node, role, direction, source_kind, source_namespace, source_name, destination_kind,
        destination_namespace, destination_name, transport, port, records, flows, failed, bytes, packets, reverse_bytes,
        reverse_packets, retransmits, rtt_seconds, rtt_records)
    SELECT to_timestamp(minute), $1, role, direction, source_kind, source_namespace, source_name, destination_kind,
        destination_namespace, destination_name, transport, port, records, flows, failed, bytes, packets, reverse_bytes,
        reverse_packets, retransmits, rtt_seconds, rtt_records
    FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::int[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
        $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::float8[], $22::bigint[])
        AS new (minute, role, direction, source_kind, source_namespace, source_name, destination_kind,
            destination_namespace, destination_name, transport, port, records, flows, failed, bytes, packets,
            reverse_bytes, reverse_packets, retransmits, rtt_seconds, rtt_records)
    ON CONFLICT (time, node, role, direction, source_kind, source_namespace, source_name, destination_kind,
        destination_namespace, destination_name, transport, port) DO UPDATE SET
        records = old.records + excluded.records, flows = old.flows + excluded.flows,
        failed = old.failed + excluded.failed, bytes = old.bytes + excluded.bytes,
        packets = old.packets + excluded.packets, reverse_bytes = old.reverse_bytes + excluded.reverse_bytes,
        reverse_packets = old.reverse_packets + excluded.reverse_packets,
        retransmits = old.retransmits + excluded.retransmits, rtt_seconds = old.rtt_seconds + excluded.rtt_seconds,
        rtt_records = old.rtt_records + excluded.rtt_records";

impl Edges {
    /// Adds those records of a batch that count.
    pub(super) fn add(&mut self, batch: &Batch, again: &[bool]) {
        let minute = minute_of(batch.tick.wall);
        for (record, again) in batch.records.iter().zip(again) {
            if *again {
                continue;
            }
            let mut key = Key::of(record, minute);
            if self.0.len() >= MOST_EDGES && !self.0.contains_key(&key) {
                key = Key { source: End::Others, destination: End::Others, transport: 0, port: 0, ..key };
            }
            self.0.entry(key).or_default().add(record);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns that [`UPSERT`] wants, after the node.
    pub(super) fn into_columns(self) -> Vec<Box<dyn ToSql + Sync + Send>> {
        let (keys, sums): (Vec<Key>, Vec<Sums>) = self.0.into_iter().unzip();
        let texts = |of: fn(&Key) -> String| -> Box<dyn ToSql + Sync + Send> {
            // A database takes no zero bytes.
            Box::new(keys.iter().map(|key| of(key).replace('\0', "")).collect::<Vec<String>>())
        };
        let numbers = |of: fn(&Sums) -> i64| -> Box<dyn ToSql + Sync + Send> {
            Box::new(sums.iter().map(of).collect::<Vec<i64>>())
        };
        let transport = |key: &Key| {
            transport_name(key.transport).map_or_else(|| key.transport.to_string(), str::to_owned)
        };
        vec![
            Box::new(keys.iter().map(|key| key.minute).collect::<Vec<i64>>()),
            texts(|key| key.role.to_string()),
            texts(|key| key.direction.to_string()),
            texts(|key| key.source.kind()),
            texts(|key| key.source.namespace()),
            texts(|key| key.source.name()),
            texts(|key| key.destination.kind()),
            texts(|key| key.destination.namespace()),
            texts(|key| key.destination.name()),
            Box::new(keys.iter().map(transport).collect::<Vec<String>>()),
            Box::new(keys.iter().map(|key| i32::from(key.port)).collect::<Vec<i32>>()),
            numbers(|sums| sums.records),
            numbers(|sums| sums.flows),
            numbers(|sums| sums.failed),
            numbers(|sums| sums.bytes),
            numbers(|sums| sums.packets),
            numbers(|sums| sums.reverse_bytes),
            numbers(|sums| sums.reverse_packets),
            numbers(|sums| sums.retransmits),
            Box::new(sums.iter().map(|sums| sums.rtt_seconds).collect::<Vec<f64>>()),
            numbers(|sums| sums.rtt_records),
        ]
    }
}

impl Key {
    fn of(record: &Record, minute: i64) -> Self {
        let has_port = record.tuple.has_ports() && record.detail == Detail::Flow;
        Self {
            minute,
            role: record.point.role,
            direction: record.point.direction,
            source: End::of(&record.source, record.detail),
            destination: End::of(&record.destination, record.detail),
            transport: record.tuple.protocol(),
            port: if has_port { record.destination.port } else { 0 },
        }
    }
}

impl End {
    fn of(end: &Endpoint, detail: Detail) -> Self {
        if let Some(workload) = &end.identity.workload {
            return Self::Workload {
                kind: Arc::clone(&workload.owner_kind),
                namespace: workload.namespace.clone(),
                name: Arc::clone(&workload.owner_name),
            };
        }
        match (&end.process, detail) {
            (Some(process), _) => Self::Process(Arc::clone(&process.executable)),
            (None, Detail::Flow) => Self::Address(end.address),
            (None, Detail::Folded) => Self::Others,
        }
    }

    fn kind(&self) -> String {
        match self {
            Self::Workload { kind, .. } => kind.to_string(),
            Self::Process(_) => "process".to_owned(),
            Self::Address(_) => "address".to_owned(),
            Self::Others => "others".to_owned(),
        }
    }

    fn namespace(&self) -> String {
        match self {
            Self::Workload { namespace: Some(namespace), .. } => namespace.to_string(),
            _ => String::new(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Workload { name, .. } | Self::Process(name) => name.to_string(),
            Self::Address(address) => address.to_string(),
            Self::Others => String::new(),
        }
    }
}

impl Sums {
    fn add(&mut self, record: &Record) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (forward, reverse) = (&record.delta.forward, &record.delta.reverse);
        self.records += 1;
        // The first record of a flow has all of it.
        self.flows += i64::from(record.total.count() == record.delta.count());
        self.failed += i64::from(record.end_reason.is_some() && record.outcome.tcp_failure.is_some());
        self.bytes += signed(forward.bytes);
        self.packets += signed(forward.packets);
        self.reverse_bytes += signed(reverse.bytes);
        self.reverse_packets += signed(reverse.packets);
        let quality = &record.quality;
        let retransmits = [quality.retransmits, quality.reverse_retransmits];
        self.retransmits += retransmits.into_iter().flatten().map(i64::from).sum::<i64>();
        if let Some(rtt) = quality.rtt {
            self.rtt_seconds += rtt.as_secs_f64();
            self.rtt_records += 1;
        }
    }
}

/// Beginning of the minute of a moment, seconds since 1970.
fn minute_of(wall: Wall) -> i64 {
    i64::try_from(wall.0 / 60_000_000_000 * 60).unwrap_or(i64::MAX)
}
