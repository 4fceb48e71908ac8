use std::net::IpAddr;

use serde_json::{Value, json};
use weir_flow::{
    Counters, Direction, Identity, Initiator, Monotonic, Point, PointId, Role, SocketOwner, Tuple, Wall,
};
use weir_packet::{Details, ipv4_words};

use super::*;
use crate::kubernetes::{
    cluster::{Change, Cluster, Object, Resource},
    config::Extract,
};

const NOW: u64 = 1_767_225_600_000_000_000;

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(_) => panic!("these tests have no IPv6"),
    }
}

/// A TCP flow that began `age` seconds before now.
fn flow(source: (&str, u16), destination: (&str, u16), age: u64) -> Record {
    let ends = [source, destination].map(|(address, port)| (address.parse::<IpAddr>().unwrap(), port));
    let details = Details::new(false, 6).with_ports(ends[0].1, ends[1].1);
    let end = |(address, port): (IpAddr, u16)| Endpoint {
        address,
        port,
        owner: SocketOwner::default(),
        process: None,
        identity: Identity::default(),
    };
    let point = Point {
        id: PointId(1),
        netns: None,
        ifindex: 1,
        interface: "eth0".into(),
        direction: Direction::Egress,
        role: Role::Uplink,
    };
    Record {
        tuple: Tuple::new(words(ends[0].0), words(ends[1].0), details),
        source: end(ends[0]),
        destination: end(ends[1]),
        point: Arc::new(point),
        delta: Counters::default(),
        total: Counters::default(),
        start: Wall(NOW - age * 1_000_000_000),
        end: Wall(NOW),
        first: Monotonic(0),
        last: Monotonic(0),
        initiator: Initiator::Proven,
        end_reason: None,
        detail: Detail::Flow,
        outcome: weir_flow::Outcome::default(),
        quality: weir_flow::Quality::default(),
        dns: None,
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, uid: u8, address: &str) -> Change {
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{uid:032x}"),
                     "creationTimestamp": "2025-12-01T00:00:00Z"},
        "status": {
            "phase": "Running", "podIP": address, "startTime": "2025-12-01T00:00:00Z",
            "containerStatuses": [{"name": "main", "containerID": format!("containerd://{}", format!("{uid:02x}").repeat(32)),
                                   "state": {"running": {"startedAt": "2025-12-01T00:00:00Z"}}}]
        }
    });
    Change::Applied(Resource::Pods, Object::Pod(Box::new(object(pod))))
}

/// Two pods behind a service and one that asks it.
fn cluster(behind: &[&str]) -> Cluster {
    let before = Wall(NOW - 600_000_000_000);
    let mut cluster = Cluster::new(&Extract::default());
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "svc", "creationTimestamp": "2025-12-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}
    });
    let endpoints: Vec<Value> = behind.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "slice", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints, "ports": [{"port": 8080}]
    });
    for change in [
        Change::Applied(Resource::Services, Object::Service(Box::new(object(service)))),
        Change::Applied(Resource::EndpointSlices, Object::EndpointSlice(Box::new(object(slice)))),
        pod("web-1", 1, "10.1.0.1"),
        pod("web-2", 2, "10.1.0.2"),
        pod("client", 3, "10.1.0.3"),
        Change::Listed(Resource::Pods),
        Change::Listed(Resource::Services),
        Change::Listed(Resource::Nodes),
    ] {
        cluster.apply(change, before);
    }
    cluster
}

fn enrich(cluster: &Cluster, records: &mut [Record]) -> WorkloadEnricher {
    let names = Arc::new(ArcSwap::from_pointee(cluster.names()));
    let enricher = WorkloadEnricher::new(names, Containers::default(), &KubernetesConfig::default());
    enricher.enrich(records);
    enricher
}

fn name(end: &Endpoint) -> Option<(&str, WorkloadConfidence)> {
    Some((&*end.identity.workload.as_ref()?.name, end.identity.confidence?))
}

#[test]
fn both_ends_get_names_and_the_outside_gets_a_reason() {
    let mut records =
        [flow(("10.1.0.3", 4000), ("10.1.0.1", 8080), 5), flow(("10.1.0.3", 4001), ("198.51.100.1", 443), 5)];
    let enricher = enrich(&cluster(&[]), &mut records);
    assert_eq!(name(&records[0].source), Some(("client", WorkloadConfidence::Address)));
    assert_eq!(name(&records[0].destination), Some(("web-1", WorkloadConfidence::Address)));
    assert_eq!(records[1].destination.identity.unknown, Some(Unknown::NoPodForAddress));
    let missed =
        |reason: &str| enricher.misses().into_iter().find(|miss| miss.reason == reason).unwrap().ends;
    assert_eq!((missed("no-pod-for-address"), missed("not-yet-synced")), (1, 0));
}

#[test]
fn the_pod_behind_a_service_is_the_one_where_the_same_connection_arrives() {
    let mut records = [
        flow(("10.1.0.3", 4000), ("10.96.0.10", 80), 5),
        flow(("10.1.0.3", 4000), ("10.1.0.2", 8080), 5),
        // Another connection of the same client to the same service, of which only this view is seen.
        flow(("10.1.0.3", 4001), ("10.96.0.10", 80), 5),
        // The same client port to a pod behind the service, but not to the port that the service leads to.
        flow(("10.1.0.3", 4001), ("10.1.0.1", 9000), 5),
    ];
    enrich(&cluster(&["10.1.0.1", "10.1.0.2"]), &mut records);
    let service = |record: &Record| {
        record.destination.identity.service.as_ref().map(|service| service.name.to_string())
    };
    assert_eq!(name(&records[0].destination), Some(("web-2", WorkloadConfidence::Translated)));
    assert_eq!(service(&records[0]).as_deref(), Some("web"));
    assert_eq!(name(&records[1].destination), Some(("web-2", WorkloadConfidence::Address)));
    assert_eq!(service(&records[1]), None);
    assert_eq!(name(&records[2].destination), Some(("web", WorkloadConfidence::Address)));
    assert_eq!(records[2].destination.identity.workload.as_ref().unwrap().kind, WorkloadKind::Service);
}

#[test]
fn a_service_with_one_pod_leads_there_if_it_has_done_so_for_a_while() {
    let mut records =
        [flow(("10.1.0.3", 4000), ("10.96.0.10", 80), 5), flow(("10.1.0.3", 4001), ("10.96.0.10", 80), 590)];
    enrich(&cluster(&["10.1.0.2"]), &mut records);
    assert_eq!(name(&records[0].destination), Some(("web-2", WorkloadConfidence::Translated)));
    assert_eq!(name(&records[1].destination), Some(("web", WorkloadConfidence::Address)));
}

#[test]
fn sums_of_flows_have_no_ends_to_name() {
    let mut records = [flow(("10.1.0.3", 4000), ("10.1.0.1", 8080), 5)];
    records[0].detail = Detail::Folded;
    enrich(&cluster(&[]), &mut records);
    assert_eq!(records[0].source.identity.unknown, Some(Unknown::Folded));
    assert_eq!(records[0].source.identity.workload, None);
}
