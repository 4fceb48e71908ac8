//! `cargo xtask fuzz`: runs the cargo-fuzz targets, each for a limited time, on the pinned stable compiler.

use std::process::Command;

use anyhow::bail;

use crate::{command, setup};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                          every target for a minute
  cargo xtask fuzz packet --seconds 600     one target for ten minutes")]
pub(crate) struct Arguments {
    /// The target; all of them without it
    target: Option<String>,
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

/// Sets up, lists the targets and runs them one after the other; stops at the first finding.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure(&[setup::Need::Fuzz])?;
    let listed = command::output(cargo_fuzz().arg("list"))?;
    let targets: Vec<&str> = match &arguments.target {
        Some(target) if listed.lines().any(|name| name == target) => vec![target],
        Some(target) => bail!(
            "no fuzz target is called {target}; there are: {}",
            listed.lines().collect::<Vec<_>>().join(", ")
        ),
        None => listed.lines().collect(),
    };
    for target in targets {
        let limit = format!("-max_total_time={}", arguments.seconds);
        command::run(cargo_fuzz().args(["run", target, "--", &limit]))?;
    }
    Ok(())
}

/// Sanitizer and coverage flags are unstable; the variable lets the pinned stable compiler accept them.
fn cargo_fuzz() -> Command {
    let mut cargo = command::cargo();
    cargo.arg("fuzz").env("RUSTC_BOOTSTRAP", "1");
    cargo
}
