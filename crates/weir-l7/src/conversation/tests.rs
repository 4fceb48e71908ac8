use proptest::prelude::*;

use super::*;
use crate::{Ending, GapReason};

/// What comes out, by way.
#[derive(Default)]
struct Out {
    said: [String; 2],
    next: [u64; 2],
    calls: Vec<Call>,
}

impl Sink for Out {
    fn chunk(&mut self, way: Way, chunk: Chunk<'_>) {
        let index = way as usize;
        assert_eq!(chunk.position(), self.next[index], "out of order");
        self.next[index] = chunk.end();
        match chunk {
            Chunk::Bytes { data, .. } => self.said[index].push_str(&String::from_utf8_lossy(data)),
            Chunk::Gap { length, .. } => {
                self.said[index].push_str(&"_".repeat(usize::try_from(length).expect("it is short")));
            }
        }
    }

    fn call(&mut self, call: Call) {
        self.calls.push(call);
    }
}

/// A conversation and where it is.
struct Talk {
    conversation: Conversation,
    out: Out,
    positions: [u64; 2],
    time: Monotonic,
}

impl Talk {
    fn new(settings: Settings) -> Self {
        let conversation = Conversation::new(settings);
        Self { conversation, out: Out::default(), positions: [0; 2], time: Monotonic(0) }
    }

    fn says(&mut self, way: Way, data: impl AsRef<[u8]>) -> &mut Self {
        let data = data.as_ref();
        self.time.0 += 1;
        let position = &mut self.positions[way as usize];
        let chunk = Chunk::Bytes { position: *position, time: self.time, data };
        *position += data.len() as u64;
        self.conversation.push(way, chunk, &mut self.out);
        self
    }

    fn gap(&mut self, way: Way, length: u64) -> &mut Self {
        self.time.0 += 1;
        let position = &mut self.positions[way as usize];
        let chunk = Chunk::Gap { position: *position, time: self.time, length, reason: GapReason::Limit };
        *position += length;
        self.conversation.push(way, chunk, &mut self.out);
        self
    }

    fn shown(&mut self) -> Vec<String> {
        self.conversation.finish(self.time, &mut self.out);
        let line = |call: &Call| {
            let status = call.status().unwrap_or("-".into()).into_owned();
            format!("{} {} {} {}", call.operation(), call.target(), status, call.ending.name())
        };
        self.out.calls.iter().map(line).collect()
    }
}

const SENT: Way = Way::Sent;
const RECEIVED: Way = Way::Received;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nok";

#[test]
fn what_is_spoken_is_found_out_and_understood_without_its_secrets() {
    let mut talk = Talk::new(Settings::default());
    assert_eq!(talk.conversation.recognised(), Recognised::Undecided);
    for byte in b"GET /?token=abc HTTP/1.1\r\nCookie: c\r\n\r\n" {
        talk.says(RECEIVED, [*byte]);
    }
    talk.says(SENT, OK);
    assert_eq!(talk.conversation.recognised(), Recognised::Protocol(Protocol::Http, Part::Server));
    assert!(talk.conversation.understands(SENT) && talk.conversation.understands(RECEIVED));
    assert_eq!(talk.shown(), ["GET /?token=*** 200 complete"]);
    assert!(talk.out.calls[0].is_complete());
    assert_eq!(talk.out.said[1], "GET /?token=*** HTTP/1.1\r\nCookie: *\r\n\r\n");
    assert_eq!(talk.out.said[0], OK.replace("a=b", "***"));
}

#[test]
fn secrets_are_shown_where_that_is_asked_for() {
    let mut talk = Talk::new(Settings { redaction: Redaction::Off, ..Settings::default() });
    talk.says(SENT, "*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n").says(RECEIVED, "+OK\r\n");
    assert_eq!(talk.shown(), ["AUTH AUTH x OK complete"]);
    let mut talk = Talk::new(Settings::default());
    talk.says(SENT, "*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n").says(RECEIVED, "+OK\r\n");
    assert_eq!(talk.shown(), ["AUTH AUTH * OK complete"]);
    assert_eq!(talk.out.said[0], "*2\r\n$4\r\nAUTH\r\n$1\r\n*\r\n");
}

#[test]
fn what_is_not_known_is_handed_on_masked_and_says_so() {
    let cases: &[(&[u8], Recognised, &str)] = &[
        (b"\x16\x03\x01\x02", Recognised::Foreign(Foreign::Tls), "\x16\x03\x01\x02"),
        (b"SSH-2.0-x\r\n", Recognised::Foreign(Foreign::Ssh), "SSH-2.0-x\r\n"),
        (b"PRI * HTTP/2.0\r\n\r\n", Recognised::Foreign(Foreign::Http2), "******************"),
        (b"EHLO a?token=b\r\nAUTH c\r\n", Recognised::Unknown, "EHLO a?token=*\r\nAUTH *\r\n"),
    ];
    for (bytes, recognised, shown) in cases {
        let mut talk = Talk::new(Settings::default());
        talk.says(SENT, bytes).says(RECEIVED, "220 ok\r\n");
        assert_eq!(talk.conversation.recognised(), *recognised);
        assert_eq!(talk.shown(), [""; 0]);
        assert_eq!(talk.out.said[0], *shown);
    }
    // Nobody waits for ever, and what waited is not lost.
    let mut talk = Talk::new(Settings::default());
    for _ in 0..PATIENCE {
        talk.says(SENT, "*");
    }
    assert_eq!(talk.conversation.recognised(), Recognised::Unknown);
    let mut talk = Talk::new(Settings::default());
    talk.says(SENT, "GE").gap(SENT, 3).says(SENT, "po").shown();
    assert_eq!(talk.out.said[0], "**___**");
}

#[test]
fn a_role_or_a_protocol_that_is_known_is_not_contradicted() {
    let mut talk = Talk::new(Settings { tapped: Some(Part::Server), ..Settings::default() });
    talk.says(SENT, "GET / HTTP/1.1\r\n\r\n").says(RECEIVED, "x");
    assert_eq!(talk.conversation.recognised(), Recognised::Unknown);
    let settings =
        Settings { tapped: Some(Part::Client), protocol: Some(Protocol::Redis), ..Settings::default() };
    let mut talk = Talk::new(settings);
    talk.says(SENT, "GET a\r\n").says(RECEIVED, "$-1\r\n");
    assert_eq!(talk.shown(), ["GET GET a OK complete"]);
}

#[test]
fn calls_of_one_protocol_alone_are_told_and_secrets_of_all_are_masked() {
    for wanted in [Protocol::Dns, Protocol::Redis, Protocol::Postgresql] {
        let settings = Settings { tapped: Some(Part::Client), protocol: Some(wanted), ..Settings::default() };
        let mut talk = Talk::new(settings);
        talk.says(SENT, "GET / HTTP/1.1\r\nAuthorization: canary\r\n\r\n").says(RECEIVED, OK);
        assert!(talk.shown().is_empty());
        assert!(talk.out.said[0].contains("Authorization: ******"), "{}", talk.out.said[0]);
    }
}

#[test]
fn a_connection_that_is_joined_in_the_middle_is_understood_later() {
    let mut talk = Talk::new(Settings { is_from_start: false, ..Settings::default() });
    talk.says(RECEIVED, format!("rest of a body{}", "x".repeat(99)));
    assert_eq!(talk.conversation.recognised(), Recognised::Unknown);
    talk.says(SENT, "GET /a HTTP/1.1\r\n\r\n").says(RECEIVED, OK);
    assert_eq!(talk.shown(), ["GET /a 200 complete"]);
    assert!(talk.out.calls[0].is_inferred);
}

#[test]
fn what_is_packed_and_has_no_beginning_is_masked_until_something_is_understood() {
    // A frame of HTTP/2 with headers, after another one that went before.
    let frame = b"\x00\x00\x09\x01\x04\x00\x00\x00\x01\x82\x10canary";
    let mut talk = Talk::new(Settings { is_from_start: false, ..Settings::default() });
    talk.says(SENT, frame).says(RECEIVED, b"canary without end").says(SENT, b"canary");
    assert_eq!(talk.conversation.recognised(), Recognised::Unknown);
    talk.says(RECEIVED, b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(talk.conversation.recognised(), Recognised::Protocol(Protocol::Http, Part::Client));
    talk.shown();
    assert!(talk.out.said[0].bytes().all(|byte| byte == b'*'), "{}", talk.out.said[0]);
    assert!(!talk.out.said[1].contains("canary"), "{}", talk.out.said[1]);
    // Text has no such bytes, and neither has anything to fear that is seen from its beginning.
    for (is_from_start, said) in [(false, &b"a line\r\nplain\t\x1b[1m"[..]), (true, frame)] {
        let mut talk = Talk::new(Settings { is_from_start, ..Settings::default() });
        talk.says(SENT, said).shown();
        assert!(!talk.out.said[0].ends_with('*'), "{}", talk.out.said[0]);
    }
}

#[test]
fn calls_follow_a_form_with_a_secret_at_its_end() {
    let mut talk = Talk::new(Settings::default());
    talk.says(SENT, "POST /login HTTP/1.1\r\nContent-Length: 14\r\n\r\npassword=hello").says(RECEIVED, OK);
    talk.says(SENT, "GET /next HTTP/1.1\r\n\r\n").says(RECEIVED, OK);
    assert_eq!(talk.shown(), ["POST /login 200 complete", "GET /next 200 complete"]);
}

#[test]
fn what_stands_behind_a_gap_in_a_body_is_shown_from_the_next_message_on() {
    let mut talk = Talk::new(Settings::default());
    talk.says(SENT, "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
    talk.says(RECEIVED, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nab").gap(RECEIVED, 10);
    talk.says(RECEIVED, "cdefghij").says(RECEIVED, OK);
    assert_eq!(talk.shown(), ["GET /a 200 complete", "GET /b 200 complete"]);
    assert!(talk.out.said[1].contains("ab__________********HTTP/1.1 200 OK\r\n"), "{}", talk.out.said[1]);
}

#[test]
fn datagrams_are_told_one_by_one() {
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    let mut response = query.to_vec();
    response[2] |= 0x80;
    let mut talk = Talk::new(Settings { transport: Transport::Datagram, ..Settings::default() });
    talk.says(SENT, "something else").says(SENT, query).says(RECEIVED, &response).says(SENT, query);
    talk.conversation.expire(Monotonic(99), &mut talk.out);
    assert_eq!(talk.shown(), ["A example.com NOERROR complete", "A example.com - no-answer"]);
    assert_eq!(talk.out.calls[1].ending, Ending::NoAnswer);
}

/// What anybody may say, in every protocol.
const WORDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"+OK\r\n",
    b"\0\0\0\x10\x00\x03\0\0user\0a\0\0",
    b"Q\0\0\0\x06a\0",
    b"Z\0\0\0\x05I",
    b"\x16\x03\x01",
    b"PRI * HTTP/2.0\r\n",
    b"http://",
    b"x",
];

#[test]
fn where_there_is_no_room_nothing_is_kept_and_requests_do_not_wait() {
    let keep = Keep { headers: true, body_bytes: 100 };
    let mut talk = Talk::new(Settings { keep, ..Settings::default() });
    let asked = "PUT /a HTTP/1.1\r\nA: bcd\r\nContent-Length: 10\r\n\r\n";
    talk.says(SENT, asked).says(SENT, "01234");
    let held = talk.conversation.load().held;
    let headers = "Abcd".len() + "Content-Length10".len();
    assert_eq!(held, crate::exchange::OPEN_CALL + (headers + 5) as u64);
    talk.conversation.be_brief(true);
    talk.says(SENT, "56");
    talk.conversation.be_brief(false);
    // What follows a part that is not there would be in the wrong place.
    talk.says(SENT, "789").says(RECEIVED, OK);
    assert_eq!(talk.conversation.load(), Load { held: 0, left_out: 5, cut: 0 });
    talk.conversation.be_brief(true);
    talk.says(SENT, asked).says(SENT, "0123456789").says(SENT, "GET /b HTTP/1.1\r\n\r\n");
    let left_out = (5 + asked.len() + 10 + "GET /b HTTP/1.1\r\n\r\n".len()) as u64;
    assert_eq!(talk.conversation.load(), Load { held: 0, left_out, cut: 1 });
    assert_eq!(talk.shown(), ["PUT /a 200 complete", "PUT /a - gap", "GET /b - unmatched"]);
    let crate::call::Detail::Http(http) = &talk.out.calls[0].detail else { panic!("{:?}", talk.out.calls) };
    assert_eq!((&http.request_body[..], &http.response_body[..]), (&b"01234"[..], &b"ok"[..]));
    assert_eq!(talk.out.calls[0].request.body_bytes, 10);
    let crate::call::Detail::Http(http) = &talk.out.calls[1].detail else { panic!("{:?}", talk.out.calls) };
    assert!(http.request_body.is_empty() && http.request_headers.is_empty());
}

proptest! {
    #[test]
    fn anything_goes_in_and_comes_out_at_the_same_place(
        lines in prop::collection::vec((any::<bool>(), prop_oneof![
            8 => prop::sample::select(WORDS).prop_map(<[u8]>::to_vec),
            2 => prop::collection::vec(any::<u8>(), 1..90),
        ], 0..30_u64), 0..20),
        port in prop::sample::select(vec![None, Some(53), Some(5432), Some(6379)]),
        protocol in prop::sample::select(vec![None, Some(Protocol::Http), Some(Protocol::Postgresql)]),
        tapped in prop::sample::select(vec![None, Some(Part::Client), Some(Part::Server)]),
        is_from_start in any::<bool>(),
        is_datagram in any::<bool>(),
        brief in prop::collection::vec(any::<bool>(), 20),
    ) {
        let transport = if is_datagram { Transport::Datagram } else { Transport::Stream };
        let keep = Keep { headers: true, body_bytes: 5 };
        let mut talk = Talk::new(Settings { transport, protocol, tapped, port, is_from_start, keep, ..Settings::default() });
        for ((is_sent, data, gap), is_brief) in lines.iter().zip(brief) {
            talk.conversation.be_brief(is_brief);
            let way = if *is_sent { SENT } else { RECEIVED };
            talk.says(way, data);
            if *gap > 25 {
                talk.gap(way, *gap);
            }
        }
        talk.shown();
        prop_assert_eq!(talk.out.next, talk.positions);
        prop_assert_eq!(talk.conversation.load().held, 0);
    }
}
