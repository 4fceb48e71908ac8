use proptest::prelude::*;

use super::*;

const HTTP: Recognised = Recognised::Protocol(Protocol::Http, Part::Client);
const POSTGRESQL: Recognised = Recognised::Protocol(Protocol::Postgresql, Part::Client);
const REDIS: Recognised = Recognised::Protocol(Protocol::Redis, Part::Client);
const DNS: Recognised = Recognised::Protocol(Protocol::Dns, Part::Client);
const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

/// What is told first of all beginnings of some bytes, and after how many of them.
fn told(bytes: &[u8], is_beginning: bool, hint: Option<Protocol>) -> (Recognised, usize) {
    for length in 1..=bytes.len() {
        let recognised = stream(&bytes[..length], is_beginning, hint);
        if recognised != Recognised::Undecided {
            return (recognised, length);
        }
    }
    (Recognised::Undecided, bytes.len())
}

#[test]
fn the_first_bytes_tell() {
    let unknown = Recognised::Unknown;
    let redis = Some(Protocol::Redis);
    let postgresql = Some(Protocol::Postgresql);
    let cases: &[(&[u8], Option<Protocol>, Recognised, usize)] = &[
        (b"GET / HTTP/1.1\r\n", None, HTTP, 13),
        (b"PROPFIND /a HTTP/1.1\r\n", None, HTTP, 19),
        (b"OPTIONS * HTTP/1.1\r\n", None, HTTP, 17),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n", None, HTTP, 25),
        (b"HTTP/1.1 200 OK\r\n", None, Recognised::Protocol(Protocol::Http, Part::Server), 7),
        (b"GET /\r\n", None, unknown, 6),
        (b"GETTY /", None, unknown, 4),
        (b"GET key\r\n", redis, REDIS, 4),
        (b"get key\r\n", None, unknown, 1),
        (b"PING\r\n", redis, REDIS, 6),
        (b"AUTH secret\r\n", redis, REDIS, 5),
        (b"*1\r\n$4\r\nPING\r\n", None, REDIS, 5),
        (b"*2\r\n:1\r\n", None, unknown, 5),
        (b"-ERR max\r\n", redis, Recognised::Protocol(Protocol::Redis, Part::Server), 4),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None, Recognised::Foreign(Foreign::Http2), 16),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, Recognised::Foreign(Foreign::Ssh), 4),
        (b"\x16\x03\x01\x02\x00", None, Recognised::Foreign(Foreign::Tls), 2),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", None, POSTGRESQL, 7),
        (b"\0\0\0\x29\0\x03\0\0user\0", None, POSTGRESQL, 7),
        (b"\0\0\0\x03rest", None, unknown, 4),
        (b"\0\0\0\x29\0\x02", None, unknown, 6),
        (b"Q\0\0\0\x0dSELECT 1\0", None, unknown, 1),
        (b"Q\0\0\0\x0dSELECT 1\0", postgresql, unknown, 1),
        (b"HELO example.com\r\n", None, unknown, 3),
        (b"\xff", None, unknown, 1),
    ];
    for (bytes, hint, expected, after) in cases {
        assert_eq!(told(bytes, true, *hint), (*expected, *after), "{:?}", bytes.escape_ascii().to_string());
    }
    // In the middle of a connection, the port says how to take a message.
    assert_eq!(told(b"Q\0\0\0\x0dSELECT 1\0", false, postgresql), (POSTGRESQL, 5));
    assert_eq!(told(b"Q\0\0\0\x0dSELECT 1\0", false, None).0, unknown);
    let framed = [&[0, 29][..], QUERY].concat();
    assert_eq!(told(&framed, true, Some(Protocol::Dns)), (DNS, 14));
    assert_eq!(told(&framed, true, None).0, unknown);
}

#[test]
fn datagrams_tell_by_themselves() {
    assert_eq!(datagram(QUERY, None), DNS);
    assert_eq!(datagram(QUERY, Some(Protocol::Dns)), DNS);
    assert_eq!(datagram(&QUERY[..20], None), Recognised::Unknown);
    assert_eq!(datagram(&QUERY[..20], Some(Protocol::Dns)), DNS);
    let mut response = QUERY.to_vec();
    response[2] |= 0x80;
    assert_eq!(datagram(&response, None), Recognised::Protocol(Protocol::Dns, Part::Server));
    assert_eq!(datagram(b"", Some(Protocol::Dns)), Recognised::Unknown);
    assert_eq!(by_port(6379), Some(Protocol::Redis));
    assert_eq!(by_port(80), None);
}

proptest! {
    #[test]
    fn nobody_waits_for_more_than_the_patience_allows(
        bytes in prop::collection::vec(any::<u8>(), PATIENCE..PATIENCE + 9),
        hint in prop::sample::select(vec![None, Some(Protocol::Redis), Some(Protocol::Dns), Some(Protocol::Postgresql)]),
        is_beginning in any::<bool>(),
    ) {
        prop_assert_ne!(stream(&bytes, is_beginning, hint), Recognised::Undecided);
        datagram(&bytes, hint);
    }
}
