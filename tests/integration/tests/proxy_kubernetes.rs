//! `weir proxy` with backends from services, of a real API server.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};
use weir_integration::{
    Namespace,
    control_plane::{ControlPlane, wait},
    machine::Machine,
    neighbourhood::Neighbourhood,
    require_root,
    speaker::{Speaker, call, is_alive},
};

fn called() -> SocketAddr {
    ([10, 0, 0, 10], 12345).into()
}

/// A client with `weir proxy`, two who say `first` and `second`, and the address that is called.
struct Street {
    client: Namespace,
    machine: Machine,
    _others: (Neighbourhood, [Namespace; 2], Namespace),
}

impl Street {
    fn new() -> Self {
        let mut neighbourhood = Neighbourhood::new();
        let client = neighbourhood.join(1);
        let others = [(138, "first"), (139, "second")].map(|(host, name)| {
            let namespace = neighbourhood.join(host);
            Speaker::listen(&namespace, 23456, name);
            namespace
        });
        let called = neighbourhood.join(10);
        let machine = Machine::new(&client);
        Self { client, machine, _others: (neighbourhood, others, called) }
    }

    fn answers(&self) -> String {
        call(&self.client, called()).map_or_else(|error| error.to_string(), |(_, name)| name)
    }

    fn wait_for_text(&self, text: &str) {
        wait(text, || self.machine.types("weir proxy ls").contains(text));
    }
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 23456 }] },
    })
}

fn slice(endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 23456, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

fn endpoint(host: u8, is_ready: bool) -> Value {
    json!({ "addresses": [format!("10.0.0.{host}")], "conditions": { "ready": is_ready } })
}

fn change(plane: &ControlPlane, endpoints: &Value) {
    let patch = json!({ "endpoints": endpoints }).to_string();
    plane.run(&["patch", "endpointslice", "web-1", "--type=merge", "--patch", &patch]);
}

/// Everything in the network namespace of the client, because the API server is on loopback.
fn follow_a_service(street: &Street) {
    let Some(mut plane) = ControlPlane::start() else { return };
    plane.apply(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/proxy-role.yaml"));
    let kubeconfig = plane.service_account("default", "weir-proxy");
    let machine = &street.machine;

    // Nobody answers yet: the rule is there with the reason, and others work.
    plane.stop_api();
    machine.types(&format!("weir proxy run -i veth0 --kubeconfig {} --detach", kubeconfig.display()));
    let add = |port: &str| {
        format!("weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend service:default/web:{port}")
    };
    machine.types(&add("http"));
    machine.types("weir proxy rule add other --listen tcp:10.0.0.10:12346 --backend 10.0.0.138:23456");
    street.wait_for_text("service:default/web:http");
    street.wait_for_text("0 endpoints; the API server is not heard of");
    let (_, name) = call(&street.client, ([10, 0, 0, 10], 12346).into()).expect("the other rule works");
    assert_eq!(name, "first");

    plane.start_api();
    street.wait_for_text("there is no service default/web");
    plane.create(&[service(), slice(&json!([endpoint(138, true)]))]);
    wait("the endpoint answers", || street.answers() == "first");
    let (mut stream, _) = call(&street.client, called()).expect("it answers");

    // Ready ones take what is new, the others keep what they have.
    change(&plane, &json!([endpoint(138, false), endpoint(139, true)]));
    wait("the ready endpoint answers", || street.answers() == "second");
    street.wait_for_text("draining");
    // The same port by its number: nobody is turned away until that is heard of.
    machine.types(&add("80"));
    assert_eq!(street.answers(), "second");
    assert!(is_alive(&mut stream));

    // What was heard last is what counts, also for the next control process.
    plane.stop_api();
    street.wait_for_text("2 endpoints; the API server is not heard of");
    assert_eq!(street.answers(), "second");
    machine.kill_proxy();
    assert!(machine.types("weir proxy ls").contains("10.0.0.139:23456"));
    machine.types("weir proxy run --detach");
    street.wait_for_text("2 endpoints; the API server is not heard of");
    assert_eq!(street.answers(), "second");

    plane.start_api();
    change(&plane, &json!([endpoint(139, true)]));
    street.wait_for_text("leaving");
    assert_eq!(street.answers(), "second");
    assert!(is_alive(&mut stream), "what it has goes on for the drain time");
    machine.types("weir proxy backend weight web 10.0.0.139:23456 3");
    let listed = machine.types("weir proxy ls -o json");
    assert!(listed.contains("\"address\":\"10.0.0.139:23456\",\"weight\":3,\"state\":\"up\""), "{listed}");
    plane.run(&["delete", "endpointslice", "web-1"]);
    street.wait_for_text("0 endpoints; it has no endpoints");
    assert!(call(&street.client, called()).is_err());

    machine.types(&add("https"));
    street.wait_for_text("service default/web has no such port: it has 80 (http) TCP");
}

#[test]
fn endpoints_of_a_service_are_backends_and_the_last_known_ones_stay() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    street.client.run(|| follow_a_service(&street));
}

/// A service that has more endpoints for a while than there are numbers for.
fn outgrow(street: &Street) {
    let Some(plane) = ControlPlane::start() else { return };
    plane.apply(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/proxy-role.yaml"));
    let kubeconfig = plane.service_account("default", "weir-proxy");
    let machine = &street.machine;
    plane.create(&[service(), slice(&json!([endpoint(138, true)]))]);
    machine.types(&format!("weir proxy run -i veth0 --kubeconfig {} --detach", kubeconfig.display()));
    // Each endpoint counts once for each of the listeners.
    machine.types(
        "weir proxy rule add web $(printf -- ' --listen tcp:10.0.0.10:%d' {12345..12377}) --backend service:default/web:http",
    );
    wait("the endpoint answers", || street.answers() == "first");
    let crowd: Vec<Value> = (0..1000_u32)
        .map(|host| json!({ "addresses": [format!("10.7.{}.{}", host / 250, host % 250 + 1)] }))
        .chain([endpoint(139, true)])
        .take(1000)
        .collect();
    change(&plane, &Value::from(crowd));
    street.wait_for_text("not in effect, those of before are");
    assert_eq!(street.answers(), "first");
    // Nobody else has to do with it.
    machine.types("weir proxy rule add other --listen tcp:10.0.0.11:1 --backend 10.0.0.138:1");
    machine.types("weir proxy backend drain other 10.0.0.138:1");
    assert!(machine.shell("weir proxy doctor").stdout.windows(8).any(|it| it == b"rule web"));
    machine.kill_proxy();
    machine.types("weir proxy run --detach");
    street.wait_for_text("not in effect, those of before are");
    assert_eq!(street.answers(), "first");
    change(&plane, &json!([endpoint(139, true)]));
    wait("the endpoint of now answers", || street.answers() == "second");
    assert!(!machine.types("weir proxy ls").contains("not in effect"));
}

#[test]
fn a_service_with_more_endpoints_than_fit_keeps_those_of_before_and_disturbs_nobody() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    street.client.run(|| outgrow(&street));
}

#[test]
fn without_a_way_to_an_api_server_services_are_refused_with_the_remedy() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    let machine = &street.machine;
    let add = "weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend service:shop/web:80";
    machine.types("HOME=/run KUBECONFIG= weir proxy run -i veth0 --detach");
    let said = machine.types_in_vain(add, 1);
    assert!(said.contains("name a kubeconfig with --kubeconfig"), "{said}");
    assert_eq!(machine.types("weir proxy ls -o json").matches("\"name\":\"web\"").count(), 0);
    machine.types("weir proxy teardown");
    machine.types("echo '{rules: [{name: web, listen: [tcp:10.0.0.10:1], backends: [service:shop/web:80]}]}' >/run/r.yaml");
    let said = machine.types_in_vain("HOME=/run KUBECONFIG= weir proxy run -i veth0 -f /run/r.yaml", 1);
    assert!(said.contains("name a kubeconfig with --kubeconfig"), "{said}");
    assert_eq!(machine.types("find /sys/fs/bpf -name 'weir*'"), "");
    let said = machine.types_in_vain("weir proxy run -i veth0 -f /run/r.yaml --kubeconfig /run/none", 1);
    assert!(said.contains("/run/none"), "{said}");
}
