//! `weir tap selfcheck`: whether a tap on this machine tells what is said, by every kind of call.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::units::Grouped;
use weir_datapath::tap::{
    GapReason, Settings, Side, Transport,
    selfcheck::{self, Outcome},
};

use crate::terminal::{self, Colour};

/// Room for the longest pair of calls.
const WIDTH: usize = 32;

pub(super) fn run() -> Result<ExitCode> {
    let mut out = io::stdout();
    let mut shown = Ok(());
    let (chosen, outcomes) = selfcheck::run(&Settings::default(), &mut |outcome| {
        if shown.is_ok() {
            shown = out.write_all(line(outcome).as_bytes());
        }
    })?;
    shown?;
    let mut text = format!("hooks: {}\n", chosen.tier);
    for (tier, why) in &chosen.tried {
        writeln!(text, "  not {tier}: {why}")?;
    }
    for missing in &chosen.without {
        writeln!(text, "  without {missing}")?;
    }
    let wrong = outcomes.iter().filter(|outcome| !outcome.is_accounted_for()).count();
    let verdict = match wrong {
        0 => "every byte is captured, or missing for a reason that is told".to_owned(),
        _ => {
            format!("{wrong} of {} ways are wrong: please report this, with `weir doctor -v`", outcomes.len())
        }
    };
    writeln!(text, "{verdict}")?;
    out.write_all(text.as_bytes())?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of one pair of calls.
fn line(outcome: &Outcome) -> String {
    let (mark, colour) = match (outcome.is_exact(), outcome.is_accounted_for()) {
        (true, _) => ("ok   ", Colour::Green),
        (false, true) => ("gaps ", Colour::Yellow),
        (false, false) => ("WRONG", Colour::Red),
    };
    let mark = terminal::coloured(mark, colour);
    let transport = if outcome.transport == Transport::Udp { "UDP" } else { "TCP" };
    let calls = format!("{} → {}", outcome.send, outcome.receive);
    let (address, bytes) = (outcome.address.to_string(), Grouped(outcome.bytes));
    let mut text = format!("{mark}  {transport}  {calls:<WIDTH$}  {address:<9}  {bytes} bytes");
    if !outcome.is_exact() {
        text.extend(["; sent: ", &side(&outcome.sent), "; received: ", &side(&outcome.received)]);
    }
    if outcome.wrong > 0 {
        text.extend(["; ", &Grouped(outcome.wrong).to_string(), " bytes are wrong"]);
    }
    text.push('\n');
    text
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
