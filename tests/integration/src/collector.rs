//! A real OpenTelemetry Collector for one test: it takes OTLP by gRPC and by HTTP, and writes what it got to files.
//!
//! It listens on loopback, lives in a temporary directory and ends with the value. `cargo xtask setup` builds it;
//! `cargo xtask test` says where it is.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{cannot_run, certificates::Certified};

/// Tells where the binary is.
const VARIABLE: &str = "WEIR_COLLECTOR";

const PATIENCE: Duration = Duration::from_mins(1);

/// What a collector is to be like.
#[derive(Clone, Debug, Default)]
pub struct CollectorConfig {
    /// Its certificate, and the file of those who sign clients.
    pub tls: Option<(Certified, PathBuf)>,
    /// Token that clients must send.
    pub token: Option<String>,
    /// Throws away what it gets.
    pub keeps_nothing: bool,
    /// Most MiB of a request by gRPC; 4 if nothing is said.
    pub grpc_mib: Option<u32>,
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    directory: TempDir,
    grpc_port: u16,
    http_port: u16,
    is_secure: bool,
    binary: PathBuf,
    process: Option<Child>,
}

/// A log record, a data point or a span, in the JSON of OTLP.
pub type Entry = Value;

impl Collector {
    /// Starts one and waits until it listens. `None` if that cannot be done here, which has then been said.
    #[must_use]
    pub fn start(config: &CollectorConfig) -> Option<Self> {
        let Some(binary) = env::var_os(VARIABLE).map(PathBuf::from) else {
            cannot_run(&format!(
                "{VARIABLE} is not set: run it by `cargo xtask test netns`, with Go installed"
            ));
            return None;
        };
        if !binary.is_file() {
            cannot_run(&format!("{} is not there: run `cargo xtask setup`", binary.display()));
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room");
        let (grpc_port, http_port) = (free_port(), free_port());
        let file = directory.path().join("collector.yaml");
        let text = config.text(directory.path(), grpc_port, http_port);
        fs::write(file, text).expect("there is room");
        let is_secure = config.tls.is_some();
        let mut collector = Self { directory, grpc_port, http_port, is_secure, binary, process: None };
        collector.start_again();
        Some(collector)
    }

    /// Starts it where it was, and waits until it listens.
    pub fn start_again(&mut self) {
        let log =
            fs::File::options().append(true).create(true).open(self.path("log")).expect("there is room");
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.path("collector.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().expect("it was built");
        let start = Instant::now();
        let listens = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        while !(listens(self.grpc_port) && listens(self.http_port)) {
            let has_ended = process.try_wait().expect("it is our child").is_some();
            assert!(!has_ended && start.elapsed() < PATIENCE, "{}", self.log());
            thread::yield_now();
        }
        self.process = Some(process);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is our child");
            process.wait().expect("it is our child");
        }
    }

    /// Ends it as SIGTERM does: it answers what it is being asked and writes down what it has.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if let Some(mut process) = self.process.take() {
            process.wait().expect("it is our child");
        }
    }

    /// Makes it answer nothing, without ending it.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it takes requests by `grpc` or `http/protobuf`.
    pub fn endpoint(&self, protocol: &str) -> String {
        let port = if protocol == "grpc" { self.grpc_port } else { self.http_port };
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{port}")
    }

    /// The log records that it got.
    pub fn logs(&self) -> Vec<Entry> {
        let records = self.lines("logs").into_iter().flat_map(|line| each(line, "resourceLogs"));
        let scopes = records.flat_map(|of_resource| each(of_resource, "scopeLogs"));
        scopes.flat_map(|of_scope| each(of_scope, "logRecords")).collect()
    }

    /// The spans that it got.
    pub fn spans(&self) -> Vec<Entry> {
        let spans = self.lines("traces").into_iter().flat_map(|line| each(line, "resourceSpans"));
        let scopes = spans.flat_map(|of_resource| each(of_resource, "scopeSpans"));
        scopes.flat_map(|of_scope| each(of_scope, "spans")).collect()
    }

    /// The points of the metric that it got, each with its attributes in between.
    pub fn points(&self, metric: &str) -> Vec<Entry> {
        let metrics = self.lines("metrics").into_iter().flat_map(|line| each(line, "resourceMetrics"));
        let scopes = metrics.flat_map(|of_resource| each(of_resource, "scopeMetrics"));
        let metrics = scopes.flat_map(|of_scope| each(of_scope, "metrics"));
        let points = metrics.filter(|found| found["name"] == metric).flat_map(|mut found| {
            ["sum", "histogram"].map(|kind| each(found[kind].take(), "dataPoints")).concat()
        });
        points.collect()
    }

    /// Attributes of the resource of the last log records.
    pub fn resource(&self) -> BTreeMap<String, Value> {
        let last = self.lines("logs").pop().expect("there is a line");
        attributes(&last["resourceLogs"][0]["resource"])
    }

    /// Lines of the file with this name: what was exported, in the JSON of OTLP. A line that is being written is not there yet.
    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(&format!("{name}.jsonl"))).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill(Pid::from_raw(i32::try_from(process.id()).expect("a pid fits")), signal).expect("it runs");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

impl CollectorConfig {
    fn text(&self, directory: &Path, grpc_port: u16, http_port: u16) -> String {
        let directory = directory.display();
        let mut server = String::new();
        if let Some((certified, clients)) = &self.tls {
            write!(
                server,
                "\n        tls: {{cert_file: {}, key_file: {}, client_ca_file: {}}}",
                certified.certificate.display(),
                certified.key.display(),
                clients.display()
            )
            .expect("a string takes any text");
        }
        let mut extensions = String::new();
        if let Some(token) = &self.token {
            server.push_str("\n        auth: {authenticator: bearertokenauth}");
            write!(extensions, "extensions:\n  bearertokenauth: {{token: {token}}}\n")
                .expect("a string takes any text");
        }
        let mib = self.grpc_mib.unwrap_or(4);
        let mut text = format!(
            "{extensions}receivers:\n  otlp:\n    protocols:\n      \
             grpc:\n        endpoint: 127.0.0.1:{grpc_port}\n        max_recv_msg_size_mib: {mib}{server}\n      \
             http:\n        endpoint: 127.0.0.1:{http_port}{server}\nexporters:\n  nop: {{}}\n"
        );
        let signals = ["logs", "metrics", "traces"];
        for signal in signals {
            writeln!(text, "  file/{signal}: {{path: {directory}/{signal}.jsonl, append: true}}")
                .expect("a string takes any text");
        }
        text.push_str("service:\n");
        if self.token.is_some() {
            text.push_str("  extensions: [bearertokenauth]\n");
        }
        text.push_str("  telemetry: {metrics: {level: none}}\n  pipelines:\n");
        for signal in signals {
            let exporter = if self.keeps_nothing { "nop".to_owned() } else { format!("file/{signal}") };
            writeln!(text, "    {signal}: {{receivers: [otlp], exporters: [{exporter}]}}")
                .expect("a string takes any text");
        }
        text
    }
}

/// The attributes of an entry or of a resource, by name: integers, floating point numbers, truth values and text as those
/// of JSON.
pub fn attributes(entry: &Value) -> BTreeMap<String, Value> {
    let list = entry["attributes"].as_array().into_iter().flatten();
    list.map(|pair| (pair["key"].as_str().expect("a key").to_owned(), value(&pair["value"]))).collect()
}

/// A value in the JSON of OTLP, where integers of 64 bits are text.
fn value(value: &Value) -> Value {
    let (kind, inner) = value.as_object().and_then(|object| object.iter().next()).expect("it has one value");
    match kind.as_str() {
        "intValue" => inner.as_str().expect("it is text").parse::<i64>().expect("it is a number").into(),
        _ => inner.clone(),
    }
}

fn each(mut object: Value, name: &str) -> Vec<Value> {
    match object.get_mut(name).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// A port that nobody else gets soon.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("there is a free port").port()
}
