//! [`Body`]: DNS messages within a datagram or a segment, by what says how long they are. No I/O.

use weir_packet::{plain::UDP_BYTES, protocol};

/// A DNS message, or the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Its bytes, as far as they are there.
    pub bytes: &'a [u8],
    /// Whether there is more of it than that: it is in several fragments or segments, or longer than what is copied.
    pub is_cut: bool,
}

/// The messages in what IP carried.
pub(super) fn bodies(protocol: u8, bytes: &[u8]) -> impl Iterator<Item = Body<'_>> {
    let is_tcp = protocol == protocol::TCP;
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let (body, behind) = if is_tcp { first_in_segment(bytes)? } else { (in_datagram(bytes)?, None) };
        rest = behind;
        Some(body)
    })
}

/// The message in a datagram (RFC 768). Super-packets of more than 64 KiB say 0 for their length.
fn in_datagram(bytes: &[u8]) -> Option<Body<'_>> {
    let (header, bytes) = bytes.split_at_checked(UDP_BYTES)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let length = length.checked_sub(UDP_BYTES).unwrap_or(bytes.len());
    let is_cut = length > bytes.len();
    Some(Body { bytes: &bytes[..length.min(bytes.len())], is_cut })
}

/// The first message of a segment that begins with one (RFC 1035 4.2.2), and what follows, if the message ends in it.
fn first_in_segment(bytes: &[u8]) -> Option<(Body<'_>, Option<&[u8]>)> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some(match bytes.split_at_checked(length) {
        Some((bytes, behind)) => (Body { bytes, is_cut: false }, Some(behind).filter(|it| !it.is_empty())),
        None => (Body { bytes, is_cut: true }, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: u8, bytes: &[u8], expected: &[(&[u8], bool)]) {
        let found: Vec<(&[u8], bool)> =
            bodies(protocol, bytes).map(|body| (body.bytes, body.is_cut)).collect();
        assert_eq!(found, expected, "{bytes:?}");
    }

    #[test]
    fn the_header_of_a_datagram_says_how_long_the_message_is() {
        let whole = [0, 53, 0x90, 0, 0, 11, 0, 0, 1, 2, 3];
        check(protocol::UDP, &whole, &[(&[1, 2, 3], false)]);
        check(protocol::UDP, &[&whole[..], &[0; 7]].concat(), &[(&[1, 2, 3], false)]);
        check(protocol::UDP, &whole[..10], &[(&[1, 2], true)]);
        check(protocol::UDP, &whole[..7], &[]);
        let without_length = [0, 53, 0x90, 0, 0, 0, 0, 0, 1, 2];
        check(protocol::UDP, &without_length, &[(&[1, 2], false)]);
    }

    #[test]
    fn a_segment_may_hold_several_messages_and_the_beginning_of_one() {
        check(protocol::TCP, &[0, 2, 1, 2], &[(&[1, 2], false)]);
        check(protocol::TCP, &[0, 2, 1, 2, 0, 1, 3], &[(&[1, 2], false), (&[3], false)]);
        check(protocol::TCP, &[0, 2, 1, 2, 0, 9, 3], &[(&[1, 2], false), (&[3], true)]);
        check(protocol::TCP, &[0, 2, 1, 2, 0], &[(&[1, 2], false)]);
        check(protocol::TCP, &[], &[]);
    }
}
