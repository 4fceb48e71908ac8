//! `weir replay` agrees with tshark about every conversation of every capture in `tests/captures`: packets and bytes
//! of both directions, and how many frames were no IP at all.
//!
//! tshark decides who talked to whom, from the outermost IP header of each frame, without putting fragments together;
//! this test only adds up its lines. It needs no privilege.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Ports are 0 where the protocol has none; the smaller end comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Conversation {
    protocol: String,
    ends: [(String, u64); 2],
}

/// Packets and bytes from the first end to the second, and back.
type Sums = BTreeMap<Conversation, [(u64, u64); 2]>;

fn add(
    sums: &mut Sums,
    protocol: &str,
    source: (String, u64),
    destination: (String, u64),
    (packets, bytes): (u64, u64),
) {
    let is_forward = source <= destination;
    let ends = if is_forward { [source, destination] } else { [destination, source] };
    let both = sums.entry(Conversation { protocol: protocol.to_owned(), ends }).or_default();
    let sum = &mut both[usize::from(!is_forward)];
    sum.0 += packets;
    sum.1 += bytes;
}

/// What tshark reads: the conversations, and the frames without an IP header.
fn by_tshark(file: &Path) -> (Sums, u64) {
    const FIELDS: [&str; 18] = [
        "frame.len",
        "frame.protocols",
        "ip.src",
        "ip.dst",
        "ip.proto",
        "ip.frag_offset",
        "ipv6.src",
        "ipv6.dst",
        "ipv6.fraghdr.offset",
        "tcp.port",
        "udp.port",
        "sctp.port",
        // What follows the IPv6 header, and each of its extension headers.
        "ipv6.nxt",
        "ipv6.hopopts.nxt",
        "ipv6.dstopts.nxt",
        "ipv6.routing.nxt",
        "ipv6.fraghdr.nxt",
        "ah.next_header",
    ];
    /// Behind these, Weir does not look for IP.
    const OPAQUE: [&str; 2] = ["mpls", "pppoes"];
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=;", "-E", "occurrence=a"]);
    // One frame stands for itself.
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark runs");
    let (mut sums, mut not_ip) = (Sums::new(), 0);
    for line in String::from_utf8(output.stdout).expect("tshark writes UTF-8").lines() {
        let columns: Vec<&str> = line.split(';').collect();
        let first = |index: usize| columns[index].split(',').next().unwrap_or_default();
        let layers: Vec<&str> = columns[1].split(':').collect();
        let is_ip = |layer: &&str| matches!(*layer, "ip" | "ipv6");
        let opaque = layers.iter().position(|layer| OPAQUE.contains(layer)).unwrap_or(layers.len());
        let Some(network) = layers[..opaque].iter().position(is_ip) else {
            not_ip += 1;
            continue;
        };
        let is_v4 = layers[network] == "ip";
        let (source, destination) = if is_v4 { (first(2), first(3)) } else { (first(6), first(7)) };
        if source.is_empty() {
            // Too damaged for tshark, too.
            not_ip += 1;
            continue;
        }
        let offset = if is_v4 { first(5) } else { first(8) };
        let is_later_fragment = !matches!(offset, "" | "0");
        let is_extension = |layer: &&&str| !is_v4 && (layer.starts_with("ipv6.") || **layer == "ah");
        let transport = layers[network + 1..].iter().find(|layer| !is_extension(layer)).copied();
        let number = if is_v4 { first(4).to_owned() } else { last_header(first(12), &columns[13..]) };
        let protocol = protocol_name(&number);
        let ports = match transport {
            Some("tcp") => columns[9],
            Some("udp") => columns[10],
            Some("sctp") => columns[11],
            _ => "",
        };
        let mut ports = ports.split(',').map(|port| port.parse().unwrap_or(0));
        let (source_port, destination_port) = (ports.next().unwrap_or(0), ports.next().unwrap_or(0));
        assert!(!is_later_fragment || source_port == 0, "{}: {line}", file.display());
        let length = columns[0].parse().expect("a length is a number");
        let ends = ((source.to_owned(), source_port), (destination.to_owned(), destination_port));
        add(&mut sums, &protocol, ends.0, ends.1, (1, length));
    }
    (sums, not_ip)
}

/// The header of the chain that is no extension header.
fn last_header(first: &str, behind_extensions: &[&str]) -> String {
    let is_extension = |number: &&str| matches!(*number, "" | "0" | "43" | "44" | "51" | "60");
    let mut chain = [first].into_iter().chain(behind_extensions.iter().flat_map(|column| column.split(',')));
    chain.find(|number| !is_extension(number)).unwrap_or_default().to_owned()
}

fn protocol_name(number: &str) -> String {
    let names = [("1", "icmp"), ("6", "tcp"), ("17", "udp"), ("58", "icmpv6"), ("132", "sctp")];
    names.iter().find(|(known, _)| *known == number).map_or(number, |(_, name)| name).to_owned()
}

/// The same for a protocol in a record, whose name may be one of many.
fn number_or_name(name: &str) -> String {
    let others = [
        ("dccp", "33"),
        ("udplite", "136"),
        ("igmp", "2"),
        ("ipv4", "4"),
        ("ipv6", "41"),
        ("gre", "47"),
        ("esp", "50"),
        ("ah", "51"),
        ("eigrp", "88"),
        ("ospf", "89"),
        ("pim", "103"),
        ("vrrp", "112"),
    ];
    others.iter().find(|(known, _)| *known == name).map_or(name, |(_, number)| number).to_owned()
}

fn by_weir(file: &Path) -> (Sums, u64) {
    let output = weir(&["replay", "-o", "json"], file);
    let mut sums = Sums::new();
    for line in String::from_utf8(output.stdout).expect("weir writes UTF-8").lines() {
        let record: Value = serde_json::from_str(line).expect("weir writes JSON");
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| record[name].as_u64().unwrap_or(0);
        let protocol = number_or_name(&text("network.transport"));
        let source = (text("source.address"), number("source.port"));
        let destination = (text("destination.address"), number("destination.port"));
        let forward = (number("flow.packets"), number("flow.bytes"));
        let reverse = (number("flow.reverse.packets"), number("flow.reverse.bytes"));
        add(&mut sums, &protocol, source.clone(), destination.clone(), forward);
        add(&mut sums, &protocol, destination, source, reverse);
    }
    let summary = String::from_utf8(output.stderr).expect("weir writes UTF-8");
    assert!(summary.contains("accounted 100.00 %"), "{}: {summary}", file.display());
    (sums, left_out(&summary, "non-ip") + left_out(&summary, "malformed"))
}

/// Packets in `; 3 packets, 180 bytes non-ip`.
fn left_out(summary: &str, name: &str) -> u64 {
    let part = summary.lines().next().unwrap_or_default().split("; ").find(|part| part.ends_with(name));
    part.map_or(0, |part| {
        part.split(' ').next().unwrap_or_default().replace(',', "").parse().expect("a number")
    })
}

fn weir(arguments: &[&str], file: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).arg(file).output().expect("weir runs")
}

fn captures(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in directory.read_dir().expect("the captures are there") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            found.extend(captures(&path));
        } else if path.extension().is_some_and(|it| it == "pcap" || it == "pcapng") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn has_tshark() -> bool {
    let has_it = Command::new("tshark").arg("--version").output().is_ok();
    if !has_it {
        let reason = "this test needs tshark";
        assert!(env::var_os("WEIR_TEST_STRICT").is_none_or(|value| value != "1"), "{reason}");
        println!("skipped: {reason}");
    }
    has_it
}

/// Crafted packets of which tshark says more, or less, than Weir wants to: chains of extension headers beyond those
/// that are passed over, addresses that were cut off, lengths beyond the frame. `weir-packet` compares them packet for
/// packet, with the reasons; here it only counts that none is lost.
const CRAFTED: &str = "odd";

#[test]
fn replay_agrees_with_tshark_about_every_conversation() {
    if !has_tshark() {
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures");
    let files = captures(&directory);
    assert!(files.len() >= 20, "only {} captures", files.len());
    let mut differences = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&directory).expect("it was found there").display().to_string();
        if name.starts_with(CRAFTED) {
            by_weir(file);
            continue;
        }
        let (expected, expected_not_ip) = by_tshark(file);
        let (mut got, not_ip) = by_weir(file);
        // Every direction was added, also those without packets.
        got.retain(|_, both| *both != [(0, 0); 2]);
        if not_ip != expected_not_ip {
            differences.push(format!("{name}: {not_ip} frames without IP, tshark says {expected_not_ip}"));
        }
        for (conversation, both) in &expected {
            if got.get(conversation) != Some(both) {
                let got = got.get(conversation);
                differences.push(format!("{name}: {conversation:?}: {got:?}, tshark says {both:?}"));
            }
        }
        for conversation in got.keys().filter(|it| !expected.contains_key(it)) {
            differences.push(format!("{name}: {conversation:?} is none of tshark's"));
        }
        println!("{name}: {} conversations, {not_ip} frames without IP", expected.len());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
