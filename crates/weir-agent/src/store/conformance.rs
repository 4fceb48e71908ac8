//! What every store must do, whatever it is made of.
//!
//! Call [`check`] with a function that makes an empty store; it panics where the store does something else. The flows
//! are made here, so that the right answers are known without reading them back. A store that keeps times to the
//! microsecond says so ([`Times`]), and is checked with such.

mod sample;

use std::{collections::BTreeMap, time::Duration};

use weir_flow::{
    Record, Role, Tick, Wall,
    field::{FIELDS, Field, Value},
    filter::Filter,
    group::{Sums, by_role, group},
};

use super::{
    Cut, EdgeQuery, Entity, FlowQuery, HintQuery, Limits, Precision, Range, Rows, SeriesQuery, Store, Traffic,
};
pub use sample::{BEGIN, Sample};

/// How exactly a store keeps moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As they are.
    Nanoseconds,
    /// Cut to microseconds.
    Microseconds,
}

impl Times {
    /// So many ticks of the sample, with moments that a store can keep.
    pub fn ticks(self, count: u64) -> Vec<(Tick, Vec<Record>)> {
        let mut ticks = Sample::default().ticks(count);
        if self == Self::Microseconds {
            for record in ticks.iter_mut().flat_map(|(_, records)| records) {
                for moment in [&mut record.start, &mut record.end] {
                    moment.0 -= moment.0 % 1_000;
                }
            }
        }
        ticks
    }
}

/// Checks a store in every respect. `make` gives an empty one each time.
pub fn check(times: Times, make: &dyn Fn() -> Box<dyn Store>) {
    an_empty_store_answers(&*make());
    sums_agree_with_what_was_appended(times, &*make());
    flows_come_back_as_they_were(times, &*make());
    filters_and_times_select(times, &*make());
    what_is_cut_is_summed_and_said(times, &*make());
    an_edge_counts_at_one_role_and_a_flow_once(&*make());
    hints_are_the_values_that_were_there(times, &*make());
}

/// The whole time of the sample.
pub fn all() -> Range {
    Range { since: BEGIN, until: BEGIN + Duration::from_hours(2) }
}

/// Appends ticks.
pub fn append(store: &dyn Store, ticks: &[(Tick, Vec<Record>)]) {
    for (tick, records) in ticks {
        store.append(records, tick).expect("appending works");
    }
}

fn every() -> Filter {
    Filter::default()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("the filter is right")
}

fn field(name: &str) -> &'static Field {
    Field::by_name(name).expect("there is such a field")
}

fn groups(
    store: &dyn Store,
    range: Range,
    filter: Filter,
    fields: &[&str],
) -> Vec<(Vec<Value<'static>>, Role, Sums)> {
    let group_by = fields.iter().map(|name| field(name)).collect();
    let answer = store.flows(&FlowQuery { range, filter, group_by, limits: Limits::default() });
    let Rows::Groups(groups) = answer.expect("an answer").rows else { panic!("groups were asked for") };
    groups.into_iter().map(|group| (group.values, group.role, group.sums)).collect()
}

/// The same from the records themselves.
fn expected_groups<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    fields: &[&str],
) -> BTreeMap<(Vec<String>, Role), Sums> {
    let fields: Vec<_> = fields.iter().map(|name| field(name)).collect();
    group(records, &fields).into_iter().map(|group| (key(&group.values, group.role), group.sums)).collect()
}

fn key(values: &[Value<'_>], role: Role) -> (Vec<String>, Role) {
    (values.iter().map(ToString::to_string).collect(), role)
}

fn total<'t>(items: impl Iterator<Item = &'t Traffic>) -> Traffic {
    items.fold(Traffic::default(), |mut sum, item| {
        sum += *item;
        sum
    })
}

fn an_empty_store_answers(store: &dyn Store) {
    let limits = Limits::default();
    let query = EdgeQuery { range: all(), filter: every(), limits, precision: Precision::Rollup };
    assert!(store.edges(&query).expect("an answer").edges.is_empty());
    assert!(groups(store, all(), every(), &["destination.port"]).is_empty());
    store
        .append(&[], &Tick { wall: BEGIN, ..Tick::default() })
        .expect("a tick without records is no mistake");
    assert!(groups(store, all(), every(), &["destination.port"]).is_empty());
}

fn sums_agree_with_what_was_appended(times: Times, store: &dyn Store) {
    let ticks = times.ticks(90);
    append(store, &ticks);
    let records = || ticks.iter().flat_map(|(_, records)| records);
    for fields in [
        vec!["network.transport"],
        vec!["destination.port", "source.k8s.namespace.name"],
        vec!["source.address", "flow.tcp.flags", "network.interface.name"],
        vec!["source.process.pid", "flow.fragment", "flow.community_id"],
    ] {
        let found: BTreeMap<_, _> = groups(store, all(), every(), &fields)
            .into_iter()
            .map(|(values, role, sums)| (key(&values, role), sums))
            .collect();
        assert_eq!(found, expected_groups(records(), &fields), "{fields:?}");
    }
    let expected: BTreeMap<Role, Sums> = by_role(&records().collect::<Vec<_>>()).into_iter().collect();
    for step in [10, 60, 600, 3_600, 7] {
        let step = Some(Duration::from_secs(step));
        let query = SeriesQuery {
            range: all(),
            step,
            filter: every(),
            group_by: Vec::new(),
            limits: Limits::default(),
        };
        let series = store.series(&query).expect("an answer");
        // The sample has no flow that is seen twice in one role, so nothing is left out.
        let found: BTreeMap<Role, u64> =
            series.lines.iter().map(|line| (line.role, total(line.points.iter()).bytes())).collect();
        let expected: BTreeMap<Role, u64> =
            expected.iter().map(|(role, sums)| (*role, sums.both().bytes)).collect();
        assert_eq!(found, expected, "{step:?}");
    }
    for precision in [Precision::Rollup, Precision::Raw] {
        let query = EdgeQuery { range: all(), filter: every(), limits: Limits::default(), precision };
        let edges = store.edges(&query).expect("an answer");
        let found = total(edges.edges.iter().map(|edge| &edge.traffic));
        // Every edge of the sample is seen at one role.
        let records: u64 = expected.values().map(|sums| sums.flows).sum();
        let bytes: u64 = expected.values().map(|sums| sums.both().bytes).sum();
        assert_eq!((found.records, found.bytes()), (records, bytes), "{precision:?}");
        assert!(edges.edges.is_sorted_by(|left, right| left.traffic.bytes() >= right.traffic.bytes()));
    }
}

fn flows_come_back_as_they_were(times: Times, store: &dyn Store) {
    let ticks = times.ticks(3);
    append(store, &ticks);
    let limits = Limits { rows: 10_000, ..Limits::default() };
    let answer = store.flows(&FlowQuery { range: all(), filter: every(), group_by: Vec::new(), limits });
    let answer = answer.expect("an answer");
    let Rows::Flows(found) = answer.rows else { panic!("flows were asked for") };
    let records: Vec<&Record> = ticks.iter().flat_map(|(_, records)| records).collect();
    let counts = |sums: &[(Role, Sums)]| {
        sums.iter().map(|(role, sums)| (*role, sums.both(), sums.ingress)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&answer.totals), counts(&by_role(&records)));
    assert_eq!(answer.totals.iter().map(|(_, sums)| sums.flows).sum::<u64>(), found.len() as u64);
    // The counters of the interval are those of all records of the flow together.
    let text = |record: &Record, name: &str| field(name).value(record).to_string();
    let identity = |record: &Record| {
        ["flow.community_id", "flow.start", "network.interface.name", "flow.vlan"]
            .map(|name| text(record, name))
    };
    for record in &found {
        let of_flow: Vec<&&Record> =
            records.iter().filter(|other| identity(other) == identity(record)).collect();
        let last = of_flow.last().expect("a flow that comes back was appended");
        let bytes: u64 = of_flow.iter().map(|other| other.delta.forward.bytes).sum();
        assert_eq!(record.delta.forward.bytes, bytes);
        for field in FIELDS.iter().filter(|field| !field.additive) {
            assert_eq!(field.value(record), field.value(last), "{}", field.name);
        }
    }
    let identities: std::collections::HashSet<_> = records.iter().map(|record| identity(record)).collect();
    assert_eq!(found.len(), identities.len());
}

fn filters_and_times_select(times: Times, store: &dyn Store) {
    let ticks = times.ticks(40);
    append(store, &ticks);
    let fields = ["network.interface.name"];
    for text in [
        "dport=443",
        "host=10.0.0.0/24 and not proto=udp",
        "source.k8s.namespace.name=shop or proc=curl",
        "flow.bytes>1k and flow.duration>1s",
        "flow.start>2026-01-01T00:00:20Z",
        "flow.total.bytes>=1M",
        "flow.tcp.flags~SYN",
        "flow.skbs<3",
        "ns!=shop",
        "flow.community_id~\"1:*\"",
        "port=1",
    ] {
        let filter = filter(text);
        let matching = ticks.iter().flat_map(|(_, records)| records).filter(|record| filter.matches(record));
        let found: BTreeMap<_, _> = groups(store, all(), filter.clone(), &fields)
            .into_iter()
            .map(|(values, role, sums)| (key(&values, role), sums))
            .collect();
        assert_eq!(found, expected_groups(matching, &fields), "{text}");
    }
    // The beginning is part of a span, its end is not.
    let range = Range { since: ticks[10].0.wall, until: ticks[20].0.wall };
    let within = ticks[10..20].iter().flat_map(|(_, records)| records);
    let found: BTreeMap<_, _> = groups(store, range, every(), &fields)
        .into_iter()
        .map(|(values, role, sums)| (key(&values, role), sums))
        .collect();
    assert_eq!(found, expected_groups(within, &fields));
}

fn what_is_cut_is_summed_and_said(times: Times, store: &dyn Store) {
    let ticks = times.ticks(20);
    append(store, &ticks);
    let limits = Limits { rows: 2, ..Limits::default() };
    let group_by = vec![field("source.address")];
    let answer =
        store.flows(&FlowQuery { range: all(), filter: every(), group_by, limits }).expect("an answer");
    let Rows::Groups(groups) = &answer.rows else { panic!("groups were asked for") };
    assert_eq!(groups.len(), 2);
    assert!(answer.coverage.cuts.contains(&Cut::Rows(2)), "{:?}", answer.coverage);
    let shown = groups.iter().map(|group| (group.role, group.sums));
    let all_of_it = by_role(&shown.chain(answer.others.iter().copied()).collect::<Vec<_>>());
    assert_eq!(all_of_it, by_role(&ticks.iter().flat_map(|(_, records)| records).collect::<Vec<_>>()));
    assert_eq!(answer.totals, all_of_it);
    // The store knows nothing of the hour before it began.
    let range = Range { since: Wall(BEGIN.0 - 3_600_000_000_000), until: all().until };
    let group_by = vec![field("source.address")];
    let answer = store.flows(&FlowQuery { range, filter: every(), group_by, limits }).expect("an answer");
    let begins =
        answer.coverage.cuts.iter().any(|cut| matches!(cut, Cut::Before(moment) if *moment >= range.since));
    assert!(begins, "{:?}", answer.coverage);
}

fn an_edge_counts_at_one_role_and_a_flow_once(store: &dyn Store) {
    let tick = Tick { wall: BEGIN, ..Tick::default() };
    // One packet of 100 bytes on its way from pod to pod on one node, and through a bridge.
    store.append(&Sample::seen_four_times(100), &tick).expect("appending works");
    for precision in [Precision::Rollup, Precision::Raw] {
        let query = EdgeQuery { range: all(), filter: every(), limits: Limits::default(), precision };
        let edges = store.edges(&query).expect("an answer").edges;
        let [edge] = edges.as_slice() else { panic!("{precision:?}: {edges:#?}") };
        assert_eq!((edge.key.role, edge.traffic.forward.bytes), (Role::PodEdge, 100), "{precision:?}");
        let Entity::Workload { name, namespace, .. } = &edge.key.source else { panic!("{edge:?}") };
        assert_eq!((&**name, namespace.as_deref()), ("web", Some("shop")));
    }
    // Flows are not made fewer.
    let answer = groups(store, all(), every(), &["network.interface.name"]);
    assert_eq!(answer.len(), 4);
}

fn hints_are_the_values_that_were_there(times: Times, store: &dyn Store) {
    let ticks = times.ticks(10);
    append(store, &ticks);
    let hints = |name: &str, prefix: &str| {
        let query = HintQuery {
            range: all(),
            field: field(name),
            prefix: prefix.to_owned(),
            limits: Limits::default(),
        };
        let mut texts: Vec<String> =
            store.hints(&query).expect("an answer").hints.iter().map(|hint| hint.value.to_string()).collect();
        texts.sort();
        texts
    };
    let expected = |name: &str, prefix: &str| {
        let values = ticks.iter().flat_map(|(_, records)| records).map(|record| field(name).value(record));
        let mut texts: Vec<String> =
            values.filter(|value| !value.is_absent()).map(|value| value.to_string()).collect();
        texts.retain(|text| text.starts_with(prefix));
        texts.sort();
        texts.dedup();
        texts
    };
    for (name, prefix) in
        [("source.k8s.namespace.name", ""), ("destination.port", "8"), ("source.address", "10.0.")]
    {
        assert_eq!(hints(name, prefix), expected(name, prefix), "{name} {prefix}");
        assert!(!hints(name, prefix).is_empty(), "{name} {prefix}");
    }
    assert_eq!(hints("source.k8s.namespace.name", "SH"), ["shop"], "the case of letters does not matter");
    assert!(hints("source.k8s.namespace.name", "no-such").is_empty());
}
