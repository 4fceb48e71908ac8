//! Tells the compiler about `bpf_target_arch`, which aya-ebpf's bindings are chosen by, and the linker, which makes
//! the code, about what that machine can do.

use std::env;

/// Machines whose kernels have `CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`. On these the verifier lets a program read a
/// packet by words whatever their alignment; elsewhere it wants byte after byte, which costs half as much again.
const UNALIGNED: &[&str] = &["x86_64", "aarch64"];

/// Objects for which that matters. Not all: the compiler then moves unaligned words on the stack as well, which the verifier
/// never allows, and which these do not do.
const READ_BY_WORDS: &[&str] = &["flow"];

/// Those that are compared with them, and the one that writes the packets for them.
const BENCHES: &[&str] = &["bench_hash", "bench_lru", "bench_patch"];

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()?;
    let is = |variable: &str, values: &[&str]| {
        env::var(variable).is_ok_and(|value| values.contains(&value.as_str()))
    };
    if is("CARGO_CFG_TARGET_ARCH", &["bpf"]) && is("CARGO_CFG_BPF_TARGET_ARCH", UNALIGNED) {
        let benches = if env::var_os("CARGO_FEATURE_BENCH").is_some() { BENCHES } else { &[] };
        for object in READ_BY_WORDS.iter().chain(benches) {
            println!("cargo::rustc-link-arg-bin={object}=--cpu-features=+allows-misaligned-mem-access");
        }
    }
    Ok(())
}
