//! What is known about this machine, gathered once, without a judgement.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use super::{
    attempts::{self, Attempt},
    capability::CapabilitySet,
    kernel::{Config, Release},
};
use crate::memlock;

/// Inode number of the first pid namespace of a machine (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Inode number of the topmost cgroup of a machine, the first one that kernfs gives.
const TOPMOST_CGROUP: u64 = 1;

/// Everything that the evaluation of features depends on.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none a state")]
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Release of the kernel.
    pub release: Release,
    /// Its build line (`uname -v`).
    pub version: String,
    /// How it was configured, where that can be read.
    pub config: Option<Config>,
    /// Effective user.
    pub user: u32,
    /// Effective capabilities.
    pub capabilities: CapabilitySet,
    /// Whether the capabilities hold in a user namespace only, where they do not count for eBPF.
    pub in_user_namespace: bool,
    /// Whether the pid namespace is the machine's first, which shows every process.
    pub sees_all_processes: bool,
    /// Whether this looks like the inside of a container.
    pub in_container: bool,
    /// Soft limit of memory that may be locked, in bytes; `None` is unlimited.
    pub memlock: Option<u64>,
    /// Loading a program that does nothing.
    pub load: Attempt,
    /// Asking for the TCX programs of the loopback interface.
    pub tcx: Attempt,
    /// Adding a clsact qdisc, in a network namespace of our own.
    pub clsact: Attempt,
    /// Updating a map of maps; the detail is how long its grace period took.
    pub grace: Attempt,
    /// Reading and deleting a batch of map entries.
    pub batch: Attempt,
    /// Size of the kernel's type information in bytes.
    pub btf_bytes: Option<u64>,
    /// Whether the type information knows the iterator over the files of all tasks.
    pub task_file_iterator: bool,
    /// Whether the kernel can iterate over the storage of sockets.
    pub storage_iterator: bool,
    /// Whether the kernel says why it drops packets.
    pub drop_reasons: bool,
    /// Whether the kernel tells how much sockets send and receive.
    pub socket_lengths: bool,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// Active lockdown mode: `none`, `integrity` or `confidentiality`; `None` where the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// Whether the kernel says that it is a real-time one (`/sys/kernel/realtime`).
    pub realtime_flag: bool,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<PathBuf>,
    /// Whether that is the topmost cgroup of the machine.
    pub cgroup2_is_topmost: bool,
    /// Asking who watches TCP sockets there.
    pub sock_ops: Attempt,
    /// Where a BPF file system is mounted.
    pub bpffs: Option<PathBuf>,
    /// CPUs that may ever be there; 0 where unknown.
    pub possible_cpus: u32,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u8>,
    /// Memory that can be used without swapping, in bytes.
    pub memory_available: Option<u64>,
}

impl Facts {
    /// Looks at this machine. What needs a privilege that is missing is tried all the same: the kernel's refusal is
    /// the fact. Leaves nothing behind.
    pub fn gather() -> Self {
        let process = Self::of_process();
        let mounts = read("/proc/self/mountinfo").unwrap_or_default();
        let tcx = attempts::query_tcx();
        let cgroup2 = mount_of_type(&mounts, "cgroup2");
        let names = known_names();
        Self {
            version: read("/proc/sys/kernel/version").unwrap_or_default(),
            config: Config::of_running_kernel(&process.release),
            sees_all_processes: link("/proc/self/ns/pid").as_deref() == Some(INITIAL_PID_NAMESPACE),
            memlock: memlock::limit(),
            load: attempts::load_program(),
            clsact: attempts::add_clsact(process.capabilities, &tcx),
            tcx,
            grace: attempts::update_map_in_map(),
            batch: attempts::delete_batch(),
            btf_bytes: fs::metadata("/sys/kernel/btf/vmlinux").ok().map(|metadata| metadata.len()),
            task_file_iterator: names.contains(&TASK_FILE_ITERATOR),
            storage_iterator: names.contains(&STORAGE_ITERATOR),
            drop_reasons: names.contains(&DROP_REASONS),
            socket_lengths: names.contains(&SOCKET_LENGTHS),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            lockdown: read("/sys/kernel/security/lockdown").as_deref().and_then(active_choice),
            realtime_flag: number("/sys/kernel/realtime") == Some(1),
            sock_ops: cgroup2.as_deref().map_or(Attempt::NotTried, attempts::query_sock_ops),
            cgroup2_is_topmost: cgroup2.as_ref().is_some_and(|path| {
                fs::metadata(path).is_ok_and(|metadata| metadata.ino() == TOPMOST_CGROUP)
            }),
            cgroup2,
            bpffs: mount_of_type(&mounts, "bpf"),
            possible_cpus: read("/sys/devices/system/cpu/possible").map_or(0, |list| cpu_count(&list)),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            memory_available: read("/proc/meminfo").as_deref().and_then(available_memory),
            ..process
        }
    }

    /// What decides about privilege: release, user, capabilities, user namespace, container. Tries nothing.
    ///
    /// User and capabilities are those of the calling thread.
    pub fn of_process() -> Self {
        let status = read("/proc/thread-self/status").unwrap_or_default();
        Self {
            release: Release::parse(&read("/proc/sys/kernel/osrelease").unwrap_or_default()),
            user: effective_user(&status).unwrap_or(u32::MAX),
            capabilities: CapabilitySet::effective_of_status(&status).unwrap_or_default(),
            in_user_namespace: read("/proc/self/uid_map").is_some_and(|map| !is_initial_uid_map(&map)),
            in_container: is_container(),
            ..Self::default()
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u8> {
    read(path)?.parse().ok()
}

fn link(path: &str) -> Option<String> {
    fs::read_link(path).ok()?.into_os_string().into_string().ok()
}

/// The second number of `Uid:` is the effective one.
fn effective_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// In the first user namespace, all users map to themselves.
fn is_initial_uid_map(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Container runtimes leave no certain mark; these are the usual ones.
fn is_container() -> bool {
    ["/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or(false))
}

/// The word in brackets of a list such as `none [integrity] confidentiality`.
fn active_choice(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice.to_owned())
}

/// First mount point of a file system type in the text of `mountinfo` (proc(5): the type follows a lone hyphen).
///
/// The root of the file system is preferred to a part of it that is mounted somewhere.
pub(crate) fn mount_of_type(mountinfo: &str, file_system: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let is_type = right.split(' ').next() == Some(file_system);
        is_type.then(|| (root != "/", PathBuf::from(unescape(mount_point))))
    });
    mounts.min_by_key(|(is_part, _)| *is_part).map(|(_, mount_point)| mount_point)
}

/// Blanks and backslashes in mount points are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// One more than the highest CPU in a list such as `0-3,8`.
fn cpu_count(list: &str) -> u32 {
    let highest = list.split([',', '-']).filter_map(|number| number.trim().parse::<u32>().ok()).max();
    highest.map_or(0, |highest| highest.saturating_add(1))
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Function of the iterator over open files.
const TASK_FILE_ITERATOR: &str = "bpf_iter_task_file";
/// Function of the iterator over the storage of sockets.
const STORAGE_ITERATOR: &str = "bpf_iter_bpf_sk_storage_map";
/// Type of the tracepoint that tells how much a socket has sent.
const SOCKET_LENGTHS: &str = "btf_trace_sock_send_length";
/// Enumeration of the reasons to drop a packet.
const DROP_REASONS: &str = "skb_drop_reason";

/// Which of these names are among the strings of the kernel's type information.
fn known_names() -> Vec<&'static str> {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let mut known = Vec::new();
    for string in types.split(|byte| *byte == 0) {
        let names = [TASK_FILE_ITERATOR, STORAGE_ITERATOR, DROP_REASONS, SOCKET_LENGTHS];
        known.extend(names.into_iter().filter(|name| name.as_bytes() == string));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_come_from_mountinfo_whatever_the_layout() {
        const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            38 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        const CONTAINER: &str = "40 23 0:27 /kubepods/pod1 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n\
            41 23 0:27 / /host\\040cgroup rw - cgroup2 cgroup rw\n";
        for (mounts, file_system, expect) in [
            (HYBRID, "cgroup2", Some("/sys/fs/cgroup/unified")),
            (HYBRID, "bpf", None),
            (CONTAINER, "cgroup2", Some("/host cgroup")),
            ("", "cgroup2", None),
            ("nonsense - cgroup2", "cgroup2", None),
        ] {
            assert_eq!(mount_of_type(mounts, file_system), expect.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn small_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_count("0-3"), 4);
        assert_eq!(cpu_count("0"), 1);
        assert_eq!(cpu_count("0-3,8-11"), 12);
        assert_eq!(cpu_count(""), 0);
        assert_eq!(active_choice("none [integrity] confidentiality").as_deref(), Some("integrity"));
        assert_eq!(active_choice(""), None);
        assert!(is_initial_uid_map("         0          0 4294967295"));
        assert!(!is_initial_uid_map("         0       1000          1"));
        assert_eq!(available_memory("MemTotal: 8 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(effective_user("Uid:\t1000\t0\t1000\t1000\n"), Some(0));
    }

    #[test]
    fn this_machine_yields_facts() {
        let facts = Facts::gather();
        assert!(facts.release.is_at_least(2, 6));
        assert!(facts.possible_cpus > 0);
        assert!(facts.memory_available.is_some());
    }
}
