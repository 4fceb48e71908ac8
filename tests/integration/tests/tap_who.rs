//! Whom `weir tap` means: containers, pods and control groups, and nobody beside them; on which hooks; and with how few
//! privileges.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_integration::{
    Namespace,
    agent::binary,
    cgroup::ControlGroup,
    peers::Peer,
    require_root, require_tool,
    tap_command::{CANARY, TapCommand, curl, curl_in_group, nginx},
};

/// What the canary of a neighbour asks for.
const NEIGHBOUR: &str = "http://127.0.0.1:8080/text?neighbour";
const WANTED: &str = "http://127.0.0.1:8080/text?wanted";

/// A pod with a container, as the kubelet and a runtime leave their traces.
struct Pod {
    container: ControlGroup,
    id: String,
    name: String,
    uid: String,
    logs: PathBuf,
}

impl Pod {
    /// Tests run side by side: each has a pod of its own, told by two hexadecimal digits.
    fn start(digits: &str) -> Option<Self> {
        let name = format!("weir-test/web-{digits}-{}", std::process::id());
        let uid = format!("8a3d5c1e-0f2b-4c6d-9e8f-1122334455{digits}");
        let logs = Path::new("/var/log/pods").join(format!("{}_{uid}", name.replace('/', "_")));
        let (container, id) = container("kubepods.slice", &uid, digits)?;
        // Another test may just be taking away the directory around it.
        let made = fs::create_dir_all(&logs).or_else(|_| fs::create_dir_all(&logs));
        made.expect("root may write there");
        Some(Self { container, id, name, uid, logs })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Where there is a kubelet, it has more in there.
        for path in [&*self.logs, Path::new("/var/log/pods")] {
            drop(fs::remove_dir(path));
        }
    }
}

/// A container of a pod. Containers in different slices have no group of the pod in common.
fn container(slice: &str, uid: &str, digits: &str) -> Option<(ControlGroup, String)> {
    let id = digits.repeat(32);
    let pod = format!("kubepods-pod{}.slice", uid.replace('-', "_"));
    Some((ControlGroup::make(&format!("{slice}/{pod}/cri-containerd-{id}.scope"))?, id))
}

fn stage(digits: &str) -> Option<(Namespace, Peer, Pod)> {
    let (namespace, nginx) = nginx()?;
    Some((namespace, nginx, Pod::start(digits)?))
}

/// Starts a tap that means somebody, has the neighbour and then the one who is meant speak, and checks what was told.
fn tap_one(
    namespace: &Namespace,
    who: &[&str],
    wanted: &ControlGroup,
    neighbour: &ControlGroup,
) -> Vec<Value> {
    let neighbour = curl_in_group(namespace, neighbour, &[NEIGHBOUR]);
    let wanted = curl_in_group(namespace, wanted, &[WANTED]);
    let tap = TapCommand::start(&[who, &["--payload", "headers", "-o", "json"]].concat());
    neighbour.go("");
    wanted.go("");
    tap.wait(|said| said.contains("wanted"));
    let tapped = tap.end();
    tapped.check(&[CANARY, "neighbour"]);
    tapped.output.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn containers_pods_and_control_groups_are_tapped_and_their_neighbours_are_not() {
    let Some((namespace, _nginx, pod)) = stage("7a") else { return };
    let Some(neighbour) = ControlGroup::make(&format!("docker-{}.scope", "7b".repeat(32))) else { return };
    let path = pod.container.path().to_str().expect("it is text").to_owned();
    let around = pod.container.path().parent().expect("it is in a group");
    let around = around.strip_prefix(pod.container.mount()).expect("it is below the root");
    let around = format!("/{}", around.to_str().expect("it is text"));
    for who in [
        ["--container", &pod.id[..12]],
        ["--container", &pod.id.to_ascii_uppercase()],
        ["--pod", &pod.name],
        ["--cgroup", &path],
        ["--cgroup", &around],
        ["--cgroup", &around[1..]],
    ] {
        let calls = tap_one(&namespace, &who, &pod.container, &neighbour);
        assert_eq!(calls.len(), 1, "{who:?} {calls:?}");
        assert_eq!(calls[0]["container.id"], pod.id, "{who:?}");
        assert_eq!(calls[0]["k8s.pod.uid"], pod.uid, "{who:?}");
    }
}

#[test]
fn a_container_that_starts_later_is_tapped_as_well() {
    let Some((namespace, _nginx, pod)) = stage("7d") else { return };
    let tap = TapCommand::start(&["--pod", &pod.name, "--payload", "headers", "-o", "json"]);
    // By now the tap has no privileges any more, and has to change its rules.
    let Some((later, id)) = container("kubepods-burstable.slice", &pod.uid, "7c") else { return };
    let start = Instant::now();
    let is_told = |said: &str| said.contains(&id);
    // It is looked for every two seconds.
    while !is_told(&fs::read_to_string(tap.file("output")).expect("it writes there")) {
        assert!(start.elapsed() < Duration::from_mins(1), "it is not tapped");
        curl_in_group(&namespace, &later, &[WANTED]).go("");
        thread::yield_now();
    }
    tap.end().check(&[CANARY]);
}

#[test]
fn each_tier_that_works_here_shows_everybody_in_text() {
    for (tier, name) in [("s", "S (tracepoints of sockets)"), ("T", "T (system calls)")] {
        let Some((namespace, nginx)) = nginx() else { return };
        let curl = curl(&namespace, &[WANTED]);
        let (client, server) = (curl.pid(), nginx.pid());
        // Everybody there: ledgers of other tests are not our business.
        let who = ["--all", "--tier", tier, "port=8080"];
        let tap = TapCommand::start(&[&who[..], &["--payload", "headers", "-o", "text"]].concat());
        curl.go("");
        let told =
            [format!("curl[{client}] → GET {WANTED}  200"), format!("nginx[{server}] ← GET {WANTED}  200")];
        tap.wait(|said| told.iter().all(|line| said.contains(line)));
        let tapped = tap.end();
        tapped.check(&[CANARY]);
        assert!(tapped.audit.contains("all processes"), "{}", tapped.audit);
        assert!(tapped.messages.contains(" calls: http "), "{name}: {}", tapped.messages);
    }
}

#[test]
fn a_tap_that_runs_has_no_privileges_any_more() {
    let Some((namespace, _nginx)) = nginx() else { return };
    for tier in ["s", "t"] {
        let curl = curl(&namespace, &[WANTED]);
        let kept = tempfile::tempdir().expect("there is room");
        let file = kept.path().join("calls.json");
        let file = file.to_str().expect("it is text");
        let tap = TapCommand::start(&["--pid", &curl.pid(), "--payload", "full", "--tier", tier, "-w", file]);
        check_privileges(tap.pid());
        curl.go("");
        tap.end().check(&[CANARY]);
        assert!(fs::read_to_string(file).expect("it was written").contains("wanted"));
    }
}

/// No thread of a tap may do anything that others may not.
fn check_privileges(pid: u32) {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let status = fs::read_to_string(task.expect("it runs").path().join("status")).expect("it runs");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{set}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        threads += 1;
    }
    assert!(threads >= 3, "the one that writes, and the one that looks at control groups");
}

#[test]
fn a_user_with_three_capabilities_taps_and_keeps_none() {
    let Some((namespace, nginx)) = nginx() else { return };
    if !require_tool("setpriv") {
        return;
    }
    let capabilities = "+bpf,+perfmon,+net_admin";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    let tap = TapCommand::start_as(command, &["--pid", &nginx.pid(), "--payload", "headers"]);
    check_privileges(tap.pid());
    // What the kernel makes no core dump of, it takes as root's.
    let memory = fs::metadata(format!("/proc/{}/mem", tap.pid())).expect("it runs");
    assert_eq!(memory.uid(), 0);
    curl(&namespace, &[WANTED]).go("");
    tap.wait(|said| said.contains("wanted"));
    let tapped = tap.end();
    tapped.check(&[CANARY]);
    assert!(!tapped.messages.contains("weir: without"), "{}", tapped.messages);
}

#[test]
fn who_is_not_there_is_named_before_anything_is_written() {
    if !require_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room");
    for (who, said, code) in [
        (["--pid", "4194303"], "weir: no process 4194303 runs here\n", 1),
        (
            ["--container", "0123456789ab"],
            "weir: no container runs here whose identifier begins with `0123456789ab`\n",
            1,
        ),
        (
            ["--container", "0123"],
            "`0123` does not tell a container: write at least the first 6 hexadecimal digits of its identifier",
            2,
        ),
        (["--pod", "shop/web"], "weir: no pod `shop/web` runs here: /var/log/pods has no logs of it, or ", 1),
        (["--pod", "web"], "`web` is no pod: write NAMESPACE/NAME", 2),
        (["--cgroup", "/no/such"], "/no/such: No such file or directory", 1),
    ] {
        let file = directory.path().join("trace.pcapng");
        let mut command = Command::new(binary());
        command.arg("tap").args(who).args(["--payload", "full", "-w"]).arg(&file);
        let output =
            command.arg("--audit").arg(directory.path().join("audit")).output().expect("weir is built");
        let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert!(text.contains(said), "{who:?}: {text}");
        assert_eq!(output.status.code(), Some(code), "{who:?}: {text}");
        assert!(!file.exists(), "{who:?}");
    }
}
