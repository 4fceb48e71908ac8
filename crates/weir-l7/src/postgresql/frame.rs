//! [`Reader`]: messages of the PostgreSQL protocol, version 3, in one direction ("Message Formats" of its manual).
//!
//! A message is a letter, a length and what the length says. The first one of a client has no letter, and the answer to a
//! request for encryption is a letter alone. Nothing is copied.

use crate::{
    Part,
    sides::{Direction, Standing},
};

/// Most bytes of the first message of a client (`MAX_STARTUP_PACKET_LENGTH` of the server).
const MOST_STARTUP: u32 = 10_000;

/// Most bytes of a message: servers allocate no more.
const MOST_MESSAGE: u32 = 0x3fff_ffff;

/// What stands in place of the letter of a client's first message.
pub(crate) const STARTUP: u8 = 0;

/// Letters of clients.
const FROM_CLIENT: &[u8] = b"pQPBDECHSFdcfX";

/// Letters of servers.
const FROM_SERVER: &[u8] = b"RSKZTDCENA123ntsIGHWdcVv";

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'d> {
    /// A message begins with the next byte.
    Began,
    /// A message with this letter and so many bytes behind its length.
    Header(u8, u32),
    /// A piece of what is behind the length.
    Payload(&'d [u8]),
    /// The message is over.
    Ended,
    /// The answer to a request for encryption.
    Letter(u8),
    /// Bytes that belong to no message.
    Skipped,
    /// It breaks the rules, or goes beyond the limits; nothing is known until [`Direction::find_again`].
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    /// So many bytes of letter and length were read.
    Header(u8),
    Payload(u32),
    Ended,
    Letter,
    Opaque,
    Lost,
}

/// Reads one direction.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Whose messages these are.
    part: Part,
    state: State,
    /// Whether the next message is the first of a client.
    is_startup: bool,
    header: [u8; 5],
}

impl Reader {
    /// The client asks for encryption, or for the same again: the next message has no letter either.
    pub(crate) fn expect_startup(&mut self) {
        self.is_startup = true;
    }

    /// The next byte is the answer to a request for encryption.
    pub(crate) fn expect_letter(&mut self) {
        if self.state == State::Between {
            self.state = State::Letter;
        }
    }

    fn knows(&self, letter: u8) -> bool {
        let letters = if self.part == Part::Client { FROM_CLIENT } else { FROM_SERVER };
        letters.contains(&letter)
    }

    fn header_read<'d>(&mut self) -> Step<'d> {
        let [letter, length @ ..] = self.header;
        let length = u32::from_be_bytes(length);
        // The length counts itself. The first message has a code besides.
        let (least, most) = if self.is_startup { (8, MOST_STARTUP) } else { (4, MOST_MESSAGE) };
        if !(least..=most).contains(&length) {
            self.lose();
            return Step::Broken;
        }
        self.is_startup = false;
        self.state = if length == 4 { State::Ended } else { State::Payload(length - 4) };
        Step::Header(letter, length - 4)
    }
}

impl Direction for Reader {
    type Step<'d> = Step<'d>;

    fn of(part: Part) -> Self {
        Self { part, state: State::Between, is_startup: part == Part::Client, header: [0; 5] }
    }

    fn standing(&self) -> Standing {
        match self.state {
            State::Between => Standing::Between,
            State::Opaque => Standing::Opaque,
            State::Lost => Standing::Lost,
            _ => Standing::Within,
        }
    }

    fn lose(&mut self) {
        self.state = State::Lost;
    }

    fn find_again(&mut self) {
        self.state = State::Between;
        // Messages in the middle have a letter.
        self.is_startup = false;
    }

    fn become_opaque(&mut self) {
        self.state = State::Opaque;
    }

    fn gap(&mut self, length: u64) -> bool {
        match self.state {
            State::Payload(left) if u64::from(left) >= length => {
                let left = left - u32::try_from(length).unwrap_or(left);
                self.state = if left == 0 { State::Ended } else { State::Payload(left) };
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
            if self.state == State::Ended {
                self.state = State::Between;
                return Some(Step::Ended);
            }
            let (first, rest) = data.split_first()?;
            match self.state {
                State::Opaque | State::Lost => {
                    *data = &[];
                    return Some(Step::Skipped);
                }
                State::Letter => {
                    *data = rest;
                    self.state = State::Between;
                    return Some(Step::Letter(*first));
                }
                State::Between => {
                    // A message without letter has the length alone.
                    self.header[0] = STARTUP;
                    self.state = State::Header(u8::from(self.is_startup));
                    return Some(Step::Began);
                }
                State::Header(read) => {
                    *data = rest;
                    self.header[usize::from(read)] = *first;
                    self.state = State::Header(read + 1);
                    if read == 0 && !self.knows(*first) {
                        self.lose();
                        return Some(Step::Broken);
                    }
                    if read == 4 {
                        return Some(self.header_read());
                    }
                }
                State::Payload(left) => {
                    let length = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
                    let (payload, behind) = data.split_at(length);
                    *data = behind;
                    let left = left - u32::try_from(length).unwrap_or(left);
                    self.state = if left == 0 { State::Ended } else { State::Payload(left) };
                    return Some(Step::Payload(payload));
                }
                State::Ended => {}
            }
        }
    }
}
