//! [`Har`]: HTTP calls as an HTTP archive (HAR 1.2), which browsers and many tools open.
//!
//! Calls of other protocols have no place in it; they are counted.

use std::{fmt::Write as _, io, time::Duration};

use weir_flow::{field::Value, format::json_text};
use weir_l7::{
    Call,
    call::{Detail, Header, HttpCall},
};

use super::{At, Output, Summary, Writer, WriterError};

/// An archive that is being written.
#[derive(Debug)]
pub struct Har {
    out: Writer,
    text: String,
    has_entries: bool,
    others: u64,
}

impl Har {
    /// Begins an archive.
    pub fn new(mut out: Writer) -> Self {
        out.put("{\"log\":{\"version\":\"1.2\",\"creator\":{\"name\":\"weir\",\"version\":\"");
        out.put(env!("CARGO_PKG_VERSION"));
        out.put("\"},\"entries\":[");
        Self { out, text: String::new(), has_entries: false, others: 0 }
    }
}

impl Output for Har {
    fn call(&mut self, at: &At<'_>, call: &Call) {
        let Detail::Http(http) = &call.detail else {
            self.others += 1;
            return;
        };
        self.text.clear();
        self.text.push_str(if self.has_entries { ",\n" } else { "\n" });
        self.has_entries = true;
        entry(at, call, http, &mut self.text);
        self.out.put(&self.text);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.hand_on()
    }

    fn finish(&mut self, _summary: &Summary) -> Result<(), WriterError> {
        self.out.put("\n],\"comment\":");
        self.text.clear();
        json_text(&format!("{} calls of other protocols are not in here", self.others), &mut self.text);
        self.out.put(&self.text);
        self.out.put("}}\n");
        self.out.finish()
    }
}

/// Appends names and values as members; text is quoted, numbers are not.
fn members(out: &mut String, members: &[(&str, &dyn std::fmt::Display, Is)]) {
    for (index, (name, value, is)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write!(out, "\"{name}\":").expect("a string takes any text");
        match is {
            Is::Text => json_text(&value.to_string(), out),
            Is::Number => write!(out, "{value}").expect("a string takes any text"),
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Number,
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn entry(at: &At<'_>, call: &Call, http: &HttpCall, out: &mut String) {
    let wait = call.latency().unwrap_or_default();
    let receive = call.duration().saturating_sub(wait);
    let version = format!("HTTP/1.{}", http.minor_version);
    out.push('{');
    let start = Value::Timestamp(at.tick.wall_of(call.start));
    members(
        out,
        &[("startedDateTime", &start, Is::Text), ("time", &milliseconds(call.duration()), Is::Number)],
    );
    out.push_str(",\"request\":{");
    let url = url(at, http);
    members(
        out,
        &[
            ("method", &http.method, Is::Text),
            ("url", &url, Is::Text),
            ("httpVersion", &version, Is::Text),
            ("headersSize", &head_size(call.request.bytes, call.request.body_bytes), Is::Number),
            ("bodySize", &call.request.body_bytes, Is::Number),
        ],
    );
    out.push_str(",\"cookies\":[],\"queryString\":[");
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    list(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))), out);
    out.push_str("],\"headers\":[");
    list(http.request_headers.iter().map(named), out);
    out.push(']');
    if !http.request_body.is_empty() {
        let kind = header(&http.request_headers, "content-type");
        out.push_str(",\"postData\":{");
        let body = String::from_utf8_lossy(&http.request_body);
        members(out, &[("mimeType", &kind, Is::Text), ("text", &body, Is::Text)]);
        comment(masked(&http.request_headers, &http.request_body), out);
        out.push('}');
    }
    out.push_str("},\"response\":{");
    members(
        out,
        &[
            ("status", &http.status.unwrap_or(0), Is::Number),
            ("statusText", &"", Is::Text),
            ("httpVersion", &version, Is::Text),
            ("redirectURL", &header(&http.response_headers, "location"), Is::Text),
            ("headersSize", &head_size(call.response.bytes, call.response.body_bytes), Is::Number),
            ("bodySize", &call.response.body_bytes, Is::Number),
        ],
    );
    out.push_str(",\"cookies\":[],\"headers\":[");
    list(http.response_headers.iter().map(named), out);
    out.push_str("],\"content\":{");
    content(call, http, out);
    out.push_str("}},\"cache\":{},\"timings\":{");
    members(
        out,
        &[
            ("send", &0, Is::Number),
            ("wait", &milliseconds(wait), Is::Number),
            ("receive", &milliseconds(receive), Is::Number),
        ],
    );
    out.push_str("},");
    let (local, remote) = at.head.ends();
    let server = if at.head.part == Some(weir_l7::Part::Server) { Some(local) } else { remote };
    let server = server.map(|server| server.ip().to_string()).unwrap_or_default();
    let comment = format!("{}, {}", at.head.who(), call.ending.name());
    members(
        out,
        &[
            ("serverIPAddress", &server, Is::Text),
            ("connection", &at.head.number.to_string(), Is::Text),
            ("comment", &comment, Is::Text),
        ],
    );
    out.push('}');
}

/// The body as text, or in base64 where it is none; as much of it as was kept.
fn content(call: &Call, http: &HttpCall, out: &mut String) {
    let kind = http.content_type.as_deref().unwrap_or_default();
    members(out, &[("size", &call.response.body_bytes, Is::Number), ("mimeType", &kind, Is::Text)]);
    if http.response_body.is_empty() {
        return;
    }
    out.push(',');
    if let Ok(text) = std::str::from_utf8(&http.response_body) {
        members(out, &[("text", &text, Is::Text)]);
    } else {
        let text = weir_flow::format::base64(&http.response_body);
        members(out, &[("encoding", &"base64", Is::Text), ("text", &text, Is::Text)]);
    }
    let kept = http.response_body.len() as u64;
    let cut = (kept < call.response.body_bytes).then(|| format!("the first {kept} bytes"));
    let masked = masked(&http.response_headers, &http.response_body);
    comment(cut.into_iter().chain(masked), out);
}

/// Why a body is nothing but asterisks, where that is because it is coded.
fn masked(headers: &[Header], body: &[u8]) -> Option<String> {
    let coding = header(headers, "content-encoding");
    let is_coded = !coding.is_empty() && !coding.eq_ignore_ascii_case("identity");
    (is_coded && body.iter().all(|byte| *byte == b'*')).then(|| {
        format!(
            "masked as a whole, because nobody looks for secrets in what is coded ({coding}): \
             let the client ask for Accept-Encoding: identity, or use --no-redact"
        )
    })
}

/// Appends a comment to an object, where there is something to say.
fn comment(remarks: impl IntoIterator<Item = String>, out: &mut String) {
    let remarks: Vec<String> = remarks.into_iter().collect();
    if !remarks.is_empty() {
        out.push(',');
        members(out, &[("comment", &remarks.join("; "), Is::Text)]);
    }
}

fn list<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut String) {
    for (index, (name, value)) in pairs.enumerate() {
        out.push_str(if index > 0 { ",{" } else { "{" });
        members(out, &[("name", &name, Is::Text), ("value", &value, Is::Text)]);
        out.push('}');
    }
}

fn named(header: &Header) -> (&str, &str) {
    (&header.name, &header.value)
}

fn header<'a>(headers: &'a [Header], name: &str) -> &'a str {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    found.map_or("", |header| header.value.as_str())
}

/// Bytes that are not of the body; -1 stands for unknown.
fn head_size(all: u64, body: u64) -> i64 {
    if all == 0 { -1 } else { i64::try_from(all.saturating_sub(body)).unwrap_or(i64::MAX) }
}

fn url(at: &At<'_>, http: &HttpCall) -> String {
    if http.target.contains("://") {
        return http.target.clone();
    }
    let (local, remote) = at.head.ends();
    let address = || remote.unwrap_or(local).to_string();
    format!("http://{}{}", http.host.clone().unwrap_or_else(address), http.target)
}
