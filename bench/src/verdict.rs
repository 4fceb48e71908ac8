//! What was aimed at, and whether it was met.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    drain::DrainCost,
    frame::Family,
    live::Live,
    micro::{Case, Cost},
    sequence::Distribution::{self, Uniform, Zipf},
};

/// One target.
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) most: f64,
}

/// Which reference, flows, distribution, and the largest ratio.
const TARGETS: [(usize, usize, Distribution, f64); 8] = [
    (1, 1, Uniform, 0.5),
    (1, 256, Uniform, 0.5),
    (1, 4096, Uniform, 0.5),
    (1, 65_536, Uniform, 1.5),
    (1, 65_536, Zipf, 0.85),
    (2, 1, Uniform, 0.25),
    (2, 256, Uniform, 0.25),
    (2, 4096, Uniform, 0.25),
];

/// Most milliseconds for a drain of 65,536 entries.
const DRAIN_MS: f64 = 100.0;

/// What live traffic may cost beyond the noise, in percent of the CPU time of an operation.
const LIVE_PERCENT: f64 = 3.0;

/// All targets for which there are measurements.
pub(crate) fn all(costs: &[Cost], drained: Option<&DrainCost>, lives: &[Live]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (reference, flows, distribution, most) in TARGETS {
        let found = costs.iter().find(|cost| {
            cost.family == Family::V4Tcp
                && cost.case == Case::Hit
                && cost.flows == flows
                && cost.distribution == distribution
        });
        if let Some(cost) = found {
            let name = if reference == 1 { "hash" } else { "lru" };
            verdicts.push(Verdict {
                what: format!("IPv4 TCP, {flows} flows, {}: weir / {name}", distribution.name()),
                measured: cost.designs[0].least / cost.designs[reference].least,
                most,
            });
        }
    }
    if let Some(drained) = drained {
        verdicts.push(Verdict {
            what: format!("drain and aggregate {} entries, ms", drained.entries),
            measured: drained.new_ms.max(drained.known_ms),
            most: DRAIN_MS,
        });
    }
    for live in lives {
        verdicts.push(Verdict {
            what: format!("{}: CPU per {} beyond the A/A spread, %", live.name, live.operation),
            measured: live.overhead_percent - live.spread_percent,
            most: LIVE_PERCENT,
        });
    }
    verdicts
}

impl Verdict {
    fn is_met(&self) -> bool {
        self.measured <= self.most
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({ "what": self.what, "measured": self.measured, "most": self.most, "met": self.is_met() })
    }
}

/// A line for each target.
pub(crate) fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::from("\ntargets\n");
    for verdict in verdicts {
        let Verdict { what, measured, most } = verdict;
        let outcome = if verdict.is_met() { "met" } else { "NOT MET" };
        writeln!(text, "  {what:<66}{measured:>8.2} <= {most:<6} {outcome}")
            .expect("a string takes everything");
    }
    text
}
