//! What the stores are asked.

use std::time::Duration;

use anyhow::Context as _;
use weir_agent::store::{
    EdgeQuery, EmbeddedStore, FlowQuery, Limits, Precision, Range, Rows, SeriesQuery, Store as _,
};
use weir_flow::{Wall, field::Field, filter::Filter};

use super::{TICKS, flows::BEGIN_NS};

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The service map of the last quarter, from sums.
    MapFromSums,
    /// The same from raw flows.
    MapFromFlows,
    /// The service map of the whole hour, from raw flows.
    WholeMap,
    /// The course of the hour.
    Course,
    /// The last quarter by names of both ends, from raw flows.
    Grouped,
    /// The flows of one address in the last quarter.
    OneAddress,
    /// The same in the whole hour.
    OneAddressWhole,
    /// The largest flows of the last quarter.
    Largest,
}

/// The last 15 minutes, and the hour.
const QUARTER: Duration = Duration::from_mins(15);

impl Question {
    pub(super) const ALL: [Self; 8] = [
        Self::MapFromSums,
        Self::MapFromFlows,
        Self::WholeMap,
        Self::Course,
        Self::Grouped,
        Self::OneAddress,
        Self::OneAddressWhole,
        Self::Largest,
    ];

    /// What it is about.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::MapFromSums => "service map from sums, ms",
            Self::MapFromFlows => "service map from raw flows, ms",
            Self::WholeMap => "service map of the whole hour from raw flows, ms",
            Self::Course => "course of the hour from sums, ms",
            Self::Grouped => "grouped by two names, from raw flows, ms",
            Self::OneAddress => "flows of one address, ms",
            Self::OneAddressWhole => "flows of one address in the whole hour, ms",
            Self::Largest => "the 100 largest flows, ms",
        }
    }

    /// Its name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MapFromSums => "rollup_ms",
            Self::MapFromFlows => "raw_ms",
            Self::WholeMap => "whole_ms",
            Self::Course => "series_ms",
            Self::Grouped => "grouped_ms",
            Self::OneAddress => "rare_ms",
            Self::OneAddressWhole => "whole_rare_ms",
            Self::Largest => "flows_ms",
        }
    }

    /// Asks it; gives back how many rows the answer has.
    pub(super) fn ask(self, store: &EmbeddedStore) -> anyhow::Result<usize> {
        let (whole, quarter) = (whole(), quarter());
        let limits = Limits { rows: 10_000, ..Limits::default() };
        let edges = |range, precision| {
            let answer = store.edges(&EdgeQuery { range, filter: Filter::default(), limits, precision })?;
            anyhow::Ok(answer.edges.len())
        };
        let flows = |range, filter: &str, group_by: Vec<&'static Field>| {
            let filter = Filter::parse(filter)?;
            let limits = Limits { rows: 100, ..limits };
            let answer = store.flows(&FlowQuery { range, filter, group_by, limits })?;
            anyhow::Ok(match answer.rows {
                Rows::Flows(records) => records.len(),
                Rows::Groups(groups) => groups.len(),
            })
        };
        let owner = |side: &str| Field::by_name(&format!("{side}.k8s.owner.name")).context("a field");
        match self {
            Self::MapFromSums => edges(quarter, Precision::Rollup),
            Self::MapFromFlows => edges(quarter, Precision::Raw),
            Self::WholeMap => edges(whole, Precision::Raw),
            Self::Course => {
                let (filter, group_by) = (Filter::default(), Vec::new());
                let query = SeriesQuery { range: whole, step: None, filter, group_by, limits };
                Ok(store.series(&query)?.lines.len())
            }
            Self::Grouped => flows(quarter, "", vec![owner("source")?, owner("destination")?]),
            Self::OneAddress => flows(quarter, "host=10.1.0.7", Vec::new()),
            Self::OneAddressWhole => flows(whole, "host=10.1.0.7", Vec::new()),
            Self::Largest => flows(quarter, "", Vec::new()),
        }
    }
}

/// The hour.
pub(super) fn whole() -> Range {
    Range { since: Wall(BEGIN_NS), until: Wall(BEGIN_NS + TICKS as u64 * 1_000_000_000) }
}

/// Its last quarter.
pub(super) fn quarter() -> Range {
    let whole = whole();
    let length = u64::try_from(QUARTER.as_nanos()).expect("15 minutes fit");
    Range { since: Wall(whole.until.0 - length), ..whole }
}
