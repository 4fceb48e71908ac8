//! `Z` stands for every letter of a secret, and nowhere else. What is left of it is a star.

mod http;
mod pieces;

use proptest::prelude::*;

use super::*;
use crate::GapReason;

const HTTP: Recognised = Recognised::Protocol(Protocol::Http, Part::Client);
const REDIS: Recognised = Recognised::Protocol(Protocol::Redis, Part::Client);
const POSTGRESQL: Recognised = Recognised::Protocol(Protocol::Postgresql, Part::Client);

/// Something that one side says in a protocol.
struct Sample {
    recognised: Recognised,
    part: Part,
    bytes: Vec<u8>,
}

/// What comes out, put together by position.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    next: u64,
}

impl Out {
    fn take(&mut self, chunk: Chunk<'_>) {
        assert_eq!(chunk.position(), self.next, "out of order");
        self.next = chunk.end();
        match chunk {
            Chunk::Bytes { data, .. } => self.bytes.extend_from_slice(data),
            Chunk::Gap { length, .. } => {
                self.bytes.resize(self.bytes.len() + usize::try_from(length).expect("it is short"), b'_');
            }
        }
    }
}

fn say(redactor: &mut Redactor, part: Part, position: usize, data: &[u8], out: &mut Out) {
    let chunk = Chunk::Bytes { position: position as u64, time: Monotonic(1), data };
    redactor.push(part, chunk, &mut |chunk| out.take(chunk));
}

/// Says it in pieces that end at these places.
fn redacted(sample: &Sample, ends: &[usize]) -> Vec<u8> {
    let mut redactor = Redactor::new(sample.recognised, false);
    let mut out = Out::default();
    let mut start = 0;
    for end in ends.iter().copied().chain([sample.bytes.len()]) {
        say(&mut redactor, sample.part, start, &sample.bytes[start..end], &mut out);
        start = end;
    }
    redactor.end(sample.part, &mut |chunk| out.take(chunk));
    out.bytes
}

fn message(letter: u8, payload: &str) -> String {
    let length = u8::try_from(payload.len() + 4).expect("it is short");
    format!("{}\0\0\0{}{payload}", char::from(letter), char::from(length))
}

/// The first message of a client, without parameters: what comes later has letters.
fn started(messages: &str) -> String {
    format!("\0\0\0\x0e\0\x03\0\0user\0\0{messages}")
}

/// Binds values to a statement, as text.
fn bind(statement: &str, values: &[&str]) -> String {
    let value = |value: &&str| {
        format!("\0\0\0{}{value}", char::from(u8::try_from(value.len()).expect("it is short")))
    };
    let values_said: String = values.iter().map(value).collect();
    let count = char::from(u8::try_from(values.len()).expect("they are few"));
    message(b'B', &format!("\0{statement}\0\0\x01\0\0\0{count}{values_said}\0\0"))
}

fn command(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}

fn samples() -> Vec<Sample> {
    let http = [
        "GET /a?token=ZZZ&b=c&X-Amz-Signature=ZZ HTTP/1.1\r\nHost: a\r\nAuthorization: ZZZZZ ZZZ\r\nAccept: */*\r\n\r\n",
        "GET http://ZZ:ZZ@host:80/ HTTP/1.1\r\nproxy-authorization:ZZZ\r\nReferer: https://ZZ@b/?code=ZZ#x\r\nCOOKIE: \tZZ;ZZ\r\n\tZZ\r\n ZZ\r\nA: b\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://a/b:c@d?api_key=ZZ\r\nSet-Cookie: ZZZ\nX-Api-Key: ZZ\r\nX-Auth-Who: ZZ\r\nX-Vault-Token : ZZ\r\n\r\n{\"a\": 1, \"password\" : \"ZZ\\\"ZZ\", \"pin\":2,\"refresh_token\":ZZZ}\r\n",
        "POST /login HTTP/1.1\r\nContent-Length: 37\r\n\r\npassword=ZZZ&user=me&client_secret=ZZ",
        "GET / HTTP/1.1\r\nX-Secret-Key: ZZ\r\nX-Api-Key-V2: ZZ\r\nX-Token-Value: ZZ\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"AccessKeyId\":\"ZZ\",\"SecretAccessKey\" : \"ZZZ/Z\",\"secretKey\":\"ZZ\",\"encryption_key\":\"Z\",\"SPRING_DATASOURCE_HIKARI_DATA_SOURCE_PROPERTIES_PASSWORD\":\"ZZ\"}\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"a\":\"{\\\"password\\\": \\\"ZZ\\\\\\\"Z\\\", \\\"token\\\":ZZ,\\\"b\\\":{\\\"c\\\":1}}\", \"d\":\"{\\\"e\\\":\\\"{\\\\\\\"api_key\\\\\\\":\\\\\\\"ZZ\\\\\\\"}\\\"}\"}\r\n",
        "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=--XyXyXyXyXy1\r\n\r\n----XyXyXyXyXy1\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nme\r\n----XyXyXyXyXy1\r\nContent-Disposition: form-data; name=\"password\"; filename=a\r\nContent-Type: text/plain\r\n\r\n-----ZZZ\r\nZZ\r\n\r\nZ\r\n----XyXyXyXyXy1\r\ncontent-disposition: form-data; name=token\r\n\r\nZZ\r\n----XyXyXyXyXy1--\r\n",
        "POST / HTTP/1.1\r\n\r\nuser[password]=ZZ&user%5Bpassword%5D=ZZ&a=b",
        "GET / HTTP/1.1\r\nA: http://no-user/ \"http://ZZ:Z@Z@host\" ftp://[::1]/ x://\r\n\r\n",
    ];
    let redis = [
        command(&["AUTH", "ZZZ"]) + &command(&["GET", "a"]),
        command(&["auth", "ZZ", "ZZZ"]) + &command(&["SET", "auth", "plain"]),
        command(&["HELLO", "3", "AUTH", "ZZ", "ZZ", "SETNAME", "me"]),
        command(&["CONFIG", "SET", "requirepass", "ZZZ", "save", "1"]),
        command(&["ACL", "SETUSER", "me", "ZZZ", "ZZ"]),
        command(&["MIGRATE", "h", "1", "k", "0", "9", "AUTH2", "ZZ", "ZZ", "KEYS", "a"]),
        "PING\r\nAUTH ZZZ ZZ\r\nGET a\r\n  auth  ZZ\r\n".to_owned(),
    ];
    let postgresql = [
        started(&(message(b'p', "ZZZZZ") + &message(b'Q', "SELECT 1\0"))),
        started(&(message(b'Q', "ALTER ROLE a PASSWORD 'ZZ''ZZ'\0") + &message(b'p', "ZZZZZ"))),
        started(&message(b'Q', "create user a with password = E'ZZ\\'ZZ' ; SELECT 'password'\0")),
        started(&message(b'P', "\0ALTER ROLE a PASSWORD $ZZZ ZZ\0")),
        started(&message(b'Q', "CONNECTION 'host=a password=ZZZ user=b'; SELECT $1\0")),
        started(&message(b'Q', "SELECT 1 WHERE password = 'ZZ' AND passwords = 'x'\0")),
        started(&(message(b'P', "s\0UPDATE t SET password=$1\0\0\0") + &bind("s", &["ZZZ", "ZZ"]))),
    ];
    let mut samples: Vec<Sample> = http
        .iter()
        .flat_map(|text| {
            [HTTP, Recognised::Unknown].map(|recognised| (recognised, Part::Client, (*text).to_owned()))
        })
        .chain(redis.into_iter().map(|text| (REDIS, Part::Client, text)))
        .chain(postgresql.into_iter().map(|text| (POSTGRESQL, Part::Client, text)))
        .chain([
            (REDIS, Part::Server, "*2\r\n$11\r\nrequirepass\r\n$3\r\nZZZ\r\n$1\r\na\r\n".to_owned()),
            (
                POSTGRESQL,
                Part::Server,
                message(b'R', "\0\0\0\x05ZZZZ") + &message(b'K', "\0\0\0\x01ZZZZ") + &message(b'N', "a"),
            ),
            (POSTGRESQL, Part::Client, "\0\0\0\x10\x04\u{52}\x16\x2e\0\0\0\x09ZZZZ".to_owned()),
            (Recognised::Unknown, Part::Client, "USER me\r\nPASS ZZZ\r\nAUTH ZZZZZ ZZ\r\n".to_owned()),
        ])
        .map(|(recognised, part, text)| Sample {
            recognised,
            part,
            bytes: text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("Latin")).collect(),
        })
        .collect();
    for sample in &mut samples {
        // A code of PostgreSQL has a byte that is no letter, and a letter of it is the sign of secrets.
        if let Some(at) = sample.bytes.windows(4).position(|code| code == b"\x04\x52\x16\x2e") {
            sample.bytes[at + 1] = 0xd2;
        }
    }
    samples
}

#[test]
fn no_letter_of_a_secret_is_left() {
    for sample in samples() {
        let shown = redacted(&sample, &[]);
        assert_eq!(shown.len(), sample.bytes.len());
        assert!(!reveals(&shown), "{}", shown.escape_ascii());
    }
}

fn reveals(shown: &[u8]) -> bool {
    shown.contains(&b'Z')
}

#[test]
fn headers_queries_and_authorities_keep_their_form() {
    let cases: &[(Recognised, Part, &str, &str)] = &[
        (
            HTTP,
            Part::Client,
            "GET /?a=b&token=ZZ&c HTTP/1.1\r\nAuthorization: ZZ ZZ\r\nAge: 1\r\n\r\n",
            "GET /?a=b&token=**&c HTTP/1.1\r\nAuthorization: *****\r\nAge: 1\r\n\r\n",
        ),
        (HTTP, Part::Client, "A: http://u:Z@h/x http://h:80/\r\n", "A: http://***@h/x http://h:80/\r\n"),
        (HTTP, Part::Client, "Cookie: Z\r\n Z\r\nHost: a\r\n", "Cookie: *\r\n *\r\nHost: a\r\n"),
        (
            HTTP,
            Part::Client,
            "Cookie: Z\ra=\"b\"\r\n Z\r\n c: d\r\n",
            "Cookie: *\ra=\"b\"\r\n *\r\n ****\r\n",
        ),
        (
            HTTP,
            Part::Server,
            "{\"key\": \"k\", \"api_key\": \"Z\\\"Z\", \"id\": \"token\"}",
            "{\"key\": \"k\", \"api_key\": \"****\", \"id\": \"token\"}",
        ),
        (
            HTTP,
            Part::Server,
            "{\"tokens\": 3, \"token\": {\"a\": 1}, \"secret\": null}",
            "{\"tokens\": 3, \"token\": {\"a\": 1}, \"secret\": ****}",
        ),
        (HTTP, Part::Client, "http://", "http://"),
        (
            HTTP,
            Part::Server,
            "{\"Code\": \"Success\", \"SecretAccessKey\" : \"Z/Z+Z\", \"token_type\": \"Bearer\", \"max_tokens\": 5}",
            "{\"Code\": \"Success\", \"SecretAccessKey\" : \"*****\", \"token_type\": \"Bearer\", \"max_tokens\": 5}",
        ),
        (
            HTTP,
            Part::Server,
            "{\"a\":\"{\\\"password\\\":\\\"Z\\\\\\\"Z\\\",\\\"b\\\":1}\",\"c\":\"{\\\"token\\\":null}\"}",
            "{\"a\":\"{\\\"password\\\":\\\"*\\\\\\**\\\",\\\"b\\\":1}\",\"c\":\"{\\\"token\\\":****}\"}",
        ),
        (
            HTTP,
            Part::Client,
            "--b1\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nme\r\n--b1\r\nContent-Disposition: form-data; name=\"password\"\r\nA: b\r\n\r\n--Z\r\n\r\nZ\r\n--b1--\r\n\r\nme",
            "--b1\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nme\r\n--b1\r\nContent-Disposition: form-data; name=\"password\"\r\nA: b\r\n\r\n***\r\n\r\n*\r\n--b1--\r\n\r\nme",
        ),
        (
            HTTP,
            Part::Server,
            "Access-Control-Allow-Credentials: true\r\nX-RateLimit-Remaining-Tokens: 9\r\n",
            "Access-Control-Allow-Credentials: true\r\nX-RateLimit-Remaining-Tokens: 9\r\n",
        ),
        (HTTP, Part::Client, "http://abc", "http://***"),
        (REDIS, Part::Client, "*2\r\n$4\r\nAUTH\r\n$2\r\nZZ\r\n", "*2\r\n$4\r\nAUTH\r\n$2\r\n**\r\n"),
        (REDIS, Part::Client, "auth ZZ\r\nget auth x\r\n", "auth **\r\nget auth x\r\n"),
        (Recognised::Foreign(Foreign::Http2), Part::Client, "any", "***"),
        (Recognised::Foreign(Foreign::Tls), Part::Client, "token=any", "token=any"),
    ];
    for (recognised, part, text, expected) in cases {
        let sample = Sample { recognised: *recognised, part: *part, bytes: text.as_bytes().to_vec() };
        assert_eq!(String::from_utf8(redacted(&sample, &[])).expect("letters"), *expected);
    }
}

#[test]
fn statements_keep_their_form() {
    let cases = [
        ("ALTER ROLE a PASSWORD 'Z''Z' VALID UNTIL 'x'", "ALTER ROLE a PASSWORD '*'**' VALID UNTIL 'x'"),
        ("PASSWORD E'Z\\'Z' x", "PASSWORD E'****' x"),
        ("WHERE password = U&'ZZ' AND b = 'c'", "WHERE password = **'**' AND b = 'c'"),
        ("password = $1 AND name = 'x'", "password = $1 AND name = 'x'"),
        ("password $tag$ Z $tag$, 'a'", "password $*****************"),
        ("PASSWORD NULL; SELECT 'a'", "PASSWORD NULL; SELECT 'a'"),
        ("PASSWORD /* */ 'Z'", "PASSWORD /*********"),
        ("host=a password=ZZ dbname=b", "host=a password=** dbname=b"),
        ("SELECT password, 'a' FROM t", "SELECT password, 'a' FROM t"),
        ("SET passwords = 'a'", "SET passwords = 'a'"),
    ];
    for (statement, expected) in cases {
        let bytes = started(&message(b'Q', &format!("{statement}\0"))).into_bytes();
        let shown = redacted(&Sample { recognised: POSTGRESQL, part: Part::Client, bytes }, &[]);
        let shown = String::from_utf8(shown).expect("letters");
        assert_eq!(
            shown[19..].trim_end_matches('\0').trim_end_matches('*').len(),
            expected.trim_end_matches('*').len(),
            "{shown}"
        );
        assert_eq!(
            shown[19..].replace('\0', "").get(..expected.trim_end_matches('*').len()),
            Some(expected.trim_end_matches('*'))
        );
    }
}

#[test]
fn values_are_shown_for_statements_that_were_seen_to_need_no_password() {
    let prepare = |name: &str, statement: &str| message(b'P', &format!("{name}\0{statement}\0\0\0"));
    let plain = prepare("a", "SELECT $1") + &bind("a", &["x", "", "yy"]) + &message(b'S', "");
    let secret = prepare("a", "SET passwd = $1") + &bind("a", &["x", "", "yy"]) + &message(b'S', "");
    let again = plain.clone() + &secret + &plain;
    let cases = [
        (plain.clone(), plain.clone()),
        (secret.clone(), secret.replace("\x01x", "\x01*").replace("yy", "**")),
        (again, plain.clone() + &secret.replace("\x01x", "\x01*").replace("yy", "**") + &plain),
        (bind("b", &["x"]), bind("b", &["*"])),
    ];
    for (said, expected) in cases {
        let bytes = started(&said).into_bytes();
        let shown = redacted(&Sample { recognised: POSTGRESQL, part: Part::Client, bytes }, &[]);
        assert_eq!(String::from_utf8(shown).expect("letters"), started(&expected));
    }
}

#[test]
fn it_makes_no_difference_where_chunks_are_cut() {
    for sample in samples() {
        let whole = redacted(&sample, &[]);
        assert_eq!(whole.len(), sample.bytes.len());
        for cut in 0..sample.bytes.len() {
            assert_eq!(redacted(&sample, &[cut]), whole, "cut at {cut}");
        }
        let everywhere: Vec<usize> = (0..sample.bytes.len()).collect();
        assert_eq!(redacted(&sample, &everywhere), whole);
    }
}

#[test]
fn no_gap_reveals_a_secret() {
    for sample in samples() {
        let length = sample.bytes.len();
        for start in 0..length {
            for end in [start + 1, start + 2, start + 5, start + 17, start + 40] {
                let end = end.min(length);
                let mut redactor = Redactor::new(sample.recognised, false);
                let mut out = Out::default();
                say(&mut redactor, sample.part, 0, &sample.bytes[..start], &mut out);
                let gap = Chunk::Gap {
                    position: start as u64,
                    time: Monotonic(2),
                    length: (end - start) as u64,
                    reason: GapReason::Lost,
                };
                redactor.push(sample.part, gap, &mut |chunk| out.take(chunk));
                say(&mut redactor, sample.part, end, &sample.bytes[end..], &mut out);
                redactor.end(sample.part, &mut |chunk| out.take(chunk));
                assert!(!reveals(&out.bytes), "{start}..{end}: {}", out.bytes.escape_ascii());
                assert_eq!(out.bytes.len(), length);
            }
        }
    }
}

proptest! {
    #[test]
    fn anything_comes_out_as_long_as_it_went_in(
        pieces in prop::collection::vec((any::<bool>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::sample::select(vec!["http://", "\"token\":", "Cookie: ", "\r\n", "?key=", "*2\r\n$4\r\nAUTH\r\n", "Q\0\0\0\x10", "@"])
                .prop_map(|text| text.as_bytes().to_vec()),
        ], 0..30_u64), 0..20),
        kind in 0..6_usize,
        is_joined in any::<bool>(),
    ) {
        let kinds = [HTTP, REDIS, POSTGRESQL, Recognised::Unknown, Recognised::Foreign(Foreign::Http2), Recognised::Protocol(Protocol::Dns, Part::Client)];
        let mut redactor = Redactor::new(kinds[kind], is_joined);
        let mut outs = [Out::default(), Out::default()];
        let mut said = [0_u64; 2];
        for (is_client, data, gap) in &pieces {
            let part = if *is_client { Part::Client } else { Part::Server };
            let index = part as usize;
            let position = said[index];
            say(&mut redactor, part, usize::try_from(position).unwrap(), data, &mut outs[index]);
            said[index] += data.len() as u64;
            if *gap > 25 {
                let chunk = Chunk::Gap { position: said[index], time: Monotonic(1), length: *gap, reason: GapReason::Lost };
                redactor.push(part, chunk, &mut |chunk| outs[index].take(chunk));
                said[index] += gap;
            }
        }
        for part in [Part::Client, Part::Server] {
            redactor.end(part, &mut |chunk| outs[part as usize].take(chunk));
            prop_assert_eq!(outs[part as usize].next, said[part as usize]);
        }
    }
}
