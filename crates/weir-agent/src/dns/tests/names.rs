//! Which name led to which address.

use super::*;

/// A client gets addresses for a name.
fn resolve(
    observer: &mut Observer,
    client: [u8; 4],
    name: &'static str,
    answers: &[Vec<u8>],
    time: Monotonic,
) {
    let dialogue = Dialogue { client, name, ..Dialogue::default() };
    dialogue.ask(observer, EDGE, time);
    dialogue.answer(observer, EDGE, (0, answers), time);
}

fn flow(from: [u8; 4], began: Monotonic) -> Record {
    record(tuple(protocol::TCP, (from, 50_000), (WEB, 443)), UPLINK.0, began)
}

fn name(observer: &mut Observer, from: [u8; 4], began: Monotonic) -> Option<String> {
    let mut record = flow(from, began);
    record.end_reason = Some(EndReason::Fin);
    completed(observer, record).destination.identity.dns_name.map(|name| name.to_string())
}

#[test]
fn a_flow_that_begins_after_the_answer_and_before_its_end_has_the_name() {
    let mut observer = observer();
    resolve(&mut observer, CLIENT, "www.example.com", &[address("www.example.com", 30, WEB)], at(0.0));
    for (began, expect) in [
        (-1.0, None),
        (-0.009, Some("www.example.com")),
        (0.1, Some("www.example.com")),
        (89.9, Some("www.example.com")),
        (90.1, None),
    ] {
        assert_eq!(name(&mut observer, CLIENT, at(began)).as_deref(), expect, "{began}");
    }
    // As the source, too.
    let record = record(tuple(protocol::UDP, (WEB, 443), (CLIENT, 50_000)), UPLINK.0, at(1.0));
    let identity = completed(&mut observer, record).source.identity;
    assert_eq!(identity.dns_name.as_deref(), Some("www.example.com"));
}

#[test]
fn a_flow_keeps_its_name_while_it_lives() {
    let mut observer = observer();
    resolve(&mut observer, CLIENT, "www.example.com", &[address("www.example.com", 30, WEB)], at(0.0));
    let mut record = completed(&mut observer, flow(CLIENT, at(1.0)));
    for minutes in 1..200 {
        let now = at(f64::from(60 * minutes));
        observer.expire(now);
        record.last = now;
        record.destination.identity = Identity::default();
        record = completed(&mut observer, record);
        assert_eq!(record.destination.identity.dns_name.as_deref(), Some("www.example.com"), "{minutes}");
    }
    assert_eq!(observer.fill().names, 0, "the name itself is long forgotten");
    record.end_reason = Some(EndReason::Fin);
    record = completed(&mut observer, record);
    assert!(record.destination.identity.dns_name.is_some());
    // The same ports, another flow.
    let next = flow(CLIENT, at(13_000.0));
    assert_eq!(completed(&mut observer, next).destination.identity.dns_name, None);
}

#[test]
fn the_name_is_the_one_that_was_asked_for() {
    let chain = |owner: &str, alias: &str, ttl| resource(owner, CNAME, ttl, &wire(alias));
    let alias = [
        chain("www.example.com", "edge.example.net", 300),
        chain("edge.example.net", "edge-7.example.net", 10),
        address("edge-7.example.net", 300, WEB),
    ];
    let reversed: Vec<Vec<u8>> = alias.iter().rev().cloned().collect();
    for answers in [&alias[..], &reversed] {
        let mut observer = observer();
        resolve(&mut observer, CLIENT, "www.example.com", answers, at(0.0));
        assert_eq!(name(&mut observer, CLIENT, at(69.0)).as_deref(), Some("www.example.com"));
        assert_eq!(name(&mut observer, CLIENT, at(71.0)), None, "the shortest time to live decides");
    }
    // Names that lead in a circle, and one that nobody asked for.
    let circle = [
        chain("www.example.com", "edge.example.net", 300),
        chain("edge.example.net", "www.example.com", 300),
        address("evil.example.com", 300, WEB),
    ];
    let mut observer = observer();
    resolve(&mut observer, CLIENT, "www.example.com", &circle, at(0.0));
    assert_eq!(name(&mut observer, CLIENT, at(1.0)), None);
}

#[test]
fn of_several_names_each_client_has_its_own() {
    let mut observer = observer();
    let mut learn = |client, asked, seconds| {
        resolve(&mut observer, client, asked, &[address(asked, 30, WEB)], at(seconds));
    };
    learn(CLIENT, "one.example.com", 0.0);
    learn(CLIENT, "two.example.com", 10.0);
    learn(OTHER_CLIENT, "three.example.com", 20.0);
    let stranger = [10, 0, 0, 3];
    for (client, began, expect) in [
        (CLIENT, 5.0, Some("one.example.com")),
        (CLIENT, 15.0, Some("two.example.com")),
        (CLIENT, 9.995, Some("one.example.com")),
        (CLIENT, 25.0, Some("two.example.com")),
        (OTHER_CLIENT, 25.0, Some("three.example.com")),
        (OTHER_CLIENT, 15.0, None),
        (stranger, 5.0, Some("one.example.com")),
        (stranger, 25.0, None),
        (stranger, 105.0, Some("three.example.com")),
    ] {
        assert_eq!(name(&mut observer, client, at(began)).as_deref(), expect, "{client:?} {began}");
    }
}

#[test]
fn an_answer_that_comes_again_prolongs_the_name() {
    let mut observer = observer();
    for seconds in [0.0, 60.0, 120.0] {
        let answers = [address("www.example.com", 30, WEB)];
        resolve(&mut observer, CLIENT, "www.example.com", &answers, at(seconds));
    }
    assert_eq!(observer.fill().names, 1);
    assert_eq!(name(&mut observer, CLIENT, at(209.0)).as_deref(), Some("www.example.com"));
    observer.expire(at(600.0));
    assert_eq!(observer.fill().names, 0);
}

#[test]
fn addresses_that_mean_nothing_get_no_name() {
    let mut observer = observer();
    let answers =
        [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 251]].map(|it| address("www.example.com", 30, it));
    resolve(&mut observer, CLIENT, "www.example.com", &answers, at(0.0));
    assert_eq!(observer.fill().names, 0);
}

#[test]
fn there_is_a_bound_for_names_and_what_exceeds_it_is_counted() {
    let mut observer = observer();
    let client = |number: u16| {
        let [high, low] = number.to_be_bytes();
        [10, 1, high, low]
    };
    let most = u16::try_from(crate::dns::names::MOST_OF_ADDRESS).expect("it is less than that");
    for number in 0..most + 5 {
        let answers = [address("www.example.com", 30, WEB)];
        resolve(&mut observer, client(number), "www.example.com", &answers, at(0.0));
    }
    assert_eq!(observer.fill().names, usize::from(most));
    assert_eq!(lost(&observer), [("names_full", 5)]);
    assert_eq!(name(&mut observer, client(most + 1), at(1.0)).as_deref(), Some("www.example.com"));
}

#[test]
fn one_client_fills_no_more_than_its_part() {
    let mut observer = observer();
    let most = crate::dns::names::MOST_OF_CLIENT;
    for number in 0..most + 5 {
        let [_, a, b, c] = number.to_be_bytes();
        let answers = [address("www.example.com", 30, [192, a, b, c])];
        resolve(&mut observer, CLIENT, "www.example.com", &answers, at(0.0));
    }
    let refused = |observer: &Observer| lost(observer).into_iter().find(|(name, _)| *name == "names_full");
    assert_eq!(refused(&observer), Some(("names_full", 5)));
    resolve(&mut observer, OTHER_CLIENT, "www.example.org", &[address("www.example.org", 30, WEB)], at(1.0));
    assert_eq!(name(&mut observer, OTHER_CLIENT, at(2.0)).as_deref(), Some("www.example.org"));
    // What is no longer valid makes room again.
    observer.expire(at(1000.0));
    resolve(&mut observer, CLIENT, "www.example.com", &[address("www.example.com", 30, WEB)], at(1001.0));
    assert_eq!(name(&mut observer, CLIENT, at(1002.0)).as_deref(), Some("www.example.com"));
    assert_eq!(refused(&observer), Some(("names_full", 5)));
}

#[test]
fn sums_of_flows_have_no_names() {
    let mut observer = observer();
    resolve(&mut observer, CLIENT, "www.example.com", &[address("www.example.com", 30, WEB)], at(0.0));
    let record = Record { detail: Detail::Folded, ..flow(CLIENT, at(1.0)) };
    assert_eq!(completed(&mut observer, record).destination.identity.dns_name, None);
}
