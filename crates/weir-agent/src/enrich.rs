//! Who is at the ends of flows (workloads of a cluster, containers of this machine, names from DNS), and what sockets and
//! messages know of the flows themselves.
//!
//! Enrichment comes after aggregation and before anything else sees the records, one tick at a time: the pods behind
//! services show only where the same connection is seen twice. Enrichers take what others have found out into account,
//! so their order matters. They read snapshots, never wait and never fail; what they do not find they count by reason.

use weir_flow::Record;

pub mod cgroup;
pub mod containers;
mod dns;
mod quality;
mod translation;
pub mod workload;

pub use self::{
    containers::{ContainerEnricher, Containers},
    dns::DnsEnricher,
    quality::QualityEnricher,
    workload::WorkloadEnricher,
};

/// Adds what it knows to records.
pub trait Enrich: Send + Sync {
    /// Completes the records of one tick.
    fn enrich(&self, records: &mut [Record]);

    /// What was not found since the start, for each reason.
    fn misses(&self) -> Vec<Miss>;

    /// What was known, or could have been, and was lost on the way to records.
    fn losses(&self) -> Vec<Lost> {
        Vec::new()
    }
}

/// How often something was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// What: `workload` or `container`.
    pub what: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Ends of records.
    pub ends: u64,
}

/// How often something was lost that records could have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What: `dns` or `tcp_quality`.
    pub what: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Enrichers, in the order in which they are applied.
#[derive(Default)]
pub struct Enrichers(Vec<Box<dyn Enrich>>);

impl Enrichers {
    /// Applies them in this order.
    pub fn new(enrichers: Vec<Box<dyn Enrich>>) -> Self {
        Self(enrichers)
    }

    /// Completes the records of one tick.
    pub fn apply(&self, records: &mut [Record]) {
        for enricher in &self.0 {
            enricher.enrich(records);
        }
    }

    /// Adds one that is applied after all others.
    pub fn push(&mut self, enricher: Box<dyn Enrich>) {
        self.0.push(enricher);
    }

    /// What was lost since the start, for each thing and reason.
    pub fn losses(&self) -> Vec<Lost> {
        self.0.iter().flat_map(|enricher| enricher.losses()).collect()
    }

    /// What was not found since the start, for each thing and reason.
    pub fn misses(&self) -> Vec<Miss> {
        self.0.iter().flat_map(|enricher| enricher.misses()).collect()
    }
}

impl std::fmt::Debug for Enrichers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Enrichers").field(&self.0.len()).finish()
    }
}
