//! `weir tap` on one end of connections, beside tcpdump on the same traffic, and beside nobody who looks.
//!
//! Every round measures all of them, one after the other, in an order that turns from round to round. Nobody is measured twice
//! in each round: how far these two are apart is what a difference has to exceed. Whoever looks writes everything, into a
//! file or to nowhere; of files it is counted how many bytes of the traffic are in them.

mod kept;
mod ways;

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::ways::{Stage, Way};
use crate::{
    machine::Machine,
    micro::median,
    traffic::{Load, Measured, REQUEST, least, ratios},
    verdict::{self, Verdict},
};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often everything is measured
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Milliseconds of one measurement
    #[arg(long, default_value_t = 400)]
    milliseconds: u64,
    /// Also write the numbers as JSON into this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// What clients do.
const LOADS: [Load; 4] = [Load::Requests, Load::Stream(4 << 10), Load::Stream(64 << 10), Load::Connections];

/// Most that a process pays which nobody taps, in nanoseconds a socket call.
const UNMATCHED_NS: f64 = 200.0;

/// Socket calls that move the bytes of a request and its answer: two of the client, two of the server.
const CALLS: f64 = 4.0;

/// One measurement: the traffic, and the share of its bytes that was kept, where somebody kept any.
#[derive(Clone, Copy, Debug)]
struct Taken {
    measured: Measured,
    kept: Option<f64>,
}

/// Measurements by load and way, one for each round.
type Table = BTreeMap<(Load, Way), Vec<Taken>>;

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.rounds > 0, "a benchmark has a round at least");
    let mut machine = Machine::look();
    let stage = Stage::new()?;
    let mut table = Table::new();
    for round in 0..arguments.rounds {
        for load in LOADS {
            for turn in 0..Way::ALL.len() {
                let place = (turn + round / 2) % Way::ALL.len();
                // There and back, so that nobody always comes behind the same one.
                let way = Way::ALL[if round.is_multiple_of(2) { place } else { Way::ALL.len() - 1 - place }];
                let taken = stage
                    .take(way, load, arguments.milliseconds)
                    .with_context(|| format!("{}, {}", load.name(), way.name()))?;
                table.entry((load, way)).or_default().push(taken);
            }
        }
        eprint!("\rround {} of {}", round + 1, arguments.rounds);
    }
    eprintln!();
    machine.look_again();
    let verdicts = verdicts(&table);
    print!("{}{}{}", machine.table(), report(&table), verdict::table(&verdicts));
    if let Some(path) = &arguments.json {
        let verdicts: Vec<Value> = verdicts.iter().map(Verdict::json).collect();
        let text = json!({
            "machine": machine.json(), "rounds": arguments.rounds, "rows": rows(&table), "verdicts": verdicts,
        });
        std::fs::write(path, text.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Figures of all rounds.
fn figures(table: &Table, load: Load, way: Way, of: impl Fn(&Taken) -> Option<f64>) -> Vec<f64> {
    table.get(&(load, way)).into_iter().flatten().filter_map(of).collect()
}

fn rates(table: &Table, load: Load, way: Way) -> Vec<f64> {
    figures(table, load, way, |taken| Some(taken.measured.rate))
}

fn costs(table: &Table, load: Load, way: Way) -> Vec<f64> {
    figures(table, load, way, |taken| Some(taken.measured.cpu_us))
}

fn kept(table: &Table, load: Load, way: Way) -> f64 {
    100.0 * median(&figures(table, load, way, |taken| taken.kept))
}

fn report(table: &Table) -> String {
    let mut text = String::new();
    for load in LOADS {
        writeln!(text, "\n{} ({})", load.name(), load.unit()).expect("a string takes everything");
        writeln!(
            text,
            "  {:<26}{:>12}{:>11}{:>14}{:>11}{:>9}",
            "", "median", "to alone", "CPU µs least", "to alone", "kept"
        )
        .expect("a string takes everything");
        let (alone, alone_cost) = (rates(table, load, Way::Alone), costs(table, load, Way::Alone));
        for way in Way::ALL {
            let (rate, cost) = (rates(table, load, way), costs(table, load, way));
            let kept = kept(table, load, way);
            let kept = if kept.is_nan() { String::new() } else { format!("{kept:.1} %") };
            writeln!(
                text,
                "  {:<26}{:>12.0}{:>11.3}{:>14.2}{:>11.3}{:>9}",
                way.name(),
                median(&rate),
                median(&ratios(&rate, &alone)),
                least(&cost),
                least(&cost) / least(&alone_cost),
                kept,
            )
            .expect("a string takes everything");
        }
        let again = ratios(&rates(table, load, Way::AloneAgain), &alone);
        let apart: Vec<f64> = again.into_iter().map(|ratio| (ratio - 1.0).abs()).collect();
        writeln!(text, "  alone beside itself: half of the rounds within {:.1} %", 100.0 * median(&apart))
            .expect("a string takes everything");
    }
    text.push_str(
        "\n  CPU is that of clients, server and what the kernel does for them; whoever looks is not in it.\n",
    );
    text
}

fn verdicts(table: &Table) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for load in LOADS {
        let most = match load {
            Load::Requests => 1.05,
            Load::Stream(_) => 1.0,
            Load::Connections => continue,
        };
        let ratio = ratios(&rates(table, load, Way::DumpNowhere), &rates(table, load, Way::TapNowhere));
        verdicts.push(Verdict {
            what: format!("{}: rate beside tcpdump / beside tap, to nowhere", load.name()),
            measured: median(&ratio),
            most,
        });
        // Nobody masks what tcpdump writes.
        for (way, which) in [(Way::TapPlainFile, "no masks"), (Way::TapFile, "masks")] {
            verdicts.push(Verdict {
                what: format!("{}: % kept in a file, tcpdump less tap, {which}", load.name()),
                measured: kept(table, load, Way::DumpFile) - kept(table, load, way),
                most: 0.0,
            });
        }
    }
    let least_of = |way| least(&costs(table, Load::Requests, way));
    verdicts.push(Verdict {
        what: "nobody's rule: ns a socket call".to_owned(),
        measured: 1000.0 * (least_of(Way::Unmatched) - least_of(Way::Alone)) / CALLS,
        most: UNMATCHED_NS,
    });
    verdicts
}

fn rows(table: &Table) -> Value {
    let row = |((load, way), taken): (&(Load, Way), &Vec<Taken>)| {
        json!({
            "load": load.name(), "way": way.name(), "unit": load.unit(),
            "rates": taken.iter().map(|it| it.measured.rate).collect::<Vec<_>>(),
            "cpu_us": taken.iter().map(|it| it.measured.cpu_us).collect::<Vec<_>>(),
            "kept": taken.iter().map(|it| it.kept).collect::<Vec<_>>(),
        })
    };
    table.iter().map(row).collect()
}

/// Bytes that clients and server exchanged.
fn exchanged(load: Load, measured: &Measured) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let both = 2.0 * REQUEST.len() as f64;
    match load {
        Load::Stream(_) => measured.operations * f64::from(1 << 20),
        Load::Requests | Load::Connections => measured.operations * both,
    }
}
