//! `weir proxy` as users type it, with real clients and servers.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_integration::{
    Namespace,
    machine::Machine,
    neighbourhood::Neighbourhood,
    require_root, require_tool,
    speaker::{Callers, Speaker, call, is_alive},
    tcp::wait_until,
};

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

/// A program that is killed at the end of the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it is installed"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
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
    let watched = street.machine.shell("timeout 3 weir proxy conns --watch");
    let watched = String::from_utf8_lossy(&watched.stdout).into_owned();
    let lines =
        watched.lines().filter(|line| line.contains("10.0.0.138:23456") && line.contains("established"));
    assert!(lines.count() >= 2, "both maps again and again:\n{watched}");
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
            "overlaps tcp:10.0.0.10:12345 of web",
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
    street.machine.types(&format!("{ADD} --backend 10.0.0.139:23456 --drain-timeout 2s"));
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
    assert!(is_alive(&mut old), "it has two seconds");
    wait_until("the old connection is reset", || !is_alive(&mut old));
    wait_until("nothing is left", || {
        let rules = street.json("weir proxy ls -o json");
        rules["leaving"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn a_download_outlives_the_drain_of_its_server_and_a_sick_server_gets_nothing_new() {
    if !require_root() || !require_tool("nginx") || !require_tool("curl") {
        return;
    }
    let street = Street::new();
    let directory = tempfile::tempdir().expect("there is room");
    let mut servers = Vec::new();
    for (namespace, name) in [(&street.first, "first"), (&street.second, "second")] {
        let home = directory.path().join(name);
        fs::create_dir_all(home.join("www")).expect("there is room");
        fs::write(home.join("www/name"), name).expect("there is room");
        fs::write(home.join("www/large"), vec![b'x'; 24 << 20]).expect("there is room");
        let path = home.display();
        // Slow enough that the download is under way for a while.
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/log;
             events {{ worker_connections 256; }}
             http {{ access_log off; client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
                     uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
                     server {{ listen 80; root {path}/www; location /large {{ limit_rate 8m; }} location /ready {{ if (!-f {path}/sick) {{ return 204; }} return 503; }} }} }}"
        );
        fs::write(home.join("nginx.conf"), text).expect("there is room");
        let mut command = namespace.command("nginx");
        servers.push(Running::start(command.arg("-c").arg(home.join("nginx.conf"))));
    }
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(
        "weir proxy rule add web --listen tcp:10.0.0.10:80 --backend 10.0.0.138:80 --backend 10.0.0.139:80,weight=0 \
         --health http:/ready --health-interval 100ms --health-timeout 2s --rise 2 --fall 2",
    );
    let name = || street.machine.types("curl -s --retry 5 --retry-connrefused http://10.0.0.10/name");
    wait_until("the first is up", || street.state(0) == "up" && name() == "first");
    let download = street
        .machine
        .command("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{size_download}", "http://10.0.0.10/large"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    wait_until("the download is under way", || {
        street.json("weir proxy conns -o json")["connections"].as_array().is_some_and(|all| {
            all.iter().any(|it| it["state"] == "established" && it["backend"] == "10.0.0.138:80")
        })
    });
    street.machine.types("weir proxy backend weight web 10.0.0.139:80 1");
    street.machine.types("weir proxy backend drain web 10.0.0.138:80");
    assert_eq!(name(), "second");
    let output = download.wait_with_output().expect("curl ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), (24u64 << 20).to_string());

    street.machine.types("weir proxy backend undrain web 10.0.0.138:80");
    wait_until("both are up", || street.state(0) == "up" && street.state(1) == "up");
    fs::write(directory.path().join("second/sick"), "").expect("there is room");
    wait_until("the second is down", || street.state(1) == "down");
    for _ in 0..20 {
        assert_eq!(name(), "first");
    }
    assert!(street.machine.types("weir proxy ls").contains("answers with status 503"));
    let metrics = "curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/metrics";
    let metrics = street.machine.types(metrics);
    assert!(metrics.contains("weir_proxy_backend_up{rule=\"web\",backend=\"10.0.0.139:80\"} 0"), "{metrics}");
    drop(servers.remove(0));
    wait_until("the first is down", || street.state(0) == "down");
    let refused = street.machine.shell("curl -s -m 5 http://10.0.0.10/name");
    assert_eq!(refused.status.code(), Some(7), "nobody is left, so the connection is refused");
    fs::remove_file(directory.path().join("second/sick")).expect("it is there");
    wait_until("the second is up again", || street.state(1) == "up");
    assert_eq!(name(), "second");
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
    let status = "curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/v1/status";
    let pid = street.json(status)["pid"].clone();
    street.machine.types(&format!("kill -KILL {pid}; rm /run/weir/proxy/state.json"));
    assert!(street.machine.types("weir proxy ls").contains("recovered-1"));
    street.machine.types("weir proxy run -i veth0 --detach");
    assert!(street.machine.types("weir proxy ls").contains("recovered-1"));
    assert!(is_alive(&mut old));
    assert_eq!(street.answers(), "first");
}

#[test]
fn an_interface_that_is_made_again_is_attached_again() {
    if !require_root() {
        return;
    }
    let mut street = Street::diverted();
    street.client.ip("link delete veth0");
    wait_until("it is gone", || street.machine.types("weir proxy ls").contains("not there"));
    let Street { neighbourhood, client, .. } = &mut street;
    neighbourhood.plug(client, "veth0", 1);
    wait_until("it is diverted again", || street.answers() == "first");
}

#[test]
fn teardown_leaves_what_others_have_as_it_was() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let street = Street::new();
    // A qdisc and filters of others, and rules of a firewall where there can be one.
    street.machine.types(
        "tc qdisc add dev veth0 clsact
         tc filter add dev veth0 egress protocol ip prio 7 u32 match ip dport 9 0xffff action pass
         tc filter add dev veth0 ingress protocol ip prio 9 matchall action pass",
    );
    let has_nft = street.machine.shell("nft add table inet weir_test && nft add chain inet weir_test out '{ type filter hook output priority 0; }' && nft add rule inet weir_test out ip daddr 10.9.9.9 drop").status.success();
    println!("nftables: {has_nft}");
    let seen = || {
        // How often and how long ago filters matched is no change.
        let filters = "tc -j filter show dev veth0 ingress; tc -j filter show dev veth0 egress; tc -j qdisc show dev veth0";
        let nft = if has_nft { "; nft list ruleset" } else { "" };
        street.machine.types(&format!("bpftool net; {filters}{nft}; ls -R /sys/fs/bpf; ls -A /run"))
    };
    let before = seen();
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(ADD);
    assert_eq!(street.answers(), "first");
    assert_ne!(seen(), before);
    street.machine.types("weir proxy teardown");
    street.machine.types("rm -r /run/weir");
    assert_eq!(seen(), before);
    assert_eq!(street.answers(), "called");
}

#[test]
fn questions_about_names_are_diverted_over_both_transports() {
    if !require_root() || !require_tool("dnsmasq") || !require_tool("dig") {
        return;
    }
    let street = Street::new();
    let serve = |namespace: &Namespace, address: &str| {
        let record = format!("--address=/name.example/{address}");
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--pid-file=",
            "--user=root",
            &record,
        ]);
        Running::start(&mut command)
    };
    let first = serve(&street.first, "192.0.2.1");
    let _second = serve(&street.second, "192.0.2.2");
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(
        "weir proxy rule add names --listen udp:10.0.0.10:53 --listen tcp:10.0.0.10:53 --listen udp:10.0.0.10:5353 --backend 10.0.0.138:53 \
         --health udp:0001010000010000000000000000020001 --health-interval 100ms --health-timeout 2s --fall 2",
    );
    street.machine.types("weir proxy rule add names6 --listen 'udp:[fd00::a]:53' --backend '[fd00::8a]:53'");
    let ask = |options: &str| {
        street
            .machine
            .types(&format!("dig +short +tries=5 +timeout=2 {options} name.example"))
            .trim()
            .to_owned()
    };
    wait_until("the first is up", || street.state(0) == "up" && ask("@10.0.0.10") == "192.0.2.1");
    assert_eq!(ask("+tcp @10.0.0.10"), "192.0.2.1");
    assert_eq!(ask("-p 5353 @10.0.0.10"), "192.0.2.1");
    assert_eq!(ask("@fd00::a"), "192.0.2.1");
    // The same socket, so the same connection as far as the kernel sees: it gets another backend all the same.
    street.machine.types(
        "weir proxy rule add names --listen udp:10.0.0.10:53 --listen tcp:10.0.0.10:53 --backend 10.0.0.138:53 --backend 10.0.0.139:53 \
         --health udp:0001010000010000000000000000020001 --health-interval 100ms --health-timeout 2s --fall 2",
    );
    drop(first);
    wait_until("the first is down", || street.state(0) == "down" && street.state(1) == "up");
    for _ in 0..10 {
        assert_eq!(ask("-b 10.0.0.1#4000 @10.0.0.10"), "192.0.2.2");
    }
}
