//! What a drain of a full table costs, from the flip of the generation to the last record.

use std::{sync::Arc, time::Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use weir_flow::{FlowTable, TableConfig};

use crate::{
    frame::Family,
    micro::median,
    sequence::{self, Distribution},
    stage::{self, Stage},
    subject::Weir,
};

/// Flows in the table.
const ENTRIES: usize = 65_536;

/// Times of one drain, in milliseconds; medians where it was done more than once.
pub(crate) struct DrainCost {
    pub(crate) entries: usize,
    /// All flows were new.
    pub(crate) new_ms: f64,
    /// All flows were known.
    pub(crate) known_ms: f64,
    /// Part of it that waits for the kernel.
    waited_ms: f64,
    /// Part of it that makes records.
    records_ms: f64,
}

/// Fills the table by test runs and drains it, in the namespace of the caller, which must be a private one.
pub(crate) fn measure(rounds: usize) -> anyhow::Result<DrainCost> {
    stage::stay_on_one_cpu()?;
    let mut stage = Stage::new(Family::V4Tcp)?;
    stage.play(&sequence::numbers(ENTRIES, Distribution::Uniform))?;
    let packets = u32::try_from(ENTRIES)?;
    let mut weir = Weir::load()?;
    weir.grow(&mut stage, packets)?;
    let mut new = Vec::new();
    let mut known = Vec::new();
    let mut waited = Vec::new();
    let mut records = Vec::new();
    for round in 0..rounds.max(1) {
        eprintln!("drain: round {} of {rounds}", round + 1);
        let memory = usize::try_from(weir.reader.sizes().user_bytes)?;
        let mut table = FlowTable::new(TableConfig { memory_bytes: memory, ..TableConfig::default() });
        for point in &weir.points {
            table.set_point(Arc::clone(point));
        }
        for times in [&mut new, &mut known] {
            stage.run(weir.program(), packets)?;
            let start = Instant::now();
            let mut observed = 0;
            let drained = weir.reader.drain(|observation| {
                observed += 1;
                table.observe(observation);
            })?;
            let middle = Instant::now();
            let mut emitted = 0;
            table.tick_each(drained.tick, &mut |_| emitted += 1);
            let end = Instant::now();
            ensure!(observed == ENTRIES && emitted == ENTRIES, "{observed} entries, {emitted} records");
            times.push((end - start).as_secs_f64() * 1e3);
            waited.push(drained.table.waited.as_secs_f64() * 1e3);
            records.push((end - middle).as_secs_f64() * 1e3);
        }
    }
    Ok(DrainCost {
        entries: ENTRIES,
        new_ms: median(&new),
        known_ms: median(&known),
        waited_ms: median(&waited),
        records_ms: median(&records),
    })
}

impl DrainCost {
    pub(crate) fn table(&self) -> String {
        let Self { entries, new_ms, known_ms, waited_ms, records_ms } = self;
        format!(
            "\ndrain of {entries} entries and aggregation, ms\n  all flows new {new_ms:.0}, all known {known_ms:.0}; \
             of that waiting for the kernel {waited_ms:.0}, making records {records_ms:.0}\n"
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "entries": self.entries, "new_ms": self.new_ms, "known_ms": self.known_ms,
            "waited_ms": self.waited_ms, "records_ms": self.records_ms,
        })
    }
}
