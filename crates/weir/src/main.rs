//! The `weir` binary: reads the command line, runs one command, turns its outcome into an exit code.
//!
//! Exit codes: 0 done, 1 failed, 2 used wrongly. A reader that goes away (a broken pipe) ends a command quietly with
//! 0. What a command does is in `commands/`, one file each.

#![forbid(unsafe_code)]

mod capture;
mod cli;
mod clock;
mod commands;
mod filter;

mod packets;
mod progress;
mod show;
mod terminal;

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
};

use clap::error::ErrorKind as ClapErrorKind;

use crate::cli::{Cli, UsageError};

fn main() -> ExitCode {
    let outcome = match Cli::read() {
        Ok(cli) => commands::run(cli),
        Err(error) => return refuse(&error),
    };
    match outcome {
        Ok(exit_code) => exit_code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            if error.downcast_ref::<UsageError>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints help and version where they were asked for, else what is wrong with the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    let rendered = error.render();
    match error.kind() {
        ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion => {
            // Clap honours NO_COLOR and terminals; a reader that went away is no failure.
            match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => {
            let text = rendered.to_string();
            complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            ExitCode::from(2)
        }
    }
}

/// Writes one message to standard error. Where even that fails, nobody is left to tell.
fn complain(message: &str) {
    writeln!(io::stderr(), "weir: {message}").ok();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}
