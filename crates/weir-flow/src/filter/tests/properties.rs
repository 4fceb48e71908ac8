//! What holds for every filter, every tuple and every text.

use proptest::prelude::*;
use weir_packet::{Details, Tuple};

use super::{super::*, parsed};
use crate::{
    Record,
    format::samples::{marked, process, record, traffic, tuple, web},
};
use pushdown::MAX_CONDITIONS;

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.9.0.1", "192.168.0.1", "1.1.1.1", "10.0.0.77"];
const ADDRESSES_V6: [&str; 4] = ["fd00::1", "fd00::2", "::ffff:10.0.0.1", "2001:db8::1"];
const PORTS: [u16; 5] = [0, 8, 53, 80, 50_000];

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let protocols = prop::sample::select(vec![1_u8, 6, 17, 58, 132, 47]);
    let ports = (prop::sample::select(PORTS.to_vec()), prop::sample::select(PORTS.to_vec()));
    let marks = (any::<bool>(), 0..10_u8, prop::option::of(0..4_u16));
    (protocols, any::<(prop::sample::Index, prop::sample::Index)>(), ports, marks).prop_map(
        |(protocol, ends, ports, (is_ipv6, mark, vlan))| {
            let pick = |index: prop::sample::Index| {
                if is_ipv6 { *index.get(&ADDRESSES_V6) } else { *index.get(&ADDRESSES) }
            };
            let (source, destination) = (pick(ends.0), pick(ends.1));
            let unmarked = |ports: (u16, u16)| tuple(protocol, (source, ports.0), (destination, ports.1));
            let mark_vlan = vlan.map_or(Details::default(), |vlan| Details::default().with_vlan(vlan));
            match mark {
                0 => marked(unmarked((0, 0)), mark_vlan.with_fragment()),
                1 => marked(unmarked((0, 0)), mark_vlan.with_truncated()),
                2 if protocol == 1 => marked(unmarked((8, 0)), mark_vlan.with_icmp_query()),
                _ => marked(unmarked(ports), mark_vlan),
            }
        },
    )
}

fn record_of(tuple: Tuple, is_reversed: bool) -> Record {
    let tuple = if is_reversed { tuple.reversed() } else { tuple };
    record(tuple, traffic(3, 100, 0x12), traffic(1, 60, 0x10))
}

fn any_comparison() -> impl Strategy<Value = String> {
    let subjects = prop::sample::select(vec!["src", "dst", "host", "source.address"]);
    let values = vec![
        "10.0.0.1",
        "10.0.0.0/24",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "fd00::/8",
        "::/0",
        "::ffff:10.0.0.1",
        "::/1",
        "192.168.0.1",
    ];
    let lists = prop::collection::vec(prop::sample::select(values), 1..4);
    let addresses = (subjects, prop::sample::select(vec!["=", "!=", " in ", " not in "]), lists)
        .prop_map(|(subject, operator, values)| format!("{subject}{operator}{}", values.join(",")));
    let ports = (
        prop::sample::select(vec!["sport", "dst.port", "port"]),
        prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]),
        prop::sample::select(PORTS.to_vec()),
    )
        .prop_map(|(subject, operator, port)| format!("{subject}{operator}{port}"));
    let others = prop::sample::select(vec![
        "port=10-60",
        "port in 53,80",
        "sport in 0-65535",
        "proto=tcp",
        "proto!=tcp",
        "proto in udp,icmp,sctp",
        "proto not in 0-16,58",
        "proto=0-255",
        "proto not in 0-255",
        "network.type=ipv4",
        "network.type!=ipv4",
        "network.type not in ipv4,ipv6",
        "flow.icmp.type=8",
        "flow.icmp.code!=0",
        "flow.icmp.type<8",
        "flow.tcp.flags~SYN",
        "flow.tcp.flags!=ACK",
        "flow.vlan=1",
        "flow.bytes>299",
        "flow.bytes<10k",
        "flow.reverse.bytes=60",
        "proc=x",
        "flow.fragment=true",
        "flow.truncated!=true",
        "flow.duration>1s",
        "flow.start<2030-01-01T00:00:00Z",
        "iface~ETH",
        "iface='a b\\\\\"'",
        "proc~\"*\"",
    ])
    .prop_map(str::to_owned);
    prop_oneof![2 => addresses, 2 => ports, 3 => others]
}

fn any_filter_text() -> impl Strategy<Value = String> {
    any_comparison().prop_recursive(5, 24, 4, |inner| {
        let many = prop::collection::vec(inner.clone(), 2..5);
        prop_oneof![
            many.clone().prop_map(|parts| format!("({})", parts.join(" and "))),
            many.prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not {part}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_matches_is_admitted_in_both_directions(text in any_filter_text(), tuple in any_tuple()) {
        let filter = parsed(&text);
        let pushdown = filter.pushdown();
        prop_assert_eq!(pushdown.admits(&tuple), pushdown.admits(&tuple.reversed()));
        for is_reversed in [false, true] {
            prop_assert!(
                !filter.matches(&record_of(tuple, is_reversed)) || pushdown.admits(&tuple),
                "{} matches {:?}, but {:?} does not admit it", filter, tuple, pushdown
            );
        }
        prop_assert!(pushdown.clauses.iter().map(Vec::len).sum::<usize>() <= MAX_CONDITIONS);
        prop_assert!(pushdown.clauses.iter().all(|clause| !clause.is_empty()));
    }

    #[test]
    fn deciding_about_many_records_agrees_with_one_at_a_time(
        text in any_filter_text(),
        tuples in prop::collection::vec(any_tuple(), 1..8),
    ) {
        let filter = parsed(&text);
        let records: Vec<Record> = tuples.into_iter().map(|tuple| record_of(tuple, false)).collect();
        let fields = filter.fields();
        let selected = filter.select(records.len(), &mut |field, test| {
            assert!(fields.contains(&field));
            records.iter().map(|record| test.accepts(&field.value(record))).collect()
        });
        let expected: Vec<bool> = records.iter().map(|record| filter.matches(record)).collect();
        prop_assert_eq!(selected, expected);
    }

    #[test]
    fn canonical_text_reads_back_as_the_same_filter(text in any_filter_text()) {
        let filter = parsed(&text);
        let canonical = filter.to_string();
        prop_assert_eq!(&parsed(&canonical), &filter);
        prop_assert_eq!(parsed(&canonical).to_string(), canonical);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in "\\PC{0,40}") {
        check_any(&text)?;
    }

    #[test]
    fn any_mix_of_pieces_is_read_or_refused_with_a_place(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "and", "or", "not", "in", "(", ")", ",", "=", "!=", "~", "!~", "<", ">=", "!", "|", "&&", "\"", "'", "\\",
            " ", "port", "host", "proc", "proto", "flow.bytes", "flow.duration", "flow.start", "flow.tcp.flags", "80",
            "1-5", "-", "10.0.0.0/8", "fd00::1", "/", "tcp", "SYN|ACK", "1.5k", "10ms", "µs", "é", "*", "?",
            "18446744073709551615", "99999999999999999999999999999999999999999", "0.0000000000000000001s",
        ]), 0..14),
        separator in prop::sample::select(vec!["", " "]),
    ) {
        check_any(&pieces.join(separator))?;
    }

    #[test]
    fn a_glob_agrees_with_the_plain_definition(text in "[ab]{0,8}", pattern in "[ab*?]{1,6}") {
        fn fits(text: &[u8], pattern: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, rest) => rest.is_none(),
                (Some((b'*', after)), rest) => {
                    fits(text, after) || rest.is_some_and(|(_, left)| fits(left, pattern))
                }
                (Some((wanted, after)), Some((letter, left))) => {
                    (*wanted == b'?' || wanted == letter) && fits(left, after)
                }
                (Some(_), None) => false,
            }
        }
        let expected = if pattern.contains(['*', '?']) {
            fits(text.as_bytes(), pattern.as_bytes())
        } else {
            text.contains(&pattern)
        };
        let mut record = web();
        record.source.process = Some(process(1, &text));
        prop_assert_eq!(parsed(&format!("proc~\"{pattern}\"")).matches(&record), expected);
    }
}

fn check_any(text: &str) -> Result<(), TestCaseError> {
    completions(text);
    match Filter::parse(text) {
        Ok(filter) => prop_assert_eq!(Filter::parse(&filter.to_string()), Ok(filter)),
        Err(error) => {
            prop_assert!(text.is_char_boundary(error.position), "{:?}", error);
            error.caret(text);
        }
    }
    Ok(())
}
