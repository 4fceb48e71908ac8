//! Flows with every kind of thing that a record can have.

use std::{sync::Arc, time::Duration};

use weir_flow::{
    Container, Counters, Detail, Direction, Dns, EndReason, Endpoint, Identity, Initiator, Monotonic,
    Outcome, Point, PointId, Process, ProcessConfidence, Quality, Question, Record, RecordType, ResponseCode,
    Role, SocketOwner, TcpFailure, Tick, Traffic, Tuple, Unknown, Wall, Workload, WorkloadConfidence,
    WorkloadKind,
};
use weir_packet::{Details, ipv4_words, ipv6_words, protocol};

/// When the sample begins: 2026-01-01T00:00:00Z.
pub const BEGIN: Wall = Wall(1_767_225_600_000_000_000);

/// Makes flows, always the same ones.
#[derive(Clone, Debug)]
pub struct Sample {
    random: u64,
    /// Flows that go on from tick to tick.
    lasting: Vec<Record>,
}

impl Default for Sample {
    fn default() -> Self {
        Self::seeded(0x9e37_79b9_7f4a_7c15)
    }
}

impl Sample {
    /// Flows that depend on a number.
    pub fn seeded(seed: u64) -> Self {
        Self { random: seed | 1, lasting: Vec::new() }
    }

    /// So many ticks, one a second, each with some records. No flow is seen at two interfaces.
    pub fn ticks(&mut self, count: u64) -> Vec<(Tick, Vec<Record>)> {
        (0..count).map(|number| self.tick(number)).collect()
    }

    /// The records of one tick.
    pub fn tick(&mut self, number: u64) -> (Tick, Vec<Record>) {
        let since = number * 1_000_000_000;
        // The two clocks do not go evenly.
        let skew = number * 7_919 % 1_000;
        let tick = Tick { monotonic: Monotonic(10_000_000_000 + since + skew), wall: Wall(BEGIN.0 + since) };
        let mut records = Vec::new();
        for flow in &mut self.lasting {
            // One record more of a flow that is known.
            flow.delta.forward.packets += 1;
            flow.delta.forward.bytes += 10;
            for (total, delta) in
                [(&mut flow.total.forward, flow.delta.forward), (&mut flow.total.reverse, flow.delta.reverse)]
            {
                total.packets += delta.packets;
                total.bytes += delta.bytes;
            }
            flow.last = Monotonic(tick.monotonic.0 - 1_000);
            flow.end = tick.wall_of(flow.last);
            records.push(flow.clone());
        }
        for index in 0..self.below::<u64>(12) {
            let record = self.record(&tick, number * 100 + index);
            if record.end_reason.is_none() && self.lasting.len() < 8 {
                self.lasting.push(record.clone());
            }
            records.push(record);
        }
        (tick, records)
    }

    fn below<N: TryFrom<u64, Error: std::fmt::Debug>>(&mut self, limit: u64) -> N {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let number = (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit;
        number.try_into().expect("the limit fits the type")
    }

    /// A record; `number` makes its tuple unique.
    fn record(&mut self, tick: &Tick, number: u64) -> Record {
        let tuple = self.tuple(number);
        let first = Monotonic(tick.monotonic.0 - self.below::<u64>(3_000_000_000));
        let last = Monotonic(first.0 + self.below::<u64>(tick.monotonic.0 - first.0 + 1));
        let traffic = |packets: u64, bytes: u64, skbs: u64| Traffic {
            packets,
            bytes,
            skbs,
            tcp_flags: if tuple.protocol() == protocol::TCP { 0x1a } else { 0 },
            last_length: 60,
            dscp: 8,
            ttl: 63,
            ..Traffic::default()
        };
        let (packets, bytes): (u64, u64) = (1 + self.below::<u64>(20), 60 + self.below::<u64>(5_000));
        let forward = traffic(packets, bytes, packets - self.below::<u64>(packets));
        let reverse =
            if self.below::<u8>(4) == 0 { Traffic::default() } else { traffic(2, self.below(100_000), 2) };
        let mut total = Counters { forward, reverse };
        if self.below::<u8>(3) == 0 {
            total.forward.bytes += self.below::<u64>(2_000_000);
            total.forward.packets += 5;
        }
        let reasons = [None, None, Some(EndReason::Fin), Some(EndReason::Idle), Some(EndReason::Reset)];
        let (source, destination) = (self.endpoint(&tuple, true), self.endpoint(&tuple, false));
        Record {
            tuple,
            source,
            destination,
            point: self.point(),
            delta: Counters { forward, reverse },
            total,
            start: tick.wall_of(first),
            end: tick.wall_of(last),
            first,
            last,
            initiator: Initiator::ALL[self.below::<usize>(4)],
            end_reason: reasons[self.below::<usize>(5)],
            detail: Detail::Flow,
            outcome: self.outcome(),
            quality: self.quality(),
            dns: Self::dns(&tuple),
        }
    }

    fn outcome(&mut self) -> Outcome {
        let [refused, _, reset] = TcpFailure::ALL.map(Some);
        let tcp_failure = [None, None, refused, reset][self.below::<usize>(4)];
        Outcome { tcp_failure, is_unanswered: [None, Some(false), Some(true)][self.below::<usize>(3)] }
    }

    fn quality(&mut self) -> Quality {
        if self.below::<u8>(3) == 0 {
            return Quality::default();
        }
        Quality {
            rtt: Some(Duration::from_micros(100 + self.below::<u64>(50_000))),
            minimum_rtt: Some(Duration::from_micros(100)),
            retransmits: Some(self.below(3)),
            reverse_retransmits: None,
        }
    }

    /// What a flow to a DNS server said, by its port.
    fn dns(tuple: &Tuple) -> Option<Box<Dns>> {
        if tuple.protocol() != protocol::UDP || tuple.destination_port() != 53 {
            return None;
        }
        let port = tuple.source_port();
        let response_code = ResponseCode::ALL[usize::from(port % 2) * 3];
        Some(Box::new(Dns {
            question: Some(Question {
                name: format!("host{}.example.com", port % 9).into(),
                record_type: RecordType(28),
            }),
            response_code: Some(response_code),
            lookup_duration: Some(Duration::from_micros(port.into())),
            queries: 1,
            responses: 1,
            failures: u32::from(response_code.is_failure()),
            unanswered: u32::from(port.is_multiple_of(3)),
        }))
    }

    fn tuple(&mut self, number: u64) -> Tuple {
        // The role is made from the last byte of the source, so that every edge is seen at one role.
        let (low, high) = (self.below::<u8>(20), number.to_be_bytes());
        let vlan = u16::try_from(number % 4_000).expect("it is small");
        let source_port = 1_024 + u16::try_from(number % 60_000).expect("it is small");
        let port = [80, 443, 8_080, 53][self.below::<usize>(4)];
        let (from, to) = ([10, 0, self.below(2), low], [10, 1, 0, self.below(5)]);
        let v4 = |details| Tuple::new(ipv4_words(from), ipv4_words(to), details);
        match self.below::<u8>(12) {
            0 => {
                let mut source = [0_u8; 16];
                source[0] = 0xfd;
                source[8..].copy_from_slice(&high);
                let mut destination = source;
                destination[1] = 1;
                let details = Details::new(true, protocol::TCP).with_ports(source_port, port).with_vlan(7);
                Tuple::new(ipv6_words(source), ipv6_words(destination), details)
            }
            1 => v4(Details::new(false, protocol::ICMP).with_icmp_query().with_ports(8, 0).with_vlan(vlan)),
            2 => v4(Details::new(false, protocol::UDP).with_fragment().with_vlan(vlan)),
            3 => v4(Details::new(false, 47).with_vlan(vlan)),
            4..7 => v4(Details::new(false, protocol::UDP).with_ports(source_port, 53)),
            _ => v4(Details::new(false, protocol::TCP).with_ports(source_port, port)),
        }
    }

    fn endpoint(&mut self, tuple: &Tuple, is_source: bool) -> Endpoint {
        let tuple = if is_source { *tuple } else { tuple.reversed() };
        let mut identity = Identity::default();
        let (mut process, mut owner) = (None, SocketOwner::default());
        match self.below::<u8>(4) {
            0 => {
                identity = pod("shop", "web");
                identity.dns_name = Some("web.example.com".into());
            }
            1 => identity = pod("pay", "api"),
            2 => {
                let confidence = ProcessConfidence::Proven;
                process = Some(Arc::new(Process { pid: 42, executable: "curl".into(), confidence }));
                owner = SocketOwner { cookie: 1 + self.below::<u64>(1_000_000), cgroup: 77 };
            }
            _ => identity.unknown = Some(Unknown::NoPodForAddress),
        }
        let port = if tuple.has_ports() { tuple.source_port() } else { 0 };
        Endpoint { address: tuple.source(), port, owner, process, identity }
    }

    fn point(&mut self) -> Arc<Point> {
        // One role, so that every edge is seen at one.
        let number: u32 = self.below(3);
        Arc::new(Point {
            id: PointId(number),
            netns: (number == 2).then(|| "blue".into()),
            ifindex: number,
            interface: format!("veth{number}").into(),
            direction: Direction::ALL[self.below::<usize>(2)],
            role: Role::PodEdge,
        })
    }

    /// A flow of `bytes` from a pod to another on one node: at both pods' edges, on the bridge, and at the uplink.
    pub fn seen_four_times(bytes: u64) -> Vec<Record> {
        let mut sample = Self::default();
        let tick = Tick { monotonic: Monotonic(10_000_000_000), wall: BEGIN };
        let mut record = sample.record(&tick, 1);
        let details = Details::new(false, protocol::TCP).with_ports(40_000, 80);
        record.tuple = Tuple::new(ipv4_words([10, 0, 0, 1]), ipv4_words([10, 0, 0, 2]), details);
        record.source.address = record.tuple.source();
        record.destination.address = record.tuple.destination();
        (record.source.port, record.destination.port) = (40_000, 80);
        (record.source.identity, record.destination.identity) = (pod("shop", "web"), pod("pay", "api"));
        record.delta.forward.bytes = bytes;
        let place = |ifindex: u32, interface: &str, direction, role| {
            let interface = interface.into();
            Arc::new(Point { id: PointId(ifindex), netns: None, ifindex, interface, direction, role })
        };
        [
            place(9, "eth0", Direction::Egress, Role::Uplink),
            place(2, "veth-b", Direction::Egress, Role::PodEdge),
            place(3, "veth-a", Direction::Ingress, Role::PodEdge),
            place(4, "br0", Direction::Ingress, Role::Bridge),
        ]
        .into_iter()
        .map(|point| Record { point, ..record.clone() })
        .collect()
    }
}

fn pod(namespace: &str, owner: &str) -> Identity {
    let workload = Workload {
        kind: WorkloadKind::Pod,
        namespace: Some(namespace.into()),
        name: format!("{owner}-1").into(),
        uid: "51f3".into(),
        owner_kind: "Deployment".into(),
        owner_name: owner.into(),
        node: Some("node-1".into()),
        labels: [("app".into(), owner.into())].into(),
    };
    Identity {
        workload: Some(Arc::new(workload)),
        confidence: Some(WorkloadConfidence::Address),
        container: Some(Arc::new(Container { id: "0123456789ab".into(), name: Some(owner.into()) })),
        ..Identity::default()
    }
}
