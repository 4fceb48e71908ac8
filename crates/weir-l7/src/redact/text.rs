//! [`TextMask`]: secrets in lines of text, wherever they stand in a message.
//!
//! It knows nothing of where messages begin and end, so that nothing can lead it astray: headers are looked for in every line,
//! keys and values in every query, form and JSON text, and authorities with a user wherever `://` stands.

use weir_flow::Monotonic;

use super::{
    BehindGap, Writer,
    names::{Word, is_secret_header, is_secret_in_json, is_secret_in_query},
};
use crate::Chunk;

/// Most bytes of an authority that wait to be known. More are masked.
const MOST_HELD: usize = 512;

/// Bytes with which something may begin that matters: lines, keys, authorities. Most bytes are others, and are passed over
/// quickly.
const BEGINS: [bool; 256] = {
    let mut begins = [false; 256];
    let mut index = 0;
    let all = b"\n:?&\"";
    while index < all.len() {
        begins[all[index] as usize] = true;
        index += 1;
    }
    begins
};

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

/// Bytes that are not handed on yet.
#[derive(Debug)]
struct Held {
    position: u64,
    time: Monotonic,
    bytes: Vec<u8>,
}

impl Held {
    fn release(&mut self, is_secret: bool, out: &mut dyn FnMut(Chunk<'_>)) {
        let mut writer = Writer { position: self.position, time: self.time, out };
        writer.write(&self.bytes, is_secret);
        self.bytes.clear();
    }
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
            held: Held { position: 0, time: Monotonic(0), bytes: Vec::new() },
        }
    }

    /// The other side spoke: what this one says next is the beginning of something.
    pub(super) fn others_turn(&mut self) {
        if matches!(self.state, State::Unknown(_)) {
            self.line_start();
            self.is_folded = false;
        }
    }

    pub(super) fn gap(&mut self, behind: BehindGap, out: &mut dyn FnMut(Chunk<'_>)) {
        self.held.release(true, out);
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

    pub(super) fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        let mut run = 0;
        let mut is_run_secret = false;
        let mut next = 0;
        while let Some(byte) = data.get(next) {
            let index = next;
            next += 1;
            if self.is_passing() {
                let rest = &data[index..];
                let skipped = rest.iter().position(|byte| BEGINS[usize::from(*byte)]).unwrap_or(rest.len());
                if skipped > 0 {
                    if is_run_secret {
                        writer.write(&data[run..index], true);
                        (run, is_run_secret) = (index, false);
                    }
                    next = index + skipped;
                    continue;
                }
            }
            let was_held = self.state == State::Authority;
            let is_secret = self.take(*byte);
            let is_held = self.state == State::Authority && was_held && *byte != b'@';
            if is_held {
                // What stands before it goes out first.
                writer.write(&data[run..index], is_run_secret);
                if self.held.bytes.is_empty() {
                    (self.held.position, self.held.time) = (writer.position, writer.time);
                }
                self.held.bytes.push(*byte);
                writer.skip(1);
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

    /// Whether nothing matters up to a byte of [`BEGINS`]: the word that is being read cannot be a name.
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
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => self.word.push(byte),
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
