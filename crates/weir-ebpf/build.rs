//! Tells the compiler about `bpf_target_arch`, which aya-ebpf's bindings are chosen by.

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()
}
