//! What outputs write.

use jiff::tz::TimeZone;
use weir_datapath::tap::{Event, Role, Side, Totals, Transport, Way};
use weir_l7::Keep;

use super::{super::*, *};
use crate::signals::Stop;

const ASKED: &[u8] =
    b"POST /a?token=canary HTTP/1.1\r\nHost: shop\r\nCookie: canary\r\nContent-Length: 2\r\n\r\nhi";
const ANSWERED: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nno \x1b[31mthere";

/// What an output makes of one call of HTTP and the end of its connection.
fn written(make: impl FnOnce(Writer) -> Box<dyn Output>) -> String {
    written_of(ANSWERED, make)
}

/// The same, with another answer.
fn written_of(answered: &[u8], make: impl FnOnce(Writer) -> Box<dyn Output>) -> String {
    let target = Shared::default();
    let stop = Stop::never();
    let mut output = make(Writer::start(Box::new(target.clone()), "memory", stop, None).unwrap());
    let keep = Keep { headers: true, body_bytes: 100 };
    let mut session = session(SessionSettings { keep, ..SessionSettings::default() });
    let events = [
        Event::Opened(opened(7, Transport::Tcp, Some(Role::Client))),
        data(7, Way::Sent, 0, ASKED),
        data(7, Way::Received, 0, answered),
        closed(7, whole(ASKED.len()), whole(answered.len())),
    ];
    for event in &events {
        session.take(event, output.as_mut());
    }
    session.finish(START, output.as_mut());
    output.flush().unwrap();
    let summary =
        Summary { totals: Totals::default(), counts: session.counts().clone(), open: 0, end: START };
    output.finish(&summary).unwrap();
    let text = String::from_utf8_lossy(&target.taken()).into_owned();
    assert!(!text.contains("canary"), "{text}");
    text
}

#[test]
fn a_call_is_a_line_and_nothing_of_it_steers_a_terminal() {
    let text = written(|out| Box::new(Text::new(out, TimeZone::UTC, true, false)));
    let expected = [
        "23:33:50.001 curl[812] → POST http://shop/a?token=******  404  0.00 ms  85 B",
        "  > Host: shop",
        "  > Cookie: ******",
        "  > Content-Length: 2",
        "  > | hi",
        "  < Content-Type: text/plain",
        "  < Content-Length: 13",
        "  < | no ?[31mthere",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_connection_is_a_line_where_nothing_else_is_known() {
    let text = written(|out| Box::new(Text::new(out, TimeZone::UTC, false, true)));
    assert_eq!(text, "23:33:50.000 curl[812] → 10.0.0.2:8080 tcp  sent 82 B  received 85 B  1.00 s\n");
}

#[test]
fn a_call_is_an_object_with_the_names_of_opentelemetry() {
    let text = written(|out| Box::new(Json::new(out, true, false)));
    let call: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("http.request.method", "POST"),
        ("url.query", "token=******"),
        ("error.type", "404"),
        ("process.executable.name", "curl"),
        ("network.peer.address", "10.0.0.2"),
        ("tap.role", "client"),
        ("http.request.header.cookie", "******"),
        ("http.request.body.content", "hi"),
    ] {
        assert_eq!(call[name], value, "{name}: {text}");
    }
    assert_eq!(call["process.pid"], 812);
}

#[test]
fn an_archive_is_whole_json() {
    let text = written(|out| Box::new(Har::new(out)));
    let archive: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = &archive["log"]["entries"][0];
    assert_eq!(entry["request"]["url"], "http://shop/a?token=******");
    assert_eq!(entry["request"]["queryString"][0]["value"], "******");
    assert_eq!(entry["response"]["status"], 404);
    assert_eq!(entry["response"]["content"]["text"], "no \u{1b}[31mthere");
    assert_eq!(archive["log"]["version"], "1.2");
}

#[test]
fn an_archive_says_why_a_body_is_nothing_but_asterisks() {
    let comment = |coding: &str, body: &str| {
        let answered =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 5\r\n\r\n{body}");
        let text = written_of(answered.as_bytes(), |out| Box::new(Har::new(out)));
        let archive: serde_json::Value = serde_json::from_str(&text).unwrap();
        let content = &archive["log"]["entries"][0]["response"]["content"];
        (content["text"].to_string(), content["comment"].as_str().map(str::to_owned))
    };
    let (text, why) = comment("gzip", "zippd");
    assert_eq!(text, "\"*****\"");
    assert!(
        why.unwrap()
            .starts_with("masked as a whole, because nobody looks for secrets in what is coded (gzip)")
    );
    assert_eq!(comment("identity", "plain"), ("\"plain\"".to_owned(), None));
    assert_eq!(comment("identity", "*****"), ("\"*****\"".to_owned(), None));
}

#[test]
fn a_summary_says_what_became_of_every_byte() {
    let mut sent = Side { seen: 2000, captured: 1000, lost: 400, ..Side::default() };
    sent.gaps[0] = 600;
    let totals = Totals { calls: 9, rejected: 4, sent, ..Totals::default() };
    let counts = Counts { connections: 3, existing: 1, given: 1000, delivered: 1000, ..Counts::default() };
    let mut summary = Summary { totals, counts, open: 1, end: START };
    assert_eq!(summary.faults(), [""; 0]);
    assert_eq!(
        summary.to_string(),
        "captured 1,000 of 2,000 bytes, lost 400, limit 600\n\
         3 connections (1 of them were there before), 1 open at the end; 0 calls\n\
         9 calls of the system moved bytes, of which 4 were nobody's that a rule names"
    );
    summary.totals.sent.lost = 0;
    summary.counts.delivered = 999;
    assert_eq!(summary.faults().len(), 2);
}

#[test]
fn an_order_that_may_not_be_is_refused_and_payload_has_an_end() {
    let order = Order {
        selection: Selection { all: true, ..Selection::default() },
        wanted: Wanted::default(),
        role: None,
        payload: weir_datapath::tap::Payload::Full,
        limits: weir_datapath::tap::Limits::default(),
        ttl: None,
        owner: Owner { name: "me".to_owned(), user: 0 },
        reason: String::new(),
        is_redacted: true,
    };
    assert_eq!(order.clone().check().unwrap().ttl, Some(std::time::Duration::from_mins(10)));
    let nobody = Order { selection: Selection::default(), ..order.clone() };
    assert_eq!(nobody.check(), Err(OrderError::Nobody));
    let open = Order { is_redacted: false, ..order.clone() };
    assert_eq!(open.clone().check(), Err(OrderError::NoReason));
    assert!(Order { reason: "incident 5".to_owned(), ..open }.check().is_ok());
    let quiet = Order { payload: weir_datapath::tap::Payload::None, ..order.clone() };
    assert_eq!(quiet.check().unwrap().ttl, None);
    let long = "a-name-of-16-let".to_owned();
    let selection = Selection { commands: vec![long.clone()], ..Selection::default() };
    assert_eq!(Order { selection, ..order }.check(), Err(OrderError::Command(long)));
}

#[test]
fn the_audit_says_who_what_when_and_why_and_others_cannot_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below/tap.log");
    let order = Order {
        selection: Selection { pids: vec![5], ..Selection::default() },
        wanted: Wanted::default(),
        role: None,
        payload: weir_datapath::tap::Payload::Headers,
        limits: weir_datapath::tap::Limits::default(),
        ttl: None,
        owner: Owner { name: "alice".to_owned(), user: 1000 },
        reason: "incident 5".to_owned(),
        is_redacted: true,
    };
    let order = order.check().unwrap();
    for _ in 0..2 {
        let mut audit = Audit::open(&path).unwrap();
        audit.begin(&order, "standard output", START.wall).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["owner"], "alice");
    assert_eq!(lines[0]["reason"], "incident 5");
    assert_eq!(lines[0]["ttl_seconds"], 600.0);
    assert_eq!(lines[0]["rule"], "pid 5; payload headers");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
