//! [`Reader`]: values of RESP2 and RESP3 in one direction (the Redis serialization protocol), and inline commands.
//!
//! It copies nothing. Values of streamed length, which no server sends, are not known.

use crate::{
    Part,
    sides::{Direction, Standing},
};

/// Most lists within lists that are followed.
const MOST_DEPTH: usize = 16;

/// Most bytes of a string; servers allow 512 MiB unless told otherwise.
const MOST_BYTES: u64 = 8 << 30;

/// Most elements of a list.
const MOST_ELEMENTS: u64 = 1 << 32;

/// Most bytes of a line, which is an inline command, a short string or an error.
const MOST_LINE: u64 = 64 << 10;

/// What stands in place of the type of an inline command.
pub(crate) const INLINE: u8 = b'i';

/// What comes next. Types are those of the protocol, by their letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'d> {
    /// A value begins with the next byte, which is in no other value.
    Began,
    /// A value that is no list, of this type. Its text follows, if it has any.
    Scalar(u8),
    /// A piece of the text of the scalar.
    Text(&'d [u8]),
    /// A list, a set, a map or a push of so many elements (of a map, pairs) at this depth.
    List(u8, u64),
    /// The value that began is over.
    Ended,
    /// Bytes that belong to no value.
    Skipped,
    /// It breaks the rules, or goes beyond the limits; nothing is known until [`Direction::find_again`].
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The type of a value comes.
    Type,
    /// The type of a top-level value was announced by [`Step::Began`] and comes.
    Announced,
    /// The number behind a type comes.
    Number {
        of: u8,
        value: u64,
        is_negative: bool,
        digits: u8,
    },
    /// A line comes, of which so many bytes were there.
    Line {
        read: u64,
    },
    Bulk {
        left: u64,
    },
    /// CR and LF come.
    BulkEnd,
    /// A value has ended.
    Finished,
    Opaque,
    Lost,
}

/// Elements that are still to come of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    left: u64,
    /// It is no value itself, but says something of the one that follows.
    is_attribute: bool,
}

/// Reads one direction.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Who speaks: clients say lists of strings, or lines, and servers anything.
    part: Part,
    state: State,
    levels: Vec<Level>,
    /// Whether lines are taken for commands. After a gap they are not: almost anything is a line.
    allows_inline: bool,
}

impl Reader {
    /// How many lists the present value is in.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Whether the present value says something of another one, and is none itself.
    pub(crate) fn is_in_attribute(&self) -> bool {
        self.levels.iter().any(|level| level.is_attribute)
    }

    fn broken<'d>(&mut self) -> Step<'d> {
        self.lose();
        Step::Broken
    }

    /// Reads the type of a value.
    fn begin<'d>(&mut self, of: u8, data: &mut &'d [u8]) -> Option<Step<'d>> {
        let is_top = self.levels.is_empty();
        let is_allowed = match self.part {
            Part::Server => b"+-:$*_#,(!=%~>|".contains(&of),
            Part::Client => of == if is_top { b'*' } else { b'$' },
        };
        if !is_allowed {
            let is_inline = self.part == Part::Client && is_top && self.allows_inline;
            if !is_inline {
                return Some(self.broken());
            }
            // The letter belongs to the command.
            self.state = State::Line { read: 0 };
            return Some(Step::Scalar(INLINE));
        }
        *data = &data[1..];
        self.state = match of {
            b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' => {
                State::Number { of, value: 0, is_negative: false, digits: 0 }
            }
            _ => {
                self.state = State::Line { read: 0 };
                return Some(Step::Scalar(of));
            }
        };
        None
    }

    /// The number behind a type is whole.
    fn number<'d>(&mut self, of: u8, value: u64, is_negative: bool) -> Step<'d> {
        if is_negative && value != 1 {
            return self.broken();
        }
        // A length of -1 stands for nothing at all.
        let value = if is_negative { 0 } else { value };
        if matches!(of, b'$' | b'!' | b'=') {
            self.state = match value {
                _ if is_negative => State::Finished,
                0 => State::BulkEnd,
                1..=MOST_BYTES => State::Bulk { left: value },
                _ => return self.broken(),
            };
            return Step::Scalar(if is_negative { b'_' } else { of });
        }
        let is_attribute = of == b'|';
        let pairs = if matches!(of, b'%' | b'|') { 2 } else { 1 };
        if value > MOST_ELEMENTS || self.levels.len() >= MOST_DEPTH {
            return self.broken();
        }
        if value > 0 {
            self.levels.push(Level { left: value * pairs, is_attribute });
            self.state = State::Type;
        } else {
            self.state = if is_attribute { self.next() } else { State::Finished };
        }
        Step::List(if is_negative { b'_' } else { of }, value)
    }

    /// What is read after something that is no value.
    fn next(&self) -> State {
        if self.levels.is_empty() { State::Announced } else { State::Type }
    }

    /// A value has ended, and with it perhaps the list that it was the last of.
    fn finish<'d>(&mut self) -> Option<Step<'d>> {
        self.state = State::Type;
        loop {
            let Some(level) = self.levels.last_mut() else { return Some(Step::Ended) };
            level.left -= 1;
            if level.left > 0 {
                return None;
            }
            let was_attribute = level.is_attribute;
            self.levels.pop();
            if was_attribute {
                self.state = self.next();
                return None;
            }
        }
    }
}

impl Direction for Reader {
    type Step<'d> = Step<'d>;

    fn of(part: Part) -> Self {
        Self { part, state: State::Type, levels: Vec::new(), allows_inline: true }
    }

    fn standing(&self) -> Standing {
        match self.state {
            State::Type if self.levels.is_empty() => Standing::Between,
            State::Opaque => Standing::Opaque,
            State::Lost => Standing::Lost,
            _ => Standing::Within,
        }
    }

    fn may_be_wrong(&self) -> bool {
        self.standing() == Standing::Within
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.levels.clear();
    }

    fn find_again(&mut self) {
        self.state = State::Type;
        self.levels.clear();
        self.allows_inline = false;
    }

    fn become_opaque(&mut self) {
        self.state = State::Opaque;
        self.levels.clear();
    }

    fn gap(&mut self, length: u64) -> bool {
        match &mut self.state {
            State::Bulk { left } if *left >= length => {
                *left -= length;
                if *left == 0 {
                    self.state = State::BulkEnd;
                }
                true
            }
            State::Opaque => true,
            _ => {
                self.lose();
                false
            }
        }
    }

    fn step<'d>(&mut self, data: &mut &'d [u8]) -> Option<Step<'d>> {
        loop {
            if self.state == State::Finished {
                if let Some(step) = self.finish() {
                    return Some(step);
                }
                continue;
            }
            let (first, rest) = data.split_first()?;
            match self.state {
                State::Opaque | State::Lost => {
                    *data = &[];
                    return Some(Step::Skipped);
                }
                State::Type if self.levels.is_empty() => {
                    self.state = State::Announced;
                    return Some(Step::Began);
                }
                State::Type | State::Announced => {
                    if let Some(step) = self.begin(*first, data) {
                        return Some(step);
                    }
                }
                State::Number { of, value, is_negative, digits } => {
                    let behind = rest;
                    self.state = match *first {
                        b'-' if digits == 0 && !is_negative => {
                            State::Number { of, value, is_negative: true, digits }
                        }
                        digit @ b'0'..=b'9' if digits < 18 => {
                            let value = value * 10 + u64::from(digit - b'0');
                            State::Number { of, value, is_negative, digits: digits + 1 }
                        }
                        b'\r' if digits > 0 => {
                            *data = behind;
                            continue;
                        }
                        b'\n' if digits > 0 => {
                            *data = behind;
                            return Some(self.number(of, value, is_negative));
                        }
                        // What breaks the rules is not read.
                        _ => return Some(self.broken()),
                    };
                    *data = behind;
                }
                State::Line { read } => {
                    let end = data.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                    if end == Some(0) {
                        *data = rest;
                        if *first == b'\n' {
                            self.state = State::Finished;
                        }
                        continue;
                    }
                    let room = usize::try_from(MOST_LINE - read).unwrap_or(0);
                    if room == 0 {
                        return Some(self.broken());
                    }
                    let (text, behind) = data.split_at(end.unwrap_or(data.len()).min(room));
                    *data = behind;
                    self.state = State::Line { read: read + text.len() as u64 };
                    return Some(Step::Text(text));
                }
                State::Bulk { left } => {
                    let length = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
                    let (text, behind) = data.split_at(length);
                    *data = behind;
                    self.state = match left - length as u64 {
                        0 => State::BulkEnd,
                        left => State::Bulk { left },
                    };
                    return Some(Step::Text(text));
                }
                State::BulkEnd => {
                    match *first {
                        b'\r' => {}
                        b'\n' => self.state = State::Finished,
                        _ => return Some(self.broken()),
                    }
                    *data = rest;
                }
                State::Finished => {}
            }
        }
    }
}
