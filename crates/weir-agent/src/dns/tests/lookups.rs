//! Queries and their responses.

use super::*;

fn talk(observer: &mut Observer, (ifindex, _): (u32, Role)) -> weir_flow::Dns {
    let tuple = Dialogue::default().tuple();
    completed(observer, record(tuple, ifindex, at(0.0))).dns.map(|dns| *dns).unwrap_or_default()
}

fn numbers(dns: &weir_flow::Dns) -> [u32; 4] {
    [dns.queries, dns.responses, dns.failures, dns.unanswered]
}

#[test]
fn a_lookup_seen_at_two_interfaces_is_one_and_is_told_at_both() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    dialogue.ask(&mut observer, EDGE, at(0.0));
    dialogue.ask(&mut observer, UPLINK, at(0.001));
    dialogue.answer(&mut observer, UPLINK, (3, &[]), at(0.021));
    dialogue.answer(&mut observer, EDGE, (3, &[]), at(0.022));
    observer.expire(at(60.0));
    let edge = observer.counts().role(Role::PodEdge);
    assert_eq!((edge.answered[3], edge.all_answered(), edge.unanswered), (1, 1, 0));
    assert_eq!(edge.duration, Duration::from_millis(21));
    assert_eq!(edge.durations.iter().position(|count| *count > 0), Some(6), "up to 25 ms");
    assert_eq!(*observer.counts().role(Role::Uplink), RoleCounts::default());
    for place in [EDGE, UPLINK] {
        let dns = talk(&mut observer, place);
        assert_eq!(numbers(&dns), [1, 1, 1, 0]);
        assert_eq!(dns.lookup_duration, Some(Duration::from_millis(21)));
        assert_eq!(dns.response_code.map(weir_flow::ResponseCode::name), Some("NXDOMAIN"));
        let question = dns.question.expect("it was asked");
        assert_eq!((&*question.name, &*question.record_type.name()), ("www.example.com", "A"));
        let again = talk(&mut observer, place);
        assert_eq!(numbers(&again), [0; 4], "it is counted once");
        assert_eq!(
            again.response_code.map(weir_flow::ResponseCode::name),
            Some("NXDOMAIN"),
            "and remembered"
        );
    }
    assert_eq!(lost(&observer), []);
}

#[test]
fn tags_of_a_vlan_make_no_second_lookup() {
    let (mut observer, plain) = (observer(), Dialogue::default());
    let tagged = Dialogue { vlan: Some(5), ..plain.clone() };
    plain.ask(&mut observer, EDGE, at(0.0));
    tagged.ask(&mut observer, UPLINK, at(0.0));
    tagged.answer(&mut observer, UPLINK, (0, &[]), at(0.1));
    observer.expire(at(60.0));
    assert_eq!(observer.counts().role(Role::PodEdge).answered[0], 1);
    assert_eq!(observer.counts().role(Role::PodEdge).unanswered, 0);
    let told = completed(&mut observer, record(tagged.tuple(), UPLINK.0, at(0.0))).dns;
    assert_eq!(told.map(|dns| numbers(&dns)), Some([1, 1, 0, 0]));
}

#[test]
fn a_query_without_response_is_told_after_five_seconds() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    dialogue.ask(&mut observer, EDGE, at(0.0));
    observer.expire(at(4.9));
    assert_eq!(numbers(&talk(&mut observer, EDGE)), [1, 0, 0, 0]);
    assert_eq!(observer.counts().role(Role::PodEdge).unanswered, 0);
    observer.expire(at(5.0));
    assert_eq!(observer.counts().role(Role::PodEdge).unanswered, 1);
    let dns = talk(&mut observer, EDGE);
    assert_eq!(numbers(&dns), [0, 0, 0, 1]);
    assert_eq!(dns.question.map(|question| question.name).as_deref(), Some("www.example.com"));
    dialogue.answer(&mut observer, EDGE, (0, &[]), at(5.1));
    assert_eq!(lost(&observer), [("unasked", 1)], "too late");
    assert_eq!(observer.fill().lookups, 0);
}

#[test]
fn a_query_that_is_sent_again_waits_from_then_on_and_is_still_one_lookup() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    for seconds in [0.0, 2.0, 4.0] {
        dialogue.ask(&mut observer, EDGE, at(seconds));
        dialogue.ask(&mut observer, UPLINK, at(seconds));
    }
    observer.expire(at(8.9));
    dialogue.answer(&mut observer, EDGE, (0, &[]), at(8.9));
    observer.expire(at(60.0));
    let counts = observer.counts().role(Role::PodEdge);
    assert_eq!((counts.all_answered(), counts.unanswered), (1, 0));
    assert_eq!(counts.duration, Duration::from_millis(8900), "for the client it took as long as that");
    assert_eq!(numbers(&talk(&mut observer, EDGE)), [3, 1, 0, 0]);
}

#[test]
fn a_number_that_is_used_again_is_another_lookup() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    dialogue.ask(&mut observer, EDGE, at(0.0));
    dialogue.answer(&mut observer, EDGE, (0, &[]), at(0.1));
    dialogue.ask(&mut observer, EDGE, at(0.2));
    dialogue.answer(&mut observer, EDGE, (0, &[]), at(0.3));
    // Another question takes the place of one that waits.
    dialogue.ask(&mut observer, EDGE, at(0.4));
    Dialogue { record_type: 28, ..dialogue.clone() }.ask(&mut observer, EDGE, at(0.5));
    observer.expire(at(60.0));
    let counts = observer.counts().role(Role::PodEdge);
    assert_eq!((counts.answered[0], counts.unanswered), (2, 2));
    assert_eq!(numbers(&talk(&mut observer, EDGE)), [4, 2, 0, 2]);
}

#[test]
fn a_response_that_was_not_asked_for_means_nothing() {
    let asked = Dialogue::default();
    for other in [
        Dialogue { client: OTHER_CLIENT, ..asked.clone() },
        Dialogue { port: PORT + 1, ..asked.clone() },
        Dialogue { protocol: protocol::TCP, ..asked.clone() },
        Dialogue { id: 78, ..asked.clone() },
        Dialogue { name: "evil.example.com", ..asked.clone() },
        Dialogue { record_type: 28, ..asked.clone() },
    ] {
        let mut observer = observer();
        asked.ask(&mut observer, EDGE, at(0.0));
        let answers = [address("www.example.com", 60, WEB), address("evil.example.com", 60, WEB)];
        other.answer(&mut observer, EDGE, (0, &answers), at(0.1));
        assert_eq!(lost(&observer), [("unasked", 1)]);
        assert_eq!(observer.fill(), Fill { lookups: 1, names: 0 });
        asked.answer(&mut observer, EDGE, (0, &answers), at(0.2));
        assert_eq!(observer.counts().role(Role::PodEdge).answered[0], 1);
        assert_eq!(observer.fill().names, 1);
    }
}

#[test]
fn who_refuses_may_leave_the_question_out() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    dialogue.ask(&mut observer, EDGE, at(0.0));
    let bytes = [0, 77, 0x80, 0x85, 0, 0, 0, 0, 0, 0, 0, 0];
    let body = Body { bytes: &bytes, is_cut: false };
    let tuple = dialogue.tuple().reversed();
    observer.hear(&DnsPacket { time: at(0.1), tuple, ifindex: EDGE.0, role: EDGE.1, body });
    assert_eq!(observer.counts().role(Role::PodEdge).answered[5], 1);
    assert_eq!(talk(&mut observer, EDGE).response_code.map(weir_flow::ResponseCode::name), Some("REFUSED"));
}

#[test]
fn there_is_a_bound_for_lookups_and_what_exceeds_it_is_counted() {
    let mut observer = observer();
    let most = u16::try_from(lookups_bound()).expect("it is less than that");
    for id in 0..most + 10 {
        Dialogue { id, ..Dialogue::default() }.ask(&mut observer, EDGE, at(0.0));
    }
    assert_eq!(observer.fill().lookups, usize::from(most));
    assert_eq!(lost(&observer), [("lookups_full", 10)]);
    observer.expire(at(5.0));
    assert_eq!(observer.counts().role(Role::PodEdge).unanswered, u64::from(most));
    Dialogue::default().ask(&mut observer, EDGE, at(6.0));
    assert_eq!(observer.fill().lookups, 1, "there is room again");
}

fn lookups_bound() -> usize {
    crate::dns::lookups::MOST_LOOKUPS
}

#[test]
fn the_last_record_of_a_flow_is_the_end_of_what_is_remembered() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    let told = |observer: &mut Observer, end_reason| {
        let record = Record { end_reason, ..record(dialogue.tuple(), EDGE.0, at(0.0)) };
        completed(observer, record).dns.and_then(|dns| dns.lookup_duration)
    };
    for (seconds, duration) in [(0.0, 0.3), (1.0, 0.1), (2.0, 0.2)] {
        dialogue.ask(&mut observer, EDGE, at(seconds));
        dialogue.answer(&mut observer, EDGE, (0, &[]), at(seconds + duration));
    }
    let milliseconds = |number| Some(Duration::from_millis(number));
    assert_eq!(told(&mut observer, None), milliseconds(300), "the longest");
    assert_eq!(told(&mut observer, None), milliseconds(300), "nothing new");
    for (seconds, duration) in [(10.0, 0.1), (11.0, 0.2)] {
        dialogue.ask(&mut observer, EDGE, at(seconds));
        dialogue.answer(&mut observer, EDGE, (0, &[]), at(seconds + duration));
    }
    assert_eq!(told(&mut observer, Some(EndReason::Idle)), milliseconds(200), "since the last record");
    assert_eq!(told(&mut observer, None), None);
}

#[test]
fn what_no_record_tells_is_forgotten_and_counted() {
    let (mut observer, dialogue) = (observer(), Dialogue::default());
    dialogue.ask(&mut observer, EDGE, at(0.0));
    dialogue.answer(&mut observer, EDGE, (0, &[]), at(0.1));
    observer.expire(at(600.0));
    assert_eq!(lost(&observer), []);
    observer.expire(at(700.0));
    assert_eq!(lost(&observer), [("no_record", 1)]);
    assert_eq!(numbers(&talk(&mut observer, EDGE)), [0; 4]);
}
