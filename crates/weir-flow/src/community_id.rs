//! Community ID version 1: a name for a flow that other tools compute alike.
//!
//! It is `1:` and the Base64 of the SHA-1 of seed 0, addresses, protocol, a zero byte and ports, in network order, the
//! end with the lower (address, port) first. For ICMP the "ports" are what [`Tuple`] holds: type and code, or, for a
//! query, type and answering type. An ICMP message that neither asks nor answers keeps its direction. Where there are no
//! ports, or they are unknown, they are left out. VLAN, interface and time play no part.

use std::net::IpAddr;

use sha1::{Digest, Sha1};
use weir_packet::Tuple;

use crate::{aggregate::key::canonical, format::base64};

const SEED: [u8; 2] = [0, 0];

/// The Community ID of a flow, the same for both directions.
///
/// ```
/// use weir_flow::{Tuple, community_id};
/// use weir_packet::{Details, ipv4_words, protocol};
///
/// let details = Details::new(false, protocol::TCP).with_ports(1122, 3344);
/// let tuple = Tuple::new(ipv4_words([1, 2, 3, 4]), ipv4_words([5, 6, 7, 8]), details);
/// assert_eq!(community_id(&tuple), "1:wCb3OG7yAFWelaUydu0D+125CLM=");
/// assert_eq!(community_id(&tuple.reversed()), "1:wCb3OG7yAFWelaUydu0D+125CLM=");
/// ```
pub fn community_id(tuple: &Tuple) -> String {
    let (tuple, _) = canonical(tuple);
    let mut digest = Sha1::new();
    digest.update(SEED);
    for address in [tuple.source(), tuple.destination()] {
        match address {
            IpAddr::V4(address) => digest.update(address.octets()),
            IpAddr::V6(address) => digest.update(address.octets()),
        }
    }
    digest.update([tuple.protocol(), 0]);
    if tuple.has_ports() || tuple.icmp().is_some() {
        digest.update(tuple.source_port().to_be_bytes());
        digest.update(tuple.destination_port().to_be_bytes());
    }
    let mut text = String::with_capacity(30);
    text.push_str("1:");
    text.push_str(&base64(&digest.finalize()));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_packet::{Details, answering_type, ipv4_words, ipv6_words, protocol};

    use super::*;

    fn words(address: &str) -> ([u64; 2], bool) {
        match address.parse().expect("address") {
            IpAddr::V4(address) => (ipv4_words(address.octets()), false),
            IpAddr::V6(address) => (ipv6_words(address.octets()), true),
        }
    }

    fn tuple(source: &str, destination: &str, number: u8, ports: (u16, u16)) -> Tuple {
        let ((source, is_ipv6), (destination, _)) = (words(source), words(destination));
        let details = Details::new(is_ipv6, number).with_ports(ports.0, ports.1);
        let is_icmp = matches!(number, protocol::ICMP | protocol::ICMPV6);
        let kind = u8::try_from(ports.0).unwrap_or(u8::MAX);
        let details = if is_icmp && answering_type(is_ipv6, kind).is_some() {
            details.with_icmp_query()
        } else {
            details
        };
        Tuple::new(source, destination, details)
    }

    /// The published examples of TCP and UDP; the others agree with the reference implementation in Python.
    #[test]
    fn ids_are_those_that_other_tools_compute() {
        let (tcp, udp, sctp, gre) = (protocol::TCP, protocol::UDP, protocol::SCTP, 47);
        let (icmp, icmpv6) = (protocol::ICMP, protocol::ICMPV6);
        let (left, right) = ("fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea");
        let (high, low) = ("192.168.0.89", "192.168.0.1");
        for (source, destination, number, ports, expect) in [
            ("1.2.3.4", "5.6.7.8", tcp, (1122, 3344), "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            ("1.2.3.4", "5.6.7.8", udp, (1122, 3344), "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="),
            ("192.168.170.8", "192.168.170.56", sctp, (7, 80), "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
            (
                "fe80:1:203:405:607:809:a0b:c0d",
                "fe80:1011:1213:1415:1617:1819:1a1b:1c1d",
                tcp,
                (52_000, 80),
                "1:Gu6jQ2XMQxCiCizmpQJbejGcph8=",
            ),
            ("10.1.24.4", "10.1.12.1", gre, (0, 0), "1:6JFBmF1p0LABA19nAHNSi9mGLPM="),
            // Echo: request and reply. Destination unreachable: a name for each direction.
            (high, low, icmp, (8, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (low, high, icmp, (0, 8), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (high, low, icmp, (3, 1), "1:LXCfhMUFbYXe+CEMrQuZCbiLY3o="),
            (low, high, icmp, (3, 1), "1:o3zT92uTgnRWv/YrDVeXcWumpC4="),
            // Neighbour solicitation and advertisement; packet too big.
            (left, right, icmpv6, (135, 136), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            (right, left, icmpv6, (136, 135), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            (
                "3ffe:507:0:1:260:97ff:fe07:69ea",
                "3ffe:507:0:1:200:86ff:fe05:80da",
                icmpv6,
                (2, 0),
                "1:+54FtNX7Qh7n4NHonlzYBrxYggU=",
            ),
        ] {
            let tuple = tuple(source, destination, number, ports);
            assert_eq!(community_id(&tuple), expect, "{tuple:?}");
        }
    }

    #[test]
    fn a_vlan_changes_nothing_and_unknown_ports_are_left_out() {
        let id = |details| community_id(&Tuple::new(ipv4_words([1; 4]), ipv4_words([2; 4]), details));
        let whole = Details::new(false, protocol::UDP);
        assert_eq!(id(whole.with_vlan(7)), id(whole));
        assert_eq!(id(whole.with_fragment()), id(whole.with_truncated()));
        assert_ne!(id(whole.with_fragment()), id(whole));
    }

    proptest! {
        #[test]
        fn both_directions_have_one_id(
            source: [u8; 16], destination: [u8; 16], ports: (u16, u16), number in prop::sample::select(vec![6_u8, 17, 132, 47, 1]),
        ) {
            let details = Details::new(true, number).with_ports(ports.0, ports.1);
            let tuple = Tuple::new(ipv6_words(source), ipv6_words(destination), details);
            prop_assert_eq!(community_id(&tuple), community_id(&tuple.reversed()));
        }

        #[test]
        fn request_and_reply_have_one_id(source: [u8; 16], destination: [u8; 16], kind: u8) {
            if let Some(answer) = answering_type(true, kind) {
                let query = |ports: (u8, u8)| {
                    Details::new(true, protocol::ICMPV6).with_ports(ports.0.into(), ports.1.into()).with_icmp_query()
                };
                let request = Tuple::new(ipv6_words(source), ipv6_words(destination), query((kind, answer)));
                let reply = Tuple::new(ipv6_words(destination), ipv6_words(source), query((answer, kind)));
                prop_assert_eq!(community_id(&request), community_id(&reply));
            }
        }
    }
}
