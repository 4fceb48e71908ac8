//! `weir proxy run`: the control process, in the foreground or in the background.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, anyhow};
use weir_agent::redirect::process::{self, Options};

use crate::cli::{
    UsageError,
    proxy::{ProxyPaths, RunArgs},
};

/// What the process in the background says once everything is in effect.
const READY: &str = "ready";

pub(super) fn run(paths: &ProxyPaths, args: &RunArgs) -> Result<ExitCode> {
    if args.detach {
        return detach(args);
    }
    let options = Options {
        file: args.file.clone(),
        places: args.interfaces.clone(),
        root: paths.root.clone(),
        local: args.local.map(Into::into),
        cgroup: args.cgroup.clone(),
        kubeconfig: args.kubeconfig.clone(),
        socket: paths.socket.clone(),
        state: paths.state.clone(),
        metrics: args.metrics,
    };
    let ready = || {
        if args.detached {
            // The terminal that started it may go now.
            writeln!(io::stdout(), "{READY}").ok();
            io::stdout().flush().ok();
        }
    };
    if args.detached {
        rustix::process::setsid().context("cannot leave the terminal")?;
    }
    match process::run(&options, ready) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_usage() => Err(UsageError(weir_agent::causes::with_causes(&error)).into()),
        Err(error) => Err(error.into()),
    }
}

/// Starts itself in the background and waits until everything is in effect there.
fn detach(args: &RunArgs) -> Result<ExitCode> {
    if let Some(directory) = args.log.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(&args.log)
        .with_context(|| format!("cannot open {}", args.log.display()))?;
    let before = log.seek(SeekFrom::End(0))?;
    let arguments: Vec<OsString> = env::args_os()
        .skip(1)
        .map(|argument| if argument == "--detach" { "--detached".into() } else { argument })
        .collect();
    let program = env::current_exe().context("cannot find the program itself")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("cannot start the process in the background")?;
    let mut line = String::new();
    let output = child.stdout.take().ok_or_else(|| anyhow!("the process in the background has no output"))?;
    BufReader::new(output).read_line(&mut line)?;
    if line.trim_end() == READY {
        writeln!(io::stdout(), "running as process {}; messages go to {}", child.id(), args.log.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    let mut said = String::new();
    log.seek(SeekFrom::Start(before))?;
    log.read_to_string(&mut said)?;
    io::stderr().write_all(said.as_bytes())?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(ExitCode::from(code.unwrap_or(1)))
}
