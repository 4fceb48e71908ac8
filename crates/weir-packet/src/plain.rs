//! The fast path: TCP or UDP directly behind an IPv4 header without options or an IPv6 header without extensions.
//!
//! The functions take references to arrays, which the caller gets by one bounds check over the packet. They answer
//! `None` for anything out of the ordinary; [`parse`](crate::parse()) then says what it is. Where they answer, both agree.
//! They know neither the frame's length nor its VLAN tags: the caller adds a tag with [`Details::with_vlan`].

#[cfg(test)]
mod tests;

use crate::{
    Tuple,
    tuple::{Details, ipv4_words, ipv6_words, protocol},
};

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;

/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;

/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;

/// Bytes of the TCP header up to and including the flags.
pub const TCP_FLAGS_BYTES: usize = 14;

/// Bytes of a TCP header without options.
pub const TCP_BYTES: usize = 20;

/// What the fast path reads from a packet's IP header and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Words of the source address, as in [`Tuple::words`].
    pub source: [u64; 2],
    /// Words of the destination address.
    pub destination: [u64; 2],
    /// Family, protocol and ports.
    pub details: Details,
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Plain {
    /// The tuple, without a VLAN.
    #[inline(always)]
    pub const fn tuple(&self) -> Tuple {
        Tuple::new(self.source, self.destination, self.details)
    }
}

/// Two bytes in network order, read in one piece (bytes put together one by one are often read one by one too).
#[inline(always)]
const fn word(bytes: &[u8], offset: usize) -> u16 {
    match bytes.split_at(offset).1.first_chunk() {
        Some(both) => u16::from_be_bytes(*both),
        None => 0,
    }
}

/// Least length of the transport header, or `None` for protocols that are not plain.
#[inline(always)]
const fn transport_bytes(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(TCP_BYTES),
        protocol::UDP => Some(UDP_BYTES),
        _ => None,
    }
}

/// Reads an IPv4 header (RFC 791 3.1) and the first 8 bytes behind it.
///
/// `None` unless version 4, header length 5 words, not a fragment, TCP or UDP, and a total length that holds the
/// transport header or is 0 (super-packets beyond 64 KiB).
///
/// ```
/// use weir_packet::{plain, protocol};
/// // The header of RFC 791 appendix A, example 1, before a UDP header of RFC 768 and one byte.
/// let bytes = [
///     0x45, 0xb8, 0x00, 0x1d, 0x00, 0x6f, 0x40, 0x00, 0x7b, 0x11, 0x00, 0x00, 192, 0, 2, 1, 198, 51, 100, 7,
///     0x00, 0x35, 0x10, 0x00, 0x00, 0x09, 0x00, 0x00,
/// ];
/// let plain = plain::ipv4(&bytes).unwrap();
/// assert_eq!(plain.protocol, protocol::UDP);
/// assert_eq!((plain.dscp, plain.ttl), (46, 123));
/// assert_eq!(plain.tuple().source().to_string(), "192.0.2.1");
/// assert_eq!((plain.tuple().source_port(), plain.tuple().destination_port()), (53, 4096));
/// ```
#[inline(always)]
pub const fn ipv4(bytes: &[u8; 28]) -> Option<Plain> {
    let protocol = bytes[9];
    let Some(transport) = transport_bytes(protocol) else { return None };
    let total = word(bytes, 2) as usize;
    // More fragments, or a fragment offset (RFC 791 3.1); the reserved bit and "don't fragment" do not matter.
    let fragment = word(bytes, 6) & 0x3fff;
    if bytes[0] != 0x45 || fragment != 0 || (total != 0 && total < IPV4_BYTES + transport) {
        return None;
    }
    Some(Plain {
        source: ipv4_words([bytes[12], bytes[13], bytes[14], bytes[15]]),
        destination: ipv4_words([bytes[16], bytes[17], bytes[18], bytes[19]]),
        details: Details::new(false, protocol).with_ports(word(bytes, 20), word(bytes, 22)),
        protocol,
        dscp: ipv4_marks(bytes).0,
        ttl: ipv4_marks(bytes).1,
    })
}

/// DSCP (0 to 63) and TTL alone, for callers that want them later than the rest of [`ipv4`].
#[inline(always)]
pub const fn ipv4_marks(bytes: &[u8; 28]) -> (u8, u8) {
    (bytes[1] >> 2, bytes[8])
}

/// Reads an IPv6 header (RFC 8200 3) and the first 8 bytes behind it.
///
/// `None` unless version 6, TCP or UDP as the next header, and a payload length that holds the transport header or is
/// 0 (super-packets beyond 64 KiB).
///
/// ```
/// use weir_packet::{plain, protocol};
/// // RFC 8200 3: version, traffic class and flow label, payload length, next header, hop limit, addresses; RFC 9293 3.1.
/// let mut bytes = [0; 48];
/// bytes[..8].copy_from_slice(&[0x6b, 0x80, 0x00, 0x01, 0x00, 0x14, 0x06, 0x40]);
/// bytes[8..12].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
/// bytes[39] = 1;
/// bytes[40..44].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
/// let plain = plain::ipv6(&bytes).unwrap();
/// assert_eq!((plain.protocol, plain.dscp, plain.ttl), (protocol::TCP, 46, 64));
/// assert_eq!(plain.tuple().source().to_string(), "2001:db8::");
/// assert_eq!((plain.tuple().source_port(), plain.tuple().destination_port()), (49152, 443));
/// // A fragment header (RFC 8200 4.5) is for the general parser.
/// bytes[6] = 44;
/// assert_eq!(plain::ipv6(&bytes), None);
/// ```
#[inline(always)]
pub const fn ipv6(bytes: &[u8; 48]) -> Option<Plain> {
    let protocol = bytes[6];
    let Some(transport) = transport_bytes(protocol) else { return None };
    let payload = word(bytes, 4) as usize;
    if bytes[0] >> 4 != 6 || (payload != 0 && payload < transport) {
        return None;
    }
    Some(Plain {
        source: ipv6_words([
            bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15], bytes[16],
            bytes[17], bytes[18], bytes[19], bytes[20], bytes[21], bytes[22], bytes[23],
        ]),
        destination: ipv6_words([
            bytes[24], bytes[25], bytes[26], bytes[27], bytes[28], bytes[29], bytes[30], bytes[31],
            bytes[32], bytes[33], bytes[34], bytes[35], bytes[36], bytes[37], bytes[38], bytes[39],
        ]),
        details: Details::new(true, protocol).with_ports(word(bytes, 40), word(bytes, 42)),
        protocol,
        dscp: ipv6_marks(bytes).0,
        ttl: ipv6_marks(bytes).1,
    })
}

/// DSCP (0 to 63) and hop limit alone, for callers that want them later than the rest of [`ipv6`].
#[inline(always)]
pub const fn ipv6_marks(bytes: &[u8; 48]) -> (u8, u8) {
    ((bytes[0] & 0x0f) << 2 | bytes[1] >> 6, bytes[7])
}

/// Flags and header length in bytes from the first 14 bytes of a TCP header (RFC 9293 3.1).
///
/// Nine flag bits, FIN lowest, accurate ECN (RFC 9768) highest. A data offset below five words, which no sane sender
/// writes, counts as five.
///
/// ```
/// let mut header = [0; 14];
/// header[12] = 0x81; // eight words, accurate ECN
/// header[13] = 0x12; // SYN and ACK
/// assert_eq!(weir_packet::plain::tcp_flags(&header), (0x112, 32));
/// ```
#[inline(always)]
pub const fn tcp_flags(header: &[u8; TCP_FLAGS_BYTES]) -> (u16, u64) {
    let (flags, length) = flags_and_length(word(header, 12));
    (flags, length as u64)
}

/// The same from bytes 12 and 13 alone, in network order.
#[inline(always)]
pub(crate) const fn flags_and_length(both: u16) -> (u16, usize) {
    let words = (both >> 12) as usize;
    (both & 0x1ff, if words < 5 { TCP_BYTES } else { words * 4 })
}
