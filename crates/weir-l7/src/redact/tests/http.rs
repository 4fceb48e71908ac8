//! What the framing of HTTP does to secrets: nothing.

use std::fmt::Write as _;

use super::*;

/// Bodies that have secrets of every form, and what is left of them.
const BODIES: &[(&str, &str)] = &[
    ("{\"a\":1, \"password\" : \"ZZ\\\"ZZ\",\"b\":2}", "{\"a\":1, \"password\" : \"******\",\"b\":2}"),
    (
        "{\"a\":\"{\\\"token\\\":\\\"ZZ\\\"}\",\"url\":\"https://ZZ:ZZ@host/?b=c\"}",
        "{\"a\":\"{\\\"token\\\":\\\"**\\\"}\",\"url\":\"https://*****@host/?b=c\"}",
    ),
    ("user=me&password=ZZZ&client_secret=ZZ", "user=me&password=***&client_secret=**"),
    ("a eyJhZZciOi.eyJz-_.ZZ, b", "a eyJ*****************, b"),
    (
        "card 4111 1111 1111 1111, key AKIAIOSFODNN7ZZZMPLE.",
        "card *******************, key AKIA****************.",
    ),
    (
        "--b1\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n--Z\r\n\r\nZ\r\n--b1--\r\nme",
        "--b1\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n***\r\n\r\n*\r\n--b1--\r\nme",
    ),
];

const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The body in chunks that end at these places.
fn chunked(body: &str, ends: impl IntoIterator<Item = usize>, extension: &str) -> String {
    let mut framed = HEAD.to_owned();
    let mut start = 0;
    for end in ends.into_iter().chain([body.len()]) {
        if end > start {
            let chunk = &body[start..end];
            write!(framed, "{:x}{extension}\r\n{chunk}\r\n", chunk.len()).expect("a string takes any text");
            start = end;
        }
    }
    framed + "0\r\n\r\n"
}

fn shown(text: &str, ends: &[usize]) -> String {
    let sample = Sample { recognised: HTTP, part: Part::Server, bytes: text.as_bytes().to_vec() };
    String::from_utf8(redacted(&sample, ends)).expect("letters")
}

#[test]
fn no_secret_ends_at_the_end_of_a_chunk() {
    for (body, expected) in BODIES {
        let everywhere = || 0..body.len();
        let extension = ";of=\"abc\"";
        let masked = ";*********".get(..extension.len()).expect("as long");
        for place in everywhere() {
            assert_eq!(shown(&chunked(body, [place], ""), &[]), chunked(expected, [place], ""), "at {place}");
            let said = chunked(body, [place], extension);
            assert_eq!(shown(&said, &[]), chunked(expected, [place], masked), "at {place}");
        }
        let said = chunked(body, everywhere(), "");
        let expected = chunked(expected, everywhere(), "");
        assert_eq!(shown(&said, &[]), expected);
        // It makes no difference where the pieces are cut.
        for piece in [1, 2, 3, 5] {
            let ends: Vec<usize> = (0..said.len()).step_by(piece).collect();
            assert_eq!(shown(&said, &ends), expected, "in pieces of {piece}");
        }
    }
}

#[test]
fn lines_between_chunks_do_not_wait_without_end() {
    let extension = format!(";{}", "x".repeat(900));
    let masked = format!(";{}", "*".repeat(900));
    let body = "see http://user:pass";
    let said = chunked(body, 0..body.len(), &extension);
    assert_eq!(shown(&said, &[]), chunked("see http://*********", 0..body.len(), &masked));
}

#[test]
fn headers_behind_the_last_chunk_are_headers() {
    let said = HEAD.to_owned()
        + "3\r\nabc\r\n0\r\nX-Token: ZZ\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: ZZ\r\n\r\n";
    assert_eq!(shown(&said, &[]), said.replace("ZZ", "**"));
}

#[test]
fn a_secret_is_over_with_its_message() {
    for body in ["password=ZZ", "{\"token\":\"ZZ", "see http://user:ZZ@h/ or http://h"] {
        let length = body.len();
        let said = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}HTTP/1.1 204 No\r\nA: b\r\n\r\n"
        );
        let expected = said.replace("user:ZZ", "*******").replace("ZZ", "**").replace("//hHTTP", "//*HTTP");
        for cut in 0..said.len() {
            assert_eq!(shown(&said, &[cut]), expected, "cut at {cut}");
        }
    }
}

#[test]
fn coded_bodies_are_masked_as_a_whole() {
    let body = "\x1f\u{8}plain\0\r\n\r\ntext";
    let plain = "\r\n\r\n";
    let hidden = "*".repeat(body.len());
    let length = format!("Content-Length: {}", body.len());
    let cases = [
        (format!("Content-Encoding: gzip\r\n{length}"), true),
        (format!("{length}\r\ncontent-encoding: identity, BR"), true),
        ("Transfer-Encoding: gzip".to_owned(), true),
        (format!("Content-Encoding: identity\r\n{length}"), false),
        (length, false),
    ];
    for (headers, is_masked) in cases {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}{plain}");
        let expected = head.clone() + if is_masked { &hidden } else { body };
        assert_eq!(shown(&(head.clone() + body), &[]), expected, "{headers}");
        for cut in 0..head.len() + body.len() {
            assert_eq!(shown(&(head.clone() + body), &[cut]), expected, "{headers}, cut at {cut}");
        }
    }
    let coded = |text: &str| chunked(text, [3, 5], "").replace(": chunked", ": deflate, chunked");
    let behind = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(shown(&(coded(body) + behind), &[]), coded(&hidden) + behind);
}

#[test]
fn the_rest_of_a_coded_body_is_masked_behind_a_gap() {
    let mut redactor = Redactor::new(HTTP, false);
    let mut out = Out::default();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n9\r\nabc";
    say(&mut redactor, Part::Server, 0, head, &mut out);
    let gap =
        Chunk::Gap { position: head.len() as u64, time: Monotonic(2), length: 20, reason: GapReason::Lost };
    redactor.push(Part::Server, gap, &mut |chunk| out.take(chunk));
    say(&mut redactor, Part::Server, head.len() + 20, b"\r\nmore\r\n\r\nand more", &mut out);
    let shown = String::from_utf8(out.bytes.clone()).expect("letters");
    assert!(shown.ends_with(&format!("9\r\n***{}{}", "_".repeat(20), "*".repeat(18))), "{shown}");
    // A message is one again.
    let mut other = Out::default();
    say(&mut redactor, Part::Client, 0, b"GET / HTTP/1.1\r\n\r\n", &mut other);
    let position = out.bytes.len();
    say(&mut redactor, Part::Server, position, b"HTTP/1.1 200 OK\r\n\r\nplain", &mut out);
    assert!(out.bytes.ends_with(b"plain"));
}

#[test]
fn http_2_is_masked_however_a_connection_came_to_it() {
    for (preface, is_http2) in [("h2c", true), ("websocket", false)] {
        let mut redactor = Redactor::new(HTTP, false);
        let mut outs = [Out::default(), Out::default()];
        let asked = format!("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: {preface}\r\n\r\n");
        say(&mut redactor, Part::Client, 0, asked.as_bytes(), &mut outs[0]);
        let answered = format!("HTTP/1.1 101 Switching\r\nUpgrade: {preface}\r\n\r\n");
        say(&mut redactor, Part::Server, 0, (answered.clone() + "frames").as_bytes(), &mut outs[1]);
        say(&mut redactor, Part::Client, asked.len(), b"PRI * HTTP/2.0", &mut outs[0]);
        let [client, server] = outs.map(|out| String::from_utf8(out.bytes).expect("letters"));
        let as_shown = |text: &str| if is_http2 { "*".repeat(text.len()) } else { text.to_owned() };
        assert_eq!(client, asked + &as_shown("PRI * HTTP/2.0"));
        assert_eq!(server, answered + &as_shown("frames"));
    }
}
