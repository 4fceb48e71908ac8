//! Side-by-side benchmarks. Run them by `cargo xtask bench`, which builds in release mode and asks for root.
//!
//! `micro` measures one packet, `drain` one drain, `live` real traffic, `store` the agent's history, `postgres` and `otlp` two
//! of its sinks, `enrich` names, `redirect` a redirected packet, `proxy` and `tap` what they do to connections, `masks` text in which
//! secrets are looked for; `docs/internals/performance.md` explains the results.

mod drain;
mod enrich;
mod frame;
mod live;
mod machine;
mod masks;
mod memory;
mod micro;
mod otlp;
mod postgres;
mod proxy;
mod redirect;
mod report;
mod sequence;
mod stage;
mod store;
mod subject;
mod tap;
mod tell;
mod traffic;
mod verdict;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use weir_integration::Namespace;

use frame::Family;
use machine::Machine;

/// Benchmarks of Weir
#[derive(Parser)]
#[command(name = "cargo xtask bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Cost of counting: one packet, one drain, live traffic
    Flow(FlowArguments),
    /// Cost of draining and aggregating a full table
    Drain {
        /// How often
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
    /// Names from a cluster: look-ups, memory, records a second
    Enrich(enrich::Arguments),
    /// The PostgreSQL sink beside a bare binary COPY, and ten minutes without a server
    Postgres(postgres::Arguments),
    /// Flows to a local OpenTelemetry Collector, by either protocol
    Otlp(otlp::Arguments),
    /// Cost of redirecting a packet, over a program that does nothing
    Redirect(redirect::Arguments),
    /// Diverted connections, beside direct ones, DNAT of nftables, and proxies
    Proxy(proxy::Arguments),
    /// Traffic whose server is tapped, beside tcpdump and beside nobody who looks
    Tap(tap::Arguments),
    /// Looking for secrets in text: bytes a second, by what the text is
    Masks(masks::Arguments),
    /// The agent's store: appending, room on the disk, questions, memory
    Store(store::Arguments),
}

#[derive(Args)]
struct FlowArguments {
    /// Only measure one packet
    #[arg(long, conflicts_with = "live")]
    micro: bool,
    /// Only measure live traffic
    #[arg(long)]
    live: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement of one packet
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Packets in each round
    #[arg(long, default_value_t = 1_000_000)]
    repeat: u32,
    /// Only these kinds of packets
    #[arg(long, value_enum, value_delimiter = ',')]
    family: Vec<Family>,
    /// Rounds of live traffic, each three times as long as `--seconds`, for each kind of traffic
    #[arg(long, default_value_t = 20)]
    live_rounds: usize,
    /// Length of one measurement of live traffic
    #[arg(long, default_value_t = 1)]
    seconds: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().bench {
        Bench::Flow(arguments) => flow(&arguments),
        Bench::Enrich(arguments) => enrich::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Postgres(arguments) => postgres::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Otlp(arguments) => otlp::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Redirect(arguments) => redirect::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Proxy(arguments) => proxy::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Tap(arguments) => tap::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Masks(arguments) => masks::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Store(arguments) => store::run(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::Drain { rounds } => {
            let drained = Namespace::new().run(|| drain::measure(rounds))?;
            print!("{}", drained.table());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn flow(arguments: &FlowArguments) -> anyhow::Result<ExitCode> {
    let machine = Machine::look();
    let families = if arguments.family.is_empty() { Family::ALL.to_vec() } else { arguments.family.clone() };
    let options = micro::Options { rounds: arguments.rounds, repeat: arguments.repeat, families };
    let mut costs = Vec::new();
    let mut drained = None;
    if !arguments.live {
        let namespace = Namespace::new();
        costs = namespace.run(|| micro::measure(&options))?;
        drained = Some(namespace.run(|| drain::measure(arguments.rounds))?);
    }
    let mut lives = Vec::new();
    if !arguments.micro {
        lives = live::measure(arguments.live_rounds, arguments.seconds)?;
    }
    let verdicts = verdict::all(&costs, drained.as_ref(), &lives);
    let figures = || {
        json!({
            "packet": report::json(&costs),
            "drain": drained.as_ref().map(drain::DrainCost::json),
            "live": lives.iter().map(live::Live::json).collect::<Vec<_>>(),
        })
    };
    let tables = || {
        let drained = drained.as_ref().map(drain::DrainCost::table).unwrap_or_default();
        format!("{}{drained}{}", report::tables(&costs), live::table(&lives))
    };
    tell::tell(arguments.json, machine, &verdicts, figures, tables);
    Ok(ExitCode::SUCCESS)
}
