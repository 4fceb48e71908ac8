//! What Weir costs real traffic: two kinds of it over a wire between two namespaces, Weir off, on, and off again.
//!
//! The cost is the CPU time of both ends and of Weir, the kernel's part included: what packets cost in soft
//! interrupts is charged to the sender, whose system call they run in. (On kernels that account interrupts apart,
//! it is missing in both cases, and so the figures say less.) The difference of the two "off" halves of a round
//! shows how much of a result is noise.

mod bulk;
pub(crate) mod requests;

use std::{fmt::Write as _, sync::Arc};

use anyhow::Context as _;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};
use weir_datapath::flow::{self, Device, Directions, FlowAttacher, FlowOptions, FlowReader};
use weir_flow::{FlowTable, Role, TableConfig};
use weir_integration::{Veth, VethEnd};
use weir_packet::Link;

use crate::micro::median;

/// What one measurement yielded.
#[derive(Clone, Copy)]
struct Work {
    operations: f64,
    seconds: f64,
    /// CPU time in nanoseconds of the traffic and of Weir.
    cpu: f64,
}

impl Work {
    fn cost(&self) -> f64 {
        self.cpu / self.operations
    }

    fn rate(&self) -> f64 {
        self.operations / self.seconds
    }
}

/// Result for one kind of traffic.
pub(crate) struct Live {
    pub(crate) name: &'static str,
    pub(crate) operation: &'static str,
    rounds: usize,
    off_cost: f64,
    on_cost: f64,
    off_rate: f64,
    on_rate: f64,
    /// Median of (on - off) / off in CPU time per operation.
    pub(crate) overhead_percent: f64,
    /// Median difference of the two "off" halves.
    pub(crate) spread_percent: f64,
    rate_percent: f64,
    rate_spread_percent: f64,
}

/// Runs both kinds of traffic.
pub(crate) fn measure(rounds: usize, seconds: u64) -> anyhow::Result<Vec<Live>> {
    let veth = Veth::new();
    let mut weir = Attachable::load(&veth.left)?;
    let bulk = compare("iperf3, one TCP stream", "MB", rounds, &mut weir, || bulk::run(&veth, seconds))?;
    let requests = compare("connect, request, response", "operation", rounds, &mut weir, || {
        requests::run(&veth, seconds)
    })?;
    Ok(vec![bulk, requests])
}

fn compare(
    name: &'static str,
    operation: &'static str,
    rounds: usize,
    weir: &mut Attachable,
    mut traffic: impl FnMut() -> anyhow::Result<(f64, f64, f64)>,
) -> anyhow::Result<Live> {
    let mut off = |weir: &mut Attachable| work(weir, &mut traffic);
    // Caches, neighbours and the size of Weir's table come to rest.
    for _ in 0..2 {
        weir.attach()?;
        off(weir)?;
        weir.detach()?;
    }
    let (mut offs, mut ons) = (Vec::new(), Vec::new());
    let (mut overheads, mut spreads) = (Vec::new(), Vec::new());
    let (mut rates, mut rate_spreads) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("{name}: round {} of {rounds}", round + 1);
        let before = off(weir)?;
        weir.attach()?;
        let on = off(weir)?;
        weir.detach()?;
        let after = off(weir)?;
        let percent = |value: f64, base: f64| 100.0 * (value - base) / base;
        let cost = f64::midpoint(before.cost(), after.cost());
        let rate = f64::midpoint(before.rate(), after.rate());
        overheads.push(percent(on.cost(), cost));
        spreads.push(percent(after.cost(), before.cost()).abs());
        rates.push(percent(on.rate(), rate));
        rate_spreads.push(percent(after.rate(), before.rate()).abs());
        offs.extend([before, after]);
        ons.push(on);
    }
    let of = |works: &[Work], value: fn(&Work) -> f64| median(&works.iter().map(value).collect::<Vec<_>>());
    Ok(Live {
        name,
        operation,
        rounds,
        off_cost: of(&offs, Work::cost),
        on_cost: of(&ons, Work::cost),
        off_rate: of(&offs, Work::rate),
        on_rate: of(&ons, Work::rate),
        overhead_percent: median(&overheads),
        spread_percent: median(&spreads),
        rate_percent: median(&rates),
        rate_spread_percent: median(&rate_spreads),
    })
}

/// Runs traffic for a while, and then one drain, if Weir is attached: what a second of Weir costs.
fn work(
    weir: &mut Attachable,
    traffic: &mut impl FnMut() -> anyhow::Result<(f64, f64, f64)>,
) -> anyhow::Result<Work> {
    let before = own_time()?;
    let (operations, seconds, children) = traffic()?;
    weir.drain()?;
    Ok(Work { operations, seconds, cpu: own_time()? - before + children })
}

/// CPU time of all our threads, in nanoseconds.
fn own_time() -> anyhow::Result<f64> {
    Ok(nanoseconds(&getrusage(UsageWho::RUSAGE_SELF)?))
}

#[expect(clippy::cast_precision_loss, reason = "some seconds in microseconds")]
fn nanoseconds(usage: &Usage) -> f64 {
    1e3 * (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64
}

/// Weir on one end of the wire.
struct Attachable {
    end: VethEnd,
    attacher: FlowAttacher,
    reader: FlowReader,
    table: FlowTable,
    is_attached: bool,
}

impl Attachable {
    fn load(end: &VethEnd) -> anyhow::Result<Self> {
        let (attacher, reader) = end.namespace.run(|| flow::load(&FlowOptions::default()))?;
        let memory_bytes = usize::try_from(reader.sizes().user_bytes)?;
        let table = FlowTable::new(TableConfig { memory_bytes, ..TableConfig::default() });
        Ok(Self { end: end.clone(), attacher, reader, table, is_attached: false })
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let Self { end, attacher, table, .. } = self;
        let device = Device {
            index: end.index,
            name: end.name.as_str().into(),
            link: Link::Ethernet,
            role: Role::Other,
        };
        let attached = end.namespace.run(|| attacher.attach(&device, Directions::Both, false))?;
        for point in &attached.points {
            table.set_point(Arc::clone(point));
        }
        self.is_attached = true;
        Ok(())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        let Self { end, attacher, .. } = self;
        end.namespace.run(|| attacher.detach(end.index));
        for _ in 0..3 {
            self.drain()?;
        }
        self.is_attached = false;
        Ok(())
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        if !self.is_attached {
            return Ok(());
        }
        let Self { reader, attacher, table, .. } = self;
        let drained = reader.drain(|observation| table.observe(observation))?;
        table.tick_each(drained.tick, &mut |_| ());
        let balanced = drained.ledgers.iter().all(|(_, ledger)| ledger.is_balanced());
        anyhow::ensure!(balanced, "the ledger does not balance: {:?}", drained.ledgers);
        attacher.forget_drained(&reader.finish_drain());
        Ok(())
    }
}

/// All results.
pub(crate) fn table(lives: &[Live]) -> String {
    let mut text = String::new();
    for live in lives {
        let Live { name, operation, rounds, .. } = live;
        writeln!(
            text,
            "\nlive: {name}, {rounds} rounds\n  CPU per {operation}: {:.0} ns, with Weir {:.0} ns: {:+.1} % (A/A spread {:.1} %)\n  \
             {operation}s per second: {:.0}, with Weir {:.0}: {:+.1} % (A/A spread {:.1} %)",
            live.off_cost,
            live.on_cost,
            live.overhead_percent,
            live.spread_percent,
            live.off_rate,
            live.on_rate,
            live.rate_percent,
            live.rate_spread_percent,
        )
        .context("a string takes everything")
        .expect("a string takes everything");
    }
    text
}

impl Live {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "operation": self.operation, "rounds": self.rounds,
            "off_cpu_ns": self.off_cost, "on_cpu_ns": self.on_cost,
            "overhead_percent": self.overhead_percent, "spread_percent": self.spread_percent,
            "off_per_second": self.off_rate, "on_per_second": self.on_rate,
            "rate_percent": self.rate_percent, "rate_spread_percent": self.rate_spread_percent,
        })
    }
}
