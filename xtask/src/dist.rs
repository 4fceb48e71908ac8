//! `cargo xtask dist`: the static binary as released, and the promise that it stays small.

use std::process::Command;

use anyhow::bail;

use crate::{command, setup};

/// The only target released so far.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// Upper limit of the stripped binary, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask dist      leaves target/x86_64-unknown-linux-musl/release/weir")]
pub(crate) struct Arguments {}

/// Sets up, builds, runs the result once and compares its size with the limit.
pub(crate) fn main(_: &Arguments) -> anyhow::Result<()> {
    setup::ensure(&[setup::Need::Build, setup::Need::Dist])?;
    command::run(command::cargo().args(["build", "--release", "--target", TARGET, "--package", "weir"]))?;
    let binary = command::target_directory()?.join(TARGET).join("release/weir");
    let version = command::output(Command::new(&binary).arg("--version"))?;
    let size = std::fs::metadata(&binary)?.len();
    println!(
        "{}: {}, {} KiB of at most {} KiB",
        binary.display(),
        version.trim(),
        size / 1024,
        LARGEST / 1024
    );
    if size > LARGEST {
        bail!(
            "the binary is {} KiB too large: look for the cause with cargo-bloat",
            (size - LARGEST).div_ceil(1024)
        );
    }
    Ok(())
}
