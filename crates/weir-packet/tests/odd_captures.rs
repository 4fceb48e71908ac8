//! The captures in `tests/captures/odd`, packet for packet against tshark.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use weir_packet::{Headers, Link, Parsed, WINDOW, parse_bytes, protocol};

/// What each file holds: flows, other than IP, malformed.
const CONTENTS: &[(&str, [usize; 3])] = &[
    ("icmp-errors", [11, 0, 0]),
    ("icmp-queries", [23, 0, 0]),
    ("ipv4-fragments", [8, 0, 0]),
    ("ipv4-options", [12, 0, 0]),
    ("ipv6-extensions", [17, 0, 0]),
    ("ipv6-fragments", [8, 0, 0]),
    ("malformed", [7, 0, 11]),
    ("non-ip", [0, 11, 0]),
    ("protocols", [24, 0, 0]),
    ("raw", [5, 1, 2]),
    ("runts", [9, 0, 13]),
    ("snaplen", [26, 0, 22]),
    ("super-packets", [3, 0, 0]),
    ("tcp-flags", [512, 0, 0]),
    ("tcp-headers", [30, 0, 0]),
    ("vlan", [16, 2, 0]),
];

/// Packets whose ports tshark does not read: Linux writes an IPv6 payload length of 0 for its super-packets without
/// the jumbo option, and tshark takes it at its word.
const ONLY_OURS: &[(&str, usize)] = &[("super-packets", 2)];

/// What tshark is asked for, of the outermost headers.
const FIELDS: &[&str] = &[
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.proto",
    "ip.ttl",
    "ipv6.hlim",
    "ip.dsfield.dscp",
    "ipv6.tclass.dscp",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
    "vlan.id",
    "ieee8021ad.id",
    "ieee8021ad.svid",
];

struct Packet {
    bytes: Vec<u8>,
    length: u32,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures/odd")
}

fn path(name: &str) -> PathBuf {
    folder().join(format!("{name}.pcap"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// Reads the one kind of capture file that `generate.py` writes.
fn read(name: &str) -> (Link, Vec<Packet>) {
    let file = fs::read(path(name)).expect("the capture is committed");
    assert_eq!(u32_at(&file, 0), 0xa1b2_c3d4, "{name} is a classic little-endian capture");
    let link = match u32_at(&file, 20) {
        1 => Link::Ethernet,
        101 => Link::Ip,
        other => panic!("{name} has link type {other}"),
    };
    let mut packets = Vec::new();
    let mut offset = 24;
    while offset < file.len() {
        let kept = u32_at(&file, offset + 8) as usize;
        let bytes = file[offset + 16..offset + 16 + kept].to_vec();
        packets.push(Packet { bytes, length: u32_at(&file, offset + 12) });
        offset += 16 + kept;
    }
    (link, packets)
}

fn parsed(name: &str) -> Vec<Parsed> {
    let (link, packets) = read(name);
    packets.iter().map(|packet| parse_bytes(&packet.bytes, packet.length, link, None, None)).collect()
}

/// What tshark says, one map per packet, or `None` if it is not there.
fn tshark(name: &str) -> Option<Vec<BTreeMap<&'static str, String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(path(name)).args([
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-E",
        "occurrence=f",
    ]);
    // Fragments are to be seen as they are.
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("WEIR_TEST_STRICT").is_none() => {
            eprintln!("skipped: cannot run tshark: {error}; install tshark");
            return None;
        }
        Err(error) => panic!("cannot run tshark: {error}; install tshark"),
    };
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("tshark writes text");
    let line = |line: &str| FIELDS.iter().copied().zip(line.split('|').map(String::from)).collect();
    Some(text.lines().map(line).collect())
}

/// Compares one flow with tshark's reading, field by field. Ports beyond the window are tshark's alone.
fn compare(place: &str, headers: &Headers, is_in_window: bool, said: &BTreeMap<&str, String>) {
    let tuple = headers.tuple;
    let text = |field: &str| said[field].as_str();
    let number = |field: &str| {
        let text = text(field);
        match text.strip_prefix("0x") {
            Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
            None => text.parse().ok(),
        }
    };
    let v6 = tuple.is_ipv6();
    let field = |v4_field: &'static str, v6_field: &'static str| if v6 { v6_field } else { v4_field };

    let addresses = [text(field("ip.src", "ipv6.src")), text(field("ip.dst", "ipv6.dst"))];
    let addresses = addresses.map(|text| text.parse::<IpAddr>().ok());
    // tshark names no destination until it has seen the options.
    if tuple.is_truncated() && addresses.contains(&None) {
        return;
    }
    assert_eq!([Some(tuple.source()), Some(tuple.destination())], addresses, "{place}: addresses");
    assert_eq!(Some(headers.ttl.into()), number(field("ip.ttl", "ipv6.hlim")), "{place}: ttl");
    assert_eq!(
        Some(headers.dscp.into()),
        number(field("ip.dsfield.dscp", "ipv6.tclass.dscp")),
        "{place}: dscp"
    );
    if !v6 {
        assert_eq!(Some(tuple.protocol().into()), number("ip.proto"), "{place}: protocol");
    }
    let vlan = number("ieee8021ad.svid").or(number("ieee8021ad.id")).or(number("vlan.id"));
    assert_eq!(tuple.vlan().map(u64::from), vlan, "{place}: VLAN");

    let ports = match tuple.protocol() {
        protocol::TCP => ["tcp.srcport", "tcp.dstport"],
        protocol::UDP => ["udp.srcport", "udp.dstport"],
        protocol::SCTP => ["sctp.srcport", "sctp.dstport"],
        protocol::ICMP if !v6 => ["icmp.type", "icmp.code"],
        protocol::ICMPV6 if v6 => ["icmpv6.type", "icmpv6.code"],
        _ => return,
    };
    let expected = ports.map(number);
    if let Some((kind, code)) = tuple.icmp() {
        assert_eq!([Some(kind.into()), Some(code.into())], expected, "{place}: type and code");
    } else if tuple.has_ports() {
        let ports = [tuple.source_port(), tuple.destination_port()].map(|port| Some(port.into()));
        assert_eq!(ports, expected, "{place}: ports");
    } else {
        assert!(expected.contains(&None) || !is_in_window, "{place}: tshark read {expected:?}");
    }
    if tuple.protocol() == protocol::TCP
        && is_in_window
        && let Some(flags) = number("tcp.flags")
    {
        assert_eq!(u64::from(headers.tcp_flags), flags, "{place}: TCP flags");
    }
}

#[test]
fn every_capture_is_listed_and_holds_what_it_should() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the folder is committed")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("plain names"))
        .filter_map(|name| name.strip_suffix(".pcap").map(String::from))
        .collect();
    names.sort();
    assert_eq!(names, CONTENTS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, expect) in CONTENTS {
        let mut counts = [0; 3];
        for parsed in parsed(name) {
            match parsed {
                Parsed::Ip(_) => counts[0] += 1,
                Parsed::NonIp { .. } => counts[1] += 1,
                Parsed::Malformed => counts[2] += 1,
            }
        }
        assert_eq!(counts, *expect, "{name}: flows, other than IP, malformed");
    }
}

#[test]
fn tshark_reads_the_same_from_every_flow() {
    for (name, _) in CONTENTS {
        let Some(said) = tshark(name) else { return };
        let (link, packets) = read(name);
        assert_eq!(packets.len(), said.len(), "{name}: packets");
        for (number, (packet, said)) in (1..).zip(packets.iter().zip(&said)) {
            if ONLY_OURS.contains(&(name, number)) {
                continue;
            }
            let place = format!("{name}, packet {number}");
            // What is not IP or malformed, tshark may look into nevertheless.
            if let Parsed::Ip(headers) = parse_bytes(&packet.bytes, packet.length, link, None, None) {
                compare(&place, &headers, packet.bytes.len() <= WINDOW, said);
            }
        }
    }
}

#[test]
fn every_combination_of_tcp_flags_is_read() {
    for (flags, parsed) in parsed("tcp-flags").into_iter().enumerate() {
        let Parsed::Ip(headers) = parsed else { panic!("{parsed:?}") };
        assert_eq!(usize::from(headers.tcp_flags), flags);
    }
}

#[test]
fn request_and_reply_are_each_other_s_reverse() {
    let parsed = parsed("icmp-queries");
    let tuples: Vec<_> = parsed
        .iter()
        .map(|parsed| match parsed {
            Parsed::Ip(headers) => headers.tuple,
            other => panic!("{other:?}"),
        })
        .collect();
    for pair in tuples.chunks_exact(2) {
        assert_eq!(pair[0].reversed(), pair[1]);
    }
}
