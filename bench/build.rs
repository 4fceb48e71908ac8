//! Compiles the kernel programs that only benchmarks use (`weir-ebpf/src/bench`) into `OUT_DIR`.
//!
//! They are behind a feature of weir-ebpf, so that nothing that ships contains them. With `WEIR_SKIP_EBPF=1` empty
//! objects are written, as in weir-datapath/build.rs, where the reasons for the environment stand.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

const OBJECTS: &[&str] = &["bench_patch", "bench_hash", "bench_lru"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=WEIR_SKIP_EBPF");
    let out = env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?;
    if env::var_os("WEIR_SKIP_EBPF").is_some_and(|value| value == "1") {
        for object in OBJECTS {
            let path = Path::new(&out).join(object);
            fs::write(&path, []).with_context(|| format!("cannot write {}", path.display()))?;
        }
        return Ok(());
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?.join("crates");
    for library in ["weir-common", "weir-packet"] {
        println!("cargo:rerun-if-changed={}", crates.join(library).join("src").display());
    }
    let root = crates.join("weir-ebpf");
    let root = root.to_str().context("the path of the sources is not UTF-8")?;
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".to_owned());
    #[expect(
        clippy::disallowed_methods,
        reason = "aya-build takes this from the environment and nowhere else"
    )]
    // SAFETY: a build script has one thread here.
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
    };
    let package = Package { name: "weir-ebpf", root_dir: root, features: &["bench"], ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
}
