//! What a packet counts for: a super-packet of the kernel (GSO, GRO) is many frames on the wire.
//!
//! Lengths are bytes from the link-layer header on (from the IP header on devices without one), without frame check
//! sequence and preamble.

#[cfg(test)]
mod tests;

/// Bytes of one VLAN tag, which the network card has stripped or will insert, on each frame.
pub const VLAN_TAG_BYTES: u64 = 4;

/// Frames on the wire that a packet becomes or was put together from.
///
/// `gso_segs` where the kernel filled it in; else as many as a payload of that many bytes takes at `gso_size` each
/// (packets from virtual machines and tun devices carry the size alone); else 1. Never 0.
///
/// ```
/// use weir_packet::segments;
/// assert_eq!(segments(0, 0, 100), 1);
/// assert_eq!(segments(3, 1448, 4000), 3);
/// assert_eq!(segments(0, 1448, 4000), 3);
/// ```
#[inline(always)]
pub const fn segments(gso_segs: u32, gso_size: u32, payload: u64) -> u64 {
    if gso_segs != 0 {
        return gso_segs as u64;
    }
    if gso_size == 0 || payload == 0 {
        return 1;
    }
    (payload - 1) / gso_size as u64 + 1
}

/// Bytes on the wire of all frames of a packet.
///
/// `length` is that of the packet as it is in memory (`skb->len`), `header_length` what each further segment repeats
/// ([`Headers::header_length`](crate::Headers), the stripped tag not included).
///
/// ```
/// use weir_packet::wire_bytes;
/// // 66 bytes of headers and 2,896 of payload in two segments, tagged by the card.
/// assert_eq!(wire_bytes(66 + 2896, true, 2, 66), 2 * (66 + 4 + 1448));
/// ```
#[inline(always)]
pub const fn wire_bytes(length: u64, stripped_tag: bool, segments: u64, header_length: u64) -> u64 {
    let tag = if stripped_tag { VLAN_TAG_BYTES } else { 0 };
    // Wrapping: segments is a 16-bit number in the kernel and headers are short, so nothing wraps, and a checked
    // multiplication would need 128 bits, which the kernel's machine does not have.
    length
        .wrapping_add(tag)
        .wrapping_add(segments.wrapping_sub(1).wrapping_mul(header_length.wrapping_add(tag)))
}

/// Bytes on the wire of the last frame; of a super-packet, of one full segment (its very last is often shorter).
///
/// Where `gso_size` is missing or cannot be (SCTP states none), the mean of the segments.
///
/// ```
/// use weir_packet::last_frame_bytes;
/// assert_eq!(last_frame_bytes(98, false, 1, 0, 42), 98);
/// assert_eq!(last_frame_bytes(66 + 4000, true, 3, 1448, 66), 66 + 1448 + 4);
/// ```
#[inline(always)]
pub const fn last_frame_bytes(
    length: u64,
    stripped_tag: bool,
    segments: u64,
    gso_size: u32,
    header_length: u64,
) -> u64 {
    let tag = if stripped_tag { VLAN_TAG_BYTES } else { 0 };
    if segments <= 1 {
        return length.wrapping_add(tag);
    }
    let full = header_length.wrapping_add(gso_size as u64);
    if gso_size != 0 && full < length {
        return full.wrapping_add(tag);
    }
    wire_bytes(length, stripped_tag, segments, header_length) / segments
}
