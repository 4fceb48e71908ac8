//! `/healthz`, `/readyz`, and those answers that are mere lists: status, fields, interfaces.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use weir_api::{
    catalog::{self, FieldsAnswer, InterfacesAnswer},
    status::{
        ConsumerStatus, DnsStatus, InterfaceCount, KernelTableStatus, KubernetesStatus, LedgerSummary,
        ResourceStatus, SpoolStatus, Status, TableStatus,
    },
};
use weir_flow::{
    Role, Wall,
    field::{ALIASES, FIELDS, Value},
};

use super::{Answers, ledger::count, snapshot::Snapshot};
use crate::{
    dns::DnsState,
    kubernetes::{self, ResourceState},
    ledger::{Pages, accounted},
    outlet::OutletState,
    process,
    units::Size,
};

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "state", responses((status = 200, description = "It answers", body = String)))]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the agent counts and hands on.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "state",
    responses(
        (status = 200, description = "It counts", body = String),
        (status = 503, description = "It does not, or not yet", body = String),
    )
)]
pub(super) async fn readiness(State(answers): State<Answers>) -> Response {
    if Snapshot::take(&answers).is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

/// How the agent is, in numbers and in words.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    tag = "state",
    responses((status = 200, description = "How the agent is", body = Status))
)]
pub(super) async fn status(State(answers): State<Answers>) -> Json<Status> {
    Json(of_snapshot(&answers, &Snapshot::take(&answers)))
}

/// The status of that moment.
pub(super) fn of_snapshot(answers: &Answers, snapshot: &Snapshot) -> Status {
    let total = &snapshot.total;
    let ledger = LedgerSummary {
        accounted: accounted(total),
        is_balanced: snapshot.is_balanced(),
        dropped_records: snapshot.dropped_records(),
        seen: count(total.seen),
        flows: count(total.flows),
        filtered: count(total.filtered),
        duplicate: count(total.duplicate),
        non_ip: count(total.non_ip),
        parse_error: count(total.parse_error),
        overflow: count(total.overflow),
    };
    let consumers = consumers(snapshot);
    let (attached, wanted) = snapshot.progress;
    let kernel = &snapshot.drains.last;
    Status {
        summary: summary(snapshot, &ledger, &consumers),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: time(answers.started),
        last_interval: snapshot.heartbeat.last.map(|(tick, _)| time(tick.wall)),
        is_ready: snapshot.is_ready(),
        ledger,
        interfaces: InterfaceCount { attached, wanted },
        table: TableStatus {
            flows: snapshot.table.flows,
            capacity: snapshot.table.capacity,
            bytes: snapshot.table.bytes,
            folded: count(snapshot.table.folded),
        },
        kernel_table: KernelTableStatus {
            slots_used: kernel.slots_used,
            slots: kernel.slots,
            overflow_used: kernel.overflow_used,
            overflow: kernel.overflow as usize,
        },
        kubernetes: cluster(&snapshot.kubernetes),
        dns: snapshot.dns.as_ref().map(dns),
        consumers,
        process: process::usage(),
    }
}

/// The configuration that is in effect, with every default and without secrets.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    tag = "state",
    responses((status = 200, description = "Keys as in the file", body = serde_json::Value))
)]
pub(super) async fn config(State(answers): State<Answers>) -> Json<serde_json::Value> {
    Json(serde_json::Value::Object(answers.shown.load().keys().clone()))
}

fn consumers(snapshot: &Snapshot) -> Vec<ConsumerStatus> {
    let states = snapshot.outlets.iter().map(|(state, pages)| {
        let total = pages.total();
        let spool = state.spool.as_ref().map(|spool| SpoolStatus {
            records: total.spooled.records + pages.earlier().spooled.records,
            bytes: spool.bytes,
            limit_bytes: spool.most_bytes,
            trouble: spool.trouble.clone(),
        });
        ConsumerStatus {
            name: state.name.to_string(),
            delivered_records: total.delivered.records,
            dropped_records: total.lost().records,
            waiting_records: state.waiting,
            queue_records: state.most_waiting,
            spool,
            behind_seconds: snapshot.behind_seconds(state, pages),
            attempts: state.attempts,
            failures: state.failures,
            refused_records: state.refused,
            trouble: state.trouble.as_ref().map(|trouble| trouble.text.clone()),
            trouble_since: state.trouble.as_ref().map(|trouble| time(Wall(trouble.since_ns))),
        }
    });
    states.collect()
}

fn cluster(status: &kubernetes::Status) -> KubernetesStatus {
    let resources = status.resources.iter().map(|(name, it)| ResourceStatus {
        name: (*name).to_owned(),
        state: match it.state {
            ResourceState::Syncing => "syncing",
            ResourceState::Current => "current",
            ResourceState::Stale => "stale",
            ResourceState::Refused => "refused",
        }
        .to_owned(),
        heard: (it.heard_ns > 0).then(|| time(Wall(it.heard_ns))),
        trouble: it.trouble.clone(),
    });
    KubernetesStatus {
        off: status.off.map(str::to_owned),
        resources: resources.collect(),
        pods: status.pods,
        addresses: status.addresses,
    }
}

fn dns(state: &DnsState) -> DnsStatus {
    let roles = Role::ALL.map(|role| state.counts.role(role));
    DnsStatus {
        answered: roles.iter().map(|counts| counts.all_answered()).sum(),
        unanswered: roles.iter().map(|counts| counts.unanswered).sum(),
        lost_packets: state.ledger.lost,
        pending: state.fill.lookups,
        names: state.fill.names,
    }
}

/// `accounted 100.00 %; 0 records dropped; lines 12 s behind: cannot connect to …`.
fn summary(snapshot: &Snapshot, ledger: &LedgerSummary, consumers: &[ConsumerStatus]) -> String {
    let mut parts = vec![
        format!("accounted {}", ledger.accounted),
        format!("{} records dropped", ledger.dropped_records),
    ];
    if !ledger.is_balanced {
        parts.push("the ledger does not balance: please report this".to_owned());
    }
    let (attached, wanted) = snapshot.progress;
    if attached < wanted {
        parts.push(format!("{} of {wanted} interfaces are not counted", wanted - attached));
    }
    if let Some(lost) = snapshot.dns.as_ref().map(|dns| dns.ledger.lost).filter(|lost| *lost > 0) {
        parts.push(format!("{lost} packets with DNS messages were not read"));
    }
    let cluster = &snapshot.kubernetes;
    if cluster.off.is_none() && !cluster.is_current() {
        let late = cluster
            .resources
            .iter()
            .filter(|(_, it)| !matches!(it.state, ResourceState::Current | ResourceState::Refused));
        let names: Vec<&str> = late.map(|(name, _)| *name).collect();
        parts.push(format!("Kubernetes is not up to date about {}", names.join(", ")));
    }
    parts.extend(consumers.iter().filter_map(about_consumer));
    parts.join("; ")
}

/// `collector 12 s behind: cannot connect to …: connection refused, since 14:02:11, 120 MiB of 512 MiB spooled`, or
/// nothing where all is well.
fn about_consumer(consumer: &ConsumerStatus) -> Option<String> {
    let (name, behind) = (&consumer.name, consumer.behind_seconds);
    let mut text = format!("{name} {behind:.0} s behind");
    if let Some(trouble) = &consumer.trouble {
        write!(text, ": {trouble}").expect("a string takes any text");
        // `2026-11-21T14:02:11.5Z`
        if let Some(clock) = consumer.trouble_since.as_ref().and_then(|time| time.get(11..19)) {
            write!(text, ", since {clock} UTC").expect("a string takes any text");
        }
    }
    let spool = consumer.spool.as_ref();
    let is_late = behind >= 2.0 || consumer.trouble.is_some();
    if let Some(spool) = spool.filter(|spool| is_late && spool.records > 0) {
        let (bytes, limit) = (Size(spool.bytes), Size(spool.limit_bytes));
        write!(text, ", {bytes} of {limit} spooled").expect("a string takes any text");
    }
    let spool_trouble = spool.and_then(|spool| spool.trouble.as_ref());
    if let Some(trouble) = spool_trouble {
        write!(text, "; {name}: {trouble}").expect("a string takes any text");
    }
    (is_late || spool_trouble.is_some()).then_some(text)
}

impl Snapshot {
    /// Time between the end of the last interval and that of the last one that a consumer has.
    pub(super) fn behind_seconds(&self, outlet: &OutletState, pages: &Pages) -> f64 {
        let Some((last, _)) = self.heartbeat.last else { return 0.0 };
        let since = outlet.delivered_ns.unwrap_or(outlet.started_ns);
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        let behind = last.wall.0.saturating_sub(since) as f64 / 1e9;
        let spooled = pages.total().spooled.records + pages.earlier().spooled.records;
        if outlet.waiting == 0 && spooled == 0 && outlet.trouble.is_none() { 0.0 } else { behind }
    }
}

/// Every field of a flow, and the short names.
#[utoipa::path(
    get,
    path = "/api/v1/fields",
    tag = "catalogue",
    responses((status = 200, description = "The table of fields", body = FieldsAnswer))
)]
pub(super) async fn fields() -> Json<FieldsAnswer> {
    let field = |field: &weir_flow::field::Field| catalog::Field {
        name: field.name.to_owned(),
        kind: format!("{:?}", field.kind).to_lowercase(),
        unit: (!field.unit.is_empty()).then(|| field.unit.to_owned()),
        description: field.doc.to_owned(),
        cardinality: field.cardinality.as_str().to_owned(),
        is_filterable: field.filterable,
        is_groupable: field.groupable,
        is_additive: field.additive,
        values: field.values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let alias = |alias: &weir_flow::field::Alias| catalog::Alias {
        name: alias.name.to_owned(),
        fields: alias.fields.iter().map(|field| (*field).to_owned()).collect(),
    };
    Json(FieldsAnswer {
        fields: FIELDS.iter().map(field).collect(),
        aliases: ALIASES.iter().map(alias).collect(),
    })
}

/// Interfaces that are counted, or were.
#[utoipa::path(
    get,
    path = "/api/v1/interfaces",
    tag = "catalogue",
    responses((status = 200, description = "Interfaces", body = InterfacesAnswer))
)]
pub(super) async fn interfaces(State(answers): State<Answers>) -> Json<InterfacesAnswer> {
    let snapshot = Snapshot::take(&answers);
    let mut interfaces: Vec<catalog::Interface> = Vec::new();
    for place in &snapshot.places {
        // Index 0 stands for interfaces that nobody listed.
        let Some(point) = place.point.as_ref().filter(|point| point.ifindex != 0) else { continue };
        let netns = point.netns.as_deref().map(str::to_owned);
        let known = interfaces.iter_mut().find(|known| {
            known.index == point.ifindex && known.netns == netns && *known.name == *point.interface
        });
        match known {
            Some(known) => known.is_open |= place.is_open,
            None => interfaces.push(catalog::Interface {
                name: point.interface.to_string(),
                index: point.ifindex,
                netns,
                role: point.role.to_string(),
                is_open: place.is_open,
            }),
        }
    }
    let (attached, wanted) = snapshot.progress;
    Json(InterfacesAnswer { interfaces, missing: wanted.saturating_sub(attached) })
}

/// A moment, RFC 3339.
pub(super) fn time(wall: Wall) -> String {
    Value::Timestamp(wall).to_string()
}
