mod connections;
mod peers;
mod sums;

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, SeverityNumber},
};
use prost::Message as _;
use weir_flow::{
    Record, TcpFailure,
    field::{FIELDS, Value},
};

use self::peers::{GrpcPeer, HttpPeer, Reply};
use super::*;
use crate::{
    batch::samples,
    outlet::{Consumer as _, Parcel, ParcelId, Patience, Receipt, WriteError},
    store::conformance::Sample,
};

/// Flows with every kind of thing, as log records.
fn logs(records: &[Record]) -> Vec<LogRecord> {
    let envelope = envelope::Envelope::new(&[("service.name".to_owned(), "weir".to_owned())]);
    let mut buffer = Vec::new();
    envelope.open(&mut buffer);
    for record in records {
        flows::append(&mut buffer, envelope::ENTRY, record, 7);
    }
    let request = envelope.seal(buffer);
    let mut decoded = ExportLogsServiceRequest::decode(request.clone()).unwrap();
    assert_eq!(decoded.encode_to_vec(), request, "prost would write the same bytes");
    let mut of_resource = decoded.resource_logs.remove(0);
    assert_eq!(of_resource.resource.unwrap().attributes, [text("service.name", "weir")]);
    let of_scope = of_resource.scope_logs.remove(0);
    assert_eq!(of_scope.scope.unwrap().name, "weir");
    of_scope.log_records
}

fn text(name: &str, value: &str) -> KeyValue {
    any(name, Any::StringValue(value.to_owned()))
}

fn any(name: &str, value: Any) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[test]
fn a_flow_is_an_event_with_every_field_that_has_a_value() {
    let ticks = Sample::default().ticks(40).into_iter();
    let mut records: Vec<Record> = ticks.flat_map(|(_, records)| records).collect();
    // What the sample has nowhere.
    let workload = records.iter().find_map(|record| record.source.identity.workload.clone());
    records[0].quality.reverse_retransmits = Some(2);
    records[0].source.identity.service.clone_from(&workload);
    records[0].destination.identity.service = workload;
    let logs = logs(&records);
    assert_eq!(logs.len(), records.len());
    for (log, record) in logs.iter().zip(&records) {
        assert_eq!((log.time_unix_nano, log.observed_time_unix_nano), (record.end.0, 7));
        assert_eq!(log.event_name, "network.flow");
        assert_eq!(log.body, None);
        let expect: Vec<KeyValue> = FIELDS
            .iter()
            .filter_map(|field| {
                let value = match field.value(record) {
                    Value::Absent => return None,
                    Value::Integer(number) => Any::IntValue(number.try_into().unwrap()),
                    Value::Boolean(truth) => Any::BoolValue(truth),
                    Value::Duration(_) => Any::DoubleValue(field.value(record).to_string().parse().unwrap()),
                    other => Any::StringValue(other.to_string()),
                };
                Some(any(field.name, value))
            })
            .collect();
        assert_eq!(log.attributes, expect);
    }
    let names = |name: &str| logs.iter().any(|log| log.attributes.iter().any(|found| found.key == name));
    let missing: Vec<&str> = FIELDS.iter().map(|field| field.name).filter(|name| !names(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_flow_that_came_to_nothing_is_a_warning() {
    let (_, records) = Sample::default().tick(1);
    let mut record = records[0].clone();
    let cases = [
        (None, None, SeverityNumber::Info),
        (None, Some(false), SeverityNumber::Info),
        (None, Some(true), SeverityNumber::Warn),
        (Some(TcpFailure::Refused), Some(false), SeverityNumber::Warn),
        (Some(TcpFailure::Reset), None, SeverityNumber::Warn),
    ];
    for (tcp_failure, is_unanswered, expect) in cases {
        (record.outcome.tcp_failure, record.outcome.is_unanswered) = (tcp_failure, is_unanswered);
        let log = logs(std::slice::from_ref(&record)).remove(0);
        assert_eq!(log.severity_number(), expect);
        assert_eq!(log.severity_text, expect.as_str_name().trim_start_matches("SEVERITY_NUMBER_"));
    }
}

fn target(endpoint: &str, protocol: Protocol) -> Target {
    Target {
        endpoint: endpoint.parse().unwrap(),
        protocol,
        headers: Vec::new(),
        compression: Compression::None,
        timeout: Duration::from_secs(20),
        tls: TlsDocument::default(),
    }
}

fn writer(endpoint: &str, protocol: Protocol, most_bytes: usize) -> OtlpWriter {
    let target = target(endpoint, protocol);
    let plan = Plan { logs: Some(target), metrics: None, spans: None, resource: Vec::new() };
    OtlpWriter::with_limits(&plan, most_bytes, 1).unwrap()
}

fn parcels(flows: u16) -> [Parcel; 1] {
    [Parcel { id: ParcelId(1), batch: samples::batch(flows, 1) }]
}

/// What came of parcels, in short.
fn outcome(result: Result<Receipt, WriteError>) -> String {
    match result {
        Ok(Receipt { refused: None }) => "taken".to_owned(),
        Ok(Receipt { refused: Some((records, text)) }) => format!("{records} refused: {text}"),
        Err(WriteError::Reject(error)) => format!("rejected: {error}"),
        Err(WriteError::Retry(error)) => format!("not now: {error}"),
        Err(WriteError::RetryAfter { after, reason }) => format!("not for {after:?}: {reason}"),
    }
}

#[test]
fn collectors_by_http_say_what_they_do_not_take() {
    let cases = [
        (Reply::http(200, "", &[]), "taken"),
        (Reply::http(200, "", &peers::partial_success(2, "too old")), "2 refused: too old"),
        (Reply::http(200, "", &peers::partial_success(0, "mind the gap")), "taken"),
        (
            Reply::http(503, "Retry-After: 7\r\n", b""),
            "not for 7s: ENDPOINT takes nothing at present (503 Service Unavailable)",
        ),
        (
            Reply::http(429, "", b"quota"),
            "not now: ENDPOINT takes nothing at present (429 Too Many Requests: quota)",
        ),
        (Reply::http(400, "", b"no"), "rejected: ENDPOINT refuses what it gets (400 Bad Request: no)"),
        (
            Reply::http(401, "", b""),
            "not now: ENDPOINT does not let us in: set or correct `headers` or `tls` (401 Unauthorized)",
        ),
    ];
    for (reply, expect) in cases {
        let peer = HttpPeer::start(vec![reply]);
        let mut writer = writer(&peer.endpoint, Protocol::Http, 1 << 20);
        let found = outcome(writer.write(&parcels(3), &Patience::default()));
        assert_eq!(found.replace(&peer.endpoint, "ENDPOINT"), expect);
    }
}

#[test]
fn collectors_by_grpc_say_what_they_do_not_take() {
    let cases = [
        (Reply::grpc(0, "", &[]), "taken"),
        (Reply::grpc(0, "", &peers::partial_success(3, "too%20old")), "3 refused: too%20old"),
        (
            Reply::grpc_retry_info(14, "busy", Duration::from_millis(2500)),
            "not for 2.5s: ENDPOINT takes nothing at present (Unavailable: busy)",
        ),
        (
            Reply::grpc_retry_info(8, "quota", Duration::from_secs(1)),
            "not for 1s: ENDPOINT takes nothing at present (ResourceExhausted: quota)",
        ),
        (Reply::grpc(8, "quota", &[]), "rejected: ENDPOINT refuses what it gets (ResourceExhausted: quota)"),
        (
            Reply::grpc(16, "who are you", &[]),
            "not now: ENDPOINT does not let us in: set or correct `headers` or `tls` (Unauthenticated: who are you)",
        ),
    ];
    for (reply, expect) in cases {
        let peer = GrpcPeer::start(vec![reply]);
        let mut writer = writer(&peer.endpoint, Protocol::Grpc, 1 << 20);
        let found = outcome(writer.write(&parcels(3), &Patience::default()));
        assert_eq!(found.replace(&peer.endpoint, "ENDPOINT"), expect);
    }
}

#[test]
fn what_was_taken_is_not_sent_again_when_a_later_request_fails() {
    let replies = vec![Reply::http(200, "", &[]), Reply::http(503, "", b""), Reply::http(200, "", &[])];
    let peer = HttpPeer::start(replies);
    // So small that two requests are needed.
    let mut writer = writer(&peer.endpoint, Protocol::Http, 1_500);
    let parcels = parcels(3);
    assert!(outcome(writer.write(&parcels, &Patience::default())).starts_with("not now"));
    assert_eq!(outcome(writer.write(&parcels, &Patience::default())), "taken");
    let sent: Vec<usize> = peer.requests().iter().map(|request| entries(request)).collect();
    assert_eq!(sent, [2, 1, 1]);
}

#[test]
fn of_several_requests_under_way_only_what_failed_is_sent_again() {
    let replies = (0..60).map(|number| Reply::grpc(if number == 3 { 14 } else { 0 }, "", &[]));
    let peer = GrpcPeer::start(replies.collect());
    let logs = Some(target(&peer.endpoint, Protocol::Grpc));
    let plan = Plan { logs, metrics: None, spans: None, resource: Vec::new() };
    let mut writer = OtlpWriter::with_limits(&plan, 1_500, 4).unwrap();
    let parcels = parcels(60);
    assert!(outcome(writer.write(&parcels, &Patience::default())).starts_with("not now"));
    assert_eq!(outcome(writer.write(&parcels, &Patience::default())), "taken");
    let requests = peer.requests();
    let failed: Vec<_> = requests.iter().filter(|(code, _)| *code == 14).map(|(_, body)| body).collect();
    let mut taken: Vec<_> = requests.iter().filter(|(code, _)| *code == 0).map(|(_, body)| body).collect();
    assert!(failed.len() == 1 && taken.contains(&failed[0]));
    assert_eq!(taken.iter().map(|body| entries(body)).sum::<usize>(), 60);
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), count);
}

#[test]
fn requests_that_are_too_large_are_divided_from_then_on() {
    let mut replies = vec![Reply::http(413, "", b"")];
    replies.extend((0..4).map(|_| Reply::http(200, "", &[])));
    let peer = HttpPeer::start(replies);
    let mut writer = writer(&peer.endpoint, Protocol::Http, 40_000);
    let parcels = parcels(60);
    assert_eq!(outcome(writer.write(&parcels, &Patience::default())), "taken");
    let sent: Vec<usize> = peer.requests().iter().map(|request| entries(request)).collect();
    assert!(sent[1] <= sent[0] / 2 + 1, "{sent:?}");
    assert_eq!(sent[1..].iter().sum::<usize>(), 60, "{sent:?}");
}

#[test]
fn a_request_that_is_refused_does_not_take_the_others_with_it() {
    let replies = vec![Reply::http(400, "", b"no"), Reply::http(200, "", &[])];
    let peer = HttpPeer::start(replies);
    let mut writer = writer(&peer.endpoint, Protocol::Http, 1_500);
    let found = outcome(writer.write(&parcels(3), &Patience::default()));
    assert_eq!(found, format!("2 refused: {} refuses what it gets (400 Bad Request: no)", peer.endpoint));
}

#[test]
fn a_collector_that_says_nothing_is_waited_for_no_longer_than_patience_lasts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let mut writer = writer(&endpoint, Protocol::Http, 1 << 20);
    let patience = Arc::new(Patience::default());
    let start = Instant::now();
    patience.end_at(start + Duration::from_millis(200));
    let found = outcome(writer.write(&parcels(1), &patience));
    assert_eq!(found, format!("not now: {endpoint} did not answer before the end"));
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    // A process that another test starts may have the socket, too, for a moment.
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end);
    }
    address
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let endpoint = format!("http://{}/", nobody());
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let Err(WriteError::Retry(error)) =
            writer(&endpoint, protocol, 1 << 20).write(&parcels(1), &Patience::default())
        else {
            panic!("there is nobody");
        };
        let text = crate::causes::with_causes(&*error);
        assert!(text.starts_with(&format!("cannot talk to {endpoint}: ")), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
}

#[test]
fn spans_and_sums_of_a_group_that_is_rejected_come_with_its_parcels() {
    let rejects = || Reply::http(400, "", b"no");
    // The group, then each parcel.
    let peer = HttpPeer::start(vec![rejects(), Reply::http(200, "", &[]), rejects()]);
    let of_spans = HttpPeer::start(vec![Reply::http(200, "", &[]), Reply::http(200, "", &[])]);
    let metrics = MetricsPlan {
        target: target(&peer.endpoint, Protocol::Http),
        interval: Duration::from_hours(1),
        temporality: Temporality::Cumulative,
        edges: crate::sinks::prometheus::Plan { edges: 10, idle: Duration::from_mins(1) },
    };
    let plan = Plan {
        logs: Some(target(&peer.endpoint, Protocol::Http)),
        metrics: Some(metrics),
        spans: Some(target(&of_spans.endpoint, Protocol::Http)),
        resource: Vec::new(),
    };
    let mut writer = OtlpWriter::with_limits(&plan, 1 << 20, 1).unwrap();
    let parcels: Vec<Parcel> = [3, 5]
        .into_iter()
        .enumerate()
        .map(|(number, flows)| {
            let mut batch = crate::batch::Batch::clone(&samples::batch(flows, 1));
            let later_ns = number as u64 * 60_000_000_000;
            let records = batch.records.iter().cloned();
            let ended = records.map(|record| Record {
                end_reason: Some(weir_flow::EndReason::Fin),
                start: weir_flow::Wall(record.start.0 + later_ns),
                end: weir_flow::Wall(record.end.0 + later_ns),
                ..record
            });
            batch.records = ended.collect::<Vec<_>>().into();
            Parcel { id: ParcelId(number as u128), batch: Arc::new(batch) }
        })
        .collect();
    let patience = Patience::default();
    assert!(outcome(writer.write(&parcels, &patience)).starts_with("rejected"));
    assert_eq!(writer.flows_counted(), 0);
    assert_eq!(outcome(writer.write(&parcels[..1], &patience)), "taken");
    assert_eq!(writer.flows_counted(), 3);
    assert!(outcome(writer.write(&parcels[1..], &patience)).starts_with("rejected"));
    assert_eq!(writer.flows_counted(), 8);
    let count = |request: &Vec<u8>| {
        let request = ExportTraceServiceRequest::decode(request.as_slice()).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len()
    };
    assert_eq!(of_spans.requests().iter().map(count).collect::<Vec<usize>>(), [3, 5]);
}

#[test]
fn metrics_that_do_not_arrive_keep_no_logs_waiting() {
    let nobody = format!("http://{}/v1/metrics", nobody());
    let peer = HttpPeer::start(vec![Reply::http(200, "", &[]), Reply::http(200, "", &[])]);
    let metrics = MetricsPlan {
        target: target(&nobody, Protocol::Http),
        interval: Duration::from_millis(1),
        temporality: Temporality::Cumulative,
        edges: crate::sinks::prometheus::Plan { edges: 10, idle: Duration::from_mins(1) },
    };
    let logs = Some(target(&peer.endpoint, Protocol::Http));
    let plan = Plan { logs, metrics: Some(metrics), spans: None, resource: Vec::new() };
    let mut writer = OtlpWriter::new(&plan).unwrap();
    for number in 1..=2 {
        let parcels = [Parcel { id: ParcelId(number), batch: samples::batch(3, 1) }];
        assert_eq!(outcome(writer.write(&parcels, &Patience::default())), "taken");
        let before = Instant::now();
        let found = outcome(writer.wake(&Patience::default()));
        assert_eq!(found, format!("not now: cannot talk to {nobody}"));
        assert!(writer.wakes_at().unwrap() > before);
    }
    assert_eq!(peer.requests().len(), 2);
}

fn entries(request: &[u8]) -> usize {
    let request = ExportLogsServiceRequest::decode(request).unwrap();
    request.resource_logs[0].scope_logs[0].log_records.len()
}
