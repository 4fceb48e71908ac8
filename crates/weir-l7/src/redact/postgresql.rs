//! [`PostgresqlMask`]: what proves who somebody is, keys that cancel, and passwords in statements or bound to them.

use super::{
    Writer,
    bind::{Bind, Harmless, Name},
    sql::SqlMask,
};
use crate::{
    Part,
    postgresql::frame::{Reader, STARTUP, Step},
    sides::{self, Direction as _},
};

/// Requests for encryption, and to cancel ("Message Formats").
const TLS: [u8; 4] = [0x04, 0xd2, 0x16, 0x2f];
const GSS: [u8; 4] = [0x04, 0xd2, 0x16, 0x30];
const CANCEL: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct PostgresqlMask {
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    reader: Reader,
    is_turn: bool,
    content: Content,
    /// The first four bytes of the payload.
    first: [u8; 4],
    read: usize,
    sql: SqlMask,
    /// The name under which the present statement is prepared.
    name: Name,
    bind: Bind,
    harmless: Harmless,
}

/// What a message has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Plain,
    Secret,
    /// The text of a statement.
    Statement,
    /// A name, and the text of the statement that is prepared under it.
    Preparation,
    /// Values for the parameters of a statement.
    Values,
    /// The first message of a client.
    Startup,
    /// A way to prove who one is, then what that needs.
    Authentication,
    /// The number of a process, then the key that cancels what it does.
    Key,
}

impl PostgresqlMask {
    pub(super) fn new(is_joined: bool) -> Self {
        let side = |part| Side {
            reader: sides::reader(part, is_joined),
            is_turn: true,
            content: Content::Plain,
            first: [0; 4],
            read: 0,
            sql: SqlMask::default(),
            name: Name::default(),
            bind: Bind::default(),
            harmless: Harmless::default(),
        };
        Self { sides: [Part::Client, Part::Server].map(side) }
    }

    pub(super) fn bytes(&mut self, part: Part, data: &[u8], writer: &mut Writer<'_>) {
        let [client, server] = &mut self.sides;
        let (side, other) = if part == Part::Client { (client, server) } else { (server, client) };
        other.is_turn = true;
        if side.reader.is_lost() && side.is_turn {
            side.reader.find_again();
            side.harmless.forget();
        }
        side.is_turn = false;
        let mut rest = data;
        while !rest.is_empty() {
            let before = rest;
            let step = side.reader.step(&mut rest);
            let used = &before[..before.len() - rest.len()];
            match step {
                Some(Step::Header(letter, _)) => {
                    side.end_message();
                    side.content = content(part, letter);
                    side.read = 0;
                    side.sql = SqlMask::default();
                    side.name = Name::default();
                    side.bind = Bind::default();
                    writer.pass(used);
                }
                Some(Step::Payload(_)) => {
                    side.payload(used, writer);
                    if side.content == Content::Startup && side.read == 4 && matches!(side.first, TLS | GSS) {
                        side.reader.expect_startup();
                        other.reader.expect_letter();
                        side.content = Content::Plain;
                    }
                }
                Some(Step::Letter(letter)) => {
                    if letter != b'N' {
                        // What follows is encrypted.
                        side.reader.become_opaque();
                        other.reader.become_opaque();
                    }
                    writer.pass(used);
                }
                Some(Step::Skipped) if side.reader.is_opaque() => writer.pass(used),
                Some(Step::Skipped) => writer.mask(used.len()),
                // Of what broke the rules, a letter and a length alone were read.
                Some(Step::Began | Step::Ended | Step::Broken) | None => writer.pass(used),
            }
        }
        // The end of a message may have no bytes of its own.
        if let Some(Step::Ended) = side.reader.step(&mut rest) {
            side.end_message();
        }
    }

    pub(super) fn gap(&mut self, part: Part, length: u64) {
        self.sides[1 - part as usize].is_turn = true;
        let side = &mut self.sides[part as usize];
        if side.content == Content::Preparation {
            side.harmless.forget();
        }
        if !side.reader.gap(length) {
            side.is_turn = false;
        } else if side.content != Content::Plain {
            // It may go on with a secret.
            side.content = Content::Secret;
        }
    }
}

fn content(part: Part, letter: u8) -> Content {
    match (part, letter) {
        (Part::Client, STARTUP) => Content::Startup,
        (Part::Client, b'p') => Content::Secret,
        (Part::Client, b'Q') => Content::Statement,
        (Part::Client, b'P') => Content::Preparation,
        (Part::Client, b'B') => Content::Values,
        (Part::Server, b'R') => Content::Authentication,
        (Part::Server, b'K') => Content::Key,
        _ => Content::Plain,
    }
}

impl Side {
    fn end_message(&mut self) {
        if self.content == Content::Preparation {
            self.harmless.prepared(&self.name, !self.sql.says_password());
        }
        self.content = Content::Plain;
    }

    fn payload(&mut self, piece: &[u8], writer: &mut Writer<'_>) {
        match self.content {
            Content::Plain => writer.pass(piece),
            Content::Secret => writer.mask(piece.len()),
            Content::Statement => self.sql.bytes(piece, writer),
            Content::Preparation => {
                for byte in piece {
                    if self.name.take(*byte) {
                        break;
                    }
                }
                self.sql.bytes(piece, writer);
            }
            Content::Values => {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (length, is_value) = self.bind.next(rest, &self.harmless);
                    writer.write(&rest[..length], is_value);
                    rest = &rest[length..];
                }
            }
            Content::Startup | Content::Authentication | Content::Key => {
                let (begin, rest) = piece.split_at((4 - self.read.min(4)).min(piece.len()));
                for byte in begin {
                    self.first[self.read] = *byte;
                    self.read += 1;
                }
                writer.pass(begin);
                let is_secret = match self.content {
                    // The number of the process stands between the code and the key.
                    Content::Startup => self.first == CANCEL,
                    // Success, and the list of ways.
                    Content::Authentication => !matches!(self.first, [0, 0, 0, 0 | 10]),
                    _ => true,
                };
                writer.write(rest, is_secret);
            }
        }
    }
}
