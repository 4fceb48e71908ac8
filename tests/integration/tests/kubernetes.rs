//! Names from a real API server: scaling, moving, reuse of addresses, loss of the server, permissions.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_agent::{
    enrich::{Containers, Enrich as _, WorkloadEnricher},
    kubernetes::{
        Kubernetes, KubernetesConfig, Names, ResourceState, Status,
        names::{ContainerId, Span},
    },
};
use weir_flow::{
    Unknown, Wall, Workload, WorkloadConfidence,
    field::{Field, Value as FieldValue},
    rebuild::record_of,
};
use weir_integration::{
    cgroup::ControlGroup,
    control_plane::{ControlPlane, Link, PATIENCE, wait},
};

/// Names that follow an API server, with the runtime that they need.
struct Follower {
    kubernetes: Kubernetes,
    runtime: Runtime,
}

impl Follower {
    fn start(kubeconfig: PathBuf) -> Self {
        let config = KubernetesConfig { kubeconfig: Some(kubeconfig), ..KubernetesConfig::default() };
        let runtime = Runtime::new().expect("threads can be started");
        let kubernetes = runtime.block_on(Kubernetes::start(&config)).expect("the kubeconfig is right");
        Self { kubernetes, runtime }
    }

    /// Waits until the status is such that this holds.
    fn wait(&self, what: &str, holds: impl FnMut(&Status) -> bool) {
        let waiting = async { tokio::time::timeout(PATIENCE, self.kubernetes.wait_for(holds)).await };
        let came = self.runtime.block_on(waiting);
        assert_eq!(came, Ok(true), "{what}: {:#?}", self.kubernetes.status());
    }

    fn current(self) -> Self {
        self.wait("complete lists", Status::is_current);
        self
    }

    fn names(&self) -> Arc<Names> {
        self.kubernetes.names().load_full()
    }

    fn at(&self, address: &str, time: Wall) -> Result<(Arc<Workload>, WorkloadConfidence), Unknown> {
        let address: IpAddr = address.parse().expect("tests write addresses");
        let names = self.names();
        let (workload, confidence) = names.by_address(address, Span { start: time, end: time })?;
        Ok((Arc::clone(workload), confidence))
    }

    /// Waits until the address has this name now.
    fn wait_for_name(&self, address: &str, name: &str) -> Arc<Workload> {
        wait(&format!("{address} is {name}"), || {
            self.at(address, now()).is_ok_and(|(workload, _)| *workload.name == *name)
        });
        self.at(address, now()).expect("it had it just now").0
    }

    fn wait_for_reason(&self, address: &str, reason: Unknown) {
        wait(&format!("{address} is {}", reason.as_str()), || {
            self.at(address, now()).is_err_and(|unknown| unknown == reason)
        });
    }
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    Wall(u64::try_from(since.as_nanos()).expect("until the year 2554"))
}

/// This moment as the API writes it.
fn stamp() -> String {
    let mut date = std::process::Command::new("date");
    let output = date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("date is there");
    String::from_utf8(output.stdout).expect("it writes digits").trim().to_owned()
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "nodeName": "node-1", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": "none" }],
        },
    })
}

/// What a kubelet says of a pod that runs.
fn running(address: &str, container: u8) -> Value {
    let stamp = stamp();
    json!({
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "startTime": stamp,
        "conditions": [{ "type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": stamp }],
        "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{}", format!("{container:02x}").repeat(32)),
            "state": { "running": { "startedAt": stamp } },
        }],
    })
}

/// Without the controller manager nobody makes the account that pods have.
fn default_account(plane: &ControlPlane) {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "default" },
    });
    plane.create(&[account]);
}

#[test]
fn deployments_scale_and_services_lead_to_their_pods() {
    let Some(mut plane) = ControlPlane::start() else { return };
    plane.start_controllers();
    let follower = Follower::start(plane.admin()).current();
    let labels = json!({ "app": "web" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "main", "image": "none" }] },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "ipFamilyPolicy": "PreferDualStack", "selector": labels,
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        },
    });
    let cronjob = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "nightly", "namespace": "default" },
        "spec": {
            "schedule": "0 0 31 2 *",
            "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }],
            }}}},
        },
    });
    // Pods on a node that does not exist are in no slice, and are cleaned up.
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } });
    plane.create(&[node, deployment, service, cronjob]);
    plane.run(&["create", "job", "nightly-1", "--from=cronjob/nightly"]);

    let pods = |selector: &str| -> Vec<String> {
        let list = plane.get(&format!("/api/v1/namespaces/default/pods?labelSelector={selector}"));
        let items = list["items"].as_array().unwrap();
        items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let run = |name: &str, address: &str, container: u8| {
        let file = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node-1" },
        });
        plane.post(&format!("/api/v1/namespaces/default/pods/{name}/binding"), &file);
        let mut status = running(address, container);
        status["conditions"].as_array_mut().unwrap().push(json!({ "type": "Ready", "status": "True" }));
        plane.patch_status("pod", "default", name, &status);
    };
    wait("two pods", || pods("app=web").len() == 2);
    let first = pods("app=web");
    run(&first[0], "10.1.0.1", 1);
    run(&first[1], "10.1.0.2", 2);
    for (name, address) in first.iter().zip(["10.1.0.1", "10.1.0.2"]) {
        let pod = follower.wait_for_name(address, name);
        wait("the deployment", || {
            let (pod, _) = follower.at(address, now()).unwrap();
            (&*pod.owner_kind, &*pod.owner_name) == ("Deployment", "web")
        });
        assert_eq!(pod.node.as_deref(), Some("node-1"));
    }
    wait("the pod of the job", || pods("job-name=nightly-1").len() == 1);
    run(&pods("job-name=nightly-1")[0], "10.1.0.9", 9);
    wait("the cron job", || {
        follower
            .at("10.1.0.9", now())
            .is_ok_and(|(pod, _)| (&*pod.owner_kind, &*pod.owner_name) == ("CronJob", "nightly"))
    });

    // Both families of the service, and the pods behind it.
    let spec = plane.get("/api/v1/namespaces/default/services/web")["spec"].clone();
    let addresses: Vec<&str> =
        spec["clusterIPs"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(addresses.len(), 2, "{spec}");
    for address in addresses {
        let service = follower.wait_for_name(address, "web");
        wait("both pods behind the service", || {
            let names = follower.names();
            let leads = |pod: &str| {
                names
                    .backends(&service)
                    .is_some_and(|backends| backends.lead_to(6, 80, pod.parse().unwrap(), 8080))
            };
            leads("10.1.0.1") && leads("10.1.0.2")
        });
    }

    plane.run(&["scale", "deployment/web", "--replicas=3"]);
    wait("three pods", || pods("app=web").len() == 3);
    let third = pods("app=web").into_iter().find(|name| !first.contains(name)).unwrap();
    run(&third, "10.1.0.3", 3);
    follower.wait_for_name("10.1.0.3", &third);

    // One goes; another takes its place, with another address.
    plane.delete_pod("default", &first[0]);
    follower.wait_for_reason("10.1.0.1", Unknown::NotAtThatTime);
    wait("a new pod", || pods("app=web").len() == 3);
    let fourth = pods("app=web").into_iter().find(|name| !first.contains(name) && *name != third).unwrap();
    run(&fourth, "10.1.0.4", 4);
    follower.wait_for_name("10.1.0.4", &fourth);
}

#[test]
fn an_address_that_is_used_again_has_the_right_name_before_and_after() {
    let Some(plane) = ControlPlane::start() else { return };
    default_account(&plane);
    let follower = Follower::start(plane.admin()).current();
    let (address, rounds) = ("10.1.0.1", 5);
    // As the kernel would see it: from when to when each pod had the address.
    let mut truth = Vec::new();
    let stop = AtomicBool::new(false);
    let looked_up = thread::scope(|scope| {
        // Flows of this address are named all the time, as of now and as of a second ago.
        let looking = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                for age in [0, 1_000_000_000] {
                    let looked = now();
                    let time = Wall(looked.0 - age);
                    let name = follower.at(address, time).ok().map(|(pod, _)| pod.name.to_string());
                    seen.push((looked, time, name));
                }
                thread::park_timeout(Duration::from_millis(1));
            }
            seen
        });
        for round in 0..rounds {
            let name = format!("pod-{round}");
            plane.create(&[pod(&name)]);
            // The API tells whole seconds, cut off: this one began at most one before it was written down.
            let before = now();
            let status = running(address, round);
            let from = now();
            plane.patch_status("pod", "default", &name, &status);
            follower.wait_for_name(address, &name);
            // Half of them go before the next one comes, of the others the end is told late or never.
            let until = now();
            truth.push((name.clone(), [before, from], until));
            if round % 2 == 0 {
                plane.delete_pod("default", &name);
                follower.wait_for_reason(address, Unknown::NotAtThatTime);
            }
            // The next one has the address a second later at the earliest, as with any kubelet.
            let next = until + Duration::from_millis(1_100);
            wait("the next second", || now() > next);
        }
        stop.store(true, Ordering::SeqCst);
        looking.join().unwrap()
    });
    let mut named = 0;
    for (looked, time, name) in looked_up {
        let Some(name) = name else { continue };
        named += 1;
        let position = truth.iter().position(|(pod, ..)| *pod == name).unwrap();
        let (_, [before, _], _) = &truth[position];
        assert!(time.0 + 1_000_000_000 >= before.0, "{name} before it was there");
        // Nobody can know of a new pod before the API server tells: until then the old one may still be named if its end was
        // not told either.
        if let Some((next, [_, from], known)) = truth.get(position + 1) {
            assert!(time < *from || looked <= *known, "{name} when {next} had the address");
        }
    }
    assert!(named > 100, "{named} look-ups found a pod");
    // Afterwards everybody has the right name at every time.
    for (name, _, until) in &truth {
        assert_eq!(*follower.at(address, *until).unwrap().0.name, **name);
    }
}

#[test]
fn without_the_server_names_stay_and_say_that_they_are_old() {
    let Some(mut plane) = ControlPlane::start() else { return };
    default_account(&plane);
    plane.create(&[pod("a"), pod("b")]);
    plane.patch_status("pod", "default", "a", &running("10.1.0.1", 1));
    let follower = Follower::start(plane.admin()).current();
    follower.wait_for_name("10.1.0.1", "a");

    plane.stop_api();
    follower.wait("the loss", |status| status.resources["pods"].state == ResourceState::Stale);
    assert!(follower.kubernetes.status().resources["pods"].trouble.is_some());
    let hours_later = now() + Duration::from_hours(2);
    let (found, confidence) = follower.at("10.1.0.1", hours_later).unwrap();
    assert_eq!((&*found.name, confidence), ("a", WorkloadConfidence::Stale));
    assert_eq!(follower.at("10.1.0.2", hours_later).unwrap_err(), Unknown::ApiUnreachable);

    plane.start_api();
    plane.patch_status("pod", "default", "b", &running("10.1.0.2", 2));
    follower.wait_for_name("10.1.0.2", "b");
    follower.wait("current lists", Status::is_current);
    assert_eq!(follower.at("10.1.0.1", now()).unwrap().1, WorkloadConfidence::Address);
    assert_eq!(follower.kubernetes.status().resources["pods"].trouble, None);
}

#[test]
fn a_watch_that_is_too_old_is_replaced_by_a_new_list() {
    let Some(mut plane) = ControlPlane::start() else { return };
    default_account(&plane);
    plane.create(&[pod("stays"), pod("goes")]);
    plane.patch_status("pod", "default", "stays", &running("10.1.0.1", 1));
    plane.patch_status("pod", "default", "goes", &running("10.1.0.2", 2));
    let link = Link::to(plane.api_port());
    let follower = Follower::start(plane.admin_through(&link)).current();
    follower.wait_for_name("10.1.0.2", "goes");
    let before_the_cut = now();

    // The cluster goes on without us, and forgets what we did not hear.
    link.cut();
    follower.wait("the loss", |status| status.resources["pods"].state == ResourceState::Stale);
    plane.delete_pod("default", "goes");
    plane.create(&[pod("comes")]);
    let second = now() + Duration::from_millis(1_100);
    wait("the next second", || now() > second);
    plane.patch_status("pod", "default", "comes", &running("10.1.0.2", 3));
    plane.compact();
    link.mend();

    let lists = |status: &Status| status.resources["pods"].lists;
    follower.wait("a second list", |status| lists(status) == 2 && status.is_current());
    follower.wait_for_name("10.1.0.1", "stays");
    follower.wait_for_name("10.1.0.2", "comes");
    assert_eq!(*follower.at("10.1.0.2", before_the_cut).unwrap().0.name, *"goes");
}

#[test]
fn the_role_grants_what_names_need_and_nothing_else() {
    let Some(plane) = ControlPlane::start() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    plane.apply(&root.join("deploy/kubernetes/cluster-role.yaml"));
    plane.create(&[
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "weir" } }),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "weir-agent", "namespace": "weir" },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "weir-agent" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "weir-agent" },
            "subjects": [{ "kind": "ServiceAccount", "name": "weir-agent", "namespace": "weir" }],
        }),
    ]);
    let account = plane.service_account("weir", "weir-agent");
    let follower = Follower::start(account);
    // The server refuses until it has heard of the new role itself.
    follower.wait("all that names need is granted", |status| {
        let mut states = status.resources.values().map(|resource| resource.state);
        status.resources.len() == 6 && states.all(|state| state == ResourceState::Current)
    });

    let user = "--as=system:serviceaccount:weir:weir-agent";
    let allowed = |verb: &str, resource: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let answer =
            plane.try_run(&["auth", "can-i", verb, resource, &subresource, "--all-namespaces", user]);
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    let granted =
        ["pods", "nodes", "services", "endpointslices.discovery.k8s.io", "replicasets.apps", "jobs.batch"];
    for resource in granted {
        assert!(allowed("list", resource) && allowed("watch", resource), "{resource}");
        assert!(!allowed("create", resource) && !allowed("delete", resource), "{resource}");
    }
    for resource in ["secrets", "configmaps", "namespaces", "nodes/proxy", "pods/exec", "deployments.apps"] {
        assert!(!allowed("get", resource) && !allowed("list", resource), "{resource}");
    }
}

#[test]
fn what_the_role_does_not_grant_is_said_and_the_rest_works() {
    let Some(plane) = ControlPlane::start() else { return };
    default_account(&plane);
    plane.create(&[
        pod("a"),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "few", "namespace": "default" },
        }),
    ]);
    plane.run(&[
        "create",
        "clusterrole",
        "few",
        "--verb=list,watch",
        "--resource=pods,nodes,replicasets.apps",
    ]);
    plane.run(&["create", "clusterrolebinding", "few", "--clusterrole=few", "--serviceaccount=default:few"]);
    plane.patch_status("pod", "default", "a", &running("10.1.0.1", 1));

    let follower = Follower::start(plane.service_account("default", "few")).current();
    follower.wait_for_name("10.1.0.1", "a");
    // The server refuses everything until it has heard of the new role itself.
    follower.wait("what is granted is current, and the rest refused", |status| {
        let are = |names: [&str; 3], state| names.iter().all(|name| status.resources[*name].state == state);
        are(["services", "jobs", "endpointslices"], ResourceState::Refused)
            && are(["pods", "nodes", "replicasets"], ResourceState::Current)
    });
    let status = follower.kubernetes.status();
    let trouble = status.resources["services"].trouble.clone().unwrap_or_default();
    assert!(trouble.contains("services is forbidden"), "{trouble}");
    assert_eq!(follower.at("10.1.0.7", now()).unwrap_err(), Unknown::NoPodForAddress);
}

#[test]
fn pods_of_the_host_network_are_told_apart_by_their_containers() {
    let Some(plane) = ControlPlane::start() else { return };
    default_account(&plane);
    let mut host = pod("on-host");
    host["spec"]["hostNetwork"] = true.into();
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } });
    plane.create(&[node, host, pod("inside")]);
    plane.patch_status(
        "node",
        "default",
        "node-1",
        &json!({
            "addresses": [
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "InternalIP", "address": "2001:db8::1" },
                { "type": "Hostname", "address": "node-1" },
            ],
        }),
    );
    plane.patch_status("pod", "default", "on-host", &running("192.0.2.1", 1));
    plane.patch_status("pod", "default", "inside", &running("10.1.0.1", 2));

    let follower = Follower::start(plane.admin()).current();
    follower.wait_for_name("10.1.0.1", "inside");
    for address in ["192.0.2.1", "2001:db8::1"] {
        follower.wait_for_name(address, "node-1");
    }
    let id = |container: u8| ContainerId::parse(&format!("{container:02x}").repeat(32)).unwrap();
    let names = follower.names();
    let pods = [1, 2].map(|container| names.by_container(&id(container)).unwrap().pod.name.to_string());
    assert_eq!(pods, ["on-host", "inside"]);

    // The same with sockets: one of that pod, and one of the node itself.
    let Some(group) = ControlGroup::make(&format!("cri-containerd-{}.scope", id(1))) else { return };
    let (containers, _watch) = Containers::watch().unwrap();
    let config = KubernetesConfig::default();
    let enricher = WorkloadEnricher::new(follower.kubernetes.names(), containers, &config);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let record = |group: u64| {
        record_of(&|name| match name {
            "source.address" | "destination.address" => FieldValue::Address(address),
            "source.cgroup.id" => FieldValue::Integer(group),
            "flow.start" | "flow.end" => FieldValue::Timestamp(now()),
            "flow.detail" => FieldValue::Text("flow".into()),
            _ => FieldValue::Absent,
        })
    };
    wait("the pod of the socket", || {
        let mut records = [record(group.id()), record(1)];
        enricher.enrich(&mut records);
        let text = |record: &weir_flow::Record, field: &str| {
            Field::by_name(field).unwrap().value(record).to_string()
        };
        assert_eq!(text(&records[1], "source.k8s.pod.name"), "");
        assert_eq!(text(&records[1], "source.k8s.node.name"), "node-1");
        text(&records[0], "source.k8s.pod.name") == "on-host"
            && text(&records[0], "source.k8s.confidence") == "proven"
            && text(&records[0], "source.container.name") == "main"
            && text(&records[0], "destination.k8s.owner.kind") == "Node"
    });
}

#[test]
fn a_list_of_many_pages_is_complete() {
    let Some(plane) = ControlPlane::start() else { return };
    default_account(&plane);
    let pods: Vec<Value> = (0..600).map(|number| pod(&format!("pod-{number}"))).collect();
    plane.create(&pods);
    let follower = Follower::start(plane.admin()).current();
    follower.wait("all pods", |status| status.pods == 600);
    assert_eq!(follower.kubernetes.status().resources["pods"].lists, 1);
}
