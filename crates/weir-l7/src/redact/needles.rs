//! What keys of JSON that are secrets have in them, so that all other text can be passed over.

/// What there is around two letters, and where in it they are.
type Around = (&'static [u8], usize);

/// Letters that every such name has, by two of them that are rare in text: the first, what the second may be, and what there is
/// around them.
const NEEDLES: [(u8, [u8; 2], &[Around]); 6] = [
    (b'c', [b'r'; 2], &[(b"secret", 2), (b"credential", 0)]),
    (b'g', [b'n'; 2], &[(b"signature", 2)]),
    (b'k', [b'e'; 2], &[(b"key", 0), (b"token", 2)]),
    (b's', [b's'; 2], &[(b"passw", 2), (b"passp", 2), (b"passc", 2), (b"assertion", 1)]),
    (b'w', [b'd', b't'], &[(b"pwd", 1), (b"jwt", 1)]),
    (b'z', [b'a'; 2], &[(b"authorization", 7)]),
];

/// Whether two bytes may be in the middle of a needle. It has no branches, so that the compiler can test many places at once.
#[inline(always)]
#[expect(clippy::needless_bitwise_bool, reason = "branches would be in the way of that")]
pub(super) fn is_pair(first: u8, second: u8) -> bool {
    let (first, second) = (first | 0x20, second | 0x20);
    NEEDLES.iter().fold(false, |is_one, (one, [other, another], _)| {
        is_one | (first == *one) & ((second == *other) | (second == *another))
    })
}

/// Whether there is a needle around this place, where a pair begins.
pub(super) fn is_needle(data: &[u8], place: usize) -> bool {
    let is_around = |(needle, at): &Around| {
        let there = place.checked_sub(*at).and_then(|begin| data.get(begin..begin + needle.len()));
        there.is_some_and(|there| there.eq_ignore_ascii_case(needle))
    };
    let first = data[place] | 0x20;
    NEEDLES.iter().any(|(one, _, needles)| *one == first && needles.iter().any(is_around))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::names::{self, MOST_NAME};

    #[test]
    fn every_secret_key_has_a_needle() {
        for name in names::secret_keys() {
            let has_one = |name: &[u8]| {
                name.windows(2)
                    .enumerate()
                    .any(|(place, pair)| is_pair(pair[0], pair[1]) && is_needle(name, place))
            };
            assert!(has_one(name.as_bytes()), "{name} has no needle: add one");
            assert!(has_one(name.to_ascii_uppercase().as_bytes()), "{name}");
            assert!(name.len() < MOST_NAME);
        }
    }

    #[test]
    fn every_needle_is_found_by_its_pair() {
        for (first, seconds, needles) in NEEDLES {
            for (needle, place) in needles {
                assert!(needle[*place] == first && seconds.contains(&needle[place + 1]));
                assert!(needle.iter().all(u8::is_ascii_lowercase));
            }
        }
    }
}
