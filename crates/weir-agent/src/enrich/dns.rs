//! [`DnsEnricher`]: names of addresses, and what the messages of flows at DNS ports said.

use std::sync::Arc;

use weir_flow::Record;

use super::{Enrich, Lost, Miss};
use crate::dns::{DnsWatch, Loss};

/// Adds what a [`DnsWatch`] knows.
#[derive(Debug)]
pub struct DnsEnricher(Arc<DnsWatch>);

impl DnsEnricher {
    /// Asks this one.
    pub fn new(watch: Arc<DnsWatch>) -> Self {
        Self(watch)
    }
}

impl Enrich for DnsEnricher {
    /// What the messages of a flow said is told once, so each record must come here once.
    fn enrich(&self, records: &mut [Record]) {
        self.0.complete(records);
    }

    /// That nobody asked for the name of an address is no miss: most addresses were never asked for.
    fn misses(&self) -> Vec<Miss> {
        Vec::new()
    }

    fn losses(&self) -> Vec<Lost> {
        let state = self.0.state();
        let of = |reason, count| Lost { what: "dns", reason, count };
        let kernel = [of("ring_full", state.ledger.lost), of("unreadable", state.ledger.unreadable)];
        let here = Loss::ALL.map(|loss| of(loss.as_str(), state.counts.lost[loss as usize]));
        kernel.into_iter().chain(here).collect()
    }
}
