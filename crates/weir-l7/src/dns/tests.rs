use super::*;
use crate::{
    Protocol,
    decoder::script::{self, Line, client, server},
    exchange::Trust,
};

/// A query for `example.com`, type A, as it is on the wire.
const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

/// Its response with one address and the code in the low four bits.
fn response(id: u16, code: u8) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, 1, 0, 0, 0, 0]);
    bytes.extend(&QUERY[12..]);
    bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x5d\xb8\xd8\x22");
    bytes
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

fn shown(calls: &[Call]) -> Vec<String> {
    let line = |call: &Call| {
        let Detail::Dns(dns) = &call.detail else { panic!("{call:?}") };
        let status = call.status().unwrap_or("-".into());
        let (operation, ending) = (call.operation(), call.ending.name());
        let answers = dns.answers.join(",");
        format!(
            "{operation} {} {status} {answers} {}+{} {ending}",
            dns.name, call.request.bytes, call.response.bytes
        )
    };
    calls.iter().map(line).collect()
}

#[test]
fn a_query_and_its_response_are_a_call() {
    let mut dns = Dns::new(false, false);
    let mut calls = Vec::new();
    let at = |time| Moment { position: 0, time: Monotonic(time) };
    let mut other = QUERY.to_vec();
    other[1] = 0x35;
    dns.bytes(Part::Client, at(1), QUERY, &mut calls);
    dns.bytes(Part::Client, at(2), &other, &mut calls);
    dns.bytes(Part::Server, at(3), &response(0x1235, 3), &mut calls);
    dns.bytes(Part::Server, at(5), &response(0x1234, 0), &mut calls);
    dns.bytes(Part::Server, at(6), &response(0x1234, 0), &mut calls);
    dns.bytes(Part::Server, at(6), b"short", &mut calls);
    dns.bytes(Part::Client, at(7), QUERY, &mut calls);
    dns.expire(Monotonic(7), &mut calls);
    assert_eq!(calls.len(), 3);
    dns.expire(Monotonic(8), &mut calls);
    dns.finish(Monotonic(8), &mut calls);
    let expected = [
        "A example.com NXDOMAIN 93.184.216.34 29+45 complete",
        "A example.com NOERROR 93.184.216.34 29+45 complete",
        "A example.com NOERROR 93.184.216.34 0+45 no-request",
        "A example.com -  29+0 no-answer",
    ];
    assert_eq!(shown(&calls), expected);
    assert_eq!(calls[1].latency(), Some(std::time::Duration::from_nanos(4)));
}

#[test]
fn messages_on_a_stream_have_their_length_in_front() {
    let script = [
        client([framed(QUERY), framed(QUERY)].concat()),
        server([framed(&response(0x1234, 0)), framed(&response(0x1234, 2))].concat()),
    ];
    let calls = script::calls(Protocol::Dns, Trust::Certain, &script);
    let expected = [
        "A example.com NOERROR 93.184.216.34 31+47 complete",
        "A example.com SERVFAIL 93.184.216.34 31+47 complete",
    ];
    assert_eq!(shown(&calls), expected);
}

#[test]
fn a_gap_on_a_stream_costs_its_message_and_no_other() {
    let response = framed(&response(0x1234, 0));
    let script = [
        client(framed(QUERY)),
        server(&response[..40]),
        Line::Gap(Part::Server, 7),
        client(&framed(QUERY)[..5]),
        Line::Gap(Part::Client, 99),
        client("lost"),
        server(&response),
        client(framed(QUERY)),
        server(&response),
    ];
    let calls = script::calls(Protocol::Dns, Trust::Certain, &script);
    let expected = [
        "A example.com NOERROR  31+47 complete",
        "A example.com NOERROR 93.184.216.34 0+47 no-request",
        "A example.com NOERROR 93.184.216.34 31+47 complete",
    ];
    assert_eq!(shown(&calls), expected);
    assert!(!calls[0].is_complete() && calls[2].is_complete());
}

#[test]
fn queries_without_responses_are_bounded() {
    let many = framed(QUERY).repeat(MOST_OPEN + 3);
    let calls = script::play(Protocol::Dns, Trust::Certain, &[client(many)], &mut || usize::MAX);
    assert_eq!(calls.len(), MOST_OPEN + 3);
    assert!(calls.iter().all(|call| call.ending == Ending::NoAnswer));
}

const WORDS: &[&[u8]] = &[
    b"\x00\x1d",
    b"\x00\x0c",
    b"\x00\x00",
    QUERY,
    b"\x12\x34\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\xff",
];

#[test]
fn anything_gives_the_same_calls_in_any_pieces() {
    script::anything_gives_the_same_calls_in_any_pieces(Protocol::Dns, WORDS);
}
