//! What a user of `weir proxy` meets before anything is diverted: help, messages, exit codes. Nothing here needs a privilege.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use insta::assert_snapshot;

/// Runs `weir proxy` where nothing of it is.
fn proxy(directory: &Path, arguments: &[&str]) -> Output {
    let path = |name: &str| directory.join(name).to_str().expect("the path is UTF-8").to_owned();
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("proxy")
        .args(arguments)
        .args(["--socket", &path("control.sock"), "--state", &path("state.json"), "--root", &path("pins")])
        .output()
        .expect("weir runs")
}

/// Standard error of a run that must end with this exit code, without the path of the directory.
fn complaint(arguments: &[&str], exit_code: i32) -> String {
    let directory = tempfile::tempdir().expect("there is room");
    let output = proxy(directory.path(), arguments);
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {text}");
    text.replace(directory.path().to_str().expect("the path is UTF-8"), "DIR")
}

fn example() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/proxy/rules.yaml");
    path.to_str().expect("the path is UTF-8").to_owned()
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "",
        "run",
        "rule",
        "rule add",
        "rule rm",
        "rule drain",
        "rule undrain",
        "backend",
        "backend drain",
        "backend undrain",
        "backend weight",
        "apply",
        "ls",
        "conns",
        "stats",
        "trace",
        "doctor",
        "teardown",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = proxy(Path::new("/nonexistent"), &arguments);
        let text = String::from_utf8(output.stdout).expect("help is UTF-8");
        assert!(output.status.success(), "{command}");
        assert!(text.contains("Examples:\n  weir proxy"), "{command}: {text}");
    }
}

#[test]
fn each_command_gets_a_manual_page() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().to_str().expect("the path is UTF-8");
    let made = Command::new(env!("CARGO_BIN_EXE_weir")).args(["man", "--out", path]).status();
    assert!(made.expect("weir runs").success());
    for page in ["weir-proxy", "weir-proxy-run", "weir-proxy-rule-add", "weir-proxy-backend-weight"] {
        let text = std::fs::read_to_string(directory.path().join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_do() {
    assert_snapshot!(complaint(
        &["rule", "add", "web", "--listen", "10.0.0.10:80", "--backend", "10.0.0.1:80"],
        2
    ));
    assert_snapshot!(complaint(
        &["rule", "add", "web", "--listen", "tcp:10.0.0.10:80", "--backend", "web-1:80"],
        2
    ));
    assert_snapshot!(complaint(
        &["rule", "add", "a b", "--listen", "tcp:10.0.0.10:80", "--backend", "10.0.0.1:80"],
        2
    ));
    assert_snapshot!(complaint(&["rule", "add", "web", "--listen", "tcp:10.0.0.10:80"], 2));
    assert_snapshot!(complaint(&["backend", "weight", "web", "10.0.0.1:80", "1000"], 2));
    assert_snapshot!(complaint(&["run", "-i", "eth0=server"], 2));
    assert_snapshot!(complaint(&["trace", "tcp:10.0.0.1:40000"], 2));
    assert_snapshot!(complaint(&["run"], 2));
}

#[test]
fn a_control_process_that_does_not_run_is_told() {
    let rule = ["rule", "add", "web", "--listen", "tcp:10.0.0.10:80", "--backend", "10.0.0.1:80"];
    assert_snapshot!(complaint(&rule, 1), @"weir: no control process answers at DIR/control.sock: start one with `weir proxy run`: No such file or directory (os error 2)");
    assert_snapshot!(complaint(&["apply", "-f", &example()], 1), @"weir: no control process answers at DIR/control.sock: start one with `weir proxy run`: No such file or directory (os error 2)");
}

#[test]
fn the_example_is_right_and_a_dry_run_shows_what_it_would_change() {
    let directory = tempfile::tempdir().expect("there is room");
    let output = proxy(directory.path(), &["apply", "-f", &example(), "--dry-run", "--diff"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_snapshot!(String::from_utf8_lossy(&output.stdout));
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @"weir: no control process runs: compared with what the last one left");
    let output = proxy(directory.path(), &["apply", "-f", &example(), "--dry-run", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(answer["diff"]["rules"][0]["change"], "added");
    assert_eq!(answer["is_applied"], false);
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_at_once() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("rules.yaml");
    let text = "
rules:
  - {name: a, listen: [tcp:10.0.0.10:80], backends: [10.0.0.10:80]}
  - {name: b, listen: [tcp:10.0.0.0/24:80], backends: ['[fd00::1]:80'], helth: tcp}
";
    std::fs::write(&path, text).expect("there is room");
    let path = path.to_str().expect("the path is UTF-8");
    assert_snapshot!(complaint(&["apply", "-f", path, "--dry-run"], 2));
}
