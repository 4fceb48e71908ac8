//! `weir watch` as a user runs it: real traffic between namespaces, real signals, real interfaces that go away.
//!
//! Weir is ready when it reports a knock that the test repeats until then; what is counted exactly comes after that.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::{binary, copy_binary},
    memory::peak_kib,
    require_root,
    traffic::{ManyFlows, UdpFlow, Until},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Port of the knocks: nobody listens, and no other traffic of a test goes there.
const KNOCK: u16 = 9;

/// A running `weir watch -o json`.
struct Weir {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Value>,
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(10_000);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if line.map(|line| sender.send(line)).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Weir {
    fn watch(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::start(namespace.command(binary()), arguments)
    }

    fn start(mut command: Command, arguments: &[&str]) -> Self {
        command.args(["watch", "-o", "json", "--interval", "100ms"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir starts");
        let lines = lines(child.stdout.take().expect("it is piped"));
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads records until one is as wanted, calling `meanwhile` now and then.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool, mut meanwhile: impl FnMut()) {
        let start = Instant::now();
        loop {
            meanwhile();
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let record: Value = serde_json::from_str(&line).expect("weir writes JSON");
                    self.seen.push(record);
                    if wanted(self.seen.last().expect("it was just added")) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("weir ended: {}", self.complaints()),
            }
            assert!(start.elapsed() < PATIENCE, "nothing came: {:?}", self.seen);
        }
    }

    /// Knocks until it is heard, so that counting has begun.
    fn ready(&mut self, flow: &UdpFlow) {
        let knock = flow.sender.try_clone().expect("a socket can be shared");
        let port = u64::from(flow.source().port());
        self.until(
            |record| record["source.port"] == port || record["destination.port"] == port,
            || drop(knock.send(&[0; KNOCK as usize])),
        );
    }

    fn complaints(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).expect("messages are UTF-8");
        }
        text
    }

    /// Ends it as Ctrl-C does; gives back its records and what it said on standard error.
    fn interrupt(mut self) -> (Vec<Value>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, Signal::SIGINT).expect("it runs");
        for line in &self.lines {
            self.seen.push(serde_json::from_str(&line).expect("weir writes JSON"));
        }
        let complaints = self.complaints();
        assert!(self.child.wait().expect("it ends").success(), "{complaints}");
        (self.seen, complaints)
    }
}

/// Packets and bytes of a flow, both directions, over all intervals.
fn total(records: &[Value], flow: &UdpFlow) -> [u64; 4] {
    let (source, destination) = (flow.source().port(), flow.destination().port());
    let is_it = |record: &&Value| {
        let mut ports = [record["source.port"].as_u64(), record["destination.port"].as_u64()];
        ports.sort_unstable();
        let mut wanted = [Some(u64::from(source)), Some(u64::from(destination))];
        wanted.sort_unstable();
        ports == wanted
    };
    let mut sums = [0; 4];
    for record in records.iter().filter(is_it) {
        let is_forward = record["source.port"] == u64::from(source);
        let sum = |name: &str| record[name].as_u64().unwrap_or(0);
        let there = [sum("flow.packets"), sum("flow.bytes")];
        let back = [sum("flow.reverse.packets"), sum("flow.reverse.bytes")];
        let ordered = if is_forward { [there, back] } else { [back, there] };
        for (sum, part) in sums.iter_mut().zip(ordered.concat()) {
            *sum += part;
        }
    }
    sums
}

/// Two namespaces, a wire, and weir in the left one.
struct Stage {
    left: Namespace,
    wire: Veth,
}

fn stage() -> Stage {
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 7, Neighbours::Static);
    Stage { left, wire }
}

/// Sends datagrams of a hundred bytes there and of fifty back.
fn talk(flow: &UdpFlow, there: u64, back: u64) {
    for _ in 0..there {
        flow.sender.send(&[1; 100]).expect("it can be sent");
    }
    for _ in 0..back {
        flow.receiver.send(&[1; 50]).expect("it can be sent");
    }
}

const HEADERS: u64 = 14 + 20 + 8;

#[test]
fn what_was_sent_is_what_is_shown_in_both_directions() {
    if !require_root() {
        return;
    }
    for hook in ["tc", "socket"] {
        let stage = stage();
        let (knock, flow) = (
            UdpFlow::open(&stage.wire.left, &stage.wire.right, false),
            UdpFlow::open(&stage.wire.left, &stage.wire.right, false),
        );
        let mut weir = Weir::watch(&stage.left, &["-i", "left0", "--hook", hook]);
        weir.ready(&knock);
        talk(&flow, 300, 20);
        let (records, summary) = weir.interrupt();
        let expected = [300, 300 * (100 + HEADERS), 20, 20 * (50 + HEADERS)];
        assert_eq!(total(&records, &flow), expected, "{hook}");
        assert!(summary.contains("accounted 100.00 %"), "{hook}: {summary}");
        assert!(!summary.contains("more than were counted"), "{hook}: {summary}");
    }
}

#[test]
fn a_filter_keeps_the_replies_and_accounts_for_the_rest() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let open = || UdpFlow::open(&stage.wire.left, &stage.wire.right, true);
    let (knock, wanted, other) = (open(), open(), open());
    let filter = format!("port in {},{}", knock.destination().port(), wanted.destination().port());
    let mut weir = Weir::watch(&stage.left, &["-i", "left*", "proto=udp", "and", &filter]);
    weir.ready(&knock);
    talk(&wanted, 5, 3);
    talk(&other, 7, 0);
    let (records, summary) = weir.interrupt();
    assert_eq!(total(&records, &wanted)[0..3], [5, 5 * (100 + HEADERS + 20), 3]);
    assert_eq!(total(&records, &other), [0; 4]);
    assert!(summary.contains("accounted 100.00 %"), "{summary}");
    assert!(summary.contains("; 7 packets, 1,134 bytes filtered"), "{summary}");
}

#[test]
fn two_weirs_at_once_count_the_same() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let open = || UdpFlow::open(&stage.wire.left, &stage.wire.right, false);
    let (knock, flow) = (open(), open());
    let mut weirs = [(); 2].map(|()| Weir::watch(&stage.left, &["-i", "left0"]));
    for weir in &mut weirs {
        weir.ready(&knock);
    }
    talk(&flow, 100, 0);
    for weir in weirs {
        let (records, _) = weir.interrupt();
        assert_eq!(total(&records, &flow)[0], 100);
    }
}

#[test]
fn another_namespace_is_watched_by_the_number_of_a_process_in_it() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let open = || UdpFlow::open(&stage.wire.left, &stage.wire.right, false);
    let (knock, flow) = (open(), open());
    // It ends with its input, so with this test, however that ends.
    let mut inside = stage.left.command("cat").stdin(Stdio::piped()).spawn().expect("cat starts");
    let mut weir = Weir::start(Command::new(binary()), &["--netns", &inside.id().to_string()]);
    weir.ready(&knock);
    talk(&flow, 10, 0);
    let (records, _) = weir.interrupt();
    drop(inside.stdin.take());
    inside.wait().expect("it is ours");
    assert_eq!(total(&records, &flow)[0], 10);
    let netns = records.iter().map(|record| record["network.netns"].as_str());
    assert!(
        netns.eq(records
            .iter()
            .map(|_| Some(inside.id().to_string()))
            .collect::<Vec<_>>()
            .iter()
            .map(|it| it.as_deref()))
    );
}

#[test]
fn an_interface_that_goes_away_and_comes_back_is_followed() {
    if !require_root() {
        return;
    }
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 8, Neighbours::Static);
    let first = UdpFlow::open(&wire.left, &wire.right, false);
    let mut weir = Weir::watch(&left, &["-i", "left0"]);
    weir.ready(&first);
    let before = weir.seen.len();
    left.ip("link del left0");
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 9, Neighbours::Static);
    let second = UdpFlow::open(&wire.left, &wire.right, false);
    weir.ready(&second);
    assert!(weir.seen.len() > before);
    let (_, summary) = weir.interrupt();
    assert!(summary.contains("left0 is gone; waiting for left0 to come back"), "{summary}");
    assert!(summary.contains("counting left0"), "{summary}");
    assert!(summary.contains("accounted 100.00 %"), "{summary}");
}

#[test]
fn blocks_and_durations_end_by_themselves() {
    if !require_root() {
        return;
    }
    let stage = stage();
    for (arguments, blocks) in
        [(["--blocks", "3", "--interval", "200ms"], 3), (["--duration", "2s", "--interval", "1s"], 2)]
    {
        let mut weir = stage.left.command(binary());
        let output = weir.args(["watch", "-o", "log"]).args(arguments).output().expect("weir runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("weir writes UTF-8");
        assert_eq!(text.lines().filter(|line| *line == "---").count(), blocks, "{arguments:?}: {text}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_watching_quietly_and_nothing_stays() {
    if !require_root() {
        return;
    }
    let stage = stage();
    let mut command = stage.left.command(binary());
    command.args(["watch", "-o", "table", "--interval", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir starts");
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut complaint).expect("messages are UTF-8");
    assert!(child.wait().expect("it ends").success(), "{complaint}");
    assert_eq!(complaint, "");
    assert!(!stage.left.tc("qdisc show dev left0").contains("clsact"));
}

#[test]
fn without_privilege_the_capability_is_named() {
    if !require_root() {
        return;
    }
    // Nobody may read the directory of the test, so the binary goes where anybody may.
    let directory = tempfile::tempdir().expect("there is room");
    let copy = copy_binary(directory.path());
    for path in [directory.path(), copy.as_path()] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let output = Command::new(&copy).arg("watch").uid(65534).gid(65534).output().expect("weir starts");
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("weir: cannot load the counting programs: needs CAP_BPF"), "{text}");
}

#[test]
fn fifty_thousand_flows_fit_the_memory() {
    if !require_root() {
        return;
    }
    for format in ["table", "json"] {
        let stage = stage();
        let knock = UdpFlow::open(&stage.wire.left, &stage.wire.right, false);
        let mut command = stage.left.command(binary());
        command.args(["watch", "-i", "left0", "--interval", "1s", "-o", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir starts");
        let output = lines(child.stdout.take().expect("it is piped"));
        let port = format!("{}", knock.source().port());
        let start = Instant::now();
        loop {
            knock.sender.send(&[0; 9]).expect("it can be sent");
            match output.recv_timeout(Duration::from_millis(50)) {
                Ok(line) if line.contains(&port) => break,
                _ => assert!(start.elapsed() < PATIENCE, "nothing came"),
            }
        }
        let reading = thread::spawn(move || output.iter().count());
        let flows = ManyFlows { ipv6: false, threads: 2, flows_a_thread: 25_000, payload: 10 };
        flows.run(&stage.wire.left, &stage.wire.right, Until::Elapsed(Duration::from_secs(2)));
        let peak = peak_kib(child.id());
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid fits")), Signal::SIGINT).expect("it runs");
        let mut summary = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut summary).expect("messages are UTF-8");
        assert!(child.wait().expect("it ends").success(), "{summary}");
        let shown = reading.join().expect("it does not panic");
        println!("{format}: {peak} KiB, {shown} lines");
        assert!(summary.contains("accounted 100.00 %"), "{format}: {summary}");
        assert!(peak < 96 << 10, "{format}: {peak} KiB");
    }
}
