//! [`Redactor`]: secrets become asterisks in the stream itself, before anything is written or decoded.
//!
//! The length stays the same, so positions stay right. Patterns may be cut anywhere by the edges of chunks. Behind a gap it is not
//! known whether a secret is going on; then everything is masked up to where none can. Little is copied: what passes is handed on
//! where it is, and what could be either (the beginning of an authority, which may turn out to be a password) waits in a
//! small buffer.

mod bind;
mod form;
mod http;
mod json;
mod names;
mod needles;
mod postgresql;
mod redis;
mod sql;
#[cfg(test)]
mod tests;
mod text;
mod token;
mod weave;

use weir_flow::Monotonic;

use self::{http::HttpMask, postgresql::PostgresqlMask, redis::RedisMask, text::TextMask, token::TokenMask};
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
    /// What is not known: lines of text, addresses, forms and JSON.
    Text(Box<[TextSide; 2]>),
    Http(Box<HttpMask>),
    Redis(Box<RedisMask>),
    Postgresql(Box<PostgresqlMask>),
    /// There are no secrets, or all is encrypted.
    None,
    /// Where secrets are cannot be told.
    All,
}

/// One side that says text: names tell secrets first, then what is left is looked at for what is one by its form.
#[derive(Debug)]
struct TextSide {
    names: TextMask,
    tokens: TokenMask,
}

/// What is known of the place behind a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BehindGap {
    /// Nothing.
    Unknown,
    /// So many bytes of a body follow, and then a new message.
    Body(u64),
}

impl Redactor {
    /// For what was recognised. `is_joined` says that the connection was joined in the middle.
    pub fn new(recognised: Recognised, is_joined: bool) -> Self {
        let mask = match recognised {
            Recognised::Protocol(Protocol::Dns, _) | Recognised::Foreign(Foreign::Tls | Foreign::Ssh) => {
                Mask::None
            }
            Recognised::Protocol(Protocol::Redis, _) => Mask::Redis(Box::new(RedisMask::new(is_joined))),
            Recognised::Protocol(Protocol::Postgresql, _) => {
                Mask::Postgresql(Box::new(PostgresqlMask::new(is_joined)))
            }
            Recognised::Protocol(Protocol::Http, _) => Mask::Http(Box::new(HttpMask::new(is_joined))),
            // Headers are packed, and each depends on those before (RFC 7541).
            Recognised::Foreign(Foreign::Http2) => Mask::All,
            Recognised::Unknown | Recognised::Undecided => {
                Mask::Text(Box::new([(); 2].map(|()| TextSide::new(true, is_joined))))
            }
        };
        Self { mask }
    }

    /// Takes what one side said, and hands on the same without secrets. What follows what waits comes behind it, so pieces
    /// come in the order of the stream.
    pub fn push(&mut self, part: Part, chunk: Chunk<'_>, out: &mut dyn FnMut(Chunk<'_>)) {
        match chunk {
            Chunk::Bytes { position, time, data } => {
                let mut writer = Writer { position, time, out };
                match &mut self.mask {
                    Mask::None => writer.pass(data),
                    Mask::All => writer.mask(data.len()),
                    Mask::Text(sides) => {
                        sides[1 - part as usize].names.others_turn();
                        sides[part as usize].bytes(data, &mut writer);
                    }
                    Mask::Http(mask) => mask.bytes(part, data, &mut writer),
                    Mask::Redis(mask) => mask.bytes(part, data, &mut writer),
                    Mask::Postgresql(mask) => mask.bytes(part, data, &mut writer),
                }
            }
            Chunk::Gap { length, .. } => {
                match &mut self.mask {
                    Mask::None | Mask::All => {}
                    Mask::Text(sides) => {
                        sides[1 - part as usize].names.others_turn();
                        sides[part as usize].gap(BehindGap::Unknown, out);
                    }
                    Mask::Http(mask) => return mask.gap(part, chunk, out),
                    Mask::Redis(mask) => mask.gap(part, length),
                    Mask::Postgresql(mask) => mask.gap(part, length),
                }
                out(chunk);
            }
        }
    }

    /// One side will say no more: hands on what waits, masked.
    pub fn end(&mut self, part: Part, out: &mut dyn FnMut(Chunk<'_>)) {
        match &mut self.mask {
            Mask::Text(sides) => sides[part as usize].end(out),
            Mask::Http(mask) => mask.end(part, out),
            Mask::Redis(_) | Mask::Postgresql(_) | Mask::None | Mask::All => {}
        }
    }

    /// From here on everything is masked, of both sides; what waits was handed on.
    pub(crate) fn hide(&mut self) {
        self.mask = Mask::All;
    }
}

impl TextSide {
    const fn new(has_commands: bool, is_joined: bool) -> Self {
        Self { names: TextMask::new(has_commands, is_joined), tokens: TokenMask::new() }
    }

    fn bytes(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        let Self { names, tokens } = self;
        let Writer { position, time, out } = writer;
        let mut behind = |chunk: Chunk<'_>| tokens.take(chunk, *out);
        names.bytes(data, &mut Writer { position: *position, time: *time, out: &mut behind });
    }

    fn gap(&mut self, behind: BehindGap, out: &mut dyn FnMut(Chunk<'_>)) {
        let Self { names, tokens } = self;
        names.gap(behind, &mut |chunk| tokens.take(chunk, out));
        tokens.gap(out);
    }

    fn end(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        let Self { names, tokens } = self;
        names.end(&mut |chunk| tokens.take(chunk, out));
        tokens.end(out);
    }

    /// What waits must not wait any longer, though it is not known what it is.
    fn hide(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        let Self { names, tokens } = self;
        names.end(&mut |chunk| tokens.take(chunk, out));
        tokens.gap(out);
    }

    /// What comes next begins a line, whatever this one said.
    fn begin_anew(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        let Self { names, tokens } = self;
        names.begin_anew(&mut |chunk| tokens.take(chunk, out));
        tokens.end(out);
    }

    fn waiting(&self) -> usize {
        self.names.waiting() + self.tokens.waiting()
    }
}

/// Bytes that are not handed on yet.
#[derive(Debug)]
struct Held {
    position: u64,
    time: Monotonic,
    bytes: Vec<u8>,
    /// Whether it turned out to be secret.
    is_secret: bool,
}

impl Held {
    const fn new() -> Self {
        Self { position: 0, time: Monotonic(0), bytes: Vec::new(), is_secret: false }
    }

    /// Keeps what stands where the writer is.
    fn keep(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        if self.bytes.is_empty() {
            (self.position, self.time) = (writer.position, writer.time);
        }
        self.bytes.extend_from_slice(data);
        writer.skip(data.len());
    }

    fn release(&mut self, is_secret: bool, out: &mut dyn FnMut(Chunk<'_>)) {
        self.release_partly(if is_secret { self.bytes.len() } else { 0 }, out);
    }

    /// Hands on everything; so many bytes of it are secret.
    fn release_partly(&mut self, secret: usize, out: &mut dyn FnMut(Chunk<'_>)) {
        let mut writer = Writer { position: self.position, time: self.time, out };
        let (secret, plain) = self.bytes.split_at(secret.min(self.bytes.len()));
        writer.write(secret, true);
        writer.write(plain, false);
        self.bytes.clear();
    }
}

/// Which bytes are among these.
const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < bytes.len() {
        table[bytes[index] as usize] = true;
        index += 1;
    }
    table
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

/// The first byte of this kind from a place on. Blocks that have none are passed over at once: the compiler makes the
/// comparisons of a block together if they have no branches (`|`, not `||` or a pattern) and what they find is a number.
fn first(data: &[u8], from: usize, is_one: impl Fn(u8) -> bool + Copy) -> Option<usize> {
    const BLOCK: usize = 32;
    let (blocks, _) = data[from..].as_chunks::<BLOCK>();
    let has_one =
        |block: &[u8; BLOCK]| block.iter().fold(0, |found, byte| found | u8::from(is_one(*byte))) != 0;
    let passed = blocks.iter().take_while(|block| !has_one(block)).count();
    let at = from + passed * BLOCK;
    data[at..].iter().position(|byte| is_one(*byte)).map(|found| at + found)
}
