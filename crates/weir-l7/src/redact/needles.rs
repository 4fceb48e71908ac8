//! What keys of JSON that are secrets have in them, so that all other text can be passed over.

use crate::scan::Kind;

/// What there is around two letters, and where in it they are.
type Around = (&'static [u8], usize);

/// Letters that every such name has, by the first of two of them that are rare in text.
const NEEDLES: [(u8, &[Around]); 6] = [
    (b'c', &[(b"secret", 2), (b"credential", 0)]),
    (b'g', &[(b"signature", 2)]),
    (b'k', &[(b"key", 0), (b"token", 2)]),
    (b's', &[(b"passw", 2), (b"passp", 2), (b"passc", 2), (b"assertion", 1)]),
    (b'w', &[(b"pwd", 1), (b"jwt", 1)]),
    (b'z', &[(b"authorization", 7)]),
];

/// The two of each needle. Those are together of which hardly any text has the first of one and the second of the other.
pub(super) const PAIRS: [Kind; 4] =
    [(b"CScs", b"RSrs"), (b"Gg", b"Nn"), (b"Kk", b"Ee"), (b"WZwz", b"ADTadt")];

/// Whether there is a needle around this place, where a pair begins.
pub(super) fn is_needle(data: &[u8], place: usize) -> bool {
    let is_around = |(needle, at): &Around| {
        let there = place.checked_sub(*at).and_then(|begin| data.get(begin..begin + needle.len()));
        there.is_some_and(|there| there.eq_ignore_ascii_case(needle))
    };
    let first = data[place] | 0x20;
    NEEDLES.iter().any(|(one, needles)| *one == first && needles.iter().any(is_around))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::names::{self, MOST_NAME};

    fn is_pair(first: u8, second: u8) -> bool {
        PAIRS.iter().any(|(firsts, seconds)| firsts.contains(&first) && seconds.contains(&second))
    }

    #[test]
    fn every_secret_key_has_a_needle() {
        for name in names::secret_keys() {
            let has_one = |name: &[u8]| {
                let is_one = |place: usize| is_pair(name[place], name[place + 1]) && is_needle(name, place);
                (0..name.len() - 1).any(is_one)
            };
            assert!(has_one(name.as_bytes()), "{name} has no needle: add one");
            assert!(has_one(name.to_ascii_uppercase().as_bytes()), "{name}");
            assert!(name.len() < MOST_NAME);
        }
    }

    #[test]
    fn every_needle_is_found_by_its_pair() {
        for (first, needles) in NEEDLES {
            for (needle, place) in needles {
                assert!(needle[*place] == first && is_pair(first, needle[place + 1]));
                assert!(needle.iter().all(u8::is_ascii_lowercase));
            }
        }
        for (firsts, seconds) in PAIRS {
            let changed = |letters: &[u8]| letters.iter().map(|letter| letter ^ 0x20).collect::<Vec<_>>();
            assert!(changed(firsts).iter().all(|letter| firsts.contains(letter)));
            assert!(changed(seconds).iter().all(|letter| seconds.contains(letter)));
        }
    }
}
