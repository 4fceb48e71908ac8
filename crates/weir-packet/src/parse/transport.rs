//! Transport headers: ports or what stands in their place, and their lengths.

use crate::{
    icmp::answering_type,
    plain::{TCP_BYTES, UDP_BYTES, flags_and_length},
    tuple::{Details, protocol},
    window::Window,
};

const SCTP_BYTES: usize = 12;

const ICMP_BYTES: usize = 8;

/// The protocol above IP, and where its header would start.
#[derive(Clone, Copy)]
pub(super) struct Upper {
    /// Offset from the start of the frame.
    pub(super) offset: usize,
    /// Number of the protocol.
    pub(super) protocol: u8,
    /// Whether the header is there.
    pub(super) reach: Reach,
}

/// Whether the header of the protocol above IP is at its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is.
    Header,
    /// It is in another fragment.
    LaterFragment,
    /// The chain of extension headers could not be followed to its end.
    Lost,
}

/// What the transport header says.
pub(super) struct Transport {
    /// Family, protocol, ports and marks.
    pub(super) details: Details,
    /// Offset of its end from the start of the frame.
    pub(super) end: usize,
    /// TCP flags, 0 for other protocols.
    pub(super) tcp_flags: u16,
}

impl Transport {
    /// The same, with the paths that led to it merged.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the flags were 16 bits before")]
    pub(super) fn merged(self, window: &mut Window<'_>) -> Self {
        let details = Details::from_bits(window.forget(self.details.bits()));
        let end_and_flags = window.forget_offset(self.end << 16 | usize::from(self.tcp_flags));
        Self { details, end: end_and_flags >> 16, tcp_flags: (end_and_flags & 0xffff) as u16 }
    }
}

#[inline(always)]
pub(super) fn transport(window: &Window<'_>, is_ipv6: bool, upper: Upper) -> Transport {
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
        let (tcp_flags, length) = flags_and_length(u16::from_be_bytes(bytes));
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
