//! [`Text`]: one line per call, for people. With details, headers and the beginnings of bodies below it.
//!
//! ```text
//! 10:02:11.482 curl[812] → GET http://reviews:9080/reviews/3  200  12.4 ms  1230 B
//! 10:02:11.490 postgres[77] ← SELECT n FROM t WHERE id = $1 (shop)  OK  3 rows  0.8 ms  412 B
//! ```
//!
//! The arrow points to the server. `~` stands before a call whose answer was assumed to be its own. What was not captured of
//! it is said at the end.

use std::{fmt::Write as _, io, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use weir_flow::{Monotonic, Tick, format::printable};
use weir_l7::{
    Call, Ending, Part,
    call::{Detail, Header, HttpCall},
};

use super::{At, Ended, Head, Output, Summary, Writer, WriterError};
use crate::units::Size;

/// Letters of a statement or a target in a line.
const MOST_LETTERS: usize = 200;

/// Lines of text.
#[derive(Debug)]
pub struct Text {
    out: Writer,
    zone: TimeZone,
    /// Whether to add headers and bodies.
    has_details: bool,
    /// Whether connections are told, because nothing else is known.
    tells_connections: bool,
    line: String,
}

impl Text {
    /// Lines that go to `out`.
    pub fn new(out: Writer, zone: TimeZone, has_details: bool, tells_connections: bool) -> Self {
        Self { out, zone, has_details, tells_connections, line: String::new() }
    }

    fn begin(&mut self, at: &At<'_>, time: Monotonic) {
        self.line.clear();
        push_time(&mut self.line, &at.tick, time, &self.zone);
        push(
            &mut self.line,
            format_args!(" {}[{}] ", printable(&at.head.process), at.head.opened.process.pid),
        );
        self.line.push_str(match at.head.part {
            Some(Part::Client) => "→ ",
            Some(Part::Server) => "← ",
            None => "- ",
        });
    }
}

impl Output for Text {
    fn call(&mut self, at: &At<'_>, call: &Call) {
        if self.tells_connections {
            return;
        }
        self.begin(at, call.start);
        push_call(&mut self.line, at.head, call);
        self.line.push('\n');
        if self.has_details
            && let Detail::Http(http) = &call.detail
        {
            push_details(&mut self.line, http);
        }
        self.out.put(&self.line);
    }

    fn closed(&mut self, at: &At<'_>, ended: &Ended) {
        if !self.tells_connections {
            return;
        }
        self.begin(at, Monotonic(at.head.opened.time_ns));
        let (local, remote) = at.head.ends();
        match remote {
            Some(remote) => push(&mut self.line, format_args!("{remote} {}", at.head.transport())),
            None => push(&mut self.line, format_args!("{local} {}", at.head.transport())),
        }
        let [sent, received] = ended.sides.map(|side| side.seen + side.unseen.unwrap_or(0));
        let lasted = ended.time - Monotonic(at.head.opened.time_ns);
        push(
            &mut self.line,
            format_args!("  sent {}  received {}  {}\n", Size(sent), Size(received), Short(lasted)),
        );
        self.out.put(&self.line);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.hand_on()
    }

    fn finish(&mut self, _summary: &Summary) -> Result<(), WriterError> {
        self.out.finish()
    }
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a string takes any text");
}

fn push_time(line: &mut String, tick: &Tick, time: Monotonic, zone: &TimeZone) {
    let wall = Timestamp::from_nanosecond(i128::from(tick.wall_of(time).0)).unwrap_or_default();
    push(line, format_args!("{}", wall.to_zoned(zone.clone()).strftime("%H:%M:%S.%3f")));
}

/// A call, without who made it and when.
fn push_call(line: &mut String, head: &Head, call: &Call) {
    if call.is_inferred {
        line.push('~');
    }
    let what = what(head, call);
    let end = what.floor_char_boundary(MOST_LETTERS);
    line.push_str(&what[..end]);
    if end < what.len() {
        line.push('…');
    }
    match call.status() {
        Some(status) => push(line, format_args!("  {}", printable(&status))),
        None => push(line, format_args!("  ({})", call.ending.name())),
    }
    match &call.detail {
        Detail::Postgresql(detail) if detail.rows > 0 => push(line, format_args!("  {} rows", detail.rows)),
        Detail::Dns(detail) if !detail.answers.is_empty() => {
            push(line, format_args!("  {}", printable(&detail.answers.join(" "))));
        }
        Detail::Http(_) | Detail::Dns(_) | Detail::Postgresql(_) | Detail::Redis(_) => {}
    }
    if call.ending != Ending::NoRequest {
        push(line, format_args!("  {}", Short(call.duration())));
    }
    push(line, format_args!("  {}", Size(call.response.bytes)));
    let missing = call.request.gap_bytes + call.response.gap_bytes;
    if missing > 0 {
        push(line, format_args!("  ({} not captured)", Size(missing)));
    } else if call.status().is_some() && call.ending != Ending::Complete {
        push(line, format_args!("  ({})", call.ending.name()));
    }
    let message = match &call.detail {
        Detail::Postgresql(detail) => detail.error_message.as_deref(),
        Detail::Redis(detail) => detail.error_message.as_deref(),
        Detail::Http(_) | Detail::Dns(_) => None,
    };
    if let Some(message) = message {
        push(line, format_args!("  {}", printable(message)));
    }
}

/// What was asked, and of whom.
fn what(head: &Head, call: &Call) -> String {
    let remote = || head.ends().1.map(|remote| remote.to_string()).unwrap_or_default();
    let text = match &call.detail {
        Detail::Http(http) if http.method.is_empty() => "(answer)".to_owned(),
        Detail::Http(http) if http.target.contains("://") => format!("{} {}", http.method, http.target),
        Detail::Http(http) => {
            let host = http.host.clone().unwrap_or_else(remote);
            let scheme = if http.method == "CONNECT" { "" } else { "http://" };
            let target = if http.method == "CONNECT" { "" } else { http.target.as_str() };
            format!("{} {scheme}{host}{target}", http.method)
        }
        Detail::Dns(dns) => format!("DNS {} {}", call.operation(), dns.name),
        Detail::Postgresql(detail) => {
            let statement = if detail.statement.is_empty() { &detail.operation } else { &detail.statement };
            match &detail.database {
                Some(database) => format!("{statement} ({database})"),
                None => statement.clone(),
            }
        }
        Detail::Redis(redis) if redis.is_push => format!("{} {} (push)", redis.command, redis.text),
        Detail::Redis(redis) => if redis.text.is_empty() { &redis.command } else { &redis.text }.clone(),
    };
    // A statement of several lines is one line here.
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn push_details(line: &mut String, http: &HttpCall) {
    for (mark, headers, body) in
        [('>', &http.request_headers, &http.request_body), ('<', &http.response_headers, &http.response_body)]
    {
        for Header { name, value } in headers {
            push(line, format_args!("  {mark} {}: {}\n", printable(name), printable(value)));
        }
        match std::str::from_utf8(body) {
            Ok("") => {}
            Ok(text) => {
                for text in text.lines() {
                    push(line, format_args!("  {mark} | {}\n", printable(text)));
                }
            }
            Err(_) => push(line, format_args!("  {mark} | ({} that are no text)\n", Size(body.len() as u64))),
        }
    }
}

/// A time as people say it: `0.42 ms`, `12.4 ms`, `1.25 s`.
struct Short(Duration);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = self.0.as_secs_f64() * 1e3;
        if milliseconds < 10.0 {
            write!(f, "{milliseconds:.2} ms")
        } else if milliseconds < 1000.0 {
            write!(f, "{milliseconds:.1} ms")
        } else {
            write!(f, "{:.2} s", milliseconds / 1e3)
        }
    }
}
