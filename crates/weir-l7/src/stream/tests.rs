use proptest::prelude::*;

use super::*;

fn bytes(position: u64, data: &[u8]) -> Chunk<'_> {
    Chunk::Bytes { position, time: Monotonic(position), data }
}

fn gap(position: u64, length: u64) -> Chunk<'static> {
    Chunk::Gap { position, time: Monotonic(position), length, reason: GapReason::Limit }
}

/// Letters as they were handed on; a gap is as many signs.
#[derive(Default)]
struct Seen {
    text: String,
    next: Option<u64>,
}

impl Seen {
    fn take(&mut self, chunk: Chunk<'_>) {
        assert_eq!(chunk.position(), *self.next.get_or_insert(chunk.position()), "out of order");
        assert!(chunk.length() > 0);
        self.next = Some(chunk.end());
        match chunk {
            Chunk::Bytes { data, .. } => self.text.push_str(std::str::from_utf8(data).expect("letters")),
            Chunk::Gap { length, reason, .. } => {
                let sign = match reason {
                    GapReason::Missing => "?",
                    GapReason::Unseen => "!",
                    _ => "_",
                };
                self.text.push_str(&sign.repeat(usize::try_from(length).expect("it is short")));
            }
        }
    }
}

#[track_caller]
fn check(chunks: &[Chunk<'_>], end: Option<u64>, expected: &str) -> StreamLedger {
    let mut stream = Reassembly::default();
    let mut seen = Seen::default();
    for chunk in chunks {
        stream.push(*chunk, &mut |chunk| seen.take(chunk));
        assert!(stream.ledger().is_balanced(), "{:?}", stream.ledger());
    }
    stream.finish(Monotonic(99), end, &mut |chunk| seen.take(chunk));
    assert_eq!(seen.text, expected);
    assert!(stream.ledger().is_balanced(), "{:?}", stream.ledger());
    assert_eq!(stream.ledger().length(), expected.len() as u64);
    *stream.ledger()
}

#[test]
fn pieces_come_out_in_the_order_of_the_stream() {
    check(&[bytes(5, b"ab"), bytes(7, b"cd")], None, "abcd");
    check(&[bytes(5, b"ab"), bytes(9, b"ef"), bytes(7, b"cd")], None, "abcdef");
    check(&[bytes(5, b"ab"), bytes(11, b"g"), bytes(9, b"ef"), bytes(7, b"cd")], None, "abcdefg");
    check(&[bytes(5, b"ab"), gap(7, 3), bytes(10, b"f")], None, "ab___f");
    check(&[bytes(5, b"ab"), bytes(10, b"f"), gap(7, 3)], None, "ab___f");
    check(&[], None, "");
    check(&[bytes(5, b"")], None, "");
}

#[test]
fn what_is_there_already_is_dropped_and_counted() {
    let ledger = check(&[bytes(5, b"abcd"), bytes(5, b"abcd"), bytes(7, b"xxef")], None, "abcdef");
    assert_eq!(ledger.duplicate, 6);
    let ledger = check(&[bytes(5, b"a"), bytes(8, b"de"), bytes(6, b"bcXYf")], None, "abcdef");
    assert_eq!(ledger.duplicate, 2);
    let ledger =
        check(&[bytes(5, b"a"), bytes(8, b"d"), bytes(10, b"f"), bytes(7, b"cXeYg")], None, "a?cdefg");
    assert_eq!((ledger.duplicate, ledger.gap(GapReason::Missing)), (2, 1));
    let ledger = check(&[bytes(5, b"ab"), gap(3, 6), bytes(6, b"xxxy")], None, "ab__y");
    assert_eq!((ledger.duplicate, ledger.duplicate_gaps), (3, 4));
}

#[test]
fn a_hole_that_is_not_filled_becomes_a_gap() {
    let ledger = check(&[bytes(5, b"ab"), bytes(9, b"ef")], Some(13), "ab??ef!!");
    assert_eq!((ledger.found_gaps, ledger.all_gaps()), (4, 4));

    let mut stream = Reassembly::default();
    let mut seen = Seen::default();
    stream.push(bytes(0, b"a"), &mut |chunk| seen.take(chunk));
    let late = Chunk::Bytes { position: 2, time: Monotonic(5_000_000_000), data: b"c" };
    stream.push(late, &mut |chunk| seen.take(chunk));
    stream.expire(Monotonic(5_999_999_999), &mut |chunk| seen.take(chunk));
    assert_eq!(seen.text, "a");
    stream.expire(Monotonic(6_000_000_000), &mut |chunk| seen.take(chunk));
    assert_eq!(seen.text, "a?c");
    stream.push(bytes(1, b"b"), &mut |chunk| seen.take(chunk));
    assert_eq!(stream.ledger().duplicate, 1);
}

#[test]
fn what_waits_is_bounded() {
    let limits = StreamLimits { bytes: 10, pieces: 3, ..StreamLimits::default() };
    for (length, count) in [(6, 2), (1, 4)] {
        let mut stream = Reassembly::new(Some(0), limits);
        let mut seen = Seen::default();
        let data = vec![b'x'; length];
        for piece in 1..=count {
            assert_eq!(seen.text, "");
            stream.push(bytes(piece * 10, &data), &mut |chunk| seen.take(chunk));
        }
        assert_eq!(seen.text, format!("{}{}", "?".repeat(10), "x".repeat(length)));
        assert!(stream.ledger().is_balanced());
    }
}

#[test]
fn positions_at_the_end_of_all_numbers_do_no_harm() {
    let ledger = check(&[bytes(u64::MAX - 2, b"ab"), gap(u64::MAX - 1, 7)], None, "ab");
    assert_eq!(ledger.duplicate_gaps, 1);
}

proptest! {
    #[test]
    fn whatever_comes_is_accounted_for_and_leaves_in_order(
        pieces in prop::collection::vec((0..60_u64, 0..12_usize, any::<bool>()), 0..40),
        limits in (1..40_usize, 1..6_usize),
    ) {
        const TEXT: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        let limits = StreamLimits { bytes: limits.0, pieces: limits.1, ..StreamLimits::default() };
        let mut stream = Reassembly::new(Some(0), limits);
        let mut seen = Seen::default();
        for (position, length, is_gap) in pieces {
            let start = usize::try_from(position).unwrap();
            let chunk =
                if is_gap { gap(position, length as u64) } else { bytes(position, &TEXT[start..start + length]) };
            stream.push(chunk, &mut |chunk| seen.take(chunk));
            prop_assert!(stream.ledger().is_balanced(), "{:?}", stream.ledger());
            prop_assert!(stream.ledger().waiting <= limits.bytes as u64);
        }
        stream.finish(Monotonic(99), Some(80), &mut |chunk| seen.take(chunk));
        prop_assert!(stream.ledger().is_balanced());
        prop_assert_eq!(stream.ledger().length(), 80);
        for (letter, expected) in seen.text.bytes().zip(TEXT) {
            prop_assert!(letter == *expected || b"_?!".contains(&letter));
        }
    }
}
