//! The general parser: from the link-layer header to the ports, for any frame.
//!
//! Decisions that the RFCs leave to the reader:
//!
//! - A frame is [`Parsed::Malformed`] when the headers that hold its addresses are cut short or contradict themselves:
//!   fewer bytes than an Ethernet header or an announced tag, than 20 of IPv4 or 40 of IPv6; a version that is not the
//!   ethertype's; an IPv4 header length below five words, beyond the frame's end, or beyond a total length other than 0
//!   (RFC 791 3.1).
//! - Once the addresses are known the packet is a flow. If its transport header cannot be read, because the frame, the
//!   IP payload or the window ends before, or because more than eight extension headers precede it (RFC 8200 4), it is
//!   a flow by protocol, marked as truncated; the protocol then is the header that could not be passed.
//! - The IP payload ends where the IP header says, so that Ethernet padding is never read as ports. A total or payload
//!   length of 0 means that the frame's end counts: super-packets beyond 64 KiB and jumbograms (RFC 2675). A length
//!   beyond the frame's end is fine: captures cut frames.
//! - Ports are known as soon as their four bytes are there; without the rest of a TCP header its flags are 0.
//! - A fragment with offset 0 has its ports, others are marked (RFC 791 3.2, RFC 8200 4.5; the protocol of a later
//!   IPv6 fragment is what its fragment header names, even if that is another extension header).
//! - The authentication header is passed over in IPv6, where it is an extension header (RFC 8200 4.1); in IPv4 it is the
//!   protocol. Behind ESP (RFC 4303) and "no next header" (RFC 8200 4.7) nothing is read.
//! - Addresses are those of the IP header; a routing header (RFC 8200 4.4) or mobility options do not change them.
//! - 802.3 frames, whose type field is a length (below 0x600), are non-IP with ethertype 0.

#[cfg(test)]
mod tests;

use crate::{
    icmp::answering_type,
    plain::{TCP_BYTES, UDP_BYTES, flags_and_length},
    tuple::{Details, Tuple, ipv4_words, ipv6_words, protocol},
    window::{Buffer, WINDOW, Window},
};

/// Values of the type field of an Ethernet header that mean something here (IEEE registration authority).
pub mod ethertype {
    /// IPv4, RFC 894.
    pub const IPV4: u16 = 0x0800;
    /// IPv6, RFC 2464.
    pub const IPV6: u16 = 0x86dd;
    /// Tag of a customer's VLAN, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// Tag of a service provider's VLAN, IEEE 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// Outer tag of equipment older than 802.1ad.
    pub const OLD_QINQ: u16 = 0x9100;
    /// Least value that is a type; smaller ones are the length of an 802.3 frame.
    pub const LEAST: u16 = 0x0600;
}

/// Most VLAN tags that are passed over in a frame; with more it is not IP.
const TAGS: usize = 4;

/// Most IPv6 extension headers that are passed over.
const EXTENSIONS: usize = 8;

const ETHERNET_BYTES: usize = 14;

const SCTP_BYTES: usize = 12;

const ICMP_BYTES: usize = 8;

/// What precedes the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, 14 bytes, and tags.
    Ethernet,
    /// Nothing (tun, WireGuard, IP tunnels, raw captures).
    Ip,
}

/// What the headers of an IP packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Who talks to whom.
    pub tuple: Tuple,
    /// Bytes from the start of the frame to the end of the transport header, inline tags included. Where the transport
    /// header could not be read, what it takes at least. Never more than the frame's length.
    pub header_length: u32,
    /// TCP flags (nine bits, FIN lowest), 0 for other protocols.
    pub tcp_flags: u16,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// What a frame turned out to be.
///
/// In the kernel, take it apart at once: what a variant does not hold is a register with anything in it, and the
/// compiler may move arithmetic on it before the distinction, which the verifier refuses if it is a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IP packet.
    Ip(Headers),
    /// Something else (ARP, LLDP, MPLS, …), not looked into.
    NonIp {
        /// The type field behind all tags; 0 for 802.3 frames, and for raw frames that are neither IPv4 nor IPv6.
        ethertype: u16,
    },
    /// The headers that would hold the addresses are cut short or contradict themselves.
    Malformed,
}

/// Parses the frame of which `window` holds the beginning.
///
/// `frame_length` is the frame's real length in bytes, which may be larger than the window. `known_ethertype` is for
/// [`Link::Ip`] alone: what the device says the packet is; without it the version field decides. `stripped_vlan` is the
/// tag that the network card took off, which was the outermost.
#[inline(always)]
pub fn parse(
    window: &mut Window<'_>,
    frame_length: u32,
    link: Link,
    known_ethertype: Option<u16>,
    stripped_vlan: Option<u16>,
) -> Parsed {
    let frame_length = frame_length as usize;
    window.shorten(frame_length);
    let start = match link {
        Link::Ethernet => ethernet(window, stripped_vlan),
        Link::Ip => raw(window, known_ethertype, stripped_vlan),
    };
    let Some(mut start) = start else { return Parsed::Malformed };
    start.offset = window.forget_offset(start.offset);
    start.tag = Details::from_bits(window.forget(start.tag.bits()));
    let headers = match start.ethertype {
        ethertype::IPV4 => ipv4(window, frame_length, start),
        ethertype::IPV6 => ipv6(window, frame_length, start),
        other => return Parsed::NonIp { ethertype: other },
    };
    headers.map_or(Parsed::Malformed, Parsed::Ip)
}

/// Parses the beginning of a frame that lies in a slice of any length.
///
/// ```
/// use weir_packet::{Link, Parsed, ethertype, parse_bytes};
/// // RFC 826: an ARP request starts with the Ethernet header of a broadcast.
/// let mut frame = [0xff; 60];
/// frame[12..14].copy_from_slice(&[0x08, 0x06]);
/// assert_eq!(parse_bytes(&frame, 60, Link::Ethernet, None, None), Parsed::NonIp { ethertype: 0x0806 });
/// ```
pub fn parse_bytes(
    bytes: &[u8],
    frame_length: u32,
    link: Link,
    known_ethertype: Option<u16>,
    stripped_vlan: Option<u16>,
) -> Parsed {
    let mut buffer = Buffer::new();
    for (to, from) in buffer.bytes.iter_mut().zip(bytes.iter().take(WINDOW)) {
        *to = *from;
    }
    parse(&mut Window::new(&mut buffer, bytes.len()), frame_length, link, known_ethertype, stripped_vlan)
}

/// Where the network layer starts and what it is.
#[derive(Clone, Copy)]
struct Start {
    offset: usize,
    ethertype: u16,
    /// The outermost tag, if there is one.
    tag: Details,
}

#[inline(always)]
fn ethernet(window: &Window<'_>, stripped_vlan: Option<u16>) -> Option<Start> {
    let mut ethertype = u16::from_be_bytes(window.read(ETHERNET_BYTES - 2)?);
    let mut offset = ETHERNET_BYTES;
    let mut vlan = stripped_vlan;
    for _ in 0..TAGS {
        if !matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_QINQ) {
            break;
        }
        let [tag_high, tag_low, type_high, type_low] = window.read(offset)?;
        vlan = vlan.or(Some(u16::from_be_bytes([tag_high, tag_low])));
        ethertype = u16::from_be_bytes([type_high, type_low]);
        offset += 4;
    }
    if ethertype < ethertype::LEAST {
        ethertype = 0;
    }
    Some(Start { offset, ethertype, tag: tag(vlan) })
}

#[inline(always)]
fn raw(window: &Window<'_>, known_ethertype: Option<u16>, vlan: Option<u16>) -> Option<Start> {
    let ethertype = if let Some(known) = known_ethertype {
        known
    } else {
        let [first] = window.read(0)?;
        match first >> 4 {
            4 => ethertype::IPV4,
            6 => ethertype::IPV6,
            _ => 0,
        }
    };
    Some(Start { offset: 0, ethertype, tag: tag(vlan) })
}

#[inline(always)]
const fn tag(vlan: Option<u16>) -> Details {
    match vlan {
        Some(tag) => Details::from_bits(0).with_vlan(tag),
        None => Details::from_bits(0),
    }
}

/// Reads an IPv4 header, RFC 791 3.1.
#[inline(always)]
fn ipv4(window: &mut Window<'_>, frame_length: usize, start: Start) -> Option<Headers> {
    let header: [u8; 20] = window.read(start.offset)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let behind = start.offset + header_bytes;
    if header[0] >> 4 != 4
        || header_bytes < 20
        || behind > frame_length
        || (total != 0 && total < header_bytes)
    {
        return None;
    }
    window.shorten(if total == 0 { frame_length } else { start.offset + total });
    // Of these 16 bits three are flags.
    let is_first = u16::from_be_bytes([header[6], header[7]]) << 3 == 0;
    let upper = Upper {
        offset: behind,
        protocol: header[9],
        reach: if is_first { Reach::Header } else { Reach::LaterFragment },
    };
    let transport = transport(window, false, upper).merged(window);
    // Read anew: the twenty bytes would otherwise wait on the stack, eight bytes each.
    let header: [u8; 20] = window.read(start.offset)?;
    Some(Headers {
        tuple: Tuple::new(
            ipv4_words([header[12], header[13], header[14], header[15]]),
            ipv4_words([header[16], header[17], header[18], header[19]]),
            transport.details.joined(start.tag),
        ),
        header_length: at_most(transport.end, frame_length),
        tcp_flags: transport.tcp_flags,
        dscp: header[1] >> 2,
        ttl: header[8],
    })
}

/// Reads an IPv6 header, RFC 8200 3.
#[inline(always)]
fn ipv6(window: &mut Window<'_>, frame_length: usize, start: Start) -> Option<Headers> {
    let header: [u8; 40] = window.read(start.offset)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    window.shorten(if payload == 0 { frame_length } else { start.offset + 40 + payload });
    let upper = extensions(window, start.offset + 40, header[6]);
    let transport = transport(window, true, upper).merged(window);
    let header: [u8; 8] = window.read(start.offset)?;
    let source = window.read(start.offset + 8)?;
    let destination = window.read(start.offset + 24)?;
    Some(Headers {
        tuple: Tuple::new(ipv6_words(source), ipv6_words(destination), transport.details.joined(start.tag)),
        header_length: at_most(transport.end, frame_length),
        tcp_flags: transport.tcp_flags,
        dscp: (header[0] & 0x0f) << 2 | header[1] >> 6,
        ttl: header[7],
    })
}

/// The protocol above IP, and where its header would start.
#[derive(Clone, Copy)]
struct Upper {
    offset: usize,
    protocol: u8,
    reach: Reach,
}

/// Whether the header of the protocol above IP is at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It is.
    Header,
    /// It is in another fragment.
    LaterFragment,
    /// The chain of extension headers could not be followed to its end.
    Lost,
}

/// Passes over the extension headers of IPv6, RFC 8200 4.
#[inline(always)]
fn extensions(window: &mut Window<'_>, offset: usize, next_header: u8) -> Upper {
    let mut upper = Upper { offset, protocol: next_header, reach: Reach::Header };
    for _ in 0..EXTENSIONS {
        if !is_extension(upper.protocol) {
            return upper;
        }
        // Next header, length, and of a fragment header the offset in 13 bits; each has eight bytes at least.
        let Some(extension) = window.read::<8>(upper.offset) else { break };
        let length = usize::from(extension[1]);
        upper.offset += match upper.protocol {
            protocol::FRAGMENT => 8,
            // In words of four bytes, not counting two (RFC 4302 2.2).
            protocol::AH => (length + 2) * 4,
            // In words of eight bytes, not counting one (RFC 8200 4.3).
            _ => (length + 1) * 8,
        };
        let is_later = upper.protocol == protocol::FRAGMENT
            && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0;
        upper.protocol = extension[0];
        upper.offset = window.forget_offset(upper.offset);
        if is_later {
            upper.reach = Reach::LaterFragment;
            return upper;
        }
    }
    if is_extension(upper.protocol) {
        upper.reach = Reach::Lost;
    }
    upper
}

/// Whether more headers follow this one (IANA "IPv6 Extension Header Types", without ESP).
#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AH
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// What the transport header says.
struct Transport {
    details: Details,
    /// Offset of its end from the start of the frame.
    end: usize,
    tcp_flags: u16,
}

impl Transport {
    /// The same, with the paths that led to it merged.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the flags were 16 bits before")]
    fn merged(self, window: &mut Window<'_>) -> Self {
        let details = Details::from_bits(window.forget(self.details.bits()));
        let end_and_flags = window.forget_offset(self.end << 16 | usize::from(self.tcp_flags));
        Self { details, end: end_and_flags >> 16, tcp_flags: (end_and_flags & 0xffff) as u16 }
    }
}

#[inline(always)]
fn transport(window: &Window<'_>, is_ipv6: bool, upper: Upper) -> Transport {
    let Upper { offset, protocol, reach } = upper;
    let details = Details::new(is_ipv6, protocol);
    match reach {
        Reach::LaterFragment => {
            return Transport { details: details.with_fragment(), end: offset, tcp_flags: 0 };
        }
        Reach::Lost => return Transport { details: details.with_truncated(), end: offset, tcp_flags: 0 },
        Reach::Header => {}
    }
    let is_icmp = protocol == if is_ipv6 { protocol::ICMPV6 } else { protocol::ICMP };
    let least = match protocol {
        protocol::TCP => TCP_BYTES,
        protocol::UDP => UDP_BYTES,
        protocol::SCTP => SCTP_BYTES,
        _ if is_icmp => ICMP_BYTES,
        // By number alone.
        _ => return Transport { details, end: offset, tcp_flags: 0 },
    };
    let Some([first, second, third, fourth]) = window.read::<4>(offset) else {
        return Transport { details: details.with_truncated(), end: offset + least, tcp_flags: 0 };
    };
    if is_icmp {
        return Transport {
            details: icmp(details, is_ipv6, first, second),
            end: offset + least,
            tcp_flags: 0,
        };
    }
    let details =
        details.with_ports(u16::from_be_bytes([first, second]), u16::from_be_bytes([third, fourth]));
    // Bytes 12 and 13 of a TCP header are the data offset and the flags.
    if protocol == protocol::TCP
        && let Some(bytes) = window.read::<2>(offset + 12)
    {
        let (tcp_flags, length) = flags_and_length(bytes);
        return Transport { details, end: offset + length, tcp_flags };
    }
    Transport { details, end: offset + least, tcp_flags: 0 }
}

/// Type and code, or of queries and their answers both types.
///
/// A query with a code other than 0 (node information has some) is not paired: its code would be lost.
#[inline(always)]
const fn icmp(details: Details, is_ipv6: bool, kind: u8, code: u8) -> Details {
    match answering_type(is_ipv6, kind) {
        Some(answer) if code == 0 => details.with_ports(kind as u16, answer as u16).with_icmp_query(),
        _ => details.with_ports(kind as u16, code as u16),
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "frame_length came as 32 bits")]
fn at_most(end: usize, frame_length: usize) -> u32 {
    end.min(frame_length) as u32
}
