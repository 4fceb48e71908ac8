//! Sums of edges as metrics: what they are, of which edges, and since when.

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, metric::Data, number_data_point,
};
use weir_flow::Count;

use super::{
    super::metrics::{self, Meter},
    *,
};
use crate::sinks::prometheus;

fn meter(temporality: Temporality, edges: usize) -> Meter {
    let plan = MetricsPlan {
        target: target("http://127.0.0.1:1", Protocol::Http),
        interval: Duration::from_mins(1),
        temporality,
        edges: prometheus::Plan { edges, idle: Duration::from_mins(15) },
    };
    Meter::new(plan, 1 << 20)
}

/// What is told now, as if it arrived.
fn told(meter: &mut Meter, temporality: Temporality) -> Vec<Metric> {
    let export = meter.begin();
    let metrics = metrics::metrics(&export.rows, export.now_ns, temporality);
    meter.arrived(export);
    let sums = metrics.iter().filter_map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => Some(&sum.data_points),
        _ => None,
    });
    assert!(sums.flatten().all(|point| point.start_time_unix_nano < point.time_unix_nano));
    metrics
}

fn points<'m>(metrics: &'m [Metric], name: &str) -> &'m [NumberDataPoint] {
    let found = metrics.iter().find(|metric| metric.name == name);
    match found.and_then(|metric| metric.data.as_ref()) {
        Some(Data::Sum(sum)) => &sum.data_points,
        other => panic!("{name}: {other:?}"),
    }
}

/// The points whose last attribute is this.
fn total(metrics: &[Metric], name: &str, value: &str) -> i64 {
    let is = |point: &&NumberDataPoint| {
        point.attributes.last().map(|pair| &pair.value) == Some(&text("", value).value)
    };
    let number = |point: &NumberDataPoint| match point.value {
        Some(number_data_point::Value::AsInt(number)) => number,
        other => panic!("{other:?}"),
    };
    points(metrics, name).iter().filter(is).map(number).sum()
}

#[test]
fn sums_are_those_of_the_flows() {
    let mut meter = meter(Temporality::Cumulative, 1_000);
    let mut expect = [Count::default(); 2];
    let mut ended = 0;
    for (tick, records) in Sample::default().ticks(30) {
        for record in &records {
            expect[0] += record.delta.forward.count();
            expect[1] += record.delta.reverse.count();
            ended += i64::from(record.end_reason.is_some());
        }
        let mut batch = crate::batch::Batch::clone(&samples::batch(1, 1));
        (batch.records, batch.tick) = (records.into(), tick);
        meter.add(&batch);
    }
    let metrics = told(&mut meter, Temporality::Cumulative);
    for (way, expect) in ["forward", "reverse"].into_iter().zip(expect) {
        assert_eq!(total(&metrics, "network.flow.bytes", way).unsigned_abs(), expect.bytes);
        assert_eq!(total(&metrics, "network.flow.packets", way).unsigned_abs(), expect.packets);
    }
    assert_eq!(total(&metrics, "network.flow.connections", "closed"), ended);
    let names: Vec<(&str, &str)> =
        metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
    let expect = [
        ("network.flow.bytes", "By"),
        ("network.flow.packets", "{packet}"),
        ("network.flow.connections", "{connection}"),
        ("network.flow.retransmits", "{segment}"),
        ("network.flow.rtt", "s"),
    ];
    assert_eq!(names, expect);
    let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
    assert!(sum.is_monotonic);
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
    let Some(Data::Histogram(times)) = &metrics[4].data else { panic!("{:?}", metrics[4]) };
    assert!(times.data_points.iter().all(|point| point.count > 0 && point.sum.unwrap() > 0.0));
    let web = [
        text("source.k8s.namespace.name", "shop"),
        text("source.k8s.owner.kind", "Deployment"),
        text("source.k8s.owner.name", "web"),
    ];
    assert!(points(&metrics, "network.flow.bytes").iter().any(|point| point.attributes.starts_with(&web)));
}

#[test]
fn edges_without_a_place_are_others() {
    let mut meter = meter(Temporality::Cumulative, 2);
    meter.add(&samples::batch(5, 1));
    let metrics = told(&mut meter, Temporality::Cumulative);
    let attributes: Vec<_> =
        points(&metrics, "network.flow.connections").iter().map(|point| &point.attributes).collect();
    assert_eq!(attributes.len(), 3);
    let one = [
        text("source.address", "10.0.0.1"),
        text("destination.address", "10.0.0.2"),
        any("destination.port", Any::IntValue(1)),
        text("network.transport", "tcp"),
        text("flow.observation", "uplink"),
        text("state", "opened"),
    ];
    assert_eq!(attributes[0], &one);
    let others = [
        text("source.k8s.owner.name", "__other__"),
        text("destination.k8s.owner.name", "__other__"),
        text("flow.observation", "uplink"),
        text("state", "opened"),
    ];
    assert_eq!(attributes[2], &others);
    assert_eq!(total(&metrics, "network.flow.bytes", "forward"), 5 * 60);
}

#[test]
fn differences_are_those_to_what_arrived() {
    let temporality = Temporality::Delta;
    let mut meter = meter(temporality, 10);
    meter.add(&samples::batch(3, 1));
    // The first attempt fails, the second arrives.
    drop(meter.begin());
    assert_eq!(total(&told(&mut meter, temporality), "network.flow.bytes", "forward"), 3 * 60);
    meter.add(&samples::batch(2, 2));
    let metrics = told(&mut meter, temporality);
    assert_eq!(total(&metrics, "network.flow.bytes", "forward"), 2 * 60);
    // Nothing is said of edges without traffic, and each difference begins where the last ended.
    assert_eq!(points(&metrics, "network.flow.connections").len(), 2);
    assert!(told(&mut meter, temporality).iter().all(|metric| match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.is_empty(),
        _ => false,
    }));
}
