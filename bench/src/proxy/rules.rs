//! How long it takes until a change of one rule among many is in the kernel.
//!
//! The control process runs on a thread of this one and is asked by its socket, as `weir proxy` asks. When it answers,
//! the kernel has the change.

use std::{fmt::Write as _, fs, sync::mpsc::sync_channel, thread, time::Instant};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_agent::redirect::process::{self, Options};
use weir_api::proxy::ProxyClient;
use weir_datapath::redirect::{LocalMode, Place, Role};
use weir_integration::{Namespace, redirecting::BpfFileSystem};

use crate::{machine::processor_us, micro::median};

/// How often each change is measured.
const ROUNDS: usize = 15;

/// Longest that one change among ten thousand rules should take, in milliseconds.
const GOAL: f64 = 100.0;

/// One change, measured again and again.
struct Change {
    name: &'static str,
    milliseconds: Vec<f64>,
    cpu_milliseconds: Vec<f64>,
}

/// Measures with so many rules, and says what it found.
pub(super) fn measure(rules: usize) -> anyhow::Result<String> {
    let namespace = Namespace::new();
    namespace.ip_batch(&[
        "link add veth0 type veth peer name nobody",
        "link set veth0 up",
        "link set nobody up",
    ]);
    let file_system = BpfFileSystem::new();
    let directory = tempfile::tempdir()?;
    let options = options(&directory, &file_system, rules)?;
    let client = ProxyClient::new(&options.socket);
    let (ready, is_ready) = sync_channel(1);
    let begun = Instant::now();
    let process = thread::spawn(move || {
        namespace
            .run(|| {
                process::run(&options, || {
                    ready.send(()).ok();
                })
            })
            .map_err(|error| anyhow!(error))
    });
    if is_ready.recv().is_err() {
        return match process.join() {
            Ok(outcome) => Err(outcome.err().unwrap_or_else(|| anyhow!("the control process ended"))),
            Err(_) => Err(anyhow!("the control process panicked")),
        };
    }
    let start = begun.elapsed();
    let changes = change_all(&client, rules);
    client.call::<Value>("POST", "/v1/stop", None)?;
    process.join().map_err(|_panic| anyhow!("the control process panicked"))??;
    Ok(report(rules, start.as_secs_f64() * 1e3, &changes?))
}

fn options(directory: &TempDir, file_system: &BpfFileSystem, rules: usize) -> anyhow::Result<Options> {
    let path = |name: &str| directory.path().join(name);
    let tree = json!({ "rules": (0..rules).map(|number| rule(number, 2)).collect::<Vec<_>>() });
    fs::write(path("rules.yaml"), tree.to_string()).context("cannot write the rules")?;
    Ok(Options {
        file: Some(path("rules.yaml")),
        places: vec![Place { interface: "veth0".to_owned(), role: Role::Uplink }],
        root: file_system.root(),
        local: Some(LocalMode::Off),
        cgroup: None,
        kubeconfig: None,
        socket: path("socket"),
        state: path("state.json"),
        metrics: None,
    })
}

fn rule(number: usize, backends: usize) -> Value {
    let (high, low) = (number / 250, number % 250 + 1);
    let backend = |place| format!("10.{}.{high}.{low}:8080", 10 + place);
    json!({
        "name": format!("rule-{number}"),
        "listen": [format!("tcp:10.9.{high}.{low}:80")],
        "backends": (0..backends).map(backend).collect::<Vec<_>>(),
    })
}

fn change_all(client: &ProxyClient, rules: usize) -> anyhow::Result<Vec<Change>> {
    let mut changes = ["a weight", "a backend drained", "a backend more or less", "a rule more or less"]
        .map(|name| Change { name, milliseconds: Vec::new(), cpu_milliseconds: Vec::new() });
    for round in 0..ROUNDS {
        let number = round * 7919 % rules;
        let name = format!("/v1/rules/rule-{number}");
        let backend = format!("{name}/backends/{}", backend_of(number));
        let is_even = round.is_multiple_of(2);
        let weight = json!({ "weight": 2 + round });
        let more = rule(number, if is_even { 3 } else { 1 });
        let requests = [
            ("POST", format!("{backend}/weight"), Some(weight)),
            ("POST", format!("{backend}/drain"), Some(json!({ "drain": true }))),
            ("PUT", name, Some(more)),
            if is_even {
                ("PUT", format!("/v1/rules/new-{rules}"), Some(rule(rules, 2)))
            } else {
                ("DELETE", format!("/v1/rules/new-{rules}"), None)
            },
        ];
        for (change, (method, path, body)) in changes.iter_mut().zip(requests) {
            let (begun, cpu) = (Instant::now(), processor_us()?);
            client.call::<Value>(method, &path, body.as_ref()).with_context(|| format!("{method} {path}"))?;
            change.milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
            change.cpu_milliseconds.push((processor_us()? - cpu) / 1e3);
        }
    }
    Ok(changes.into())
}

fn backend_of(number: usize) -> String {
    format!("10.10.{}.{}:8080", number / 250, number % 250 + 1).replace(':', "%3A")
}

fn report(rules: usize, start: f64, changes: &[Change]) -> String {
    let mut text =
        format!("\none change among {rules} rules, until the kernel has it (started in {start:.0} ms)\n");
    writeln!(text, "  {:<24}{:>12}{:>12}{:>12}", "", "median ms", "most ms", "CPU ms")
        .expect("a string takes everything");
    for Change { name, milliseconds, cpu_milliseconds } in changes {
        let most = milliseconds.iter().copied().fold(0.0, f64::max);
        let (half, cpu) = (median(milliseconds), median(cpu_milliseconds));
        let reached = if half <= GOAL { "reached" } else { "missed" };
        writeln!(text, "  {name:<24}{half:>12.1}{most:>12.1}{cpu:>12.1}   goal <= {GOAL} ms {reached}")
            .expect("a string takes everything");
    }
    text
}
