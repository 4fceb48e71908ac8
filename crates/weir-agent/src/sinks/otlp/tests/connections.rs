//! Connections that have ended, as spans: which of them, with what identifiers, and under what names.

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use weir_flow::{Detail, EndReason, Identity, Initiator, Point, Role, SocketOwner, TcpFailure};

use super::{
    super::spans::{Chosen, Told},
    *,
};
use crate::outlet::ParcelId;

/// Records as spans, each with the number of those that came before it on its ports.
fn spans_of<'r>(records: impl IntoIterator<Item = (&'r Record, u32)>) -> Vec<Span> {
    let envelope = envelope::Envelope::new(&[]);
    let mut buffer = Vec::new();
    envelope.open(&mut buffer);
    for (record, earlier) in records {
        spans::append(&mut buffer, envelope::ENTRY, record, earlier);
    }
    let request = envelope.seal(buffer);
    let mut decoded = ExportTraceServiceRequest::decode(request.clone()).unwrap();
    assert_eq!(decoded.encode_to_vec(), request, "prost would write the same bytes");
    decoded.resource_spans.remove(0).scope_spans.remove(0).spans
}

fn span_of(record: &Record) -> Span {
    spans_of([(record, 0)]).remove(0)
}

/// From a pod of `web` to a pod of `api`, port 80, seen to begin.
fn connection() -> Record {
    let mut record = Sample::seen_four_times(100).remove(1);
    record.initiator = Initiator::Proven;
    record.end_reason = Some(EndReason::Fin);
    record.outcome.tcp_failure = None;
    (record.source.owner, record.source.process) = (SocketOwner::default(), None);
    (record.destination.owner, record.destination.process) = (SocketOwner::default(), None);
    record
}

fn local() -> SocketOwner {
    SocketOwner { cookie: 5, cgroup: 0 }
}

fn parcel(id: u128, records: Vec<Record>) -> Parcel {
    let mut batch = crate::batch::Batch::clone(&samples::batch(1, 1));
    batch.records = records.into();
    Parcel { id: ParcelId(id), batch: Arc::new(batch) }
}

#[test]
fn a_connection_is_a_span_with_the_attributes_of_its_flow() {
    let ticks = Sample::default().ticks(20).into_iter();
    let records: Vec<Record> = ticks.flat_map(|(_, records)| records).collect();
    for ((span, log), record) in
        spans_of(records.iter().map(|record| (record, 0))).iter().zip(logs(&records)).zip(&records)
    {
        let attributes = span.attributes.iter().filter(|pair| pair.key != "error.type");
        assert!(attributes.eq(&log.attributes));
        let times = (span.start_time_unix_nano, span.end_time_unix_nano);
        assert_eq!(times, (record.start.0, record.end.0));
        assert_eq!(span.status.is_some(), record.outcome.tcp_failure.is_some());
    }
}

#[test]
fn both_ends_tell_one_trace_without_a_word_between_them() {
    let mut at_client = connection();
    at_client.source.owner = local();
    let mut at_server = connection();
    at_server.destination.owner = local();
    // Their clocks differ a little.
    at_server.start.0 += 1_000_000;
    let [client, server] = [span_of(&at_client), span_of(&at_server)];
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(client.parent_span_id.len(), 0);
    assert_eq!(server.parent_span_id, client.span_id);
    assert_ne!(client.span_id, server.span_id);
    // The values are part of the contract between agents of different versions.
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let found = [&client.trace_id, &client.span_id, &server.span_id].map(|bytes| number(bytes));
    let expect = [0xaf49_5130_6d12_e607_f248_d29d_c4f3_a899, 0xaece_73d2_9038_d7b0, 0xd64f_a1c8_7250_a836];
    assert_eq!(found, expect);

    let mut later = at_client.clone();
    later.start.0 += 60_000_000_000;
    assert_ne!(span_of(&later).trace_id, client.trace_id);
    // From outside of the cluster nobody tells.
    at_server.source.identity = Identity::default();
    assert!(span_of(&at_server).parent_span_id.is_empty());
    // Who opened it is a guess.
    at_client.initiator = Initiator::LowerPort;
    assert_ne!(span_of(&at_client).span_id, client.span_id);
}

#[test]
fn a_connection_is_never_told_as_a_call() {
    let mut record = connection();
    for initiator in [Initiator::Proven, Initiator::Listener, Initiator::LowerPort] {
        for owners in [(local(), SocketOwner::default()), (SocketOwner::default(), local())] {
            record.initiator = initiator;
            (record.source.owner, record.destination.owner) = owners;
            assert_eq!(span_of(&record).kind, 1);
        }
    }
}

#[test]
fn ports_that_are_used_again_in_a_minute_are_another_connection() {
    let mut told = Told::default();
    let mut first = connection();
    (first.start.0, first.end.0) = (60_000_000_000, 61_000_000_000);
    let again = |after_ns: u64| {
        let mut record = first.clone();
        (record.start.0, record.end.0) = (first.end.0 + after_ns, first.end.0 + after_ns + 1);
        record
    };
    let mut choose = |id, records: Vec<Record>| {
        told.choose(&[parcel(id, records)]).into_iter().map(|chosen| chosen.earlier).collect::<Vec<_>>()
    };
    assert_eq!(choose(1, vec![first.clone()]), [0]);
    // The last packet, a little later at another interface.
    assert_eq!(choose(2, vec![again(1_000_000)]), [0; 0]);
    assert_eq!(choose(3, vec![again(1_000_000_000)]), [1]);
    assert_eq!(choose(4, vec![again(1_000_000_000), first.clone()]), [0; 0]);
    assert_eq!(choose(5, vec![again(3_000_000_000), again(2_000_000_000)]), [3, 2]);
    let spans = spans_of((0..4).map(|earlier| (&first, earlier)));
    let identifiers: std::collections::BTreeSet<&[u8]> =
        spans.iter().flat_map(|span| [span.trace_id.as_slice(), &span.span_id]).collect();
    assert_eq!(identifiers.len(), 8);
}

#[test]
fn names_are_few_and_failures_are_errors() {
    let mut record = connection();
    assert_eq!(span_of(&record).name, "TCP api:80");
    assert_eq!(span_of(&record).status, None);
    for (failure, expect) in TcpFailure::ALL.into_iter().zip(["econnrefused", "etimedout", "econnreset"]) {
        record.outcome.tcp_failure = Some(failure);
        let span = span_of(&record);
        assert_eq!(span.attributes.last(), Some(&text("error.type", expect)));
        let status = span.status.unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, failure.as_str()));
    }
    (record.initiator, record.destination.port) = (Initiator::LowerPort, 40_001);
    assert_eq!(span_of(&record).name, "TCP api");
}

#[test]
fn one_span_tells_of_a_connection_wherever_it_was_seen() {
    let mut told = Told::default();
    let mut sightings = Sample::seen_four_times(100);
    for record in &mut sightings {
        record.end_reason = Some(EndReason::Fin);
    }
    let roles: Vec<Role> = sightings.iter().map(|record| record.point.role).collect();
    assert_eq!(roles[1], Role::PodEdge);
    assert_eq!(told.choose(&[parcel(1, sightings.clone())]), [Chosen { parcel: 0, record: 1, earlier: 0 }]);
    // One interface hears of the end a second later.
    assert!(told.choose(&[parcel(2, sightings.split_off(3))]).is_empty());
}

#[test]
fn what_has_not_ended_is_no_span() {
    let goes_on = Record { end_reason: None, ..connection() };
    let weir_ends = Record { end_reason: Some(EndReason::Shutdown), ..connection() };
    let is_a_sum = Record { detail: Detail::Folded, ..connection() };
    assert!(Told::default().choose(&[parcel(1, vec![goes_on, weir_ends, is_a_sum])]).is_empty());
    let at = |ifindex| Arc::new(Point { ifindex, ..Point::clone(&connection().point) });
    let both = [Record { point: at(1), ..connection() }, Record { point: at(2), ..connection() }];
    assert_eq!(Told::default().choose(&[parcel(1, both.into())]).len(), 1);
}
