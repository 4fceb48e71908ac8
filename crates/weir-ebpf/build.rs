//! Tells the compiler about `bpf_target_arch`, which aya-ebpf's bindings are chosen by, and the linker, which makes
//! the code, about what that machine can do.

use std::env;

/// Machines whose kernels have `CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`. On these the verifier lets a program read a
/// packet by words whatever their alignment; elsewhere it wants byte after byte, which costs half as much again.
const UNALIGNED: &[&str] = &["x86_64", "aarch64"];

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()?;
    let is = |variable: &str, values: &[&str]| {
        env::var(variable).is_ok_and(|value| values.contains(&value.as_str()))
    };
    if is("CARGO_CFG_TARGET_ARCH", &["bpf"]) && is("CARGO_CFG_BPF_TARGET_ARCH", UNALIGNED) {
        println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
    Ok(())
}
