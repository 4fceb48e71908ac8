//! [`TokenMask`]: secrets that are known by their form, whatever stands before them.
//!
//! Of a JSON Web Token and of the identifier of an AWS key the first letters stay, of the number of a payment card nothing does.
//! A card is 13 to 19 digits, in groups or not, that begin as one of the large issuers' do and whose check digit is right
//! (ISO/IEC 7812-1); digits of anything else are not held back for longer than they go on.

use fearless_simd::{Simd, SimdBase as _};

use super::{Held, Writer, first, table};
use crate::{
    Chunk,
    scan::{self, Pairs, Test},
};

/// How tokens begin: `{"` in base64.
const WEB_TOKEN: &[u8] = b"eyJ";

/// How identifiers of AWS keys begin, for good and for a session.
const AWS_KEYS: [&[u8]; 2] = [b"AKIA", b"ASIA"];

/// How many letters follow at least.
const AWS_LETTERS: u8 = 12;

/// Bytes that make one word, so that nothing begins behind them. A point is among them for the sake of fractions.
const WORD: [bool; 256] = table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");

/// Letters of a token, with the points between its parts.
const TOKEN: [bool; 256] = table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

/// Letters of an AWS key.
const KEY: [bool; 256] = table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");

/// Longest beginning, with the byte before it.
const REMEMBERED: usize = 5;

/// Fewer bytes than this are not tested by blocks at once.
const LEAST_SCANNED: usize = 128;

/// One side of a connection.
#[derive(Debug)]
pub(super) struct TokenMask {
    state: State,
    /// The last bytes before the present chunk.
    before: [u8; REMEMBERED],
    held: Held,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Plain,
    /// As long as bytes are of this kind.
    Secret(&'static [bool; 256]),
    /// So many letters of what may be a key were read.
    Key(u8),
    /// What may be a card.
    Card(Card),
}

/// Digits, and what is known of them.
#[derive(Clone, Copy, Debug, Default)]
struct Card {
    digits: u8,
    /// Digits since the last separator.
    group: u8,
    is_behind_separator: bool,
    /// The first four digits.
    prefix: u16,
    /// Sums of digits, where every other one counts twice: the first, the third, …; the second, the fourth, ….
    sums: [u8; 2],
    /// Bytes so far, separators included.
    bytes: usize,
    /// How many bytes from the beginning are a card.
    secret: usize,
    /// Where the second group begins.
    second: usize,
}

/// What a byte means for what is being read.
enum Verdict {
    /// It belongs to it.
    More,
    /// It does not. So many bytes from the beginning were secret; another secret may begin at the second place, or at the
    /// present byte where that is 0.
    Over(usize, usize),
    /// Everything is secret, and so is what follows as long as it is of this kind.
    Secret(&'static [bool; 256]),
}

impl Card {
    /// Whether the digits begin as those of a card that has so many.
    const fn is_issued(prefix: u16, digits: u8) -> bool {
        match prefix {
            4000..=4999 => matches!(digits, 13 | 16 | 19),
            5100..=5599 | 2221..=2720 => digits == 16,
            3400..=3499 | 3700..=3799 => digits == 15,
            3000..=3059 | 3600..=3699 | 3800..=3999 => digits == 14,
            3528..=3589 | 6011 | 6200..=6299 | 6440..=6599 => 16 <= digits && digits <= 19,
            5000 | 5018..=5099 | 5600..=5899 | 6300..=6399 | 6700..=6799 => 13 <= digits && digits <= 19,
            _ => false,
        }
    }

    /// Whether a card may begin with these four digits.
    fn may_begin(prefix: u16) -> bool {
        (13..=19).any(|digits| Self::is_issued(prefix, digits))
    }

    /// Whether a card may begin with these bytes, as far as there are enough of them.
    fn may_be(bytes: &[u8]) -> bool {
        let digit =
            |prefix: u16, byte: &u8| byte.is_ascii_digit().then(|| prefix * 10 + u16::from(*byte - b'0'));
        bytes
            .first_chunk::<4>()
            .is_none_or(|first| first.iter().try_fold(0, digit).is_some_and(Self::may_begin))
    }

    fn take(&mut self, byte: u8) -> Verdict {
        if byte.is_ascii_digit() {
            let digit = byte - b'0';
            let twice = digit * 2 - if digit > 4 { 9 } else { 0 };
            let place = usize::from(self.digits % 2);
            self.sums[place] = (self.sums[place] + twice) % 10;
            self.sums[1 - place] = (self.sums[1 - place] + digit) % 10;
            if self.digits < 4 {
                self.prefix = self.prefix * 10 + u16::from(digit);
            }
            self.digits += 1;
            self.group += 1;
            self.bytes += 1;
            self.is_behind_separator = false;
            let is_none = self.digits > 19 || self.digits == 4 && !Self::may_begin(self.prefix);
            return if is_none { self.over() } else { Verdict::More };
        }
        if self.is_behind_separator {
            return self.over();
        }
        // The last digit counts once, so that every other one from the one before it on counts twice.
        let is_card =
            Self::is_issued(self.prefix, self.digits) && self.sums[usize::from(self.digits % 2)] == 0;
        let ends = !WORD[usize::from(byte)] || byte == b'.';
        if is_card && ends {
            self.secret = self.bytes;
        }
        if matches!(byte, b' ' | b'-') && (4..=6).contains(&self.group) {
            self.is_behind_separator = true;
            self.group = 0;
            self.bytes += 1;
            if self.second == 0 {
                self.second = self.bytes;
            }
            return Verdict::More;
        }
        self.over()
    }

    const fn over(&self) -> Verdict {
        Verdict::Over(self.secret, if self.secret > 0 { self.secret } else { self.second })
    }
}

impl State {
    fn take(&mut self, byte: u8) -> Verdict {
        match self {
            Self::Card(card) => card.take(byte),
            Self::Key(letters) if KEY[usize::from(byte)] => {
                *letters += 1;
                if *letters < AWS_LETTERS { Verdict::More } else { Verdict::Secret(&KEY) }
            }
            Self::Plain | Self::Secret(_) | Self::Key(_) => Verdict::Over(0, 0),
        }
    }
}

/// Digits that cards begin with, and the last letters of the beginnings above.
#[expect(clippy::needless_bitwise_bool, reason = "branches would be in the way of comparing a block at once")]
fn is_beginning(byte: u8) -> bool {
    (byte.wrapping_sub(b'2') < 5) | (byte == b'J') | (byte == b'A')
}

/// Two of the letters above.
const LETTERS: Pairs = Pairs::new([(b"y", b"J"), (b"I", b"A")]);

/// Whether there are two of these, or behind a byte digits as a card has them: at least four, perhaps two more, perhaps a separator,
/// and at least four more. A few of them are looked at.
#[derive(Clone, Copy)]
struct MayMatter;

impl Test for MayMatter {
    #[inline(always)]
    fn passes<S: Simd>(self, simd: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
        let (bytes, next) = (ahead(0), ahead(1));
        let is_digit = |bytes: S::u8s| (bytes - b'0').simd_lt(10);
        LETTERS.begin(simd, bytes, next)
            | !is_digit(bytes)
                & (next - b'2').simd_lt(5)
                & is_digit(ahead(2))
                & is_digit(ahead(4))
                & is_digit(ahead(8))
    }
}

impl TokenMask {
    pub(super) const fn new() -> Self {
        Self { state: State::Plain, before: [b' '; REMEMBERED], held: Held::new() }
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        self.held.bytes.len()
    }

    /// Nothing follows.
    pub(super) fn end(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        let secret = match self.state.take(b'\n') {
            Verdict::Over(secret, _) => secret,
            Verdict::More | Verdict::Secret(_) => 0,
        };
        self.held.release_partly(secret, out);
        self.forget();
    }

    /// Nobody knows what follows: what waits may be the beginning of a secret.
    pub(super) fn gap(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        self.held.release(true, out);
        self.forget();
    }

    fn forget(&mut self) {
        self.state = State::Plain;
        self.before = [b' '; REMEMBERED];
    }

    pub(super) fn take(&mut self, chunk: Chunk<'_>, out: &mut dyn FnMut(Chunk<'_>)) {
        match chunk {
            Chunk::Bytes { position, time, data } => self.bytes(data, &mut Writer { position, time, out }),
            Chunk::Gap { .. } => {
                self.gap(out);
                out(chunk);
            }
        }
    }

    fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        // What lies before this was handed on; what may be a secret begins there, or in what is held.
        let mut written = 0;
        let mut begin = 0;
        let mut next = 0;
        while next < data.len() {
            match self.state {
                State::Plain => {
                    let Some(at) = self.next_beginning(data, next) else { break };
                    self.state = self.begins(data, at);
                    next = match self.state {
                        State::Card(_) => at,
                        State::Plain if data[at].is_ascii_digit() => {
                            // No secret begins in the middle of a word.
                            let rest = &data[at..];
                            at + rest.iter().position(|byte| !WORD[usize::from(*byte)]).unwrap_or(rest.len())
                        }
                        _ => at + 1,
                    };
                    begin = next;
                }
                State::Secret(letters) => {
                    let rest = &data[next..];
                    let end = rest.iter().position(|byte| !letters[usize::from(*byte)]).unwrap_or(rest.len());
                    writer.write(&data[written..next], false);
                    writer.write(&rest[..end], true);
                    next += end;
                    written = next;
                    if next < data.len() {
                        self.state = State::Plain;
                    }
                }
                State::Key(_) | State::Card(_) => match self.state.take(data[next]) {
                    Verdict::More => next += 1,
                    Verdict::Over(secret, resume) => {
                        self.state = State::Plain;
                        let held = self.held.bytes.len();
                        if resume > 0 && resume < held {
                            // What is held, from there on, is looked at again, and then this chunk.
                            self.look_again(secret, resume, writer.out);
                            (begin, next) = (0, 0);
                            continue;
                        }
                        self.held.release_partly(secret, writer.out);
                        if let Some(here) = secret.checked_sub(held).filter(|here| *here > 0) {
                            writer.write(&data[written..begin], false);
                            writer.write(&data[begin..begin + here], true);
                            written = begin + here;
                        }
                        if resume > 0 {
                            next = begin + resume - held;
                        }
                    }
                    Verdict::Secret(letters) => {
                        self.state = State::Secret(letters);
                        self.held.release(true, writer.out);
                        writer.write(&data[written..begin], false);
                        writer.write(&data[begin..=next], true);
                        next += 1;
                        written = next;
                    }
                },
            }
        }
        if matches!(self.state, State::Key(_) | State::Card(_)) {
            writer.write(&data[written..begin], false);
            self.held.keep(&data[begin..], writer);
        } else {
            writer.write(&data[written..], false);
        }
        let kept = data.len().min(REMEMBERED);
        self.before.rotate_left(kept);
        self.before[REMEMBERED - kept..].copy_from_slice(&data[data.len() - kept..]);
    }

    /// Hands on what is held up to a place, and looks anew at what is behind it.
    fn look_again(&mut self, secret: usize, resume: usize, out: &mut dyn FnMut(Chunk<'_>)) {
        let rest = self.held.bytes.split_off(resume);
        let position = self.held.position.saturating_add(resume as u64);
        let time = self.held.time;
        self.held.release_partly(secret, out);
        self.before = [b' '; REMEMBERED];
        self.bytes(&rest, &mut Writer { position, time, out });
    }

    /// Where, from here on, something may begin: at the first digit of a card, or behind these letters.
    fn next_beginning(&self, data: &[u8], from: usize) -> Option<usize> {
        // In a few bytes there is often nothing at all, which is seen at once.
        let from = if data.len() - from < LEAST_SCANNED { first(data, from, is_beginning)? } else { from };
        // What is before the chunk is looked at by itself.
        if from == 0 && is_beginning(data[0]) {
            return Some(0);
        }
        scan::find(data, from.saturating_sub(1), b'0', MayMatter, |before| {
            let at = before + 1;
            let begins = (from..data.len()).contains(&at)
                && match self.begins(data, at) {
                    State::Card(_) => Card::may_be(&data[at..]),
                    State::Plain => false,
                    State::Secret(_) | State::Key(_) => true,
                };
            begins.then_some(at)
        })
    }

    /// What begins at a byte that matters, or behind it.
    fn begins(&self, data: &[u8], at: usize) -> State {
        match data[at] {
            b'J' if self.is_behind(data, at, WEB_TOKEN) => State::Secret(&TOKEN),
            b'A' if AWS_KEYS.iter().any(|key| self.is_behind(data, at, key)) => State::Key(0),
            // No card begins with another.
            b'2'..=b'6' if !WORD[usize::from(self.byte(data, at, 1))] => State::Card(Card::default()),
            _ => State::Plain,
        }
    }

    /// Whether a word that begins so ends here, for now.
    fn is_behind(&self, data: &[u8], at: usize, beginning: &[u8]) -> bool {
        let length = beginning.len();
        let is_same = (0..length).all(|index| self.byte(data, at, length - 1 - index) == beginning[index]);
        is_same && !WORD[usize::from(self.byte(data, at, length))]
    }

    /// The byte so many places before one of the chunk.
    fn byte(&self, data: &[u8], at: usize, back: usize) -> u8 {
        match at.checked_sub(back) {
            Some(index) => data[index],
            None => self.before[REMEMBERED + at - back],
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::Monotonic;

    use super::*;

    /// What comes out of text that comes in pieces which end at these places.
    fn masked(text: &str, ends: &[usize]) -> String {
        let mut mask = TokenMask::new();
        let mut out = Vec::new();
        let mut start = 0;
        {
            let mut take = |chunk: Chunk<'_>| {
                assert_eq!(chunk.position(), out.len() as u64, "out of order");
                out.extend_from_slice(chunk.bytes().expect("there are no gaps"));
            };
            for end in ends.iter().copied().chain([text.len()]) {
                let data = &text.as_bytes()[start..end];
                mask.take(Chunk::Bytes { position: start as u64, time: Monotonic(0), data }, &mut take);
                start = end;
            }
            mask.end(&mut take);
        }
        String::from_utf8(out).expect("letters")
    }

    #[test]
    fn what_has_the_form_of_a_secret_is_masked_wherever_chunks_are_cut() {
        let cases = [
            ("a eyJhbGciOi.eyJz-_.x, b", "a eyJ****************, b"),
            ("\"eyJ0\" keyJ0", "\"eyJ*\" keyJ0"),
            ("AKIAIOSFODNN7EXAMPLE!", "AKIA****************!"),
            ("ASIAN ASIA AKIAABC xAKIAIOSFODNN7EXAMPLE", "ASIAN ASIA AKIAABC xAKIAIOSFODNN7EXAMPLE"),
            ("{\"n\":4111111111111111}", "{\"n\":****************}"),
            ("4111 1111 1111 1111, 5555-5555-5555-4444", "*******************, *******************"),
            ("378282246310005 3782 822463 10005.", "*************** *****************."),
            ("4111 1111 1111 1111 5", "******************* 5"),
            ("4111 1111 1111 1111 5555 5555 5555 4444 4000", "******************* ******************* 4000"),
            ("4000 4111111111111111", "4000 ****************"),
            ("4000 5555 4111 1111 1111 1111 x", "4000 5555 ******************* x"),
            ("2024 4111111111111111", "2024 ****************"),
            (
                "4111111111111112 4111111111111111x 41111111111111110000",
                "4111111111111112 4111111111111111x 41111111111111110000",
            ),
            ("0.4111111111111111 1732232030123456789 12345", "0.4111111111111111 1732232030123456789 12345"),
            ("3.14 42", "3.14 42"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text, &[]), expected);
            for cut in 0..text.len() {
                assert_eq!(masked(text, &[cut]), expected, "cut at {cut}");
            }
            let everywhere: Vec<usize> = (0..text.len()).collect();
            assert_eq!(masked(text, &everywhere), expected);
        }
    }

    #[test]
    fn what_may_be_a_card_is_masked_where_the_rest_is_missing() {
        let mut mask = TokenMask::new();
        let mut shown = String::new();
        let data = b"card 4111 1111 11";
        mask.take(Chunk::Bytes { position: 0, time: Monotonic(0), data }, &mut |_| {});
        assert_eq!(mask.waiting(), 12);
        let gap = Chunk::Gap { position: 17, time: Monotonic(0), length: 5, reason: crate::GapReason::Lost };
        mask.take(gap, &mut |chunk| match chunk.bytes() {
            Some(bytes) => shown.push_str(std::str::from_utf8(bytes).expect("letters")),
            None => shown.push('_'),
        });
        assert_eq!(shown, "************_");
    }
}
