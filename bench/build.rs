//! Compiles the kernel programs that only benchmarks use (`weir-ebpf/src/bench`) into `OUT_DIR`.
//!
//! They are behind a feature of weir-ebpf, so that nothing that ships contains them.

#[path = "../crates/weir-ebpf/compile.rs"]
mod compile;

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the workspace")?;
    compile::compile(&root.join("crates"), &["bench_patch", "bench_hash", "bench_lru"], &["bench"])
}
