mod properties;

use weir_packet::protocol;

use super::{pushdown::MAX_CONDITIONS, *};
use crate::{
    Detail, EndReason, Record, Traffic,
    format::samples::{process, record, traffic, tuple, web},
};

fn parsed(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{error}\n{}", error.caret(text)))
}

fn check(text: &str, record: &Record, expected: bool) {
    let filter = parsed(text);
    assert_eq!(filter.matches(record), expected, "{text}");
    assert_eq!(parsed(&filter.to_string()), filter, "{text} is written as {filter}");
}

fn check_canonical(text: &str, expected: &str) {
    assert_eq!(parsed(text).to_string(), expected);
    assert_eq!(parsed(expected).to_string(), expected);
}

fn check_error(text: &str, position: usize, message: &str, suggestion: Option<&str>) {
    let error = Filter::parse(text).expect_err(text);
    assert_eq!(
        (error.position, error.message.as_str(), error.suggestion.as_deref()),
        (position, message, suggestion),
        "{text}"
    );
}

#[test]
fn conditions_hold_for_a_web_request() {
    // 172.18.0.5:55136 (curl) -> 172.18.0.6:443, 660 B there and 30280 B back in 1.012 s.
    let record = web();
    for text in [
        "",
        "  ",
        "proto=tcp",
        "proto=6",
        "proto in tcp,udp",
        "proto!=udp",
        "network.transport in 5-7",
        "src=172.18.0.5",
        "src=172.18.0.0/16 and dst=172.18.0.6",
        "host=172.18.0.6",
        "host in 10.0.0.0/8, 172.18.0.5",
        "host!=10.0.0.0/8",
        "port=443",
        "port in 80,443",
        "port in (80, 443)",
        "port=80,443",
        "dst.port=443",
        "sport=55000-56000",
        "sport>443 && dport<=443",
        "dport>=443",
        "flow.bytes>0.5k",
        "flow.reverse.bytes>=30Ki or flow.reverse.bytes=30280",
        "flow.bytes=660B",
        "flow.duration>1s and flow.duration<1100ms",
        "flow.duration=1.012s",
        "flow.start>2024-11-21T23:33:00Z",
        "flow.end=2024-11-21T23:33:50Z",
        "flow.tcp.flags=syn|ack",
        "flow.tcp.flags~SYN",
        "flow.tcp.flags!=SYN",
        "flow.reverse.tcp.flags=ACK",
        "proc=curl",
        "proc~CUR",
        "proc~c*l",
        "proc~'?url'",
        "proc!~nginx,envoy",
        "src.process.pid=4242",
        "network.type=ipv4",
        "network.type=IPv4",
        "flow.direction=egress and flow.observation=uplink",
        "iface=eth0",
        "flow.fragment=false",
        "source.socket.cookie=77",
        "flow.community_id=1:A6tImwjrdxXM4zOG3QdetvFAJ8M= and proto=tcp",
        "not port=53",
        "! port=53",
        "port not in 53,67",
        "not (port=53 or port=67)",
        "port=53 or port=80 or port=443 and proto=tcp",
        "NOT port=53 AND proto=tcp",
        "dst.process.pid!=5",
        "not dst.process.pid=5",
        "not dst.process.pid>5",
    ] {
        check(text, &record, true);
        if !text.trim().is_empty() {
            check(&format!("not ({text})"), &record, false);
        }
    }
}

#[test]
fn what_a_record_does_not_have_is_never_so() {
    let mut record = record(
        tuple(protocol::ICMP, ("10.0.0.1", 3), ("10.0.0.2", 1)),
        traffic(1, 98, 0),
        Traffic::default(),
    );
    check("flow.icmp.type=3 and flow.icmp.code=1", &record, true);
    for text in [
        "port=3",
        "port<10",
        "port>=0",
        "flow.tcp.flags=none",
        "flow.vlan=0",
        "proc~*",
        "flow.end_reason=fin",
    ] {
        check(text, &record, false);
    }
    check("port!=3", &record, true);
    check("proc!~*", &record, true);
    check("host=0.0.0.0/0", &record, true);
    check("host=::/0", &record, false);
    record.end_reason = Some(EndReason::Fin);
    check("flow.end_reason=fin", &record, true);
    record.detail = Detail::Folded;
    check("host=0.0.0.0/0", &record, false);
    check("proto=icmp and flow.detail=folded", &record, true);
}

#[test]
fn either_end_means_any_end_and_not_means_neither() {
    let mut record = web();
    record.destination.process = Some(process(1, "nginx"));
    check("proc=nginx", &record, true);
    check("proc!=nginx", &record, false);
    check("proc!=envoy", &record, true);
    check("port!=443", &record, false);
    check("host=172.18.0.5 and host=172.18.0.6", &record, true);
}

#[test]
fn prefixes_keep_the_families_apart() {
    let mapped =
        record(tuple(17, ("::ffff:10.0.0.1", 1), ("fd00::1", 2)), traffic(1, 60, 0), Traffic::default());
    check("host=10.0.0.1", &mapped, false);
    check("host=::ffff:10.0.0.1", &mapped, true);
    check("dst=fd00::/8", &mapped, true);
    check("dst=[fd00::1]", &mapped, true);
    check("dst=fd00::/128", &mapped, false);
}

#[test]
fn canonical_text_is_short_and_full() {
    check_canonical("", "");
    check_canonical("src=10.1.2.3/8", "source.address=10.0.0.0/8");
    check_canonical("host=[fd00::1]/128", "host=fd00::1");
    check_canonical("port in (80,443,80)", "port in 80,443");
    check_canonical("port not in 80", "port!=80");
    check_canonical("flow.bytes > 10k", "flow.bytes>10000");
    check_canonical("flow.bytes=1.5MiB", "flow.bytes=1572864");
    check_canonical("flow.duration in 10ms,90s,120s,1.5s,0s", "flow.duration in 10ms,90s,2m,1500ms,0s");
    check_canonical("flow.duration=5µs", "flow.duration=5us");
    check_canonical("proto in 6,253,50-51", "network.transport in tcp,253,50-51");
    check_canonical("flow.tcp.flags~ack|SYN", "flow.tcp.flags~SYN|ACK");
    check_canonical("proc='and'", "proc=\"and\"");
    check_canonical(r#"proc="a \"b\" \\ c""#, r#"proc="a \"b\" \\ c""#);
    check_canonical(
        "((port=1)) or (port=2 or (port=3 and not (port=4)))",
        "port=1 or port=2 or port=3 and not port=4",
    );
    check_canonical("(port=1 or port=2) and (port=3 and port=4)", "(port=1 or port=2) and port=3 and port=4");
    check_canonical("not(port=1 and port=2)", "not (port=1 and port=2)");
    check_canonical("flow.start>=2026-01-01T01:00:00+01:00", "flow.start>=2026-01-01T00:00:00.000000000Z");
    check_canonical("port==53", "port=53");
}

#[test]
fn errors_say_where_and_what() {
    check_error("flow.byte>1", 0, "unknown field `flow.byte`", Some("flow.bytes"));
    check_error("proto=tcp and nonsuch=1", 14, "unknown field `nonsuch`", None);
    check_error("flow.tcp.window>10", 0, "unknown field `flow.tcp.window`", None);
    check_error("nss=shop", 0, "unknown field `nss`", Some("ns"));
    check_error("proto=tpc", 6, "unknown protocol `tpc`: use its IANA keyword or number", Some("tcp"));
    check_error("port=70000", 5, "`70000` is too large: a port is at most 65535", None);
    check_error("port=http", 5, "`http` is not a port", None);
    check_error("port=", 5, "expected a port for `port`, found the end", None);
    check_error("port in 80,", 11, "expected a port for `port`, found the end", None);
    check_error("port=2000-1000", 5, "the range `2000-1000` is empty", Some("1000-2000"));
    check_error("src=10.0.0.0/33", 4, "`/33` is not the length of a prefix: it is a number up to 32", None);
    check_error(
        "src=10.0.0",
        4,
        "`10.0.0` is not an address or prefix, such as 10.0.0.1, 10.0.0.0/8 or fd00::/8",
        None,
    );
    check_error("src>10.0.0.1", 3, "`>` needs a number, but `source.address` is an address", None);
    check_error("src~10", 3, "`~` needs text, but `source.address` is an address", Some("="));
    check_error(
        "port 80",
        5,
        "expected an operator after `port` (=, !=, <, <=, >, >=, in, ~), found `80`",
        Some("port=80"),
    );
    check_error("tcp and port=80", 0, "unknown field `tcp`", Some("proto=tcp"));
    check_error("10.0.0.1", 0, "unknown field `10.0.0.1`", Some("host=10.0.0.1"));
    check_error("443", 0, "unknown field `443`", Some("port=443"));
    check_error("ipv6", 0, "unknown field `ipv6`", Some("network.type=ipv6"));
    check_error("port=80 proto=tcp", 8, "expected `and`, `or` or the end, found `proto`", Some("and proto"));
    check_error("port=80)", 7, "this parenthesis was never opened", None);
    check_error("(port=80", 0, "this parenthesis is never closed", None);
    check_error("port=80 &", 8, "a single `&` has no meaning", Some("and"));
    check_error("port=80 | port=81", 8, "a single `|` has no meaning here", Some("or"));
    check_error("proc=\"x", 5, "this quote is never closed", None);
    check_error("proc=and", 5, "expected text, found the keyword `and`", Some("\"and\""));
    check_error("proc~''", 5, "the value is empty", None);
    check_error("flow.duration>5", 14, "`5` needs a unit: ns, us, ms, s, m, h or d", Some("5ms"));
    check_error("flow.duration>5parsec", 14, "unknown unit `parsec`: use d, h, m, s, ms, us, µs, ns", None);
    check_error("flow.bytes>1-2", 11, "an order compares with one number", None);
    check_error("flow.bytes>1,2", 13, "an order compares with one number", None);
    check_error("flow.tcp.flags=SYM", 15, "unknown TCP flag `SYM`: write them as SYN|ACK", Some("SYN"));
    check_error("flow.direction=in", 15, "expected text, found the keyword `in`", Some("\"in\""));
    check_error(
        "flow.direction=ingres",
        15,
        "`flow.direction` is never `ingres`: it is one of ingress, egress",
        Some("ingress"),
    );
    check_error("flow.fragment=yes", 14, "`yes` is neither `true` nor `false`", None);
    check_error("port=80, and proto=tcp", 9, "expected a port, found the keyword `and`", Some("\"and\""));
    check_error(&"(".repeat(65), 64, "nested more than 64 deep", None);
    check_error(&"not ".repeat(100), 256, "nested more than 64 deep", None);
    let long = " ".repeat(MAX_LENGTH + 1);
    check_error(&long, MAX_LENGTH, "a filter has at most 16384 bytes, this one has 16385", None);
}

#[test]
fn a_caret_stands_under_the_error() {
    let text = "proc=é and\nport=x and proto=tcp";
    let error = Filter::parse(text).unwrap_err();
    assert_eq!(error.caret(text), "port=x and proto=tcp\n     ^");
    assert_eq!(Filter::parse("port=").unwrap_err().caret("port="), "port=\n     ^");
    assert_eq!(error.to_string(), "`x` is not a port");
    let unknown = Filter::parse("flow.byte=1").unwrap_err();
    assert_eq!(unknown.to_string(), "unknown field `flow.byte` (did you mean `flow.bytes`?)");
}

#[test]
fn typing_is_completed_with_names_operators_and_values() {
    let texts = |prefix: &str| -> Vec<String> {
        completions(prefix).into_iter().map(|completion| completion.text).collect()
    };
    assert_eq!(texts("proto=u"), ["udp", "udplite"]);
    assert_eq!(texts("proto in tcp,u"), ["udp", "udplite"]);
    assert_eq!(texts("proto in (tcp, s"), ["sctp"]);
    assert_eq!(texts("flow.direction="), ["ingress", "egress"]);
    assert_eq!(texts("flow.tcp.flags~sy"), ["SYN"]);
    assert_eq!(texts("src.po"), ["src.port"]);
    assert_eq!(texts("proto=tcp "), ["and", "or"]);
    assert_eq!(texts("proto=tcp a"), ["and"]);
    assert_eq!(texts("(flow.tot"), ["flow.total.bytes", "flow.total.packets"]);
    assert!(texts("proto=tcp and not ").contains(&"port".to_owned()));
    assert!(texts("flow.bytes ").contains(&">=".to_owned()));
    assert_eq!(texts("proc=\"x"), [""; 0]);
    assert_eq!(completions("proto=tcp and dpo")[0].start, 14);
}

fn pushed(text: &str) -> Vec<String> {
    let clauses = parsed(text).pushdown().clauses;
    let written = |condition: &Condition| match *condition {
        Condition::Family { is_ipv6 } => format!("v{}", if is_ipv6 { 6 } else { 4 }),
        Condition::ProtocolRange { low, high } => format!("proto {low}-{high}"),
        Condition::PortRange { low, high } => format!("port {low}-{high}"),
        Condition::Prefix { address, mask } => {
            format!("{:x}:{:x}/{}", address[0], address[1], mask[0].count_ones() + mask[1].count_ones())
        }
    };
    clauses.iter().map(|clause| clause.iter().map(written).collect::<Vec<_>>().join(" | ")).collect()
}

#[test]
fn the_kernel_gets_what_a_tuple_can_tell() {
    let check = |text: &str, expected: &[&str]| assert_eq!(pushed(text), expected, "{text}");
    check("", &[]);
    check("proto=tcp", &["proto 6-6"]);
    check("proto!=tcp", &["proto 0-5 | proto 7-255"]);
    check("not (proto=tcp or proto=0)", &["proto 1-255", "proto 0-5 | proto 7-255"]);
    check("proto in icmp,2,4,tcp", &["proto 1-2 | proto 4-4 | proto 6-6"]);
    check("src=10.0.0.0/8", &["0:ffff0a000000/104"]);
    check("dst=fd00::1", &["fd00000000000000:1/128"]);
    check("host in 10.1.0.0/16,10.0.0.0/8,10.2.3.4", &["0:ffff0a000000/104"]);
    check("host=0.0.0.0/0", &["v4"]);
    check("network.type!=ipv4", &["v6"]);
    check("sport>=1024", &["port 1024-65535"]);
    check("dport>1024", &["port 1025-65535"]);
    check("port<1024", &["port 0-1023"]);
    check("port in 80,81,443", &["port 80-81 | port 443-443"]);
    check("port!=80", &[]);
    check("not src=10.0.0.0/8", &[]);
    check("not (not dport=53)", &["port 53-53"]);
    check("flow.bytes>10k", &[]);
    check("flow.bytes>10k and proto=udp", &["proto 17-17"]);
    check("flow.bytes>10k or proto=udp", &[]);
    check("flow.icmp.type=8", &["proto 1-1 | proto 58-58"]);
    check("flow.tcp.flags~SYN", &["proto 6-6"]);
    check("flow.tcp.flags!~SYN", &[]);
    check(
        "proto=tcp and (dst.port in 80,443 or host=10.0.0.0/8) and not src=10.1.0.0/16 and flow.bytes > 10k",
        &["proto 6-6", "port 80-80 | port 443-443 | 0:ffff0a000000/104"],
    );
    check(
        "proto=udp and port=53 or proto=tcp and port=80",
        &[
            "proto 6-6 | proto 17-17",
            "proto 17-17 | port 80-80",
            "proto 6-6 | port 53-53",
            "port 53-53 | port 80-80",
        ],
    );
    check("proto=tcp and (proto=tcp or port=5)", &["proto 6-6"]);
    check("proto=0-255 and port=0-65535", &[]);
}

#[test]
fn too_many_conditions_pass_more_not_less() {
    let ports: Vec<String> = (0..40).map(|index| (index * 3).to_string()).collect();
    assert_eq!(pushed(&format!("port in {} and proto=tcp", ports.join(","))), ["proto 6-6"]);
    assert_eq!(pushed(&format!("port in {} or proto=tcp", ports.join(","))), [""; 0]);
    let hosts: Vec<String> = (0..60).map(|index| format!("(host=10.0.0.{index} or port={index})")).collect();
    let pushdown = parsed(&hosts.join(" and ")).pushdown();
    assert_eq!(pushdown.clauses.iter().map(Vec::len).sum::<usize>(), MAX_CONDITIONS);
}
