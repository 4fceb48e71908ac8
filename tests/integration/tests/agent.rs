//! `weir agent` as it runs: real traffic between namespaces, real clients, real signals, peers that do not read.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::Value;
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::{self, ADDRESS, Agent},
    http::{self, Events},
    require_root, require_tool,
    traffic::{ManyFlows, UdpFlow, Until},
};

/// Link, IPv4 and UDP headers.
const HEADERS: u64 = 14 + 20 + 8;

/// Two namespaces and a wire; the agent runs in the left one and counts its end of the wire.
struct Stage {
    left: Namespace,
    wire: Veth,
}

fn stage() -> Stage {
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 7, Neighbours::Static);
    Stage { left, wire }
}

impl Stage {
    fn flow(&self) -> UdpFlow {
        UdpFlow::open(&self.wire.left, &self.wire.right, false)
    }
}

fn write(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("weir.yaml");
    fs::write(&path, text).expect("there is room");
    path
}

/// Packets and bytes of a flow in lines of JSON, from its source.
fn told(lines: &str, flow: &UdpFlow) -> (u64, u64) {
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    let is_it = |record: &Value| {
        record["source.port"] == flow.source().port()
            && record["destination.port"] == flow.destination().port()
    };
    let number = |record: &Value, name: &str| record[name].as_u64().unwrap_or(0);
    records.filter(is_it).fold((0, 0), |(packets, bytes), record| {
        (packets + number(&record, "flow.packets"), bytes + number(&record, "flow.bytes"))
    })
}

fn consumer<'a>(status: &'a Value, name: &str) -> &'a Value {
    let consumers = status["consumers"].as_array().expect("there are consumers");
    consumers.iter().find(|consumer| consumer["name"] == name).unwrap_or(&Value::Null)
}

/// Asserts that every point of the ledger adds up, by its own numbers and not by what the agent says of them.
fn assert_adds_up(ledger: &Value) {
    let number = |value: &Value, field: &str| value[field].as_u64().expect("it is a number");
    for point in ledger["points"].as_array().expect("there are points") {
        for field in ["packets", "bytes"] {
            let part = |name: &str| number(&point[name], field);
            let named: u64 = ["flows", "filtered", "duplicate", "non_ip", "parse_error", "overflow"]
                .into_iter()
                .map(part)
                .sum();
            assert_eq!(part("seen"), named, "{field} of {point}");
            assert_eq!(part("flows"), part("held") + part("told"), "{field} of {point}");
            for consumer in point["consumers"].as_array().expect("there are consumers") {
                let of = |name: &str| number(&consumer[name], field);
                let lost = |name: &str| number(&consumer["dropped"][name], field);
                assert_eq!(of("offered"), part("told") - part("dismissed"), "{field} of {point}");
                let known = of("delivered") + of("filtered") + of("spooled") + of("waiting");
                let lost: u64 = ["queue_full", "rejected", "stopped", "spool_full", "spool_damaged"]
                    .into_iter()
                    .map(lost)
                    .sum();
                assert_eq!(of("offered"), known + lost, "{field} of {point}");
            }
        }
        assert_eq!(point["is_balanced"], true, "{point}");
    }
    assert_eq!(ledger["is_balanced"], true);
}

#[test]
fn everything_that_was_sent_is_in_the_ledger_up_to_every_consumer() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let directory = tempfile::tempdir().expect("there is room");
    let lines = directory.path().join("flows");
    let sink = format!("sinks=[{{type: json, file: {}}}]", lines.display());
    let agent = Agent::start(&stage.left, None, &["-i", "left0", "--set", &sink]);
    let flow = stage.flow();
    flow.send(300, 100);
    // While traffic goes on, every look at the ledger must add up.
    for _ in 0..20 {
        flow.send(5, 100);
        assert_adds_up(&agent.get("/api/v1/ledger").json());
    }
    let status = agent.status_until(|status| {
        status["ledger"]["seen"]["packets"] == 400
            && consumer(status, "json")["delivered_records"].as_u64() > Some(0)
    });
    assert_eq!(status["ledger"]["accounted"], "100.00 %");
    assert_eq!(status["ledger"]["is_balanced"], true);
    assert_eq!(status["ledger"]["dropped_records"], 0);
    assert_eq!(status["is_ready"], true);
    assert_eq!(status["interfaces"]["attached"], 1);
    assert!(
        status["summary"].as_str().is_some_and(|text| text.starts_with("accounted 100.00 %")),
        "{status}"
    );
    let filter = format!("dport={}", flow.destination().port());
    let history =
        http::get_until(&stage.left, agent.address(), &format!("/api/v1/flows?filter={filter}"), |answer| {
            answer.status == 200 && answer.body.contains("\"flow.packets\"")
        });
    assert!(history.body.contains(&flow.source().port().to_string()), "{}", history.body);
    let summary = agent.end();
    assert!(summary.contains("accounted 100.00 %: 400 packets"), "{summary}");
    let text = fs::read_to_string(&lines).expect("the sink made it");
    assert_eq!(told(&text, &flow), (400, 400 * (100 + HEADERS)));
    assert!(!stage.left.tc("qdisc show dev left0").contains("clsact"));
}

#[test]
fn a_killed_agent_leaves_nothing_that_cleanup_does_not_remove() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let mut agent = Some(Agent::start(&stage.left, None, &["-i", "left0"]));
    if let Some(agent) = &agent {
        agent.signal(Signal::SIGKILL);
    }
    let (status, _) = agent.take().expect("it was just started").wait();
    assert!(!status.success());
    let cleanup = stage.left.command(agent::binary()).arg("cleanup").status().expect("weir starts");
    assert!(cleanup.success());
    assert!(!stage.left.tc("qdisc show dev left0").contains("clsact"));
    for direction in ["ingress", "egress"] {
        assert_eq!(stage.left.tc(&format!("filter show dev left0 {direction}")), "");
    }
    let dry =
        stage.left.command(agent::binary()).args(["cleanup", "--dry-run"]).output().expect("weir starts");
    assert!(!String::from_utf8_lossy(&dry.stdout).contains("left0"), "{dry:?}");
}

#[test]
fn sinks_that_nobody_reads_slow_neither_the_drain_nor_other_sinks() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let directory = tempfile::tempdir().expect("there is room");
    let (fifo, lines) = (directory.path().join("fifo"), directory.path().join("flows"));
    mkfifo(&fifo, Mode::S_IRWXU).expect("there is room");
    // It accepts, because the kernel does, and never reads.
    let deaf = stage.left.run(|| TcpListener::bind("127.0.0.1:0")).expect("there is a port");
    let peer = deaf.local_addr().expect("it is bound");
    let file = write(
        directory.path(),
        &format!(
            "interfaces: [left0]\nstop_deadline: 5s\nsinks:\n\
             - {{type: json, name: fifo, file: {}, queue: 20}}\n\
             - {{type: json, name: deaf, tcp: '{peer}', queue: 20, spool: {{enabled: false}}}}\n\
             - {{type: json, name: lines, queue: 1000000, file: {}}}\n",
            fifo.display(),
            lines.display()
        ),
    );
    let agent = Agent::start(&stage.left, Some(&file), &[]);
    let flows: Vec<UdpFlow> = (0..40).map(|_| stage.flow()).collect();
    let send = || {
        for flow in &flows {
            flow.send(1, 100);
        }
    };
    // The buffers of a TCP connection hold a few megabytes; a record takes about one kilobyte.
    let many = ManyFlows { ipv6: false, threads: 1, flows_a_thread: 8000, payload: 10 };
    many.run(&stage.wire.left, &stage.wire.right, Until::Elapsed(Duration::from_secs(1)));
    let status = agent.status_until(|status| {
        send();
        let dropped = |name: &str| consumer(status, name)["dropped_records"].as_u64();
        dropped("fifo") > Some(100)
            && dropped("deaf") > Some(100)
            && consumer(status, "deaf")["trouble"].is_string()
            && consumer(status, "lines")["delivered_records"].as_u64() > Some(400)
            && consumer(status, "lines")["waiting_records"] == 0
    });
    let deaf_trouble = consumer(&status, "deaf")["trouble"].as_str().expect("it is text");
    assert!(deaf_trouble.contains("nobody reads at the other end"), "{status}");
    assert_eq!(status["ledger"]["accounted"], "100.00 %");
    assert_eq!(status["ledger"]["is_balanced"], true);
    assert!(consumer(&status, "lines")["behind_seconds"].as_f64() < Some(1.5), "{status}");
    assert_eq!(consumer(&status, "lines")["dropped_records"], 0);
    assert!(
        consumer(&status, "fifo")["trouble"].as_str().is_some_and(|text| text.contains("nobody reads it")),
        "{status}"
    );
    assert!(status["summary"].as_str().is_some_and(|text| text.contains("fifo")), "{status}");
    let ledger = agent.get("/api/v1/ledger").json();
    assert_adds_up(&ledger);
    // The deadline holds although the FIFO never takes anything.
    let end = Instant::now();
    let summary = agent.end();
    assert!(end.elapsed() < Duration::from_secs(15), "{:?}", end.elapsed());
    assert!(summary.contains("accounted 100.00 %"), "{summary}");
    let fifo = summary.lines().find(|line| line.starts_with("fifo: 0 of ")).expect("it is in the summary");
    assert!(fifo.contains(" queue_full") && fifo.contains(" stopped"), "{fifo}");
    let line = summary.lines().find(|line| line.starts_with("lines: ")).expect("it is in the summary");
    assert!(!line.contains(';'), "{line}");
}

#[test]
fn a_reload_changes_sinks_filter_and_token_and_says_what_it_cannot() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let directory = tempfile::tempdir().expect("there is room");
    let (token, lines) = (directory.path().join("token"), directory.path().join("flows"));
    fs::write(&token, "the first token of this test").expect("there is room");
    let settings = |rest: &str| format!("server: {{token: {{file: {}}}}}\n{rest}", token.display());
    let file = write(directory.path(), &settings("interfaces: [left0]\n"));
    let agent = Agent::start(&stage.left, Some(&file), &[]);
    let ask = |token: &str, path: &str| {
        let header = format!("Authorization: Bearer {token}");
        http::get(&stage.left, agent.address(), path, &[&header])
    };
    let status = |token: &str| ask(token, "/api/v1/status");
    assert_eq!(status("the first token of this test").status, 200);

    write(directory.path(), &settings("interfaces: [left0]\nfilter: 'prot=tcp'\n"));
    agent.signal(Signal::SIGHUP);
    agent.until_says("reload: nothing was changed: filter: ");
    assert_eq!(status("the first token of this test").status, 200);

    let (wanted, other) = (stage.flow(), stage.flow());
    let port = wanted.destination().port();
    fs::write(&token, "the second token of this test").expect("there is room");
    let sink = format!("sinks: [{{type: json, file: {}}}]", lines.display());
    write(
        directory.path(),
        &settings(&format!("interval: 300ms\nmemory: 32MiB\nfilter: port={port}\n{sink}\n")),
    );
    agent.signal(Signal::SIGHUP);
    agent.until_says("reload: done");
    assert!(
        agent.messages().contains("reload: interfaces changes only with a restart"),
        "{}",
        agent.messages()
    );
    assert!(agent.messages().contains("reload: memory changes only with a restart"), "{}", agent.messages());
    assert_eq!(status("the first token of this test").status, 401);
    assert_eq!(status("the second token of this test").status, 200);
    let config = ask("the second token of this test", "/api/v1/config");
    assert!(!config.body.contains("the second token"), "{}", config.body);
    let config = config.json();
    assert_eq!(config["filter"], format!("port={port}"));
    assert_eq!(config["sinks"][0]["type"], "json");
    assert_eq!(config["interfaces"][0], "left0");
    assert_eq!(config["memory"], "64MiB");
    other.send(50, 100);
    wanted.send(30, 100);
    let start = Instant::now();
    while told(&fs::read_to_string(&lines).unwrap_or_default(), &wanted).0 < 30 {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", agent.messages());
        std::thread::yield_now();
    }
    let messages = agent.end();
    assert!(!messages.contains("token of this test"), "{messages}");
    assert_eq!(told(&fs::read_to_string(&lines).expect("the sink made it"), &other), (0, 0));
    assert!(messages.contains("accounted 100.00 %"), "{messages}");
}

#[test]
fn beyond_loopback_nobody_gets_in_without_a_token() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let directory = tempfile::tempdir().expect("there is room");
    for address in ["0.0.0.0:4780", "[::]:4780", "10.99.7.1:4780"] {
        let listen = format!("server.listen=['{address}']");
        let output = agent::command(&stage.left, None, &["--set", &listen]).output().expect("weir starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("server.listen[0]: ") && text.contains("set server.token"), "{text}");
    }
    let token = directory.path().join("token");
    fs::write(&token, "the token of this very test\n").expect("there is room");
    let source = format!("server.token.file={}", token.display());
    let agent =
        Agent::start(&stage.left, None, &["--set", "server.listen=['0.0.0.0:4780']", "--set", &source]);
    let outside: SocketAddr = "10.99.7.1:4780".parse().expect("it is an address");
    let ask = |path: &str, headers: &[&str]| http::get(&stage.wire.right.namespace, outside, path, headers);
    let refused = ask("/api/v1/status", &[]);
    assert_eq!((refused.status, refused.headers.contains("www-authenticate: bearer")), (401, true));
    assert_eq!(ask("/api/v1/status", &["Authorization: Bearer the token of that very test"]).status, 401);
    assert_eq!(ask("/api/v1/status", &["Authorization: Bearer the token of this very test"]).status, 200);
    assert_eq!(ask("/metrics", &[]).status, 401);
    assert_eq!(ask("/healthz", &[]).status, 200);
    let messages = agent.end();
    assert!(!messages.contains("very test"), "{messages}");
}

#[test]
fn browsers_of_other_sites_and_writers_are_refused() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let agent = Agent::start(&namespace, None, &[]);
    let ask = |headers: &[&str]| http::get(&namespace, agent.address(), "/api/v1/status", headers);
    assert_eq!(ask(&["Host: evil.example:4780"]).status, 421);
    assert_eq!(ask(&["Origin: http://evil.example"]).status, 403);
    assert_eq!(ask(&["Host: localhost:4780", "Origin: http://localhost:4780"]).status, 200);
    assert_eq!(http::request(&namespace, agent.address(), "POST", "/api/v1/status").status, 405);
    let page = agent.get("/");
    assert!(page.headers.contains("content-security-policy: default-src 'none'"), "{}", page.headers);
    assert!(!page.headers.contains("access-control"), "{}", page.headers);
    assert!(!page.body.contains("<script"), "{}", page.body);
    assert_eq!(agent.get("/api/v1/nowhere").status, 404);
    let metrics = agent.get("/metrics").body;
    assert!(metrics.contains("weir_http_refused_total{reason=\"host\"} 1"), "{metrics}");
    let described = agent.get("/api/v1/openapi.json").json();
    for path in described["paths"].as_object().expect("there are paths").keys() {
        // One never ends, the other has nothing to say unless asked for something.
        let path = match path.as_str() {
            "/api/v1/live" => continue,
            "/api/v1/hints" => "/api/v1/hints?field=source.address",
            path => path,
        };
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    agent.end();
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let flow = stage.flow();
    let agent = Agent::start(&stage.left, None, &["-i", "left0"]);
    let follow = |headers: &[&str]| Events::follow(&stage.left, agent.address(), "/api/v1/live", headers);
    let packets = |data: &str| {
        let frame: Value = serde_json::from_str(data).expect("it is JSON");
        let column = frame["columns"]["flow.packets"].as_array().cloned().unwrap_or_default();
        column.iter().filter_map(Value::as_u64).sum::<u64>()
    };
    let mut events = follow(&[]);
    let last = events.next().expect("there are events").id;
    drop(events);
    flow.send(25, 100);
    let mut sum = 0;
    let mut resumed = follow(&[&format!("Last-Event-ID: {last}")]);
    let number = |id: &str| {
        id.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok()).expect("it has one")
    };
    let mut known = number(&last);
    while sum < 25 {
        let event = resumed.next().expect("there are events");
        assert_eq!((event.event.as_str(), number(&event.id)), ("flows", known + 1));
        known += 1;
        sum += packets(&event.data);
    }
    assert_eq!(sum, 25);
    // Of another run, nothing can be resumed: it begins with the newest.
    let fresh = follow(&["Last-Event-ID: 123-1"]).next().expect("there are events");
    assert!(number(&fresh.id) >= known);
    // The end of the agent is the end of the stream.
    let end = agent.end();
    while resumed.next().is_some() {}
    assert!(end.contains("accounted 100.00 %"), "{end}");
}

#[test]
fn what_is_not_there_any_more_is_told_as_a_gap() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let agent = Agent::start(&stage.left, None, &["-i", "left0", "--set", "live.keep=1s"]);
    let follow = |headers: &[&str]| Events::follow(&stage.left, agent.address(), "/api/v1/live", headers);
    let first = follow(&[]).next().expect("there are events").id;
    agent.status_until(|_| {
        let metrics = agent.get("/metrics").body;
        let intervals = metrics.lines().find_map(|line| line.strip_prefix("weir_intervals_total "));
        intervals.and_then(|text| text.parse::<u64>().ok()) > Some(15)
    });
    let mut events = follow(&[&format!("Last-Event-ID: {first}")]);
    let gap = events.next().expect("there are events");
    assert_eq!(gap.event, "gap");
    let lost = serde_json::from_str::<Value>(&gap.data).expect("it is JSON")["lost"].as_u64();
    assert!(lost > Some(0), "{gap:?}");
    assert_eq!(events.next().expect("there are events").event, "flows");
    agent.end();
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    if !require_root() || !require_tool("promtool") {
        return;
    }
    let stage = stage();
    let agent = Agent::start(&stage.left, None, &["--set", "sinks=[{type: json}]"]);
    stage.flow().send(10, 100);
    let text = agent.get("/metrics").body;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("it is installed");
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), text.as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
    agent.end();
}

#[test]
fn a_unix_socket_is_open_to_owner_and_group_and_goes_with_the_agent() {
    use std::os::unix::fs::PermissionsExt as _;
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().expect("there is room");
    let socket = directory.path().join("weir.sock");
    let option = format!("server.unix_socket={}", socket.display());
    let agent = Agent::start(&namespace, None, &["--set", &option]);
    assert_eq!(http::get_unix(&socket, "/api/v1/status").status, 200);
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    agent.end();
    assert!(!socket.exists());
}

#[test]
fn a_port_in_use_is_told_before_anything_is_attached() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let _taken = stage.left.run(|| TcpListener::bind(ADDRESS)).expect("nobody else is in there");
    let (status, messages) = Agent::spawn(&stage.left, None, &["-i", "left0"]).wait();
    assert_eq!(status.code(), Some(1));
    assert!(messages.contains(&format!("cannot listen on {ADDRESS}")), "{messages}");
    assert!(!stage.left.tc("qdisc show dev left0").contains("clsact"));
}

#[test]
fn check_reports_every_problem_without_privilege() {
    let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut check = Command::new(agent::binary());
    let output = check.arg("check").arg("-c").arg(bad.join("bad.yaml")).output().expect("weir starts");
    assert_eq!(output.status.code(), Some(2));
    let expected = fs::read_to_string(bad.join("bad.expected")).expect("it is there");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
