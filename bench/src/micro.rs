//! What one packet costs: every design in turn, the same packets, the cost of an empty program subtracted.

use crate::{
    frame::Family,
    sequence::{self, Distribution, STEPS},
    stage::{self, Stage},
    subject::{Reference, Weir},
};
use std::os::fd::AsFd as _;

/// What to measure.
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) repeat: u32,
    pub(crate) families: Vec<Family>,
}

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// An entry that exists.
    Hit,
    /// No entry: it makes one.
    First,
}

/// Designs, in the order in which results have them.
pub(crate) const DESIGNS: [&str; 3] = ["weir", "hash", "lru"];

/// The cost of one packet under certain conditions, for each of [`DESIGNS`].
pub(crate) struct Cost {
    pub(crate) family: Family,
    pub(crate) case: Case,
    pub(crate) distribution: Distribution,
    pub(crate) flows: usize,
    pub(crate) designs: [Nanoseconds; 3],
}

/// Nanoseconds per packet, those of an empty program subtracted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nanoseconds {
    pub(crate) least: f64,
    pub(crate) median: f64,
}

/// Number of flows and their distribution.
const HITS: [(usize, Distribution); 7] = [
    (1, Distribution::Uniform),
    (256, Distribution::Uniform),
    (256, Distribution::Zipf),
    (4096, Distribution::Uniform),
    (4096, Distribution::Zipf),
    (65_536, Distribution::Uniform),
    (65_536, Distribution::Zipf),
];

/// Numbers of flows for the cost of a first packet.
const FIRSTS: [usize; 2] = [4096, 65_536];

/// Everything, in the namespace of the caller, which must be a private one.
pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Cost>> {
    stage::stay_on_one_cpu()?;
    let mut costs = Vec::new();
    for family in &options.families {
        let mut setup = Setup::new(*family)?;
        for (flows, distribution) in HITS {
            eprintln!("{}: {flows} flows, {}", family.name(), distribution.name());
            costs.push(setup.hits(options, flows, distribution)?);
        }
        for flows in FIRSTS {
            eprintln!("{}: first packets of {flows} flows", family.name());
            costs.push(setup.firsts(options, flows)?);
        }
    }
    Ok(costs)
}

/// All designs, freshly loaded, with packets of one family.
struct Setup {
    family: Family,
    stage: Stage,
    weir: Weir,
    references: [Reference; 2],
}

/// Costs of each round, the empty program first.
#[derive(Default)]
struct Rounds([Vec<f64>; 4]);

impl Setup {
    fn new(family: Family) -> anyhow::Result<Self> {
        let mut stage = Stage::new(family)?;
        let mut weir = Weir::load()?;
        let sizes = *weir.reader.sizes();
        let references = [Reference::hash(&sizes)?, Reference::lru(&sizes)?];
        stage.play(&sequence::numbers(65_536, Distribution::Uniform))?;
        weir.grow(&mut stage, 65_536)?;
        Ok(Self { family, stage, weir, references })
    }

    /// Runs one design: 0 is the empty program, the others are [`DESIGNS`].
    fn run(&mut self, design: usize, repeat: u32) -> anyhow::Result<f64> {
        let Self { stage, weir, references, .. } = self;
        if design == 0 {
            let empty = stage.empty.try_clone()?;
            return stage.run(empty.as_fd(), repeat);
        }
        let program = if design == 1 { weir.program() } else { references[design - 2].program() };
        stage.run(program, repeat)
    }

    fn hits(&mut self, options: &Options, flows: usize, distribution: Distribution) -> anyhow::Result<Cost> {
        self.stage.play(&sequence::numbers(flows, distribution))?;
        let all = u32::try_from(STEPS)?;
        for design in 0..4 {
            self.run(design, all)?;
        }
        let mut rounds = Rounds::default();
        for round in 0..options.rounds {
            for turn in 0..4 {
                let design = (round + turn) % 4;
                let cost = self.run(design, options.repeat)?;
                rounds.0[design].push(cost);
            }
        }
        let sent = u64::from(all) + options.rounds as u64 * u64::from(options.repeat);
        self.clear(sent)?;
        Ok(self.cost(Case::Hit, distribution, flows, &rounds))
    }

    fn firsts(&mut self, options: &Options, flows: usize) -> anyhow::Result<Cost> {
        self.stage.play(&sequence::numbers(flows, Distribution::Uniform))?;
        let repeat = u32::try_from(flows)?;
        let mut rounds = Rounds::default();
        for round in 0..options.rounds {
            for turn in 0..4 {
                let design = (round + turn) % 4;
                let cost = self.run(design, repeat)?;
                rounds.0[design].push(cost);
            }
            self.clear(u64::from(repeat))?;
        }
        Ok(self.cost(Case::First, Distribution::Uniform, flows, &rounds))
    }

    /// Empties all tables, and makes sure that all designs counted all packets.
    fn clear(&mut self, sent: u64) -> anyhow::Result<()> {
        self.weir.drain(sent, &mut |_| ())?;
        let [hash, lru] = &mut self.references;
        let counted = hash.clear()?;
        anyhow::ensure!(counted == sent, "of {sent} packets the hash reference has {counted}");
        // An LRU map forgets by design; more than a little would make it another measurement.
        let counted = lru.clear()?;
        anyhow::ensure!(counted >= sent / 100 * 99, "of {sent} packets the LRU reference has {counted}");
        Ok(())
    }

    fn cost(&self, case: Case, distribution: Distribution, flows: usize, rounds: &Rounds) -> Cost {
        let [empty, designs @ ..] = rounds.0.clone().map(|costs| summary(&costs));
        let designs = designs.map(|gross| Nanoseconds {
            least: gross.least - empty.least,
            median: gross.median - empty.median,
        });
        Cost { family: self.family, case, distribution, flows, designs }
    }
}

fn summary(costs: &[f64]) -> Nanoseconds {
    Nanoseconds { least: costs.iter().copied().fold(f64::INFINITY, f64::min), median: median(costs) }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
