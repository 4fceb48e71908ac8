//! The `otlp` sink to a local OpenTelemetry Collector that throws everything away: records a second, by either protocol, with
//! compression and without.
//!
//! The four ways take turns, with the same flows. What is measured is the sink's own code, from records in memory to the
//! collector's answer; queue, spool and worker are not in it.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weir_agent::{
    batch::{Batch, Collected},
    outlet::{Consumer as _, Parcel, ParcelId, Patience, Receipt},
    sinks::otlp::{Compression, OtlpWriter, Plan, Protocol, Target, TlsDocument},
};
use weir_flow::{PointId, filter::Filter};
use weir_integration::collector::{Collector, CollectorConfig};

use crate::{
    machine::{Machine, processor_us},
    micro::median,
    store::flows::Flows,
    tell::tell,
    verdict::Verdict,
};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Flows in each measurement
    #[arg(long, default_value_t = 100_000)]
    flows: usize,
    /// How often each way is measured
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Flows of one batch, as the agent brings them.
const BATCH: usize = 20_000;

/// Microseconds that a record may take: 50,000 a second.
const GOAL_US: f64 = 20.0;

/// A way to the collector.
struct Way {
    protocol: Protocol,
    compression: Compression,
    writer: OtlpWriter,
    /// Microseconds per record, on the clock and of processor time of this process.
    wall_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = CollectorConfig { keeps_nothing: true, ..CollectorConfig::default() };
    let collector = Collector::start(&config).context("no collector: run `cargo xtask setup`")?;
    let machine = Machine::look();
    let parcels = parcels(arguments.flows);
    let mut ways = Vec::new();
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for compression in [Compression::Gzip, Compression::None] {
            ways.push(Way::new(&collector, protocol, compression)?);
        }
    }
    for way in &mut ways {
        // Connects, and warms up.
        way.measure(&parcels[..1])?;
        (way.wall_us, way.cpu_us) = (Vec::new(), Vec::new());
    }
    for _ in 0..arguments.rounds.max(1) {
        for way in &mut ways {
            way.measure(&parcels)?;
        }
    }
    let verdicts: Vec<Verdict> = ways.iter().map(Way::verdict).collect();
    let figures =
        || json!({ "flows": arguments.flows, "ways": ways.iter().map(Way::json).collect::<Vec<_>>() });
    tell(arguments.json, machine, &verdicts, figures, || table(&ways, arguments.flows));
    Ok(())
}

impl Way {
    fn new(collector: &Collector, protocol: Protocol, compression: Compression) -> anyhow::Result<Self> {
        let endpoint = match protocol {
            Protocol::Grpc => collector.endpoint("grpc"),
            Protocol::Http => format!("{}/v1/logs", collector.endpoint("http/protobuf")),
        };
        let target = Target {
            endpoint: endpoint.parse()?,
            protocol,
            headers: Vec::new(),
            compression,
            timeout: Duration::from_mins(1),
            tls: TlsDocument::default(),
        };
        let resource = vec![("service.name".to_owned(), "weir".to_owned())];
        let plan = Plan { logs: Some(target), metrics: None, spans: None, resource };
        let writer = OtlpWriter::new(&plan)?;
        Ok(Self { protocol, compression, writer, wall_us: Vec::new(), cpu_us: Vec::new() })
    }

    fn measure(&mut self, parcels: &[Parcel]) -> anyhow::Result<()> {
        let patience = Patience::default();
        let (start, used) = (Instant::now(), processor_us()?);
        let mut records = 0;
        for parcel in parcels {
            let receipt = self.writer.write(std::slice::from_ref(parcel), &patience)?;
            ensure!(receipt == Receipt::default(), "{receipt:?}");
            records += parcel.batch.records.len();
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
        let records = records as f64;
        self.wall_us.push(start.elapsed().as_secs_f64() * 1e6 / records);
        self.cpu_us.push((processor_us()? - used) / records);
        Ok(())
    }

    fn name(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        };
        let compression = match self.compression {
            Compression::Gzip => "gzip",
            Compression::None => "uncompressed",
        };
        format!("{protocol}, {compression}")
    }

    fn verdict(&self) -> Verdict {
        let what = format!("{}, µs per record (50,000 records a second)", self.name());
        Verdict { what, measured: median(&self.wall_us), most: GOAL_US }
    }

    fn json(&self) -> Value {
        json!({ "way": self.name(), "wall_us": self.wall_us, "processor_us": self.cpu_us })
    }
}

fn table(ways: &[Way], flows: usize) -> String {
    let mut text = format!(
        "\n{flows} flows a round{:<10}{:>14}{:>14}{:>20}\n",
        "", "records/s", "µs/record", "of it ours, CPU"
    );
    for way in ways {
        let wall = median(&way.wall_us);
        let (name, cpu) = (way.name(), median(&way.cpu_us));
        writeln!(text, "  {name:<28}{:>14.0}{wall:>14.2}{cpu:>20.2}", 1e6 / wall)
            .expect("a string takes everything");
    }
    text.push_str("  Medians. The collector runs on the same processors.\n");
    text
}

/// Flows as the agent brings them.
fn parcels(flows: usize) -> Vec<Parcel> {
    let mut source = Flows::new();
    let batches = flows.div_ceil(BATCH).max(1);
    let parcel = |number: usize| {
        let (tick, records) = source.tick(number, BATCH.min(flows));
        let mut collected = Collected::default();
        for record in records {
            collected.add(record, [PointId(0), PointId(1)]);
        }
        let batch: Arc<Batch> = collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true);
        Parcel { id: ParcelId(number as u128), batch }
    };
    (0..batches).map(parcel).collect()
}
