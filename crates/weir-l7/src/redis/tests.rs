use proptest::prelude::*;

use super::*;
use crate::{
    Part, Protocol,
    decoder::script::{self, Line, client, server},
};

fn shown(calls: &[Call]) -> Vec<String> {
    let line = |call: &Call| {
        let Detail::Redis(redis) = &call.detail else { panic!("{call:?}") };
        format!(
            "{}{} [{}] {} {} {}+{} {}",
            if redis.is_push { "> " } else { "" },
            redis.command,
            redis.text,
            call.status().unwrap_or("-".into()),
            redis.elements,
            call.request.bytes,
            call.response.bytes,
            call.ending.name(),
        )
    };
    calls.iter().map(line).collect()
}

#[track_caller]
fn check(script: &[Line], expected: &[&str]) -> Vec<Call> {
    let calls = script::calls(Protocol::Redis, Trust::Certain, script);
    assert_eq!(shown(&calls), expected);
    calls
}

/// A command as clients write it.
fn command(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}

#[test]
fn a_command_and_its_reply_are_a_call() {
    let script = [
        client(command(&["set", "key", "a value"])),
        server("+OK\r\n"),
        client(command(&["GET", "key"])),
        server("$7\r\na value\r\n"),
        client(command(&["GET", "none"])),
        server("$-1\r\n"),
        client(command(&["LRANGE", "key", "0", "-1"])),
        server("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        client(command(&["config", "get", "save", "port"])),
        server("*4\r\n$4\r\nsave\r\n$0\r\n\r\n$4\r\nport\r\n$4\r\n6379\r\n"),
    ];
    let expected = [
        "SET [set key \"a value\"] OK 1 35+5 complete",
        "GET [GET key] OK 1 22+13 complete",
        "GET [GET none] OK 0 23+5 complete",
        "LRANGE [LRANGE key 0 -1] WRONGTYPE 0 40+68 complete",
        "CONFIG GET [config get save port] OK 4 45+40 complete",
    ];
    let calls = check(&script, &expected);
    let Detail::Redis(redis) = &calls[3].detail else { panic!("{calls:?}") };
    assert_eq!(
        redis.error_message.as_deref(),
        Some("WRONGTYPE Operation against a key holding the wrong kind of value")
    );
}

#[test]
fn pipelined_and_inline_commands_get_their_replies_in_order() {
    let script = [
        client("PING\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\n  EXISTS   a b\r\n"),
        server("+PONG\r\n+PONG\r\n:"),
        server("2\r\n"),
    ];
    check(
        &script,
        &[
            "PING [PING] OK 1 6+7 complete",
            "PING [PING] OK 1 14+7 complete",
            "EXISTS [EXISTS a b] OK 1 16+4 complete",
        ],
    );
}

#[test]
fn a_transaction_is_its_commands_and_their_replies() {
    let script = [
        client(
            [command(&["MULTI"]), command(&["SELECT", "3"]), command(&["INCR", "a"]), command(&["EXEC"])]
                .concat(),
        ),
        server("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:1\r\n"),
        client(command(&["SELECT", "5"])),
        server("+OK\r\n"),
        client(command(&["DBSIZE"])),
        server(":0\r\n"),
    ];
    let expected = [
        "MULTI [MULTI] OK 1 15+5 complete",
        "SELECT [SELECT 3] OK 1 23+9 complete",
        "INCR [INCR a] OK 1 21+9 complete",
        "EXEC [EXEC] OK 2 14+13 complete",
        "SELECT [SELECT 5] OK 1 23+5 complete",
        "DBSIZE [DBSIZE] OK 1 16+4 complete",
    ];
    let calls = check(&script, &expected);
    let Detail::Redis(redis) = &calls[5].detail else { panic!("{calls:?}") };
    assert_eq!(redis.database, Some(5));
}

#[test]
fn channels_get_several_replies_and_messages_come_by_themselves() {
    let subscribed = |kind: &str, channel: &str, count| {
        format!("*3\r\n${}\r\n{kind}\r\n$1\r\n{channel}\r\n:{count}\r\n", kind.len())
    };
    let script = [
        client(command(&["SUBSCRIBE", "a", "b"])),
        server([subscribed("subscribe", "a", 1), subscribed("subscribe", "b", 2)].concat()),
        server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n"),
        client(command(&["PING"])),
        server("*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        client(command(&["UNSUBSCRIBE"])),
        server([subscribed("unsubscribe", "a", 1), subscribed("unsubscribe", "b", 0)].concat()),
        client(command(&["LRANGE", "l", "0", "9"])),
        server("*2\r\n$7\r\nmessage\r\n$1\r\nx\r\n"),
    ];
    let expected = [
        "SUBSCRIBE [SUBSCRIBE a b] OK 3 33+60 complete",
        "> message [a] OK 3 0+35 complete",
        "PING [PING] OK 2 14+20 complete",
        "UNSUBSCRIBE [UNSUBSCRIBE] OK 3 22+66 complete",
        "LRANGE [LRANGE l 0 9] OK 2 37+24 complete",
    ];
    check(&script, &expected);
}

#[test]
fn resp3_has_pushes_maps_attributes_and_more_kinds_of_values() {
    let script = [
        client(command(&["HELLO", "3"])),
        server("%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"),
        client(command(&["SUBSCRIBE", "a"])),
        server(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
        client(command(&["GET", "k"])),
        server(
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n|1\r\n+ttl\r\n:9\r\n_\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        ),
        client(
            [command(&["A"]), command(&["B"]), command(&["C"]), command(&["D"]), command(&["E"])].concat(),
        ),
        server("#t\r\n,1.5\r\n(123456789012345678901234567890\r\n=7\r\ntxt:abc\r\n!9\r\nERR wrong\r\n"),
        client(command(&["F"])),
        server("~2\r\n*1\r\n*0\r\n|1\r\n+a\r\n*1\r\n+b\r\n%0\r\n"),
    ];
    let expected = [
        "HELLO [HELLO 3] OK 2 22+42 complete",
        "SUBSCRIBE [SUBSCRIBE a] OK 3 26+30 complete",
        "> message [a] OK 3 0+32 complete",
        "GET [GET k] OK 0 20+17 complete",
        "> invalidate [] OK 2 0+32 complete",
        "A [A] OK 1 11+4 complete",
        "B [B] OK 1 11+6 complete",
        "C [C] OK 1 11+33 complete",
        "D [D] OK 1 11+13 complete",
        "E [E] ERR 0 11+15 complete",
        "F [F] OK 2 11+32 complete",
    ];
    check(&script, &expected);
}

#[test]
fn some_commands_want_no_reply() {
    let script = [
        client(
            [command(&["CLIENT", "REPLY", "SKIP"]), command(&["GET", "a"]), command(&["GET", "b"])].concat(),
        ),
        server("$1\r\nb\r\n"),
        client(
            [
                command(&["CLIENT", "REPLY", "OFF"]),
                command(&["GET", "c"]),
                command(&["CLIENT", "REPLY", "ON"]),
            ]
            .concat(),
        ),
        server("+OK\r\n"),
    ];
    let calls = script::calls(Protocol::Redis, Trust::Certain, &script);
    let answered: Vec<_> = calls.iter().map(|call| (call.target(), call.answered.is_some())).collect();
    let expected = [
        ("CLIENT REPLY SKIP", false),
        ("GET a", false),
        ("GET b", true),
        ("CLIENT REPLY OFF", false),
        ("GET c", false),
        ("CLIENT REPLY ON", true),
    ];
    assert_eq!(answered, expected);
}

#[test]
fn monitors_and_replicas_are_told_without_asking() {
    let script = [client("MONITOR\r\n"), server("+OK\r\n+1700000000.1 [0 127.0.0.1:1] \"get\" \"a\"\r\n")];
    check(
        &script,
        &[
            "MONITOR [MONITOR] OK 1 9+5 complete",
            "> monitor [1700000000.1 [0 127.0.0.1:1] \"get\" \"a\"] OK 1 0+41 complete",
        ],
    );
    let script = [
        client(command(&["PSYNC", "?", "-1"])),
        server("+FULLRESYNC 0123 0\r\n$5\r\nREDIS"),
        client(command(&["REPLCONF", "ACK", "0"])),
    ];
    check(&script, &["PSYNC [PSYNC ? -1] OK 1 30+20 complete"]);
}

#[test]
fn what_is_cut_or_against_the_rules_says_so() {
    check(&[client(command(&["GET", "a"])), server("$5\r\nab")], &["GET [GET a] - 0 20+6 cut"]);
    check(&[client(command(&["GET", "a"])), server("hello")], &["GET [GET a] - 0 20+0 malformed"]);
    check(&[client(command(&["GET", "a"])), server("$99999999999\r\n")], &["GET [GET a] - 0 20+0 malformed"]);
    check(&[client(command(&["SHUTDOWN"]))], &["SHUTDOWN [SHUTDOWN] - 0 18+0 no-answer"]);
    let nested = "*1\r\n".repeat(40);
    check(&[client(command(&["X"])), server(nested)], &["X [X] - 0 11+0 malformed"]);
    check(&[server("-ERR max number of clients reached\r\n")], &[" [] ERR 0 0+36 no-request"]);
}

#[test]
fn a_gap_within_a_string_is_counted_and_elsewhere_the_next_turn_is_understood() {
    let script = [
        client("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc"),
        Line::Gap(Part::Client, 97),
        client("\r\n"),
        server("+OK\r\n"),
        client(command(&["GET", "a"])),
        server("*2\r\n$1\r\n1\r\n$3\r\n"),
        Line::Gap(Part::Server, 3),
        server("\r\n"),
        client(command(&["GET", "b"])),
        Line::Gap(Part::Server, 4),
        server("+OK\r\n"),
        client(command(&["GET", "c"])),
        server(":7\r\n"),
    ];
    let expected = [
        "SET [set k abc] OK 1 128+5 complete".replace("set", "SET"),
        "GET [GET a] OK 2 20+20 complete".into(),
        "GET [GET b] - 0 20+0 gap".into(),
        "GET [GET c] OK 1 20+4 complete".into(),
    ];
    let calls = check(&script, &expected.each_ref().map(String::as_str));
    let complete: Vec<bool> = calls.iter().map(Call::is_complete).collect();
    assert_eq!(complete, [false, false, false, true]);
    assert!(calls[3].is_inferred);
}

/// Each command asks for a number and gets it.
fn conversation(lengths: &[u8], is_pipelined: bool) -> Vec<Line> {
    let mut script = Vec::new();
    let mut held: Vec<String> = Vec::new();
    for (number, length) in (100..).zip(lengths) {
        // What looks like commands and replies is in the strings.
        let fake = "*1\r\n$4\r\nFAKE\r\n+FAKE\r\n".repeat(usize::from(length % 3));
        script.push(client(command(&["ECHO", &number.to_string(), &fake])));
        held.push(format!("*2\r\n$3\r\n{number}\r\n${}\r\n{fake}\r\n", fake.len()));
        if !is_pipelined || length % 5 == 0 {
            script.push(server(std::mem::take(&mut held).concat()));
        }
    }
    if !held.is_empty() {
        script.push(server(held.concat()));
    }
    script
}

const WORDS: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n",
    b"MONITOR\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"+OK\r\n",
    b"-ERR x\r\n",
    b"*2\r\n",
    b"%1\r\n",
    b"|1\r\n",
    b"|0\r\n",
    b"$5\r\nhello\r\n",
    b"$-1\r\n",
    b":1\r\n",
    b"\r\n",
    b"$",
];

fn check_replies(calls: &[Call], with_inferred: bool) -> Result<(), TestCaseError> {
    for call in calls {
        let Detail::Redis(redis) = &call.detail else { panic!("{call:?}") };
        let is_answered =
            call.ending == Ending::Complete && call.answered.is_some() && call.request.position.is_some();
        // The bytes of the reply tell the number of the command: each is so much shorter than what was asked.
        if is_answered && (with_inferred || !call.is_inferred) {
            prop_assert_eq!(redis.elements, 2);
            prop_assert_eq!(call.request.bytes, call.response.bytes + 10, "{:?}", call);
        }
    }
    Ok(())
}

#[test]
fn anything_gives_the_same_calls_in_any_pieces() {
    script::anything_gives_the_same_calls_in_any_pieces(Protocol::Redis, WORDS);
}

#[test]
fn no_gap_gives_a_command_the_reply_of_another() {
    script::no_gap_gives_a_request_the_answer_of_another(Protocol::Redis, 0, conversation, check_replies);
}
