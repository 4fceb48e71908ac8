//! How many series, and how long they stay.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{At, LengthText, Problems},
    outlet::Batching,
    sinks::Shared,
};

/// Traffic between workloads in `/metrics`, for Prometheus to scrape. There can be one such sink.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Document {
    /// Name in logs, metrics and the ledger; by default the type.
    pub name: Option<String>,
    /// Only flows that match this filter.
    pub filter: String,
    /// Most flows that wait for this sink. When more come, the oldest are dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: usize,
    /// Most edges with series of their own, those with the most bytes; each has about ten series. The others are summed
    /// up as `__other__`.
    #[schemars(range(min = 1, max = 100_000))]
    pub edges: usize,
    /// How long an edge without traffic keeps its series.
    pub idle: LengthText,
}

/// How many series, and how long they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Most edges with series of their own.
    pub edges: usize,
    /// How long an edge without traffic keeps them.
    pub idle: Duration,
}

impl Default for Document {
    fn default() -> Self {
        Self { name: None, filter: String::new(), queue: 100_000, edges: 1_000, idle: "15m".into() }
    }
}

impl Document {
    /// What all sinks have.
    pub(in crate::sinks) fn shared(&self) -> Shared<'_> {
        Shared {
            kind: "prometheus",
            name: self.name.as_deref(),
            filter: &self.filter,
            queue: self.queue,
            batching: Batching::SINGLE,
            // Sums live and die with the agent, and so does what would go into them.
            spool: None,
            is_remote: false,
        }
    }

    /// Judges everything but the parts that all sinks share.
    pub(in crate::sinks) fn validate(&self, at: &At, problems: &mut Problems) -> Plan {
        // Shorter than a few scrapes, a series would come and go between them.
        let (least, most) = (Duration::from_mins(1), Duration::from_hours(24));
        Plan { edges: self.edges, idle: self.idle.within(least, most, &at.key("idle"), problems) }
    }
}
