mod gaps;

use proptest::prelude::*;

use super::*;
use crate::{
    Part, Protocol,
    decoder::script::{self, Line, client, server},
};

fn shown(calls: &[Call]) -> Vec<String> {
    let line = |call: &Call| {
        let Detail::Postgresql(detail) = &call.detail else { panic!("{call:?}") };
        format!(
            "{} [{}] {} rows={} affected={} {}+{} {}",
            detail.operation,
            detail.statement,
            call.status().unwrap_or("-".into()),
            detail.rows,
            detail.affected_rows.map_or("-".to_owned(), |rows| rows.to_string()),
            call.request.bytes,
            call.response.bytes,
            call.ending.name(),
        )
    };
    calls.iter().map(line).collect()
}

#[track_caller]
fn check(script: &[Line], expected: &[&str]) -> Vec<Call> {
    let mut whole = vec![client(startup()), server(ready_at_first())];
    whole.extend_from_slice(script);
    let calls = script::calls(Protocol::Postgresql, Trust::Certain, &whole);
    assert_eq!(shown(&calls[1..]), expected);
    calls
}

/// A message with a letter.
pub(super) fn message(letter: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len() + 4).unwrap();
    [&[letter][..], &length.to_be_bytes(), payload].concat()
}

fn first(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

pub(super) fn startup() -> Vec<u8> {
    first(3 << 16, b"user\0alice\0database\0shop\0\0")
}

pub(super) fn ready_at_first() -> Vec<u8> {
    [message(b'R', [0; 4]), message(b'S', b"a\0b\0"), message(b'K', [1; 8]), ready()].concat()
}

pub(super) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub(super) fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0"))
}

pub(super) fn tag(text: &str) -> Vec<u8> {
    message(b'C', format!("{text}\0"))
}

pub(super) fn row(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    message(b'D', [&[0, 1][..], &length.to_be_bytes(), text.as_bytes()].concat())
}

fn failure(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mit does not work\0\0"))
}

/// Parse, bind, execute.
pub(super) fn extended(text: &str) -> Vec<u8> {
    [
        message(b'P', format!("\0{text}\0\0\0")),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
    ]
    .concat()
}

#[test]
fn a_simple_query_is_a_call() {
    let script = [
        client(query("SELECT n FROM t")),
        server([message(b'T', [0; 20]), row("1"), row("2"), tag("SELECT 2"), ready()].concat()),
        client(query("insert into t values (1)")),
        server([tag("INSERT 0 1"), ready()].concat()),
        client(query("/* why */ -- not\n selec 1")),
        server([failure("42601"), ready()].concat()),
        client(query("SELECT 1; UPDATE t SET n = 2")),
        server(
            [
                message(b'T', [0; 6]),
                row("1"),
                tag("SELECT 1"),
                message(b'N', b"SNOTICE\0\0"),
                tag("UPDATE 7"),
                ready(),
            ]
            .concat(),
        ),
        client(query("")),
        server([message(b'I', b""), ready()].concat()),
        client(query("CREATE TABLE x ()")),
        server([tag("CREATE TABLE"), ready()].concat()),
        client(message(b'X', b"")),
    ];
    let expected = [
        "SELECT [SELECT n FROM t] OK rows=2 affected=2 21+69 complete",
        "INSERT [insert into t values (1)] OK rows=0 affected=1 30+22 complete",
        "SELEC [/* why */ -- not\n selec 1] 42601 rows=0 affected=- 31+51 complete",
        "UPDATE [SELECT 1; UPDATE t SET n = 2] OK rows=1 affected=8 34+57 complete",
        " [] OK rows=0 affected=- 6+11 complete",
        "CREATE TABLE [CREATE TABLE x ()] OK rows=0 affected=- 23+24 complete",
    ];
    let calls = check(&script, &expected);
    let Detail::Postgresql(detail) = &calls[3].detail else { panic!("{calls:?}") };
    assert_eq!(detail.error_message.as_deref(), Some("it does not work"));
    assert_eq!((detail.user.as_deref(), detail.database.as_deref()), (Some("alice"), Some("shop")));
    let Detail::Postgresql(detail) = &calls[4].detail else { panic!("{calls:?}") };
    assert_eq!(detail.statements, 2);
}

#[test]
fn getting_in_is_a_call_without_what_proves_it() {
    let script = [
        client(first(code::GSS, b"")),
        server("N"),
        client(first(code::TLS, b"")),
        server("N"),
        client(startup()),
        server(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
        client(message(b'p', b"SCRAM-SHA-256\0\0\0\0\x05n,,n=")),
        server(ready_at_first()),
    ];
    let calls = script::calls(Protocol::Postgresql, Trust::Certain, &script);
    assert_eq!(shown(&calls), ["CONNECT [] OK rows=0 affected=- 62+52 complete"]);
    assert!(!format!("{calls:?}").contains("n,,"));

    let refused = message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mno\0\0");
    let calls = script::calls(Protocol::Postgresql, Trust::Certain, &[client(startup()), server(refused)]);
    assert_eq!(shown(&calls), ["CONNECT [] 28P01 rows=0 affected=- 34+31 complete"]);

    let script =
        [client(first(code::TLS, b"")), server("S"), client("\x16\x03\x01rest"), server("\x16\x03\x03rest")];
    assert_eq!(script::calls(Protocol::Postgresql, Trust::Certain, &script), []);
    let calls = script::calls(Protocol::Postgresql, Trust::Certain, &[client(first(code::CANCEL, &[7; 8]))]);
    assert_eq!(shown(&calls), ["CANCEL [] OK rows=0 affected=- 16+0 complete"]);
}

#[test]
fn extended_queries_are_calls_with_the_text_that_was_prepared() {
    let answer = |rows: usize| {
        let rows = row("1").repeat(rows);
        [message(b'1', b""), message(b'2', b""), message(b'T', [0; 6]), rows, tag("SELECT 1")].concat()
    };
    let sync = message(b'S', b"");
    let script = [
        client([extended("SELECT $1"), sync.clone()].concat()),
        server([answer(1), ready()].concat()),
        // Several in flight.
        client([extended("SELECT 2"), sync.clone(), extended("SELECT 3"), sync.clone()].concat()),
        server([answer(2), ready(), answer(3), ready()].concat()),
        // A statement with a name, described, then executed in two portions.
        client([message(b'P', b"s1\0SELECT many\0\0\0"), message(b'D', b"Ss1\0"), sync.clone()].concat()),
        server([message(b'1', b""), message(b't', [0; 2]), message(b'T', [0; 6]), ready()].concat()),
        client(
            [message(b'B', b"p\0s1\0\0\0\0\0\0\0"), message(b'E', b"p\0\0\0\0\x01"), message(b'H', b"")]
                .concat(),
        ),
        server([message(b'2', b""), row("1"), message(b's', b"")].concat()),
        client(
            [message(b'E', b"p\0\0\0\0\x01"), message(b'C', b"Pp\0"), message(b'C', b"Ss1\0"), sync.clone()]
                .concat(),
        ),
        server([tag("SELECT 0"), message(b'3', b""), message(b'3', b""), ready()].concat()),
        client([message(b'B', b"\0s1\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), sync].concat()),
        server([message(b'2', b""), tag("DELETE 3"), ready()].concat()),
    ];
    let expected = [
        "SELECT [SELECT $1] OK rows=1 affected=1 48+47 complete",
        "SELECT [SELECT 2] OK rows=2 affected=1 47+59 complete",
        "SELECT [SELECT 3] OK rows=3 affected=1 47+71 complete",
        "SELECT [SELECT many] OK rows=1 affected=- 27+22 complete",
        "SELECT [SELECT many] OK rows=0 affected=0 11+14 complete",
        "DELETE [] OK rows=0 affected=3 25+19 complete",
    ];
    let calls = check(&script, &expected);
    assert!(calls.iter().all(Call::is_complete));
}

#[test]
fn an_error_belongs_to_the_statement_that_failed_and_those_behind_it_are_skipped() {
    let sync = message(b'S', b"");
    let script = [
        client([extended("SELEC 1"), extended("SELECT 2"), sync.clone()].concat()),
        server([failure("42601"), ready()].concat()),
        client([extended("SELECT 3"), extended("SELECT 4")].concat()),
        server(
            [
                message(b'1', b""),
                message(b'2', b""),
                message(b'T', [0; 6]),
                tag("SELECT 0"),
                message(b'1', b""),
                failure("22012"),
            ]
            .concat(),
        ),
        client([extended("SELECT 5"), sync.clone()].concat()),
        server(ready()),
        client([message(b'P', b"s\0SELECT wrong\0\0\0"), sync].concat()),
        server([failure("42703"), ready()].concat()),
    ];
    let expected = [
        "SELECT [SELECT 2] - rows=0 affected=- 47+0 skipped",
        "SELEC [SELEC 1] 42601 rows=0 affected=- 46+45 complete",
        "SELECT [SELECT 3] OK rows=0 affected=0 47+35 complete",
        "SELECT [SELECT 4] 22012 rows=0 affected=- 47+50 complete",
        "SELECT [SELECT 5] - rows=0 affected=- 47+0 skipped",
        "SELECT [SELECT wrong] 42703 rows=0 affected=- 22+45 complete",
    ];
    check(&script, &expected);
}

#[test]
fn copies_count_their_data() {
    let data = message(b'd', b"1\tone\n");
    let script = [
        client(query("COPY t FROM STDIN")),
        server(message(b'G', [0; 3])),
        client([data.clone(), data.clone(), message(b'c', b"")].concat()),
        server([tag("COPY 2"), ready()].concat()),
        client(query("COPY t TO STDOUT")),
        server(
            [message(b'H', [0; 3]), data.clone(), data.clone(), message(b'c', b""), tag("COPY 2"), ready()]
                .concat(),
        ),
        client(query("COPY t FROM STDIN")),
        server(message(b'G', [0; 3])),
        client([data.clone(), message(b'f', b"no\0")].concat()),
        server([failure("57014"), ready()].concat()),
        // In the extended protocol, what ends the group comes before the data and is said again behind it.
        client([extended("COPY t FROM STDIN"), message(b'S', b"")].concat()),
        server([message(b'1', b""), message(b'2', b""), message(b'n', b""), message(b'G', [0; 3])].concat()),
        client([data, message(b'c', b""), message(b'S', b"")].concat()),
        server([tag("COPY 1"), ready()].concat()),
        client(query("SELECT 1")),
        server([tag("SELECT 1"), ready()].concat()),
    ];
    let expected = [
        "COPY [COPY t FROM STDIN] OK rows=0 affected=2 50+26 complete",
        "COPY [COPY t TO STDOUT] OK rows=0 affected=2 22+53 complete",
        "COPY [COPY t FROM STDIN] 57014 rows=0 affected=- 42+59 complete",
        "COPY [COPY t FROM STDIN] OK rows=0 affected=1 72+35 complete",
        "SELECT [SELECT 1] OK rows=0 affected=1 14+20 complete",
    ];
    let calls = check(&script, &expected);
    assert_eq!((calls[1].request.body_bytes, calls[2].response.body_bytes), (12, 12));
}

#[test]
fn what_is_cut_or_against_the_rules_says_so() {
    check(&[client(query("SELECT 1"))], &["SELECT [SELECT 1] - rows=0 affected=- 14+0 no-answer"]);
    check(
        &[client(query("SELECT 1")), server(&row("1")[..8]), Line::Ends(Part::Server)],
        &["SELECT [SELECT 1] - rows=0 affected=- 14+8 cut"],
    );
    check(
        &[client(query("SELECT 1")), server("!HTTP")],
        &["SELECT [SELECT 1] - rows=0 affected=- 14+0 malformed"],
    );
    let terminated = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
    check(&[server(terminated.clone())], &[" [] 57P01 rows=0 affected=- 0+32 no-request"]);
    check(
        &[client(query("SELECT 1")), server(terminated)],
        &["SELECT [SELECT 1] 57P01 rows=0 affected=- 14+32 complete"],
    );
}

#[test]
fn names_and_texts_of_statements_are_bounded() {
    let mut statements = Statements::default();
    let text = "x".repeat(4096);
    for number in 0..1000 {
        statements.parse(format!("s{number}").as_bytes(), &text);
        statements.bind(format!("p{number}").as_bytes(), format!("s{number}").as_bytes());
    }
    let known =
        (0..1000).filter(|number| statements.of_portal(format!("p{number}").as_bytes()).is_some()).count();
    assert_eq!(known, 64);
    statements.parse(b"", "SELECT 1");
    statements.bind(b"", b"");
    assert_eq!(statements.of_portal(b"").as_deref(), Some("SELECT 1"));
}
