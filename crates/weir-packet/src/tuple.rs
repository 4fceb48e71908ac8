//! [`Tuple`]: who talks to whom, in five machine words that hash and compare quickly.

#[cfg(test)]
mod tests;

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Numbers of the protocols that are parsed beyond the IP header (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// Hop-by-hop options of IPv6, RFC 8200 4.3.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing header of IPv6, RFC 8200 4.4.
    pub const ROUTING: u8 = 43;
    /// Fragment header of IPv6, RFC 8200 4.5.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload, RFC 4303.
    pub const ESP: u8 = 50;
    /// Authentication header, RFC 4302.
    pub const AH: u8 = 51;
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows, RFC 8200 4.7.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// Destination options of IPv6, RFC 8200 4.6.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Mobility header, RFC 6275 6.1.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol, RFC 7401.
    pub const HIP: u8 = 139;
    /// Multihoming shim, RFC 5533.
    pub const SHIM6: u8 = 140;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
}

const DESTINATION_PORT: u32 = 16;
const PROTOCOL: u32 = 32;
const VLAN: u32 = 40;
const TAGGED: u64 = 1 << 52;
const IPV6: u64 = 1 << 53;
const FRAGMENT: u64 = 1 << 54;
const TRUNCATED: u64 = 1 << 55;
const ICMP_QUERY: u64 = 1 << 56;

/// Upper word of an IPv4 address is zero; the lower one is this plus the address (RFC 4291 2.5.5.2).
const MAPPED: u64 = 0x0000_ffff_0000_0000;

/// Addresses, ports, protocol and VLAN of one direction of a flow.
///
/// Words 0 and 1 hold the source address in network order read as two big-endian numbers, words 2 and 3 the
/// destination. IPv4 addresses are mapped into IPv6; a family bit keeps real `::ffff:0:0/96` traffic apart.
///
/// Word 4, from bit 0: source port (16), destination port (16), protocol (8), VLAN identifier (12), then one bit each
/// for tagged, IPv6, later fragment, header beyond what was read, and ICMP query. Bits 57 to 63 are free; the kernel
/// keeps the direction in the top one.
///
/// For ICMP the "ports" are the type and the code, except for query types (echo and the like), whose "ports" are the
/// type and the type that answers it, as Community ID does, so that request and reply are each other's reverse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    words: [u64; 5],
}

/// Parts of word 4 that parsing finds out one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details(u64);

impl Details {
    /// IPv4 or IPv6 and the number of the transport protocol.
    #[inline(always)]
    pub const fn new(is_ipv6: bool, protocol: u8) -> Self {
        Self((protocol as u64) << PROTOCOL | if is_ipv6 { IPV6 } else { 0 })
    }

    /// Adds ports.
    #[inline(always)]
    #[must_use]
    pub const fn with_ports(self, source: u16, destination: u16) -> Self {
        Self(self.0 | source as u64 | (destination as u64) << DESTINATION_PORT)
    }

    /// Adds the outermost VLAN identifier (12 bits, the rest of the tag is ignored).
    #[inline(always)]
    #[must_use]
    pub const fn with_vlan(self, tag: u16) -> Self {
        Self(self.0 | TAGGED | ((tag & 0xfff) as u64) << VLAN)
    }

    /// Marks a fragment that is not the first, whose ports are unknown.
    #[inline(always)]
    #[must_use]
    pub const fn with_fragment(self) -> Self {
        Self(self.0 | FRAGMENT)
    }

    /// Marks a packet whose transport header lies beyond what was read.
    #[inline(always)]
    #[must_use]
    pub const fn with_truncated(self) -> Self {
        Self(self.0 | TRUNCATED)
    }

    /// What two say together.
    #[inline(always)]
    pub(crate) const fn joined(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Marks an ICMP query or its answer: the "ports" are two types.
    #[inline(always)]
    #[must_use]
    pub const fn with_icmp_query(self) -> Self {
        Self(self.0 | ICMP_QUERY)
    }
}

/// Words of an IPv4 address, mapped into IPv6.
#[inline(always)]
pub const fn ipv4_words(address: [u8; 4]) -> [u64; 2] {
    [0, MAPPED | u32::from_be_bytes(address) as u64]
}

/// Words of an IPv6 address.
#[inline(always)]
pub const fn ipv6_words(address: [u8; 16]) -> [u64; 2] {
    // Not by way of a 128-bit number, which the kernel's machine does not have.
    let high =
        [address[0], address[1], address[2], address[3], address[4], address[5], address[6], address[7]];
    let low = [
        address[8],
        address[9],
        address[10],
        address[11],
        address[12],
        address[13],
        address[14],
        address[15],
    ];
    [u64::from_be_bytes(high), u64::from_be_bytes(low)]
}

impl Tuple {
    /// Puts a tuple together from the words of both addresses and the details.
    #[inline(always)]
    pub const fn new(source: [u64; 2], destination: [u64; 2], details: Details) -> Self {
        Self { words: [source[0], source[1], destination[0], destination[1], details.0] }
    }

    /// Makes a tuple from words that [`Tuple::words`] gave, ignoring the free bits of word 4.
    #[inline(always)]
    pub const fn from_words(words: [u64; 5]) -> Self {
        let [source_high, source_low, destination_high, destination_low, details] = words;
        let details = details & ((1 << 57) - 1);
        Self { words: [source_high, source_low, destination_high, destination_low, details] }
    }

    /// The words, as described above.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 5] {
        self.words
    }

    /// The tuple of the opposite direction.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        let [source_high, source_low, destination_high, destination_low, details] = self.words;
        let ports = (details & 0xffff) << DESTINATION_PORT | (details >> DESTINATION_PORT) & 0xffff;
        let details = details & !0xffff_ffff | ports;
        Self { words: [destination_high, destination_low, source_high, source_low, details] }
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        self.address([self.words[0], self.words[1]])
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        self.address([self.words[2], self.words[3]])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the IPv4 address")]
    fn address(&self, words: [u64; 2]) -> IpAddr {
        if self.is_ipv6() {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1])))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(words[1] as u32))
        }
    }

    /// Source port, or the ICMP type; 0 where the protocol has none or it is unknown.
    pub const fn source_port(&self) -> u16 {
        (self.words[4] & 0xffff) as u16
    }

    /// Destination port; for ICMP the code or the answering type; 0 where the protocol has none or it is unknown.
    pub const fn destination_port(&self) -> u16 {
        (self.words[4] >> DESTINATION_PORT & 0xffff) as u16
    }

    /// Number of the protocol above IP (IANA).
    pub const fn protocol(&self) -> u8 {
        (self.words[4] >> PROTOCOL & 0xff) as u8
    }

    /// Identifier of the outermost VLAN tag, if there was one (0 is a priority tag).
    pub const fn vlan(&self) -> Option<u16> {
        if self.words[4] & TAGGED == 0 { None } else { Some((self.words[4] >> VLAN & 0xfff) as u16) }
    }

    /// Whether the packets were IPv6.
    pub const fn is_ipv6(&self) -> bool {
        self.words[4] & IPV6 != 0
    }

    /// Whether these are fragments other than the first, whose ports are unknown.
    pub const fn is_fragment(&self) -> bool {
        self.words[4] & FRAGMENT != 0
    }

    /// Whether the transport header lay beyond what was read, so that the ports are unknown.
    pub const fn is_truncated(&self) -> bool {
        self.words[4] & TRUNCATED != 0
    }

    /// Whether the protocol is ICMP or ICMPv6.
    pub const fn is_icmp(&self) -> bool {
        let expected = if self.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
        self.protocol() == expected
    }

    /// ICMP type and code, where the protocol is ICMP and its header was read.
    #[expect(clippy::cast_possible_truncation, reason = "type and code are bytes")]
    pub const fn icmp(&self) -> Option<(u8, u8)> {
        if !self.is_icmp() || self.is_fragment() || self.is_truncated() {
            return None;
        }
        let code = if self.words[4] & ICMP_QUERY == 0 { self.destination_port() as u8 } else { 0 };
        Some((self.source_port() as u8, code))
    }

    /// Whether the protocol is ICMP and the message asks or answers (so that there is a reverse direction).
    pub const fn is_icmp_query(&self) -> bool {
        self.words[4] & ICMP_QUERY != 0
    }

    /// Whether the protocol has ports and they are known.
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol(), protocol::TCP | protocol::UDP | protocol::SCTP)
            && !self.is_fragment()
            && !self.is_truncated()
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuple")
            .field("source", &self.source())
            .field("destination", &self.destination())
            .field("ports", &(self.source_port(), self.destination_port()))
            .field("protocol", &self.protocol())
            .field("vlan", &self.vlan())
            .field("is_fragment", &self.is_fragment())
            .field("is_truncated", &self.is_truncated())
            .finish()
    }
}
