//! Traffic between workloads: the families that a sink of type `prometheus` adds.

use weir_flow::field::Value;

use super::{
    table as metric,
    text::{Labels, Text},
};
use crate::{
    sinks::prometheus::{EdgeSnapshot, Sums},
    store::{EdgeKey, Entity},
};

/// Stands for all edges that have no series of their own.
const OTHERS: &str = "__other__";

/// All families of the edges.
pub(super) fn families(snapshot: EdgeSnapshot, text: &mut Text) {
    let EdgeSnapshot { edges, others, retired } = snapshot;
    text.single(&metric::EDGES, edges.len());
    text.single(&metric::EDGES_RETIRED, retired);
    let mut rows: Vec<(Labels, Sums)> = edges.iter().map(|(key, sums)| (labels(key), *sums)).collect();
    rows.extend(others.into_iter().map(|(role, sums)| (labels_of_others(role.as_str()), sums)));
    // Prometheus stores series that come in the same order each time with less effort.
    rows.sort_unstable_by(|left, right| left.0.cmp(&right.0));

    let both_ways = |of: fn(&Sums) -> [u64; 2]| {
        rows.iter().flat_map(move |(labels, sums)| {
            let ways = ["forward", "reverse"].into_iter().zip(of(sums));
            ways.map(|(way, value)| (with(labels, "direction", way), value)).collect::<Vec<_>>()
        })
    };
    text.family(&metric::FLOW_BYTES, both_ways(|sums| [sums.forward.bytes, sums.reverse.bytes]));
    text.family(&metric::FLOW_PACKETS, both_ways(|sums| [sums.forward.packets, sums.reverse.packets]));
    let has_resent = |row: &(Labels, u64)| row.1 > 0;
    text.family(
        &metric::FLOW_RETRANSMITS,
        both_ways(|sums| [sums.retransmits, sums.reverse_retransmits]).filter(has_resent),
    );
    let states = rows.iter().flat_map(|(labels, sums)| {
        let states = [
            ("opened", sums.opened),
            ("closed", sums.closed),
            ("refused", sums.refused),
            ("unanswered", sums.unanswered),
            ("reset", sums.reset),
        ];
        // Most edges never see a failure.
        let told = states.into_iter().filter(|(state, flows)| *flows > 0 || *state == "opened");
        told.map(|(state, flows)| (with(labels, "state", state), flows)).collect::<Vec<_>>()
    });
    text.family(&metric::FLOW_CONNECTIONS, states);
    let times = rows.iter().filter(|(_, sums)| sums.rtts > 0);
    text.summary(
        &metric::FLOW_RTT,
        times.map(|(labels, sums)| (labels.clone(), sums.rtt.as_secs_f64(), sums.rtts)),
    );
    for metric in [&metric::CALLS, &metric::CALLS_FAILED, &metric::CALL_SECONDS] {
        text.declare(metric);
    }
}

fn labels(key: &EdgeKey) -> Labels {
    let EdgeKey { source, destination, transport, port, role } = key;
    let mut labels = Vec::with_capacity(9);
    end(["source", "source_kind", "source_namespace"], source, &mut labels);
    end(["destination", "destination_kind", "destination_namespace"], destination, &mut labels);
    if let Some(port) = port {
        labels.push(("destination_port", port.to_string()));
    }
    labels.push(("network_transport", Value::Protocol(*transport).to_string()));
    labels.push(("flow_observation", role.as_str().to_owned()));
    labels
}

fn end([name, kind, namespace]: [&'static str; 3], entity: &Entity, labels: &mut Labels) {
    labels.push((name, if *entity == Entity::Others { OTHERS } else { entity.name() }.to_owned()));
    match entity {
        Entity::Workload { kind: of, namespace: within, .. } => {
            labels.push((kind, of.to_string()));
            labels.extend(within.as_ref().map(|within| (namespace, within.to_string())));
        }
        Entity::Process(_) | Entity::Address(_) => labels.push((kind, entity.sort().to_owned())),
        Entity::Others => {}
    }
}

fn labels_of_others(role: &str) -> Labels {
    [("source", OTHERS), ("destination", OTHERS), ("flow_observation", role)]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}

#[cfg(test)]
mod tests {
    use weir_flow::{Count, Role};

    use super::*;

    #[test]
    fn edges_and_others_become_series() {
        let key = EdgeKey {
            source: Entity::Workload {
                kind: "Deployment".into(),
                namespace: Some("shop".into()),
                name: "web".into(),
            },
            destination: Entity::Address("192.0.2.1".into()),
            transport: 6,
            port: Some(443),
            role: Role::PodEdge,
        };
        let sums = Sums {
            forward: Count { packets: 3, bytes: 300 },
            opened: 1,
            rtt: std::time::Duration::from_millis(30),
            rtts: 2,
            ..Sums::default()
        };
        let rest = Sums { reverse: Count { packets: 1, bytes: 60 }, ..Sums::default() };
        let mut text = Text::default();
        families(
            EdgeSnapshot { edges: vec![(key, sums)], others: vec![(Role::Uplink, rest)], retired: 4 },
            &mut text,
        );
        let samples: Vec<String> =
            text.finish().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let edge = "source=\"web\",source_kind=\"Deployment\",source_namespace=\"shop\",destination=\"192.0.2.1\",\
                    destination_kind=\"address\",destination_port=\"443\",network_transport=\"tcp\",\
                    flow_observation=\"pod-edge\"";
        let others = "source=\"__other__\",destination=\"__other__\",flow_observation=\"uplink\"";
        let expect = [
            "weir_edges 1".to_owned(),
            "weir_edges_retired_total 4".to_owned(),
            format!("network_flow_bytes_total{{{others},direction=\"forward\"}} 0"),
            format!("network_flow_bytes_total{{{others},direction=\"reverse\"}} 60"),
            format!("network_flow_bytes_total{{{edge},direction=\"forward\"}} 300"),
            format!("network_flow_bytes_total{{{edge},direction=\"reverse\"}} 0"),
            format!("network_flow_packets_total{{{others},direction=\"forward\"}} 0"),
            format!("network_flow_packets_total{{{others},direction=\"reverse\"}} 1"),
            format!("network_flow_packets_total{{{edge},direction=\"forward\"}} 3"),
            format!("network_flow_packets_total{{{edge},direction=\"reverse\"}} 0"),
            format!("network_flow_connections_total{{{others},state=\"opened\"}} 0"),
            format!("network_flow_connections_total{{{edge},state=\"opened\"}} 1"),
            format!("network_flow_rtt_seconds_sum{{{edge}}} 0.03"),
            format!("network_flow_rtt_seconds_count{{{edge}}} 2"),
        ];
        assert_eq!(samples, expect);
    }
}
