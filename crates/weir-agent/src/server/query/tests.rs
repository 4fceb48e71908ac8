use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;
use weir_api::value::from_json;
use weir_flow::{
    field::{FIELDS, Field},
    group::by_role,
};

use super::*;
use crate::store::{
    EmbeddedStore, StoreConfig,
    conformance::{BEGIN, Sample, append},
};

/// The hour of the sample.
const TIME: &str = "since=2026-01-01T00:00:00Z&until=2026-01-01T01:00:00Z";

struct Server {
    router: Router,
    _place: tempfile::TempDir,
}

fn server() -> Server {
    let place = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(place.path(), StoreConfig::default()).unwrap();
    append(&store, &Sample::default().ticks(30));
    Server { router: routes(Arc::new(store)), _place: place }
}

impl Server {
    fn get(&self, uri: &str) -> (StatusCode, Json) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let body = to_bytes(response.into_body(), 1 << 26).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    fn answer(&self, uri: &str) -> Json {
        let (status, body) = self.get(uri);
        assert_eq!(status, StatusCode::OK, "{uri}: {body}");
        body
    }
}

#[test]
fn flows_read_back_as_the_records_that_they_were() {
    let server = server();
    let body = server.answer(&format!("/api/v1/flows?{TIME}&limit=10000"));
    let answer: FlowsAnswer = serde_json::from_value(body).unwrap();
    let records = answer.records();
    let totals: Vec<_> = answer.totals.iter().filter_map(weir_api::history::Sums::read).collect();
    assert!(records.len() > 50);
    let bytes = |sums: &[(weir_flow::Role, weir_flow::group::Sums)]| {
        sums.iter().map(|(role, sums)| (*role, sums.both(), sums.ingress)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&by_role(&records.iter().collect::<Vec<_>>())), bytes(&totals));
    for (record, fields) in records.iter().zip(answer.flows.unwrap()) {
        for field in FIELDS {
            let json = fields.get(field.name).unwrap_or(&Json::Null);
            assert_eq!(from_json(field.kind, json), Some(field.value(record)), "{}", field.name);
        }
    }
}

#[test]
fn groups_have_values_role_and_sums() {
    let server = server();
    let body = server
        .answer(&format!("/api/v1/flows?{TIME}&group_by=dport,source.k8s.owner.name&filter=proto%3Dtcp"));
    let answer: FlowsAnswer = serde_json::from_value(body).unwrap();
    let fields = ["destination.port", "source.k8s.owner.name"].map(|name| Field::by_name(name).unwrap());
    let groups = answer.groups(&fields);
    assert!(!groups.is_empty());
    assert!(answer.flows.is_none());
    let totals: u64 = answer.totals.iter().map(|sums| sums.records).sum();
    assert_eq!(groups.iter().map(|group| group.sums.flows).sum::<u64>(), totals);
}

#[test]
fn edges_and_series_agree_whatever_they_are_made_of() {
    let server = server();
    let bytes = |body: &Json| {
        let count = |edge: &Json, way: &str| edge["traffic"][way]["bytes"].as_u64().unwrap();
        let edges = body["edges"].as_array().unwrap();
        edges.iter().map(|edge| count(edge, "forward") + count(edge, "reverse")).sum::<u64>()
    };
    let sums = server.answer(&format!("/api/v1/edges?{TIME}"));
    let raw = server.answer(&format!("/api/v1/edges?{TIME}&precision=raw"));
    assert_eq!((&sums["coverage"]["origin"], &raw["coverage"]["origin"]), (&json!("1m"), &json!("raw")));
    assert_eq!(sums["edges"], raw["edges"]);
    let series = server.answer(&format!("/api/v1/series?{TIME}&step=10s"));
    let [line] = series["lines"].as_array().unwrap().as_slice() else { panic!("{series}") };
    let sum =
        |column: &str| line[column].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("bytes") + sum("reverse_bytes"), bytes(&raw));
    assert_eq!((line["role"].as_str(), line["bytes"].as_array().unwrap().len()), (Some("pod-edge"), 360));
}

#[test]
fn hints_complete_values() {
    let server = server();
    let body = server.answer(&format!("/api/v1/hints?{TIME}&field=source.k8s.namespace.name&prefix=s"));
    assert_eq!(body["hints"].as_array().unwrap().len(), 1);
    assert_eq!(body["hints"][0]["value"], "shop");
}

#[test]
fn what_is_wrong_with_a_parameter_is_said_with_the_remedy() {
    let server = server();
    let check = |uri: &str, parameter: &str, value: &str, remedy: &str| {
        let (status, body) = server.get(uri);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}: {body}");
        assert_eq!(
            (body["parameter"].as_str(), body["value"].as_str()),
            (Some(parameter), Some(value)),
            "{uri}"
        );
        assert!(body["remedy"].as_str().unwrap().contains(remedy), "{uri}: {body}");
        assert!(body["error"].as_str().unwrap().contains(parameter), "{uri}: {body}");
    };
    check("/api/v1/flows?since=5", "since", "5", "how long ago");
    check("/api/v1/flows?limit=0", "limit", "0", "from 1 to 10000");
    check("/api/v1/flows?limit=lots", "limit", "lots", "from 1 to 10000");
    check("/api/v1/flows?filter=prot%3Dtcp", "filter", "prot=tcp", "did you mean `proto`");
    check("/api/v1/flows?group_by=flow.bytes", "group_by", "flow.bytes", "too many values");
    check("/api/v1/flows?group_by=port", "group_by", "port", "source.port or destination.port");
    check("/api/v1/flows?group_by=dprt", "group_by", "dprt", "dport");
    check("/api/v1/flows?sine=5m", "sine", "5m", "since, until");
    check("/api/v1/flows?limit=1&limit=2", "limit", "2", "give it once");
    let later = "/api/v1/flows?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z";
    check(later, "since", "2026-01-02T00:00:00.000000000Z", "before `until`");
    check("/api/v1/edges?precision=fine", "precision", "fine", "raw or rollup");
    check("/api/v1/series?step=1", "step", "1", "needs a unit");
    check("/api/v1/series?step=5ms", "step", "5ms", "a second or more");
    check("/api/v1/hints", "field", "", "name a field");
}

#[test]
fn what_is_cut_says_so() {
    let server = server();
    let body = server.answer("/api/v1/flows?since=2020-01-01T00:00:00Z&until=2026-01-01T01:00:00Z&limit=1");
    let reasons: Vec<_> =
        body["coverage"]["cuts"].as_array().unwrap().iter().map(|cut| cut["reason"].as_str()).collect();
    assert_eq!(reasons, [Some("history"), Some("rows")]);
    let begins = weir_api::history::moment_text(BEGIN);
    assert!(body["coverage"]["cuts"][0]["text"].as_str().unwrap().contains(&begins[..13]), "{body}");
    assert_eq!(body["flows"].as_array().unwrap().len(), 1);
    assert!(!body["others"].as_array().unwrap().is_empty());
}

#[test]
fn every_route_is_described() {
    let description = Description::openapi();
    for path in ["/api/v1/flows", "/api/v1/edges", "/api/v1/series", "/api/v1/hints"] {
        let item = description.paths.paths.get(path).expect(path);
        let described = serde_json::to_value(item).unwrap()["get"]["parameters"].to_string();
        assert!(described.contains("\"since\""), "{path}: {described}");
    }
}

#[test]
fn nodes_have_the_sums_of_their_edges() {
    let server = server();
    let edges: EdgesAnswer =
        serde_json::from_value(server.answer(&format!("/api/v1/edges?{TIME}&limit=10000"))).unwrap();
    let nodes: NodesAnswer = serde_json::from_value(server.answer(&format!("/api/v1/nodes?{TIME}"))).unwrap();
    assert!(nodes.left_out == 0 && nodes.nodes.len() > 3);
    for node in &nodes.nodes {
        let from_it = || edges.edges.iter().filter(|edge| edge.source == node.entity);
        let to_it = || edges.edges.iter().filter(|edge| edge.destination == node.entity);
        let sent: u64 = from_it().map(|edge| edge.traffic.forward.bytes).sum::<u64>()
            + to_it().map(|edge| edge.traffic.reverse.bytes).sum::<u64>();
        assert_eq!(node.sent.bytes, sent, "{node:?}");
        assert_eq!(node.opened, from_it().map(|edge| edge.traffic.opened).sum::<u64>(), "{node:?}");
        assert_eq!(node.clients > 0, to_it().next().is_some(), "{node:?}");
    }
    // All that was sent was received by somebody.
    let sum = |of: fn(&weir_api::history::Node) -> u64| nodes.nodes.iter().map(of).sum::<u64>();
    assert_eq!(sum(|node| node.sent.bytes), sum(|node| node.received.bytes));
    assert_eq!(sum(|node| node.opened), sum(|node| node.accepted));

    let two: NodesAnswer =
        serde_json::from_value(server.answer(&format!("/api/v1/nodes?{TIME}&limit=2"))).unwrap();
    assert_eq!((two.nodes.len(), two.left_out), (2, nodes.nodes.len() - 2));
    assert_eq!(two.nodes, nodes.nodes[..2]);
}
