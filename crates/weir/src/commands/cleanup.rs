//! `weir cleanup`: removes what a Weir left that was killed, and nothing else.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow};
use weir_datapath::cleanup::{self, Force, Leftover, Removal, Status};

use crate::cli::CleanupArgs;

pub(super) fn run(args: &CleanupArgs) -> Result<ExitCode> {
    let leftovers = cleanup::list().context("cannot look for leftovers")?;
    let mut text = String::new();
    let mut failures = 0;
    if leftovers.is_empty() {
        text.push_str("nothing of weir is attached here\n");
    }
    for leftover in &leftovers {
        let outcome =
            if args.dry_run { Ok(intention(leftover, args.force)) } else { remove(leftover, args.force) };
        let outcome = outcome.unwrap_or_else(|error| {
            failures += 1;
            format!("{error:#}")
        });
        writeln!(
            text,
            "{} {} {} priority {} handle {:#x}, weir {}: {outcome}",
            leftover.interface,
            leftover.direction(),
            leftover.name(),
            leftover.priority(),
            leftover.handle(),
            leftover.instance,
        )
        .expect("a string takes any text");
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a run without `--dry-run` would do.
fn intention(leftover: &Leftover, force: bool) -> String {
    match leftover.status {
        Status::Dead => "would be removed",
        Status::Live => "in use, stays",
        Status::OtherProgram if force => "of another version, would be removed",
        Status::OtherProgram => "of another version, stays (--force removes it)",
    }
    .to_owned()
}

fn remove(leftover: &Leftover, force: bool) -> Result<String> {
    match leftover.status {
        Status::Live => return Ok("in use, stays".to_owned()),
        Status::OtherProgram if !force => {
            return Ok("of another version, stays (--force removes it)".to_owned());
        }
        Status::Dead | Status::OtherProgram => {}
    }
    let force = if force { Force::Yes } else { Force::No };
    let removal = cleanup::remove(leftover, force).map_err(|error| anyhow!(error))?;
    Ok(match removal {
        Removal::Filter => "removed",
        Removal::FilterAndQdisc => "removed, with the clsact qdisc that weir had added",
        Removal::Gone => "gone already",
    }
    .to_owned())
}
