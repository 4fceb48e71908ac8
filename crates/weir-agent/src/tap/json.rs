//! [`Json`]: one object per call and line; one per connection where nothing of what was said is copied.
//!
//! Names are those of OpenTelemetry where it has one. What calls say of themselves comes from their table of fields.

use std::{borrow::Cow, io};

use weir_flow::{Monotonic, field::Value, format::json_object};
use weir_l7::{
    Call, Part,
    call::{Detail, FIELDS, Header},
};

use super::{At, Ended, Head, Output, Summary, Writer, WriterError, reference::CONNECTION};

/// Lines of JSON.
#[derive(Debug)]
pub struct Json {
    out: Writer,
    /// Whether to add headers and bodies.
    has_details: bool,
    /// Whether connections are told, because nothing else is known.
    tells_connections: bool,
    line: String,
}

impl Json {
    /// Lines that go to `out`.
    pub const fn new(out: Writer, has_details: bool, tells_connections: bool) -> Self {
        Self { out, has_details, tells_connections, line: String::new() }
    }
}

impl Output for Json {
    fn call(&mut self, at: &At<'_>, call: &Call) {
        if self.tells_connections {
            return;
        }
        let fields = FIELDS.iter().map(|field| (Cow::Borrowed(field.name), field.value(call, &at.tick)));
        let details = if self.has_details { details(call) } else { Vec::new() };
        self.line.clear();
        push(fields.chain(connection(at.head)).chain(details), &mut self.line);
        self.out.put(&self.line);
    }

    fn closed(&mut self, at: &At<'_>, ended: &Ended) {
        if !self.tells_connections {
            return;
        }
        self.line.clear();
        push(times(at, ended).into_iter().chain(connection(at.head)).chain(ledger(ended)), &mut self.line);
        self.out.put(&self.line);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.hand_on()
    }

    fn finish(&mut self, _summary: &Summary) -> Result<(), WriterError> {
        self.out.finish()
    }
}

type Named<'a> = (Cow<'static, str>, Value<'a>);

fn push<'a>(fields: impl Iterator<Item = Named<'a>>, line: &mut String) {
    // Names live as long as the object is being written.
    let fields: Vec<Named<'a>> = fields.collect();
    json_object(fields.iter().map(|(name, value)| (&**name, value.clone())), line);
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

/// Who talks to whom.
pub(super) fn connection(head: &Head) -> Vec<Named<'_>> {
    let (local, remote) = head.ends();
    let role = head.part.map(|part| if part == Part::Client { "client" } else { "server" });
    let located = head.container.as_deref();
    let container = located.and_then(|located| located.container.as_deref());
    let pod = located.and_then(|located| located.place.pod);
    let values = [
        Value::Integer(head.opened.process.pid.into()),
        text(&head.process),
        container.map_or(Value::Absent, |container| text(&container.id)),
        pod.map_or(Value::Absent, |pod| Value::Text(uid(pod.0).into())),
        text(head.transport()),
        Value::Address(local.ip()),
        Value::Integer(local.port().into()),
        remote.map_or(Value::Absent, |end| Value::Address(end.ip())),
        remote.map_or(Value::Absent, |end| Value::Integer(end.port().into())),
        role.map_or(Value::Absent, text),
        Value::Integer(head.number),
        Value::Integer(head.opened.rule.0.into()),
    ];
    CONNECTION.iter().zip(values).map(|((name, _), value)| (Cow::Borrowed(*name), value)).collect()
}

/// An identifier in groups, as Kubernetes writes it.
fn uid(number: u128) -> String {
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn times(at: &At<'_>, ended: &Ended) -> Vec<Named<'static>> {
    let start = Monotonic(at.head.opened.time_ns);
    vec![
        ("connection.start".into(), Value::Timestamp(at.tick.wall_of(start))),
        ("connection.duration".into(), Value::Duration(ended.time - start)),
    ]
}

/// What became of its bytes.
fn ledger(ended: &Ended) -> Vec<Named<'static>> {
    let mut fields: Vec<Named<'static>> = Vec::new();
    for (side, way) in ended.sides.iter().zip(["sent", "received"]) {
        for (name, bytes) in [("seen", side.seen), ("captured", side.captured), ("lost", side.lost)] {
            fields.push((format!("tap.{way}.{name}").into(), Value::Integer(bytes)));
        }
        for (bytes, (_, name)) in side.gaps.iter().zip(weir_datapath::tap::GapReason::ALL) {
            if *bytes > 0 {
                fields.push((format!("tap.{way}.gap.{name}").into(), Value::Integer(*bytes)));
            }
        }
        if let Some(unseen) = side.unseen {
            fields.push((format!("tap.{way}.unseen").into(), Value::Integer(unseen)));
        }
    }
    fields
}

/// Headers and the beginnings of bodies.
fn details(call: &Call) -> Vec<Named<'_>> {
    let Detail::Http(http) = &call.detail else { return Vec::new() };
    let mut fields: Vec<Named<'_>> = Vec::new();
    for (side, headers, body) in [
        ("request", &http.request_headers, &http.request_body),
        ("response", &http.response_headers, &http.response_body),
    ] {
        for (index, Header { name, value }) in headers.iter().enumerate() {
            let name = name.to_ascii_lowercase();
            // The value of one that comes again is told with it.
            let is_first = !headers[..index].iter().any(|before| before.name.eq_ignore_ascii_case(&name));
            let again: Vec<&str> = headers[index + 1..]
                .iter()
                .filter(|later| later.name.eq_ignore_ascii_case(&name))
                .map(|later| later.value.as_str())
                .collect();
            let is_told = side == "response" && name == "content-type";
            if is_first && !is_told {
                let value = std::iter::once(value.as_str()).chain(again).collect::<Vec<_>>().join(", ");
                fields.push((format!("http.{side}.header.{name}").into(), Value::Text(value.into())));
            }
        }
        if !body.is_empty() {
            let body = String::from_utf8_lossy(body);
            fields.push((format!("http.{side}.body.content").into(), Value::Text(body)));
        }
    }
    fields
}
