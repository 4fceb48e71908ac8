//! What gaps do, wherever they are.

use super::*;

#[test]
fn a_gap_within_a_row_is_counted_and_elsewhere_the_next_turn_is_understood() {
    let script = [
        client(query("SELECT a")),
        server(&row("0123456789")[..12]),
        Line::Gap(Part::Server, 9),
        server([tag("SELECT 1"), ready()].concat()),
        client(query("SELECT b")),
        server(row("1")),
        Line::Gap(Part::Server, 30),
        server([tag("SELECT 1"), ready()].concat()),
        client(query("SELECT c")),
        server([row("1"), tag("SELECT 1"), ready()].concat()),
        client(&query("SELECT d")[..7]),
        Line::Gap(Part::Client, 7),
        server([row("1"), tag("SELECT 1"), ready()].concat()),
    ];
    let expected = [
        "SELECT [SELECT a] OK rows=1 affected=1 14+41 complete",
        "SELECT [SELECT b] - rows=1 affected=- 14+12 gap",
        "SELECT [SELECT c] OK rows=1 affected=1 14+32 complete",
        "SELECT [SE] OK rows=1 affected=1 14+32 complete",
    ];
    let calls = check(&script, &expected);
    let complete: Vec<bool> = calls.iter().map(Call::is_complete).collect();
    assert_eq!(complete, [true, false, false, true, false]);
    assert!(calls[3].is_inferred);
}

/// Statements whose numbers of rows are told by their texts.
fn conversation(kinds: &[u8], is_pipelined: bool) -> Vec<Line> {
    let mut script = vec![client(startup()), server(ready_at_first())];
    let mut held = Vec::new();
    for (number, kind) in (1_usize..).zip(kinds) {
        let fake = String::from_utf8([query("9"), ready(), tag("SELECT 9")].concat()).unwrap();
        let answer = [row(&fake).repeat(number), tag(&format!("SELECT {number}"))].concat();
        let fake = fake.replace('\0', " ");
        if kind % 2 == 0 {
            script.push(client(query(&format!("SELECT {number} {fake}"))));
            held.extend([answer, ready()].concat());
        } else {
            let asked = [extended(&format!("SELECT {number} {fake}")), message(b'S', b"")].concat();
            script.push(client(asked));
            held.extend(
                [message(b'1', b""), message(b'2', b""), message(b'n', b""), answer, ready()].concat(),
            );
        }
        if !is_pipelined || kind % 5 == 0 {
            script.push(server(std::mem::take(&mut held)));
        }
    }
    if !held.is_empty() {
        script.push(server(held));
    }
    script
}

fn check_rows(calls: &[Call], with_inferred: bool) -> Result<(), TestCaseError> {
    for call in calls {
        let Detail::Postgresql(detail) = &call.detail else { panic!("{call:?}") };
        let asked = detail.statement.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
        let (Some(asked), Some(rows)) = (asked, detail.affected_rows) else { continue };
        if with_inferred || !call.is_inferred {
            prop_assert_eq!(asked, rows, "{:?}", call);
            prop_assert!(detail.rows <= rows);
        }
    }
    Ok(())
}

const WORDS: &[&[u8]] = &[
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\0\0\x10\x00\x03\0\0user\0a\0\0",
    b"Q\0\0\0\x06a\0",
    b"P\0\0\0\x08\0\0\0\0",
    b"B\0\0\0\x0c\0\0\0\0\0\0\0\0",
    b"E\0\0\0\x09\0\0\0\0\0",
    b"E\0\0\0\x09CX\0\0\0",
    b"S\0\0\0\x04",
    b"1\0\0\0\x04",
    b"2\0\0\0\x04",
    b"D\0\0\0\x06\0\0",
    b"C\0\0\0\x0dSELECT 1\0",
    b"Z\0\0\0\x05I",
    b"G\0\0\0\x07\0\0\0",
    b"d\0\0\0\x05x",
    b"c\0\0\0\x04",
    b"N",
];

#[test]
fn anything_gives_the_same_calls_in_any_pieces() {
    script::anything_gives_the_same_calls_in_any_pieces(Protocol::Postgresql, WORDS);
}

#[test]
fn no_gap_gives_a_statement_the_answer_of_another() {
    script::no_gap_gives_a_request_the_answer_of_another(Protocol::Postgresql, 1, conversation, check_rows);
}
