//! Which protocol a connection speaks, told from the first bytes of both sides.
//!
//! Ports are hints: they decide nothing, but with the port of a protocol its less telling beginnings count as well. "Not known" is
//! an answer, and comes soon: [`PATIENCE`] bytes of one side are enough.

#[cfg(test)]
mod tests;

use fearless_simd::{Simd, SimdBase as _};
use weir_packet::dns::Message;

use crate::{
    Part, Protocol,
    scan::{self, Test},
};

/// Bytes of one side after which no more are waited for.
pub const PATIENCE: usize = 64;

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// A protocol that is understood, and which part the side plays whose bytes told it.
    Protocol(Protocol, Part),
    /// Something else that is known by its beginning.
    Foreign(Foreign),
    /// Nothing that is known.
    Unknown,
    /// More bytes are needed.
    Undecided,
}

/// A protocol that is recognised and not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Foreign {
    /// TLS or SSL: what is in it cannot be read here.
    Tls,
    /// HTTP/2 without encryption.
    Http2,
    /// SSH.
    Ssh,
}

impl Foreign {
    /// Its name, such as `tls`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Ssh => "ssh",
        }
    }
}

/// Ports that stand for a protocol (IANA, and what servers use when nobody tells them).
const PORTS: &[(u16, Protocol)] = &[
    (53, Protocol::Dns),
    (5353, Protocol::Dns),
    (5355, Protocol::Dns),
    (5432, Protocol::Postgresql),
    (6379, Protocol::Redis),
];

/// The protocol for which a port stands.
pub fn by_port(port: u16) -> Option<Protocol> {
    PORTS.iter().find(|(number, _)| *number == port).map(|(_, protocol)| *protocol)
}

/// Methods of HTTP that requests begin with (IANA "HTTP Method Registry", and those of RFC 4918).
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "PURGE",
];

/// What the bytes of one side may be.
enum Guess {
    Yes(Recognised),
    /// With more bytes.
    Maybe,
    No,
}

/// Looks at the first bytes of one side of a stream.
///
/// `is_beginning` says that they are the first of the connection; otherwise they may be from the middle of anything, and more is asked
/// of them. `hint` is what the port stands for.
pub fn stream(bytes: &[u8], is_beginning: bool, hint: Option<Protocol>) -> Recognised {
    let guesses = [
        http(bytes),
        foreign(bytes),
        postgresql(bytes, is_beginning, hint),
        redis(bytes, hint),
        dns_stream(bytes, hint),
    ];
    let mut may_be_more = false;
    for guess in guesses {
        match guess {
            Guess::Yes(recognised) => return recognised,
            Guess::Maybe => may_be_more = true,
            Guess::No => {}
        }
    }
    if may_be_more && bytes.len() < PATIENCE { Recognised::Undecided } else { Recognised::Unknown }
}

/// Looks at a datagram.
pub fn datagram(bytes: &[u8], hint: Option<Protocol>) -> Recognised {
    match is_dns(bytes, hint == Some(Protocol::Dns)) {
        Some(part) => Recognised::Protocol(Protocol::Dns, part),
        None => Recognised::Unknown,
    }
}

/// Whether no text has a byte: below the space, tabulators, ends of lines and pages (9 to 13) and the escape are all it has.
#[derive(Clone, Copy)]
struct IsNoText;

impl Test for IsNoText {
    #[inline(always)]
    fn passes<S: Simd>(self, _: S, ahead: impl Fn(usize) -> S::u8s) -> S::mask8s {
        let bytes = ahead(0);
        bytes.simd_lt(b' ') & !(bytes - b'\t').simd_lt(5) & !bytes.simd_eq(0x1b)
    }
}

/// Whether there is a byte that no text has.
pub(crate) fn is_binary(bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| scan::has(bytes, b' ', IsNoText))
}

/// Whether `bytes` begin with `whole`, or may when more come.
fn begins(bytes: &[u8], whole: &[u8], then: Recognised) -> Guess {
    let length = bytes.len().min(whole.len());
    if bytes[..length] != whole[..length] {
        Guess::No
    } else if length == whole.len() {
        Guess::Yes(then)
    } else {
        Guess::Maybe
    }
}

/// Whether these are the first bytes of a message of HTTP: its first word is there, and nothing that is not of it.
pub(crate) fn begins_http(bytes: &[u8]) -> bool {
    match http(bytes) {
        Guess::Yes(_) => true,
        Guess::Maybe => bytes.contains(&b' '),
        Guess::No => false,
    }
}

/// The same where a message is due: a part of its first word is enough.
pub(crate) fn may_begin_http(bytes: &[u8]) -> bool {
    !matches!(http(bytes), Guess::No)
}

fn http(bytes: &[u8]) -> Guess {
    if let guess @ (Guess::Yes(_) | Guess::Maybe) =
        begins(bytes, b"HTTP/1.", Recognised::Protocol(Protocol::Http, Part::Server))
    {
        return guess;
    }
    for method in METHODS {
        let (name, rest) = bytes.split_at(bytes.len().min(method.len()));
        if name != &method.as_bytes()[..name.len()] {
            continue;
        }
        return match rest {
            [] | [b' '] => Guess::Maybe,
            // A path, `*`, or an authority; other text with such a beginning has another word.
            [b' ', target, ..]
                if *target == b'/'
                    || *target == b'*'
                    || target.is_ascii_alphanumeric()
                    || *target == b'[' =>
            {
                target_ends(rest)
            }
            _ => continue,
        };
    }
    Guess::No
}

/// Whether a version follows the target, as far as the line is there.
fn target_ends(rest: &[u8]) -> Guess {
    let line = rest.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line[1..].split(|byte| *byte == b' ');
    words.next();
    let yes = Recognised::Protocol(Protocol::Http, Part::Client);
    match words.next() {
        // Targets may be long. Nothing else that is known begins like this.
        None if line.len() == rest.len() && rest.len() < PATIENCE - 8 => Guess::Maybe,
        None if line.len() == rest.len() => Guess::Yes(yes),
        None => Guess::No,
        Some(version) => match begins(version, b"HTTP/1.", yes) {
            Guess::Maybe if line.len() < rest.len() => Guess::No,
            guess => guess,
        },
    }
}

fn foreign(bytes: &[u8]) -> Guess {
    match begins(bytes, b"PRI * HTTP/2.0\r\n", Recognised::Foreign(Foreign::Http2)) {
        Guess::No => {}
        guess => return guess,
    }
    match begins(bytes, b"SSH-", Recognised::Foreign(Foreign::Ssh)) {
        Guess::No => {}
        guess => return guess,
    }
    // Handshake, and the upper half of a version (RFC 8446 5.1).
    begins(bytes, &[22, 3], Recognised::Foreign(Foreign::Tls))
}

fn postgresql(bytes: &[u8], is_beginning: bool, hint: Option<Protocol>) -> Guess {
    let protocol = |part| Guess::Yes(Recognised::Protocol(Protocol::Postgresql, part));
    // A length below 10,000, then a code.
    if is_beginning && bytes.starts_with(&[0, 0]) || bytes == [0] {
        let Some((length, code)) = bytes.split_at_checked(4) else { return Guess::Maybe };
        let length = u16::from_be_bytes([length[2], length[3]]);
        if !(8..=10_000).contains(&length) {
            return Guess::No;
        }
        let codes: [&[u8]; 4] = [&[0, 3, 0, 0], &[0, 3, 0, 2], &[0x04, 0xd2, 0x16], &[0, 3, 0]];
        let yes = Recognised::Protocol(Protocol::Postgresql, Part::Client);
        let mut guess = Guess::No;
        for wanted in codes {
            match begins(code, wanted, yes) {
                Guess::Yes(yes) => return Guess::Yes(yes),
                Guess::Maybe => guess = Guess::Maybe,
                Guess::No => {}
            }
        }
        return guess;
    }
    // In the middle a letter and a length: not much, so the port has to agree.
    if is_beginning || hint != Some(Protocol::Postgresql) {
        return Guess::No;
    }
    let Some((letter, length)) = bytes.split_first() else { return Guess::Maybe };
    let Some(length) = length.first_chunk() else {
        return if length.first().is_none_or(|byte| *byte == 0) { Guess::Maybe } else { Guess::No };
    };
    if !(4..1 << 24).contains(&u32::from_be_bytes(*length)) {
        return Guess::No;
    }
    // Letters that both sides have do not tell which one it is; more will come.
    match letter {
        b'Q' | b'P' | b'B' | b'p' | b'F' => protocol(Part::Client),
        b'T' | b'Z' | b'1' | b'2' | b'R' => protocol(Part::Server),
        _ => Guess::No,
    }
}

fn redis(bytes: &[u8], hint: Option<Protocol>) -> Guess {
    let yes = |part| Guess::Yes(Recognised::Protocol(Protocol::Redis, part));
    let is_hinted = hint == Some(Protocol::Redis);
    match bytes {
        [] | [b'*'] => Guess::Maybe,
        // A list of strings; only clients send nothing but those.
        [b'*', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 7 || digits == 0 {
                return Guess::No;
            }
            match begins(&rest[digits..], b"\r\n$", Recognised::Unknown) {
                Guess::Yes(_) => yes(Part::Client),
                Guess::Maybe => Guess::Maybe,
                Guess::No => Guess::No,
            }
        }
        // Commands may be lines; that alone is nearly anything.
        [b'a'..=b'z' | b'A'..=b'Z', ..] if is_hinted => {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let text = &bytes[..end.unwrap_or(bytes.len())];
            if !text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r')) {
                return Guess::No;
            }
            // A password may stand in it, so it does not wait for the end of the line.
            if end.is_some() || text.contains(&b' ') { yes(Part::Client) } else { Guess::Maybe }
        }
        [b'-', b'E', b'R', b'R', ..] | [b'+', b'O', b'K', b'\r', ..] if is_hinted => yes(Part::Server),
        [b'-' | b'+'] | [b'-', b'E'] | [b'-', b'E', b'R'] | [b'+', b'O'] | [b'+', b'O', b'K']
            if is_hinted =>
        {
            Guess::Maybe
        }
        _ => Guess::No,
    }
}

fn dns_stream(bytes: &[u8], hint: Option<Protocol>) -> Guess {
    if hint != Some(Protocol::Dns) {
        return Guess::No;
    }
    let Some((length, message)) = bytes.split_first_chunk() else { return Guess::Maybe };
    let length = usize::from(u16::from_be_bytes(*length));
    if length < 12 {
        return Guess::No;
    }
    let message = &message[..message.len().min(length)];
    match is_dns(message, true) {
        Some(part) => Guess::Yes(Recognised::Protocol(Protocol::Dns, part)),
        None if message.len() < 12 => Guess::Maybe,
        None => Guess::No,
    }
}

/// Whether this is a DNS message, and who says it. Without the port the whole question has to be there.
fn is_dns(bytes: &[u8], is_hinted: bool) -> Option<Part> {
    let message = Message::new(bytes)?;
    let is_plausible = match message.questions() {
        0 => is_hinted && message.is_response(),
        1 => {
            is_hinted || message.question().is_some_and(|question| (1..=257).contains(&question.record_type))
        }
        _ => false,
    };
    // Questions, notifications and updates (RFC 6895 2.2). The bit between flags is zero (RFC 1035 4.1.1).
    let is_known = matches!(message.opcode(), 0 | 4 | 5) && bytes[3] & 0x40 == 0;
    let part = if message.is_response() { Part::Server } else { Part::Client };
    (is_plausible && is_known && (is_hinted || message.opcode() == 0)).then_some(part)
}
