//! [`TextMask`]: secrets in lines of text, wherever they stand in a message.
//!
//! It knows nothing of where messages begin and end, so that nothing can lead it astray: headers are looked for in every line,
//! keys and values in every query, form and JSON text, and authorities with a user wherever `://` stands.

use super::{
    BehindGap, Held, Writer, first,
    names::{Word, is_secret_header, is_secret_in_json, is_secret_in_query, may_be_secret},
    table,
};
use crate::{Chunk, detect::begins_http};

/// Most bytes of an authority that wait to be known. More are masked.
const MOST_HELD: usize = 512;

/// Bytes of which words are made.
const LETTERS: [bool; 256] = table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");

/// One side of a connection.
#[derive(Debug)]
pub(super) struct TextMask {
    state: State,
    /// The word that is being read: a name, perhaps.
    word: Word,
    /// What stood in front of it.
    before: Before,
    /// How much of `://` was read.
    scheme: u8,
    /// Whether the line so far is a name of a header.
    is_name: bool,
    /// Whether a line that begins with a space goes on with a secret.
    is_folded: bool,
    /// Whether `AUTH` and `PASS` at the beginning of a line are commands.
    has_commands: bool,
    held: Held,
    /// Who spoke last, behind a gap.
    last: Speaker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    This,
    /// So the next byte may begin a message.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// The value of a header, before its first letter.
    HeaderStart,
    /// The rest of a line.
    Line,
    /// The value of a query or a form.
    Query,
    /// A key of JSON was read: a colon comes, then the value.
    JsonColon,
    JsonValue,
    JsonString,
    /// Behind a backslash.
    JsonEscape,
    /// A value of JSON that is no string.
    JsonWord,
    /// What may be a user and a password.
    Authority,
    /// The same, when it is too long to wait.
    LongAuthority,
    /// Behind a gap; the number is how many bytes of a body are left.
    Unknown(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    LineStart,
    /// `?` or `&`.
    Separator,
    Quote,
    Other,
}

impl TextMask {
    pub(super) const fn new(has_commands: bool, is_joined: bool) -> Self {
        Self {
            state: if is_joined { State::Unknown(u64::MAX) } else { State::Plain },
            word: Word::new(),
            before: Before::LineStart,
            scheme: 0,
            is_name: true,
            is_folded: false,
            has_commands,
            held: Held::new(),
            last: Speaker::This,
        }
    }

    /// The other side spoke: what this one says next may be the beginning of something.
    pub(super) fn others_turn(&mut self) {
        self.last = Speaker::Other;
    }

    pub(super) fn gap(&mut self, behind: BehindGap, out: &mut dyn FnMut(Chunk<'_>)) {
        self.held.release(true, out);
        self.last = Speaker::This;
        self.state = match behind {
            BehindGap::Body(0) => State::Plain,
            BehindGap::Body(left) => State::Unknown(left),
            BehindGap::Unknown => State::Unknown(u64::MAX),
        };
        if self.state == State::Plain {
            self.line_start();
        }
        self.is_folded = self.state != State::Plain;
    }

    pub(super) fn end(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        self.held.release(true, out);
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        self.held.bytes.len()
    }

    pub(super) fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        // The other side may also speak in the middle of what this one says. Then it goes on with anything.
        let last = std::mem::replace(&mut self.last, Speaker::This);
        if last == Speaker::Other && matches!(self.state, State::Unknown(_)) && begins_http(data) {
            self.line_start();
            self.is_folded = false;
        }
        let mut run = 0;
        let mut is_run_secret = false;
        let mut next = 0;
        while let Some(byte) = data.get(next) {
            let index = next;
            next += 1;
            if self.is_passing() {
                let end = self.pass_over(data, index);
                if end > index {
                    if is_run_secret {
                        writer.write(&data[run..index], true);
                        (run, is_run_secret) = (index, false);
                    }
                    next = end;
                    continue;
                }
            } else if self.state == State::Plain && LETTERS[usize::from(*byte)] {
                let rest = &data[index..];
                let letters = rest.iter().position(|byte| !LETTERS[usize::from(*byte)]).unwrap_or(rest.len());
                if is_run_secret {
                    writer.write(&data[run..index], true);
                    (run, is_run_secret) = (index, false);
                }
                self.letters(&rest[..letters]);
                next = index + letters;
                continue;
            }
            let was_held = self.state == State::Authority;
            let is_secret = self.take(*byte);
            let is_held = self.state == State::Authority && was_held && *byte != b'@';
            if is_held {
                // What stands before it goes out first.
                writer.write(&data[run..index], is_run_secret);
                self.held.keep(&[*byte], writer);
                (run, is_run_secret) = (index + 1, false);
                if self.held.bytes.len() >= MOST_HELD {
                    self.held.release(true, writer.out);
                    self.state = State::LongAuthority;
                }
                continue;
            }
            if was_held && !self.held.bytes.is_empty() {
                self.held.release(*byte == b'@', writer.out);
            }
            if is_secret != is_run_secret {
                writer.write(&data[run..index], is_run_secret);
                (run, is_run_secret) = (index, is_secret);
            }
        }
        writer.write(&data[run..], is_run_secret);
    }

    /// Where, from here on, something begins that matters, and cannot be told to be harmless at a glance. Nearly everything
    /// is passed over by this, and nothing of it is looked at twice.
    fn pass_over(&mut self, data: &[u8], from: usize) -> usize {
        let mut next = from;
        loop {
            let Some(at) = first(data, next, |byte| matches!(byte, b'\n' | b':' | b'?' | b'&' | b'"')) else {
                return data.len();
            };
            match (data[at], data.get(at + 1)) {
                // The colon of an authority has slashes behind it; the one of a header comes before anything is passed over.
                (b':', Some(behind)) if *behind != b'/' => next = at + 1,
                (b'"', Some(_)) => {
                    let begin = at + 1;
                    let Some(length) = data[begin..].iter().position(|byte| !LETTERS[usize::from(*byte)])
                    else {
                        return at;
                    };
                    let end = begin + length;
                    if data[end] == b'"' {
                        if may_be_secret(&data[begin..end]) {
                            return at;
                        }
                        match data.get(end + 1) {
                            Some(behind) if *behind != b'"' && !LETTERS[usize::from(*behind)] => {
                                next = end + 1;
                            }
                            _ => {
                                // The quote that ends one word may begin another.
                                self.not_a_name(Before::Quote);
                                return end + 1;
                            }
                        }
                    } else {
                        // It goes on, so it is no name.
                        next = end;
                    }
                }
                _ => return at,
            }
        }
    }

    /// Whether nothing matters before one of a few bytes: the word that is being read cannot be a name.
    fn is_passing(&self) -> bool {
        self.state == State::Plain && self.before == Before::Other && !self.is_name && self.scheme == 0
    }

    /// Takes a byte; gives back whether it is a part of a secret. Of an authority that is not known yet.
    fn take(&mut self, byte: u8) -> bool {
        let is_control = byte < b' ' && byte != b'\t';
        match self.state {
            State::Plain => {
                self.plain(byte);
                false
            }
            State::HeaderStart if matches!(byte, b' ' | b'\t') => false,
            State::HeaderStart | State::Line if matches!(byte, b'\r' | b'\n') => {
                self.is_folded = true;
                self.plain(byte);
                false
            }
            State::HeaderStart => {
                self.state = State::Line;
                true
            }
            State::Line => true,
            State::Query | State::JsonWord => {
                let ends = match self.state {
                    State::Query => matches!(byte, b'&' | b' ' | b'"' | b'<' | b'>' | b'#'),
                    _ => matches!(byte, b',' | b'}' | b']' | b' '),
                };
                if ends || is_control || byte == b'\t' {
                    self.plain(byte);
                    return false;
                }
                true
            }
            State::JsonColon | State::JsonValue => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => false,
                b':' if self.state == State::JsonColon => {
                    self.state = State::JsonValue;
                    false
                }
                b'"' if self.state == State::JsonValue => {
                    self.state = State::JsonString;
                    false
                }
                _ if self.state == State::JsonColon || matches!(byte, b'{' | b'[' | b',' | b'}') => {
                    self.plain(byte);
                    false
                }
                _ => {
                    self.state = State::JsonWord;
                    true
                }
            },
            State::JsonString => match byte {
                b'"' => {
                    self.begin_word(Before::Other);
                    self.state = State::Plain;
                    false
                }
                b'\\' => {
                    self.state = State::JsonEscape;
                    true
                }
                // No string goes on in the next line.
                _ if is_control => {
                    self.plain(byte);
                    false
                }
                _ => true,
            },
            State::JsonEscape => {
                self.state = State::JsonString;
                true
            }
            State::Authority | State::LongAuthority => {
                if byte == b'@' {
                    // There may be another one.
                    self.state = State::Authority;
                    return false;
                }
                if is_control
                    || matches!(byte, b'/' | b'?' | b'#' | b' ' | b'\t' | b'"' | b'\'' | b'<' | b'>' | b'\\')
                {
                    self.plain(byte);
                    return false;
                }
                self.state == State::LongAuthority
            }
            State::Unknown(left) => {
                if is_control {
                    self.plain(byte);
                    return false;
                }
                self.state = State::Unknown(left - 1);
                if left <= 1 {
                    self.line_start();
                    self.is_folded = false;
                }
                true
            }
        }
    }

    fn begin_word(&mut self, before: Before) {
        self.word.clear();
        self.before = before;
        self.scheme = 0;
    }

    fn line_start(&mut self) {
        self.state = State::Plain;
        self.is_name = true;
        self.begin_word(Before::LineStart);
    }

    /// Letters of a word, outside of secrets.
    fn letters(&mut self, letters: &[u8]) {
        self.is_folded = false;
        self.scheme = 0;
        self.word.extend(letters);
    }

    /// A byte that is no secret itself.
    fn plain(&mut self, byte: u8) {
        self.state = State::Plain;
        let is_at_start = self.before == Before::LineStart && self.word.is_empty();
        if byte == b'\n' {
            return self.line_start();
        }
        if is_at_start && matches!(byte, b' ' | b'\t') && self.is_folded {
            self.state = State::Line;
            return;
        }
        if byte != b'\r' {
            self.is_folded = false;
        }
        self.scheme = match (self.scheme, byte) {
            (_, b':') => 1,
            (1, b'/') => 2,
            (2, b'/') => {
                self.begin_word(Before::Other);
                self.state = State::Authority;
                return;
            }
            _ => 0,
        };
        match byte {
            _ if LETTERS[usize::from(byte)] => self.word.push(byte),
            b':' if self.is_name && self.before == Before::LineStart => {
                self.is_name = false;
                if is_secret_header(self.word.as_str()) {
                    self.state = State::HeaderStart;
                }
                self.word.clear();
                self.before = Before::Other;
            }
            b'=' => {
                if matches!(self.before, Before::Separator | Before::LineStart)
                    && is_secret_in_query(self.word.as_str())
                {
                    self.state = State::Query;
                }
                self.not_a_name(Before::Other);
            }
            b'?' | b'&' => self.not_a_name(Before::Separator),
            b'"' => {
                if self.before == Before::Quote && is_secret_in_json(self.word.as_str()) {
                    self.state = State::JsonColon;
                    self.not_a_name(Before::Other);
                } else {
                    self.not_a_name(Before::Quote);
                }
            }
            b' ' if self.has_commands
                && self.before == Before::LineStart
                && matches!(self.word.as_str(), "auth" | "pass") =>
            {
                self.state = State::HeaderStart;
                self.not_a_name(Before::Other);
            }
            // Some take a name for one in spite of spaces between it and the colon.
            b' ' | b'\t' if self.is_name && !self.word.is_empty() => {}
            _ => self.not_a_name(Before::Other),
        }
    }

    fn not_a_name(&mut self, before: Before) {
        self.is_name = false;
        let scheme = self.scheme;
        self.begin_word(before);
        self.scheme = scheme;
    }
}
