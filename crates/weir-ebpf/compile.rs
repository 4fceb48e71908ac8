//! Compiles kernel programs of this crate into `OUT_DIR`; part of the build scripts that embed them.
//!
//! They need `-Z build-std=core`, which the pinned stable compiler allows under `RUSTC_BOOTSTRAP=1`; that is set for
//! the inner cargo alone. With `WEIR_SKIP_EBPF=1` empty objects are written instead, for work on everything else
//! without LLVM and bpf-linker; loading one then says so.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// Compiles all programs that these features allow. `crates` is the folder of the crates, `objects` are those that the
/// caller embeds.
pub(crate) fn compile(crates: &Path, objects: &[&str], features: &[&str]) -> Result<()> {
    println!("cargo:rerun-if-env-changed=WEIR_SKIP_EBPF");
    let out = env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?;
    if env::var_os("WEIR_SKIP_EBPF").is_some_and(|value| value == "1") {
        for object in objects {
            let path = Path::new(&out).join(object);
            fs::write(&path, []).with_context(|| format!("cannot write {}", path.display()))?;
        }
        return Ok(());
    }
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        bail!(
            "bpf-linker is not installed: run `cargo xtask setup`, or build without kernel programs by WEIR_SKIP_EBPF=1"
        );
    }
    for library in ["weir-common", "weir-packet"] {
        println!("cargo:rerun-if-changed={}", crates.join(library).join("src").display());
    }
    let root = crates.join("weir-ebpf");
    println!("cargo:rerun-if-changed={}", root.join("compile.rs").display());
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
    let package = Package { name: "weir-ebpf", root_dir: root, features, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
}
