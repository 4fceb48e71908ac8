//! What each command does, one file each. A command gets its arguments and returns how it ended.

mod agent;
mod check;
mod cleanup;
mod completions;
mod doctor;
mod flows;
mod man;
mod packets;
mod proxy;
mod replay;
mod selfcheck;
mod tap;
mod watch;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Runs the command that the command line names.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Some(Command::Packets(args)) => packets::run(&args),
        Some(Command::Replay(args)) => replay::run(&args),
        Some(Command::Flows(args)) => flows::run(&args),
        Some(Command::Agent(args)) => agent::run(&args),
        Some(Command::Proxy(args)) => proxy::run(&args),
        Some(Command::Tap(args)) => tap::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Selfcheck) => selfcheck::run(),
        Some(Command::Cleanup(args)) => cleanup::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
        Some(Command::Watch(args)) => watch::run(&args),
        None => watch::run(&cli.watch),
    }
}
