use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::{
    Role, Traffic,
    format::samples::{process, record, traffic, tuple, web},
};

fn samples() -> Vec<Record> {
    let mut page = web();
    page.destination.process = Some(process(1, "ng\u{1b}[31minx"));
    let mut name =
        record(tuple(17, ("fd00::5", 42_978), ("fd00::35", 53)), traffic(1, 99, 0), traffic(1, 200, 0));
    name.point = std::sync::Arc::new(crate::Point {
        netns: Some("shop".into()),
        role: Role::PodEdge,
        direction: Direction::Ingress,
        ..(*name.point).clone()
    });
    let ping = record(tuple(1, ("10.0.0.1", 3), ("10.0.0.2", 1)), traffic(2, 98, 0), Traffic::default());
    let mut folded =
        record(tuple(17, ("0.0.0.0", 0), ("0.0.0.0", 0)), traffic(7, 1500, 0), Traffic::default());
    folded.detail = Detail::Folded;
    vec![ping, page, name, folded]
}

fn shown(width: usize, top: Option<usize>, group_by: &[&str]) -> String {
    let group_by: Vec<&Field> = group_by.iter().map(|name| Field::by_name(name).unwrap()).collect();
    let options =
        TableOptions { width, interval: Duration::from_secs(2), top, group_by: &group_by, rest: &[] };
    let mut out = String::new();
    table(&samples(), &options, &mut out);
    out
}

#[test]
fn the_largest_flow_comes_first_and_roles_have_totals() {
    assert_snapshot!(shown(160, None, &[]), @r"
    SOURCE            DESTINATION     PROTO     INTERFACE     SENT/s  BACK/s  PACKETS  TOTAL  AGE  FLAGS    PROCESS
    172.18.0.5:55136  172.18.0.6:443  tcp       eth0 out         330   15.1k       30  30.9k   1s  SYN|ACK  curl > ng?[31minx
    (folded)          (folded)        udp       eth0 out       5.25k       0        7  10.5k   1s
    [fd00::5]:42978   [fd00::35]:53   udp       shop/eth0 in      50     100        2    299   1s
    10.0.0.1          10.0.0.2        icmp 3/1  eth0 out          98       0        2    196   1s
    total pod-edge: 1 flow, in 50B/s, out 100B/s, 2 packets
    total uplink: 3 flows, in 15.1kB/s, out 5.67kB/s, 39 packets
    ");
}

#[test]
fn a_cut_list_ends_with_the_others_of_each_role() {
    assert_snapshot!(shown(90, Some(1), &[]), @r"
    SOURCE              DESTINATION     PROTO  SENT/s  BACK/s  TOTAL  PROCESS
    172.18.0.5:55136    172.18.0.6:443  tcp       330   15.1k  30.9k  curl > ng?[31minx
    (others, pod-edge)  1 flow                     50     100
    (others, uplink)    2 flows                 5.34k       0
    total pod-edge: 1 flow, in 50B/s, out 100B/s, 2 packets
    total uplink: 3 flows, in 15.1kB/s, out 5.67kB/s, 39 packets
    ");
    assert_snapshot!(shown(90, Some(9), &["network.transport"]), @r"
    NETWORK.TRANSPORT  ROLE      FLOWS  SENT/s  BACK/s  PACKETS
    tcp                uplink        1     330   15.1k       30
    udp                uplink        1   5.25k       0        7
    udp                pod-edge      1      50     100        2
    icmp               uplink        1      98       0        2
    (others)                         0       0       0        0
    total pod-edge: 1 flow, in 50B/s, out 100B/s, 2 packets
    total uplink: 3 flows, in 15.1kB/s, out 5.67kB/s, 39 packets
    ");
}

#[test]
fn a_narrow_table_drops_columns_and_cuts_texts() {
    assert_snapshot!(shown(60, None, &[]), @r"
    SOURCE            DESTINATION     PROTO     SENT/s  BACK/s
    172.18.0.5:55136  172.18.0.6:443  tcp          330   15.1k
    (folded)          (folded)        udp        5.25k       0
    [fd00::5]:42978   [fd00::35]:53   udp           50     100
    10.0.0.1          10.0.0.2        icmp 3/1      98       0
    total pod-edge: 1 flow, in 50B/s, out 100B/s, 2 packets
    total uplink: 3 flows, in 15.1kB/s, out 5.67kB/s, 39 packets
    ");
    assert_snapshot!(shown(40, Some(1), &["source.address", "source.process.executable.name"]), @r"
    SOURCE.ADD…  SOURCE.PRO…  SENT/s  BACK/s
    172.18.0.5   curl            330   15.1k
    (others, p…                   50     100
    (others, u…                5.34k       0
    total pod-edge: 1 flow, in 50B/s, out 1…
    total uplink: 3 flows, in 15.1kB/s, out…
    ");
}

#[test]
fn nothing_is_a_heading() {
    let options = TableOptions { width: 80, interval: Duration::ZERO, top: None, group_by: &[], rest: &[] };
    let mut out = String::new();
    table([], &options, &mut out);
    assert_eq!(out, "SOURCE  DESTINATION  PROTO  SENT/s  BACK/s\n");
}

#[test]
fn numbers_are_short() {
    let check = |number, expected: &str| assert_eq!(Short(number).to_string(), expected);
    check(0, "0");
    check(999, "999");
    check(1_000, "1.00k");
    check(12_345, "12.3k");
    check(999_999, "999k");
    check(123_456_789, "123M");
    check(u64::MAX, "18E");
}

proptest! {
    #[test]
    fn no_line_is_longer_than_the_width(width in 50..200_usize, top in prop::option::of(0..5_usize)) {
        for line in shown(width, top, &[]).lines() {
            prop_assert!(line.chars().count() <= width, "{line}");
        }
    }
}
