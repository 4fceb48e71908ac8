//! Passing over what is harmless: nearly everything, at a glance.
//!
//! A secret comes behind its name, and what stands in front of the name tells that it may be one: the beginning of a line, `?`, `&`,
//! a quote, or `://` in place of a name. Behind each of them the state is known, whatever came before. So nothing is read
//! up to the place where a name of a secret begins; from there on it is read byte by byte.

use std::ops::Range;

use fearless_simd::{Simd, SimdBase as _};

use super::{Before, Form, MOST_HELD, Parts, State, TextMask, value::ends_authority};
use crate::redact::{
    names::{
        MOST_NAME, PART_HEADER, Word, is_letter, is_secret_header, is_secret_in_json, is_secret_in_query,
        may_be_secret, measure,
    },
    needles::{self, is_needle},
    table,
};
use crate::scan::{self, Pairs, Test};

/// Letters of words, and what else may be in the name of a header, or of a key at the beginning of a line: it may have spaces, and
/// others within it.
const NAME: [bool; 256] = table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. \t[]%");

/// What two bytes may have something behind them or around them: a needle, `://`, or a line that begins with a letter of a name, or
/// with half an end of a line. Indented lines, objects and elements are not of headers.
const MARKS: Pairs = Pairs::new([
    needles::PAIRS[0],
    needles::PAIRS[1],
    needles::PAIRS[2],
    needles::PAIRS[3],
    (b":", b"/"),
    (b"\n", b"\rABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmno"),
    (b"\n", b"%-.123456789qrstuvwxyz"),
    (b"\n", b"0p"),
]);

/// Whether something may begin at a byte.
#[derive(Clone, Copy)]
struct MayMatter;

impl Test for MayMatter {
    #[inline(always)]
    fn passes<S: Simd>(self, simd: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
        let bytes = ahead(0);
        MARKS.begin(simd, bytes, ahead(1)) | bytes.simd_eq(b'?') | bytes.simd_eq(b'&')
    }
}

/// Up to where something was looked at.
struct Seen {
    /// The end of what may have been a name at the beginning of the last line that begins with one.
    name: usize,
    /// The end of the last authority.
    authority: usize,
    /// Within the last word with a needle.
    word: usize,
    /// The last line that may be a boundary.
    boundary: Range<usize>,
}

impl TextMask {
    /// Whether no secret is under way, and no name that was begun matters.
    pub(super) fn is_harmless(&self) -> bool {
        self.state == State::Plain
            && self.scheme == 0
            && self.parts.form == Form::None
            && !self.is_folded
            && match self.before {
                Before::Other => true,
                Before::LineStart | Before::Quote | Before::Separator => self.word.is_empty(),
                Before::PartName | Before::PartQuote => false,
            }
    }

    /// Goes on to where something begins that is to be read, or else to near the end. Gives back that place, and up to where it is
    /// known that nothing begins.
    pub(super) fn pass_over(&mut self, data: &[u8], from: usize) -> (usize, usize) {
        let mut seen = Seen { name: from, authority: from, word: from, boundary: from..from };
        let begins_here = match self.before {
            Before::LineStart => self.secret_line(data, from, &mut seen),
            Before::Quote => is_key(data, from).then_some(from),
            Before::Separator => is_parameter(data, from).then_some(from),
            Before::Other | Before::PartName | Before::PartQuote => None,
        };
        if let Some(begin) = begins_here {
            return (begin, begin);
        }
        let found = scan::find(data, from, 0, MayMatter, |place| self.look(data, place, &mut seen));
        self.parts.line(&joined(&data[seen.boundary.clone()]));
        match found {
            Some((place, state, before)) => {
                self.goes_on(before);
                self.state = state;
                (place, place)
            }
            None => (self.settle(data, from, &seen), data.len()),
        }
    }

    /// Whether something begins here that is to be read: where, and what is known there.
    #[inline(never)]
    fn look(&self, data: &[u8], place: usize, seen: &mut Seen) -> Option<(usize, State, Before)> {
        if place < seen.authority {
            return None;
        }
        let next = place + 1;
        let (begin, before, is_secret) = match data[place] {
            b'\n' => {
                let begin = self.secret_line(data, next, seen)?;
                (begin, Before::LineStart, true)
            }
            b'?' | b'&' => (next, Before::Separator, is_parameter(data, next)),
            b':' => {
                let begin = next + 2;
                match harmless_authority(data[next..].strip_prefix(b"//")?) {
                    Some(length) => seen.authority = begin + length,
                    None => return Some((begin, State::Authority, Before::Other)),
                }
                return None;
            }
            _ if is_needle(data, place) => {
                // Without a beginning the word was looked at before.
                let floor = seen.authority.max(seen.word);
                seen.word = next;
                let begin = floor + 1 + data[floor..place].iter().rposition(|byte| !is_letter(*byte))?;
                (begin, Before::Quote, data[begin - 1] == b'"' && is_key(data, begin))
            }
            _ => return None,
        };
        is_secret.then_some((begin, State::Plain, before))
    }

    /// Nothing begins before the end: goes back to where it is known what the state is.
    fn settle(&mut self, data: &[u8], from: usize, seen: &Seen) -> usize {
        for place in (seen.authority..data.len()).rev() {
            let before = match data[place] {
                b'\n' => Before::LineStart,
                b'"' => Before::Quote,
                b'?' | b'&' => Before::Separator,
                b' ' | b'\t' if place >= seen.name => Before::Other,
                // A scheme may go on here.
                b'/' if place > seen.authority && !matches!(data[place - 1], b':' | b'/') => Before::Other,
                b':' | b'/' | b'\r' => continue,
                byte if is_in_name(byte) => continue,
                _ => Before::Other,
            };
            self.goes_on(before);
            return place + 1;
        }
        if seen.authority > from {
            self.goes_on(Before::Other);
        }
        seen.authority
    }

    fn goes_on(&mut self, before: Before) {
        match before {
            Before::LineStart => self.line_start(),
            _ => self.not_a_name(before),
        }
    }

    /// Where the name begins, if a line that begins here may be of a header with a secret, or a command that says one.
    fn secret_line(&self, data: &[u8], begin: usize, seen: &mut Seen) -> Option<usize> {
        // The first half of an end of a line is not yet a line.
        let returns = data[begin..].iter().take_while(|byte| **byte == b'\r').count();
        let line = &data[begin + returns..];
        let length = match line.first() {
            None | Some(b' ' | b'\t') => 0,
            Some(_) => line.iter().position(|byte| !is_in_name(*byte)).unwrap_or(line.len()),
        };
        let begin = begin + returns;
        seen.name = begin + length;
        let (name, behind) = line.split_at(length);
        let letter = name.first()?;
        if self.has_commands && matches!(letter | 0x20, b'a' | b'p') && may_be_command(name) {
            return Some(begin);
        }
        let is_secret = match behind.first() {
            Some(b':') => {
                // Of a name that begins so, the end says nothing.
                let may_begin = *letter | 0x20 == b'x' || length > MOST_NAME;
                let is_secret =
                    |name: &[u8]| is_secret_header(name) || name.eq_ignore_ascii_case(PART_HEADER.as_bytes());
                is_secret_name(name, is_secret) || may_begin && is_secret(joined(name).as_bytes())
            }
            Some(b'=') => is_secret_name(name, is_secret_in_query),
            Some(b'\r' | b'\n') => {
                if Parts::may_be_boundary(name.iter().filter(|byte| !is_space(**byte))) {
                    seen.boundary = begin..seen.name;
                }
                false
            }
            _ => false,
        };
        is_secret.then_some(begin)
    }
}

fn is_in_name(byte: u8) -> bool {
    NAME[usize::from(byte)]
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A name without the spaces in it.
fn joined(name: &[u8]) -> Word {
    let mut word = Word::new();
    name.split(|byte| is_space(*byte)).for_each(|letters| word.extend(letters));
    word
}

/// What is compared of a word.
fn end_of(word: &[u8]) -> &[u8] {
    &word[word.len().saturating_sub(MOST_NAME)..]
}

/// Whether a name is of a secret, without its spaces. Most can be told not to be at a glance.
fn is_secret_name(name: &[u8], is_secret: impl Fn(&[u8]) -> bool) -> bool {
    may_be_secret(name.iter().filter(|byte| !is_space(**byte))) && is_secret(joined(name).as_bytes())
}

/// Whether a line may be a command that says a secret.
fn may_be_command(name: &[u8]) -> bool {
    let is_one = |command: &&[u8; 4]| {
        let mut letters = name.iter().filter(|byte| !is_space(**byte));
        command.iter().all(|letter| letters.next().is_some_and(|one| one.eq_ignore_ascii_case(letter)))
    };
    [b"auth", b"pass"].iter().any(is_one)
}

/// Whether the word that begins here, behind a quote, is a key of JSON whose value is a secret.
fn is_key(data: &[u8], begin: usize) -> bool {
    let (length, may_be_secret) = measure(&data[begin..]);
    let (word, behind) = data[begin..].split_at(length);
    let is_whole = matches!(behind.first(), Some(b'"' | b'\\'));
    is_whole && (may_be_secret || length > MOST_NAME) && is_secret_in_json(end_of(word))
}

/// Whether the word that begins here, behind a separator, is a key of a query or a form whose value is a secret.
fn is_parameter(data: &[u8], begin: usize) -> bool {
    let rest = &data[begin..];
    let length = rest.iter().position(|byte| !is_in_name(*byte) || is_space(*byte)).unwrap_or(rest.len());
    rest.get(length) == Some(&b'=') && is_secret_name(&rest[..length], is_secret_in_query)
}

/// How long an authority is that has no user, if that can be seen.
fn harmless_authority(rest: &[u8]) -> Option<usize> {
    let length = rest.iter().take(MOST_HELD).position(|byte| *byte == b'@' || ends_authority(*byte))?;
    (rest[length] != b'@').then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::tests::{found, levels};

    /// Everything that must not be passed over, whatever else is not.
    #[test]
    fn what_may_begin_something_is_looked_at_by_every_processor() {
        let names = (0..=u8::MAX).filter(|byte| is_in_name(*byte) && !is_space(*byte) || *byte == b'\r');
        let lines = names.map(|byte| [b'\n', byte]);
        let pairs = needles::PAIRS.iter().flat_map(|(firsts, seconds)| {
            firsts.iter().flat_map(|first| seconds.iter().map(|second| [*first, *second]))
        });
        let any = (0..=u8::MAX).flat_map(|byte| [[b'?', byte], [b'&', byte]]);
        for pair in lines.chain(pairs).chain(any).chain([*b":/"]) {
            for level in levels() {
                for before in [0, 15, 63, 64] {
                    let data = [&vec![b'x'; before][..], &pair].concat();
                    let places = found(level, &data, 0, 0, MayMatter);
                    assert!(
                        places.contains(&before),
                        "{:?} behind {before}",
                        pair.escape_ascii().to_string()
                    );
                }
            }
        }
    }
}
