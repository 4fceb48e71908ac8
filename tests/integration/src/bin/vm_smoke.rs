//! What `cargo xtask test vm` runs in its guests, as root: `weir-vm-smoke smoke|full`.
//!
//! Prints what it does, ends with `N passed, N failed` and a matching exit code. So far it only proves that a guest
//! boots with the devices that the tests need.

use std::process::{Command, ExitCode};

const STEPS: &[&str] = &[
    "ip netns add smoke",
    "ip link add weir0 type veth peer name weir1 netns smoke",
    "ip link set weir0 up",
    "ip -n smoke link set weir1 up",
    "tc qdisc add dev weir0 clsact",
    "test -r /sys/kernel/btf/vmlinux",
];

fn main() -> ExitCode {
    let failed = STEPS.iter().filter(|step| !succeeds(step)).count();
    println!("{} passed, {failed} failed", STEPS.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn succeeds(step: &str) -> bool {
    let success = Command::new("sh").args(["-c", step]).status().is_ok_and(|status| status.success());
    println!("{}: {step}", if success { "ok" } else { "FAILED" });
    success
}
