//! Crafted packets: every kind of header that a packet can be counted by, and some that it cannot.

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const SOURCE: [u8; 4] = [192, 0, 2, 1];
const DESTINATION: [u8; 4] = [198, 51, 100, 7];
const PORTS: [u8; 4] = [0x30, 0x39, 0x01, 0xbb];

/// A name for each packet, and its bytes.
pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let udp = |payload| ipv4(17, 0x45, &[], 0x4000, &transport(8, payload));
    let syn = tcp(0x02);
    vec![
        ("plain UDP, IPv4", plain()),
        ("plain TCP, IPv4", ethernet(&[], 0x0800, &ipv4(6, 0x45, &[], 0x4000, &syn))),
        ("plain TCP, IPv6", ethernet(&[], 0x86dd, &ipv6(6, &syn))),
        ("plain UDP, IPv6", ethernet(&[], 0x86dd, &ipv6(17, &transport(8, 12)))),
        ("IPv4 options", ethernet(&[], 0x0800, &ipv4(6, 0x47, &[1; 8], 0, &syn))),
        ("IPv4 fragment", ethernet(&[], 0x0800, &ipv4(17, 0x45, &[], 0x00b9, &[0; 64]))),
        ("IPv6 hop-by-hop options", ethernet(&[], 0x86dd, &ipv6(0, &extension(17, &transport(8, 4))))),
        ("ICMP echo", ethernet(&[], 0x0800, &ipv4(1, 0x45, &[], 0, &[8, 0, 0, 0, 0, 1, 0, 1]))),
        ("ICMPv6 echo", ethernet(&[], 0x86dd, &ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 1]))),
        ("SCTP", ethernet(&[], 0x0800, &ipv4(132, 0x45, &[], 0, &transport(12, 16)))),
        ("GRE", ethernet(&[], 0x0800, &ipv4(47, 0x45, &[], 0, &[0; 32]))),
        ("802.1Q tag", ethernet(&[[0x81, 0x00, 0x20, 0x07]], 0x0800, &udp(30))),
        ("QinQ", ethernet(&[[0x88, 0xa8, 0, 42], [0x81, 0, 0, 7]], 0x0800, &udp(30))),
        ("ARP", ethernet(&[], 0x0806, &[0; 28])),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46])),
        ("IPv4 with a header length of 4", ethernet(&[], 0x0800, &ipv4(17, 0x44, &[], 0, &[0; 20]))),
        ("IPv6 whose version says 4", ethernet(&[], 0x86dd, &[0x45; 60])),
    ]
}

/// The packet that most traffic is like.
pub(super) fn plain() -> Vec<u8> {
    ethernet(&[], 0x0800, &ipv4(17, 0x45, &[], 0x4000, &transport(8, 64)))
}

fn ethernet(tags: &[[u8; 4]], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&ETHERNET[..], tags.as_flattened(), &ethertype.to_be_bytes(), packet].concat()
}

fn ipv4(protocol: u8, version_and_length: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap_or(0).to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let start =
        [version_and_length, 0, total[0], total[1], 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
    [&start[..], &SOURCE, &DESTINATION, options, payload].concat()
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let address = |last: u8| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &address(1), &address(2), payload].concat()
}

fn extension(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 0, 1, 4, 0, 0, 0, 0][..], payload].concat()
}

/// Ports, zeroes up to the length of the header, and a payload.
fn transport(header: usize, payload: usize) -> Vec<u8> {
    let mut bytes = PORTS.to_vec();
    bytes.resize(header + payload, 0);
    bytes
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut bytes = transport(20, 0);
    bytes[12] = 0x50;
    bytes[13] = flags;
    bytes
}
