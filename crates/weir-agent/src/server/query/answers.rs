//! Answers of the store, as the types of the interface.

use weir_api::{history as api, history::moment_text, value::to_json};
use weir_flow::{
    Role,
    field::{Field, Value},
    group::{Group, Sums},
};

use crate::store::{Coverage, Cut, Edges, Entity, Flows, Hints, Level, Origin, Rows, Series, Traffic};

/// The answer about flows.
pub fn flows(flows: &Flows, group_by: &[&'static Field]) -> api::FlowsAnswer {
    let (records, groups) = match &flows.rows {
        Rows::Flows(records) => (Some(records.iter().map(api::fields_of).collect()), None),
        Rows::Groups(groups) => (None, Some(groups.iter().map(|row| group(row, group_by)).collect())),
    };
    api::FlowsAnswer {
        coverage: coverage(&flows.coverage),
        flows: records,
        groups,
        others: sums(&flows.others),
        totals: sums(&flows.totals),
    }
}

fn group(group: &Group<'static>, fields: &[&'static Field]) -> api::Group {
    let names = fields.iter().map(|field| field.name);
    api::Group {
        values: api::values_of(names.zip(group.values.iter().cloned())),
        sums: api::Sums::new(group.role, &group.sums),
    }
}

fn sums(sums: &[(Role, Sums)]) -> Vec<api::Sums> {
    sums.iter().map(|(role, sums)| api::Sums::new(*role, sums)).collect()
}

/// The service map.
pub(super) fn edges(edges: &Edges) -> api::EdgesAnswer {
    let edge = |edge: &crate::store::Edge| api::Edge {
        source: entity(&edge.key.source),
        destination: entity(&edge.key.destination),
        transport: Value::Protocol(edge.key.transport).to_string(),
        port: edge.key.port,
        role: edge.key.role.as_str().to_owned(),
        traffic: traffic(&edge.traffic),
    };
    api::EdgesAnswer {
        coverage: coverage(&edges.coverage),
        edges: edges.edges.iter().map(edge).collect(),
        others: by_role(&edges.others),
    }
}

/// Courses over time.
pub(super) fn series(series: &Series) -> api::SeriesAnswer {
    let line = |line: &crate::store::Line| {
        let column = |of: fn(&Traffic) -> u64| line.points.iter().map(of).collect();
        let names = series.fields.iter().map(|field| field.name);
        api::Line {
            role: line.role.as_str().to_owned(),
            values: api::values_of(names.zip(line.values.iter().cloned())),
            opened: column(|point| point.opened),
            packets: column(|point| point.forward.packets),
            bytes: column(|point| point.forward.bytes),
            reverse_packets: column(|point| point.reverse.packets),
            reverse_bytes: column(|point| point.reverse.bytes),
        }
    };
    api::SeriesAnswer {
        coverage: coverage(&series.coverage),
        step_seconds: series.step.as_secs_f64(),
        lines: series.lines.iter().map(line).collect(),
        others: by_role(&series.others),
    }
}

/// Values of a field.
pub(super) fn hints(hints: &Hints, field: &Field) -> api::HintsAnswer {
    let hint = |hint: &crate::store::Hint| api::Hint {
        value: to_json(&hint.value),
        records: hint.records,
        bytes: hint.bytes,
    };
    api::HintsAnswer {
        coverage: coverage(&hints.coverage),
        field: field.name.to_owned(),
        hints: hints.hints.iter().map(hint).collect(),
    }
}

pub(super) fn by_role(sums: &[(Role, Traffic)]) -> Vec<api::RoleTraffic> {
    let of = |(role, sum): &(Role, Traffic)| api::RoleTraffic {
        role: role.as_str().to_owned(),
        traffic: traffic(sum),
    };
    sums.iter().map(of).collect()
}

fn traffic(traffic: &Traffic) -> api::Traffic {
    let Traffic { records, opened, forward, reverse } = *traffic;
    api::Traffic { records, opened, forward: forward.into(), reverse: reverse.into() }
}

pub(super) fn entity(entity: &Entity) -> api::Entity {
    let (kind, namespace) = match entity {
        Entity::Workload { kind, namespace, .. } => (Some(kind), namespace.as_ref()),
        Entity::Process(_) | Entity::Address(_) | Entity::Others => (None, None),
    };
    api::Entity {
        sort: entity.sort().to_owned(),
        kind: kind.map(ToString::to_string),
        namespace: namespace.map(ToString::to_string),
        name: entity.name().to_owned(),
    }
}

pub(super) fn coverage(coverage: &Coverage) -> api::Coverage {
    api::Coverage {
        since: moment_text(coverage.range.since),
        until: moment_text(coverage.range.until),
        origin: match coverage.origin {
            Origin::Raw => api::Origin::Raw,
            Origin::Rollup(Level::TenSeconds) => api::Origin::TenSeconds,
            Origin::Rollup(Level::Minute) => api::Origin::Minute,
            Origin::Rollup(Level::Hour) => api::Origin::Hour,
        },
        cuts: coverage.cuts.iter().map(cut).collect(),
    }
}

fn cut(cut: &Cut) -> api::Cut {
    let (reason, text) = match cut {
        Cut::Rows(limit) => (
            api::CutReason::Rows,
            format!("only the largest {limit} are listed, the others are summed up: ask for more, or filter"),
        ),
        Cut::Time(time) => (
            api::CutReason::Time,
            format!("reading took longer than {time:?}, only the newest was read: ask for less time"),
        ),
        Cut::Memory => (
            api::CutReason::Memory,
            "too many different rows, small ones are summed up: filter, or group by less".to_owned(),
        ),
        Cut::Before(moment) => {
            (api::CutReason::History, format!("history begins at {}", moment_text(*moment)))
        }
        Cut::Damaged(file) => {
            (api::CutReason::Damaged, format!("{file} cannot be read, its flows are missing"))
        }
    };
    api::Cut { reason, text }
}
