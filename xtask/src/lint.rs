//! `cargo xtask lint`: every check that needs no running Weir. All checks run, then the failed ones are named.

use std::process::Command;
use std::time::Instant;

use anyhow::bail;

use crate::{command, edges, setup, tidy};

/// Lints that go against what kernel code has to be: keys are words without names, the program macros fix the
/// signatures, a copy instead of a reference takes stack, and lengths are cut to what a layout holds.
const NOT_FOR_KERNEL_CODE: &[&str] = &[
    "clippy::cast_possible_truncation",
    "clippy::many_single_char_names",
    "clippy::needless_borrows_for_generic_args",
    "clippy::needless_pass_by_value",
];

/// Version that `--deny` installs.
const CARGO_DENY: &str = "0.20.2";

/// Options of `cargo xtask lint`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint            format, clippy for host and kernel code, dependency edges, house rules
  cargo xtask lint --deny     also licences and sources of dependencies; installs cargo-deny first if it is missing

cargo-deny takes minutes to compile, so without --deny it runs only where it is installed.")]
pub(crate) struct Arguments {
    /// Check dependencies with cargo-deny, installing it if need be
    #[arg(long)]
    deny: bool,
}

/// Runs all checks and fails if one did.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let checks: [(&str, &dyn Fn() -> anyhow::Result<()>); 6] = [
        ("format", &format),
        ("house rules", &tidy::check),
        ("dependency edges", &edges::check),
        ("clippy", &clippy),
        ("clippy for kernel code", &clippy_kernel),
        ("dependencies", &|| dependencies(arguments)),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        let started = Instant::now();
        match check() {
            Ok(()) => eprintln!("{name}: ok, {} s", started.elapsed().as_secs()),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint found something in: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> anyhow::Result<()> {
    command::run(command::cargo().args(["fmt", "--all", "--check"]))
}

/// Everything that compiles for the host.
fn clippy() -> anyhow::Result<()> {
    let mut clippy = command::cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "weir-ebpf", "--all-targets", "--", "-D", "warnings"]);
    if !setup::has_bpf_linker() {
        // User space is checked all the same; its build script then leaves empty kernel objects.
        clippy.env("WEIR_SKIP_EBPF", "1");
    }
    command::run(&mut clippy)
}

/// The kernel programs, for their own target and with the flags that the build script of weir-datapath gives them.
fn clippy_kernel() -> anyhow::Result<()> {
    setup::ensure(&[setup::Need::RustSource])?;
    let mut clippy = command::cargo();
    clippy
        .args(["clippy", "--package", "weir-ebpf", "--features", "bench"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .args(["--", "-D", "warnings"])
        .args(NOT_FOR_KERNEL_CODE.iter().flat_map(|lint| ["-A", lint]))
        // build-std is unstable; the variable lets the pinned stable compiler accept it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "--cfg bpf_target_arch=\"x86_64\"")
        // Its variables would otherwise make the host's build scripts run again each time.
        .env("CARGO_TARGET_DIR", command::target_directory()?.join("lint-ebpf"));
    command::run(&mut clippy)
}

/// Licences, sources and forbidden crates of the whole dependency tree, as deny.toml wants them.
fn dependencies(arguments: &Arguments) -> anyhow::Result<()> {
    if !command::succeeds(command::cargo().args(["deny", "--version"])) {
        if !arguments.deny {
            eprintln!("dependencies: cargo-deny is not installed, left out (--deny installs it)");
            return Ok(());
        }
        command::run(command::cargo().args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked"]))?;
    }
    // Advisories need a database from outside and change without a change of ours: a job of its own.
    command::run(Command::new("cargo").args([
        "deny",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}
