//! [`Pairs`]: kinds of two bytes that follow each other, all of which are looked for at once.
//!
//! What a byte may be is told by both its halves: a table for each says to which kinds it may belong, and looking up sixteen
//! bytes or more in such a table is one instruction (on x86-64 since 2008; what is older looks up byte by byte). Where the bytes of a kind are not all those of some upper halves and some
//! lower ones, it lets through more than these; never less.

use fearless_simd::{Simd, SimdBase as _, SimdFrom as _, u8x16};

/// What the first of two bytes is among, and the second.
pub(crate) type Kind = (&'static [u8], &'static [u8]);

/// At most eight kinds; each has a bit.
#[derive(Debug)]
pub(crate) struct Pairs {
    first: Halves,
    second: Halves,
}

/// The kinds of bytes by their lower and upper half.
#[derive(Debug)]
struct Halves {
    lower: [u8; 16],
    upper: [u8; 16],
}

impl Pairs {
    pub(crate) const fn new<const N: usize>(kinds: [Kind; N]) -> Self {
        assert!(N <= 8, "a kind has a bit of a byte");
        let mut pairs = Self { first: Halves::new(), second: Halves::new() };
        let mut number = 0;
        while number < N {
            pairs.first.add(kinds[number].0, number);
            pairs.second.add(kinds[number].1, number);
            number += 1;
        }
        pairs
    }

    /// Which bytes may begin a pair; `next` are those one place on.
    #[inline(always)]
    pub(crate) fn begin<S: Simd>(&self, simd: S, bytes: S::u8s, next: S::u8s) -> S::mask8s {
        let kinds = self.first.kinds(simd, bytes) & self.second.kinds(simd, next);
        !kinds.simd_eq(0)
    }
}

impl Halves {
    const fn new() -> Self {
        Self { lower: [0; 16], upper: [0; 16] }
    }

    const fn add(&mut self, bytes: &[u8], kind: usize) {
        let mut index = 0;
        while index < bytes.len() {
            self.lower[(bytes[index] & 15) as usize] |= 1 << kind;
            self.upper[(bytes[index] >> 4) as usize] |= 1 << kind;
            index += 1;
        }
    }

    #[inline(always)]
    fn kinds<S: Simd>(&self, simd: S, bytes: S::u8s) -> S::u8s {
        let table = |halves: &[u8; 16]| S::u8s::block_splat(u8x16::simd_from(simd, *halves));
        table(&self.lower).swizzle_dyn_within_blocks(bytes & 15)
            & table(&self.upper).swizzle_dyn_within_blocks(bytes >> 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{
        Test,
        tests::{found, levels},
    };

    #[derive(Clone, Copy)]
    struct Begins(&'static Pairs);

    impl Test for Begins {
        #[inline(always)]
        fn passes<S: Simd>(self, simd: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
            self.0.begin(simd, ahead(0), ahead(1))
        }
    }

    #[test]
    fn every_pair_is_found_and_hardly_any_other() {
        static KINDS: [Kind; 8] = [
            (b"ab", b"xy"),
            (b"\n", b"\x00\xff"),
            (b"\xff", b"\x80"),
            (b"1", b"1"),
            (b"2", b"22"),
            (b"3", b"3"),
            (b"4", b"4"),
            (b"Z", b"Z"),
        ];
        static PAIRS: Pairs = Pairs::new(KINDS);
        // Each two bytes, and one more.
        let bytes = || 0..=u8::MAX;
        let all = || bytes().flat_map(|first| bytes().map(move |second| [first, second]));
        let data: Vec<u8> = all().flat_map(|[first, second]| [first, second, b' ']).collect();
        let is_one = |[first, second]: [u8; 2]| {
            // Halves of `\0` and `\xff` make two others as well.
            let is_like_one = first == b'\n' && matches!(second, 0x0f | 0xf0);
            is_like_one
                || KINDS.iter().any(|(firsts, seconds)| firsts.contains(&first) && seconds.contains(&second))
        };
        let expected: Vec<[u8; 2]> = all().filter(|pair| is_one(*pair)).collect();
        for level in levels() {
            let places = found(level, &data, 0, b' ', Begins(&PAIRS));
            let pairs = places.into_iter().filter(|place| place % 3 == 0);
            let pairs: Vec<[u8; 2]> = pairs.map(|place| [data[place], data[place + 1]]).collect();
            assert_eq!(pairs, expected);
        }
    }
}
