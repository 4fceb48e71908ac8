//! [`Call`]: one request and what became of it, in whichever protocol.
//!
//! Text in it is bounded ([`limit`]) and comes from bytes that were redacted before. What was not seen is absent, never
//! guessed; [`Ending`] says why.

mod field;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Duration};

use weir_flow::{Monotonic, RecordType, ResponseCode};

pub use self::field::{CallField, FIELDS};

/// Most bytes of what is kept of a call.
pub mod limit {
    /// Of the target of an HTTP request.
    pub const TARGET: usize = 4096;
    /// Of the text of a statement or command.
    pub const STATEMENT: usize = 4096;
    /// Of a name: a method, a host, a user, a type of content, a message of an error.
    pub const NAME: usize = 256;
    /// Of the headers of one message that are kept on request.
    pub const HEADERS: usize = 16 << 10;
}

/// What of the messages themselves is kept in calls, besides what describes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Whether to keep headers, up to [`limit::HEADERS`] of each message.
    pub headers: bool,
    /// How many bytes from the beginning of each body to keep.
    pub body_bytes: usize,
}

/// A protocol that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http,
    /// DNS, by datagrams or by a stream.
    Dns,
    /// PostgreSQL, protocol 3.
    Postgresql,
    /// Redis, RESP2 and RESP3.
    Redis,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Http, Self::Dns, Self::Postgresql, Self::Redis];

    /// Its name as OpenTelemetry has it (`network.protocol.name`, `db.system.name`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Dns => "dns",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
        }
    }
}

/// A request and what became of it; or, where [`Ending::NoRequest`] says so, an answer alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When the request began; the answer, where no request was seen.
    pub start: Monotonic,
    /// When the answer began.
    pub answered: Option<Monotonic>,
    /// When the last byte came, of either.
    pub end: Monotonic,
    /// What the client said.
    pub request: Half,
    /// What the server said.
    pub response: Half,
    /// How it ended.
    pub ending: Ending,
    /// Whether request and answer were put together under the assumption that the client waits for each answer. So it is
    /// after a gap, and on connections that were joined in the middle.
    pub is_inferred: bool,
    /// What is particular to the protocol.
    pub detail: Detail,
}

/// One side of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Half {
    /// Where it begins on the stream, where it was seen.
    pub position: Option<u64>,
    /// Its bytes on the stream.
    pub bytes: u64,
    /// Of those, the bytes of its body, or of what was copied.
    pub body_bytes: u64,
    /// Of its bytes, those that fell into gaps.
    pub gap_bytes: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// Both sides were seen to their end.
    Complete,
    /// The connection was over, or the time was, before there was an answer. Some requests want none.
    NoAnswer,
    /// An answer to something that was not seen.
    NoRequest,
    /// Answered before the request was whole.
    Early,
    /// The connection ended in the middle.
    Cut,
    /// A gap took the rest, or the answer.
    Gap,
    /// It is not known which answer belongs to it.
    Unmatched,
    /// The server skipped it because an earlier one failed.
    Skipped,
    /// It broke the rules of the protocol.
    Malformed,
}

impl Ending {
    /// Every name, in the order of the variants.
    pub const NAMES: &'static [&'static str] =
        &["complete", "no-answer", "no-request", "early", "cut", "gap", "unmatched", "skipped", "malformed"];

    /// Its name, such as `no-answer`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What is particular to a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Of HTTP.
    Http(Box<HttpCall>),
    /// Of DNS.
    Dns(Box<DnsCall>),
    /// Of PostgreSQL.
    Postgresql(Box<PostgresqlCall>),
    /// Of Redis.
    Redis(Box<RedisCall>),
}

/// What an HTTP call says of itself. Where there is no request, its parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCall {
    /// Method, such as `GET`.
    pub method: String,
    /// Target as it stands in the request.
    pub target: String,
    /// Whom the request is for: `Host`, or the authority of the target.
    pub host: Option<String>,
    /// Digit behind `HTTP/1.` of the request; of the answer, where no request was seen.
    pub minor_version: u8,
    /// Status of the answer.
    pub status: Option<u16>,
    /// `User-Agent` of the request.
    pub user_agent: Option<String>,
    /// `Content-Type` of the answer.
    pub content_type: Option<String>,
    /// Headers of the request, where they are kept.
    pub request_headers: Vec<Header>,
    /// Headers of the answer, where they are kept.
    pub response_headers: Vec<Header>,
    /// Beginning of the request's body, without the framing of chunks, where it is kept.
    pub request_body: Vec<u8>,
    /// Beginning of the answer's body.
    pub response_body: Vec<u8>,
}

/// A line of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, as it was written.
    pub name: String,
    /// Its value, as far as it is kept.
    pub value: String,
}

/// What a DNS call says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsCall {
    /// The name in question, in lower case.
    pub name: String,
    /// The type of records that are wanted.
    pub record_type: Option<RecordType>,
    /// The outcome.
    pub code: Option<ResponseCode>,
    /// Addresses and other names in the answer.
    pub answers: Vec<String>,
}

/// What a PostgreSQL call says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresqlCall {
    /// What was done: first words of the command tag, or of the statement; `CONNECT` for getting in.
    pub operation: String,
    /// Text of the statement, without the values of its parameters; empty where it was not seen.
    pub statement: String,
    /// Rows that came back.
    pub rows: u64,
    /// Rows that the command tag speaks of.
    pub affected_rows: Option<u64>,
    /// Statements that were executed at once.
    pub statements: u32,
    /// SQLSTATE of what went wrong.
    pub error_code: Option<String>,
    /// What the server says of it.
    pub error_message: Option<String>,
    /// Database of the connection, where its beginning was seen.
    pub database: Option<String>,
    /// User of the connection, where its beginning was seen.
    pub user: Option<String>,
}

/// What a Redis call says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisCall {
    /// The command in upper case, with its subcommand where it has any; for what the server sends by itself, its kind, as
    /// in `message`.
    pub command: String,
    /// Command and arguments; for what the server sends by itself, its channel.
    pub text: String,
    /// Whether the server sent it by itself.
    pub is_push: bool,
    /// Elements of an answer that is a list, a set or a map; 1 for other answers with a value.
    pub elements: u64,
    /// First word of an error, such as `WRONGTYPE`.
    pub error_code: Option<String>,
    /// The whole error.
    pub error_message: Option<String>,
    /// Number of the database, where the connection has chosen one in sight.
    pub database: Option<u32>,
}

impl Call {
    /// A call that begins, of which nothing is known yet but when and where.
    pub(crate) fn begin(start: Monotonic, position: u64, detail: Detail) -> Self {
        let request = Half { position: Some(position), ..Half::default() };
        Self {
            start,
            answered: None,
            end: start,
            request,
            response: Half::default(),
            ending: Ending::Complete,
            is_inferred: false,
            detail,
        }
    }

    /// An answer without a request.
    pub(crate) fn orphan(start: Monotonic, position: u64, detail: Detail) -> Self {
        let mut call = Self::begin(start, position, detail);
        std::mem::swap(&mut call.request, &mut call.response);
        call.answered = Some(start);
        call.ending = Ending::NoRequest;
        call
    }

    /// Notes how it ended, unless that is known already.
    pub(crate) fn mark(&mut self, ending: Ending) {
        if self.ending == Ending::Complete {
            self.ending = ending;
        }
    }

    /// The same, as a value.
    #[must_use]
    pub(crate) fn ended(mut self, ending: Ending) -> Self {
        self.mark(ending);
        self
    }

    /// Which protocol it is of.
    pub const fn protocol(&self) -> Protocol {
        match self.detail {
            Detail::Http(_) => Protocol::Http,
            Detail::Dns(_) => Protocol::Dns,
            Detail::Postgresql(_) => Protocol::Postgresql,
            Detail::Redis(_) => Protocol::Redis,
        }
    }

    /// Whether all of it was seen: both sides to their ends, without gaps.
    pub const fn is_complete(&self) -> bool {
        matches!(self.ending, Ending::Complete) && self.request.gap_bytes == 0 && self.response.gap_bytes == 0
    }

    /// From the beginning of the request to the end of the answer.
    pub fn duration(&self) -> Duration {
        self.end - self.start
    }

    /// From the beginning of the request to the beginning of the answer; `None` where one of them is missing.
    pub fn latency(&self) -> Option<Duration> {
        self.request.position?;
        Some(self.answered? - self.start)
    }

    /// What was done: `GET`, `SELECT`, a Redis command, a type of DNS records. Empty where that was not seen.
    pub fn operation(&self) -> Cow<'_, str> {
        match &self.detail {
            Detail::Http(http) => Cow::Borrowed(&http.method),
            Detail::Dns(dns) => dns.record_type.map_or(Cow::Borrowed(""), RecordType::name),
            Detail::Postgresql(call) => Cow::Borrowed(&call.operation),
            Detail::Redis(call) => Cow::Borrowed(&call.command),
        }
    }

    /// What it was done to: a target, a statement, a name.
    pub fn target(&self) -> &str {
        match &self.detail {
            Detail::Http(http) => &http.target,
            Detail::Dns(dns) => &dns.name,
            Detail::Postgresql(call) => &call.statement,
            Detail::Redis(call) => &call.text,
        }
    }

    /// How it went: a number of HTTP, a code of DNS, SQLSTATE, the first word of a Redis error. `OK` where a database had no
    /// error to tell; `None` where no answer was seen.
    pub fn status(&self) -> Option<Cow<'_, str>> {
        let of_database = |code: &'_ Option<String>| match code {
            Some(code) => Some(Cow::Owned(code.clone())),
            None if self.ending == Ending::Complete => Some(Cow::Borrowed("OK")),
            None => None,
        };
        match &self.detail {
            Detail::Http(http) => http.status.map(|status| Cow::Owned(status.to_string())),
            Detail::Dns(dns) => dns.code.map(|code| Cow::Borrowed(code.name())),
            Detail::Postgresql(call) => of_database(&call.error_code),
            Detail::Redis(call) => of_database(&call.error_code),
        }
    }

    /// What went wrong, as `error.type` has it: a status from 400 on, a code; where there is no such, the ending of a call
    /// that did not end well. `None` if all is well.
    pub fn error(&self) -> Option<Cow<'_, str>> {
        let code = match &self.detail {
            Detail::Http(http) => {
                http.status.filter(|status| *status >= 400).map(|status| Cow::Owned(status.to_string()))
            }
            Detail::Dns(dns) => {
                dns.code.filter(|code| code.is_failure()).map(|code| Cow::Borrowed(code.name()))
            }
            Detail::Postgresql(call) => call.error_code.as_deref().map(Cow::Borrowed),
            Detail::Redis(call) => call.error_code.as_deref().map(Cow::Borrowed),
        };
        code.or_else(|| (self.ending != Ending::Complete).then(|| Cow::Borrowed(self.ending.name())))
    }
}

/// Text of at most so many bytes; what is no UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8], most: usize) -> String {
    let mut end = bytes.len().min(most);
    // A letter that is cut would look like one that is wrong.
    while end < bytes.len() && end > 0 && bytes[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
