//! What an agent remembers of real traffic: over its interface, from its files while it runs, and after it was killed.

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::{Agent, binary},
    http, require_root,
    traffic::UdpFlow,
};

/// Link, IPv4 and UDP headers.
const HEADERS: u64 = 14 + 20 + 8;

/// What `weir flows` prints as JSON.
fn weir_flows(namespace: &Namespace, arguments: &[&str]) -> Vec<Value> {
    let mut command = namespace.command(binary());
    let output = command.args(["flows", "-o", "json"]).args(arguments).output().expect("weir runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let lines = String::from_utf8(output.stdout).expect("it is text");
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// A flow whose sender is taken for its source also by an agent that has just begun to look.
fn flow_to_the_lower_port(wire: &Veth) -> UdpFlow {
    let mut flows = std::iter::repeat_with(|| UdpFlow::open(&wire.left, &wire.right, false));
    flows.find(|flow| flow.source().port() > flow.destination().port()).expect("there is always another")
}

#[test]
fn what_was_sent_is_remembered_by_the_agent_in_its_files_and_after_a_kill() {
    if !require_root() {
        return;
    }
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 7, Neighbours::Static);
    let agent = Agent::start(&left, None, &["-i", "left0"]);
    let flow = flow_to_the_lower_port(&wire);
    flow.send(300, 100);
    flow.reply(50);

    let filter = format!("sport={} and dport={}", flow.source().port(), flow.destination().port());
    let path = format!("/api/v1/flows?since=1h&filter={}", filter.replace(' ', "%20").replace('=', "%3D"));
    let is_there = |answer: &http::Answer| {
        let answer = answer.json();
        let flow = &answer["flows"][0];
        flow["flow.packets"] == 300 && flow["flow.reverse.packets"] == 1
    };
    http::get_until(&left, agent.address(), &path, is_there);

    let url = format!("http://{}", agent.address());
    let store = agent.store().to_str().expect("the path is text").to_owned();
    let asked = weir_flows(&left, &["--agent", &url, "--since", "1h", &filter]);
    let read = weir_flows(&left, &["--store", &store, "--since", "1h", &filter]);
    for flows in [&asked, &read] {
        let [found] = flows.as_slice() else { panic!("one flow: {flows:?}") };
        assert_eq!(found["flow.packets"], 300);
        assert_eq!(found["flow.bytes"], 300 * (100 + HEADERS));
        assert_eq!(found["flow.reverse.bytes"], 50 + HEADERS);
        assert_eq!(found["source.address"], flow.source().ip().to_string());
    }

    // The service map has it too, from sums and from raw flows.
    for precision in ["rollup", "raw"] {
        let path = format!(
            "/api/v1/edges?since=1h&precision={precision}&filter=dport%3D{}",
            flow.destination().port()
        );
        let answer = agent.get(&path).json();
        let [edge] = answer["edges"].as_array().expect("there are edges").as_slice() else {
            panic!("{answer}")
        };
        assert_eq!(edge["traffic"]["forward"]["packets"], 300, "{answer}");
        assert_eq!(edge["port"], flow.destination().port(), "{answer}");
    }

    agent.signal(Signal::SIGKILL);
    let group = ["--store", &store, "--since", "1h", "--group-by", "destination.port", &filter];
    let after = weir_flows(&left, &group);
    assert_eq!(after[0]["flow.packets"], 300, "{after:?}");
    assert_eq!(after[0]["destination.port"], flow.destination().port(), "{after:?}");
}

/// How often an agent is killed.
const KILLS: u64 = 10;

#[test]
fn kills_at_any_moment_lose_nothing_that_an_agent_has_told() {
    if !require_root() {
        return;
    }
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 7, Neighbours::Static);
    let arguments = ["-i", "left0"];
    let mut agent = Agent::start(&left, None, &arguments);
    let flow = flow_to_the_lower_port(&wire);
    let port = flow.destination().port();
    let path = format!("/api/v1/flows?since=1h&group_by=destination.port&filter=dport%3D{port}");
    let packets = |answer: &http::Answer| {
        let answer = answer.json();
        let cuts = answer["coverage"]["cuts"].as_array().expect("a list");
        assert!(
            cuts.iter().all(|cut| cut["reason"] == "history"),
            "more than the beginning is missing: {answer}"
        );
        answer["groups"][0]["sums"]["forward"]["packets"].as_u64().unwrap_or_default()
    };
    let (mut sent, mut told) = (0, 0);
    for kill in 0..KILLS {
        let before = packets(&agent.get(&path));
        assert!((told..=sent).contains(&before), "{before} of {sent} after {kill} kills, {told} were told");
        // Some are told, of the others nobody knows how far they got when the agent dies.
        flow.send(100, 50);
        sent += 100;
        let is_told = |answer: &http::Answer| answer.status == 200 && packets(answer) >= before + 100;
        told = packets(&http::get_until(&left, agent.address(), &path, is_told));
        let more = 10 * kill;
        flow.send(more, 50);
        sent += more;
        agent = agent.kill_and_start(None, &arguments);
    }
    let after = packets(&agent.get(&path));
    assert!((told..=sent).contains(&after), "{after} of {sent}, {told} were told");
    // The service map, from sums, knows neither more nor less.
    let edges = agent.get(&format!("/api/v1/edges?since=1h&filter=dport%3D{port}")).json();
    assert_eq!(edges["edges"][0]["traffic"]["forward"]["packets"], after, "{edges}");
    let files = std::fs::read_dir(agent.store()).expect("the store is there");
    let names = files.map(|file| file.expect("it can be listed").file_name().to_string_lossy().into_owned());
    let damaged: Vec<String> = names.filter(|name| name.ends_with(".damaged")).collect();
    assert_eq!(damaged, Vec::<String>::new());
    agent.end();
}
