//! Records for tests of everything that reads them.

use std::{net::IpAddr, sync::Arc};

use weir_packet::{Details, Tuple, ipv4_words, ipv6_words};

use crate::{
    Container, Counters, Detail, Direction, Endpoint, Identity, Initiator, Monotonic, Outcome, Point,
    PointId, Process, ProcessConfidence, Quality, Record, Role, SocketOwner, Traffic, Wall, Workload,
    WorkloadConfidence, WorkloadKind,
};

/// 2024-11-21T23:33:50Z.
pub(crate) const TICK: Wall = Wall(1_732_232_030_000_000_000);

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    }
}

/// A tuple; both addresses are of one family.
pub(crate) fn tuple(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> Tuple {
    let ends = [source, destination].map(|(address, _)| address.parse::<IpAddr>().unwrap());
    let details = Details::new(ends[0].is_ipv6(), protocol).with_ports(source.1, destination.1);
    Tuple::new(words(ends[0]), words(ends[1]), details)
}

/// Marks in word 4 of a tuple: later fragment, truncated, ICMP query.
pub(crate) fn marked(tuple: Tuple, mark: Details) -> Tuple {
    let mut words = tuple.words();
    words[4] |= Tuple::new([0; 2], [0; 2], mark).words()[4];
    Tuple::from_words(words)
}

/// A point at an uplink `eth0`.
pub(crate) fn point() -> Arc<Point> {
    Arc::new(Point {
        id: PointId(1),
        netns: None,
        ifindex: 2,
        interface: "eth0".into(),
        direction: Direction::Egress,
        role: Role::Uplink,
    })
}

/// `packets` frames of `length` bytes.
pub(crate) fn traffic(packets: u64, length: u32, tcp_flags: u16) -> Traffic {
    Traffic {
        bytes: packets * u64::from(length),
        packets,
        skbs: packets,
        skb_bytes: packets * u64::from(length),
        last_length: length,
        tcp_flags,
        last_tcp_flags: tcp_flags,
        syn: 0,
        fin_rst: 0,
        dscp: 0,
        ttl: 64,
    }
}

/// A record of `tuple` that ends at [`TICK`] and saw `forward` and `reverse` in the interval and in all.
pub(crate) fn record(tuple: Tuple, forward: Traffic, reverse: Traffic) -> Record {
    let counters = Counters { forward, reverse };
    let end = |address, port| Endpoint {
        address,
        port,
        owner: SocketOwner::default(),
        process: None,
        identity: Identity::default(),
    };
    Record {
        tuple,
        source: end(tuple.source(), if tuple.has_ports() { tuple.source_port() } else { 0 }),
        destination: end(tuple.destination(), if tuple.has_ports() { tuple.destination_port() } else { 0 }),
        point: point(),
        delta: counters,
        total: counters,
        start: Wall(TICK.0 - 1_012_000_000),
        end: TICK,
        first: Monotonic(5_000_000_000),
        last: Monotonic(6_012_000_000),
        initiator: Initiator::Proven,
        end_reason: None,
        detail: Detail::Flow,
        outcome: Outcome::default(),
        quality: Quality::default(),
        dns: None,
    }
}

/// A process.
pub(crate) fn process(pid: u32, name: &str) -> Arc<Process> {
    Arc::new(Process { pid, executable: name.into(), confidence: ProcessConfidence::Proven })
}

/// A pod `namespace/name` of the deployment `web`, with a container `nginx`.
pub(crate) fn pod(namespace: &str, name: &str) -> Identity {
    let workload = Workload {
        kind: WorkloadKind::Pod,
        namespace: Some(namespace.into()),
        name: name.into(),
        uid: "51f3".into(),
        owner_kind: "Deployment".into(),
        owner_name: "web".into(),
        node: Some("node-1".into()),
        labels: [("app".into(), "web".into()), ("tier".into(), "front".into())].into(),
    };
    Identity {
        workload: Some(Arc::new(workload)),
        confidence: Some(WorkloadConfidence::Address),
        service: None,
        container: Some(Arc::new(Container { id: "0123456789ab".into(), name: Some("nginx".into()) })),
        dns_name: None,
        unknown: None,
    }
}

/// TCP from a local curl to a server, both directions.
pub(crate) fn web() -> Record {
    let mut record = record(
        tuple(6, ("172.18.0.5", 55136), ("172.18.0.6", 443)),
        traffic(10, 66, 0x12),
        traffic(20, 1514, 0x10),
    );
    record.source.process = Some(process(4242, "curl"));
    record.source.owner = SocketOwner { cookie: 77, cgroup: 0 };
    record
}
