//! `weir flows` on a store and on an agent's interface: what is printed, what is said, exit codes.

use std::{
    net::TcpListener,
    process::{Command, Output},
    sync::Arc,
};

use insta::assert_snapshot;
use tempfile::TempDir;
use weir_agent::{
    server::query,
    store::{
        EmbeddedStore, StoreConfig,
        conformance::{Sample, append},
    },
};

/// The time of the sample.
const TIME: [&str; 4] = ["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z"];

fn weir(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["flows"]).args(arguments).env_remove("WEIR_TOKEN").output().expect("weir runs")
}

fn store() -> TempDir {
    let place = tempfile::tempdir().expect("there is room");
    let store = EmbeddedStore::open(place.path(), StoreConfig::default()).expect("the store opens");
    append(&store, &Sample::default().ticks(30));
    place
}

/// Standard output and standard error of a run that succeeds.
fn shown(arguments: &[&str]) -> (String, String) {
    let output = weir(arguments);
    let [out, error] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it is text"));
    assert!(output.status.success(), "{arguments:?}: {error}");
    (out, error)
}

fn of_store(place: &TempDir, arguments: &[&str]) -> (String, String) {
    let directory = place.path().to_str().expect("the path is text");
    shown(&[["--store", directory].as_slice(), &TIME, arguments].concat())
}

/// Standard error of a run that fails.
fn complaint(arguments: &[&str], exit_code: i32) -> String {
    let output = weir(arguments);
    let text = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {text}");
    text
}

#[test]
fn groups_are_shown_as_a_table_with_others_and_totals() {
    let place = store();
    let (table, said) =
        of_store(&place, &["--group-by", "dport,source.k8s.owner.name", "--limit", "4", "proto=tcp"]);
    assert_snapshot!(table);
    assert_snapshot!(said, @"weir: only the largest 4 are listed, the others are summed up: ask for more, or filter");
}

#[test]
fn flows_are_shown_as_a_table() {
    let place = store();
    let (table, _) = of_store(&place, &["--limit", "3", "dport=443"]);
    assert_snapshot!(table);
}

#[test]
fn json_and_csv_are_those_of_live_flows() {
    let place = store();
    let (json, said) = of_store(&place, &["-o", "json", "--limit", "50000"]);
    assert_eq!(said, "");
    let flows: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect();
    assert!(flows.len() > 50);
    assert!(flows.iter().all(|flow| flow["flow.observation"] == "pod-edge"));
    let (csv, _) = of_store(&place, &["-o", "csv", "--limit", "50000"]);
    assert_eq!(csv.lines().count(), flows.len() + 1);
    assert!(csv.starts_with("flow.start,flow.end,"), "{csv}");
    let (groups, _) = of_store(&place, &["-o", "csv", "--group-by", "proto", "--limit", "1"]);
    let lines: Vec<&str> = groups.lines().collect();
    assert_eq!(
        lines[0],
        "network.transport,flow.observation,flow.detail,flow.count,flow.packets,flow.bytes,flow.reverse.packets,flow.reverse.bytes"
    );
    assert!(lines[2].starts_with(",pod-edge,others,"), "{groups}");
}

#[test]
fn an_agent_answers_as_its_files_do() {
    let place = store();
    let store = EmbeddedStore::open_read_only(place.path()).expect("the store opens");
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("it can be asynchronous");
            let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
            query::serve(listener, Arc::new(store)).await
        })
    });
    for arguments in [
        ["-o", "json", "proc=curl"].as_slice(),
        &["-o", "csv", "--limit", "7"],
        &["--group-by", "source.k8s.namespace.name,flow.direction", "-o", "json"],
        &["--limit", "5"],
    ] {
        let asked = shown(&[["--agent", &url].as_slice(), &TIME, arguments].concat());
        assert_eq!(asked, of_store(&place, arguments), "{arguments:?}");
        assert!(!asked.0.is_empty());
    }
    // What the agent does not want is wrong usage, too.
    let text = complaint(&["--agent", &url, "--limit", "20000"], 2);
    assert!(text.contains("from 1 to 10000"), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let refused =
        TcpListener::bind("127.0.0.1:0").expect("there is a port").local_addr().expect("an address");
    let text = complaint(&["--agent", &format!("http://{refused}")], 1);
    assert!(text.contains("cannot reach the agent at http://127.0.0.1:"), "{text}");
    assert_snapshot!(complaint(&["--agent", "127.0.0.1:4780"], 2), @"weir: `127.0.0.1:4780` is no address of an agent: use one such as http://127.0.0.1:4780");
    assert_snapshot!(complaint(&["--store", "/no/such/place"], 1), @"weir: no history here; a running agent can be asked with --agent URL: no store in /no/such/place: give the directory that an agent writes to: No such file or directory (os error 2)");
    assert_snapshot!(complaint(&["--since", "5"], 2), @"
    weir: invalid value '5' for '--since <TIME>': use how long ago (30s, 5m, 2h, 1d), a time (2026-01-31T12:00:00Z), or now

    For more information, try '--help'.
    ");
    assert_snapshot!(complaint(&["--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"], 2), @"weir: --since 2026-01-02T00:00:00.000000000Z is not before --until 2026-01-01T00:00:00.000000000Z");
    assert_snapshot!(complaint(&["--group-by", "port"], 2), @"weir: invalid value 'port' for '--group-by <FIELD,…>': `port` means either end: use source.port or destination.port");
    assert_snapshot!(complaint(&["prt=80"], 2), @"
    weir: bad filter: unknown field `prt` (did you mean `port`?)

      prt=80
      ^
    ");
}
