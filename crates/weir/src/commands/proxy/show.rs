//! `weir proxy ls`, `conns` and `stats`: what there is and what it did.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, de::DeserializeOwned};
use weir_agent::{
    redirect::view::{ConnectionsWanted, Left},
    units::Grouped,
};
use weir_api::proxy::{
    Carried, ConnectionsAnswer, ProxySockets, RulesAnswer, ServiceView, StatsAnswer, escaped,
};
use weir_datapath::redirect::RedirectError;

use super::{
    Source, refused, source,
    table::{Side, seconds, table},
};
use crate::cli::proxy::{ConnsArgs, ProxyPaths, ShowProxyArgs, ShownFormat};

pub(super) fn rules(paths: &ProxyPaths, show: &ShowProxyArgs) -> Result<ExitCode> {
    let ask = |source: &Source| answer(source, "/v1/rules", |left| left.book().rules());
    watch(paths, show, ask, |rules, _, out| rules_table(rules, out))
}

pub(super) fn connections(paths: &ProxyPaths, args: &ConnsArgs) -> Result<ExitCode> {
    let mut path = format!("/v1/connections?limit={}", args.limit);
    if let Some(rule) = &args.rule {
        write!(path, "&rule={}", escaped(rule))?;
    }
    if let Some(client) = args.client {
        write!(path, "&client={}", escaped(&client.to_string()))?;
    }
    let wanted = ConnectionsWanted { rule: args.rule.clone(), client: args.client, limit: args.limit };
    let ask = |source: &Source| answer(source, &path, |left| left.book().connections(&wanted));
    watch(paths, &args.show, ask, |connections, _, out| connections_table(connections, out))
}

pub(super) fn stats(paths: &ProxyPaths, show: &ShowProxyArgs) -> Result<ExitCode> {
    let ask = |source: &Source| answer(source, "/v1/stats", |left| left.book().stats());
    let mut before: Option<(StatsAnswer, Instant)> = None;
    watch(paths, show, ask, move |stats, now, out| {
        stats_table(stats, before.as_ref().map(|(old, time)| (old, (now - *time).as_secs_f64())), out);
        before = Some((stats.clone(), now));
    })
}

/// Asks the control process, or reads what it left.
fn answer<T: DeserializeOwned>(
    source: &Source,
    path: &str,
    read: impl FnOnce(&Left) -> Result<T, RedirectError>,
) -> Result<T> {
    match source {
        Source::Process(client) => client.get(path).map_err(refused),
        Source::Left(left) => Ok(read(left)?),
    }
}

/// Shows something once, or again and again in place of what was there.
fn watch<T: Serialize>(
    paths: &ProxyPaths,
    show: &ShowProxyArgs,
    ask: impl Fn(&Source) -> Result<T>,
    mut table: impl FnMut(&T, Instant, &mut String),
) -> Result<ExitCode> {
    let mut source = source(paths)?;
    let is_screen = io::stdout().is_terminal();
    let mut is_first = true;
    loop {
        let begun = Instant::now();
        let answer = match ask(&source) {
            // The control process may have ended meanwhile.
            Err(_) if show.watch => {
                source = self::source(paths)?;
                ask(&source)?
            }
            answer => answer?,
        };
        // Where nothing can be overwritten, a line parts one from the next.
        let mut out = if is_first || is_screen { String::new() } else { "\n".to_owned() };
        is_first = false;
        match show.output {
            ShownFormat::Json => {
                out = serde_json::to_string(&answer)?;
                out.push('\n');
            }
            ShownFormat::Table => {
                if show.watch && is_screen {
                    out.push_str("\x1b[H\x1b[2J");
                }
                table(&answer, begun, &mut out);
            }
        }
        let mut stdout = io::stdout();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()?;
        if !show.watch {
            return Ok(ExitCode::SUCCESS);
        }
        if matches!(source, Source::Left(_)) {
            // Rules may come back under a control process.
            source = source_again(paths, source);
        }
        if reader_left(show.interval.saturating_sub(begun.elapsed()))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Waits, unless whoever reads standard output goes away.
fn reader_left(wait: Duration) -> io::Result<bool> {
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    poll(&mut watched, Some(&wait))?;
    Ok(watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// The control process, if one came; else what there was.
fn source_again(paths: &ProxyPaths, left: Source) -> Source {
    let client = super::client(paths);
    if client.text("/healthz").is_ok() { Source::Process(client) } else { left }
}

fn rules_table(answer: &RulesAnswer, out: &mut String) {
    let places: Vec<String> = answer
        .interfaces
        .iter()
        .map(|it| {
            let gone = if it.is_alive { "" } else { ", not there" };
            format!("{} ({}, {}{gone})", it.name, it.role, it.hook)
        })
        .collect();
    let places = if places.is_empty() { "none".to_owned() } else { places.join(", ") };
    writeln!(out, "interfaces: {places}").expect("a string takes any text");
    writeln!(out, "sockets:    {}\n", sockets_text(&answer.sockets)).expect("a string takes any text");
    let mut rows = Vec::new();
    for rule in &answer.rules {
        let backends = rule.backends.len();
        for line in 0..rule.listen.len().max(backends + rule.services.len()).max(1) {
            let first = |text: &str| if line == 0 { text.to_owned() } else { String::new() };
            let backend = rule.backends.get(line);
            let service = line.checked_sub(backends).and_then(|line| rule.services.get(line));
            let address = backend.map(|it| &it.address).or(service.map(|it| &it.service));
            let of_service = service.map_or_else(String::new, service_text);
            let what = backend.map_or(of_service, |it| match (&it.trouble, &it.place) {
                (Some(trouble), _) => trouble.clone(),
                (None, Some(_)) if answer.sockets.is_alive => {
                    "on this machine: its sockets are led there (cgroup)".to_owned()
                }
                (None, Some(_)) => "on this machine: not reached from here".to_owned(),
                (None, None) => String::new(),
            });
            rows.push([
                first(&rule.name),
                rule.listen.get(line).cloned().unwrap_or_default(),
                address.cloned().unwrap_or_default(),
                backend.map(|it| it.weight.to_string()).unwrap_or_default(),
                backend.map(|it| it.state.clone()).unwrap_or_default(),
                backend.map(|it| Grouped(it.connections).to_string()).unwrap_or_default(),
                first(&rule.health),
                first(&rule.source),
                what,
            ]);
        }
    }
    for leaving in &answer.leaving {
        rows.push([
            "(removed)".to_owned(),
            leaving.listen.clone(),
            leaving.address.clone(),
            String::new(),
            "leaving".to_owned(),
            Grouped(leaving.connections).to_string(),
            String::new(),
            String::new(),
            format!("since {}", seconds(leaving.seconds)),
        ]);
    }
    if rows.is_empty() {
        out.push_str("no rules: add one with `weir proxy rule add`\n");
        return;
    }
    let heading = [
        ("RULE", Side::Left),
        ("LISTEN", Side::Left),
        ("BACKEND", Side::Left),
        ("WEIGHT", Side::Right),
        ("STATE", Side::Left),
        ("CONNS", Side::Right),
        ("HEALTH", Side::Left),
        ("SOURCE", Side::Left),
        ("", Side::Left),
    ];
    table(heading, &rows, out);
}

fn service_text(service: &ServiceView) -> String {
    let endpoints = match service.endpoints {
        1 => "1 endpoint".to_owned(),
        several => format!("{several} endpoints"),
    };
    match &service.trouble {
        None => endpoints,
        Some(trouble) => format!("{endpoints}; {trouble}"),
    }
}

fn sockets_text(sockets: &ProxySockets) -> String {
    match (&sockets.cgroup, &sockets.trouble) {
        (Some(cgroup), _) if sockets.is_alive => format!("{cgroup} (cgroup)"),
        (Some(cgroup), _) => format!("{cgroup} (cgroup, programs not there)"),
        (None, Some(trouble)) => format!("left alone: {trouble}"),
        (None, None) => "left alone".to_owned(),
    }
}

fn connections_table(answer: &ConnectionsAnswer, out: &mut String) {
    let rows: Vec<[String; 8]> = answer
        .connections
        .iter()
        .map(|it| {
            let port = it.client.rsplit(':').next().and_then(|port| port.parse().ok());
            let used = if port == Some(it.client_port_used) {
                String::new()
            } else {
                format!("as port {}", it.client_port_used)
            };
            let note = if it.is_direct { format!("direct, {used}") } else { used };
            [
                format!("{}:{}", it.transport, it.client),
                it.listen.clone(),
                it.backend.clone(),
                it.rule.clone(),
                it.state.clone(),
                seconds(it.age_seconds),
                seconds(it.idle_seconds),
                note,
            ]
        })
        .collect();
    let heading = [
        ("CLIENT", Side::Left),
        ("CALLED", Side::Left),
        ("BACKEND", Side::Left),
        ("RULE", Side::Left),
        ("STATE", Side::Left),
        ("AGE", Side::Right),
        ("IDLE", Side::Right),
        ("", Side::Left),
    ];
    table(heading, &rows, out);
    let shown = answer.connections.len() as u64;
    if answer.total > shown {
        writeln!(out, "and {} more", Grouped(answer.total - shown)).expect("a string takes any text");
    }
}

fn stats_table(answer: &StatsAnswer, before: Option<(&StatsAnswer, f64)>, out: &mut String) {
    writeln!(
        out,
        "connections: {} of {}; the numbers below are {}\n",
        Grouped(answer.connections),
        Grouped(answer.capacity),
        if before.is_some() { "per second, CONNS apart" } else { "since the rule is there" }
    )
    .expect("a string takes any text");
    let mut rows = Vec::new();
    let old_rules: BTreeMap<&str, _> =
        before.iter().flat_map(|(old, _)| &old.rules).map(|rule| (rule.name.as_str(), rule)).collect();
    let time = before.map(|(_, time)| time);
    for rule in &answer.rules {
        let old = old_rules.get(rule.name.as_str());
        rows.push(stats_row(&rule.name, "", "", rule.connections, &rule.sum, old.map(|old| &old.sum), time));
        for backend in &rule.backends {
            let old = old.and_then(|old| old.backends.iter().find(|it| it.address == backend.address));
            let (sum, old) = (&backend.sum, old.map(|old| &old.sum));
            rows.push(stats_row("", &backend.address, &backend.state, backend.connections, sum, old, time));
        }
    }
    let heading = [
        ("RULE", Side::Left),
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("CONNS", Side::Right),
        ("NEW", Side::Right),
        ("CLOSED", Side::Right),
        ("SOCKETS", Side::Right),
        ("PACKETS", Side::Right),
        ("BYTES", Side::Right),
        ("BACK PACKETS", Side::Right),
        ("BACK BYTES", Side::Right),
    ];
    table(heading, &rows, out);
    let mut reasons: BTreeMap<String, u64> = answer.other.clone();
    for (reason, packets) in answer.rules.iter().flat_map(|rule| &rule.reasons) {
        *reasons.entry(reason.clone()).or_default() += packets;
    }
    if !reasons.is_empty() {
        let rows: Vec<[String; 2]> =
            reasons.into_iter().map(|(reason, packets)| [reason, Grouped(packets).to_string()]).collect();
        out.push('\n');
        table([("PACKETS NOT TREATED LIKE OTHERS", Side::Left), ("", Side::Right)], &rows, out);
    }
}

fn stats_row(
    rule: &str,
    backend: &str,
    state: &str,
    connections: u64,
    sum: &Carried,
    old: Option<&Carried>,
    time: Option<f64>,
) -> [String; 11] {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are for people"
    )]
    let shown = |field: fn(&Carried) -> u64| {
        let number = match time {
            None => field(sum),
            Some(time) => (field(sum).saturating_sub(old.map_or(0, field)) as f64 / time.max(0.001)) as u64,
        };
        Grouped(number).to_string()
    };
    [
        rule.to_owned(),
        backend.to_owned(),
        state.to_owned(),
        Grouped(connections).to_string(),
        shown(|it| it.opened),
        shown(|it| it.closed),
        shown(|it| it.sockets),
        shown(|it| it.forward_packets),
        shown(|it| it.forward_bytes),
        shown(|it| it.reverse_packets),
        shown(|it| it.reverse_bytes),
    ]
}
