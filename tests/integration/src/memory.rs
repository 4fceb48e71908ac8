//! How much memory another process has.

use std::fs;

/// The most memory that a process ever had, in KiB, without the pages of its program and libraries. Those are the
/// page cache's: any process may share them, the kernel takes them back when it needs room, and in a build without
/// optimisation they are ten times as many as in a release.
pub fn peak_kib(pid: u32) -> u64 {
    let status = read(pid, "status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel knows");
    kib(peak) - resident_kib(pid, |path| path.starts_with('/'))
}

/// Memory of the kernel's maps that a process looks into, in KiB. Rings are there twice, one behind the other.
pub fn maps_kib(pid: u32) -> u64 {
    resident_kib(pid, |path| path == "anon_inode:bpf-map")
}

/// What is in memory of the mappings of files like these.
fn resident_kib(pid: u32, is_meant: impl Fn(&str) -> bool) -> u64 {
    let mut counts = false;
    let mut sum = 0;
    for line in read(pid, "smaps").lines() {
        let mut words = line.split_whitespace();
        if let Some(resident) = line.strip_prefix("Rss:") {
            sum += if counts { kib(resident) } else { 0 };
        } else if words.next().is_some_and(|first| !first.ends_with(':')) {
            // The line that begins a mapping: addresses, rights, offset, device, inode and the path if there is one.
            counts = words.nth(4).is_some_and(&is_meant);
        }
    }
    sum
}

fn read(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs")
}

fn kib(value: &str) -> u64 {
    value.trim().trim_end_matches(" kB").parse().expect("it is a number")
}
