//! Flows as a busy node of a cluster would see them: 200 workloads, 2,000 pods, 1,000 edges.

use std::sync::Arc;

use weir_flow::{
    Counters, Detail, Direction, EndReason, Endpoint, Identity, Initiator, Monotonic, Outcome, Point,
    PointId, Quality, Record, Role, SocketOwner, Tick, Traffic, Tuple, Wall, Workload, WorkloadConfidence,
    WorkloadKind,
};
use weir_packet::{Details, ipv4_words, protocol};

/// 2026-01-01T00:00:00Z.
pub(crate) const BEGIN_NS: u64 = 1_767_225_600_000_000_000;

const WORKLOADS: u64 = 200;
const PODS: u64 = 10;
const PODS_OF_ONE: usize = 10;
const EDGES: u64 = 1_000;

/// Resolution of the kernel's times.
const JIFFY_NS: u64 = 4_000_000;

/// Makes flows, the same in every run.
pub(crate) struct Flows {
    random: u64,
    pods: Vec<(Arc<Workload>, [u8; 4])>,
    edges: Vec<(usize, usize, u16)>,
    points: Vec<Arc<Point>>,
    cookie: u64,
}

impl Flows {
    pub(crate) fn new() -> Self {
        let mut flows = Self {
            random: 0x9e37_79b9_7f4a_7c15,
            pods: Vec::new(),
            edges: Vec::new(),
            points: Vec::new(),
            cookie: 1,
        };
        for workload in 0..WORKLOADS {
            let namespace: Arc<str> = format!("namespace-{}", workload % 20).into();
            let (owner_kind, owner_name): (Arc<str>, Arc<str>) =
                ("Deployment".into(), format!("workload-{workload}").into());
            for pod in 0..PODS {
                let byte = |number: u64| u8::try_from(number).expect("it is small");
                let (low, high) = (byte(pod * 7 + 7), byte(workload));
                let name = format!("workload-{workload}-{:05x}", flows.next() & 0xf_ffff);
                let uid = format!("{:08x}-0000-4000-8000-{:012x}", flows.next(), workload * PODS + pod);
                flows.pods.push((
                    Arc::new(Workload {
                        kind: WorkloadKind::Pod,
                        namespace: Some(Arc::clone(&namespace)),
                        name: name.into(),
                        uid: uid.into(),
                        owner_kind: Arc::clone(&owner_kind),
                        owner_name: Arc::clone(&owner_name),
                        node: Some(format!("node-{}", (workload + pod) % 30).into()),
                        labels: Box::default(),
                    }),
                    [10, 1, high, low],
                ));
            }
        }
        for _ in 0..EDGES {
            let edge = (flows.below(WORKLOADS), flows.below(WORKLOADS), 8_000 + flows.below::<u16>(12));
            flows.edges.push(edge);
        }
        for number in 0..40 {
            flows.points.push(Arc::new(Point {
                id: PointId(number),
                netns: None,
                ifindex: number,
                interface: format!("veth{number:08x}").into(),
                direction: if number % 2 == 0 { Direction::Ingress } else { Direction::Egress },
                role: Role::PodEdge,
            }));
        }
        flows
    }

    /// The next number (xorshift64*).
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below<N: TryFrom<u64, Error: std::fmt::Debug>>(&mut self, limit: u64) -> N {
        N::try_from(self.next() % limit).expect("the limit fits the type")
    }

    /// A number of which small ones are likelier: most are a few, some are thousands of times as many.
    fn skewed(&mut self, most_bits: u64) -> u64 {
        let bits: u64 = self.below::<u64>(most_bits + 1).min(self.below(most_bits + 1));
        self.next() & ((1 << bits) - 1)
    }

    /// The records of one second.
    pub(crate) fn tick(&mut self, number: usize, rows: usize) -> (Tick, Vec<Record>) {
        let now = BEGIN_NS + number as u64 * 1_000_000_000 + 123_456_789;
        let tick = Tick { monotonic: Monotonic(now - BEGIN_NS + 1_000_000_000_000), wall: Wall(now) };
        let records = (0..rows).map(|_| self.record(&tick)).collect();
        (tick, records)
    }

    fn record(&mut self, tick: &Tick) -> Record {
        // A tenth of the edges has half of the flows.
        let edge: usize = self.below::<usize>(EDGES).min(self.below(EDGES)).min(self.below(EDGES));
        let (source, destination, port) = self.edges[edge];
        let source = source * PODS_OF_ONE + self.below::<usize>(PODS);
        let destination = destination * PODS_OF_ONE + self.below::<usize>(PODS);
        let source_port = 32_768 + self.below::<u16>(28_000);
        let (from, to) = (self.pods[source].1, self.pods[destination].1);
        let details = Details::new(false, protocol::TCP).with_ports(source_port, port);
        let tuple = Tuple::new(ipv4_words(from), ipv4_words(to), details);
        // Requests and answers: the sizes vary, their headers hardly.
        let packets = 4 + self.skewed(10);
        let back = 4 + self.skewed(12);
        let traffic = |packets: u64, payload: u64, skbs: u64| Traffic {
            packets,
            bytes: packets * 66 + payload,
            skbs,
            last_length: 66,
            tcp_flags: 0x1b,
            ttl: 63,
            ..Traffic::default()
        };
        let forward = traffic(packets, 80 + self.skewed(14), packets);
        let payload = 200 + self.skewed(16) + back.saturating_sub(4) * 1_400;
        let joined = if back > 16 { self.below::<u64>(back / 4) } else { 0 };
        let reverse = traffic(back, payload, back - joined);
        // Three of ten were there before.
        let (mut total_forward, mut total_reverse) = (forward, reverse);
        if self.below::<u8>(10) < 3 {
            for total in [&mut total_forward, &mut total_reverse] {
                total.packets += self.skewed(16);
                total.bytes += 1_000 * self.skewed(16);
            }
        }
        let last = tick.monotonic.0 / JIFFY_NS * JIFFY_NS - JIFFY_NS * self.below::<u64>(250);
        let first = last - JIFFY_NS * self.skewed(12);
        self.cookie += self.below::<u64>(4);
        let cookie = if self.below::<u8>(2) == 0 { self.cookie } else { 0 };
        let start = tick.wall_of(Monotonic(first));
        let point = Arc::clone(&self.points[source % self.points.len()]);
        Record {
            tuple,
            source: self.end(source, source_port, cookie),
            destination: self.end(destination, port, 0),
            point,
            delta: Counters { forward, reverse },
            total: Counters { forward: total_forward, reverse: total_reverse },
            start,
            end: tick.wall_of(Monotonic(last)),
            first: Monotonic(first),
            last: Monotonic(last),
            initiator: Initiator::Proven,
            end_reason: (self.below::<u8>(10) < 7).then_some(EndReason::Fin),
            detail: Detail::Flow,
            outcome: Outcome::default(),
            quality: Quality::default(),
            dns: None,
        }
    }

    fn end(&self, pod: usize, port: u16, cookie: u64) -> Endpoint {
        let (workload, address) = &self.pods[pod];
        Endpoint {
            address: (*address).into(),
            port,
            owner: SocketOwner { cookie, cgroup: if cookie == 0 { 0 } else { 5_000 + pod as u64 } },
            process: None,
            identity: Identity {
                workload: Some(Arc::clone(workload)),
                confidence: Some(WorkloadConfidence::Address),
                ..Identity::default()
            },
        }
    }
}
