//! `weir agent`: the daemon. What it does is in `weir-agent`; here is what the command line adds.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::{
    agent::{self, AgentError},
    config::ConfigError,
    live::Pattern,
};

use crate::cli::{AgentArgs, UsageError};

pub(super) fn run(args: &AgentArgs) -> Result<ExitCode> {
    let mut sources = args.config.sources();
    // Quoted, because YAML would take `*` for an alias.
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    if !args.interfaces.is_empty() {
        let names: Vec<String> = args.interfaces.iter().map(Pattern::as_str).map(quoted).collect();
        sources.options.push(format!("interfaces=[{}]", names.join(", ")));
    }
    if let Some(netns) = &args.netns {
        sources.options.push(format!("netns={}", quoted(netns.as_str())));
    }
    match agent::run(sources) {
        Ok(summary) => {
            io::stderr().write_all(summary.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(AgentError::Config(ConfigError::Problems(problems))) => {
            Err(UsageError(format!("the configuration is wrong:\n{problems}")).into())
        }
        Err(AgentError::Config(error @ ConfigError::Syntax { .. })) => {
            Err(UsageError(error.to_string()).into())
        }
        Err(error) => Err(error.into()),
    }
}
