//! Heads of messages: the first line, headers, and what they say of the body (RFC 9110 5, RFC 9112 3 to 6).

use std::borrow::Cow;

use super::reader::{Framing, Kind};
use crate::call::{Header, Keep, limit, text};

/// What a request says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'h> {
    pub(crate) method: &'h [u8],
    pub(crate) target: &'h [u8],
    pub(crate) minor_version: u8,
}

/// What a response says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) minor_version: u8,
    pub(crate) status: u16,
}

/// What of the headers is needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) host: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) kept: Vec<Header>,
    length: Length,
    coding: Coding,
    /// Whether the body is not what its type says, but something that becomes it: compressed, say.
    is_coded: bool,
    is_http2: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Bytes(u64),
    /// No number, or two different ones.
    Wrong,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    /// `chunked` comes last.
    Chunked,
    Other,
}

/// Whether a line is the first one of a message of this kind.
pub(crate) fn is_start(kind: Kind, line: &[u8]) -> bool {
    match kind {
        Kind::Request => request(line).is_some(),
        Kind::Response => response(line).is_some(),
    }
}

/// Reads the line of a request (RFC 9112 3).
pub(crate) fn request(head: &[u8]) -> Option<Request<'_>> {
    let mut words = first_line(head).split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_over = words.next().is_none();
    let is_method = method.iter().all(|byte| is_token(*byte));
    // HTTP/2 begins with a line of this form (RFC 9113 3.4).
    let minor_version = if version == b"HTTP/2.0" { 0 } else { minor_version(version)? };
    (is_over && is_method).then_some(Request { method, target, minor_version })
}

/// Reads the line of a status (RFC 9112 4). The reason may be empty, and the space before it missing.
pub(crate) fn response(head: &[u8]) -> Option<Response> {
    let line = first_line(head);
    let (version, rest) = line.split_at_checked(8)?;
    let digits = match rest {
        [b' ', digits @ ..] => digits.get(..3)?,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit)
        || digits[0] == b'0'
        || digits.len() + 1 < rest.len() && rest[4] != b' '
    {
        return None;
    }
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    Some(Response { minor_version: minor_version(version)?, status })
}

fn minor_version(version: &[u8]) -> Option<u8> {
    match version.strip_prefix(b"HTTP/1.")? {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        _ => None,
    }
}

fn first_line(head: &[u8]) -> &[u8] {
    let end = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let line = &head[..end];
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Reads the headers behind the first line; without `keep`, no more of them than says how the body ends and what it is.
pub(crate) fn headers(head: &[u8], keep: Option<Keep>) -> Headers {
    let mut headers = Headers::default();
    let mut kept = 0;
    for (name, value) in lines(head) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("content-length") {
            headers.add_length(&value);
        } else if is("transfer-encoding") {
            // Several lines are one list (RFC 9110 5.3); the last coding decides (RFC 9112 6.3).
            headers.is_coded |= has_other_than(&value, &["chunked", "identity"]);
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            headers.coding =
                if last.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other };
        } else if is("content-encoding") {
            headers.is_coded |= has_other_than(&value, &["identity"]);
        } else if is("upgrade") {
            headers.is_http2 |= list(&value).any(|word| word.eq_ignore_ascii_case(b"h2c"));
        }
        let Some(keep) = keep else { continue };
        if is("host") {
            headers.host.get_or_insert_with(|| text(&value, limit::NAME));
        } else if is("user-agent") {
            headers.user_agent.get_or_insert_with(|| text(&value, limit::NAME));
        } else if is("content-type") {
            headers.content_type.get_or_insert_with(|| text(&value, limit::NAME));
        }
        kept += name.len() + value.len();
        if keep.headers && kept <= limit::HEADERS {
            let header = Header { name: text(name, limit::NAME), value: text(&value, limit::HEADERS) };
            headers.kept.push(header);
        }
    }
    headers
}

/// Names and values. A line that begins with a space goes on with the one before (RFC 9112 5.2); one without a colon is
/// passed over.
fn lines(head: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    let mut rest = head.split_inclusive(|byte| *byte == b'\n').skip(1).peekable();
    std::iter::from_fn(move || {
        loop {
            let line = rest.next()?;
            let mut whole = Cow::Borrowed(line.trim_ascii_end());
            while let Some(more) = rest.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
                let whole = whole.to_mut();
                whole.push(b' ');
                whole.extend_from_slice(more.trim_ascii());
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = line[..colon].trim_ascii();
            let value = match whole {
                Cow::Borrowed(whole) => Cow::Borrowed(whole[colon + 1..].trim_ascii()),
                Cow::Owned(whole) => Cow::Owned(whole[colon + 1..].trim_ascii().to_vec()),
            };
            return Some((name, value));
        }
    })
}

/// The words of a list (RFC 9110 5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

fn has_other_than(value: &[u8], words: &[&str]) -> bool {
    list(value).any(|word| !words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes())))
}

impl Headers {
    /// Whether the body is coded, so that it cannot be read as it is.
    pub(crate) const fn is_coded(&self) -> bool {
        self.is_coded
    }

    /// Whether HTTP/2 without encryption is wanted, or begins (RFC 7540 3.2).
    pub(crate) const fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// A list of equal numbers is that number (RFC 9112 6.3, fifth rule).
    fn add_length(&mut self, value: &[u8]) {
        for number in value.split(|byte| *byte == b',') {
            let length = decimal(number.trim_ascii());
            self.length = match (&self.length, length) {
                (Length::Absent, Some(length)) => Length::Bytes(length),
                (Length::Bytes(before), Some(length)) if *before == length => Length::Bytes(length),
                _ => Length::Wrong,
            };
        }
    }

    /// How the body of a request ends (RFC 9112 6.3); `None` where nobody can know.
    pub(crate) const fn of_request(&self) -> Option<Framing> {
        match (&self.coding, &self.length) {
            (Coding::Chunked, _) => Some(Framing::Chunked),
            (Coding::Absent, Length::Bytes(length)) => Some(Framing::Length(*length)),
            (Coding::Absent, Length::Absent) => Some(Framing::None),
            (Coding::Other, _) | (_, Length::Wrong) => None,
        }
    }

    /// How the body of the answer to a request with this method ends (RFC 9112 6.3); `None` where nobody can know.
    pub(crate) fn of_response(&self, status: u16, method: &str) -> Option<Framing> {
        match status {
            101 => return Some(Framing::Opaque),
            100..200 | 204 | 304 => return Some(Framing::None),
            200..300 if method == "CONNECT" => return Some(Framing::Opaque),
            _ if method == "HEAD" => return Some(Framing::None),
            _ => {}
        }
        match (&self.coding, &self.length) {
            (Coding::Chunked, _) => Some(Framing::Chunked),
            (Coding::Absent, Length::Bytes(length)) => Some(Framing::Length(*length)),
            (Coding::Other, _) | (Coding::Absent, Length::Absent) => Some(Framing::UntilClose),
            (Coding::Absent, Length::Wrong) => None,
        }
    }
}

/// Length of a chunk, from its line (RFC 9112 7.1); extensions are passed over.
pub(crate) fn chunk_length(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    // Some put spaces behind the number.
    if digits.is_empty() || digits.len() > 16 || !matches!(rest.trim_ascii().first(), None | Some(b';')) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
