use insta::assert_snapshot;
use weir_packet::Details;

use super::{
    samples::{marked, record, traffic, tuple, web},
    *,
};
use crate::{Detail, EndReason, Record, Traffic, field::FIELDS};

fn check_log(record: &Record, expected: &[&str]) {
    let mut out = String::new();
    log_lines(record, "23:33:50", &mut out);
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_log_line_says_what_the_packet_counter_said() {
    let none = Traffic::default();
    let query = |kinds| marked(tuple(1, kinds, ("10.244.1.4", 8)), Details::default().with_icmp_query());
    let mut record_of_totals = record(
        tuple(6, ("172.18.0.5", 55136), ("172.18.0.6", 6443)),
        traffic(2, 66, 0x10),
        Traffic::default(),
    );
    record_of_totals.total.forward.packets = 1983;
    check_log(
        &record_of_totals,
        &["[23:33:50] TCP 172.18.0.5->172.18.0.6 55136->6443 [ACK] (len=66) count=1983"],
    );
    check_log(
        &record(query(("10.244.2.2", 0)), traffic(45, 98, 0), traffic(44, 98, 0)),
        &[
            "[23:33:50] ICMP 10.244.2.2->10.244.1.4 type=0 code=0 (len=98) count=45",
            "[23:33:50] ICMP 10.244.1.4->10.244.2.2 type=8 code=0 (len=98) count=44",
        ],
    );
    check_log(
        &record(tuple(17, ("10.244.2.4", 42978), ("10.244.0.4", 53)), traffic(72, 99, 0), none),
        &["[23:33:50] UDP 10.244.2.4->10.244.0.4 42978->53 (len=99) count=72"],
    );
    check_log(
        &record(tuple(6, ("fd00::5", 55136), ("fd00::6", 443)), none, traffic(1, 86, 0x12)),
        &["[23:33:50] TCP [fd00::6]->[fd00::5] 443->55136 [SYN|ACK] (len=86) count=1"],
    );
}

#[test]
fn a_log_line_names_what_has_no_ports() {
    let ends = (("10.0.0.1", 0), ("10.0.0.2", 0));
    let of = |tuple| record(tuple, traffic(3, 134, 0), Traffic::default());
    let line = |middle: &str| format!("[23:33:50] {middle} (len=134) count=3");
    check_log(&of(tuple(47, ends.0, ends.1)), &[&line("GRE 10.0.0.1->10.0.0.2")]);
    check_log(&of(tuple(253, ends.0, ends.1)), &[&line("IP/253 10.0.0.1->10.0.0.2")]);
    check_log(
        &of(tuple(1, ("10.0.0.1", 3), ("10.0.0.2", 1))),
        &[&line("ICMP 10.0.0.1->10.0.0.2 type=3 code=1")],
    );
    let fragment = marked(tuple(17, ends.0, ends.1), Details::default().with_fragment());
    check_log(&of(fragment), &[&line("UDP 10.0.0.1->10.0.0.2 fragment")]);
    let truncated = marked(tuple(6, ("fd00::1", 0), ("fd00::2", 0)), Details::default().with_truncated());
    check_log(&of(truncated), &[&line("TCP [fd00::1]->[fd00::2] truncated")]);
    let mut folded = of(tuple(17, ("0.0.0.0", 0), ("0.0.0.0", 0)));
    folded.detail = Detail::Folded;
    check_log(&folded, &[&line("UDP *->* folded")]);
    check_log(
        &of(tuple(6, ("10.0.0.1", 1), ("10.0.0.2", 2))),
        &[&line("TCP 10.0.0.1->10.0.0.2 1->2 [none]")],
    );
}

#[test]
fn a_block_starts_with_dashes_even_without_records() {
    let mut out = String::new();
    log_block([], "23:33:50", &mut out);
    assert_eq!(out, "---\n");
}

#[test]
fn json_is_one_flat_object_with_the_names_of_the_table() {
    let mut out = String::new();
    json_line(&web(), &mut out);
    assert_eq!(out.matches('\n').count(), 1);
    let spread = out.replace(",\"", ",\n\"");
    assert_snapshot!(spread, @r#"
    {"flow.start":"2024-11-21T23:33:48.988000000Z",
    "flow.end":"2024-11-21T23:33:50.000000000Z",
    "flow.duration":1.012,
    "source.address":"172.18.0.5",
    "source.port":55136,
    "destination.address":"172.18.0.6",
    "destination.port":443,
    "network.transport":"tcp",
    "network.type":"ipv4",
    "network.interface.name":"eth0",
    "flow.direction":"egress",
    "flow.observation":"uplink",
    "flow.bytes":660,
    "flow.packets":10,
    "flow.skbs":10,
    "flow.reverse.bytes":30280,
    "flow.reverse.packets":20,
    "flow.reverse.skbs":20,
    "flow.total.bytes":660,
    "flow.total.packets":10,
    "flow.reverse.total.bytes":30280,
    "flow.reverse.total.packets":20,
    "flow.last_length":66,
    "flow.tcp.flags":"SYN|ACK",
    "flow.reverse.tcp.flags":"ACK",
    "flow.ip.dscp":0,
    "flow.ip.ttl":64,
    "flow.fragment":false,
    "flow.truncated":false,
    "flow.community_id":"1:A6tImwjrdxXM4zOG3QdetvFAJ8M=",
    "flow.initiator.confidence":"proven",
    "flow.detail":"flow",
    "source.process.pid":4242,
    "source.process.executable.name":"curl",
    "source.process.confidence":"proven",
    "source.socket.cookie":77}
    "#);
}

#[test]
fn json_parses_and_keeps_awkward_text() {
    let mut record = web();
    let awkward = "a\"b\\c\n\t\u{1}\u{7f}é😀,";
    record.source.process = Some(samples::process(1, awkward));
    record.end_reason = Some(EndReason::Reset);
    let mut out = String::new();
    json_line(&record, &mut out);
    let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(parsed["source.process.executable.name"], awkward);
    assert_eq!(parsed["flow.end_reason"], "reset");
    assert_eq!(parsed["flow.duration"], 1.012);
    assert_eq!(parsed["flow.reverse.bytes"], 30_280);
}

#[test]
fn csv_has_a_column_for_every_field_and_quotes_what_must_be() {
    let mut record = web();
    record.source.process = Some(samples::process(1, "a,\"b\"\nc"));
    let mut out = String::new();
    csv_header(&mut out);
    csv_line(&record, &mut out);
    let (header, line) = out.split_once('\n').unwrap();
    assert_eq!(header, FIELDS.iter().map(|field| field.name).collect::<Vec<_>>().join(","));
    assert!(line.contains(",\"a,\"\"b\"\"\nc\","), "{line}");
    let quoted = line.replace("\"a,\"\"b\"\"\nc\"", "name");
    assert_eq!(quoted.trim_end().split(',').count(), FIELDS.len());
    assert_snapshot!(quoted.trim_end(), @"2024-11-21T23:33:48.988000000Z,2024-11-21T23:33:50.000000000Z,1.012,172.18.0.5,55136,172.18.0.6,443,tcp,ipv4,eth0,,egress,uplink,660,10,10,30280,20,20,660,10,30280,20,66,SYN|ACK,ACK,,,,,,,,,,,,,,,,,0,64,,false,false,1:A6tImwjrdxXM4zOG3QdetvFAJ8M=,,proven,flow,1,name,proven,77,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,");
}
