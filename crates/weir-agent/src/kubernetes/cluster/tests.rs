use serde_json::{Value, json};
use weir_flow::{Unknown, WorkloadConfidence};

use super::*;
use crate::kubernetes::{
    config::Label,
    names::{ContainerId, Span},
};

const SECOND: u64 = 1_000_000_000;

/// Seconds after 2026-01-01T00:00:00Z.
fn at(second: u64) -> Wall {
    Wall((1_767_225_600 + second) * SECOND)
}

fn time(second: u64) -> String {
    format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)
}

fn uid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// A pod of the replica set `web-5d4f`, running since `second`.
fn pod(number: u64, address: &str, second: u64) -> Value {
    json!({
        "metadata": {
            "name": format!("web-5d4f-{number}"), "namespace": "shop", "uid": uid(number), "resourceVersion": "1",
            "creationTimestamp": time(second), "labels": {"app": "web", "pod-template-hash": "5d4f"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f", "uid": "rs-1", "controller": true}],
            "managedFields": [{"manager": "ignored"}]
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "ignored"}]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": time(second),
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": time(second + 2)}
            ],
            "containerStatuses": null
        }
    })
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn applied(value: Value) -> Change {
    Change::Applied(Resource::Pods, Object::Pod(Box::new(object(value))))
}

fn deleted(value: Value) -> Change {
    Change::Deleted(Resource::Pods, Object::Pod(Box::new(object(value))))
}

fn replica_set() -> Change {
    let owned = json!({"metadata": {
        "name": "web-5d4f", "namespace": "shop", "uid": "rs-1",
        "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "d-1", "controller": true}]
    }});
    Change::Applied(Resource::ReplicaSets, Object::Owned(Box::new(object(owned))))
}

/// A cluster with complete, empty lists.
fn synced(extract: &Extract) -> Cluster {
    let mut cluster = Cluster::new(extract);
    for resource in [Resource::ReplicaSets, Resource::Nodes, Resource::Services, Resource::Pods] {
        cluster.apply(Change::Listing(resource), at(0));
        cluster.apply(Change::Listed(resource), at(0));
    }
    cluster
}

fn look(cluster: &Cluster, address: &str, second: u64) -> Result<(String, WorkloadConfidence), Unknown> {
    let span = Span { start: at(second), end: at(second) };
    let names = cluster.names();
    let found = names.by_address(address.parse().unwrap(), span);
    found.map(|(workload, confidence)| (workload.name.to_string(), confidence))
}

#[track_caller]
fn check(cluster: &Cluster, address: &str, second: u64, expected: Result<&str, Unknown>) {
    let found = look(cluster, address, second).map(|(name, _)| name);
    assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{address} at {second}");
}

#[test]
fn nothing_is_said_before_the_lists_are_complete() {
    let mut cluster = Cluster::new(&Extract::default());
    check(&cluster, "10.1.0.1", 10, Err(Unknown::NotYetSynced));
    cluster.apply(Change::Listing(Resource::Pods), at(5));
    cluster.apply(applied(pod(1, "10.1.0.1", 1)), at(5));
    check(&cluster, "10.1.0.1", 10, Ok("web-5d4f-1"));
    check(&cluster, "10.1.0.2", 10, Err(Unknown::NotYetSynced));
    for resource in [Resource::Pods, Resource::Nodes, Resource::Services] {
        cluster.apply(Change::Listed(resource), at(6));
    }
    check(&cluster, "10.1.0.2", 10, Err(Unknown::NoPodForAddress));
    check(&cluster, "127.0.0.1", 10, Err(Unknown::LocalAddress));
    check(&cluster, "fe80::1", 10, Err(Unknown::LocalAddress));
    check(&cluster, "224.0.0.251", 10, Err(Unknown::NotUnicast));
}

#[test]
fn an_address_that_is_used_again_is_never_given_to_the_old_pod() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    cluster.apply(deleted(pod(1, "10.1.0.1", 10)), at(30));
    cluster.apply(applied(pod(2, "10.1.0.1", 40)), at(43));
    check(&cluster, "10.1.0.1", 29, Ok("web-5d4f-1"));
    check(&cluster, "10.1.0.1", 35, Err(Unknown::NotAtThatTime));
    check(&cluster, "10.1.0.1", 41, Ok("web-5d4f-2"));
    // News of the end that come after those of the successor.
    cluster.apply(applied(pod(3, "10.1.0.1", 60)), at(63));
    cluster.apply(deleted(pod(2, "10.1.0.1", 40)), at(70));
    check(&cluster, "10.1.0.1", 61, Ok("web-5d4f-2"));
    check(&cluster, "10.1.0.1", 62, Ok("web-5d4f-3"));
    check(&cluster, "10.1.0.1", 69, Ok("web-5d4f-3"));
}

#[test]
fn a_pod_that_is_over_has_no_address_though_the_api_shows_one() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    let mut over = pod(1, "10.1.0.1", 10);
    over["status"]["phase"] = "Succeeded".into();
    over["status"]["containerStatuses"] = json!([{"name": "main", "containerID": format!("containerd://{}", id(1)),
                "state": {"terminated": {"startedAt": time(12), "finishedAt": time(20)}}}]);
    cluster.apply(applied(over), at(30));
    check(&cluster, "10.1.0.1", 20, Ok("web-5d4f-1"));
    check(&cluster, "10.1.0.1", 22, Err(Unknown::NotAtThatTime));
    assert_eq!(cluster.pods(), 0);
}

#[test]
fn a_flow_that_began_with_a_pod_stays_with_it_until_another_has_the_address() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    cluster.apply(deleted(pod(1, "10.1.0.1", 10)), at(30));
    let names = cluster.names();
    let late = Span { start: at(25), end: at(33) };
    let address = "10.1.0.1".parse().unwrap();
    assert_eq!(names.by_address(address, late).map(|(pod, _)| &*pod.name), Ok("web-5d4f-1"));
    cluster.apply(applied(pod(2, "10.1.0.1", 31)), at(33));
    let names = cluster.names();
    assert_eq!(names.by_address(address, late).map(|(pod, _)| &*pod.name), Ok("web-5d4f-2"));
}

#[test]
fn what_a_new_list_does_not_have_ended_when_the_server_was_last_heard_of() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    cluster.apply(applied(pod(2, "10.1.0.2", 10)), at(12));
    cluster.apply(Change::Lost(Resource::Pods), at(100));
    check(&cluster, "10.1.0.1", 105, Ok("web-5d4f-1"));
    assert_eq!(look(&cluster, "10.1.0.1", 105).unwrap().1, WorkloadConfidence::Address);
    assert_eq!(look(&cluster, "10.1.0.1", 7_000).unwrap().1, WorkloadConfidence::Stale);
    check(&cluster, "10.1.0.9", 7_000, Err(Unknown::ApiUnreachable));

    cluster.apply(Change::Listing(Resource::Pods), at(7_100));
    cluster.apply(applied(pod(2, "10.1.0.2", 10)), at(7_100));
    cluster.apply(Change::Listed(Resource::Pods), at(7_100));
    check(&cluster, "10.1.0.1", 99, Ok("web-5d4f-1"));
    check(&cluster, "10.1.0.1", 7_101, Err(Unknown::NotAtThatTime));
    assert_eq!(look(&cluster, "10.1.0.2", 7_101), Ok(("web-5d4f-2".into(), WorkloadConfidence::Address)));
}

#[test]
fn a_quiet_server_that_answers_again_makes_names_current() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    cluster.apply(Change::Lost(Resource::Pods), at(20));
    cluster.apply(Change::Heard(Resource::Pods), at(90));
    assert_eq!(look(&cluster, "10.1.0.1", 95).unwrap().1, WorkloadConfidence::Address);
}

#[test]
fn pods_belong_to_what_controls_their_controller() {
    let mut cluster = synced(&Extract::default());
    let owner = |cluster: &Cluster| {
        let names = cluster.names();
        let span = Span { start: at(20), end: at(20) };
        let (pod, _) = names.by_address("10.1.0.1".parse().unwrap(), span).unwrap();
        let uid = PodUid::parse(&pod.uid).unwrap();
        assert!(Arc::ptr_eq(pod, names.by_pod_uid(uid).unwrap()));
        format!("{}/{}", pod.owner_kind, pod.owner_name)
    };
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    assert_eq!(owner(&cluster), "ReplicaSet/web-5d4f");
    cluster.apply(replica_set(), at(13));
    assert_eq!(owner(&cluster), "Deployment/web");
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(14));
    assert_eq!(owner(&cluster), "Deployment/web");

    let extract = Extract { deployment_name_from_replicaset: true, ..Extract::default() };
    let mut cluster = synced(&extract);
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    assert_eq!(owner(&cluster), "Deployment/web");
}

#[test]
fn a_pod_of_the_node_s_network_is_found_by_container_and_identifier_only() {
    let mut cluster = synced(&Extract::default());
    let node = json!({
        "metadata": {"name": "node-1", "uid": uid(100), "creationTimestamp": time(0)},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "node-1"}
        ]}
    });
    cluster.apply(Change::Applied(Resource::Nodes, Object::Node(Box::new(object(node)))), at(1));
    let mut host = pod(1, "192.0.2.1", 10);
    host["spec"]["hostNetwork"] = true.into();
    host["status"]["containerStatuses"] = json!([{"name": "proxy", "containerID": format!("cri-o://{}", id(7)),
                "state": {"running": {"startedAt": time(12)}}}]);
    cluster.apply(applied(host), at(12));
    check(&cluster, "192.0.2.1", 20, Ok("node-1"));
    let names = cluster.names();
    let contained = names.by_container(&ContainerId::parse(&id(7)).unwrap()).unwrap();
    assert_eq!((&*contained.pod.name, contained.container.name.as_deref()), ("web-5d4f-1", Some("proxy")));
    assert_eq!(&*contained.container.id, id(7));
}

#[test]
fn a_restarted_container_is_found_beside_the_one_before() {
    let mut cluster = synced(&Extract::default());
    let with = |container: u8| {
        let mut pod = pod(1, "10.1.0.1", 10);
        pod["status"]["containerStatuses"] =
            json!([{"name": "main", "containerID": format!("containerd://{}", id(container))}]);
        pod
    };
    cluster.apply(applied(with(1)), at(12));
    cluster.apply(applied(with(2)), at(50));
    let known = |cluster: &Cluster, container: u8| {
        cluster.names().by_container(&ContainerId::parse(&id(container)).unwrap()).is_some()
    };
    assert!(known(&cluster, 1) && known(&cluster, 2));
    cluster.sweep(at(50 + 301));
    assert!(!known(&cluster, 1) && known(&cluster, 2));
    check(&cluster, "10.1.0.1", 400, Ok("web-5d4f-1"));
}

#[test]
fn what_ended_is_forgotten_after_a_while_and_nothing_else() {
    let mut cluster = synced(&Extract::default());
    for number in 1..=100 {
        cluster.apply(applied(pod(number, &format!("10.1.0.{number}"), 10)), at(12));
    }
    for number in 2..=100 {
        cluster.apply(deleted(pod(number, &format!("10.1.0.{number}"), 10)), at(30));
    }
    cluster.sweep(at(40));
    assert_eq!(cluster.names().addresses(), 100);
    cluster.sweep(at(30 + 301));
    assert_eq!(cluster.names().addresses(), 1);
    check(&cluster, "10.1.0.1", 400, Ok("web-5d4f-1"));
    assert_eq!(cluster.names().by_pod_uid(PodUid::parse(&uid(2)).unwrap()), None);
}

#[test]
fn services_lead_to_pods() {
    let mut cluster = synced(&Extract::default());
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "svc-1", "creationTimestamp": time(0)},
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.80"}, {"hostname": "ignored"}]}}
    });
    let slice = json!({
        "metadata": {"name": "web-x", "namespace": "shop", "uid": "slice-1",
                     "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.1.0.1"]}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]
    });
    cluster.apply(
        Change::Applied(Resource::EndpointSlices, Object::EndpointSlice(Box::new(object(slice)))),
        at(1),
    );
    cluster.apply(
        Change::Applied(Resource::Services, Object::Service(Box::new(object(service.clone())))),
        at(2),
    );
    for address in ["10.96.0.10", "fd00:96::10", "192.0.2.80"] {
        check(&cluster, address, 20, Ok("web"));
    }
    let names = cluster.names();
    let span = Span { start: at(20), end: at(20) };
    let (found, _) = names.by_address("10.96.0.10".parse().unwrap(), span).unwrap();
    let backends = names.backends(found).unwrap();
    assert!(backends.lead_to(6, 80, "10.1.0.1".parse().unwrap(), 8080));

    cluster.apply(Change::Deleted(Resource::Services, Object::Service(Box::new(object(service)))), at(30));
    check(&cluster, "10.96.0.10", 31, Err(Unknown::NotAtThatTime));
}

#[test]
fn headless_services_have_no_address() {
    let mut cluster = synced(&Extract::default());
    let service = json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "svc-2"},
        "spec": {"clusterIP": "None", "clusterIPs": ["None"]}
    });
    cluster.apply(Change::Applied(Resource::Services, Object::Service(Box::new(object(service)))), at(2));
    assert_eq!(cluster.names().addresses(), 0);
}

#[test]
fn labels_are_kept_under_the_name_that_was_asked_for() {
    let label = |key: &str, tag: Option<&str>| Label {
        key: key.into(),
        tag_name: tag.map(Into::into),
        from: crate::kubernetes::config::LabelFrom::Pod,
    };
    let extract = Extract {
        labels: vec![label("tier", None), label("app", Some("application"))],
        ..Extract::default()
    };
    let mut cluster = synced(&extract);
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    let names = cluster.names();
    let pod = names.by_pod_uid(PodUid::parse(&uid(1)).unwrap()).unwrap();
    assert_eq!(*pod.labels, [("application".into(), "web".into())]);
}

#[test]
fn a_refused_list_is_not_waited_for() {
    let mut cluster = Cluster::new(&Extract::default());
    for resource in [Resource::Pods, Resource::Nodes] {
        cluster.apply(Change::Listing(resource), at(0));
        cluster.apply(Change::Listed(resource), at(0));
    }
    check(&cluster, "10.1.0.1", 5, Err(Unknown::NotYetSynced));
    cluster.apply(Change::Refused(Resource::Services), at(1));
    check(&cluster, "10.1.0.1", 5, Err(Unknown::NoPodForAddress));
    cluster.apply(Change::Lost(Resource::Services), at(2));
    check(&cluster, "10.1.0.1", 5, Err(Unknown::NoPodForAddress));
}

#[test]
fn a_list_that_is_refused_later_gets_old() {
    let mut cluster = synced(&Extract::default());
    cluster.apply(applied(pod(1, "10.1.0.1", 10)), at(12));
    cluster.apply(Change::Refused(Resource::Pods), at(20));
    assert_eq!(look(&cluster, "10.1.0.1", 25).unwrap().1, WorkloadConfidence::Address);
    assert_eq!(look(&cluster, "10.1.0.1", 60).unwrap().1, WorkloadConfidence::Stale);
}
