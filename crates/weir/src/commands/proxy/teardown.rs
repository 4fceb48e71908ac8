//! `weir proxy teardown`: ends the control process and removes what it made, and nothing else.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;
use weir_api::proxy::{ProxyClient, ProxyClientError, ProxyStatus};
use weir_datapath::redirect::Redirect;

use super::{client, refused};
use crate::cli::proxy::{ProxyPaths, TeardownArgs};

/// Longest wait for the control process to end.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub(super) fn run(paths: &ProxyPaths, args: &TeardownArgs) -> Result<ExitCode> {
    let mut text = String::new();
    let mut say = |what: &str| {
        text.push_str(if args.dry_run { "would be removed: " } else { "removed: " });
        text.push_str(what);
        text.push('\n');
    };
    if let Some(client) = running(paths)? {
        if !args.dry_run {
            stop(&client)?;
        }
        say("control process");
    }
    for removed in Redirect::teardown(&paths.root, args.dry_run).context("cannot remove everything")? {
        say(&removed.to_string());
    }
    for path in [&paths.state, &paths.socket] {
        if exists(path) {
            if !args.dry_run {
                remove(path)?;
            }
            say(&path.display().to_string());
        }
    }
    if text.is_empty() {
        text.push_str("nothing of weir proxy is here\n");
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn running(paths: &ProxyPaths) -> Result<Option<ProxyClient>> {
    let client = client(paths);
    match client.text("/healthz") {
        Ok(_) => Ok(Some(client)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

/// Asks the control process to end and waits until it has.
fn stop(client: &ProxyClient) -> Result<()> {
    let status: ProxyStatus = client.get("/v1/status").map_err(refused)?;
    let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw).context("it names no process")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot wait for the control process")?;
    match client.call::<Value>("POST", "/v1/stop", None) {
        // It may be gone before the answer is out.
        Ok(_) | Err(ProxyClientError::Broken { .. } | ProxyClientError::Answer { .. }) => {}
        Err(error) => return Err(refused(error)),
    }
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    if poll(&mut ended, Some(&PATIENCE))? == 0 {
        bail!("the control process {} does not end: end it yourself, then try again", status.pid);
    }
    Ok(())
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        // The control process removes its socket itself, perhaps right now.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
