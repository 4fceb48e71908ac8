//! `cargo xtask run`: from a clean checkout to the live traffic of this machine, in one command.

use std::os::unix::process::CommandExt;

use anyhow::Context;

use crate::{command, setup};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run                              live table of all interfaces
  cargo xtask run -i lo -o log --duration 5s   everything after `run` goes to `weir watch`
  cargo xtask run --release 'proto=tcp'        optimised, takes longer to build")]
pub(crate) struct Arguments {
    /// Build with optimisation and fat link-time optimisation, as released
    #[arg(long)]
    release: bool,
    /// Arguments of `weir watch`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    watch: Vec<String>,
}

/// Sets up, builds and becomes `weir watch`, through sudo when not root.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure(&[setup::Need::Build])?;
    // The kernel programs are optimised in every profile; unoptimised user space costs some CPU but builds in a
    // fraction of the time.
    let profile = if arguments.release { "release" } else { "dev" };
    command::run(command::cargo().args(["build", "--package", "weir", "--profile", profile]))?;

    let folder = if arguments.release { "release" } else { "debug" };
    let binary = command::target_directory()?.join(folder).join("weir");
    let mut watch = command::as_root(&binary);
    watch.arg("watch").args(&arguments.watch);
    eprintln!("+ {}", command::display(&watch));
    Err(watch.exec()).with_context(|| format!("cannot start {}", command::display(&watch)))
}
