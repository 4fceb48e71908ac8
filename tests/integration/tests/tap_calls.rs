//! `weir tap` with real clients and servers: the calls are what they did, files are what Wireshark reads, and no secret is
//! anywhere.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use serde_json::Value;
use weir_integration::{
    Namespace,
    peers::Peer,
    postgres::Postgres,
    require_root, require_tool,
    tap_command::{CANARY, TapCommand, Tapped, Waiting, curl, nginx, tshark},
};

fn calls(tapped: &Tapped) -> Vec<Value> {
    tapped.output.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn what_curl_asks_is_a_line_and_its_secrets_are_stars() {
    let Some((namespace, _nginx)) = nginx() else { return };
    let url = format!("http://127.0.0.1:8080/text?token={CANARY}&a=b");
    let curl = curl(&namespace, &[&url]);
    let tap = TapCommand::start(&["--pid", &curl.pid(), "--payload", "headers", "-v", "--reason", "a test"]);
    let pid = curl.pid();
    curl.go("");
    tap.wait(|said| said.contains("GET"));
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    let expected =
        format!(" curl[{pid}] → GET http://127.0.0.1:8080/text?token={}&a=b  200", "*".repeat(CANARY.len()));
    assert!(tapped.output.contains(&expected), "{}", tapped.output);
    assert!(tapped.output.contains("  > Authorization: ******"), "{}", tapped.output);
    assert!(tapped.messages.contains("1 calls: http 1"), "{}", tapped.messages);
    assert!(tapped.audit.contains("\"reason\":\"a test\"") && tapped.audit.contains("\"event\":\"end\""));
}

#[test]
fn the_server_sees_the_same_call_from_its_side() {
    let Some((namespace, nginx)) = nginx() else { return };
    let tap = TapCommand::start(&["--pid", &nginx.pid(), "--payload", "full", "-o", "json"]);
    for path in ["text", "none"] {
        curl(&namespace, &[&format!("http://127.0.0.1:8080/{path}")]).go("");
    }
    tap.wait(|said| said.lines().count() == 2);
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    let calls = calls(&tapped);
    let told: Vec<_> = calls
        .iter()
        .map(|call| (&call["url.path"], &call["http.response.status_code"], &call["tap.role"]))
        .map(|(path, status, role)| (path.as_str().unwrap_or_default(), status.as_u64(), role.as_str()))
        .collect();
    assert_eq!(told, [("/text", Some(200), Some("server")), ("/none", Some(404), Some("server"))]);
    assert!(calls.iter().all(|call| call["call.complete"] == true), "{calls:?}");
}

#[test]
fn wireshark_follows_what_was_said_and_the_file_is_nobody_elses() {
    let Some((namespace, nginx)) = nginx() else { return };
    if !require_tool("tshark") {
        return;
    }
    let body = "0123456789abcdef".repeat(20_000);
    fs::write(nginx.directory().join("big"), &body).expect("there is room");
    let kept = tempfile::tempdir().expect("there is room");
    let file = kept.path().join("trace.pcapng");
    let curl =
        curl(&namespace, &["http://127.0.0.1:8080/text", "http://127.0.0.1:8080/big", "-o", "/dev/null"]);
    let name = file.to_str().expect("it is text");
    let options = ["--payload", "full", "--limit", "1MiB", "-w", name];
    let tap = TapCommand::start(&[&["--pid", &curl.pid()][..], &options].concat());
    curl.go("");
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).expect("it is there");
    assert!(!contains(&bytes, CANARY.as_bytes()));
    let followed = tshark(&file, &["-q", "-z", "follow,tcp,ascii,0"]);
    assert!(followed.contains("GET /text HTTP/1.1") && followed.contains("some text"), "{followed}");
    assert!(followed.contains("Authorization: ***"), "{followed}");
    let faults =
        tshark(&file, &["-Y", "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment"]);
    assert_eq!(faults, "", "{}", tapped.messages);
    // Every byte of both bodies is there.
    let lengths = tshark(&file, &["-Y", "tcp.srcport==8080", "-T", "fields", "-e", "tcp.len"]);
    let length: usize = lengths.lines().map(|line| line.parse::<usize>().expect("a number")).sum();
    assert!(length > body.len() + 10, "{length}");
    let comments = tshark(&file, &["-T", "fields", "-e", "frame.comment"]);
    assert!(comments.contains("curl["), "{comments}");
}

#[test]
fn what_the_limit_leaves_out_is_a_hole_that_wireshark_sees() {
    let Some((namespace, nginx)) = nginx() else { return };
    if !require_tool("tshark") {
        return;
    }
    fs::write(nginx.directory().join("big"), "x".repeat(300_000)).expect("there is room");
    let kept = tempfile::tempdir().expect("there is room");
    let file = kept.path().join("trace.pcapng");
    let curl =
        curl(&namespace, &["http://127.0.0.1:8080/big", "http://127.0.0.1:8080/text", "-o", "/dev/null"]);
    let name = file.to_str().expect("it is text");
    let tap = TapCommand::start(&["--pid", &curl.pid(), "--payload", "headers", "-w", name]);
    curl.go("");
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    assert!(tapped.messages.contains("payload "), "{}", tapped.messages);
    let lost = tshark(&file, &["-Y", "tcp.analysis.lost_segment", "-T", "fields", "-e", "frame.comment"]);
    assert!(lost.contains("bytes are missing: payload"), "{lost}");
}

#[test]
fn a_connection_is_copied_up_to_its_limit() {
    let Some((namespace, nginx)) = nginx() else { return };
    fs::write(nginx.directory().join("big"), "x".repeat(300_000)).expect("there is room");
    let curl = curl(&namespace, &["http://127.0.0.1:8080/big"]);
    let limits = ["--payload", "full", "--connection-limit", "10KiB"];
    let tap = TapCommand::start(&[&["--pid", &curl.pid()], &limits[..]].concat());
    curl.go("");
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    assert!(tapped.messages.contains("captured 10,240 of 30"), "{}", tapped.messages);
}

#[test]
fn an_archive_has_the_calls() {
    let Some((namespace, _nginx)) = nginx() else { return };
    let kept = tempfile::tempdir().expect("there is room");
    let file = kept.path().join("trace.har");
    let curl = curl(&namespace, &["http://127.0.0.1:8080/text"]);
    let tap =
        TapCommand::start(&["--pid", &curl.pid(), "--payload", "full", "-w", file.to_str().expect("text")]);
    curl.go("");
    tap.end().check(&[CANARY]);
    let archive: Value = read_json(&file);
    let entry = &archive["log"]["entries"][0];
    assert_eq!(entry["response"]["content"]["text"], "some text\n", "{archive}");
    assert!(!archive.to_string().contains(CANARY));
}

#[test]
fn without_payload_connections_are_told_and_nothing_of_what_is_said() {
    let Some((namespace, _nginx)) = nginx() else { return };
    let curl = curl(&namespace, &["http://127.0.0.1:8080/text"]);
    let tap = TapCommand::start(&["--pid", &curl.pid(), "--payload", "none", "-o", "json"]);
    curl.go("");
    tap.wait(|said| said.contains("8080"));
    let tapped = tap.end();
    tapped.check(&[CANARY, "some text", "GET"]);
    let calls = calls(&tapped);
    let connection = calls.iter().find(|call| call["network.peer.port"] == 8080).expect("it was opened");
    assert!(connection["tap.sent.seen"].as_u64() > Some(70), "{connection}");
    assert_eq!(connection["tap.sent.captured"], 0);
    assert_eq!(connection["tap.sent.gap.payload"], connection["tap.sent.seen"]);
}

#[test]
fn what_psql_does_are_statements() {
    if !require_root() || !require_tool("psql") {
        return;
    }
    // Headers are copied without more words where calls as JSON are wanted.
    for payload in [&["--payload", "full"][..], &[]] {
        statements_of_psql(payload);
    }
}

fn statements_of_psql(payload: &[&str]) {
    let namespace = Namespace::new();
    let Some(_postgres) = namespace.run(|| Postgres::start_at(5432)) else { return };
    let psql =
        Waiting::program(&namespace, "psql", &["-h", "127.0.0.1", "-U", "weir", "-d", "weir", "-XAtq"]);
    let tap = TapCommand::start(&[&["--pid", &psql.pid(), "-o", "json"], payload].concat());
    let script = format!(
        "CREATE TABLE t (n int);\nINSERT INTO t SELECT generate_series(1, 100);\nSELECT n FROM t;\nSELECT 1/0;\n\
         ALTER ROLE weir PASSWORD '{CANARY}';\n"
    );
    assert_eq!(psql.go(&script).lines().count(), 100);
    tap.wait(|said| said.contains("ALTER ROLE"));
    let tapped = tap.end();
    tapped.check(&[CANARY, "secret"]);
    let told: Vec<String> = calls(&tapped)
        .iter()
        .map(|call| {
            let text = |name: &str| call[name].as_str().unwrap_or("-").to_owned();
            let rows = call["db.response.returned_rows"].as_u64().unwrap_or(0);
            format!("{} {rows} {}", text("db.operation.name"), text("db.response.status_code"))
        })
        .collect();
    let expected =
        ["CONNECT 0 -", "CREATE TABLE 0 -", "INSERT 0 -", "SELECT 100 -", "SELECT 0 22012", "ALTER ROLE 0 -"];
    assert_eq!(told, expected);
}

#[test]
fn what_redis_cli_does_are_commands() {
    if !require_root() || !require_tool("redis-cli") {
        return;
    }
    let namespace = Namespace::new();
    let Some(_redis) = namespace.run(|| Peer::redis_at(CANARY, 6379)) else { return };
    let cli = Waiting::program(&namespace, "redis-cli", &["-a", CANARY, "--no-auth-warning"]);
    let tap = TapCommand::start(&["--pid", &cli.pid(), "--payload", "full"]);
    cli.go("SET key value\nGET key\nLPUSH key 1\n");
    tap.wait(|said| said.contains("LPUSH"));
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    for line in
        ["→ AUTH ****************  OK", "→ SET key value  OK", "→ GET key  OK", "→ LPUSH key 1  WRONGTYPE"]
    {
        assert!(tapped.output.contains(line), "{line}: {}", tapped.output);
    }
}

#[test]
fn unix_sockets_are_tapped_on_request() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let Some(redis) = Peer::redis(CANARY) else { return };
    let socket = redis.socket();
    let path = socket.to_str().expect("the path is UTF-8");
    let cli = Waiting::program(&namespace, "redis-cli", &["-s", path, "-a", CANARY, "--no-auth-warning"]);
    let tap = TapCommand::start(&["--pid", &cli.pid(), "--unix", "--payload", "full"]);
    cli.go("SET key value\nGET key\n");
    tap.wait(|said| said.contains("GET key"));
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    assert!(tapped.output.contains("SET key value  OK"), "{}", tapped.output);
}

#[test]
fn what_dig_asks_of_dnsmasq_is_a_query_on_both_sides() {
    if !require_root() || !require_tool("dig") || !require_tool("dnsmasq") {
        return;
    }
    let namespace = Namespace::new();
    let mut server = namespace.command("dnsmasq");
    server.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--listen-address=127.0.0.1",
        "--user=root",
    ]);
    server.args([
        "--bind-interfaces",
        "--address=/weir.test/192.0.2.1",
        "--pid-file=",
        "--conf-file=/dev/null",
    ]);
    let mut server = server.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
    let dig = Waiting::program(&namespace, "dig", &["+tries=20", "+timeout=1", "@127.0.0.1", "a.weir.test"]);
    let pids = [server.id().to_string(), dig.pid()];
    let tap = TapCommand::start(&["--pid", &pids[0], "--pid", &pids[1], "--payload", "full", "port=53"]);
    assert!(dig.go("").contains("192.0.2.1"));
    tap.wait(|said| said.contains("→ DNS") && said.contains("← DNS"));
    let tapped = tap.end();
    server.kill().expect("it is ours");
    server.wait().expect("it ends");
    tapped.check(&[]);
    assert!(tapped.output.contains("DNS A a.weir.test  NOERROR  192.0.2.1"), "{}", tapped.output);
}

#[test]
fn a_reader_that_has_stopped_holds_nobody_and_the_ledger_says_what_was_lost() {
    let Some((namespace, nginx)) = nginx() else { return };
    fs::write(nginx.directory().join("big"), "y".repeat(4 << 20)).expect("there is room");
    let url = "http://127.0.0.1:8080/big";
    let many: Vec<&str> = std::iter::repeat_n([url, "-o", "/dev/null"], 40).flatten().collect();
    let curl = curl(&namespace, &many);
    let options = ["--payload", "full", "--limit", "1MiB", "-o", "pcapng"];
    let tap = TapCommand::start_unread(&[&["--pid", &curl.pid()][..], &options].concat());
    curl.go("");
    let tapped = tap.end();
    // What was not written is a failure, and says so.
    assert_eq!(tapped.status.code(), Some(1), "{tapped:?}");
    assert!(tapped.messages.contains("whoever reads it has stopped"), "{tapped:?}");
}

#[test]
fn a_reader_that_goes_away_ends_the_tap_quietly() {
    let Some((namespace, _nginx)) = nginx() else { return };
    let curl = curl(&namespace, &["http://127.0.0.1:8080/text"]);
    let mut tap = TapCommand::start_unread(&["--pid", &curl.pid(), "--payload", "full"]);
    tap.close_output();
    curl.go("");
    assert!(tap.wait_for_end().success());
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("it is there")).expect("it is JSON")
}
