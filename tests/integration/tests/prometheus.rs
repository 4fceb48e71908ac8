//! A real Prometheus scrapes the sums of edges, and finds in them what was sent.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::Agent,
    http::{self, Answer},
    require_root, require_tool,
    traffic::UdpFlow,
};

/// Link, IPv4 and UDP headers.
const HEADERS: u64 = 14 + 20 + 8;

/// Prometheus in a namespace, which is its own to listen in.
struct Prometheus {
    child: Child,
    namespace: Namespace,
    _directory: TempDir,
}

const ADDRESS: &str = "127.0.0.1:9090";

impl Prometheus {
    fn start(namespace: &Namespace) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let file = directory.path().join("prometheus.yml");
        let scrape = "scrape_configs:\n- job_name: weir\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  \
                      static_configs: [{targets: ['127.0.0.1:4780']}]\n";
        fs::write(&file, scrape).expect("there is room");
        let mut command = namespace.command("prometheus");
        command.arg("--config.file").arg(&file).arg("--storage.tsdb.path").arg(directory.path().join("data"));
        command.args(["--web.listen-address", ADDRESS, "--log.level", "error"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
        Self { child, namespace: namespace.clone(), _directory: directory }
    }

    /// The only value of a query, once it is as wanted.
    fn value_until(&self, query: &str, is_wanted: impl Fn(f64) -> bool) -> f64 {
        let path = format!("/api/v1/query?query={query}");
        let address: SocketAddr = ADDRESS.parse().expect("it is an address");
        let is_wanted =
            |answer: &Answer| answer.status == 200 && value(&answer.json()).is_some_and(&is_wanted);
        let answer = http::get_until(&self.namespace, address, &path, is_wanted);
        value(&answer.json()).expect("it was there just now")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn value(answer: &Value) -> Option<f64> {
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn what_was_sent_is_what_prometheus_has() {
    if !require_root() || !require_tool("prometheus") || !require_tool("promtool") {
        return;
    }
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 9, Neighbours::Static);
    let sink = "sinks=[{type: prometheus, edges: 2}]";
    let agent = Agent::start(&left, None, &["-i", "left0", "--set", sink]);
    let prometheus = Prometheus::start(&left);

    let first = UdpFlow::open(&wire.left, &wire.right, false);
    first.send(300, 100);
    let of_first = format!("{{destination_port=\"{}\",direction=\"forward\"}}", first.destination().port());
    let encoded = |name: &str, labels: &str| {
        let text = format!("{name}{labels}");
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_().".contains(&byte);
        text.bytes()
            .map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect::<String>()
    };
    let packets = encoded("network_flow_packets_total", &of_first);
    prometheus.value_until(&packets, |packets| packets >= 300.0);
    let bytes = encoded("network_flow_bytes_total", &of_first);
    #[expect(clippy::cast_precision_loss, reason = "some kilobytes")]
    let sent = (300 * (100 + HEADERS)) as f64;
    assert!((prometheus.value_until(&bytes, |bytes| bytes >= sent) - sent).abs() < 0.5);

    // Two edges have series of their own, and what the others send is in the same sum.
    for _ in 0..4 {
        UdpFlow::open(&wire.left, &wire.right, false).send(50, 10);
    }
    let all = encoded("sum(network_flow_packets_total", "{direction=\"forward\"})");
    assert!((prometheus.value_until(&all, |packets| packets >= 500.0) - 500.0).abs() < 0.5);
    let others = encoded("network_flow_packets_total", "{source=\"__other__\",direction=\"forward\"}");
    assert!((prometheus.value_until(&others, |packets| packets >= 150.0) - 150.0).abs() < 0.5);

    let text = agent.get("/metrics").body;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("it is installed");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));

    drop(prometheus);
    agent.end();
}
