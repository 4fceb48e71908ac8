//! The `otlp` sink with a real OpenTelemetry Collector.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use weir_agent::{
    batch::{Batch, Collected},
    config::{Config, Sources},
    ledger::Page,
    outlet::Outlet,
    sinks,
    store::conformance::Sample,
};
use weir_flow::{
    PointId, Record,
    field::{FIELDS, Kind, Value},
    filter::Filter,
};
use weir_integration::{
    Namespace,
    certificates::Authority,
    collector::{Collector, CollectorConfig, attributes},
    delivery::{self, Peer},
    require_root, require_tool,
};

const PATIENCE: Duration = Duration::from_mins(1);

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

/// Runs a test in a network namespace of its own: collectors give their ports up and take them again.
fn alone(test: impl FnOnce() + Send) {
    if require_root() {
        Namespace::new().run(test);
    }
}

/// Starts a sink of the collector; `rest` are further keys, each with a comma before it.
fn sink(directory: &Path, collector: &Collector, protocol: &str, rest: &str) -> Outlet {
    let file = directory.join("weir.yaml");
    let spool = directory.join("spool");
    let text = format!(
        "sinks:\n- {{type: otlp, endpoint: '{}', protocol: {protocol}, batch: {{time: 10ms}}, \
         spool: {{path: {}}}{rest}}}\n",
        collector.endpoint(protocol),
        spool.display()
    );
    fs::write(&file, text).expect("there is room");
    let config = Config::load(&Sources { file: Some(file), options: Vec::new() });
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    sinks::start(&config.sinks[0], &Arc::default()).expect("there are threads")
}

/// Batches with every kind of flow, and how many flows they have.
fn sample(ticks: u64) -> (Vec<Arc<Batch>>, Vec<Record>) {
    let mut all = Vec::new();
    let mut batches = Vec::new();
    for (tick, mut records) in Sample::default().ticks(ticks) {
        // What the sample has nowhere.
        for record in &mut records {
            record.quality.reverse_retransmits = record.quality.retransmits;
            record.source.identity.service.clone_from(&record.source.identity.workload);
            record.destination.identity.service.clone_from(&record.destination.identity.workload);
        }
        all.extend(records.iter().cloned());
        let mut collected = Collected::default();
        for record in records {
            collected.add(record, [PointId(1), PointId(2)]);
        }
        batches.push(collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true));
    }
    (batches, all)
}

fn offer(outlet: &Outlet, batches: &[Arc<Batch>]) {
    for batch in batches {
        outlet.offer(batch);
    }
}

/// Waits until the account is as wanted.
fn until(outlet: &Outlet, is_wanted: impl Fn(&Page) -> bool) -> Page {
    let start = Instant::now();
    loop {
        let page = outlet.account().total();
        if is_wanted(&page) {
            return page;
        }
        assert!(start.elapsed() < PATIENCE, "{page:?} {:?}", outlet.state());
        thread::yield_now();
    }
}

fn end(outlet: &Outlet) {
    let deadline = Instant::now() + PATIENCE;
    outlet.close(deadline);
    outlet.wait(deadline);
}

fn until_trouble(outlet: &Outlet, words: &str) -> String {
    let start = Instant::now();
    loop {
        let trouble = outlet.state().trouble.map(|trouble| trouble.text);
        if let Some(text) = trouble.as_ref().filter(|text| text.contains(words)) {
            return text.clone();
        }
        assert!(start.elapsed() < PATIENCE, "`{words}` is not said: {trouble:?}");
        thread::yield_now();
    }
}

/// The collector writes to its files a moment after it has answered.
fn until_logs(collector: &Collector, count: usize) -> Vec<Json> {
    let start = Instant::now();
    loop {
        let logs = collector.logs();
        if logs.len() >= count {
            return logs;
        }
        assert!(start.elapsed() < PATIENCE, "{} of {count} log records: {}", logs.len(), collector.log());
        thread::yield_now();
    }
}

/// Seconds as text with nine digits.
fn nanoseconds(seconds: &Json) -> Json {
    format!("{:.9}", seconds.as_f64().expect("it is a number")).into()
}

#[test]
fn every_field_arrives_under_its_name_by_either_protocol() {
    alone(|| {
        for (protocol, compression) in PROTOCOLS.into_iter().zip(["gzip", "none"]).chain([("grpc", "none")]) {
            let Some(collector) = Collector::start(&CollectorConfig::default()) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let rest = format!(
                ", compression: {compression}, resource: [{{name: deployment.environment.name, value: test}}]"
            );
            let outlet = sink(directory.path(), &collector, protocol, &rest);
            let (batches, records) = sample(40);
            offer(&outlet, &batches);
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            let logs = until_logs(&collector, records.len());
            assert_eq!(logs.len(), records.len());
            let mut seen: Vec<&str> = Vec::new();
            for (log, record) in logs.iter().zip(&records) {
                let expect: BTreeMap<String, Json> = FIELDS
                    .iter()
                    .filter_map(|field| {
                        let value = match field.value(record) {
                            Value::Absent => return None,
                            Value::Integer(number) => number.into(),
                            Value::Boolean(truth) => truth.into(),
                            // JSON has one kind of number, and the collector writes 2 for 2.0.
                            Value::Duration(time) => nanoseconds(&json!(time.as_secs_f64())),
                            other => other.to_string().into(),
                        };
                        seen.push(field.name);
                        Some((field.name.to_owned(), value))
                    })
                    .collect();
                let mut found = attributes(log);
                for field in FIELDS.iter().filter(|field| field.kind == Kind::Duration) {
                    found.entry(field.name.to_owned()).and_modify(|value| *value = nanoseconds(value));
                }
                assert_eq!(found, expect);
                assert_eq!(log["timeUnixNano"], record.end.0.to_string());
                assert_eq!(log["eventName"], "network.flow");
            }
            let missing: Vec<&str> =
                FIELDS.iter().map(|field| field.name).filter(|name| !seen.contains(name)).collect();
            assert!(missing.is_empty(), "{missing:?}");
            let resource = collector.resource();
            assert_eq!(resource["service.name"], "weir");
            assert_eq!(resource["deployment.environment.name"], "test");
            assert!(resource.contains_key("host.name"));
        }
    });
}

#[test]
fn a_collector_that_was_away_gets_everything_when_it_is_back() {
    alone(|| {
        for protocol in PROTOCOLS {
            let Some(mut collector) = Collector::start(&CollectorConfig::default()) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let outlet = sink(directory.path(), &collector, protocol, "");
            let (batches, records) = sample(30);
            let (first, second) = batches.split_at(10);
            let early: usize = first.iter().map(|batch| batch.records.len()).sum();
            offer(&outlet, first);
            until(&outlet, |page| page.delivered.records == early as u64);
            until_logs(&collector, early);
            collector.kill();
            offer(&outlet, second);
            until_trouble(&outlet, "cannot talk to");
            collector.start_again();
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            assert_eq!(until_logs(&collector, records.len()).len(), records.len());
            assert_eq!(outlet.state().trouble, None);
        }
    });
}

#[test]
fn a_collector_that_hangs_is_left_after_the_timeout_and_tried_again() {
    alone(|| {
        for protocol in PROTOCOLS {
            let Some(collector) = Collector::start(&CollectorConfig::default()) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let outlet = sink(directory.path(), &collector, protocol, ", timeout: 500ms");
            let (batches, records) = sample(10);
            collector.freeze();
            offer(&outlet, &batches);
            until_trouble(&outlet, "does not answer within 500ms");
            collector.thaw();
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            // What it read before it was frozen may be there twice: its answer was lost.
            until_logs(&collector, records.len());
        }
    });
}

#[test]
fn credentials_that_are_refused_are_told_and_read_again() {
    alone(|| {
        for (protocol, code) in PROTOCOLS.into_iter().zip(["Unauthenticated", "401"]) {
            let config =
                CollectorConfig { token: Some("open-sesame".to_owned()), ..CollectorConfig::default() };
            let Some(collector) = Collector::start(&config) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let token = directory.path().join("token");
            fs::write(&token, "Bearer wrong\n").expect("there is room");
            let rest = format!(", headers: [{{name: Authorization, file: {}}}]", token.display());
            let outlet = sink(directory.path(), &collector, protocol, &rest);
            let (batches, records) = sample(10);
            offer(&outlet, &batches);
            let trouble = until_trouble(&outlet, "does not let us in");
            assert!(trouble.contains(code) && !trouble.contains("wrong"), "{trouble}");
            fs::write(&token, "Bearer open-sesame\n").expect("there is room");
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            assert_eq!(outlet.account().total().dropped.iter().map(|tally| tally.records).sum::<u64>(), 0);
        }
    });
}

#[test]
fn tls_looks_at_the_collector_and_shows_our_certificate() {
    alone(|| {
        if !require_tool("openssl") {
            return;
        }
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = authority.sign("server", "IP:127.0.0.1");
        let client = authority.sign("client", "DNS:weir");
        let config =
            CollectorConfig { tls: Some((server, authority.certificate())), ..CollectorConfig::default() };
        let Some(collector) = Collector::start(&config) else { return };
        let (batches, records) = sample(5);
        let mut wanted = 0;
        for protocol in PROTOCOLS {
            let attempt = |tls: &str| -> (TempDir, Outlet) {
                let directory = tempfile::tempdir().expect("there is room");
                let outlet = sink(directory.path(), &collector, protocol, &format!(", tls: {{{tls}}}"));
                offer(&outlet, &batches);
                (directory, outlet)
            };
            let ours =
                format!("certificate: {}, key: {}", client.certificate.display(), client.key.display());
            let (_directory, outlet) =
                attempt(&format!("authority: {}, {ours}", stranger.certificate().display()));
            until_trouble(&outlet, "certificate");
            let (_directory, outlet) = attempt(&format!("authority: {}", authority.certificate().display()));
            until_trouble(&outlet, "cannot talk to");
            let (_directory, outlet) = attempt("authority: /nowhere");
            until_trouble(&outlet, "cannot read the certificates in /nowhere");
            let (_directory, outlet) =
                attempt(&format!("authority: {}, {ours}", authority.certificate().display()));
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            wanted += records.len();
            assert_eq!(until_logs(&collector, wanted).len(), wanted);
        }
    });
}

#[test]
fn a_batch_that_is_larger_than_a_collector_takes_is_divided() {
    alone(|| {
        for protocol in PROTOCOLS {
            let config = CollectorConfig { grpc_mib: Some(1), ..CollectorConfig::default() };
            let Some(collector) = Collector::start(&config) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let outlet = sink(directory.path(), &collector, protocol, "");
            let (tick, records) = Sample::default().tick(1);
            let mut collected = Collected::default();
            for record in records.iter().cycle().take(6_000) {
                collected.add(record.clone(), [PointId(1), PointId(2)]);
            }
            outlet.offer(&collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true));
            until(&outlet, |page| page.delivered.records == 6_000);
            assert_eq!(until_logs(&collector, 6_000).len(), 6_000);
            assert_eq!(outlet.state().refused, 0);
        }
    });
}

#[test]
fn sums_arrive_as_metrics_before_the_end() {
    alone(|| {
        for protocol in PROTOCOLS {
            let Some(collector) = Collector::start(&CollectorConfig::default()) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let outlet = sink(directory.path(), &collector, protocol, ", logs: false");
            let (batches, records) = sample(30);
            offer(&outlet, &batches);
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            end(&outlet);
            let start = Instant::now();
            while collector.points("network.flow.rtt").is_empty() {
                assert!(start.elapsed() < PATIENCE, "{}", collector.log());
                thread::yield_now();
            }
            let total = |metric: &str, name: &str, value: &str| {
                let points = collector.points(metric).into_iter();
                let chosen = points.filter(|point| attributes(point)[name] == value);
                let number = |point: Json| point["asInt"].as_str().expect("it is text").parse::<u64>();
                chosen.map(|point| number(point).expect("it is a number")).sum::<u64>()
            };
            let expect = |of: fn(&Record) -> u64| records.iter().map(of).sum::<u64>();
            assert_eq!(
                total("network.flow.bytes", "direction", "forward"),
                expect(|record| record.delta.forward.bytes)
            );
            assert_eq!(
                total("network.flow.packets", "direction", "reverse"),
                expect(|record| record.delta.reverse.packets)
            );
            assert_eq!(
                total("network.flow.connections", "state", "closed"),
                expect(|record| u64::from(record.end_reason.is_some()))
            );
            assert!(collector.logs().is_empty());
        }
    });
}

#[test]
fn sums_are_told_again_while_nothing_flows() {
    alone(|| {
        let Some(collector) = Collector::start(&CollectorConfig::default()) else { return };
        let directory = tempfile::tempdir().expect("there is room");
        let rest = ", logs: false, metrics_interval: 1s";
        let outlet = sink(directory.path(), &collector, "grpc", rest);
        let (batches, records) = sample(30);
        offer(&outlet, &batches);
        until(&outlet, |page| page.delivered.records == records.len() as u64);
        let time = |point: &Json| point["timeUnixNano"].to_string();
        let start = Instant::now();
        let times = |points: &[Json]| points.iter().map(time).collect::<BTreeSet<_>>().len();
        let before = times(&collector.points("network.flow.packets"));
        let points = loop {
            let points = collector.points("network.flow.packets");
            // The first of these may have been told in the midst of it.
            if times(&points) > before + 2 {
                break points;
            }
            assert!(start.elapsed() < PATIENCE, "{}", collector.log());
            thread::yield_now();
        };
        let last = points.iter().map(time).max().expect("there are some");
        let (last, before): (Vec<&Json>, Vec<&Json>) = points.iter().partition(|point| time(point) == last);
        let number = |point: &Json| -> u64 {
            point["asInt"].as_str().expect("it is text").parse().expect("it is a number")
        };
        let told: u64 = last.iter().map(|point| number(point)).sum();
        let count = |record: &Record| record.delta.forward.packets + record.delta.reverse.packets;
        assert_eq!(told, records.iter().map(count).sum::<u64>());
        for point in last {
            let is_same = |other: &&&Json| other["attributes"] == point["attributes"];
            for earlier in before.iter().filter(is_same) {
                assert_eq!(earlier["startTimeUnixNano"], point["startTimeUnixNano"]);
                assert!(number(earlier) <= number(point));
            }
        }
        end(&outlet);
    });
}

#[test]
fn connections_arrive_as_spans_when_they_have_ended() {
    alone(|| {
        for protocol in PROTOCOLS {
            let Some(collector) = Collector::start(&CollectorConfig::default()) else { return };
            let directory = tempfile::tempdir().expect("there is room");
            let outlet =
                sink(directory.path(), &collector, protocol, ", logs: false, metrics: false, spans: true");
            let (batches, records) = sample(30);
            offer(&outlet, &batches);
            until(&outlet, |page| page.delivered.records == records.len() as u64);
            let ended: BTreeMap<String, &Record> = records
                .iter()
                .filter(|record| record.end_reason.is_some())
                .filter(|record| record.tuple.has_ports() && !record.tuple.is_fragment())
                .map(|record| (record.start.0.to_string() + &record.source.port.to_string(), record))
                .collect();
            let start = Instant::now();
            while collector.spans().len() < ended.len() {
                assert!(start.elapsed() < PATIENCE, "{}", collector.log());
                thread::yield_now();
            }
            let spans = collector.spans();
            assert_eq!(spans.len(), ended.len());
            for span in spans {
                let found = attributes(&span);
                let start = span["startTimeUnixNano"].as_str().expect("it is text");
                let record = ended[&format!("{start}{}", found["source.port"])];
                assert_eq!(span["endTimeUnixNano"], record.end.0.to_string());
                assert_eq!(span["traceId"].as_str().map(str::len), Some(32));
                assert_eq!(span["spanId"].as_str().map(str::len), Some(16));
                assert_eq!(span["kind"], 1);
                let failure = record.outcome.tcp_failure;
                assert_eq!(
                    span["status"]["code"].as_u64().unwrap_or_default(),
                    if failure.is_some() { 2 } else { 0 }
                );
                assert_eq!(found.contains_key("error.type"), failure.is_some());
            }
        }
    });
}

/// A collector, as the checks of all sinks see it.
struct Receiver {
    collector: Collector,
    protocol: &'static str,
}

impl Receiver {
    fn start(protocol: &'static str) -> Option<Self> {
        let collector = Collector::start(&CollectorConfig::default())?;
        Some(Self { collector, protocol })
    }
}

impl Peer for Receiver {
    fn sink(&self) -> String {
        let (endpoint, protocol) = (self.collector.endpoint(self.protocol), self.protocol);
        format!(
            "{{type: otlp, endpoint: '{endpoint}', protocol: {protocol}, timeout: 20s, metrics: false, \
             batch: {{records: 500, time: 10ms}}}}"
        )
    }

    fn records(&self) -> Vec<BTreeMap<String, String>> {
        let text = |value: Json| match value {
            Json::String(text) => text,
            Json::Number(number) if number.is_f64() => {
                let digits = format!("{:.9}", number.as_f64().unwrap_or_default());
                digits.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            other => other.to_string(),
        };
        let logs = self.collector.logs();
        let record =
            |log: &Json| attributes(log).into_iter().map(|(name, value)| (name, text(value))).collect();
        logs.iter().map(record).collect()
    }

    fn kill(&mut self) {
        // What it has taken it writes to its file a second later, unless it is asked to end.
        self.collector.stop();
    }

    fn start_again(&mut self) {
        self.collector.start_again();
    }

    fn freeze(&mut self) {
        self.collector.freeze();
    }

    fn thaw(&mut self) {
        self.collector.thaw();
    }

    fn is_idempotent(&self) -> bool {
        false
    }
}

macro_rules! with_collector {
    ($($name:ident: $check:path, $protocol:literal;)*) => {
        $(#[test]
        fn $name() {
            alone(|| {
                if let Some(mut collector) = Receiver::start($protocol) {
                    $check(&mut collector);
                }
            });
        })*
    };
}

with_collector! {
    grpc_every_field_arrives: delivery::every_field_arrives, "grpc";
    grpc_an_outage_loses_nothing: delivery::an_outage_loses_nothing, "grpc";
    grpc_a_killed_agent_loses_nothing: delivery::a_killed_agent_loses_nothing, "grpc";
    grpc_a_killed_peer_loses_nothing: delivery::a_killed_peer_loses_nothing, "grpc";
    grpc_a_hanging_peer_stops_nobody: delivery::a_hanging_peer_stops_nobody, "grpc";
    grpc_the_end_loses_nothing: delivery::the_end_loses_nothing, "grpc";
    http_every_field_arrives: delivery::every_field_arrives, "http/protobuf";
    http_an_outage_loses_nothing: delivery::an_outage_loses_nothing, "http/protobuf";
    http_a_killed_agent_loses_nothing: delivery::a_killed_agent_loses_nothing, "http/protobuf";
    http_a_killed_peer_loses_nothing: delivery::a_killed_peer_loses_nothing, "http/protobuf";
    http_a_hanging_peer_stops_nobody: delivery::a_hanging_peer_stops_nobody, "http/protobuf";
    http_the_end_loses_nothing: delivery::the_end_loses_nothing, "http/protobuf";
}
