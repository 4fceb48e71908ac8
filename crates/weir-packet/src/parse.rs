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
//!   protocol. Behind ESP (RFC 4303) and "no next header" (RFC 8200 4.7) nothing is read. Mobility, HIP and shim6
//!   headers before "no next header" are the protocol themselves, before anything else they are passed over.
//! - Addresses are those of the IP header; a routing header (RFC 8200 4.4) or mobility options do not change them.
//! - 802.3 frames, whose type field is a length (below 0x600), are non-IP with ethertype 0.

mod network;
#[cfg(test)]
mod tests;
mod transport;

use crate::{
    tuple::{Details, Tuple},
    window::{Buffer, WINDOW, Window},
};
use network::{ipv4, ipv6};

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

const ETHERNET_BYTES: usize = 14;

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
/// The two fragments of RFC 791 appendix A, example 2; only the first has the ports:
///
/// ```
/// use weir_packet::{Link, Parsed, parse_bytes};
/// let mut packet = [
///     0x45, 0x00, 0x01, 0x14, 0x00, 0x6f, 0x20, 0x00, 0x7b, 0x06, 0x00, 0x00, 192, 0, 2, 1, 198, 51, 100, 7,
///     0xc0, 0x00, 0x00, 0x50, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x50, 0x02, 0x00, 0x00,
/// ];
/// let Parsed::Ip(first) = parse_bytes(&packet, 276, Link::Ip, None, None) else { panic!() };
/// assert_eq!((first.tuple.source_port(), first.tuple.destination_port()), (49152, 80));
/// assert_eq!((first.tcp_flags, first.header_length, first.ttl), (0x002, 40, 123));
///
/// packet[2..8].copy_from_slice(&[0x00, 0xd8, 0x00, 0x6f, 0x00, 0x20]);
/// let Parsed::Ip(second) = parse_bytes(&packet, 216, Link::Ip, None, None) else { panic!() };
/// assert!(second.tuple.is_fragment());
/// assert_eq!((second.tuple.source_port(), second.header_length), (0, 20));
/// ```
///
/// An echo request (RFC 792, "Echo or Echo Reply Message") behind a tag (IEEE 802.1Q 9.6):
///
/// ```
/// use weir_packet::{Link, Parsed, parse_bytes};
/// let frame = [
///     2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0x20, 0x64, 0x08, 0x00,
///     0x45, 0x00, 0x00, 0x1c, 0x00, 0x01, 0x40, 0x00, 0x40, 0x01, 0x00, 0x00, 192, 0, 2, 1, 198, 51, 100, 7,
///     0x08, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01,
/// ];
/// let Parsed::Ip(headers) = parse_bytes(&frame, 46, Link::Ethernet, None, None) else { panic!() };
/// assert_eq!(headers.tuple.icmp(), Some((8, 0)));
/// assert_eq!(headers.tuple.vlan(), Some(100));
/// assert!(headers.tuple.is_icmp_query());
/// assert_eq!(headers.header_length, 46);
/// ```
///
/// SCTP (RFC 9260 3.1) behind hop-by-hop options (RFC 8200 4.3) that hold a jumbo payload (RFC 2675 2):
///
/// ```
/// use weir_packet::{Link, Parsed, parse_bytes, protocol};
/// let mut packet = [0; 60];
/// packet[..8].copy_from_slice(&[0x60, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40]);
/// packet[40..48].copy_from_slice(&[132, 0x00, 0xc2, 0x04, 0x00, 0x01, 0x00, 0x00]);
/// packet[48..52].copy_from_slice(&[0x0b, 0x59, 0x0b, 0x5a]);
/// let Parsed::Ip(headers) = parse_bytes(&packet, 65616, Link::Ip, None, None) else { panic!() };
/// assert_eq!(headers.tuple.protocol(), protocol::SCTP);
/// assert_eq!((headers.tuple.source_port(), headers.tuple.destination_port()), (2905, 2906));
/// ```
///
/// An ARP request (RFC 826) is not IP:
///
/// ```
/// use weir_packet::{Link, Parsed, parse_bytes};
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
