//! Judges facts: what is there, what is missing, what that means and what to do. No I/O.

use std::env;

use super::{
    Attempt, COUNTING, Capability, CapabilitySet, Facts, Feature, Report, State, capability::enumerate,
    program_path, remedy_for,
};

/// Available memory below which the default budget of 64 MiB is too much to ask.
const COMFORTABLE_MEMORY: u64 = 256 << 20;
/// Smallest limit of locked memory with which the tables of the default budget can be made.
const COMFORTABLE_MEMLOCK: u64 = 128 << 20;

/// Judges every feature.
pub fn evaluate(facts: &Facts) -> Report {
    let features = vec![
        feature("kernel", "everything; exact from 5.10 on", kernel(facts)),
        feature("counting", "weir watch, counting by TC", counting(facts)),
        feature("packet sockets", "weir watch --hook socket", privilege(facts, &[Capability::NetRaw])),
        feature("process names", "names the process behind a socket", process_names(facts)),
        feature("namespaces", "weir watch --netns", privilege(facts, &[Capability::SysAdmin])),
        feature("program names", "names of other people's eBPF programs", program_names(facts)),
        feature("locked memory", "maps, before kernel 5.11", memlock(facts)),
        feature("tcx", "attaches without touching qdiscs, kernel 6.6", tcx(facts)),
        feature("clsact", "attaches where there is no TCX", clsact(facts)),
        feature("grace period", "hands the tables over without losing a packet", grace(facts)),
        feature("batches", "reads the overflow table quickly, kernel 5.6", batch(facts)),
        feature("kernel types", "finds fields of kernel structures", btf(facts)),
        feature("socket walk", "lists the owner of every socket in one read", socket_walk(facts)),
        feature("tcp quality", "round-trip times and retransmits of TCP sockets", tcp_quality(facts)),
        feature("packet drops", "dropped packets by the kernel's reasons, kernel 5.17", packet_drops(facts)),
        feature("tap", "bytes that processes send and receive, kernel 5.17", tap(facts)),
        feature("unprivileged bpf", "for your information", unprivileged(facts)),
        feature("lockdown", "reading kernel structures", lockdown(facts)),
        feature("real time", "one writer per CPU at a time", real_time(facts)),
        feature("cgroup v2", "names the container behind a socket", cgroup(facts)),
        feature("bpffs", "keeps weir proxy's rules while it restarts", bpffs(facts)),
        feature("clock tick", "resolution of first and last packet", clock_tick(facts)),
        feature("cpus", "size of the per-CPU tables", cpus(facts)),
        feature("jit", "speed of the counting programs", jit(facts)),
        feature("memory", "tables", memory(facts)),
    ];
    Report { features }
}

/// Whether a softirq can interrupt another one on the same CPU, so that two writers of per-CPU tables interleave.
///
/// That is so on real-time kernels without the lock around softirqs: it was always there until 6.18 made it an
/// option. Where the configuration cannot be read, it is taken to be missing.
pub fn softirqs_interleave(facts: &Facts) -> bool {
    let has_lock = match &facts.config {
        _ if !facts.release.is_at_least(6, 18) => true,
        Some(config) => config.has("PREEMPT_RT_NEEDS_BH_LOCK"),
        None => false,
    };
    is_real_time(facts) && !has_lock
}

fn is_real_time(facts: &Facts) -> bool {
    facts.realtime_flag
        || facts.version.contains("PREEMPT_RT")
        || facts.config.as_ref().is_some_and(|config| config.has("PREEMPT_RT"))
}

fn feature(name: &'static str, purpose: &'static str, state: State) -> Feature {
    Feature { name, purpose, state }
}

fn available(detail: impl Into<String>) -> State {
    State::Available(detail.into())
}

fn degraded(reason: impl Into<String>, remedy: impl Into<String>) -> State {
    State::Degraded { reason: reason.into(), remedy: remedy.into() }
}

fn missing(reason: impl Into<String>, remedy: impl Into<String>) -> State {
    State::Missing { reason: reason.into(), remedy: remedy.into() }
}

fn kernel(facts: &Facts) -> State {
    let release = facts.release.to_string();
    if facts.release.is_at_least(5, 10) {
        available(release)
    } else if facts.release.is_at_least(5, 8) {
        degraded(format!("{release} is older than what is tested"), "use kernel 5.10 or newer")
    } else {
        missing(format!("{release} is too old"), "use kernel 5.10 or newer")
    }
}

/// Judges what depends on capabilities alone.
fn privilege(facts: &Facts, needed: &[Capability]) -> State {
    let lacking = facts.capabilities.missing(needed, &facts.release);
    if lacking.is_empty() {
        let needed = CapabilitySet::NONE.missing(needed, &facts.release);
        return available(format!("{} permitted", enumerate(&needed)));
    }
    // A program file has one set of capabilities, so the remedy keeps what counting needs.
    let mut wanted = COUNTING.to_vec();
    wanted.extend(needed.iter().filter(|capability| !COUNTING.contains(capability)));
    missing(format!("needs {}", enumerate(&lacking)), remedy_for(facts, &wanted, &program_path()))
}

fn counting(facts: &Facts) -> State {
    let by_capabilities = privilege(facts, &COUNTING);
    let State::Available(_) = by_capabilities else { return by_capabilities };
    if facts.in_user_namespace {
        return missing(
            "the capabilities hold in a user namespace only, where eBPF does not accept them",
            "start weir outside of it (rootful container, hostUsers: true)",
        );
    }
    match &facts.load {
        Attempt::Works(_) | Attempt::NotTried | Attempt::NotNeeded => by_capabilities,
        Attempt::Refused(_) if facts.load.lacks_privilege() => missing(
            "the capabilities are there, but the kernel refuses to load a program",
            "look for a security module or seccomp filter that blocks bpf(2)",
        ),
        refused @ Attempt::Refused(_) => {
            missing(format!("loading a program fails: {refused}"), "use a kernel with CONFIG_BPF_SYSCALL")
        }
    }
}

fn process_names(facts: &Facts) -> State {
    match privilege(facts, &[Capability::SysPtrace]) {
        State::Missing { reason, remedy } => {
            degraded(format!("{reason}; only processes of the same user are named by their program"), remedy)
        }
        state if facts.sees_all_processes => state,
        _ => degraded(
            "only the processes of this pid namespace are seen",
            "run in the host's pid namespace (hostPID: true, --pid=host)",
        ),
    }
}

fn program_names(facts: &Facts) -> State {
    match privilege(facts, &[Capability::SysAdmin]) {
        State::Missing { reason, remedy } => degraded(format!("{reason}; only their ids are shown"), remedy),
        state => state,
    }
}

fn memlock(facts: &Facts) -> State {
    if facts.release.is_at_least(5, 11) {
        return available("not limited: maps count against the cgroup");
    }
    match facts.memlock {
        None => available("unlimited"),
        Some(bytes) if bytes >= COMFORTABLE_MEMLOCK => available(format!("{} MiB", bytes >> 20)),
        Some(_) if facts.capabilities.permits(Capability::SysResource) => {
            available("weir raises the limit itself")
        }
        Some(bytes) => missing(format!("limited to {} KiB", bytes >> 10), "ulimit -l unlimited"),
    }
}

fn tcx(facts: &Facts) -> State {
    match &facts.tcx {
        Attempt::Works(detail) => available(detail.clone()),
        attempt if attempt.lacks_privilege() && facts.release.is_at_least(6, 6) => {
            State::Unknown(format!("not tried, needs CAP_NET_ADMIN; kernel {} should have it", facts.release))
        }
        _ if facts.release.is_at_least(6, 6) => {
            degraded("the kernel was built without it; clsact is used", "use a kernel with CONFIG_NET_XGRESS")
        }
        _ => degraded(format!("kernel {} does not have it; clsact is used", facts.release), ""),
    }
}

fn clsact(facts: &Facts) -> State {
    let by_config =
        facts.config.as_ref().map(|config| config.has("NET_SCH_INGRESS") && config.has("NET_CLS_BPF"));
    let remedy =
        "use a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, or weir watch --hook socket";
    match (&facts.clsact, by_config) {
        (Attempt::Works(_), _) => available("tried in a namespace of its own"),
        (Attempt::NotNeeded, _) => available("not needed, there is TCX"),
        (Attempt::Refused(_), Some(true)) if facts.clsact.lacks_privilege() => {
            available("configured, not tried")
        }
        (Attempt::Refused(_), None) if facts.clsact.lacks_privilege() => {
            State::Unknown("not tried".to_owned())
        }
        (Attempt::NotTried, Some(true)) => available("configured, not tried"),
        (Attempt::NotTried, None) => {
            State::Unknown("not tried, and the kernel's configuration cannot be read".to_owned())
        }
        (Attempt::NotTried | Attempt::Refused(_), Some(false)) => {
            missing("not configured in this kernel", remedy)
        }
        (refused @ Attempt::Refused(_), _) => {
            missing(format!("adding a clsact qdisc fails: {refused}"), remedy)
        }
    }
}

fn grace(facts: &Facts) -> State {
    by_attempt(facts, &facts.grace, "a map of maps cannot be updated", "use kernel 5.10 or newer")
}

fn batch(facts: &Facts) -> State {
    by_attempt(facts, &facts.batch, "batches of map entries cannot be read", "use kernel 5.10 or newer")
}

fn by_attempt(facts: &Facts, attempt: &Attempt, failure: &str, remedy: &str) -> State {
    match attempt {
        Attempt::Works(_) => available(attempt.to_string()),
        Attempt::Refused(_) if attempt.lacks_privilege() => {
            let needed = Capability::Bpf.on(&facts.release);
            State::Unknown(format!("not tried, needs {needed}"))
        }
        Attempt::Refused(_) => missing(format!("{failure}: {attempt}"), remedy),
        Attempt::NotTried | Attempt::NotNeeded => State::Unknown(attempt.to_string()),
    }
}

fn btf(facts: &Facts) -> State {
    match facts.btf_bytes {
        Some(bytes) => available(format!("/sys/kernel/btf/vmlinux, {} KiB", bytes >> 10)),
        None => degraded(
            "/sys/kernel/btf/vmlinux is not there; sockets are listed by sock_diag and /proc",
            "use a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
    }
}

fn socket_walk(facts: &Facts) -> State {
    let fallback = "sock_diag and /proc are used, which takes longer";
    if !facts.task_file_iterator {
        return degraded(
            format!("the kernel cannot iterate over open files; {fallback}"),
            "use kernel 5.10 or newer",
        );
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return degraded(format!("lockdown forbids reading kernel memory; {fallback}"), "");
    }
    match privilege(facts, &[Capability::Bpf, Capability::Perfmon]) {
        State::Missing { reason, remedy } => degraded(format!("{reason}; {fallback}"), remedy),
        _ => available("iter/task_file"),
    }
}

fn tcp_quality(facts: &Facts) -> State {
    let without = "no round-trip times and retransmits";
    if facts.cgroup2.is_none() {
        return degraded(format!("cgroup v2 is not mounted; {without}"), "mount cgroup2");
    }
    if !facts.storage_iterator {
        return degraded(
            format!("the kernel cannot iterate over the storage of sockets; {without}"),
            "use kernel 5.10 or newer with CONFIG_DEBUG_INFO_BTF",
        );
    }
    if let Some(state) = reading_kernel_memory(facts, &COUNTING, without) {
        return state;
    }
    match &facts.sock_ops {
        Attempt::Refused(libc::EBUSY) => degraded(
            format!("another program at the topmost cgroup shares it with nobody; {without}"),
            "find it by bpftool cgroup show, and let it attach with BPF_F_ALLOW_MULTI",
        ),
        refused @ Attempt::Refused(_) => degraded(format!("cannot ask the cgroup: {refused}; {without}"), ""),
        _ if !facts.cgroup2_is_topmost => degraded(
            "only sockets of a part of the cgroups are seen",
            "run in the host's cgroup namespace (--cgroupns=host)",
        ),
        attempt => available(attempt.to_string()),
    }
}

fn packet_drops(facts: &Facts) -> State {
    if !facts.drop_reasons {
        return degraded(
            "the kernel does not say why it drops packets; drops are not counted",
            "use kernel 5.17 or newer with CONFIG_DEBUG_INFO_BTF",
        );
    }
    reading_kernel_memory(facts, &[Capability::Bpf, Capability::Perfmon], "drops are not counted")
        .unwrap_or_else(|| available("by the names of this kernel"))
}

fn tap(facts: &Facts) -> State {
    let without = "sockets cannot be tapped";
    if env::consts::ARCH != "x86_64" {
        return degraded(format!("the tap knows the system calls of x86-64 alone; {without}"), "");
    }
    if facts.btf_bytes.is_none() || !facts.release.is_at_least(5, 17) {
        return degraded(
            format!("the kernel is too old, or does not tell of its types; {without}"),
            "use kernel 5.17 or newer with CONFIG_DEBUG_INFO_BTF",
        );
    }
    if let Some(state) = reading_kernel_memory(facts, &[Capability::Bpf, Capability::Perfmon], without) {
        return state;
    }
    if facts.socket_lengths {
        return available("tier S, by tracepoints of sockets; it is tried when a tap starts");
    }
    degraded(
        "the kernel has no tracepoints of sockets; functions (F), probes (K) or system calls (T) are tried when a tap starts",
        "use kernel 6.3 or newer",
    )
}

/// Why a program cannot read kernel memory, if it cannot.
fn reading_kernel_memory(facts: &Facts, needed: &[Capability], without: &str) -> Option<State> {
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return Some(degraded(format!("lockdown forbids reading kernel memory; {without}"), ""));
    }
    match privilege(facts, needed) {
        State::Missing { reason, remedy } => Some(degraded(format!("{reason}; {without}"), remedy)),
        _ => None,
    }
}

fn unprivileged(facts: &Facts) -> State {
    match facts.unprivileged_bpf_disabled {
        Some(0) => available("any user may load some programs"),
        Some(1) => available("off until the next boot"),
        Some(_) => available("off"),
        None => State::Unknown("kernel.unprivileged_bpf_disabled cannot be read".to_owned()),
    }
}

fn lockdown(facts: &Facts) -> State {
    match facts.lockdown.as_deref() {
        None => available("not built in, or not visible"),
        Some("confidentiality") => {
            degraded("confidentiality: kernel memory cannot be read", "boot with lockdown=integrity")
        }
        Some(mode) => available(mode),
    }
}

fn real_time(facts: &Facts) -> State {
    if !is_real_time(facts) {
        return available("not a real-time kernel");
    }
    if !softirqs_interleave(facts) {
        return available("real-time kernel with the softirq lock");
    }
    let reason = if facts.config.is_some() {
        "real-time kernel without the softirq lock; counts may miss packets now and then"
    } else {
        "real-time kernel that may lack the softirq lock; counts may miss packets now and then"
    };
    degraded(reason, "use a kernel with CONFIG_PREEMPT_RT_NEEDS_BH_LOCK")
}

fn cgroup(facts: &Facts) -> State {
    match &facts.cgroup2 {
        Some(path) => available(path.display().to_string()),
        None => degraded("not mounted; containers are found through their processes", "mount cgroup2"),
    }
}

fn bpffs(facts: &Facts) -> State {
    match &facts.bpffs {
        Some(path) => available(path.display().to_string()),
        None => degraded("not mounted; only weir proxy needs it", "mount -t bpf bpf /sys/fs/bpf"),
    }
}

fn clock_tick(facts: &Facts) -> State {
    let hz = facts.config.as_ref().and_then(|config| config.value("HZ")?.parse::<u32>().ok());
    match hz {
        Some(hz @ 1..) => available(format!("{hz} Hz, {} ms", 1000 / hz)),
        _ => {
            State::Unknown("the kernel's configuration cannot be read; weir measures it at start".to_owned())
        }
    }
}

fn cpus(facts: &Facts) -> State {
    match facts.possible_cpus {
        0 => State::Unknown("/sys/devices/system/cpu/possible cannot be read".to_owned()),
        1 => available("1 possible"),
        count => available(format!("{count} possible")),
    }
}

fn jit(facts: &Facts) -> State {
    let always = facts.config.as_ref().is_some_and(|config| config.has("BPF_JIT_ALWAYS_ON"));
    match facts.jit {
        _ if always => available("always on"),
        Some(0) => degraded(
            "off; programs are interpreted, several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => available("on"),
        None => State::Unknown("net.core.bpf_jit_enable cannot be read".to_owned()),
    }
}

fn memory(facts: &Facts) -> State {
    match facts.memory_available {
        None => State::Unknown("/proc/meminfo cannot be read".to_owned()),
        Some(bytes) if bytes < COMFORTABLE_MEMORY => {
            degraded(format!("{} MiB available", bytes >> 20), "weir watch --memory 16MiB")
        }
        Some(bytes) => available(format!("{} MiB available", bytes >> 20)),
    }
}
