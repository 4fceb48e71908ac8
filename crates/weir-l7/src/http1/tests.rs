mod gaps;

use proptest::prelude::*;

use super::{reader::MOST_HEAD, *};
use crate::{
    Protocol,
    decoder::script::{self, Line, client, server},
};

/// One line per call.
pub(super) fn shown(calls: &[Call]) -> Vec<String> {
    let line = |call: &Call| {
        let Detail::Http(http) = &call.detail else { panic!("{call:?}") };
        format!(
            "{} {} {} {}+{} {}+{} {}",
            if http.method.is_empty() { "-" } else { &http.method },
            if http.target.is_empty() { "-" } else { &http.target },
            http.status.map_or("-".to_owned(), |status| status.to_string()),
            call.request.bytes,
            call.request.body_bytes,
            call.response.bytes,
            call.response.body_bytes,
            call.ending.name(),
        )
    };
    calls.iter().map(line).collect()
}

#[track_caller]
fn check(script: &[Line], expected: &[&str]) -> Vec<Call> {
    let calls = script::calls(Protocol::Http, Trust::Certain, script);
    assert_eq!(shown(&calls), expected);
    calls
}

const GET: &str = "GET /hello HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/7.64.1\r\nAccept-Language: en, mi\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nDate: Mon, 27 Jul 2009 12:28:53 GMT\r\nServer: Apache\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nHello";

#[test]
fn a_request_and_its_answer_are_a_call() {
    let calls = check(&[client(GET), server(HELLO)], &["GET /hello 200 96+0 122+5 complete"]);
    let call = &calls[0];
    assert_eq!(
        (call.start, call.answered, call.end),
        (Monotonic(1_000_000), Some(Monotonic(2_000_000)), Monotonic(2_000_000))
    );
    assert!(call.is_complete() && !call.is_inferred);
    let Detail::Http(http) = &call.detail else { panic!("{call:?}") };
    assert_eq!(http.host.as_deref(), Some("www.example.com"));
    assert_eq!(http.user_agent.as_deref(), Some("curl/7.64.1"));
    assert_eq!(http.content_type.as_deref(), Some("text/plain"));
    assert_eq!(http.response_body, b"Hello");
    assert_eq!(http.request_headers.len(), 3);
    assert_eq!(http.request_headers[2].value, "en, mi");
}

#[test]
fn calls_follow_each_other_on_a_connection() {
    let script = [client(GET), server(HELLO), client(GET), server(HELLO)];
    let calls = check(&script, &["GET /hello 200 96+0 122+5 complete", "GET /hello 200 96+0 122+5 complete"]);
    assert_eq!(calls[1].request.position, Some(96));
    assert_eq!(calls[1].response.position, Some(122));
}

#[test]
fn pipelined_requests_get_their_answers_in_order() {
    let script = [
        client(
            "GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\n\r\nPUT /c HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        ),
        server(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
        ),
        server("HTTP/1.1 204 No Content\r\n\r\n"),
    ];
    let expected =
        ["GET /a 200 19+0 40+2 complete", "HEAD /b 304 20+0 49+0 complete", "PUT /c 204 41+3 27+0 complete"];
    check(&script, &expected);
}

#[test]
fn bodies_end_where_the_rules_say() {
    let get = "GET / HTTP/1.1\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\n\r\n";
    let cases: &[(&str, &str, &str)] = &[
        // RFC 9112 7.1: chunks, extensions, trailers.
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=\"a\"\r\nHello\r\n6 \r\n World\r\n0\r\nExpires: never\r\n\r\n",
            "GET / 200 18+0 98+11 complete",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "GET / 200 18+0 83+1 complete",
        ),
        // RFC 9112 6.3: a list of equal lengths is one length.
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nab",
            "GET / 200 18+0 62+2 complete",
        ),
        (get, "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nab", "GET / 200 18+0 41+0 malformed"),
        (get, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab", "GET / 200 18+0 39+0 malformed"),
        (head, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "HEAD / 200 19+0 38+0 complete"),
        (head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD / 200 19+0 47+0 complete"),
        (get, "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", "GET / 204 18+0 46+0 complete"),
        (
            get,
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / 304 18+0 57+0 complete",
        ),
        // RFC 9112 4: the reason may be empty. RFC 9112 2.2: lines may end with LF alone.
        (get, "HTTP/1.1 404 \nContent-Length: 0\n\n", "GET / 404 18+0 33+0 complete"),
        (get, "HTTP/1.1 404\r\nContent-Length:0\r\n\r\n", "GET / 404 18+0 34+0 complete"),
        // RFC 9112 5.2: a header goes on in the next line.
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n gzip,\r\n\tchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "GET / 200 18+0 68+1 complete",
        ),
        // The end of the connection is the end of the body, or comes too early.
        (get, "HTTP/1.0 200 OK\r\n\r\nto the end", "GET / 200 18+0 29+10 complete"),
        (get, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHello", "GET / 200 18+0 43+5 cut"),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n",
            "GET / 200 18+0 57+5 cut",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello!\r\n",
            "GET / 200 18+0 57+5 malformed",
        ),
        (get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "GET / 200 18+0 50+0 malformed"),
        (get, "HTTP/1.1 200 OK\r\nContent-Le", "GET / - 18+0 0+0 no-answer"),
        (get, "", "GET / - 18+0 0+0 no-answer"),
        (get, "SSH-2.0-OpenSSH_9.2\r\n", "GET / - 18+0 0+0 gap"),
        // Requests have bodies too, and may be answered early.
        (
            "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            "PUT / 201 40+3 43+0 complete",
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\na",
            "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
            "PUT / 413 38+1 45+0 early",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "POST / 200 60+3 38+0 complete",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            "POST / 400 44+0 47+0 malformed",
        ),
    ];
    let mut wrong = Vec::new();
    for (request, response, expected) in cases {
        let mut script = vec![client(request)];
        if !response.is_empty() {
            script.push(server(response));
        }
        script.push(Line::Ends(Part::Server));
        let calls = shown(&script::calls(Protocol::Http, Trust::Certain, &script));
        if calls != [*expected] {
            wrong.push(format!("{response:?}: {calls:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn interim_answers_come_before_the_one_that_counts() {
    let script = [
        client("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
        server("HTTP/1.1 100 Continue\r\n\r\n"),
        client("ab"),
        server("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    let calls = check(&script, &["POST / 200 62+2 103+0 complete"]);
    assert_eq!(calls[0].answered, Some(Monotonic(5_000_000)));
}

#[test]
fn after_an_upgrade_or_a_tunnel_it_is_another_protocol() {
    let script = [
        client("GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nGET /no HTTP/1.1\r\n\r\n"),
        client("GET /no HTTP/1.1\r\n\r\n"),
        Line::Gap(Part::Client, 10),
        server("HTTP/1.1 200 OK\r\n\r\n"),
    ];
    check(&script, &["GET /chat 101 63+0 56+0 complete"]);
    let script = [
        client("CONNECT example.com:443 HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 200 Established\r\n\r\n"),
        client("\x16\x03\x01GET / HTTP/1.1\r\n\r\n"),
    ];
    let calls = check(&script, &["CONNECT example.com:443 200 36+0 28+0 complete"]);
    let Detail::Http(http) = &calls[0].detail else { panic!("{calls:?}") };
    assert_eq!(http.host.as_deref(), Some("example.com:443"));
    let refused = [
        client("CONNECT example.com:443 HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 407 Who?\r\nContent-Length: 2\r\n\r\nno"),
    ];
    check(&refused, &["CONNECT example.com:443 407 36+0 42+2 complete"]);
    check(&[client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), server("HTTP/1.1 200 OK\r\n\r\n")], &[]);
}

#[test]
fn an_answer_without_a_request_and_a_request_that_comes_late_are_not_matched() {
    let script = [server("HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")];
    check(&script, &["- - 408 0+0 43+0 no-request"]);
    let mut decoder = Http1::new(Trust::Certain, Keep::default());
    let mut calls = Vec::new();
    let at = |time| Moment { position: 0, time: Monotonic(time) };
    decoder.bytes(Part::Server, at(5), b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &mut calls);
    decoder.bytes(Part::Client, at(5), b"GET /late HTTP/1.1\r\n\r\n", &mut calls);
    decoder.bytes(Part::Client, at(6), b"GET /next HTTP/1.1\r\n\r\n", &mut calls);
    decoder.bytes(Part::Server, at(7), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut calls);
    assert_eq!(
        shown(&calls),
        ["- - 500 0+0 38+0 no-request", "GET /late - 22+0 0+0 unmatched", "GET /next 200 22+0 38+0 complete"]
    );
    assert!(calls[2].is_inferred);
}

#[test]
fn heads_that_are_too_long_are_not_kept() {
    let long = "x".repeat(MOST_HEAD);
    check(&[client(format!("GET /{long} HTTP/1.1\r\n\r\n"))], &[]);
    check(&[client(format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n"))], &[]);
    let long = "x".repeat(9000);
    let calls = check(
        &[
            client("GET / HTTP/1.1\r\n\r\n"),
            server(format!("HTTP/1.1 200 OK\r\nA: {long}\r\nContent-Length: 0\r\n\r\n")),
        ],
        &["GET / 200 18+0 9043+0 complete"],
    );
    assert!(calls[0].is_complete());
}

#[test]
fn requests_without_answers_are_bounded() {
    let many = "GET / HTTP/1.1\r\n\r\n".repeat(crate::exchange::MOST_OPEN + 5);
    let calls = script::play(Protocol::Http, Trust::Certain, &[client(many)], &mut || usize::MAX);
    assert_eq!(calls.len(), crate::exchange::MOST_OPEN + 5);
    assert!(calls.iter().all(|call| !call.is_complete()));
}

const WORDS: &[&[u8]] = &[
    b"GET /a HTTP/1.1\r\n",
    b"HEAD /b HTTP/1.1\r\n",
    b"POST /c HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 C\r\n",
    b"HTTP/1.1 101 U\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"hello",
];

#[test]
fn anything_gives_the_same_calls_in_any_pieces() {
    script::anything_gives_the_same_calls_in_any_pieces(Protocol::Http, WORDS);
}
