//! `weir selfcheck`: whether counting is exact on this machine.
//!
//! Exit code 1 if a count is wrong, or if the check cannot run.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Result, anyhow};
use weir_datapath::{features, selfcheck};

use crate::terminal::{self, Colour};

pub(super) fn run() -> Result<ExitCode> {
    if let Some(missing) = features::missing_for_counting() {
        return Err(anyhow!("{missing}"));
    }
    let report = selfcheck::run()?;
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let (mark, colour, detail) = match &check.outcome {
            Ok(detail) => ("ok   ", Colour::Green, detail),
            Err(difference) => ("WRONG", Colour::Red, difference),
        };
        let mark = terminal::coloured(mark, colour);
        writeln!(text, "{mark}  {:<width$}  {detail}", check.name).expect("a string takes any text");
    }
    let wrong = report.checks.iter().filter(|check| check.outcome.is_err()).count();
    let verdict = match wrong {
        0 => "counting is exact here".to_owned(),
        _ => format!(
            "{wrong} of {} counts are wrong: please report this, with `weir doctor -v`",
            report.checks.len()
        ),
    };
    writeln!(
        text,
        "{verdict}; a plain packet costs {} ns, the kernel's own part of a test run included",
        report.cost.as_nanos()
    )
    .expect("a string takes any text");
    io::stdout().write_all(text.as_bytes())?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
