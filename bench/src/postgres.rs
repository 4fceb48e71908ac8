//! The PostgreSQL sink beside a bare binary `COPY` of the same rows; and what ten minutes without a server cost.
//!
//! Both get the same rows into tables of the same shape, a group in turn, in one server with the settings that Debian gives
//! it. The bare `COPY` sends bytes that the server itself made of these rows before; it makes nothing, sums nothing up and
//! notes nothing. The time to make the flows is not counted.

use std::{
    fmt::Write as _,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};
use weir_agent::{
    batch::{Batch, Collected},
    outlet::{Batching, Consumer as _, Outlet, OutletConfig, Parcel, ParcelId, Patience, SpoolConfig},
    sinks::postgres::{Document, Part, Plan, PostgresWriter, SslMode},
};
use weir_flow::{PointId, filter::Filter};
use weir_integration::postgres::Postgres;

use crate::{
    machine::{Machine, processor_us},
    memory::{forget_peak, peak_mib},
    micro::median,
    store::flows::Flows,
    tell::tell,
    verdict::Verdict,
};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Groups of rows that each side writes, in turn
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Intervals in a group, which is one transaction
    #[arg(long, default_value_t = 10)]
    ticks: usize,
    /// Rows in each interval
    #[arg(long, default_value_t = 2_000)]
    rows: usize,
    /// Seconds without a server, at `--rows` a second
    #[arg(long, default_value_t = 600)]
    outage: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Time between two looks at what has been done. Looking all the time would take a processor.
const LOOK: Duration = Duration::from_micros(200);

/// Everything that was measured.
#[derive(Default)]
struct Outcome {
    rows_of_group: usize,
    weir_seconds: Vec<f64>,
    /// Processor time of this process for a group, without that of the server.
    weir_cpu_us: Vec<f64>,
    bare_seconds: Vec<f64>,
    bytes_per_row: f64,
    spooled_rows: usize,
    spool_seconds: f64,
    spool_bytes: u64,
    spool_rss_mib: f64,
    drain_seconds: f64,
    lost: u64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let machine = Machine::look();
    let outcome = measure(arguments)?;
    tell(arguments.json, machine, &outcome.verdicts(), || outcome.json(), || outcome.table());
    Ok(())
}

fn plan(server: &Postgres) -> Plan {
    Plan {
        host: server.directory().display().to_string(),
        port: server.port(),
        database: "weir".to_owned(),
        user: "weir".to_owned(),
        password: None,
        sslmode: SslMode::Disable,
        sslrootcert: None,
        schema: "public".to_owned(),
        node: Some("bench".to_owned()),
        // The flows are of another year.
        retention: Duration::from_hours(24 * 3_000),
        edge_retention: Duration::from_hours(24 * 3_000),
        partition: Part::Day,
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut server = Postgres::start().context("there is no server")?;
    let plan = plan(&server);
    let mut flows = Flows::new();
    let mut outcome = Outcome { rows_of_group: arguments.ticks * arguments.rows, ..Outcome::default() };
    // First, as what is made later would be in its memory.
    outage(arguments, &mut server, &mut flows, &mut outcome)?;
    let mut next = 0;
    let mut group = || {
        let batches = (0..arguments.ticks).map(|_| {
            next += 1;
            batch(&mut flows, next, arguments.rows)
        });
        batches.collect::<Vec<Arc<Batch>>>()
    };
    let groups: Vec<Vec<Arc<Batch>>> = (0..arguments.rounds).map(|_| group()).collect();
    let runtime = Runtime::new()?;
    let client = runtime.block_on(connect(&plan))?;
    let encoded = prepare(&runtime, &client, &plan, &groups)?;
    outcome.bytes_per_row = per_row(encoded.iter().flatten().map(Bytes::len).sum(), &outcome, groups.len());
    let mut writer = PostgresWriter::new(&plan)?;
    let mut names = 1_000_000;
    let mut weir = |batches: &[Arc<Batch>], writer: &mut PostgresWriter| {
        let parcels = parcels(batches, &mut names);
        let (start, used) = (Instant::now(), processor_us()?);
        writer.write(&parcels, &Patience::default()).map(drop).context("weir could not write")?;
        anyhow::Ok((start.elapsed().as_secs_f64(), processor_us()? - used))
    };
    let bare = |pieces: &[Bytes]| {
        let pieces = pieces.to_vec();
        let start = Instant::now();
        runtime.block_on(copy(&client, "bare", pieces))?;
        anyhow::Ok(start.elapsed().as_secs_f64())
    };
    // Connections, plans and partitions.
    weir(&groups[0], &mut writer)?;
    bare(&encoded[0])?;
    for (round, (batches, pieces)) in groups.iter().zip(&encoded).enumerate() {
        let before = if round % 2 == 0 { None } else { Some(bare(pieces)?) };
        let (seconds, cpu_us) = weir(batches, &mut writer)?;
        outcome.weir_seconds.push(seconds);
        outcome.weir_cpu_us.push(cpu_us);
        outcome.bare_seconds.push(before.map_or_else(|| bare(pieces), Ok)?);
    }
    drop((writer, encoded, groups));
    let counts = server.query("SELECT (SELECT count(*) FROM flow) = (SELECT count(*) FROM bare)");
    ensure!(counts == "t", "both do not have the same rows");
    Ok(outcome)
}

/// Lets the server make the bytes of the rows, and two tables of one shape without rows.
fn prepare(
    runtime: &Runtime,
    client: &Client,
    plan: &Plan,
    groups: &[Vec<Arc<Batch>>],
) -> anyhow::Result<Vec<Vec<Bytes>>> {
    let mut writer = PostgresWriter::new(plan)?;
    let mut names = 0;
    let mut encoded = Vec::new();
    for batches in groups {
        writer.write(&parcels(batches, &mut names), &Patience::default()).map(drop)?;
        let bytes = runtime.block_on(async {
            let out = client.copy_out("COPY (SELECT * FROM flow) TO STDOUT (FORMAT binary)").await?;
            let pieces: Vec<Bytes> = out.try_collect().await?;
            client.batch_execute("TRUNCATE flow, edge").await?;
            anyhow::Ok(pieces)
        })?;
        // The server sends a row at a time; it gets them in pieces as large as ours.
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        for row in bytes {
            piece.extend_from_slice(&row);
            if piece.len() >= 64 << 10 {
                pieces.push(Bytes::from(std::mem::take(&mut piece)));
            }
        }
        pieces.push(Bytes::from(piece));
        encoded.push(pieces);
    }
    runtime.block_on(client.batch_execute(
        "CREATE TABLE bare (LIKE flow) PARTITION BY RANGE (time);
         CREATE INDEX ON bare USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
         CREATE TABLE bare_all PARTITION OF bare FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')",
    ))?;
    Ok(encoded)
}

/// The server is away, everything is spooled; it comes back, everything is delivered.
fn outage(
    arguments: &Arguments,
    server: &mut Postgres,
    flows: &mut Flows,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    if arguments.outage == 0 {
        return Ok(());
    }
    let directory = std::env::temp_dir().join(format!("weir-bench-postgres-{}", std::process::id()));
    let default = Document::default();
    let config = OutletConfig {
        name: "postgres".into(),
        most_records: default.queue,
        filter: Filter::default(),
        batching: Batching { records: 20_000, bytes: 8 << 20, time: Duration::from_secs(1) },
        spool: Some(SpoolConfig { path: directory.clone(), bytes: 512 << 20 }),
    };
    server.kill();
    let plan = plan(server);
    forget_peak();
    let outlet = Outlet::start(config, PostgresWriter::new(&plan)?)?;
    for number in 0..arguments.outage {
        let batch = batch(flows, 10_000 + number, arguments.rows);
        let start = Instant::now();
        outlet.offer(&batch);
        drop(batch);
        while outlet.account().total().waiting().records > 0 {
            std::thread::park_timeout(LOOK);
        }
        outcome.spool_seconds += start.elapsed().as_secs_f64();
    }
    outcome.spooled_rows = arguments.outage * arguments.rows;
    outcome.spool_bytes = outlet.state().spool.context("it has a spool")?.bytes;
    outcome.spool_rss_mib = peak_mib();
    server.start_again();
    let start = Instant::now();
    while outlet.account().total().spooled.records > 0 {
        ensure!(start.elapsed() < Duration::from_mins(10), "{:?}", outlet.state());
        std::thread::park_timeout(LOOK);
    }
    outcome.drain_seconds = start.elapsed().as_secs_f64();
    let deadline = Instant::now() + Duration::from_secs(5);
    outlet.close(deadline);
    outlet.wait(deadline);
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    let there: u64 = server.query("SELECT count(*) FROM flow").parse()?;
    outcome.lost = (outcome.spooled_rows as u64).abs_diff(there);
    server.query("TRUNCATE flow, edge");
    Ok(())
}

fn batch(flows: &mut Flows, number: usize, rows: usize) -> Arc<Batch> {
    let (tick, records) = flows.tick(number, rows);
    let mut collected = Collected::default();
    for record in records {
        collected.add(record, [PointId(0), PointId(1)]);
    }
    collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true)
}

fn parcels(batches: &[Arc<Batch>], names: &mut u128) -> Vec<Parcel> {
    let parcel = |batch: &Arc<Batch>| {
        *names += 1;
        Parcel { id: ParcelId(*names), batch: Arc::clone(batch) }
    };
    batches.iter().map(parcel).collect()
}

async fn connect(plan: &Plan) -> anyhow::Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(&plan.host).port(plan.port).dbname(&plan.database).user(&plan.user);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn copy(client: &Client, table: &str, pieces: Vec<Bytes>) -> anyhow::Result<()> {
    let sink = client.copy_in::<_, Bytes>(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.as_mut().send(piece).await?;
    }
    sink.finish().await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes, some millions")]
fn per_row(bytes: usize, outcome: &Outcome, groups: usize) -> f64 {
    bytes as f64 / (outcome.rows_of_group * groups) as f64
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn rate(&self, seconds: f64) -> f64 {
        self.rows_of_group as f64 / seconds
    }

    /// The median of the ratios of neighbours, so that what the machine does meanwhile hits both.
    fn ratio(&self) -> f64 {
        let pairs = self.weir_seconds.iter().zip(&self.bare_seconds);
        median(&pairs.map(|(weir, bare)| bare / weir).collect::<Vec<f64>>())
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let target = |what: &str, measured, most| Verdict { what: what.to_owned(), measured, most };
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let lost = self.lost as f64;
        vec![
            target("written, microseconds a row", 1e6 / self.rate(median(&self.weir_seconds)), 10.0),
            target("time of weir / time of a bare COPY", 1.0 / self.ratio(), 1.0 / 0.9),
            target("rows lost in the outage", lost, 0.0),
            target("peak of memory in the outage, MiB", self.spool_rss_mib, 128.0),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    fn table(&self) -> String {
        let mut text = format!(
            "\ngroups of {} rows, {:.0} bytes each{:<20}{:>12}{:>12}{:>12}\n",
            self.rows_of_group, self.bytes_per_row, "", "weir", "bare COPY", "weir/bare"
        );
        let (weir, bare) = (median(&self.weir_seconds), median(&self.bare_seconds));
        writeln!(
            text,
            "  {:<50}{:>12.1}{:>12.1}{:>12.3}",
            "1000 rows a second",
            self.rate(weir) / 1e3,
            self.rate(bare) / 1e3,
            self.ratio()
        )
        .expect("a string takes everything");
        let rows = self.spooled_rows as f64;
        let cpu_us = median(&self.weir_cpu_us) / self.rows_of_group as f64;
        for (what, value) in [
            ("of it on our side, microseconds of processor time a row", cpu_us),
            ("spooled while the server was away, 1000 rows", rows / 1e3),
            ("bytes of the spool per row", self.spool_bytes as f64 / rows),
            ("spooled, 1000 rows a second", rows / 1e3 / self.spool_seconds),
            ("delivered after it was back, 1000 rows a second", rows / 1e3 / self.drain_seconds),
            ("peak of memory meanwhile, MiB", self.spool_rss_mib),
        ] {
            writeln!(text, "  {what:<50}{value:>12.1}").expect("a string takes everything");
        }
        text.push_str(
            "  Medians; the ratio is that of neighbours. Same tables, same index, one transaction a group.\n",
        );
        text
    }

    fn json(&self) -> Value {
        json!({
            "rows_of_group": self.rows_of_group,
            "bytes_per_row": self.bytes_per_row,
            "weir_seconds": self.weir_seconds,
            "weir_processor_us": self.weir_cpu_us,
            "bare_seconds": self.bare_seconds,
            "spooled_rows": self.spooled_rows,
            "spool_seconds": self.spool_seconds,
            "spool_bytes": self.spool_bytes,
            "spool_rss_mib": self.spool_rss_mib,
            "drain_seconds": self.drain_seconds,
            "lost": self.lost,
        })
    }
}
