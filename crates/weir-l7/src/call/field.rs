//! [`FIELDS`]: everything that can be said of a [`Call`], declared once, under the names of OpenTelemetry.
//!
//! JSON and every other output derive from this table; what a tap knows besides (processes, addresses) it puts beside it.

use std::borrow::Cow;

use weir_flow::{
    RecordType, Tick,
    field::{Kind, Value},
};

use super::{Call, Detail, DnsCall, Ending, HttpCall, PostgresqlCall};

/// One attribute of a call.
#[derive(Clone, Copy)]
pub struct CallField {
    /// Dotted name, as in `http.request.method`.
    pub name: &'static str,
    /// What sort of value it has.
    pub kind: Kind,
    /// One or two sentences for the reference.
    pub doc: &'static str,
    /// Every value it can have, where they are few and have names; empty otherwise.
    pub values: &'static [&'static str],
    get: fn(&Call, &Tick) -> Value<'static>,
    text: fn(&Call) -> Option<Cow<'_, str>>,
}

impl CallField {
    const fn new(
        name: &'static str,
        kind: Kind,
        doc: &'static str,
        get: fn(&Call, &Tick) -> Value<'static>,
    ) -> Self {
        Self { name, kind, doc, values: &[], get, text: |_| None }
    }

    const fn text(name: &'static str, doc: &'static str, text: fn(&Call) -> Option<Cow<'_, str>>) -> Self {
        Self { name, kind: Kind::Text, doc, values: &[], get: |_, _| Value::Absent, text }
    }

    const fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    /// The value of this field in `call`. The tick tells what the time of the call was on people's clock.
    pub fn value<'c>(&self, call: &'c Call, tick: &Tick) -> Value<'c> {
        match self.kind {
            Kind::Text => match (self.text)(call) {
                Some(text) if !text.is_empty() => Value::Text(text),
                _ => Value::Absent,
            },
            _ => (self.get)(call, tick),
        }
    }
}

/// Every field of a [`Call`], in the order in which outputs list them.
pub const FIELDS: &[CallField] = &[
    CallField::new(
        "call.start",
        Kind::Timestamp,
        "When the request began; the answer, where no request was seen.",
        |call, tick| Value::Timestamp(tick.wall_of(call.start)),
    ),
    CallField::new(
        "call.duration",
        Kind::Duration,
        "From the beginning of the request to the end of the answer.",
        |call, _| Value::Duration(call.duration()),
    ),
    CallField::new(
        "call.latency",
        Kind::Duration,
        "From the beginning of the request to the beginning of the answer.",
        |call, _| call.latency().map_or(Value::Absent, Value::Duration),
    ),
    CallField::text("network.protocol.name", "What client and server speak.", |call| {
        Some(Cow::Borrowed(call.protocol().name()))
    })
    .values(&["http", "dns", "postgresql", "redis"]),
    CallField::text("network.protocol.version", "Version of HTTP.", |call| {
        http(call).map(|http| Cow::Owned(format!("1.{}", http.minor_version)))
    }),
    CallField::text("http.request.method", "Method of the request.", |call| borrowed(&http(call)?.method)),
    CallField::text("server.address", "Whom an HTTP request is for, without the port.", |call| {
        Some(Cow::Borrowed(authority(http(call)?).0))
    }),
    CallField::new("server.port", Kind::Port, "The port of that, where the request names one.", |call, _| {
        integer(http(call).and_then(|http| authority(http).1))
    }),
    CallField::text("url.path", "Target of an HTTP request up to the question mark.", |call| {
        Some(Cow::Borrowed(path_and_query(http(call)?).0))
    }),
    CallField::text("url.query", "What is behind the question mark.", |call| {
        path_and_query(http(call)?).1.map(Cow::Borrowed)
    }),
    CallField::text("user_agent.original", "`User-Agent` of the request.", |call| {
        http(call)?.user_agent.as_deref().map(Cow::Borrowed)
    }),
    CallField::new("http.response.status_code", Kind::Integer, "Status of the answer.", |call, _| {
        integer(http(call).and_then(|http| http.status))
    }),
    CallField::text("http.response.header.content-type", "`Content-Type` of the answer.", |call| {
        http(call)?.content_type.as_deref().map(Cow::Borrowed)
    }),
    CallField::new("http.request.body.size", Kind::Bytes, "Bytes of the request's body.", |call, _| {
        integer(http(call).map(|_| call.request.body_bytes))
    }),
    CallField::new("http.response.body.size", Kind::Bytes, "Bytes of the answer's body.", |call, _| {
        integer(http(call).and_then(|http| http.status).map(|_| call.response.body_bytes))
    }),
    CallField::text("dns.question.name", "The name in question.", |call| borrowed(&dns(call)?.name)),
    CallField::text("dns.question.type", "The type of records that are wanted.", |call| {
        dns(call)?.record_type.map(RecordType::name)
    }),
    CallField::text("dns.response_code", "Outcome of the query.", |call| {
        dns(call)?.code.map(|code| Cow::Borrowed(code.name()))
    })
    .values(weir_flow::ResponseCode::NAMES),
    CallField::text(
        "dns.answers",
        "Addresses and other names in the answer, with spaces between them.",
        |call| Some(Cow::Owned(dns(call)?.answers.join(" "))),
    ),
    CallField::text("db.system.name", "Which database.", |call| match call.detail {
        Detail::Postgresql(_) | Detail::Redis(_) => Some(Cow::Borrowed(call.protocol().name())),
        Detail::Http(_) | Detail::Dns(_) => None,
    })
    .values(&["postgresql", "redis"]),
    CallField::text("db.operation.name", "What was done there: the command, in upper case.", |call| {
        match &call.detail {
            Detail::Postgresql(call) => borrowed(&call.operation),
            Detail::Redis(call) => borrowed(&call.command),
            Detail::Http(_) | Detail::Dns(_) => None,
        }
    }),
    CallField::text("db.query.text", "The statement, or the command with its arguments.", |call| match &call
        .detail
    {
        Detail::Postgresql(call) => borrowed(&call.statement),
        Detail::Redis(call) => borrowed(&call.text),
        Detail::Http(_) | Detail::Dns(_) => None,
    }),
    CallField::text(
        "db.namespace",
        "The database within the server, where the connection has chosen it in sight.",
        |call| match &call.detail {
            Detail::Postgresql(call) => call.database.as_deref().map(Cow::Borrowed),
            Detail::Redis(call) => call.database.map(|number| Cow::Owned(number.to_string())),
            Detail::Http(_) | Detail::Dns(_) => None,
        },
    ),
    CallField::text("db.user.name", "User of the connection, where its beginning was seen.", |call| {
        postgresql(call)?.user.as_deref().map(Cow::Borrowed)
    }),
    CallField::new(
        "db.operation.batch.size",
        Kind::Integer,
        "Statements that were executed at once, where they are several.",
        |call, _| integer(postgresql(call).map(|call| call.statements).filter(|statements| *statements > 1)),
    ),
    CallField::new(
        "db.response.returned_rows",
        Kind::Integer,
        "Rows that came back; of Redis, elements.",
        |call, _| {
            integer(match &call.detail {
                Detail::Postgresql(call) => Some(call.rows),
                Detail::Redis(redis) => (call.ending == Ending::Complete).then_some(redis.elements),
                Detail::Http(_) | Detail::Dns(_) => None,
            })
        },
    ),
    CallField::new(
        "db.response.affected_rows",
        Kind::Integer,
        "Rows that the server says to have dealt with.",
        |call, _| integer(postgresql(call).and_then(|call| call.affected_rows)),
    ),
    CallField::text(
        "db.response.status_code",
        "SQLSTATE of an error, or the first word of a Redis error.",
        |call| match &call.detail {
            Detail::Postgresql(call) => call.error_code.as_deref().map(Cow::Borrowed),
            Detail::Redis(call) => call.error_code.as_deref().map(Cow::Borrowed),
            Detail::Http(_) | Detail::Dns(_) => None,
        },
    ),
    CallField::text(
        "error.type",
        "What went wrong: a status from 400 on, a code; where there is none of these, how the call ended.",
        Call::error,
    ),
    CallField::text("error.message", "What the server says of the error.", |call| match &call.detail {
        Detail::Postgresql(call) => call.error_message.as_deref().map(Cow::Borrowed),
        Detail::Redis(call) => call.error_message.as_deref().map(Cow::Borrowed),
        Detail::Http(_) | Detail::Dns(_) => None,
    }),
    CallField::new("call.request.bytes", Kind::Bytes, "All bytes of the request.", |call, _| {
        integer(Some(call.request.bytes))
    }),
    CallField::new("call.response.bytes", Kind::Bytes, "All bytes of the answer.", |call, _| {
        integer(Some(call.response.bytes))
    }),
    CallField::new(
        "call.request.gap.bytes",
        Kind::Bytes,
        "Of those of the request, the ones that were not captured.",
        |call, _| integer(Some(call.request.gap_bytes).filter(|bytes| *bytes > 0)),
    ),
    CallField::new(
        "call.response.gap.bytes",
        Kind::Bytes,
        "Of those of the answer, the ones that were not captured.",
        |call, _| integer(Some(call.response.gap_bytes).filter(|bytes| *bytes > 0)),
    ),
    CallField::new("call.complete", Kind::Boolean, "Whether all of it was seen.", |call, _| {
        Value::Boolean(call.is_complete())
    }),
    CallField::text("call.ending", "How it ended.", |call| Some(Cow::Borrowed(call.ending.name())))
        .values(Ending::NAMES),
    CallField::new(
        "call.inferred",
        Kind::Boolean,
        "Given where request and answer were put together under the assumption that the client waits for each answer: after a gap, \
         and on connections that were joined in the middle.",
        |call, _| if call.is_inferred { Value::Boolean(true) } else { Value::Absent },
    ),
];

fn http(call: &Call) -> Option<&HttpCall> {
    if let Detail::Http(http) = &call.detail { Some(http) } else { None }
}

fn dns(call: &Call) -> Option<&DnsCall> {
    if let Detail::Dns(dns) = &call.detail { Some(dns) } else { None }
}

fn postgresql(call: &Call) -> Option<&PostgresqlCall> {
    if let Detail::Postgresql(call) = &call.detail { Some(call) } else { None }
}

#[expect(clippy::unnecessary_wraps, reason = "what it is used in has an answer or none")]
fn borrowed(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

fn integer<N: Into<u64>>(number: Option<N>) -> Value<'static> {
    number.map_or(Value::Absent, |number| Value::Integer(number.into()))
}

/// Host and port of whom the request is for.
fn authority(http: &HttpCall) -> (&str, Option<u16>) {
    let host = http.host.as_deref().unwrap_or_default();
    // Colons within brackets belong to an address (RFC 3986 3.2.2).
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

/// The parts of the target; of one with scheme and authority, what is behind them (RFC 9112 3.2).
fn path_and_query(http: &HttpCall) -> (&str, Option<&str>) {
    let target = http.target.as_str();
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|letter| letter.is_ascii_alphabetic()) => {
            rest.find(['/', '?']).map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

impl std::fmt::Debug for CallField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CallField").field(&self.name).finish()
    }
}
