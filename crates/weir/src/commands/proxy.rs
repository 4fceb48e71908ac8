//! `weir proxy`: asks the control process, or is it.
//!
//! What only shows something also works without a control process: it is read from what is pinned, and a line on standard
//! error says so.

mod change;
mod doctor;
mod run;
mod show;
mod table;
mod teardown;
mod trace;

use std::{io, process::ExitCode};

use anyhow::{Result, anyhow};
use weir_agent::redirect::view::Left;
use weir_api::proxy::{ProxyClient, ProxyClientError};

use crate::cli::{
    UsageError,
    proxy::{ProxyArgs, ProxyCommand, ProxyPaths},
};

pub(super) fn run(args: &ProxyArgs) -> Result<ExitCode> {
    let paths = &args.paths;
    match &args.command {
        ProxyCommand::Run(args) => run::run(paths, args),
        ProxyCommand::Rule(args) => change::rule(paths, &args.command),
        ProxyCommand::Backend(args) => change::backend(paths, &args.command),
        ProxyCommand::Apply(args) => change::apply(paths, args),
        ProxyCommand::Ls(args) => show::rules(paths, &args.show),
        ProxyCommand::Conns(args) => show::connections(paths, args),
        ProxyCommand::Stats(args) => show::stats(paths, &args.show),
        ProxyCommand::Trace(args) => trace::run(paths, args),
        ProxyCommand::Doctor(args) => doctor::run(paths, args),
        ProxyCommand::Teardown(args) => teardown::run(paths, args),
    }
}

/// Somebody who can answer.
enum Source {
    /// The control process.
    Process(ProxyClient),
    /// What it left.
    Left(Box<Left>),
}

fn client(paths: &ProxyPaths) -> ProxyClient {
    ProxyClient::new(&paths.socket)
}

/// The control process, or what it left.
fn source(paths: &ProxyPaths) -> Result<Source> {
    let client = client(paths);
    match client.text("/healthz") {
        Ok(_) => return Ok(Source::Process(client)),
        Err(error) if !error.is_absent() => return Err(refused(error)),
        Err(_) => {}
    }
    let Some(left) = Left::read(&paths.root, &paths.state)? else {
        return Err(anyhow!(
            "nothing is diverted here: neither does a control process answer at {}, nor is anything pinned at {}; start with `weir proxy run`",
            paths.socket.display(),
            paths.root.display()
        ));
    };
    io::Write::write_all(
        &mut io::stderr(),
        b"weir: no control process runs: this is what the kernel has; nothing is checked and nothing is forgotten meanwhile\n",
    )?;
    Ok(Source::Left(Box::new(left)))
}

/// What the control process says about a request that is wrong is wrong usage.
fn refused(error: ProxyClientError) -> anyhow::Error {
    match error {
        ProxyClientError::Refused { status: 400..500, reason } => UsageError(reason).into(),
        other => other.into(),
    }
}
