//! Why a packet would be diverted or not, step by step.

use std::net::SocketAddr;

use weir_api::proxy::TraceAnswer;
use weir_datapath::redirect::{
    Connection, Listener, OnEmpty, PlaceState, RedirectError, Role, Transport, Tuple,
};

use super::{
    engine::Condition,
    proxy::condition_text,
    rules::Rule,
    text::{AddressText, ListenerText, masked, transport},
    view::Book,
};

/// Follows a connection through the rules.
pub fn trace(book: &Book<'_>, tuple: &Tuple) -> Result<TraceAnswer, RedirectError> {
    let mut answer = TraceAnswer::default();
    looked_at(&book.datapath.places(), &mut answer.steps);
    if let Some(connection) = book.datapath.connection(tuple)? {
        known(book, &connection, &mut answer);
        return Ok(answer);
    }
    answer.steps.push("no such connection is known, so a new one would begin here".to_owned());
    let caught = book
        .engine
        .rules()
        .values()
        .find_map(|rule| Some((rule, *rule.listeners.iter().find(|listener| catches(listener, tuple))?)));
    let Some((rule, listener)) = caught else {
        "passed".clone_into(&mut answer.verdict);
        let (which, listen) = (transport(tuple.transport), tuple.listen);
        answer.steps.push(format!("no rule listens at {which}:{listen}: it goes where it was sent"));
        answer.steps.extend(nearly(book, tuple));
        return Ok(answer);
    };
    answer.rule = Some(rule.name.to_string());
    answer.steps.push(format!("rule {} listens there: {}", rule.name, ListenerText(listener)));
    choose(book, rule, tuple, &mut answer);
    let places = book.datapath.places();
    let is_led = sockets(book, rule, tuple, &places, &mut answer.steps)?;
    if !is_led && !places.iter().any(|place| place.is_alive) {
        "passed".clone_into(&mut answer.verdict);
    }
    Ok(answer)
}

fn looked_at(places: &[PlaceState], steps: &mut Vec<String>) {
    if places.is_empty() {
        steps.push("no interface is attached: packets are not looked at".to_owned());
    }
    for place in places {
        let way = match place.role {
            Role::Uplink => "as they leave by it",
            Role::Client => "as they come in by it",
        };
        if place.is_alive {
            steps.push(format!("{}: packets are looked at {way}", place.interface));
        } else {
            steps.push(format!(
                "{}: is gone, or has lost the programs: nothing is looked at",
                place.interface
            ));
        }
    }
}

fn known(book: &Book<'_>, connection: &Connection, answer: &mut TraceAnswer) {
    let rule = book.engine.owner(connection.rule).map(ToString::to_string);
    let (backend, state) = (connection.backend_address, connection.state.as_str());
    answer.steps.push(format!(
        "the connection is known: {state}, {:.0} s old, last packet {:.0} s ago",
        connection.age.as_secs_f64(),
        connection.idle.as_secs_f64()
    ));
    match &rule {
        Some(rule) => answer.steps.push(format!("it came by rule {rule} and keeps its backend {backend}")),
        None => {
            answer.steps.push(format!("its rule was removed; it keeps its backend {backend} until it ends"));
        }
    }
    if connection.client_port_used != connection.tuple.client.port() {
        answer.steps.push(format!(
            "its port {} was taken at the backend, which sees {} instead",
            connection.tuple.client.port(),
            connection.client_port_used
        ));
    }
    (answer.rule, answer.backend) = (rule, Some(backend.to_string()));
    if connection.state == weir_datapath::redirect::ConnectionState::Ended {
        let what = match connection.tuple.transport {
            Transport::Tcp => "it was ended: the next packet of the client is answered by a reset",
            Transport::Udp => "it was ended: the next packet of the client chooses a backend again",
        };
        answer.steps.push(what.to_owned());
        let is_tcp = connection.tuple.transport == Transport::Tcp;
        if is_tcp { "refused" } else { "diverted" }.clone_into(&mut answer.verdict);
    } else {
        "diverted".clone_into(&mut answer.verdict);
    }
}

fn choose(book: &Book<'_>, rule: &Rule, tuple: &Tuple, answer: &mut TraceAnswer) {
    let mut takers: Vec<(SocketAddr, u32)> = Vec::new();
    for backend in &rule.backends {
        let condition = book.engine.condition(rule, backend);
        let address = AddressText(backend.address);
        let weight = book.engine.weight(rule, backend);
        match &condition {
            Condition::Up => takers.push((backend.address, u32::from(weight))),
            Condition::Down(trouble) => answer.steps.push(format!("backend {address} is down: {trouble}")),
            other => answer
                .steps
                .push(format!("backend {address} takes no new connections: {}", condition_text(other))),
        }
    }
    let port = |address: SocketAddr| {
        let port = if address.port() == 0 { tuple.listen.port() } else { address.port() };
        SocketAddr::new(address.ip(), port)
    };
    match takers.as_slice() {
        [] => {
            let (verdict, step) = match (rule.on_empty, tuple.transport) {
                (OnEmpty::Reset, Transport::Tcp) => {
                    ("refused", "no backend takes it: it is refused (on_empty: rst)")
                }
                (OnEmpty::Reset, Transport::Udp) => {
                    ("dropped", "no backend takes it: it is dropped (on_empty: rst)")
                }
                (OnEmpty::Drop, _) => ("dropped", "no backend takes it: it is dropped (on_empty: drop)"),
                (OnEmpty::Pass, _) => {
                    ("passed", "no backend takes it: it goes where it was sent (on_empty: pass)")
                }
            };
            verdict.clone_into(&mut answer.verdict);
            answer.steps.push(step.to_owned());
        }
        [(only, _)] => {
            "diverted".clone_into(&mut answer.verdict);
            answer.backend = Some(port(*only).to_string());
            answer.steps.push(format!("it goes to {}, the only one that takes new connections", port(*only)));
        }
        several => {
            "diverted".clone_into(&mut answer.verdict);
            let total: u32 = several.iter().map(|(_, weight)| weight).sum();
            for (address, weight) in several {
                let share = 100.0 * f64::from(*weight) / f64::from(total);
                answer.steps.push(format!("backend {} gets {share:.0} % of new connections", port(*address)));
            }
            if rule.affinity.is_some() {
                answer
                    .steps
                    .push("a client that was here a while ago gets the backend that it had".to_owned());
            }
        }
    }
    if let Ok(counters) = book.datapath.counters()
        && counters.capacity > 0
        && counters.connections >= counters.capacity
    {
        answer.steps.push("the table of connections is full: on_full decides, and not the above".to_owned());
    }
}

/// What becomes of a socket of this machine that calls the rule. Says whether it may be led to a backend.
fn sockets(
    book: &Book<'_>,
    rule: &Rule,
    tuple: &Tuple,
    places: &[PlaceState],
    steps: &mut Vec<String>,
) -> Result<bool, RedirectError> {
    let client = tuple.client.ip();
    if !client.is_unspecified() && !book.datapath.is_here(client)? {
        return Ok(false);
    }
    let mut here = Vec::new();
    for backend in &rule.backends {
        if book.datapath.is_here(backend.address.ip())? {
            here.push(AddressText(backend.address).to_string());
        }
    }
    let has_uplink = places.iter().any(|place| place.role == Role::Uplink);
    let to_all = book.datapath.is_here(tuple.listen.ip())?;
    if !to_all && !has_uplink {
        return Ok(false);
    }
    let local = book.datapath.local();
    let Some(cgroup) = local.cgroup.filter(|_| local.is_alive) else {
        if !here.is_empty() {
            steps.push(format!(
                "{} on this machine: not for sockets of this machine, which are left alone",
                here.join(", ")
            ));
        }
        return Ok(false);
    };
    let cgroup = cgroup.display();
    if to_all {
        steps.push(format!("a socket of a process in {cgroup} is led to its backend as it connects"));
    } else if !here.is_empty() {
        let here = here.join(", ");
        steps.push(format!("a socket of a process in {cgroup} is led to {here} as it connects"));
    }
    Ok(to_all || !here.is_empty())
}

/// Whether the listener is called.
fn catches(listener: &Listener, tuple: &Tuple) -> bool {
    let prefix = listener.prefix;
    let address = tuple.listen.ip();
    listener.transport == tuple.transport
        && prefix.address.is_ipv4() == address.is_ipv4()
        && masked(address, prefix.length) == prefix.address
        && (listener.ports.first..=listener.ports.last).contains(&tuple.listen.port())
}

/// Listeners that differ in one thing only: what was meant, perhaps.
fn nearly(book: &Book<'_>, tuple: &Tuple) -> Vec<String> {
    let mut hints = Vec::new();
    for rule in book.engine.rules().values() {
        for listener in &rule.listeners {
            let other_port =
                Tuple { listen: SocketAddr::new(tuple.listen.ip(), listener.ports.first.max(1)), ..*tuple };
            let other_transport = Tuple { transport: listener.transport, ..*tuple };
            let text = ListenerText(*listener);
            if catches(listener, &other_port) {
                hints.push(format!("rule {} listens at another port: {text}", rule.name));
            } else if catches(listener, &other_transport) {
                hints.push(format!("rule {} listens for the other transport: {text}", rule.name));
            }
        }
    }
    hints.truncate(5);
    hints
}
