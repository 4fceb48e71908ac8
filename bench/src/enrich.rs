//! Names beside a plain map of addresses: a look-up, memory, and the way of a flow to a record with names.
//!
//! The plain map knows the present only; that it names the wrong pod when an address is used again is why it is not
//! used, and what it saves is what that costs. Both are asked in turn, for the same addresses in the same order.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use weir_agent::{
    enrich::{Containers, Enrich as _, WorkloadEnricher},
    kubernetes::{
        KubernetesConfig, Names,
        cluster::{Change, Cluster, Object, Resource},
        config::Extract,
        names::Span,
        objects::{ContainerStatus, Ip, Metadata, OwnerReference, Pod},
    },
};
use weir_flow::{
    Direction, FlowTable, Monotonic, Observation, Point, PointId, Record, Role, SocketOwner, TableConfig,
    Tick, Traffic, Tuple, Wall, Workload,
};
use weir_packet::{Details, ipv4_words};

use crate::{machine::Machine, micro::median, stage, tell::tell, verdict::Verdict};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pods in the cluster
    #[arg(long, default_value_t = 20_000)]
    pods: u32,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Flows between pods, each with a record in each round
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Look-ups in one round.
const LOOKUPS: u32 = 1_000_000;

/// Records that are enriched at a time.
const PORTION: usize = 4_096;

/// Some day in 2026.
const NOW: Wall = Wall(1_780_000_000_000_000_000);

struct Outcome {
    pods: u32,
    index_bytes: f64,
    plain_bytes: f64,
    hit_ns: Pair,
    miss_ns: Pair,
    publish_us: f64,
    aggregate_per_second: f64,
    enrich_per_second: f64,
    both_per_second: f64,
}

/// Rounds of weir and of the plain map.
#[derive(Default)]
struct Pair {
    weir: Vec<f64>,
    plain: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let machine = Machine::look();
    stage::stay_on_one_cpu()?;
    let outcome = measure(arguments)?;
    let figures = || json!({ "enrich": outcome.json() });
    tell(arguments.json, machine, &outcome.verdicts(), figures, || outcome.table());
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let before = heap_bytes();
    let mut cluster = cluster(arguments.pods);
    let index_bytes = heap_bytes() - before;
    let names = cluster.names();

    let before = heap_bytes();
    let plain = plain(&names, arguments.pods);
    let plain_bytes = heap_bytes() - before;

    let known: Vec<IpAddr> = shuffled(arguments.pods).map(address).collect();
    let outside: Vec<IpAddr> = known.iter().map(|known| outside(*known)).collect();
    let (mut hit_ns, mut miss_ns) = (Pair::default(), Pair::default());
    for round in 0..arguments.rounds {
        eprintln!("look-ups: round {} of {}", round + 1, arguments.rounds);
        for (addresses, pair) in [(&known, &mut hit_ns), (&outside, &mut miss_ns)] {
            let span = Span { start: NOW, end: NOW };
            pair.weir.push(time(addresses, |address| names.by_address(address, span).is_ok()));
            pair.plain.push(time(addresses, |address| plain.contains_key(&address)));
        }
    }

    let publish_us = publishing(&mut cluster, arguments.pods);
    let mut outcome = Outcome {
        pods: arguments.pods,
        index_bytes,
        plain_bytes,
        hit_ns,
        miss_ns,
        publish_us,
        aggregate_per_second: 0.0,
        enrich_per_second: 0.0,
        both_per_second: 0.0,
    };
    outcome.flows(arguments, names)?;
    Ok(outcome)
}

/// A cluster with this many pods of three containers, ten to a deployment, forty to a node.
fn cluster(pods: u32) -> Cluster {
    let mut cluster = Cluster::new(&Extract::default());
    for resource in [Resource::Nodes, Resource::Services, Resource::Pods] {
        cluster.apply(Change::Listing(resource), NOW);
    }
    for number in 0..pods {
        cluster.apply(Change::Applied(Resource::Pods, Object::Pod(Box::new(pod(number, number)))), NOW);
    }
    for resource in [Resource::Nodes, Resource::Services, Resource::Pods] {
        cluster.apply(Change::Listed(resource), NOW);
    }
    cluster
}

fn pod(number: u32, at: u32) -> Pod {
    let deployment = number / 10;
    let owner = OwnerReference {
        kind: "ReplicaSet".into(),
        name: format!("deployment-{deployment}-5d4f8c7b9"),
        uid: format!("00000001-0000-4000-8000-{deployment:012x}"),
        controller: Some(true),
    };
    let mut pod = Pod {
        metadata: Metadata {
            name: format!("deployment-{deployment}-5d4f8c7b9-{number:05x}"),
            namespace: Some(format!("namespace-{}", deployment % 50)),
            uid: format!("00000002-0000-4000-8000-{number:012x}"),
            creation_timestamp: Some("2026-01-01T00:00:00Z".into()),
            owner_references: vec![owner],
            ..Metadata::default()
        },
        ..Pod::default()
    };
    pod.spec.node_name = Some(format!("node-{}", number / 40));
    pod.status.phase = Some("Running".into());
    pod.status.pod_ips = vec![Ip { ip: Some(address(at).to_string()) }];
    pod.status.start_time = Some("2026-01-01T00:00:00Z".into());
    let container = |index: u32| ContainerStatus {
        name: format!("container-{index}"),
        container_id: Some(format!("containerd://{:064x}", u64::from(number) * 4 + u64::from(index))),
        state: None,
    };
    pod.status.container_statuses = (0..3).map(container).collect();
    pod
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn outside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() + 0x2000_0000).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn plain(names: &Names, pods: u32) -> HashMap<IpAddr, Arc<Workload>> {
    let span = Span { start: NOW, end: NOW };
    let named = |number| {
        let address = address(number);
        names.by_address(address, span).ok().map(|(workload, _)| (address, Arc::clone(workload)))
    };
    (0..pods).filter_map(named).collect()
}

/// Every number once, in an order that no cache foresees.
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..numbers.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = usize::try_from(state % (last as u64 + 1)).expect("an index fits");
        numbers.swap(last, other);
    }
    numbers.into_iter()
}

/// Nanoseconds of one look-up.
fn time(addresses: &[IpAddr], mut is_found: impl FnMut(IpAddr) -> bool) -> f64 {
    let start = Instant::now();
    let mut found = 0;
    for address in addresses.iter().cycle().take(LOOKUPS as usize) {
        found += usize::from(is_found(black_box(*address)));
    }
    black_box(found);
    start.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
}

/// Microseconds of one pod that changes its address, and the snapshot after it.
fn publishing(cluster: &mut Cluster, pods: u32) -> f64 {
    let published = ArcSwap::from_pointee(cluster.names());
    let changes = 1_000.min(pods);
    let moved: Vec<Pod> = (0..changes).map(|number| pod(number, number + 0x0080_0000)).collect();
    let start = Instant::now();
    for pod in moved {
        cluster.apply(Change::Applied(Resource::Pods, Object::Pod(Box::new(pod))), NOW);
        published.store(Arc::new(cluster.names()));
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(changes)
}

impl Outcome {
    /// Flows between pods, counted, aggregated and enriched, over and over.
    fn flows(&mut self, arguments: &Arguments, names: Names) -> anyhow::Result<()> {
        let names = Arc::new(ArcSwap::from_pointee(names));
        let enricher = WorkloadEnricher::new(names, Containers::default(), &KubernetesConfig::default());
        let mut table = FlowTable::new(TableConfig { memory_bytes: 256 << 20, ..TableConfig::default() });
        for (id, direction) in [(1, Direction::Egress), (2, Direction::Ingress)] {
            table.set_point(Arc::new(point(id, direction)));
        }
        let numbers: Vec<u32> = shuffled(arguments.flows).collect();
        let (mut aggregating, mut enriching) = (Vec::new(), Vec::new());
        for round in 0..arguments.rounds {
            eprintln!("records: round {} of {}", round + 1, arguments.rounds);
            let moment = Monotonic((round as u64 + 1) * 1_000_000_000);
            let mut spent = Duration::ZERO;
            let start = Instant::now();
            for number in &numbers {
                let tuple = tuple(*number, arguments.pods);
                table.observe(&observation(tuple, 1, moment));
                table.observe(&observation(tuple.reversed(), 2, moment));
            }
            let mut portion: Vec<Record> = Vec::with_capacity(PORTION);
            let mut named = 0;
            let mut enrich = |portion: &mut Vec<Record>| {
                let start = Instant::now();
                enricher.enrich(portion);
                spent += start.elapsed();
                named +=
                    portion.iter().filter(|record| record.destination.identity.workload.is_some()).count();
                portion.clear();
            };
            table.tick_each(Tick { monotonic: moment, wall: NOW }, &mut |record| {
                portion.push(record);
                if portion.len() == PORTION {
                    enrich(&mut portion);
                }
            });
            enrich(&mut portion);
            let whole = start.elapsed();
            ensure!(named == numbers.len(), "{named} of {} records have names", numbers.len());
            enriching.push(spent.as_secs_f64());
            aggregating.push(whole.saturating_sub(spent).as_secs_f64());
        }
        let records = f64::from(arguments.flows);
        let (aggregate, enrich) = (median(&aggregating), median(&enriching));
        self.aggregate_per_second = records / aggregate;
        self.enrich_per_second = records / enrich;
        self.both_per_second = records / (aggregate + enrich);
        Ok(())
    }

    fn table(&self) -> String {
        let pods = f64::from(self.pods);
        let mut text = String::new();
        let mut line = |what: &str, weir: String, plain: String| {
            writeln!(text, "  {what:<44}{weir:>18}{plain:>18}").expect("a string takes everything");
        };
        line(&format!("{} pods", self.pods), "weir".into(), "plain map".into());
        let both = |rounds: &[f64]| format!("{:.1} ({:.1})", least(rounds), median(rounds));
        line("look-up of a pod, ns", both(&self.hit_ns.weir), both(&self.hit_ns.plain));
        line("look-up of an address outside, ns", both(&self.miss_ns.weir), both(&self.miss_ns.plain));
        line(
            "heap, MB (the plain map without its pods)",
            format!("{:.1}", self.index_bytes / 1e6),
            format!("{:.1}", self.plain_bytes / 1e6),
        );
        line(
            "heap, bytes per pod",
            format!("{:.0}", self.index_bytes / pods),
            format!("{:.0}", self.plain_bytes / pods),
        );
        line("a change and its snapshot, µs", format!("{:.1}", self.publish_us), String::new());
        line(
            "records aggregated a second, thousands",
            format!("{:.0}", self.aggregate_per_second / 1e3),
            String::new(),
        );
        line(
            "records enriched a second, thousands",
            format!("{:.0}", self.enrich_per_second / 1e3),
            String::new(),
        );
        line(
            "both, one after the other, thousands",
            format!("{:.0}", self.both_per_second / 1e3),
            String::new(),
        );
        text.push_str("  Minimum and, in brackets, median of all rounds; records by median.\n");
        text
    }

    fn json(&self) -> Value {
        let pair = |pair: &Pair| {
            json!({ "weir_least": least(&pair.weir), "weir_median": median(&pair.weir),
                    "plain_least": least(&pair.plain), "plain_median": median(&pair.plain) })
        };
        json!({
            "pods": self.pods, "hit_ns": pair(&self.hit_ns), "miss_ns": pair(&self.miss_ns),
            "index_bytes": self.index_bytes, "plain_bytes": self.plain_bytes, "publish_us": self.publish_us,
            "aggregate_per_second": self.aggregate_per_second, "enrich_per_second": self.enrich_per_second,
            "both_per_second": self.both_per_second,
        })
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |what: &str, measured, most| Verdict { what: what.to_owned(), measured, most };
        vec![
            verdict("look-up of a pod, ns", median(&self.hit_ns.weir), 200.0),
            verdict("index, MB", self.index_bytes / 1e6, 40.0),
            verdict("index, bytes per pod", self.index_bytes / f64::from(self.pods), 1024.0),
            verdict("enrich and aggregate, µs per record", 1e6 / self.both_per_second, 10.0),
        ]
    }
}

fn least(rounds: &[f64]) -> f64 {
    rounds.iter().copied().fold(f64::INFINITY, f64::min)
}

fn point(id: u32, direction: Direction) -> Point {
    Point {
        id: PointId(id),
        netns: None,
        ifindex: 1,
        interface: "eth0".into(),
        direction,
        role: Role::Uplink,
    }
}

/// A flow from one pod to another one.
fn tuple(number: u32, pods: u32) -> Tuple {
    let words = |number: u32| match address(number % pods) {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(_) => [0; 2],
    };
    let port = 32_768 + u16::try_from(number / pods).expect("few flows for each pod");
    let details = Details::new(false, weir_packet::protocol::TCP).with_ports(port, 443);
    Tuple::new(words(number), words(number.wrapping_mul(7) + 1), details)
}

fn observation(tuple: Tuple, point: u32, moment: Monotonic) -> Observation {
    let traffic = Traffic {
        bytes: 1_500,
        packets: 1,
        skbs: 1,
        skb_bytes: 1_500,
        last_length: 1_500,
        ..Traffic::default()
    };
    let owner = SocketOwner::default();
    Observation { tuple, point: PointId(point), traffic, first: moment, last: moment, owner }
}

/// Bytes that the program has on its heap.
#[expect(clippy::cast_precision_loss, reason = "some hundred megabytes")]
fn heap_bytes() -> f64 {
    // SAFETY: it only reads the allocator's own counters.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64
}
