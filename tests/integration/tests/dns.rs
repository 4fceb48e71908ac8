//! DNS with real clients and a real server: a client asks through a node, on which the agent sees each message twice.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::Agent,
    http::{self, Events},
    require_root, require_tool,
    tcp::wait_until,
};

/// Longest step of the kernel's clock, and a little more.
const KERNEL_TICK: Duration = Duration::from_millis(20);

/// A client, a node that forwards, and a server.
struct Stage {
    client: Namespace,
    node: Namespace,
    server: Namespace,
    address: IpAddr,
    address6: IpAddr,
}

impl Stage {
    fn new() -> Self {
        let (client, node, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        let edge = Veth::connect((&client, "eth0"), (&node, "pod0"), 1, Neighbours::Static);
        let uplink = Veth::connect((&node, "up0"), (&server, "eth0"), 2, Neighbours::Static);
        for (namespace, via) in [(&client, &edge.right), (&server, &uplink.left)] {
            namespace.ip(&format!("route add default via {}", via.ipv4));
            namespace.ip(&format!("-6 route add default via {}", via.ipv6));
        }
        node.sysctl("net/ipv4/ip_forward", "1");
        node.sysctl("net/ipv6/conf/all/forwarding", "1");
        let (address, address6) = (uplink.right.ipv4.into(), uplink.right.ipv6.into());
        Self { client, node, server, address, address6 }
    }

    /// What `dig` prints, whatever becomes of the question.
    fn dig(&self, server: IpAddr, arguments: &str) -> String {
        let mut dig = self.client.command("dig");
        dig.arg(format!("@{server}")).args(["+tries=1", "+timeout=20"]);
        let output = dig.args(arguments.split_whitespace()).output().expect("dig starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn dig_expecting(&self, arguments: &str, expected: &str) {
        let answer = self.dig(self.address, arguments);
        assert!(answer.contains(expected), "{arguments}: {answer}");
    }
}

/// A DNS server, which ends with this.
struct Dnsmasq(Child);

impl Dnsmasq {
    /// Starts one that knows `www.weir.test`, another name for it, and that there is nothing else in that domain.
    fn start(stage: &Stage) -> Self {
        let mut command = stage.server.command("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]);
        command.args(["--pid-file=", "--local-ttl=30", "--local=/weir.test/", "--edns-packet-max=4096"]);
        command.arg(format!("--host-record=www.weir.test,{},{}", stage.address, stage.address6));
        command.arg("--cname=alias.weir.test,www.weir.test");
        command.stderr(Stdio::piped());
        let mut child = command.spawn().expect("dnsmasq starts");
        let mut lines =
            BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let is_started = lines.any(|line| line.contains("started"));
        assert!(is_started, "dnsmasq does not start");
        // Whoever writes wants a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits"));
        kill(pid, signal).expect("it runs");
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Flows that meet a filter, as soon as there are as many, with the fields of one of them as it is wanted.
fn flows_until(stage: &Stage, agent: &Agent, filter: &str, is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let path = format!("/api/v1/flows?filter={}", filter.replace(' ', "%20"));
    let flows = |body: &http::Answer| {
        let flows = body.json()["flows"].as_array().cloned().unwrap_or_default();
        flows.into_iter().filter(&is_wanted).collect::<Vec<Value>>()
    };
    let found = |answer: &http::Answer| answer.status == 200 && !flows(answer).is_empty();
    flows(&http::get_until(&stage.node, agent.address(), &path, found))
}

/// The sum of the samples of a metric that have this label.
fn metric(metrics: &str, name: &str, label: &str) -> u64 {
    let samples =
        metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    samples
        .map(|line| line.rsplit(' ').next().expect("it has a value").parse::<u64>().expect("a number"))
        .sum()
}

fn metrics_until(stage: &Stage, agent: &Agent, is_wanted: impl Fn(&str) -> bool) -> String {
    let is_wanted = |answer: &http::Answer| answer.status == 200 && is_wanted(&answer.body);
    http::get_until(&stage.node, agent.address(), "/metrics", is_wanted).body
}

#[test]
fn lookups_are_counted_once_and_flows_to_what_they_found_have_its_name() {
    if !require_root() || !require_tool("dnsmasq") || !require_tool("dig") {
        return;
    }
    let stage = Stage::new();
    let _server = Dnsmasq::start(&stage);
    let agent = Agent::start(&stage.node, None, &["-i", "pod0", "-i", "up0"]);
    agent.status_until(|status| status["interfaces"]["attached"] == 2);

    stage.dig_expecting("www.weir.test A", "status: NOERROR");
    stage.dig_expecting("www.weir.test AAAA +tcp", "status: NOERROR");
    stage.dig_expecting("missing.weir.test A", "status: NXDOMAIN");
    let metrics = metrics_until(&stage, &agent, |metrics| {
        metric(metrics, "weir_dns_queries_total", "NOERROR") >= 2
            && metric(metrics, "weir_dns_queries_total", "NXDOMAIN") >= 1
    });
    assert_eq!(metric(&metrics, "weir_dns_queries_total", "rcode"), 3, "each once: {metrics}");
    assert_eq!(metric(&metrics, "weir_dns_lookup_duration_seconds_bucket", "le=\"+Inf\""), 3);
    assert_eq!(metric(&metrics, "weir_dns_packets_total", "outcome=\"lost\""), 0);
    assert_eq!(metric(&metrics, "weir_enrichment_lost_total", "what=\"dns\""), 0, "{metrics}");

    // Each message passes two interfaces, and each has a record of its own.
    let of_name = "dns.question.name=missing.weir.test";
    for interface in ["pod0", "up0"] {
        let filter = format!("{of_name} and iface={interface}");
        let flows = flows_until(&stage, &agent, &filter, |flow| flow["dns.response_code"] == "NXDOMAIN");
        assert_eq!(flows.len(), 1, "{flows:#?}");
        assert_eq!(flows[0]["dns.question.type"], "A");
        assert!(flows[0]["dns.lookup.duration"].as_f64().is_some_and(|time| time > 0.0 && time < 20.0));
    }

    // What the name led to: before it was asked by another name, and after.
    let listener = stage.server.run(|| TcpListener::bind((stage.address, 0))).expect("the address is ours");
    let target = listener.local_addr().expect("it is bound");
    let mut live = Events::follow(&stage.node, agent.address(), "/api/v1/live", &[]);
    let first = connect(&stage, &listener, target);
    let name_of = |flow: &(TcpStream, TcpStream)| {
        let port = flow.0.local_addr().expect("it is connected").port();
        let filter = format!("proto=tcp and sport={port}");
        let flows = flows_until(&stage, &agent, &filter, |flow| flow["destination.dns.name"].is_string());
        flows[0]["destination.dns.name"].as_str().map(str::to_owned)
    };
    // Known before the next lookup: the beginning of a flow is told in steps of the kernel's jiffies.
    assert_eq!(name_of(&first).as_deref(), Some("www.weir.test"), "it began under that name");
    stage.dig_expecting("alias.weir.test A", "www.weir.test.");
    let later = Instant::now() + KERNEL_TICK;
    wait_until("the kernel's clock is later", || Instant::now() > later);
    let second = connect(&stage, &listener, target);
    assert_eq!(name_of(&second).as_deref(), Some("alias.weir.test"), "the name that was asked for");
    let has_name = |event: &http::ServerEvent| {
        let frame: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let names = frame["columns"]["destination.dns.name"].as_array().cloned().unwrap_or_default();
        names.iter().any(|name| name == "alias.weir.test")
    };
    while !has_name(&live.next().expect("there are events")) {}

    // IPv6 from end to end.
    let listener6 = stage.server.run(|| TcpListener::bind((stage.address6, 0))).expect("the address is ours");
    assert!(stage.dig(stage.address6, "www.weir.test AAAA").contains("status: NOERROR"));
    let third = connect(&stage, &listener6, listener6.local_addr().expect("it is bound"));
    assert_eq!(name_of(&third).as_deref(), Some("www.weir.test"));

    let metrics = agent.get("/metrics").body;
    assert_eq!(metric(&metrics, "weir_dns_queries_total", "rcode"), 5, "{metrics}");
    assert_eq!(metric(&metrics, "weir_dns_unanswered_total", "role"), 0, "{metrics}");
    let status = agent.status();
    assert!(status["dns"]["names"].as_u64() >= Some(3), "{status}");
    let ledger = &agent.get("/api/v1/ledger").json()["dns"];
    assert_eq!((&ledger["lost"], &ledger["seen"]), (&0.into(), &ledger["written"]));
    drop((first, second, third));
    agent.end();
}

fn connect(stage: &Stage, listener: &TcpListener, target: SocketAddr) -> (TcpStream, TcpStream) {
    let client = stage.client.run(|| TcpStream::connect(target)).expect("it listens");
    let (server, _) = listener.accept().expect("it was connected");
    (client, server)
}

#[test]
fn a_server_that_is_silent_leaves_queries_unanswered() {
    if !require_root() || !require_tool("dnsmasq") || !require_tool("dig") {
        return;
    }
    let stage = Stage::new();
    let server = Dnsmasq::start(&stage);
    server.signal(Signal::SIGSTOP);
    let agent = Agent::start(&stage.node, None, &["-i", "pod0", "-i", "up0"]);
    agent.status_until(|status| status["interfaces"]["attached"] == 2);
    let answer = stage.dig(stage.address, "+timeout=1 www.weir.test A");
    assert!(answer.contains("timed out") || answer.contains("no servers could be reached"), "{answer}");
    let status = agent.status_until(|status| status["dns"]["unanswered"].as_u64() >= Some(1));
    assert_eq!(
        (&status["dns"]["unanswered"], &status["dns"]["answered"]),
        (&1.into(), &0.into()),
        "{status}"
    );
    let told = flows_until(&stage, &agent, "dns.question.name=www.weir.test", |flow| {
        flow["flow.end_reason"] == "idle"
    });
    assert!(told.iter().all(|flow| flow["dns.response_code"].is_null()), "{told:#?}");
    drop(server);
}

#[test]
fn without_dns_nothing_is_read_and_nothing_told() {
    if !require_root() || !require_tool("dnsmasq") || !require_tool("dig") {
        return;
    }
    let stage = Stage::new();
    let _server = Dnsmasq::start(&stage);
    let agent = Agent::start(&stage.node, None, &["-i", "pod0", "--set", "dns.enabled=false"]);
    stage.dig_expecting("www.weir.test A", "status: NOERROR");
    let flows = flows_until(&stage, &agent, "port=53", |_| true);
    let fields = flows[0].as_object().expect("a flow is an object");
    assert!(!fields.keys().any(|name| name.contains("dns")), "{flows:#?}");
    assert!(agent.status()["dns"].is_null());
    assert!(!agent.get("/metrics").body.contains("weir_dns"));
}
