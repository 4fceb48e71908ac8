//! The headers of any packet, by the general parser of weir-packet.

use weir_packet::{Buffer, Link, Window, parse};

use crate::skb::{Skb, outer_ethertype};

/// What the parser found, in map memory: the result of a global function, which returns numbers only.
#[repr(C)]
pub struct ParsedHeaders {
    /// Words of the tuple.
    pub words: [u64; 5],
    /// Bytes from the link header to the end of the transport header.
    pub header_length: u64,
    /// TCP flags.
    pub tcp_flags: u16,
    /// EtherType behind all tags, of a packet that is not IP.
    pub ethertype: u16,
    /// DSCP.
    pub dscp: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Not used.
    pub reserved: [u8; 2],
}

/// An IP packet: everything but the EtherType is set.
pub const PARSED_IP: u64 = 0;
/// Neither IPv4 nor IPv6: the EtherType alone is set.
pub const PARSED_NON_IP: u64 = 1;
/// Cut short or contradictory: nothing is set.
pub const PARSED_MALFORMED: u64 = 2;

/// Copies the headers of a packet into `buffer`, parses them and leaves the result in `parsed`. Returns one of the
/// `PARSED_` constants.
///
/// To be called from a global function, which the verifier checks once and not anew for each program that calls it.
#[inline(always)]
pub fn read(skb: Skb, link: Link, buffer: &mut Buffer, parsed: &mut ParsedHeaders) -> u64 {
    let Some(length) = skb.copy_headers(buffer) else { return PARSED_MALFORMED };
    let mut window = Window::new(buffer, length);
    match parse(&mut window, skb.length(), link, outer_ethertype(skb, link), skb.stripped_vlan()) {
        weir_packet::Parsed::Ip(found) => {
            *parsed = ParsedHeaders {
                words: found.tuple.words(),
                header_length: u64::from(found.header_length),
                tcp_flags: found.tcp_flags,
                ethertype: 0,
                dscp: found.dscp,
                ttl: found.ttl,
                reserved: [0; 2],
            };
            PARSED_IP
        }
        weir_packet::Parsed::NonIp { ethertype } => {
            parsed.ethertype = ethertype;
            PARSED_NON_IP
        }
        weir_packet::Parsed::Malformed => PARSED_MALFORMED,
    }
}
