//! [`Redactor`]: secrets become asterisks in the stream itself, before anything is written or decoded.
//!
//! The length stays the same, so positions stay right. Patterns may be cut anywhere by the edges of chunks. Behind a gap it is not
//! known whether a secret is going on; then everything is masked up to where none can. Little is copied: what passes is handed on
//! where it is, and what could be either (the beginning of an authority, which may turn out to be a password) waits in a
//! small buffer.

mod names;
mod postgresql;
mod redis;
mod sql;
#[cfg(test)]
mod tests;
mod text;

use weir_flow::Monotonic;

use self::{postgresql::PostgresqlMask, redis::RedisMask, text::TextMask};
use crate::{Chunk, Foreign, Part, Protocol, Recognised};

/// What stands in place of secrets.
const MASK: &[u8] = &[b'*'; 256];

/// Masks the secrets of one connection.
#[derive(Debug)]
pub struct Redactor {
    mask: Mask,
}

#[derive(Debug)]
enum Mask {
    /// HTTP, and what is not known: lines of text, addresses, forms and JSON.
    Text(Box<[TextMask; 2]>),
    Redis(Box<RedisMask>),
    Postgresql(Box<PostgresqlMask>),
    /// There are no secrets, or all is encrypted.
    None,
    /// Where secrets are cannot be told.
    All,
}

/// What is known of the place behind a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BehindGap {
    /// Nothing.
    Unknown,
    /// So many bytes of a body follow, and then a new message.
    Body(u64),
}

impl Redactor {
    /// For what was recognised. `is_joined` says that the connection was joined in the middle.
    pub fn new(recognised: Recognised, is_joined: bool) -> Self {
        let text = |has_commands, is_joined| {
            Mask::Text(Box::new([(); 2].map(|()| TextMask::new(has_commands, is_joined))))
        };
        let mask = match recognised {
            Recognised::Protocol(Protocol::Dns, _) | Recognised::Foreign(Foreign::Tls | Foreign::Ssh) => {
                Mask::None
            }
            Recognised::Protocol(Protocol::Redis, _) => Mask::Redis(Box::new(RedisMask::new(is_joined))),
            Recognised::Protocol(Protocol::Postgresql, _) => {
                Mask::Postgresql(Box::new(PostgresqlMask::new(is_joined)))
            }
            // It was recognised by the beginning of a message.
            Recognised::Protocol(Protocol::Http, _) => text(false, false),
            // Headers are packed, and each depends on those before (RFC 7541).
            Recognised::Foreign(Foreign::Http2) => Mask::All,
            Recognised::Unknown | Recognised::Undecided => text(true, is_joined),
        };
        Self { mask }
    }

    /// Takes what one side said, and hands on the same without secrets. What follows what waits comes behind it, so pieces
    /// come in the order of the stream.
    pub fn push(&mut self, part: Part, chunk: Chunk<'_>, out: &mut dyn FnMut(Chunk<'_>)) {
        self.push_knowing(part, chunk, BehindGap::Unknown, out);
    }

    /// The same, by somebody who knows what is behind a gap.
    pub(crate) fn push_knowing(
        &mut self,
        part: Part,
        chunk: Chunk<'_>,
        behind: BehindGap,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        match chunk {
            Chunk::Bytes { position, time, data } => {
                let mut writer = Writer { position, time, out };
                match &mut self.mask {
                    Mask::None => writer.pass(data),
                    Mask::All => writer.mask(data.len()),
                    Mask::Text(sides) => {
                        sides[1 - part as usize].others_turn();
                        sides[part as usize].bytes(data, &mut writer);
                    }
                    Mask::Redis(mask) => mask.bytes(part, data, &mut writer),
                    Mask::Postgresql(mask) => mask.bytes(part, data, &mut writer),
                }
            }
            Chunk::Gap { length, .. } => {
                match &mut self.mask {
                    Mask::None | Mask::All => {}
                    Mask::Text(sides) => {
                        sides[1 - part as usize].others_turn();
                        sides[part as usize].gap(behind, out);
                    }
                    Mask::Redis(mask) => mask.gap(part, length),
                    Mask::Postgresql(mask) => mask.gap(part, length),
                }
                out(chunk);
            }
        }
    }

    /// One side will say no more: hands on what waits, masked.
    pub fn end(&mut self, part: Part, out: &mut dyn FnMut(Chunk<'_>)) {
        if let Mask::Text(sides) = &mut self.mask {
            sides[part as usize].end(out);
        }
    }
}

/// Hands on the bytes of a chunk piece by piece, as they are or masked.
struct Writer<'o> {
    position: u64,
    time: Monotonic,
    out: &'o mut dyn FnMut(Chunk<'_>),
}

impl Writer<'_> {
    fn pass(&mut self, data: &[u8]) {
        if !data.is_empty() {
            (self.out)(Chunk::Bytes { position: self.position, time: self.time, data });
            self.position = self.position.saturating_add(data.len() as u64);
        }
    }

    fn mask(&mut self, length: usize) {
        let mut left = length;
        while left > 0 {
            let now = left.min(MASK.len());
            self.pass(&MASK[..now]);
            left -= now;
        }
    }

    /// The bytes where they are secret, and otherwise as they are.
    fn write(&mut self, data: &[u8], is_secret: bool) {
        if is_secret {
            self.mask(data.len());
        } else {
            self.pass(data);
        }
    }

    /// Goes past bytes that are handed on later.
    fn skip(&mut self, length: usize) {
        self.position = self.position.saturating_add(length as u64);
    }
}
