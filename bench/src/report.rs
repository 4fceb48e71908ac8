//! Tables of what one packet costs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    frame::Family,
    micro::{Case, Cost, DESIGNS},
};

/// One table for each family.
pub(crate) fn tables(costs: &[Cost]) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let rows: Vec<&Cost> = costs.iter().filter(|cost| cost.family == family).collect();
        if rows.is_empty() {
            continue;
        }
        let title = format!("{}, ns per packet", family.name());
        writeln!(
            text,
            "\n{title:<34}{:>15}{:>15}{:>15}{:>14}{:>12}",
            "weir", "hash", "lru", "weir/hash", "weir/lru"
        )
        .expect("a string takes everything");
        for cost in rows {
            let what = match cost.case {
                Case::Hit => format!("{} flows, {}", cost.flows, cost.distribution.name()),
                Case::First => format!("first packets of {} flows", cost.flows),
            };
            let [weir, hash, lru] = cost.designs;
            write!(text, "  {what:<32}").expect("a string takes everything");
            for design in [weir, hash, lru] {
                let both = format!("{:.1} ({:.1})", design.least, design.median);
                write!(text, "{both:>15}").expect("a string takes everything");
            }
            writeln!(text, "{:>14.2}{:>12.2}", weir.least / hash.least, weir.least / lru.least)
                .expect("a string takes everything");
        }
    }
    if !text.is_empty() {
        text.push_str(
            "  Minimum and, in brackets, median of all rounds; the empty program is subtracted; ratios of minima.\n",
        );
    }
    text
}

/// The same for machines.
pub(crate) fn json(costs: &[Cost]) -> Value {
    let row = |cost: &Cost| {
        let mut object = json!({
            "family": cost.family.name(),
            "case": match cost.case { Case::Hit => "hit", Case::First => "first" },
            "distribution": cost.distribution.name(),
            "flows": cost.flows,
        });
        for (name, design) in DESIGNS.iter().zip(&cost.designs) {
            object[*name] = json!({ "least_ns": design.least, "median_ns": design.median });
        }
        object
    };
    costs.iter().map(row).collect()
}
