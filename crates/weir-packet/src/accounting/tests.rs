//! The arithmetic against frames that are really cut into segments.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::{VLAN_TAG_BYTES, last_frame_bytes, segments, wire_bytes};

#[test]
fn a_packet_counts_for_one_frame_at_least() {
    for (gso_segs, gso_size, payload, expect) in [
        (0, 0, 0, 1),
        (0, 0, u64::MAX, 1),
        (0, 1448, 0, 1),
        (0, 1448, 1448, 1),
        (0, 1448, 1449, 2),
        (0, 1, u64::MAX, u64::MAX),
        (1, 0, 0, 1),
        (45, 1448, 10, 45),
        (u32::MAX, 0, 0, 0xffff_ffff),
    ] {
        assert_eq!(segments(gso_segs, gso_size, payload), expect, "{gso_segs} {gso_size} {payload}");
    }
}

#[test]
fn the_last_frame_is_never_a_super_packet() {
    for (length, segments, gso_size, header_length, expect) in [
        (98, 1, 0, 42, 98),
        // A single segment may carry its size.
        (1514, 1, 1448, 66, 1514),
        (65226, 45, 1448, 66, 1514),
        // Without a usable size (65,535 stands for "by fragments") the mean.
        (4000, 2, 0, 50, 2025),
        (4000, 2, 65535, 50, 2025),
    ] {
        assert_eq!(last_frame_bytes(length, false, segments, gso_size, header_length), expect);
        assert_eq!(
            last_frame_bytes(length, true, segments, gso_size, header_length),
            expect + VLAN_TAG_BYTES
        );
    }
}

proptest! {
    #[test]
    fn wire_bytes_are_the_sum_over_the_segments(
        header_length in 14u64..200,
        payload in 1u64..600_000,
        gso_size in 1u32..9000,
        is_tagged in any::<bool>(),
        knows_segments in any::<bool>(),
    ) {
        let mut frames: Vec<u64> = vec![];
        let mut left = payload;
        while left > 0 {
            let part = left.min(u64::from(gso_size));
            left -= part;
            frames.push(header_length + part + if is_tagged { 4 } else { 0 });
        }
        let stated = if knows_segments { u32::try_from(frames.len()).expect("fits") } else { 0 };
        let count = segments(stated, gso_size, payload);
        prop_assert_eq!(count, frames.len() as u64);
        let length = header_length + payload;
        prop_assert_eq!(wire_bytes(length, is_tagged, count, header_length), frames.iter().sum::<u64>());
        prop_assert_eq!(last_frame_bytes(length, is_tagged, count, gso_size, header_length), frames[0]);
    }

    #[test]
    fn any_numbers_are_taken(
        numbers in any::<(u64, bool, u64, u32, u64)>(),
        gso_segs in any::<u32>(),
    ) {
        let (length, is_tagged, count, gso_size, header_length) = numbers;
        prop_assert!(segments(gso_segs, gso_size, length) >= 1);
        let _ = wire_bytes(length, is_tagged, count, header_length);
        let _ = last_frame_bytes(length, is_tagged, count, gso_size, header_length);
    }
}
