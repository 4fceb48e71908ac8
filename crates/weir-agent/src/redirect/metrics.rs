//! `GET /metrics` of the proxy, in the text format of Prometheus (version 0.0.4).
//!
//! Each name is declared once, in a table from which the reference page is made. Labels are names of rules, addresses of
//! backends and reasons: as many series as the rules file has lines, and a few.

use std::fmt::Write as _;

use weir_api::proxy::{Carried, RulesAnswer, StatsAnswer};
use weir_datapath::redirect::DropReason;

/// A metric: its name, what it does, and what it says.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:literal $name:literal $help:literal;)*) => {
        $(const $constant: Metric = Metric { name: $name, kind: $kind, help: $help };)*
        const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    CONNECTIONS "gauge" "weir_proxy_connections" "Connections in the table.";
    CAPACITY "gauge" "weir_proxy_capacity_connections" "Connections that fit into the table.";
    INTERFACE_UP "gauge" "weir_proxy_interface_up" "1 if the interface is there with our programs on it.";
    SOCKETS_UP "gauge" "weir_proxy_sockets_up" "1 if sockets of this machine are led to backends on it.";
    RULE_CONNECTIONS "gauge" "weir_proxy_rule_connections" "Connections of a rule.";
    RULE_PACKETS "counter" "weir_proxy_rule_packets_total" "Packets of a rule as on the wire, to backends (direction forward) and from them (reverse).";
    RULE_BYTES "counter" "weir_proxy_rule_bytes_total" "Their bytes, link headers included.";
    RULE_NEW "counter" "weir_proxy_rule_new_connections_total" "Connections that began.";
    RULE_CLOSED "counter" "weir_proxy_rule_closed_connections_total" "TCP connections that ended.";
    RULE_SOCKETS "counter" "weir_proxy_rule_sockets_total" "Sockets of this machine that were led to backends as they connected; they are not among the connections.";
    RULE_REASONS "counter" "weir_proxy_rule_packets_by_reason_total" "Packets of a rule that were dropped, passed or treated specially, by reason.";
    BACKEND_UP "gauge" "weir_proxy_backend_up" "1 if the backend takes new connections.";
    BACKEND_WEIGHT "gauge" "weir_proxy_backend_weight" "The weight of a backend that counts.";
    BACKEND_CONNECTIONS "gauge" "weir_proxy_backend_connections" "Connections of a backend.";
    BACKEND_PACKETS "counter" "weir_proxy_backend_packets_total" "Packets of a backend, by direction.";
    BACKEND_BYTES "counter" "weir_proxy_backend_bytes_total" "Their bytes.";
    BACKEND_NEW "counter" "weir_proxy_backend_new_connections_total" "Connections that began.";
    BACKEND_CLOSED "counter" "weir_proxy_backend_closed_connections_total" "TCP connections that ended.";
    BACKEND_SOCKETS "counter" "weir_proxy_backend_sockets_total" "Sockets of this machine that were led to the backend.";
    OTHER_REASONS "counter" "weir_proxy_packets_by_reason_total" "Packets that belong to no rule and were dropped, passed or treated specially, by reason.";
}

/// All metrics as text.
pub(super) fn text(rules: &RulesAnswer, stats: &StatsAnswer) -> String {
    let mut out = String::new();
    let plain = |value: u64| vec![(String::new(), value)];
    write(&CONNECTIONS, plain(stats.connections), &mut out);
    write(&CAPACITY, plain(stats.capacity), &mut out);
    let interfaces = rules.interfaces.iter();
    let up =
        interfaces.map(|it| (labels(&[("interface", &it.name), ("role", &it.role)]), u64::from(it.is_alive)));
    write(&INTERFACE_UP, up, &mut out);
    write(&SOCKETS_UP, plain(u64::from(rules.sockets.is_alive)), &mut out);

    let by_rule = || stats.rules.iter().map(|rule| (vec![("rule", rule.name.as_str())], rule.sum));
    let connections = stats.rules.iter().map(|it| (labels(&[("rule", &it.name)]), it.connections));
    write(&RULE_CONNECTIONS, connections, &mut out);
    carried([&RULE_PACKETS, &RULE_BYTES, &RULE_NEW, &RULE_CLOSED, &RULE_SOCKETS], by_rule, &mut out);
    let reasons = stats.rules.iter().flat_map(|rule| {
        let series = |(reason, packets): (&String, &u64)| {
            (labels(&[("rule", &rule.name), ("reason", reason)]), *packets)
        };
        rule.reasons.iter().map(series).collect::<Vec<_>>()
    });
    write(&RULE_REASONS, reasons, &mut out);

    let views = || {
        rules.rules.iter().flat_map(|rule| {
            rule.backends.iter().map(|it| (labels(&[("rule", &rule.name), ("backend", &it.address)]), it))
        })
    };
    write(&BACKEND_UP, views().map(|(labels, it)| (labels, u64::from(it.state == "up"))), &mut out);
    write(&BACKEND_WEIGHT, views().map(|(labels, it)| (labels, u64::from(it.weight))), &mut out);
    write(&BACKEND_CONNECTIONS, views().map(|(labels, it)| (labels, it.connections)), &mut out);
    let by_backend = || {
        stats.rules.iter().flat_map(|rule| {
            rule.backends
                .iter()
                .map(|it| (vec![("rule", rule.name.as_str()), ("backend", it.address.as_str())], it.sum))
        })
    };
    carried(
        [&BACKEND_PACKETS, &BACKEND_BYTES, &BACKEND_NEW, &BACKEND_CLOSED, &BACKEND_SOCKETS],
        by_backend,
        &mut out,
    );
    let other = stats.other.iter().map(|(reason, packets)| (labels(&[("reason", reason)]), *packets));
    write(&OTHER_REASONS, other, &mut out);
    out
}

/// The reference of all metrics, in Markdown.
pub fn reference() -> String {
    let mut page = String::from("| metric | kind | what it says |\n|---|---|---|\n");
    for metric in ALL {
        writeln!(page, "| `{}` | {} | {} |", metric.name, metric.kind, metric.help)
            .expect("a string takes any text");
    }
    page.push_str("\n| reason | what happens |\n|---|---|\n");
    for (_, name, help) in DropReason::NAMES {
        writeln!(page, "| `{name}` | {help} |").expect("a string takes any text");
    }
    page
}

/// The five metrics of what was carried, with the labels that the series have besides.
fn carried<'a, I>(metrics: [&Metric; 5], series: impl Fn() -> I, out: &mut String)
where
    I: Iterator<Item = (Vec<(&'a str, &'a str)>, Carried)>,
{
    let [packets, bytes, new, closed, sockets] = metrics;
    let both = |forward: fn(Carried) -> u64, reverse: fn(Carried) -> u64| {
        series().flat_map(move |(named, sum)| {
            let with = |direction| labels(&[named.as_slice(), &[("direction", direction)]].concat());
            [(with("forward"), forward(sum)), (with("reverse"), reverse(sum))]
        })
    };
    write(packets, both(|it| it.forward_packets, |it| it.reverse_packets), out);
    write(bytes, both(|it| it.forward_bytes, |it| it.reverse_bytes), out);
    write(new, series().map(|(named, sum)| (labels(&named), sum.opened)), out);
    write(closed, series().map(|(named, sum)| (labels(&named), sum.closed)), out);
    write(sockets, series().map(|(named, sum)| (labels(&named), sum.sockets)), out);
}

fn write(metric: &Metric, series: impl IntoIterator<Item = (String, u64)>, out: &mut String) {
    let Metric { name, kind, help } = metric;
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes any text");
    for (labels, value) in series {
        writeln!(out, "{name}{labels} {value}").expect("a string takes any text");
    }
}

/// Names of rules, addresses and reasons have no character that would need escaping.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use weir_api::proxy::{BackendStats, BackendView, ProxyInterface, RuleStats, RuleView};

    use super::*;

    #[test]
    fn every_metric_is_declared_once_and_written_with_its_labels() {
        let sum = Carried {
            forward_packets: 3,
            forward_bytes: 300,
            reverse_packets: 2,
            reverse_bytes: 200,
            opened: 1,
            closed: 0,
            sockets: 5,
        };
        let address = "[fd00::2]:80".to_owned();
        let rules = RulesAnswer {
            interfaces: vec![ProxyInterface {
                name: "veth0".into(),
                role: "uplink".into(),
                hook: "tcx".into(),
                is_alive: true,
            }],
            rules: vec![RuleView {
                name: "web".into(),
                source: "file".into(),
                listen: vec![],
                backends: vec![BackendView {
                    address: address.clone(),
                    weight: 3,
                    state: "down".into(),
                    trouble: None,
                    place: None,
                    connections: 1,
                }],
                services: vec![],
                health: "tcp".into(),
                is_drained: false,
                connections: 1,
            }],
            ..RulesAnswer::default()
        };
        let backends = vec![BackendStats { address, state: "down".into(), sum, connections: 1 }];
        let reasons = [("hairpin".to_owned(), 4)].into_iter().collect();
        let stats = StatsAnswer {
            connections: 1,
            capacity: 1024,
            rules: vec![RuleStats { name: "web".into(), sum, connections: 1, reasons, backends }],
            ..StatsAnswer::default()
        };
        let text = text(&rules, &stats);
        for line in [
            "weir_proxy_connections 1",
            "weir_proxy_interface_up{interface=\"veth0\",role=\"uplink\"} 1",
            "weir_proxy_sockets_up 0",
            "weir_proxy_backend_sockets_total{rule=\"web\",backend=\"[fd00::2]:80\"} 5",
            "weir_proxy_rule_bytes_total{rule=\"web\",direction=\"reverse\"} 200",
            "weir_proxy_rule_packets_by_reason_total{rule=\"web\",reason=\"hairpin\"} 4",
            "weir_proxy_backend_up{rule=\"web\",backend=\"[fd00::2]:80\"} 0",
            "weir_proxy_backend_new_connections_total{rule=\"web\",backend=\"[fd00::2]:80\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        for metric in ALL {
            assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1, "{}", metric.name);
            assert!(reference().contains(&format!("| `{}` |", metric.name)));
        }
    }
}
