use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    field::{FIELDS, Field},
    filter::Filter,
    format::samples::{pod, process, web},
    identity::{Identity, Unknown, Workload, WorkloadConfidence, WorkloadKind},
};

fn rebuilt(record: &Record) -> Record {
    record_of(&|name| Field::by_name(name).expect("rebuilding asks for fields only").value(record))
}

fn check(record: &Record) {
    let rebuilt = rebuilt(record);
    for field in FIELDS {
        assert_eq!(field.value(&rebuilt), field.value(record), "{} of {record:?}", field.name);
    }
}

#[test]
fn every_field_of_a_rebuilt_record_has_its_value() {
    let mut record = web();
    record.destination.process = Some(process(1, "nginx"));
    record.destination.owner = SocketOwner { cookie: 5, cgroup: 9 };
    record.end_reason = Some(EndReason::Reset);
    record.initiator = Initiator::Listener;
    record.outcome = Outcome { tcp_failure: Some(TcpFailure::Reset), is_unanswered: Some(false) };
    record.quality = Quality {
        rtt: Some(Duration::from_micros(12_345)),
        minimum_rtt: Some(Duration::from_micros(1)),
        retransmits: Some(0),
        reverse_retransmits: Some(u32::MAX),
    };
    check(&record);
    record.dns = Some(Box::default());
    check(&record);
    record.dns = Some(Box::new(Dns {
        question: Some(Question { name: "www.example.com".into(), record_type: RecordType(65_280) }),
        response_code: Some(ResponseCode::new(3)),
        lookup_duration: Some(Duration::from_micros(1234)),
        queries: 4,
        responses: 3,
        failures: 2,
        unanswered: 1,
    }));
    check(&record);
    let netns = Some("shop".into());
    record.point = Arc::new(Point { role: Role::Tunnel, netns, ..(*record.point).clone() });
    check(&record);
}

#[test]
fn who_is_at_an_end_is_rebuilt_whatever_it_is() {
    let of_kind = |kind, namespace: Option<&str>, owner_kind: &str| Workload {
        kind,
        namespace: namespace.map(Into::into),
        name: "web".into(),
        uid: "".into(),
        owner_kind: owner_kind.into(),
        owner_name: "web".into(),
        node: None,
        labels: Box::default(),
    };
    let service = Arc::new(of_kind(WorkloadKind::Service, Some("shop"), "Service"));
    let known = |workload: &Arc<Workload>| Identity {
        workload: Some(Arc::clone(workload)),
        confidence: Some(WorkloadConfidence::Stale),
        ..Identity::default()
    };
    for identity in [
        pod("shop", "web-1"),
        Identity { service: Some(Arc::clone(&service)), ..pod("shop", "web-1") },
        Identity { service: Some(Arc::clone(&service)), ..known(&service) },
        known(&Arc::new(of_kind(WorkloadKind::Node, None, "Node"))),
        Identity { unknown: Some(Unknown::NotAtThatTime), ..Identity::default() },
        Identity { dns_name: Some("www.example.com".into()), ..pod("shop", "web-1") },
    ] {
        let mut record = web();
        record.destination.identity = identity;
        check(&record);
        record.source.identity = std::mem::take(&mut record.destination.identity);
        check(&record);
    }
}

#[test]
fn text_and_number_of_a_value_read_back() {
    let record = web();
    for field in FIELDS {
        let value = field.value(&record);
        if !value.is_absent() {
            assert_eq!(Value::read(field.kind, &value.to_string()), Some(value), "{}", field.name);
        }
    }
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let protocols = prop::sample::select(vec![1_u8, 6, 17, 58, 132, 47]);
    (any::<([u64; 2], [u64; 2])>(), any::<bool>(), protocols, any::<(u16, u16)>(), 0..5_u8).prop_map(
        |((source, destination), is_ipv6, protocol, ports, mark)| {
            let details = Details::new(is_ipv6, protocol);
            let is_icmp = protocol == if is_ipv6 { protocol::ICMPV6 } else { protocol::ICMP };
            let [kind, code] = [ports.0, ports.1].map(|number| number.to_le_bytes()[0]);
            let details = match (is_icmp, answering_type(is_ipv6, kind)) {
                (true, Some(answer)) => details.with_icmp_query().with_ports(kind.into(), answer.into()),
                (true, None) => details.with_ports(kind.into(), code.into()),
                (false, _) if matches!(protocol, 6 | 17 | 132) => details.with_ports(ports.0, ports.1),
                (false, _) => details,
            };
            let details = match mark {
                0 => Details::new(is_ipv6, protocol).with_fragment(),
                1 => Details::new(is_ipv6, protocol).with_truncated(),
                2 => details.with_vlan(ports.1),
                _ => details,
            };
            let words = |address: [u64; 2]| {
                if is_ipv6 { address } else { ipv4_words(address[0].to_be_bytes()[..4].try_into().unwrap()) }
            };
            Tuple::new(words(source), words(destination), details)
        },
    )
}

fn any_traffic() -> impl Strategy<Value = Traffic> {
    (1..u64::MAX, 1..u64::MAX, any::<(u64, u32, u8, u8)>(), 0..512_u16).prop_map(
        |(bytes, packets, (skbs, last_length, dscp, ttl), tcp_flags)| Traffic {
            bytes,
            packets,
            skbs,
            last_length,
            tcp_flags,
            dscp,
            ttl,
            ..Traffic::default()
        },
    )
}

proptest! {
    #[test]
    fn any_record_rebuilds(
        tuple in any_tuple(),
        traffic in (any_traffic(), any_traffic(), any_traffic(), any_traffic()),
    ) {
        let mut record = web();
        record.tuple = tuple;
        record.source.address = tuple.source();
        record.destination.address = tuple.destination();
        let has_ports = tuple.has_ports();
        record.source.port = if has_ports { tuple.source_port() } else { 0 };
        record.destination.port = if has_ports { tuple.destination_port() } else { 0 };
        record.delta = Counters { forward: traffic.0, reverse: traffic.1 };
        record.total = Counters { forward: traffic.2, reverse: traffic.3 };
        check(&record);
        prop_assert_eq!(rebuilt(&record).tuple, record.tuple);
        prop_assert!(Filter::default().matches(&rebuilt(&record)));
    }
}
