//! `weir check`: says what is wrong with a configuration, all of it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::config::{Config, ConfigError};

use crate::cli::CheckArgs;

/// The configuration is wrong.
const WRONG: u8 = 2;

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match Config::load(&args.config.sources()) {
        Ok(_) => {
            writeln!(out, "the configuration is right")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (ConfigError::Problems(_) | ConfigError::Syntax { .. })) => {
            writeln!(out, "{error}")?;
            Ok(ExitCode::from(WRONG))
        }
        Err(error) => Err(error.into()),
    }
}
