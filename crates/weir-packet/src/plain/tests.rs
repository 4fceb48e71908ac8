//! What the fast path leaves to the general parser.

use super::{ipv4, ipv6, tcp_flags};
use crate::protocol;

/// 192.0.2.1:1 -> 198.51.100.7:2, TCP, 40 bytes.
const V4: [u8; 28] =
    [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7, 0, 1, 0, 2, 0, 0, 0, 0];

#[track_caller]
fn check_v4(changes: &[(usize, u8)], is_plain: bool) {
    let mut bytes = V4;
    for &(offset, value) in changes {
        bytes[offset] = value;
    }
    assert_eq!(ipv4(&bytes).is_some(), is_plain, "{changes:?}");
}

#[track_caller]
fn check_v6(changes: &[(usize, u8)], is_plain: bool) {
    let mut bytes = [0; 48];
    bytes[0] = 0x60;
    bytes[5] = 20;
    bytes[6] = protocol::TCP;
    for &(offset, value) in changes {
        bytes[offset] = value;
    }
    assert_eq!(ipv6(&bytes).is_some(), is_plain, "{changes:?}");
}

#[test]
fn only_ipv4_without_options_and_fragments_is_plain() {
    check_v4(&[], true);
    // Version and header length.
    for first in [0x35, 0x44, 0x46, 0x4f, 0x55, 0x65] {
        check_v4(&[(0, first)], false);
    }
    // Flags and fragment offset: "don't fragment" and the reserved bit do not matter.
    for (high, low, is_plain) in [
        (0x00, 0, true),
        (0x80, 0, true),
        (0xc0, 0, true),
        (0x20, 0, false),
        (0x00, 1, false),
        (0x10, 0, false),
        (0x01, 0, false),
    ] {
        check_v4(&[(6, high), (7, low)], is_plain);
    }
    for number in [0, 1, 2, 33, 47, 50, 51, 58, 132, 136, 255] {
        check_v4(&[(9, number)], false);
    }
}

#[test]
fn a_length_that_cannot_hold_the_transport_header_is_not_plain() {
    for (number, least) in [(protocol::TCP, 20), (protocol::UDP, 8)] {
        for (length, is_plain) in [(least, true), (least - 1, false), (1, false), (255 - 20, true)] {
            check_v4(&[(9, number), (3, 20 + length)], is_plain);
            check_v6(&[(6, number), (5, length)], is_plain);
        }
        check_v4(&[(9, number), (2, 0), (3, 0)], true);
        check_v4(&[(9, number), (2, 0), (3, 19)], false);
        check_v6(&[(6, number), (4, 0), (5, 0)], true);
    }
}

#[test]
fn only_ipv6_without_extension_headers_is_plain() {
    check_v6(&[], true);
    check_v6(&[(0, 0x6f), (1, 0xff)], true);
    for first in [0x40, 0x50, 0x70, 0xe0, 0x06] {
        check_v6(&[(0, first)], false);
    }
    for number in [0, 1, 43, 44, 50, 51, 58, 59, 60, 132, 135, 139, 140] {
        check_v6(&[(6, number)], false);
    }
}

#[test]
fn tcp_flags_are_nine_bits_and_the_length_is_five_words_at_least() {
    for (bytes, expect) in [
        ([0x50, 0x02], (0x002, 20)),
        ([0xf1, 0xff], (0x1ff, 60)),
        ([0x5e, 0x10], (0x010, 20)),
        ([0x00, 0x00], (0x000, 20)),
        ([0x40, 0x04], (0x004, 20)),
        ([0x60, 0x01], (0x001, 24)),
    ] {
        let mut header = [0xff; 14];
        header[12..].copy_from_slice(&bytes);
        assert_eq!(tcp_flags(&header), expect);
    }
}
