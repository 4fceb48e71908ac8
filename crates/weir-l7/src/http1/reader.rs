//! [`Reader`]: where messages of HTTP/1 begin and end in one direction (RFC 9112 2, 6, 7).
//!
//! It copies heads and nothing else. How long a body is depends on the request as well (RFC 9112 6.3), so whoever reads
//! says it after each head.

use super::head;
use crate::{
    Part,
    sides::{Direction, Standing},
};

/// Most bytes of the head of a message. Servers take 8 KiB to 64 KiB.
pub(crate) const MOST_HEAD: usize = 64 << 10;

/// Most bytes of the line in front of a chunk (RFC 9112 7.1.1 leaves the length of extensions open).
const MOST_CHUNK_LINE: usize = 4096;

/// Which messages come in this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests, from the client.
    Request,
    /// Responses, from the server.
    Response,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By chunks (RFC 9112 7.1).
    Chunked,
    /// At the end of the connection.
    UntilClose,
    /// From here on it is another protocol.
    Opaque,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'d> {
    /// A message begins with the next byte.
    Began,
    /// [`Reader::head`] is whole; say how its body ends.
    Head,
    /// A piece of the body.
    Body(&'d [u8]),
    /// A line in front of a chunk or behind one.
    Framing,
    /// The message is over.
    Ended,
    /// Bytes that belong to no message.
    Skipped,
    /// It breaks the rules, or goes beyond the limits; nothing is known until [`Direction::find_again`].
    Broken,
}

/// Of what the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Of a head, or of headers behind the last chunk.
    Head,
    /// Of a body.
    Body,
    /// Of a line in front of a chunk or behind one.
    Framing,
    /// Of another protocol.
    Opaque,
    /// Nobody knows.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Head,
    Length(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    Ended,
    Opaque,
    Lost,
}

/// Reads one direction.
#[derive(Debug)]
pub(crate) struct Reader {
    kind: Kind,
    state: State,
    /// The head so far, or the line of a chunk.
    buffer: Vec<u8>,
    /// Where the last line in the buffer begins.
    line: usize,
}

impl Reader {
    /// The head that was read last, with the empty line at its end.
    pub(crate) fn head(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether the body that is being read is the one that ends with the connection.
    pub(crate) fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Of what the next byte is.
    pub(crate) const fn place(&self) -> Place {
        match self.state {
            State::Between | State::Head | State::Trailer | State::Ended => Place::Head,
            State::Length(_) | State::ChunkData(_) | State::UntilClose => Place::Body,
            State::ChunkLine | State::ChunkEnd => Place::Framing,
            State::Opaque => Place::Opaque,
            State::Lost => Place::Lost,
        }
    }

    /// Whether headers may come that stand behind the last chunk.
    pub(crate) fn is_in_trailer(&self) -> bool {
        self.state == State::Trailer
    }

    /// How many bytes are left of a body; none between two messages. `None` elsewhere, and where it is not known.
    pub(crate) fn left_in_body(&self) -> Option<u64> {
        match self.state {
            State::Between | State::Ended => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Says how the body ends whose head was read.
    pub(crate) fn body(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
            Framing::Opaque => State::Opaque,
        };
        if framing != Framing::None {
            self.clear();
        }
    }

    fn clear(&mut self) {
        // A long head was an exception; its memory is not kept for the life of the connection.
        if self.buffer.capacity() > 8192 {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.line = 0;
    }

    /// A line did not end yet: wait for more, unless it is too long already.
    fn more(&mut self, most: usize) -> Option<Step<'static>> {
        if self.buffer.len() < most {
            return None;
        }
        self.lose();
        Some(Step::Broken)
    }

    /// Collects up to the end of a line; then says whether the line was empty. A line may end with LF alone (RFC 9112 2.2).
    fn line(&mut self, data: &mut &[u8], most: usize) -> Option<bool> {
        let room = most.saturating_sub(self.buffer.len()).min(data.len());
        let end = data[..room].iter().position(|byte| *byte == b'\n');
        let (taken, rest) = data.split_at(end.map_or(room, |end| end + 1));
        self.buffer.extend_from_slice(taken);
        *data = rest;
        end?;
        let line = &self.buffer[self.line..];
        let is_empty = matches!(line, b"\n" | b"\r\n");
        self.line = self.buffer.len();
        Some(is_empty)
    }
}

impl Direction for Reader {
    type Step<'d> = Step<'d>;

    fn of(part: Part) -> Self {
        let kind = match part {
            Part::Client => Kind::Request,
            Part::Server => Kind::Response,
        };
        Self { kind, state: State::Between, buffer: Vec::new(), line: 0 }
    }

    fn standing(&self) -> Standing {
        match self.state {
            State::Between => Standing::Between,
            State::Opaque => Standing::Opaque,
            State::Lost => Standing::Lost,
            _ => Standing::Within,
        }
    }

    fn may_be_wrong(&self) -> bool {
        self.state == State::Head
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.clear();
    }

    fn find_again(&mut self) {
        self.state = State::Between;
    }

    fn become_opaque(&mut self) {
        self.state = State::Opaque;
        self.clear();
    }

    fn gap(&mut self, length: u64) -> bool {
        match &mut self.state {
            State::Length(left) | State::ChunkData(left) if *left >= length => {
                *left -= length;
                if *left == 0 {
                    self.state = match self.state {
                        State::Length(_) => State::Ended,
                        _ => State::ChunkEnd,
                    };
                }
                true
            }
            State::UntilClose | State::Opaque => true,
            _ => {
                self.lose();
                false
            }
        }
    }

    fn step<'d>(&mut self, data: &mut &'d [u8]) -> Option<Step<'d>> {
        loop {
            match self.state {
                State::Ended => {
                    self.state = State::Between;
                    self.clear();
                    return Some(Step::Ended);
                }
                _ if data.is_empty() => return None,
                State::Lost | State::Opaque => {
                    *data = &[];
                    return Some(Step::Skipped);
                }
                State::Between => {
                    // Empty lines in front of a message are skipped (RFC 9112 2.2).
                    let start = data.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
                    let Some(start) = start else {
                        *data = &[];
                        return Some(Step::Skipped);
                    };
                    *data = &data[start..];
                    self.clear();
                    self.state = State::Head;
                    return Some(Step::Began);
                }
                State::Head => {
                    let begins = self.line == 0;
                    let Some(is_empty) = self.line(data, MOST_HEAD) else { return self.more(MOST_HEAD) };
                    if begins && !head::is_start(self.kind, &self.buffer) {
                        self.lose();
                        return Some(Step::Broken);
                    }
                    if is_empty {
                        return Some(Step::Head);
                    }
                }
                State::Length(left) => {
                    let body = take(data, left);
                    self.state = match left - body.len() as u64 {
                        0 => State::Ended,
                        left => State::Length(left),
                    };
                    return Some(Step::Body(body));
                }
                State::ChunkLine => {
                    if self.line(data, MOST_CHUNK_LINE).is_none() {
                        return self.more(MOST_CHUNK_LINE);
                    }
                    let length = head::chunk_length(&self.buffer);
                    self.clear();
                    self.state = match length {
                        Some(0) => State::Trailer,
                        Some(length) => State::ChunkData(length),
                        None => {
                            self.lose();
                            return Some(Step::Broken);
                        }
                    };
                    return Some(Step::Framing);
                }
                State::ChunkData(left) => {
                    let body = take(data, left);
                    self.state = match left - body.len() as u64 {
                        0 => State::ChunkEnd,
                        left => State::ChunkData(left),
                    };
                    return Some(Step::Body(body));
                }
                State::ChunkEnd => {
                    let Some(is_empty) = self.line(data, 2) else { return self.more(2) };
                    self.clear();
                    if !is_empty {
                        self.lose();
                        return Some(Step::Broken);
                    }
                    self.state = State::ChunkLine;
                    return Some(Step::Framing);
                }
                State::Trailer => {
                    let Some(is_empty) = self.line(data, MOST_HEAD) else { return self.more(MOST_HEAD) };
                    if is_empty {
                        self.state = State::Ended;
                    }
                }
                State::UntilClose => {
                    let body = *data;
                    *data = &[];
                    return Some(Step::Body(body));
                }
            }
        }
    }
}

/// As much of the beginning of `data` as there is, and no more than so many bytes.
fn take<'d>(data: &mut &'d [u8], most: u64) -> &'d [u8] {
    let length = usize::try_from(most).map_or(data.len(), |most| most.min(data.len()));
    let (taken, rest) = data.split_at(length);
    *data = rest;
    taken
}
