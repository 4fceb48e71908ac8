//! Peaks of memory, each in a process of its own, so that nothing counts but the store.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use weir_agent::store::{EmbeddedStore, Store as _, StoreConfig};

use super::{TICKS, flows::Flows, questions::Question, rows_of_tick};

/// What a process of its own does with the store.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Alone {
    /// Fills it.
    Append,
    /// Asks for service maps.
    Maps,
    /// Asks everything.
    Ask,
}

impl Alone {
    const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Maps => "maps",
            Self::Ask => "ask",
        }
    }
}

/// Starts the process; gives back its peak of memory in MiB.
pub(super) fn start(what: Alone, flows: usize, rounds: usize, directory: &Path) -> anyhow::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["store", "--alone", what.name(), "--flows", &flows.to_string()])
        .args(["--rounds", &rounds.to_string(), "--directory"])
        .arg(directory)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a process of its own failed: {said}");
    String::from_utf8(output.stdout)?.trim().parse().context("it prints a number")
}

/// What that process does.
pub(super) fn run(what: Alone, flows: usize, rounds: usize, directory: &Path) -> anyhow::Result<()> {
    let store = EmbeddedStore::open(directory, StoreConfig::default())?;
    let ask = |questions: &[Question]| {
        for _ in 0..rounds.max(1) {
            for question in questions {
                question.ask(&store)?;
            }
        }
        anyhow::Ok(())
    };
    match what {
        Alone::Append => {
            let mut maker = Flows::new();
            for number in 0..TICKS {
                let (tick, records) = maker.tick(number, rows_of_tick(number, flows));
                store.append(&records, &tick)?;
            }
            store.flush()?;
        }
        Alone::Maps => ask(&[Question::MapFromSums, Question::MapFromFlows])?,
        Alone::Ask => ask(&Question::ALL)?,
    }
    println!("{}", peak_mib()?);
    Ok(())
}

fn peak_mib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel says it")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
