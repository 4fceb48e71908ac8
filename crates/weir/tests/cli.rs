//! What a user meets: help, messages, exit codes. Nothing here needs a privilege.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use insta::assert_snapshot;

fn weir() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weir"))
}

fn run(arguments: &[&str]) -> Output {
    weir().args(arguments).output().expect("weir runs")
}

fn capture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures").join(name);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// Standard error of a run that must end with this exit code.
fn complaint(arguments: &[&str], exit_code: i32) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {text}");
    text
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "",
        "watch",
        "packets",
        "replay",
        "flows",
        "agent",
        "proxy",
        "tap",
        "check",
        "doctor",
        "selfcheck",
        "cleanup",
        "completions",
        "man",
    ] {
        let output =
            run(&[command, "--help"].iter().filter(|it| !it.is_empty()).copied().collect::<Vec<_>>());
        let text = String::from_utf8(output.stdout).expect("help is UTF-8");
        assert!(output.status.success(), "{command}");
        assert!(
            text.contains("Examples:\n  weir") || text.contains("Examples:\n  tcpdump"),
            "{command}: {text}"
        );
    }
}

#[test]
fn a_tap_that_may_not_be_is_refused_before_anything_is_opened() {
    for (arguments, expected) in [
        (&["tap"][..], "whose traffic? Name processes"),
        (&["tap", "--all", "--no-redact"], "say why, with --reason"),
        (&["tap", "--all", "proto=tcp"], "a tap is filtered by `host` and `port` alone"),
        (&["tap", "--all", "-w", "x.pcapng"], "add --payload headers or --payload full"),
        (&["tap", "--all", "--payload", "full", "-v", "-o", "har"], "-v adds to text and json alone"),
        (&["tap", "--all", "--payload", "full", "--ttl", "25h"], "more than 24 hours"),
        (&["tap", "--all", "--budget", "5MB"], "a budget is a size per second: 5MB/s"),
        (&["tap", "--all", "--limit", "2MiB"], "at most 1 MiB of a call"),
        (&["tap", "--comm", "a-name-of-16-let"], "is no name of a command"),
        (&["tap", "--pod", "web"], "write NAMESPACE/NAME"),
    ] {
        let text = complaint(arguments, 2);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    assert!(complaint(&["tap", "--pid", "4194305"], 1).contains("no process 4194305 runs here"));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_do() {
    assert_snapshot!(complaint(&["replay", "x.pcap", "proto=tcp and prt=7"], 2), @"
    weir: bad filter: unknown field `prt` (did you mean `port`?)

      proto=tcp and prt=7
                    ^
    ");
    assert_snapshot!(complaint(&["watch", "(proto=tcp"], 2), @"
    weir: bad filter: this parenthesis is never closed

      (proto=tcp
      ^
    ");
    assert_snapshot!(complaint(&["wach"], 2), @"
    weir: bad filter: unknown field `wach`

      wach
      ^

    `wach` is no command either: watch, packets, replay, flows, agent, proxy, tap, check, doctor, selfcheck, cleanup, completions, man
    ");
    assert_snapshot!(complaint(&["watch", "--interval", "5"], 2), @"
    weir: invalid value '5' for '--interval <TIME>': a duration needs a unit: 5s, 5ms, 5m or 5h

    For more information, try '--help'.
    ");
    assert_snapshot!(complaint(&["watch", "--memory", "lots"], 2), @"
    weir: invalid value 'lots' for '--memory <SIZE>': a size is a number and a unit, such as 64MiB

    For more information, try '--help'.
    ");
    assert_snapshot!(complaint(&["watch", "--group-by", "flow.bytes"], 2), @"weir: invalid value 'flow.bytes' for '--group-by <FIELD,…>': flows cannot be grouped by `flow.bytes`");
    assert_snapshot!(complaint(&["watch", "-o", "log", "--group-by", "dst"], 2), @"weir: the log format shows single flows: use -o table, json or csv with --group-by");
    assert_snapshot!(complaint(&["watch", "-o", "xml"], 2), @"
    weir: invalid value 'xml' for '--output <FORMAT>'
      [possible values: table, log, json, csv]

    For more information, try '--help'.
    ");
    assert_snapshot!(
        complaint(&["watch", "--promiscuous"], 2),
        @"weir: --promiscuous needs --hook socket: traffic control never sees frames for other stations"
    );
    assert_snapshot!(complaint(&["cleanup", "--dry-run", "--force"], 2), @"
    weir: the argument '--dry-run' cannot be used with '--force'

    Usage: weir cleanup --dry-run

    For more information, try '--help'.
    ");
    assert_snapshot!(complaint(&["watch", "--netns", "no-such-place/"], 2), @"
    weir: invalid value 'no-such-place/' for '--netns <NAME|PID>': use the name of a namespace (see `ip netns`) or the number of a process

    For more information, try '--help'.
    ");
}

#[test]
fn an_unknown_interface_or_namespace_is_wrong_usage() {
    let text = complaint(&["watch", "-i", "no-such-one"], 2);
    assert!(text.starts_with("weir: no interface no-such-one: there are "), "{text}");
    assert!(text.contains("lo"), "{text}");
    let text = complaint(&["watch", "--netns", "no-such-namespace"], 2);
    assert!(text.starts_with("weir: no network namespace or process no-such-namespace"), "{text}");
}

#[test]
fn files_that_cannot_be_read_end_with_1() {
    assert_snapshot!(complaint(&["replay", "no-such-file"], 1), @"weir: cannot open no-such-file: No such file or directory (os error 2)");
    assert_snapshot!(complaint(&["replay", "/"], 1), @"weir: cannot read /: it is a directory");
    assert_snapshot!(complaint(&["replay", "/dev/null"], 1), @"weir: cannot read /dev/null: not a capture file: it is empty");
}

#[test]
fn a_file_with_frames_of_an_unknown_kind_names_it() {
    // A header of a pcap file with link type 105, and one record.
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    for word in [0, 0, 96, 105, 0, 0, 1, 1] {
        file.extend(u32::to_le_bytes(word));
    }
    file.push(0);
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("wireless.pcap");
    std::fs::write(&path, file).expect("there is room");
    let text = complaint(&["replay", path.to_str().expect("the path is UTF-8")], 1);
    assert_snapshot!(text, @"
    accounted 100.00 %: 0 packets, 0 bytes seen; 0 packets, 0 bytes in flows
    weir: cannot read frames of if0: link type 105 (802.11) is none of Ethernet, raw IP, Linux cooked, null
    ");
}

#[test]
fn a_cut_capture_shows_what_is_whole_and_ends_with_1() {
    let output = run(&["replay", &capture("cut.pcap"), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    assert_eq!(lines.lines().count(), 5);
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @"
    accounted 100.00 %: 8 packets, 625 bytes seen; 8 packets, 625 bytes in flows
    weir: capture is cut short at byte 851; 8 packets were read
    ");
}

#[test]
fn standard_input_is_read_as_a_file() {
    let mut child = weir()
        .args(["replay", "-", "-o", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts");
    let file = std::fs::read(capture("dns.pcap")).expect("the capture is there");
    child.stdin.take().expect("it is piped").write_all(&file).expect("weir reads");
    let output = child.wait_with_output().expect("weir ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
}

#[test]
fn a_reader_that_goes_away_ends_weir_quietly() {
    let mut child = weir()
        .args(["replay", &capture("tcp-segments.pcap"), "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts");
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut complaint).expect("messages are UTF-8");
    assert_eq!(child.wait().expect("weir ends").code(), Some(0), "{complaint}");
    assert_eq!(complaint, "");
}

#[test]
fn a_filter_moves_what_it_rejects_to_the_ledger() {
    let output =
        run(&["replay", &capture("http.pcapng"), "dport=8080", "and", "flow.reverse.bytes>1k", "-o", "log"]);
    assert!(output.status.success());
    let summary = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert!(summary.starts_with("accounted 100.00 %"), "{summary}");
    assert!(summary.contains("filtered"), "{summary}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 5);
}

#[test]
fn completions_know_commands_and_values() {
    for (shell, expected) in [("bash", "replay"), ("zsh", "destination.port"), ("fish", "ingress")] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).expect("scripts are UTF-8");
        assert!(script.contains(expected), "{shell}");
    }
}

#[test]
fn each_command_gets_a_manual_page() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().to_str().expect("the path is UTF-8");
    assert!(run(&["man", "--out", path]).status.success());
    for page in
        ["weir", "weir-watch", "weir-replay", "weir-doctor", "weir-cleanup", "weir-completions", "weir-man"]
    {
        let text = std::fs::read_to_string(directory.path().join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(String::from_utf8_lossy(&run(&["man"]).stdout).contains(".TH weir 1"));
}
