//! [`find`] and [`has`]: what matters among bytes of which nearly none does.
//!
//! A test that needs no branches is made for as many bytes together as the processor takes, and only what passes it is looked at.
//! The test may let through what does not matter, and must not hold back what does. What processors are known to be able to do
//! differs; the code is compiled for several kinds of them, and the best one is chosen where it runs.

mod pairs;

use fearless_simd::{Level, Simd, SimdBase as _, SimdMask as _, dispatch};

pub(crate) use self::pairs::{Kind, Pairs};

/// Bytes that are tested before any of them is looked at.
const BLOCK: usize = 64;

/// Bytes behind a block that its last one may be tested with.
const AHEAD: usize = 8;

/// A block and what is behind it.
type Window = [u8; BLOCK + AHEAD];

/// What is asked of each byte. All of it has to be inlined into code that is compiled for a kind of processors.
pub(crate) trait Test: Copy {
    /// Which of the bytes pass. `ahead` has those that are up to [`AHEAD`] places on.
    fn passes<S: Simd>(self, simd: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s;
}

/// Looks at each place that passes the test, in order, until something is found. Behind the end of the data stands the padding,
/// again and again.
pub(crate) fn find<T>(
    data: &[u8],
    from: usize,
    padding: u8,
    test: impl Test,
    mut look: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    find_by(Level::new(), data, (from, padding), test, &mut look)
}

fn find_by<T>(
    level: Level,
    data: &[u8],
    places: (usize, u8),
    test: impl Test,
    look: &mut impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    dispatch!(level, simd => find_with(simd, data, places, test, look))
}

/// Whether a byte passes.
pub(crate) fn has(data: &[u8], padding: u8, test: impl Test) -> bool {
    find(data, 0, padding, test, Some).is_some()
}

#[inline(always)]
fn find_with<S: Simd, T>(
    simd: S,
    data: &[u8],
    (from, padding): (usize, u8),
    test: impl Test,
    look: &mut impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    let mut begin = from;
    while let Some(rest) = data.get(begin..).filter(|rest| !rest.is_empty()) {
        let padded;
        let window = if let Some(window) = rest.first_chunk() {
            window
        } else {
            padded = pad(rest, padding);
            &padded
        };
        let mut left = marks(simd, window, test);
        while left != 0 {
            let place = begin + left.trailing_zeros() as usize;
            left &= left - 1;
            if place >= data.len() {
                return None;
            }
            let found = look(place);
            if found.is_some() {
                return found;
            }
        }
        begin += BLOCK;
    }
    None
}

/// A bit for each byte of the block.
#[inline(always)]
fn marks<S: Simd>(simd: S, window: &Window, test: impl Test) -> u64 {
    let length = S::u8s::LEN;
    let mut marks = 0;
    let mut begin = 0;
    while begin < BLOCK {
        let ahead =
            |places: usize| S::u8s::from_slice(simd, &window[begin + places..begin + places + length]);
        marks |= test.passes(simd, ahead).to_bitmask() << begin;
        begin += length;
    }
    marks
}

fn pad(rest: &[u8], padding: u8) -> Window {
    let mut window = [padding; BLOCK + AHEAD];
    window[..rest.len()].copy_from_slice(rest);
    window
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What this processor can do, and less.
    pub(crate) fn levels() -> impl Iterator<Item = Level> {
        let best = Level::new();
        let less = [best.as_sse4_2().map(Level::Sse4_2), best.as_avx2().map(Level::Avx2)];
        less.into_iter().flatten().chain([best, Level::baseline()])
    }

    /// All places that pass a test.
    pub(crate) fn found(level: Level, data: &[u8], from: usize, padding: u8, test: impl Test) -> Vec<usize> {
        let mut places = Vec::new();
        let all = find_by(level, data, (from, padding), test, &mut |place| {
            places.push(place);
            None::<()>
        });
        assert_eq!(all, None);
        places
    }

    #[derive(Clone, Copy)]
    struct IsOne;

    impl Test for IsOne {
        #[inline(always)]
        fn passes<S: Simd>(self, _: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
            ahead(0).simd_eq(1)
        }
    }

    /// A byte and the one eight places on are the same.
    #[derive(Clone, Copy)]
    struct IsAgain;

    impl Test for IsAgain {
        #[inline(always)]
        fn passes<S: Simd>(self, _: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
            ahead(0).simd_eq(ahead(AHEAD))
        }
    }

    #[test]
    fn every_place_that_passes_the_test_is_looked_at_in_order() {
        for length in [0, 1, 63, 64, 65, 71, 72, 73, 128, 200] {
            for step in [1, 2, 7, 8, 63, 64] {
                let data: Vec<u8> = (0..length).map(|place| u8::from(place % step == 0)).collect();
                for from in [0, 1, length / 2, length] {
                    for level in levels() {
                        let seen = found(level, &data, from, 1, IsOne);
                        assert!(seen.into_iter().eq((from..length).filter(|place| place % step == 0)));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_ahead_is_ahead_and_padding_behind_the_end() {
        let data: Vec<u8> = (0..300_usize).map(|place| b"\0\x01\x02\x03"[place * place / 7 % 4]).collect();
        let is_again = |place: &usize| data[*place] == *data.get(place + AHEAD).unwrap_or(&2);
        for level in levels() {
            let seen = found(level, &data, 5, 2, IsAgain);
            assert!(seen.into_iter().eq((5..data.len()).filter(is_again)));
        }
    }

    #[test]
    fn it_ends_with_what_is_found() {
        let looked = find(&[1; 100], 70, 0, IsOne, Some);
        assert_eq!(looked, Some(70));
        assert!(has(&[0, 1], 1, IsOne) && !has(&[0; 70], 1, IsOne));
    }
}
