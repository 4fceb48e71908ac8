//! The embedded store beside plain `SQLite` rows: appending, room on the disk, the service map, memory.
//!
//! Both get the same flows, a minute of them in turn, and answer the same question in turn. The time to make the
//! flows is not counted.

mod alone;
pub(crate) mod flows;
mod plain;
mod questions;

use std::{fmt::Write as _, fs, path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weir_agent::store::{EmbeddedStore, Store as _, StoreConfig};

use crate::{machine::Machine, micro::median, tell::tell, verdict::Verdict};
use alone::Alone;
use flows::Flows;
use plain::Plain;
use questions::Question;

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Flows, over one hour
    #[arg(long, default_value_t = 3_000_000)]
    flows: usize,
    /// How often each question is asked
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Directory for the stores; a new one beside the system's temporary files by default
    #[arg(long)]
    directory: Option<std::path::PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Do one part only and print the peak of memory
    #[arg(long, hide = true, requires = "directory")]
    alone: Option<Alone>,
}

/// Ticks of the hour, one a second.
const TICKS: usize = 3_600;

/// Ticks that one store gets before it is the other's turn.
const TURN: usize = 60;

/// Everything that was measured.
#[derive(Default)]
struct Outcome {
    flows: usize,
    append_seconds: f64,
    plain_append_seconds: f64,
    bytes_per_row: f64,
    plain_bytes_per_row: f64,
    rollup_bytes: u64,
    /// Milliseconds of each answer, in the order of [`Question::ALL`].
    asked_ms: [Vec<f64>; Question::ALL.len()],
    plain_ms: Vec<f64>,
    append_rss_mib: f64,
    map_rss_mib: f64,
    ask_rss_mib: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let (Some(what), Some(directory)) = (arguments.alone, &arguments.directory) {
        return alone::run(what, arguments.flows, arguments.rounds, directory);
    }
    let machine = Machine::look();
    let place = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("weir-bench-store-{}", std::process::id())),
    };
    let measured = measure(arguments, &place);
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    let outcome = measured?;
    tell(arguments.json, machine, &outcome.verdicts(), || outcome.json(), || outcome.table());
    Ok(())
}

fn measure(arguments: &Arguments, place: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome { flows: arguments.flows, ..Outcome::default() };
    let alone = |what| alone::start(what, arguments.flows, arguments.rounds.min(3), &place.join("alone"));
    outcome.append_rss_mib = alone(Alone::Append)?;
    outcome.map_rss_mib = alone(Alone::Maps)?;
    outcome.ask_rss_mib = alone(Alone::Ask)?;
    let weir = place.join("weir");
    let mut flows = Flows::new();
    let store = EmbeddedStore::open(&weir, StoreConfig::default())?;
    let mut plain = Plain::create(&place.join("plain.sqlite"))?;
    for turn in 0..TICKS / TURN {
        let ticks = turn * TURN..(turn + 1) * TURN;
        let batches: Vec<_> =
            ticks.map(|number| flows.tick(number, rows_of_tick(number, arguments.flows))).collect();
        let start = Instant::now();
        for (tick, records) in &batches {
            store.append(records, tick)?;
        }
        outcome.append_seconds += start.elapsed().as_secs_f64();
        let start = Instant::now();
        for (tick, records) in &batches {
            plain.append(records, tick)?;
        }
        outcome.plain_append_seconds += start.elapsed().as_secs_f64();
    }
    store.flush()?;
    outcome.bytes_per_row = per_row(size(&weir, "parquet")?, arguments.flows);
    outcome.rollup_bytes = size(&weir, "sqlite")? + size(&weir, "sqlite-wal")?;
    outcome.plain_bytes_per_row = per_row(plain.bytes()?, arguments.flows);
    ask(arguments.rounds, &store, &mut plain, &mut outcome)?;
    Ok(outcome)
}

/// Rows of one tick.
fn rows_of_tick(number: usize, flows: usize) -> usize {
    flows * (number + 1) / TICKS - flows * number / TICKS
}

/// Asks both in turn.
fn ask(rounds: usize, store: &EmbeddedStore, plain: &mut Plain, outcome: &mut Outcome) -> anyhow::Result<()> {
    let timed = |question: &mut dyn FnMut() -> anyhow::Result<usize>| {
        let start = Instant::now();
        let answers = question()?;
        ensure!(answers > 0, "no answer");
        Ok((start.elapsed().as_secs_f64() * 1e3, answers))
    };
    for _ in 0..rounds.max(1) {
        let mut maps = Vec::new();
        for (question, asked_ms) in Question::ALL.into_iter().zip(&mut outcome.asked_ms) {
            let (ms, answers) = timed(&mut || question.ask(store))?;
            asked_ms.push(ms);
            if matches!(question, Question::MapFromSums | Question::MapFromFlows) {
                maps.push(answers);
            }
        }
        let (ms, answers) = timed(&mut || plain.edges(questions::quarter()))?;
        outcome.plain_ms.push(ms);
        ensure!(maps.iter().all(|edges| *edges == answers), "{maps:?} edges, {answers} in plain rows");
    }
    Ok(())
}

/// Bytes of the files whose names end like this.
fn size(directory: &Path, extension: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|found| found == extension) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes, some millions")]
fn per_row(bytes: u64, rows: usize) -> f64 {
    bytes as f64 / rows as f64
}

impl Outcome {
    fn median_ms(&self, question: Question) -> f64 {
        Question::ALL
            .iter()
            .zip(&self.asked_ms)
            .find(|(candidate, _)| **candidate == question)
            .map_or(f64::NAN, |(_, ms)| median(ms))
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let target = |what: &str, measured, most| Verdict { what: what.to_owned(), measured, most };
        vec![
            target("service map over 15 min from sums, ms", self.median_ms(Question::MapFromSums), 10.0),
            target(
                "service map over 15 min from raw flows, ms",
                self.median_ms(Question::MapFromFlows),
                150.0,
            ),
            target("segments, bytes per row", self.bytes_per_row, 25.0),
            target("peak of memory while appending, MiB", self.append_rss_mib, 128.0),
            target("peak of memory while asking, MiB", self.map_rss_mib.max(self.ask_rss_mib), 128.0),
        ]
    }

    fn table(&self) -> String {
        let million = per_row(self.flows as u64, 1_000_000);
        let mut text = format!(
            "\n{} flows over one hour; the questions are about the last 15 minutes{:<12}{:>12}{:>12}{:>14}\n",
            self.flows, "", "weir", "SQLite", "weir/SQLite"
        );
        let mut line = |what: &str, weir: f64, plain: Option<f64>| {
            write!(text, "  {what:<80}{weir:>12.1}").expect("a string takes everything");
            if let Some(plain) = plain {
                write!(text, "{plain:>12.1}{:>14.3}", weir / plain).expect("a string takes everything");
            }
            text.push('\n');
        };
        let thousand = |seconds: f64| million * 1e3 / seconds;
        line(
            "append, 1000 rows a second",
            thousand(self.append_seconds),
            Some(thousand(self.plain_append_seconds)),
        );
        line("bytes per row", self.bytes_per_row, Some(self.plain_bytes_per_row));
        line("sums and names, bytes per row", per_row(self.rollup_bytes, self.flows), None);
        for question in Question::ALL {
            let is_map = matches!(question, Question::MapFromSums | Question::MapFromFlows);
            line(question.text(), self.median_ms(question), is_map.then(|| median(&self.plain_ms)));
        }
        line("peak of memory while appending, MiB", self.append_rss_mib, None);
        line("peak of memory while asking for service maps, MiB", self.map_rss_mib, None);
        line("peak of memory while asking all of that, MiB", self.ask_rss_mib, None);
        text.push_str(
            "  Medians. SQLite: one table of rows with an index on time, 10,000 rows a transaction.\n",
        );
        text
    }

    fn json(&self) -> Value {
        let mut all = json!({
            "flows": self.flows,
            "append_seconds": self.append_seconds,
            "plain_append_seconds": self.plain_append_seconds,
            "bytes_per_row": self.bytes_per_row,
            "plain_bytes_per_row": self.plain_bytes_per_row,
            "rollup_bytes": self.rollup_bytes,
            "plain_ms": self.plain_ms,
            "append_rss_mib": self.append_rss_mib,
            "map_rss_mib": self.map_rss_mib,
            "ask_rss_mib": self.ask_rss_mib,
        });
        for (question, ms) in Question::ALL.into_iter().zip(&self.asked_ms) {
            all[question.name()] = ms.clone().into();
        }
        all
    }
}
