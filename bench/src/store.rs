//! The embedded store beside plain `SQLite` rows: appending, room on the disk, the service map, memory.
//!
//! Both get the same flows, a minute of them in turn, and answer the same question in turn. The time to make the
//! flows is not counted.

mod flows;
mod plain;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weir_agent::store::{
    EdgeQuery, EmbeddedStore, FlowQuery, Limits, Precision, Range, Rows, SeriesQuery, Store, StoreConfig,
};
use weir_flow::{Wall, field::Field, filter::Filter};

use crate::{machine::Machine, micro::median, verdict::Verdict};
use flows::Flows;
use plain::Plain;

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
}

/// Ticks of the hour, one a second.
const TICKS: usize = 3_600;

/// Ticks that one store gets before it is the other's turn.
const TURN: usize = 60;

/// The span of the questions.
const QUARTER: Duration = Duration::from_mins(15);

/// Everything that was measured.
#[derive(Default)]
struct Outcome {
    flows: usize,
    append_seconds: f64,
    plain_append_seconds: f64,
    bytes_per_row: f64,
    plain_bytes_per_row: f64,
    rollup_bytes: u64,
    rollup_ms: Vec<f64>,
    raw_ms: Vec<f64>,
    plain_ms: Vec<f64>,
    whole_ms: Vec<f64>,
    series_ms: Vec<f64>,
    grouped_ms: Vec<f64>,
    rare_ms: Vec<f64>,
    flows_ms: Vec<f64>,
    append_rss_mib: f64,
    query_rss_mib: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut machine = Machine::look();
    let place = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("weir-bench-store-{}", std::process::id())),
    };
    let measured = measure(arguments, &place);
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    let outcome = measured?;
    machine.look_again();
    let verdicts = outcome.verdicts();
    if arguments.json {
        let mut all = outcome.json();
        all["machine"] = machine.json();
        all["verdicts"] = verdicts.iter().map(Verdict::json).collect();
        println!("{all:#}");
        return Ok(());
    }
    print!("{}{}{}", machine.table(), outcome.table(), crate::verdict::table(&verdicts));
    Ok(())
}

fn measure(arguments: &Arguments, place: &Path) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome { flows: arguments.flows, ..Outcome::default() };
    let weir = place.join("weir");
    let mut flows = Flows::new();
    forget_peak();
    let store = EmbeddedStore::open(&weir, StoreConfig::default())?;
    let mut plain: Option<Plain> = None;
    for turn in 0..TICKS / TURN {
        // The first quarter is the store's alone, so that the peak of memory is its own.
        let is_alone = turn < TICKS / TURN / 4;
        let mut batches = Vec::new();
        for tick in turn * TURN..(turn + 1) * TURN {
            let rows = arguments.flows * (tick + 1) / TICKS - arguments.flows * tick / TICKS;
            batches.push(flows.tick(tick, rows));
        }
        let start = Instant::now();
        for (tick, records) in &batches {
            store.append(records, tick)?;
        }
        outcome.append_seconds += start.elapsed().as_secs_f64();
        if is_alone {
            outcome.append_rss_mib = peak_mib();
        }
        let plain = match &mut plain {
            Some(plain) => plain,
            None => plain.insert(Plain::create(&place.join("plain.sqlite"))?),
        };
        let start = Instant::now();
        for (tick, records) in &batches {
            plain.append(records, tick)?;
        }
        outcome.plain_append_seconds += start.elapsed().as_secs_f64();
    }
    let mut plain = plain.context("there was a turn")?;
    store.flush()?;
    outcome.bytes_per_row = per_row(size(&weir, "parquet")?, arguments.flows);
    outcome.rollup_bytes = size(&weir, "sqlite")? + size(&weir, "sqlite-wal")?;
    outcome.plain_bytes_per_row = per_row(plain.bytes()?, arguments.flows);
    ask(arguments.rounds, &store, &mut plain, &mut outcome)?;
    Ok(outcome)
}

/// Asks both in turn.
fn ask(rounds: usize, store: &EmbeddedStore, plain: &mut Plain, outcome: &mut Outcome) -> anyhow::Result<()> {
    let end = flows::BEGIN_NS + TICKS as u64 * 1_000_000_000;
    let whole = Range { since: Wall(flows::BEGIN_NS), until: Wall(end) };
    let quarter = Range { since: Wall(end - u64::try_from(QUARTER.as_nanos())?), ..whole };
    let limits = Limits { rows: 10_000, ..Limits::default() };
    let owner = |side: &str| Field::by_name(&format!("{side}.k8s.owner.name"));
    let group_by = vec![owner("source").context("a field")?, owner("destination").context("a field")?];
    let timed = |question: &mut dyn FnMut() -> anyhow::Result<usize>| {
        let start = Instant::now();
        let answers = question()?;
        ensure!(answers > 0, "no answer");
        Ok((start.elapsed().as_secs_f64() * 1e3, answers))
    };
    let edges = |range, precision| {
        store
            .edges(&EdgeQuery { range, filter: Filter::default(), limits, precision })
            .map(|answer| answer.edges.len())
    };
    forget_peak();
    for _ in 0..rounds.max(1) {
        let (ms, summed) = timed(&mut || Ok(edges(quarter, Precision::Rollup)?))?;
        outcome.rollup_ms.push(ms);
        let (ms, raw) = timed(&mut || Ok(edges(quarter, Precision::Raw)?))?;
        outcome.raw_ms.push(ms);
        outcome.query_rss_mib = peak_mib();
        let (ms, plain) = timed(&mut || plain.edges(quarter))?;
        outcome.plain_ms.push(ms);
        ensure!(summed == raw && raw == plain, "{summed} edges from sums, {raw} raw, {plain} plain");
        outcome.whole_ms.push(timed(&mut || Ok(edges(whole, Precision::Raw)?))?.0);
        let question =
            SeriesQuery { range: whole, step: None, filter: Filter::default(), group_by: Vec::new(), limits };
        outcome.series_ms.push(timed(&mut || Ok(store.series(&question)?.lines.len()))?.0);
        let flows = |filter: &str, group_by: &[&'static Field]| {
            let filter = Filter::parse(filter)?;
            let limits = Limits { rows: 100, ..limits };
            let answer =
                store.flows(&FlowQuery { range: quarter, filter, group_by: group_by.to_vec(), limits })?;
            Ok(match answer.rows {
                Rows::Flows(records) => records.len(),
                Rows::Groups(groups) => groups.len(),
            })
        };
        outcome.grouped_ms.push(timed(&mut || flows("", &group_by))?.0);
        outcome.rare_ms.push(timed(&mut || flows("host=10.1.0.7", &[]))?.0);
        outcome.flows_ms.push(timed(&mut || flows("", &[]))?.0);
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

/// Begins the peak of memory anew (since 4.0, 695f055936938).
fn forget_peak() {
    // Where that is refused the peak is one of the whole run, which is only larger.
    fs::write("/proc/self/clear_refs", "5").ok();
}

fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

impl Outcome {
    fn verdicts(&self) -> Vec<Verdict> {
        let target = |what: &str, measured, most| Verdict { what: what.to_owned(), measured, most };
        vec![
            target("service map over 15 min from sums, ms", median(&self.rollup_ms), 10.0),
            target("service map over 15 min from raw flows, ms", median(&self.raw_ms), 150.0),
            target("segments, bytes per row", self.bytes_per_row, 25.0),
            target("peak of memory while appending, MiB", self.append_rss_mib, 128.0),
            target("peak of memory while asking, MiB", self.query_rss_mib, 128.0),
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
        let plain = Some(median(&self.plain_ms));
        line("service map from sums, ms", median(&self.rollup_ms), plain);
        line("service map from raw flows, ms", median(&self.raw_ms), plain);
        line("service map of the whole hour from raw flows, ms", median(&self.whole_ms), None);
        line("course of the hour from sums, ms", median(&self.series_ms), None);
        line("grouped by two names, from raw flows, ms", median(&self.grouped_ms), None);
        line("flows of one address, ms", median(&self.rare_ms), None);
        line("the 100 largest flows, ms", median(&self.flows_ms), None);
        line("peak of memory while appending, MiB", self.append_rss_mib, None);
        line("peak of memory while asking for service maps, MiB", self.query_rss_mib, None);
        text.push_str(
            "  Medians. SQLite: one table of rows with an index on time, 10,000 rows a transaction.\n",
        );
        text
    }

    fn json(&self) -> Value {
        json!({
            "flows": self.flows,
            "append_seconds": self.append_seconds,
            "plain_append_seconds": self.plain_append_seconds,
            "bytes_per_row": self.bytes_per_row,
            "plain_bytes_per_row": self.plain_bytes_per_row,
            "rollup_bytes": self.rollup_bytes,
            "rollup_ms": self.rollup_ms,
            "raw_ms": self.raw_ms,
            "plain_ms": self.plain_ms,
            "whole_ms": self.whole_ms,
            "series_ms": self.series_ms,
            "grouped_ms": self.grouped_ms,
            "rare_ms": self.rare_ms,
            "flows_ms": self.flows_ms,
            "append_rss_mib": self.append_rss_mib,
            "query_rss_mib": self.query_rss_mib,
        })
    }
}
