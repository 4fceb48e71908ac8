//! `weir proxy` beside nothing at all, DNAT of nftables, and proxies that every byte goes through.
//!
//! Every round measures all of them, one after the other, in an order that turns from round to round; whatever the machine
//! does besides hits them alike. Nothing at all is measured twice in each round: how far these two are apart is what
//! a difference has to exceed.

mod rules;
mod ways;

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::ways::{Stage, Way};
use crate::{
    machine::Machine,
    micro::median,
    traffic::{Load, Measured, least, ratios},
};

/// What clients do.
const LOADS: [Load; 3] = [Load::Connections, Load::Requests, Load::Stream(128 << 10)];

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often everything is measured; 0 measures changes of rules alone
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Rules among which one is changed; 0 leaves that out
    #[arg(long, default_value_t = 10_000)]
    rules: usize,
    /// Milliseconds of one measurement
    #[arg(long, default_value_t = 400)]
    milliseconds: u64,
    /// Also write the numbers as JSON into this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Measurements by load and way, one for each round.
type Table = BTreeMap<(Load, Way), Vec<Measured>>;

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut machine = Machine::look();
    let changes = if arguments.rules > 0 { rules::measure(arguments.rules)? } else { String::new() };
    if arguments.rounds == 0 {
        machine.look_again();
        print!("{}{changes}", machine.table());
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| stage.has(*way)).collect();
    for way in Way::ALL.into_iter().filter(|way| !ways.contains(way)) {
        println!("{}: left out, it cannot run here", way.name());
    }
    let mut table = Table::new();
    for round in 0..arguments.rounds {
        for load in LOADS {
            for turn in 0..ways.len() {
                let place = (turn + round / 2) % ways.len();
                // There and back, so that nobody always comes behind the same one.
                let way = ways[if round.is_multiple_of(2) { place } else { ways.len() - 1 - place }];
                let address = stage.enter(way).with_context(|| format!("cannot set up {}", way.name()))?;
                let measured = stage.measure(load, address, arguments.milliseconds);
                stage.leave(way)?;
                let measured = measured.with_context(|| format!("{} by {}", load.name(), way.name()))?;
                table.entry((load, way)).or_default().push(measured);
            }
        }
        eprint!("\rround {} of {}", round + 1, arguments.rounds);
    }
    eprintln!();
    machine.look_again();
    print!("{}{}{changes}", machine.table(), report(&table, &ways));
    if let Some(path) = &arguments.json {
        let text = json!({ "machine": machine.json(), "rounds": arguments.rounds, "rows": rows(&table) });
        std::fs::write(path, text.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn report(table: &Table, ways: &[Way]) -> String {
    let mut text = String::new();
    for load in LOADS {
        let of = |way: Way| table.get(&(load, way)).map(Vec::as_slice).unwrap_or_default();
        let rates = |way: Way| of(way).iter().map(|it| it.rate).collect::<Vec<_>>();
        let costs = |way: Way| of(way).iter().map(|it| it.cpu_us).collect::<Vec<_>>();
        writeln!(text, "\n{} ({})", load.name(), load.unit()).expect("a string takes everything");
        writeln!(
            text,
            "  {:<16}{:>14}{:>12}{:>16}{:>12}{:>12}{:>12}",
            "", "median", "to direct", "CPU µs each", "to direct", "least", "to direct"
        )
        .expect("a string takes everything");
        for way in ways {
            let (rate, cost) =
                (ratios(&rates(*way), &rates(Way::Direct)), ratios(&costs(*way), &costs(Way::Direct)));
            writeln!(
                text,
                "  {:<16}{:>14.0}{:>12}{:>16.2}{:>12}{:>12.2}{:>12}",
                way.name(),
                median(&rates(*way)),
                percent(median(&rate)),
                median(&costs(*way)),
                percent(median(&cost)),
                least(&costs(*way)),
                percent(least(&costs(*way)) / least(&costs(Way::Direct))),
            )
            .expect("a string takes everything");
        }
        let spread = |values: fn(&Measured) -> f64| {
            let (first, second): (Vec<f64>, Vec<f64>) =
                of(Way::Direct).iter().zip(of(Way::DirectAgain)).map(|(a, b)| (values(a), values(b))).unzip();
            let mut apart: Vec<f64> =
                ratios(&second, &first).into_iter().map(|it| (it - 1.0).abs()).collect();
            apart.sort_by(f64::total_cmp);
            100.0 * apart.get(apart.len() / 2).copied().unwrap_or(0.0)
        };
        writeln!(
            text,
            "  direct beside itself: half of the rounds within {:.1} % in rate, {:.1} % in CPU time",
            spread(|it| it.rate),
            spread(|it| it.cpu_us),
        )
        .expect("a string takes everything");
    }
    text
}

fn rows(table: &Table) -> Value {
    let row = |((load, way), measured): (&(Load, Way), &Vec<Measured>)| {
        json!({
            "load": load.name(), "way": way.name(), "unit": load.unit(),
            "rates": measured.iter().map(|it| it.rate).collect::<Vec<_>>(),
            "cpu_us": measured.iter().map(|it| it.cpu_us).collect::<Vec<_>>(),
        })
    };
    table.iter().map(row).collect()
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", 100.0 * (ratio - 1.0))
}
