//! IPv4 and IPv6 headers, and what stands between them and the transport header.

use super::{
    Headers, Start,
    transport::{Reach, Upper, transport},
};
use crate::{
    tuple::{Tuple, ipv4_words, ipv6_words, protocol},
    window::Window,
};

/// Most IPv6 extension headers that are passed over.
const EXTENSIONS: usize = 8;

/// Reads an IPv4 header, RFC 791 3.1.
#[inline(always)]
pub(super) fn ipv4(window: &mut Window<'_>, frame_length: usize, start: Start) -> Option<Headers> {
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
pub(super) fn ipv6(window: &mut Window<'_>, frame_length: usize, start: Start) -> Option<Headers> {
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
        if extension[0] == protocol::NO_NEXT_HEADER && is_message(upper.protocol) {
            return upper;
        }
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

/// Whether this header is a message of its own if nothing follows it, which is how these protocols are spoken
/// (RFC 6275 6.1.1, RFC 7401 5.1, RFC 5533 5.1).
#[inline(always)]
const fn is_message(next_header: u8) -> bool {
    matches!(next_header, protocol::MOBILITY | protocol::HIP | protocol::SHIM6)
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

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "frame_length came as 32 bits")]
fn at_most(end: usize, frame_length: usize) -> u32 {
    end.min(frame_length) as u32
}
