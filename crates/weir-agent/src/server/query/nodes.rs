//! The ends of the service map, each with the sums of its edges.

use std::collections::{BTreeSet, HashMap};

use weir_api::history as api;
use weir_flow::Count;

use super::answers::{by_role, coverage, entity};
use crate::store::{Edges, Entity};

#[derive(Default)]
struct Node<'e> {
    clients: BTreeSet<&'e Entity>,
    servers: BTreeSet<&'e Entity>,
    opened: u64,
    accepted: u64,
    sent: Count,
    received: Count,
}

/// At most `rows` nodes, the most bytes first. Each edge counts at one role, so the sums of a node hold each once.
pub(super) fn nodes(edges: &Edges, rows: usize) -> api::NodesAnswer {
    let mut nodes: HashMap<&Entity, Node<'_>> = HashMap::new();
    for edge in &edges.edges {
        let (key, traffic) = (&edge.key, &edge.traffic);
        let source = nodes.entry(&key.source).or_default();
        source.servers.insert(&key.destination);
        source.opened += traffic.opened;
        source.sent += traffic.forward;
        source.received += traffic.reverse;
        let destination = nodes.entry(&key.destination).or_default();
        destination.clients.insert(&key.source);
        destination.accepted += traffic.opened;
        destination.sent += traffic.reverse;
        destination.received += traffic.forward;
    }
    let mut nodes: Vec<(&Entity, Node<'_>)> = nodes.into_iter().collect();
    let bytes = |node: &Node<'_>| node.sent.bytes + node.received.bytes;
    nodes.sort_by(|left, right| bytes(&right.1).cmp(&bytes(&left.1)).then_with(|| left.0.cmp(right.0)));
    let left_out = nodes.len().saturating_sub(rows);
    nodes.truncate(rows);
    let node = |(of, node): (&Entity, Node<'_>)| api::Node {
        entity: entity(of),
        clients: node.clients.len(),
        servers: node.servers.len(),
        opened: node.opened,
        accepted: node.accepted,
        sent: node.sent.into(),
        received: node.received.into(),
    };
    api::NodesAnswer {
        coverage: coverage(&edges.coverage),
        nodes: nodes.into_iter().map(node).collect(),
        left_out,
        others: by_role(&edges.others),
    }
}
