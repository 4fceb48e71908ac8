//! `weir tap selfcheck`: whether a tap on this machine tells what is said, by every kind of call.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::units::Grouped;
use weir_datapath::tap::{
    GapReason, Settings, Side,
    selfcheck::{self, Outcome},
};

use crate::terminal::{self, Colour};

pub(super) fn run() -> Result<ExitCode> {
    let (chosen, outcomes) = selfcheck::run(&Settings::default())?;
    let mut text = format!("hooks: {}\n", chosen.tier);
    for (tier, why) in &chosen.tried {
        writeln!(text, "  not {tier}: {why}")?;
    }
    for missing in &chosen.without {
        writeln!(text, "  without {missing}")?;
    }
    let name = |outcome: &Outcome| format!("{} {}", outcome.calls, outcome.address);
    let width = outcomes.iter().map(|outcome| name(outcome).len()).max().unwrap_or(0);
    for outcome in &outcomes {
        let (mark, colour) = match (outcome.is_exact(), outcome.is_accounted_for()) {
            (true, _) => ("ok   ", Colour::Green),
            (false, true) => ("gaps ", Colour::Yellow),
            (false, false) => ("WRONG", Colour::Red),
        };
        let mark = terminal::coloured(mark, colour);
        let (sent, received) = (side(&outcome.sent), side(&outcome.received));
        let bytes = Grouped(outcome.bytes);
        write!(text, "{mark}  {:<width$}  {bytes} bytes; sent: {sent}; received: {received}", name(outcome))?;
        if outcome.wrong > 0 {
            write!(text, "; {} bytes are wrong", Grouped(outcome.wrong))?;
        }
        text.push('\n');
    }
    let wrong = outcomes.iter().filter(|outcome| !outcome.is_accounted_for()).count();
    let verdict = match wrong {
        0 => "every byte is captured, or missing for a reason that is told".to_owned(),
        _ => {
            format!("{wrong} of {} ways are wrong: please report this, with `weir doctor -v`", outcomes.len())
        }
    };
    writeln!(text, "{verdict}")?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of one end's bytes.
fn side(side: &Side) -> String {
    let mut text = format!("captured {}", Grouped(side.captured));
    let gaps = GapReason::ALL.iter().zip(side.gaps).map(|((_, name), bytes)| (*name, bytes));
    for (name, bytes) in [("lost", side.lost), ("unseen", side.unseen.unwrap_or(0))].into_iter().chain(gaps) {
        if bytes > 0 {
            text.extend([", ", name, " ", &Grouped(bytes).to_string()]);
        }
    }
    text
}
