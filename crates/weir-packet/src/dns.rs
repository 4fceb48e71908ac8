//! DNS messages (RFC 1035 4): header, question, answers.
//!
//! Reads as much as is there: of a message that is cut, the answers before the cut. Nothing is taken on trust: names
//! are bounded, and pointers in them lead backwards only, so that reading ends.

mod name;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::name::Name;

/// Types of records that are told apart here (IANA "Resource Record (RR) TYPEs").
pub mod record_type {
    /// IPv4 address, RFC 1035 3.4.1.
    pub const A: u16 = 1;
    /// Another name for the same thing, RFC 1035 3.3.1.
    pub const CNAME: u16 = 5;
    /// IPv6 address, RFC 3596.
    pub const AAAA: u16 = 28;
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// Class of the Internet. Multicast DNS uses the top bit for something else (RFC 6762 10.2, 18.12).
const INTERNET: u16 = 1;
const CLASS_MASK: u16 = 0x7fff;

/// A message, or the beginning of one.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_BYTES],
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, in lower case.
    pub name: Name,
    /// The type of the records that are wanted.
    pub record_type: u16,
}

/// A record of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it is about.
    pub name: Name,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is no heap here, and few are kept at a time")]
pub enum Data {
    /// The name has this address.
    Address(IpAddr),
    /// The name is another one for this.
    Alias(Name),
    /// Something of another type, or of another class.
    Other,
}

impl<'a> Message<'a> {
    /// Looks at a message; `None` if it has no whole header.
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first_chunk() {
            Some(header) => Some(Self { bytes, header }),
            None => None,
        }
    }

    /// The number by which the asker knows the answer.
    pub const fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Whether it answers.
    pub const fn is_response(&self) -> bool {
        self.header[2] & 0x80 != 0
    }

    /// What kind of request: 0 is a question (RFC 6895 2.2).
    pub const fn opcode(&self) -> u8 {
        self.header[2] >> 3 & 0xf
    }

    /// The outcome, 0 to 15 (RFC 6895 2.3). Upper bits, which some put elsewhere in the message, are not read.
    pub const fn response_code(&self) -> u8 {
        self.header[3] & 0xf
    }

    /// Questions that it says to have.
    pub const fn questions(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// The first question; `None` if there is none, or if it is cut.
    pub fn question(&self) -> Option<Question> {
        if self.questions() == 0 {
            return None;
        }
        let mut cursor = Cursor { bytes: self.bytes, at: HEADER_BYTES };
        let name = cursor.name()?;
        let record_type = cursor.number()?;
        cursor.number()?;
        Some(Question { name, record_type })
    }

    /// The records of the answer, up to where the message is cut or makes no sense any more.
    pub fn answers(&self) -> impl Iterator<Item = Answer> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes, at: HEADER_BYTES };
        let is_whole = (0..self.questions()).all(|_| cursor.question().is_some());
        let count = u16::from_be_bytes([self.header[6], self.header[7]]);
        let mut left = if is_whole { count } else { 0 };
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let answer = cursor.answer();
            if answer.is_none() {
                left = 0;
            }
            answer
        })
    }
}

/// Where in a message the next thing is read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    fn name(&mut self) -> Option<Name> {
        let (name, end) = Name::read(self.bytes, self.at)?;
        self.at = end;
        Some(name)
    }

    fn question(&mut self) -> Option<()> {
        self.at = name::skip(self.bytes, self.at)?;
        self.take(4).map(drop)
    }

    fn answer(&mut self) -> Option<Answer> {
        let name = self.name()?;
        let (record_type, class) = (self.number()?, self.number()?);
        let ttl = u32::from_be_bytes(*self.take(4)?.first_chunk()?);
        let length = usize::from(self.number()?);
        let start = self.at;
        let data = self.take(length)?;
        let data = match (class & CLASS_MASK, record_type) {
            (INTERNET, record_type::A) => {
                Data::Address(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)))
            }
            (INTERNET, record_type::AAAA) => {
                Data::Address(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)))
            }
            (INTERNET, record_type::CNAME) => {
                let (alias, end) = Name::read(self.bytes, start)?;
                if end != self.at {
                    return None;
                }
                Data::Alias(alias)
            }
            _ => Data::Other,
        };
        // The top bit stands for no time at all (RFC 2181 8).
        Some(Answer { name, ttl: if ttl >> 31 == 0 { ttl } else { 0 }, data })
    }
}
