//! [`Layout`]: where the parts of a packet are that a translation reads or writes.

#![expect(clippy::cast_possible_truncation, reason = "offsets lie within the window, or close behind it")]

use crate::{
    Link, Window, ethertype,
    tuple::{ipv4_words, ipv6_words, protocol},
};

/// Most VLAN tags that are passed over.
const TAGS: usize = 2;

/// Most extension headers that are passed over.
const EXTENSIONS: usize = 6;

const ETHERNET_BYTES: usize = 14;

/// Least bytes of the transport headers, so that their checksums are there.
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// Bytes of a TCP header up to the end of its checksum.
const TCP_CHECKED: usize = 18;

/// Whether a packet is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// It is.
    #[default]
    Whole = 0,
    /// The first of several, which has the ports.
    First = 1,
    /// A later one.
    Later = 2,
}

/// Where things are. Offsets count from the beginning of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// Words of the source address, as in [`Tuple::words`](crate::Tuple::words).
    pub source: [u64; 2],
    /// Words of the destination address.
    pub destination: [u64; 2],
    /// Source port (low half) and destination port; 0 without.
    pub ports: u32,
    /// Where the IP header begins.
    pub network: u32,
    /// Where the transport or ICMP header begins.
    pub transport: u32,
    /// What fragments of one datagram have in common.
    pub identification: u32,
    /// The IPv4 header checksum, as it lies in memory; 0 for IPv6.
    pub ip_check: u16,
    /// The transport checksum, as it lies in memory; of TCP read by [`inner_layout`] alone, else 0.
    pub transport_check: u16,
    /// TCP, UDP or ICMP. Of a later fragment of IPv6, whatever its header names.
    pub protocol: u8,
    /// 1 for IPv6.
    pub is_ipv6: u8,
    /// Whether it is whole.
    pub fragment: Fragment,
    /// The low eight TCP flags, FIN lowest; 0 for others.
    pub tcp_flags: u8,
    /// Bytes of the TCP header in words of four; 0 for others.
    pub tcp_words: u8,
    /// 1 if there is a transport checksum to be changed: not with UDP that has none, nor beyond what is there.
    pub has_check: u8,
}

/// What a packet is to a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// TCP or UDP with its ports: everything in [`Layout`] is set.
    Transport = 0,
    /// A later fragment: no ports.
    LaterFragment = 1,
    /// An ICMP error: no ports, the transport header is that of ICMP. See [`inner_layout`].
    IcmpError = 2,
    /// Nothing that is ever translated.
    Other = 3,
    /// Cut short or contradictory.
    Malformed = 4,
    /// A routing header that names another destination (RFC 8200 4.4), or too many extension headers.
    Extensions = 5,
}

/// Finds out where things are. `frame_length` is the frame's real length; `known_ethertype` is for [`Link::Ip`] alone.
#[inline(always)]
pub fn layout(
    window: &mut Window<'_>,
    frame_length: u32,
    link: Link,
    known_ethertype: u16,
    found: &mut Layout,
) -> Found {
    *found = Layout::default();
    let mut kind = known_ethertype;
    let mut offset = 0;
    if link == Link::Ethernet {
        let Some(bytes) = window.read(ETHERNET_BYTES - 2) else { return Found::Malformed };
        kind = u16::from_be_bytes(bytes);
        offset = ETHERNET_BYTES;
        for _ in 0..TAGS {
            if !matches!(kind, ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_QINQ) {
                break;
            }
            let Some(bytes) = window.read(offset + 2) else { return Found::Malformed };
            kind = u16::from_be_bytes(bytes);
            offset += 4;
        }
    }
    let offset = window.forget_offset(offset);
    let upper = match kind {
        ethertype::IPV4 => ipv4(window, offset, found),
        ethertype::IPV6 => ipv6(window, offset, found),
        _ => return Found::Other,
    };
    let end = match upper {
        Ok(end) => end.min(frame_length as usize),
        Err(found) => return found,
    };
    if found.fragment == Fragment::Later {
        return Found::LaterFragment;
    }
    transport(window, end, found)
}

/// Reads the packet that an ICMP error is about, which `error` is the layout of. False if it cannot be translated: a
/// later fragment, something else than TCP and UDP, or cut before the ports; also where its checksum lies beyond what
/// is read.
#[inline(always)]
pub fn inner_layout(window: &mut Window<'_>, frame_length: u32, error: &Layout, found: &mut Layout) -> bool {
    const ICMP_BYTES: usize = 8;
    *found = Layout::default();
    let offset = window.forget_offset(error.transport as usize + ICMP_BYTES);
    let upper = if error.is_ipv6 == 0 { ipv4(window, offset, found) } else { ipv6(window, offset, found) };
    // The length that the header tells is that of the whole packet, of which only the beginning is here.
    if upper.is_err() || found.fragment == Fragment::Later {
        return false;
    }
    let end = frame_length as usize;
    let start = window.forget_offset(found.transport as usize);
    let check = match found.protocol {
        protocol::TCP => start + TCP_CHECKED - 2,
        protocol::UDP => start + UDP_BYTES - 2,
        _ => return false,
    };
    let Some(ports) = window.read::<4>(start) else { return false };
    found.ports = joined(ports);
    if check + 2 > end {
        // Routers may send eight bytes and no more (RFC 792).
        return true;
    }
    let Some(bytes) = window.read::<2>(check) else { return false };
    found.transport_check = u16::from_ne_bytes(bytes);
    // UDP without a checksum (RFC 768) stays without.
    found.has_check = u8::from(found.protocol == protocol::TCP || found.transport_check != 0);
    true
}

/// Reads an IPv4 header (RFC 791 3.1). Gives the end of the packet by its own account.
#[inline(always)]
fn ipv4(window: &mut Window<'_>, offset: usize, found: &mut Layout) -> Result<usize, Found> {
    let Some(header) = window.read::<20>(offset) else { return Err(Found::Malformed) };
    let bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || bytes < 20 || (total != 0 && total < bytes) {
        return Err(Found::Malformed);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    found.source = ipv4_words([header[12], header[13], header[14], header[15]]);
    found.destination = ipv4_words([header[16], header[17], header[18], header[19]]);
    found.network = offset as u32;
    found.transport = (offset + bytes) as u32;
    found.identification = u32::from(u16::from_be_bytes([header[4], header[5]]));
    found.ip_check = u16::from_ne_bytes([header[10], header[11]]);
    found.protocol = header[9];
    found.fragment = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(if total == 0 { usize::MAX } else { offset + total })
}

/// Reads an IPv6 header (RFC 8200 3) and passes over what stands before the transport header.
#[inline(always)]
fn ipv6(window: &mut Window<'_>, offset: usize, found: &mut Layout) -> Result<usize, Found> {
    let Some(header) = window.read::<8>(offset) else { return Err(Found::Malformed) };
    if header[0] >> 4 != 6 {
        return Err(Found::Malformed);
    }
    let (Some(source), Some(destination)) = (window.read(offset + 8), window.read(offset + 24)) else {
        return Err(Found::Malformed);
    };
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    found.source = ipv6_words(source);
    found.destination = ipv6_words(destination);
    found.network = offset as u32;
    found.is_ipv6 = 1;
    extensions(window, offset + 40, header[6], found)?;
    Ok(if payload == 0 { usize::MAX } else { offset + 40 + payload })
}

/// Passes over the extension headers of IPv6 (RFC 8200 4).
#[inline(always)]
fn extensions(
    window: &mut Window<'_>,
    start: usize,
    next_header: u8,
    found: &mut Layout,
) -> Result<(), Found> {
    let (mut offset, mut next) = (window.forget_offset(start), next_header);
    for _ in 0..=EXTENSIONS {
        if !matches!(
            next,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::AH
                | protocol::DESTINATION_OPTIONS
        ) {
            found.transport = offset as u32;
            found.protocol = next;
            return Ok(());
        }
        let Some(header) = window.read::<8>(offset) else { return Err(Found::Malformed) };
        let length = match next {
            protocol::FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                found.identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                found.fragment = match (field >> 3, field & 1) {
                    (0, 0) => found.fragment,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            // In words of four bytes, not counting two (RFC 4302 2.2).
            protocol::AH => (usize::from(header[1]) + 2) * 4,
            // What is behind is covered by a checksum with the last address of the route, not with that of the header.
            protocol::ROUTING if header[3] != 0 => return Err(Found::Extensions),
            // In words of eight bytes, not counting one (RFC 8200 4.3).
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
        offset = window.forget_offset(offset + length);
        if found.fragment == Fragment::Later {
            found.transport = offset as u32;
            found.protocol = next;
            return Ok(());
        }
    }
    Err(Found::Extensions)
}

/// Reads what translation needs of the transport header, which ends before `end`.
#[inline(always)]
fn transport(window: &mut Window<'_>, end: usize, found: &mut Layout) -> Found {
    let offset = window.forget_offset(found.transport as usize);
    match (found.protocol, found.is_ipv6) {
        (protocol::TCP, _) => {
            let Some(header) = window.read::<TCP_BYTES>(offset) else { return Found::Malformed };
            if offset + TCP_BYTES > end {
                return Found::Malformed;
            }
            found.ports = joined([header[0], header[1], header[2], header[3]]);
            found.tcp_words = header[12] >> 4;
            found.tcp_flags = header[13];
            found.has_check = 1;
            Found::Transport
        }
        (protocol::UDP, _) => {
            let Some(header) = window.read::<UDP_BYTES>(offset) else { return Found::Malformed };
            if offset + UDP_BYTES > end {
                return Found::Malformed;
            }
            found.ports = joined([header[0], header[1], header[2], header[3]]);
            found.transport_check = u16::from_ne_bytes([header[6], header[7]]);
            found.has_check = u8::from(found.transport_check != 0);
            Found::Transport
        }
        (protocol::ICMP, 0) | (protocol::ICMPV6, 1) => {
            if found.fragment != Fragment::Whole {
                return Found::Other;
            }
            let Some([kind]) = window.read(offset) else { return Found::Malformed };
            if is_error(found.is_ipv6 != 0, kind) { Found::IcmpError } else { Found::Other }
        }
        _ => Found::Other,
    }
}

/// Whether an ICMP message is an error about a packet that it repeats: unreachable, time exceeded, parameter problem
/// (RFC 792), packet too big (RFC 4443 3).
#[inline(always)]
const fn is_error(is_ipv6: bool, kind: u8) -> bool {
    if is_ipv6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) }
}

/// Source port (low half) and destination port.
#[inline(always)]
const fn joined(ports: [u8; 4]) -> u32 {
    u16::from_be_bytes([ports[0], ports[1]]) as u32 | (u16::from_be_bytes([ports[2], ports[3]]) as u32) << 16
}
