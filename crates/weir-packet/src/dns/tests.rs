use std::{string::ToString as _, vec, vec::Vec};

use proptest::{collection, prelude::*, sample};

use super::*;

/// A message with one question; `answers` are whole records.
fn message(flags: [u8; 2], question: &[u8], answers: &[&[u8]]) -> Vec<u8> {
    let count = u8::try_from(answers.len()).unwrap();
    let header = [0x12, 0x34, flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 0];
    [&header[..], question, &answers.concat()].concat()
}

/// `www.Example.com`, type A, class IN.
const QUESTION: &[u8] = b"\x03www\x07Example\x03com\x00\x00\x01\x00\x01";
/// `www.example.com` is `edge.example.net`; its `edge` is at offset 45.
const ALIAS: &[u8] = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x12\x04edge\x07example\x03net\x00";
const ADDRESS: &[u8] = b"\xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x01";
const ADDRESS6: &[u8] =
    b"\xc0\x2d\x00\x1c\x00\x01\x00\x00\x00\x1f\x00\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07";

fn told(bytes: &[u8]) -> Vec<(std::string::String, u32, std::string::String)> {
    let data = |data| match data {
        Data::Address(address) => address.to_string(),
        Data::Alias(name) => name.to_string(),
        Data::Other => "?".to_string(),
    };
    let answers = Message::new(bytes).unwrap().answers();
    answers.map(|answer| (answer.name.to_string(), answer.ttl, data(answer.data))).collect()
}

fn row(name: &str, ttl: u32, data: &str) -> (std::string::String, u32, std::string::String) {
    (name.to_string(), ttl, data.to_string())
}

#[test]
fn a_query_is_read() {
    let bytes = message([0x01, 0], QUESTION, &[]);
    let query = Message::new(&bytes).unwrap();
    assert_eq!(
        (query.id(), query.is_response(), query.opcode(), query.response_code()),
        (0x1234, false, 0, 0)
    );
    let question = query.question().unwrap();
    assert_eq!((question.name.to_string().as_str(), question.record_type), ("www.example.com", 1));
    assert_eq!(query.answers().count(), 0);
}

#[test]
fn answers_are_read_with_their_aliases() {
    let bytes = message([0x81, 0x83], QUESTION, &[ALIAS, ADDRESS, ADDRESS6]);
    let answer = Message::new(&bytes).unwrap();
    assert_eq!((answer.is_response(), answer.response_code()), (true, 3));
    let expected = [
        row("www.example.com", 60, "edge.example.net"),
        row("edge.example.net", 30, "192.0.2.1"),
        row("edge.example.net", 31, "2001:db8::7"),
    ];
    assert_eq!(told(&bytes), expected);
}

#[test]
fn of_a_cut_message_comes_what_is_before_the_cut() {
    let whole = message([0x81, 0x80], QUESTION, &[ALIAS, ADDRESS, ADDRESS6]);
    let all = told(&whole);
    let ends = [HEADER_BYTES + QUESTION.len(), ALIAS.len(), ADDRESS.len(), ADDRESS6.len()];
    for length in HEADER_BYTES..whole.len() {
        let mut end = 0;
        let complete = ends.iter().filter(|part| {
            end += **part;
            end <= length
        });
        let complete = complete.count();
        assert_eq!(told(&whole[..length]), all[..complete.saturating_sub(1)], "{length}");
        assert_eq!(Message::new(&whole[..length]).unwrap().question().is_some(), complete > 0, "{length}");
    }
    assert!(Message::new(&whole[..HEADER_BYTES - 1]).is_none());
}

#[test]
fn names_end_whatever_their_pointers_say() {
    let label = |length: u8| [vec![length], vec![b'x'; length.into()]].concat();
    let long = [label(63), label(63), label(63), label(61), vec![0]].concat();
    let too_long = [label(63), label(63), label(63), label(62), vec![0]].concat();
    for (text, is_read) in [
        (&b"\xc0\x0c"[..], false),
        (b"\x01a\xc0\x0c", false),
        (b"\x01a\xc0\x0d", false),
        (b"\xc0\xff", false),
        (b"\xc0", false),
        (b"\x40a\x00", false),
        (b"\x01a", false),
        (b"\x00", true),
        (b"\xc0\x04", true),
        (&long, true),
        (&too_long, false),
    ] {
        let mut bytes = message([0; 2], &[text, &[0, 1, 0, 1]].concat(), &[]);
        // A name that the header holds: offset 4 is the number of questions, 0 and 1.
        bytes[6] = 0;
        assert_eq!(Message::new(&bytes).unwrap().question().is_some(), is_read, "{text:?}");
    }
}

#[test]
fn names_are_shown_as_in_zone_files() {
    let question = b"\x05a.b\\c\x04 \xe4\"\x7f\x01_\x00\x00\x01\x00\x01";
    let bytes = message([0; 2], question, &[]);
    let name = Message::new(&bytes).unwrap().question().unwrap().name;
    assert_eq!(name.to_string(), r#"a\.b\\c.\032\228"\127._"#);
    let root = message([0; 2], b"\x00\x00\x02\x00\x01", &[]);
    assert_eq!(Message::new(&root).unwrap().question().unwrap().name.to_string(), ".");
}

#[test]
fn records_that_contradict_themselves_end_the_list() {
    let short = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x03\xc0\x00\x02";
    let chaos = b"\xc0\x0c\x00\x01\x00\x03\x80\x00\x00\x1e\x00\x03abc";
    let loose = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x03\xc0\x0cx";
    for wrong in [&short[..], loose] {
        let bytes = message([0x80, 0], QUESTION, &[chaos, wrong, ADDRESS]);
        assert_eq!(told(&bytes), [row("www.example.com", 0, "?")]);
    }
}

/// Names by their labels, without pointers.
fn wire(labels: &[Vec<u8>]) -> Vec<u8> {
    let label = |label: &Vec<u8>| [&[u8::try_from(label.len()).unwrap()][..], label].concat();
    labels.iter().flat_map(label).chain([0]).collect()
}

proptest! {
    #[test]
    fn nothing_panics_and_everything_ends(bytes in collection::vec(
        prop_oneof![any::<u8>(), sample::select(&[0u8, 1, 5, 12, 28, 0xc0][..])], 0..300,
    )) {
        if let Some(message) = Message::new(&bytes) {
            let question = message.question();
            let answers: Vec<Answer> = message.answers().collect();
            prop_assert!(answers.len() <= bytes.len());
            for name in question.map(|it| it.name).into_iter().chain(answers.iter().map(|it| it.name)) {
                let text = name.to_string();
                prop_assert!(text.is_ascii() && !text.is_empty());
                prop_assert!(name.labels().map(|label| label.len() + 1).sum::<usize>() < 255);
            }
        }
    }

    #[test]
    fn what_is_written_is_read(
        labels in collection::vec(collection::vec(any::<u8>(), 1..20), 1..8),
        record_type in any::<u16>(),
        ttl in 0u32..1 << 31,
        address in any::<[u8; 4]>(),
    ) {
        let question = [wire(&labels), record_type.to_be_bytes().to_vec(), vec![0, 1]].concat();
        let answer = [
            &b"\xc0\x0c\x00\x01\x00\x01"[..],
            &ttl.to_be_bytes(),
            &[0, 4],
            &address,
        ].concat();
        let bytes = message([0x80, 0], &question, &[&answer]);
        let message = Message::new(&bytes).unwrap();
        let question = message.question().unwrap();
        let lower: Vec<Vec<u8>> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
        prop_assert_eq!(question.name.labels().collect::<Vec<_>>(), lower);
        prop_assert_eq!(question.record_type, record_type);
        let answers: Vec<Answer> = message.answers().collect();
        prop_assert_eq!(
            answers,
            [Answer { name: question.name, ttl, data: Data::Address(IpAddr::from(address)) }]
        );
    }
}
