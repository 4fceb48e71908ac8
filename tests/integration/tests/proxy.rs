//! `weir proxy` as users type it, with real clients and servers.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_datapath::hook::tcx_programs;
use weir_integration::{
    Namespace,
    machine::Machine,
    neighbourhood::Neighbourhood,
    require_root,
    speaker::{Callers, Speaker, call, is_alive},
    tcp::wait_until,
    tcx::ForeignTcx,
};

#[path = "proxy/servers.rs"]
mod servers;

/// What the rule of the demo is about.
const CALLED: ([u8; 4], u16) = ([10, 0, 0, 10], 12345);
const ADD: &str = "weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456";

fn called() -> SocketAddr {
    CALLED.into()
}

/// A client at 10.0.0.1, somebody at 10.0.0.10:12345 who says `called`, and others at 10.0.0.138 and 10.0.0.139, port
/// 23456, who say `first` and `second`.
struct Street {
    neighbourhood: Neighbourhood,
    client: Namespace,
    machine: Machine,
    first: Namespace,
    second: Namespace,
    _called: Namespace,
}

impl Street {
    fn new() -> Self {
        let mut neighbourhood = Neighbourhood::new();
        let client = neighbourhood.join(1);
        let called = neighbourhood.join(10);
        let (first, second) = (neighbourhood.join(138), neighbourhood.join(139));
        Speaker::listen(&called, 12345, "called");
        Speaker::listen(&first, 23456, "first");
        Speaker::listen(&second, 23456, "second");
        let machine = Machine::new(&client);
        Self { neighbourhood, client, machine, first, second, _called: called }
    }

    /// With the control process, and the rule of the demo.
    fn diverted() -> Self {
        let street = Self::new();
        street.machine.types("weir proxy run -i veth0 --detach");
        street.machine.types(ADD);
        street
    }

    fn answers(&self) -> String {
        call(&self.client, called()).map_or_else(|error| error.to_string(), |(_, name)| name)
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.machine.types(command)).expect("it is JSON")
    }

    /// State of a backend of the first rule.
    fn state(&self, backend: usize) -> String {
        let rules = self.json("weir proxy ls -o json");
        rules["rules"][0]["backends"][backend]["state"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn the_rule_of_the_demo_works_as_typed() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    assert_eq!(street.answers(), "called");
    street.machine.types("weir proxy run -i veth0 --detach; weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456");
    let (mut stream, name) = call(&street.client, called()).expect("somebody answers");
    assert_eq!(name, "first");
    assert!(is_alive(&mut stream));

    let rules = street.machine.types("weir proxy ls");
    for word in ["veth0 (uplink", "web", "tcp:10.0.0.10:12345", "10.0.0.138:23456", "up", "command"] {
        assert!(rules.contains(word), "{word} in\n{rules}");
    }
    // It is shown again and again, until nobody reads any more.
    let watched = street
        .machine
        .types("timeout 60 weir proxy conns --watch | grep --max-count=2 '10.0.0.138:23456.*established'");
    assert_eq!(watched.lines().count(), 2, "{watched}");
    let stats = street.json("weir proxy stats -o json");
    assert_eq!(stats["rules"][0]["sum"]["opened"], 1, "{stats}");
    assert!(street.machine.types("weir proxy stats").contains("web"));

    let client = stream.local_addr().expect("it is connected");
    let traced = street.machine.types(&format!("weir proxy trace 'tcp:{client}->10.0.0.10:12345'"));
    assert!(traced.contains("diverted to 10.0.0.138:23456") && traced.contains("is known"), "{traced}");
    // As it is written in many a text: without quotes the shell makes a file of it.
    let typed = "cd /run; weir proxy trace tcp:10.0.0.1:40000->10.0.0.10:12345";
    let said = String::from_utf8_lossy(&street.machine.shell(typed).stderr).into_owned();
    assert!(said.contains("in quotes") && said.contains("diverted to 10.0.0.138:23456"), "{said}");
    let passed = street.machine.types("weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:80'");
    assert!(passed.contains("not diverted") && passed.contains("another port"), "{passed}");

    let torn = street.machine.types("weir proxy teardown --dry-run");
    assert!(torn.contains("would be removed: program on veth0"), "{torn}");
    assert_eq!(street.answers(), "first");
    street.machine.types("weir proxy teardown");
    assert_eq!(street.answers(), "called");
    assert_eq!(street.machine.types("weir proxy teardown"), "nothing of weir proxy is here\n");
}

#[test]
fn a_file_is_compared_applied_and_followed() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    street.machine.types("weir proxy run -i veth0 --detach");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/proxy/rules.yaml");
    let diff = street.machine.types(&format!("weir proxy apply -f {example} --dry-run --diff"));
    assert!(diff.contains("+ rule web") && diff.contains("nothing was done"), "{diff}");
    assert_eq!(street.answers(), "called");
    let applied = street.machine.types(&format!("weir proxy apply -f {example}"));
    assert!(applied.contains("applied: 4 added"), "{applied}");
    assert_eq!(street.answers(), "first");
    street.machine.types("weir proxy teardown");

    let write = |backend: &str| {
        let text = format!(
            "interfaces: [veth0]\nrules:\n  - {{name: web, listen: [tcp:10.0.0.10:12345], backends: [{backend}]}}"
        );
        street.machine.types(&format!("echo '{text}' > /run/next.yaml && mv /run/next.yaml /run/rules.yaml"));
    };
    write("10.0.0.138:23456");
    street.machine.types("weir proxy run -f /run/rules.yaml --detach");
    assert_eq!(street.answers(), "first");
    write("10.0.0.139:23456");
    wait_until("the other backend answers", || street.answers() == "second");
    write("10.0.0.10:12345");
    wait_until("the trouble is told", || street.machine.log().contains("is diverted itself"));
    assert_eq!(street.answers(), "second");
    let said = street.machine.types_in_vain("weir proxy apply -f /run/rules.yaml", 2);
    assert!(said.contains("rules[0].backends[0]: 10.0.0.10:12345 is diverted itself"), "{said}");
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    let said = street.machine.types_in_vain("weir proxy run -i nowhere0", 2);
    assert!(said.contains("there is no interface nowhere0"), "{said}");
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(ADD);
    let said = street.machine.types_in_vain("weir proxy run -i veth0", 1);
    assert!(said.contains("a control process answers at"), "{said}");
    for (typed, expect) in [
        (
            "rule add two --listen tcp:10.0.0.0/24:12345 --backend 10.1.0.1:80",
            "web.listen[0]: overlaps tcp:10.0.0.0/24:12345 of two.listen[0]",
        ),
        ("rule add two --listen tcp:10.0.0.11:1 --backend 10.0.0.10:12345", "is diverted itself"),
        ("rule add two --listen tcp:10.0.0.11:1 --backend '[fd00::1]:1'", "is IPv6, unlike the listener"),
        ("rule rm webb", "no rule is called `webb`: there are web"),
        ("backend drain web 10.9.9.9:1", "has no backend 10.9.9.9:1: it has 10.0.0.138:23456"),
    ] {
        let said = street.machine.types_in_vain(&format!("weir proxy {typed}"), 2);
        assert!(said.contains(expect), "{typed}: {said}");
    }
    assert_eq!(street.answers(), "first");
    assert_eq!(street.json("weir proxy ls -o json")["rules"].as_array().map(Vec::len), Some(1));
}

#[test]
fn rules_change_under_traffic_at_once_and_no_connection_fails() {
    if !require_root() {
        return;
    }
    let street = Street::diverted();
    let callers = Callers::start(&street.client, called(), 4);
    wait_until("calls are under way", || callers.heard().names.len() > 200);
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let (host, name) = if round % 2 == 0 { (139, "second") } else { (138, "first") };
        let rule = format!("{{\"listen\":[\"tcp:10.0.0.10:12345\"],\"backends\":[\"10.0.0.{host}:23456\"]}}");
        let put = format!(
            "curl -s -X PUT -H 'Content-Type: application/json' -d '{rule}' --unix-socket /run/weir/proxy/control.sock http://localhost/v1/rules/web"
        );
        let begun = Instant::now();
        let answer = street.machine.types(&put);
        let done = begun.elapsed();
        assert!(answer.contains("\"is_applied\":true"), "{answer}");
        slowest = slowest.max(done);
        // Whoever begins after the answer gets the new one.
        let after = Instant::now();
        wait_until("calls after the change", || {
            callers.heard().names.iter().filter(|(time, _)| *time > after).count() > 50
        });
        let heard = callers.heard();
        let old: Vec<_> = heard.names.iter().filter(|(time, heard)| *time > after && heard != name).collect();
        assert!(old.is_empty(), "{} calls went to the old one after the change", old.len());
    }
    let heard = callers.end();
    println!("slowest change {slowest:?}, {} calls", heard.names.len());
    assert!(heard.failures.is_empty(), "{} failed, as {:?}", heard.failures.len(), heard.failures.first());
    assert!(heard.names.iter().all(|(_, name)| name == "first" || name == "second"));
}

#[test]
fn what_is_drained_or_removed_keeps_its_connections() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(&format!("{ADD} --backend 10.0.0.139:23456 --drain-timeout 6s"));
    let mut old = loop {
        let (stream, name) = call(&street.client, called()).expect("somebody answers");
        if name == "first" {
            break stream;
        }
    };
    street.machine.types("weir proxy backend drain web 10.0.0.138:23456");
    assert_eq!(street.state(0), "draining");
    for _ in 0..40 {
        assert_eq!(street.answers(), "second");
    }
    assert!(is_alive(&mut old));
    street.machine.types("weir proxy backend undrain web 10.0.0.138:23456");
    street.machine.types("weir proxy backend weight web 10.0.0.139:23456 0");
    assert_eq!(street.answers(), "first");
    street.machine.types("weir proxy rule drain web");
    assert!(street.answers().contains("refused"), "on_empty: rst");
    assert!(is_alive(&mut old));
    street.machine.types("weir proxy rule rm web");
    assert_eq!(street.answers(), "called");
    assert!(is_alive(&mut old), "it has six seconds");
    wait_until("the old connection is reset", || !is_alive(&mut old));
    wait_until("nothing is left", || {
        let rules = street.json("weir proxy ls -o json");
        rules["leaving"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn the_control_process_may_end_in_any_way_under_load() {
    if !require_root() {
        return;
    }
    let street = Street::diverted();
    let (mut old, _) = call(&street.client, called()).expect("somebody answers");
    let callers = Callers::start(&street.client, called(), 4);
    let mut more = {
        let mut least = 0;
        let callers = &callers;
        move || {
            least += 200;
            wait_until("calls go on", || callers.heard().names.len() > least);
        }
    };
    more();
    for signal in ["KILL", "TERM", "KILL"] {
        let pid = street
            .json("curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/v1/status")["pid"]
            .clone();
        street.machine.types(&format!("kill -{signal} {pid}"));
        wait_until("it has ended", || {
            !fs::exists(format!("/proc/{pid}")).unwrap_or(true) || is_zombie(&pid.to_string())
        });
        // Its first thread may be the first to end.
        street.machine.until_no_proxy();
        more();
        let shown = street.machine.shell("weir proxy ls");
        let (rules, said) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
        assert!(rules.contains("web") && rules.contains("10.0.0.138:23456"), "{rules}{said}");
        assert!(said.contains("no control process runs"), "{said}");
        assert!(street.machine.types("weir proxy conns").contains("10.0.0.138:23456"));
        let said = street.machine.types_in_vain("weir proxy rule rm web", 1);
        assert!(said.contains("no control process answers"), "{said}");
        // Rules and interfaces are those of before.
        street.machine.types("weir proxy run --detach");
        more();
    }
    assert!(is_alive(&mut old));
    let heard = callers.end();
    println!("{} calls", heard.names.len());
    assert!(heard.failures.is_empty(), "{} failed, as {:?}", heard.failures.len(), heard.failures.first());
    assert!(heard.names.iter().all(|(_, name)| name == "first"));
    let rules = street.json("weir proxy ls -o json");
    assert_eq!(rules["rules"][0]["name"], "web");
}

/// Whether a process has ended and nobody has asked how.
fn is_zombie(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_lost_state_costs_names_only() {
    if !require_root() {
        return;
    }
    let street = Street::diverted();
    let (mut old, _) = call(&street.client, called()).expect("somebody answers");
    street.machine.kill_proxy();
    street.machine.types("rm /run/weir/proxy/state.json");
    assert!(street.machine.types("weir proxy ls").contains("recovered-1"));
    street.machine.types("weir proxy run -i veth0 --detach");
    assert!(street.machine.types("weir proxy ls").contains("recovered-1"));
    assert!(is_alive(&mut old));
    assert_eq!(street.answers(), "first");
}

#[test]
fn an_interface_that_is_made_again_under_traffic_is_attached_again() {
    if !require_root() {
        return;
    }
    let mut street = Street::diverted();
    let callers = Callers::start(&street.client, called(), 4);
    wait_until("calls are under way", || callers.heard().names.len() > 200);
    street.client.ip("link delete veth0");
    wait_until("it is gone", || street.machine.types("weir proxy ls").contains("not there"));
    let Street { neighbourhood, client, .. } = &mut street;
    neighbourhood.plug(client, "veth0", 1);
    wait_until("it is diverted again", || street.answers() == "first");
    let since = Instant::now();
    let failures = callers.heard().failures.len();
    wait_until("calls go on", || {
        callers.heard().names.iter().filter(|(time, _)| *time > since).count() > 200
    });
    let heard = callers.end();
    // Those that were under way when it went wait in vain for a while.
    assert!(heard.failures.len() <= failures + 4, "{:?}", heard.failures.last());
    assert!(heard.names.iter().filter(|(time, _)| *time > since).all(|(_, name)| name == "first"));
}

#[test]
fn teardown_leaves_what_others_have_as_it_was() {
    if !require_root() {
        return;
    }
    let street = Street::new();
    // A qdisc and filters of others, and rules of a firewall where there can be one.
    street.machine.types(
        "tc qdisc add dev veth0 clsact
         tc filter add dev veth0 egress protocol ip prio 7 u32 match ip dport 9 0xffff
         tc filter add dev veth0 ingress protocol ip prio 9 u32 match u32 0 0",
    );
    let _foreign = ForeignTcx::attach(&street.client, "veth0");
    let has_nft = street.machine.shell("nft add table inet weir_test && nft add chain inet weir_test out '{ type filter hook output priority 0; }' && nft add rule inet weir_test out ip daddr 10.9.9.9 drop").status.success();
    println!("nftables: {has_nft}");
    let seen = || {
        let filters = "tc -j filter show dev veth0 ingress; tc -j filter show dev veth0 egress; tc -j qdisc show dev veth0";
        let nft = if has_nft { "; nft list ruleset" } else { "" };
        let programs = street.client.run(|| tcx_programs("veth0")).unwrap();
        let listed = street.machine.types(&format!("{filters}{nft}; ls -R /sys/fs/bpf; ls -A /run"));
        (programs, listed)
    };
    let before = seen();
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(ADD);
    assert_eq!(street.answers(), "first");
    assert!(seen().0.len() == 4 && before.0.len() == 2, "{before:?}");
    street.machine.types("weir proxy teardown");
    street.machine.types("rm -r /run/weir");
    assert_eq!(seen(), before);
    assert_eq!(street.answers(), "called");
}
