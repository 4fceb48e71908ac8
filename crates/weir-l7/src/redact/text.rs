//! [`TextMask`]: secrets in lines of text, wherever they stand in a message.
//!
//! It knows nothing of where messages begin and end unless it is told, so that nothing can lead it astray: headers are looked for in
//! every line, keys and values in every query, form and JSON text (be it a string within another), and authorities with a user
//! wherever `://` stands.

mod pass;
mod value;

use super::{
    BehindGap, Held, Writer,
    form::{Form, Parts},
    json::Quotes,
    names::{PART_HEADER, Word, is_letter, is_secret_header, is_secret_in_json, is_secret_in_query},
};
use crate::{
    Chunk,
    detect::{begins_http, may_begin_http},
};

/// Most bytes that wait to be known: of an authority, or of a line that may end a part of a form. More are masked.
const MOST_HELD: usize = 512;

/// Fewer bytes than this are taken one by one.
const LEAST_PASSED: usize = 32;

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
    /// Of a form in parts, where in it this is.
    parts: Parts,
    /// Of the present string of JSON, how its quotes are written.
    quotes: Quotes,
    held: Held,
    /// Who spoke last.
    last: Speaker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    This,
    /// So the next byte may begin a message.
    Other,
    /// A message of this one is over.
    Ended,
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
    /// A key of JSON was read, within a string: its quote comes.
    JsonKeyEnd,
    /// A key of JSON was read: a colon comes, then the value.
    JsonColon,
    JsonValue,
    JsonString,
    /// A value of JSON that is no string.
    JsonWord,
    /// The value of a part of a form.
    Part,
    /// The same at the beginning of a line, which may be the end of the part.
    PartLine,
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
    /// `name=` in the head of a part of a form.
    PartName,
    /// The same and a quote.
    PartQuote,
    Other,
}

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Plain,
    Secret,
    /// What follows tells.
    Held,
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
            parts: Parts::new(),
            quotes: Quotes::new(),
            held: Held::new(),
            last: Speaker::This,
        }
    }

    /// By its length the message is over.
    pub(super) fn message_ended(&mut self) {
        self.last = Speaker::Ended;
    }

    /// The other side spoke: what this one says next may be the beginning of something.
    pub(super) fn others_turn(&mut self) {
        if self.last == Speaker::This {
            self.last = Speaker::Other;
        }
    }

    /// A message is over, or its body is: what comes next begins a line.
    pub(super) fn begin_anew(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        self.end(out);
        self.line_start();
        self.is_folded = false;
        self.parts = Parts::new();
    }

    pub(super) fn gap(&mut self, behind: BehindGap, out: &mut dyn FnMut(Chunk<'_>)) {
        self.held.release(true, out);
        self.last = Speaker::This;
        if self.before == Before::LineStart && self.is_name {
            self.parts.line(&self.word);
        }
        self.line_start();
        self.state = match behind {
            BehindGap::Body(0) => return self.begin_anew(out),
            // Within a form this may be any part of it, and no gap ends one.
            _ if self.parts.has_begun() => State::Part,
            BehindGap::Body(left) => State::Unknown(left),
            BehindGap::Unknown => State::Unknown(u64::MAX),
        };
        self.not_a_name(Before::Other);
        self.is_folded = true;
        self.parts.form = Form::None;
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
        let is_open = matches!(self.state, State::Unknown(_) | State::Part | State::PartLine);
        let is_new = match last {
            Speaker::This => false,
            Speaker::Other => is_open && begins_http(data),
            // Should the message not be over after all, it goes on with anything, too.
            Speaker::Ended => may_begin_http(data),
        };
        if is_new {
            self.begin_anew(writer.out);
        }
        let mut run = 0;
        let mut is_run_secret = false;
        let mut next = 0;
        // Up to here it is known that nothing matters.
        let mut settled = 0;
        while let Some(byte) = data.get(next) {
            let index = next;
            if data.len() - index >= LEAST_PASSED && index >= settled && self.is_harmless() {
                (next, settled) = self.pass_over(data, index);
            }
            if next == index && self.state == State::Plain && is_letter(*byte) {
                let rest = &data[index..];
                let letters = rest.iter().position(|byte| !is_letter(*byte)).unwrap_or(rest.len());
                self.letters(&rest[..letters]);
                next = index + letters;
            }
            if next > index {
                if is_run_secret {
                    writer.write(&data[run..index], true);
                    (run, is_run_secret) = (index, false);
                }
                continue;
            }
            next += 1;
            let verdict = self.take(*byte);
            if verdict == Verdict::Held {
                // What stands before it goes out first.
                writer.write(&data[run..index], is_run_secret);
                self.held.keep(&[*byte], writer);
                (run, is_run_secret) = (index + 1, false);
                if self.held.bytes.len() >= MOST_HELD {
                    self.held.release(true, writer.out);
                    self.state =
                        if self.state == State::Authority { State::LongAuthority } else { State::Part };
                }
                continue;
            }
            if !self.held.bytes.is_empty() {
                self.held.release(self.held.is_secret, writer.out);
            }
            let is_secret = verdict == Verdict::Secret;
            if is_secret != is_run_secret {
                writer.write(&data[run..index], is_run_secret);
                (run, is_run_secret) = (index, is_secret);
            }
        }
        writer.write(&data[run..], is_run_secret);
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
        self.is_folded &= self.before != Before::LineStart;
        self.scheme = 0;
        self.word.extend(letters);
    }

    /// A byte that is no secret itself, whatever it begins.
    fn plain(&mut self, byte: u8) -> Verdict {
        self.state = State::Plain;
        let is_at_start = self.before == Before::LineStart && self.word.is_empty();
        if matches!(byte, b'\r' | b'\n') {
            self.line_end(byte, is_at_start);
            return Verdict::Plain;
        }
        if is_at_start && matches!(byte, b' ' | b'\t') && self.is_folded {
            self.state = State::Line;
            return Verdict::Plain;
        }
        // Half an end of a line leaves it open what the next one is.
        self.is_folded &= !is_at_start;
        self.scheme = match (self.scheme, byte) {
            (_, b':') => 1,
            (1, b'/') => 2,
            (2, b'/') => {
                self.begin_word(Before::Other);
                self.state = State::Authority;
                return Verdict::Plain;
            }
            _ => 0,
        };
        match byte {
            _ if is_letter(byte) => self.word.push(byte),
            b':' if self.is_name && self.before == Before::LineStart => {
                self.is_name = false;
                if is_secret_header(self.word.as_bytes()) {
                    self.state = State::HeaderStart;
                } else if self.word.as_str() == PART_HEADER {
                    self.parts.form = Form::Head;
                }
                self.word.clear();
                self.before = Before::Other;
            }
            b'=' => {
                let is_part = self.parts.form == Form::Head && self.word.as_str() == "name";
                if matches!(self.before, Before::Separator | Before::LineStart)
                    && is_secret_in_query(self.word.as_bytes())
                {
                    self.state = State::Query;
                }
                self.not_a_name(if is_part { Before::PartName } else { Before::Other });
            }
            b'?' | b'&' => self.not_a_name(Before::Separator),
            b'"' => match self.before {
                Before::PartName if self.word.is_empty() => self.not_a_name(Before::PartQuote),
                Before::PartQuote => {
                    self.parts.named(is_secret_in_query(self.word.as_bytes()));
                    self.not_a_name(Before::Other);
                }
                Before::Quote if is_secret_in_json(self.word.as_bytes()) => {
                    self.state = State::JsonColon;
                    self.quotes = Quotes::new();
                    self.not_a_name(Before::Other);
                }
                _ => self.not_a_name(Before::Quote),
            },
            b'\\' if self.before == Before::Quote && is_secret_in_json(self.word.as_bytes()) => {
                self.state = State::JsonKeyEnd;
                self.quotes = Quotes::new();
                self.quotes.backslash();
                self.not_a_name(Before::Other);
            }
            // Keys of forms may have others within them: `user[password]`, and the same as it is written in a query.
            b'[' | b']' | b'%' if self.before != Before::Quote && self.before != Before::Other => {
                self.word.push(byte);
            }
            b' ' if self.has_commands
                && self.before == Before::LineStart
                && matches!(self.word.as_bytes(), b"auth" | b"pass") =>
            {
                self.state = State::HeaderStart;
                self.not_a_name(Before::Other);
            }
            // Some take a name for one in spite of spaces between it and the colon.
            b' ' | b'\t' if self.is_name && !self.word.is_empty() => {}
            _ => {
                if self.before == Before::PartName {
                    // A name without quotes.
                    self.parts.named(is_secret_in_query(self.word.as_bytes()));
                }
                self.not_a_name(Before::Other);
            }
        }
        Verdict::Plain
    }

    /// The end of a line, or its first half.
    fn line_end(&mut self, byte: u8, is_empty: bool) {
        match self.before {
            Before::LineStart if self.is_name && !is_empty => self.parts.line(&self.word),
            Before::PartName => self.parts.named(is_secret_in_query(self.word.as_bytes())),
            _ => {}
        }
        self.scheme = 0;
        if byte == b'\n' {
            self.line_start();
            if self.parts.line_is_over(is_empty) {
                self.state = State::PartLine;
            }
        } else if !is_empty {
            self.not_a_name(Before::Other);
        }
    }

    fn not_a_name(&mut self, before: Before) {
        self.is_name = false;
        let scheme = self.scheme;
        self.begin_word(before);
        self.scheme = scheme;
    }
}
