//! Compiles the kernel programs of weir-ebpf into `OUT_DIR`, one object per feature.

#[path = "../weir-ebpf/compile.rs"]
mod compile;

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in crates/")?;
    compile::compile(crates, &["flow", "packets", "sockets", "quality", "drops", "redirect", "tap"], &[])
}
