//! What becomes of events: calls, chunks in order, and a ledger that adds up.

use std::{collections::BTreeMap, io, net::SocketAddr};

use proptest::prelude::*;
use weir_datapath::tap::{Event, Finished, GapReason, Role, Side, SocketId, Transport, Way};
use weir_flow::Tick;
use weir_l7::{Call, Chunk, GapReason as Reason, Keep};

use super::{super::*, *};

/// Keeps everything, and looks whether it comes in order.
#[derive(Debug, Default)]
struct Recorder {
    calls: Vec<Call>,
    /// Bytes by connection and way, gaps as underscores.
    said: BTreeMap<(u64, usize), Vec<u8>>,
    gaps: Vec<(u64, Reason)>,
    ended: Vec<Ended>,
    finished: usize,
}

impl Output for Recorder {
    fn chunk(&mut self, at: &At<'_>, way: weir_l7::Way, chunk: Chunk<'_>) {
        let said = self.said.entry((at.head.number, way as usize)).or_default();
        assert_eq!(chunk.position(), said.len() as u64, "out of order");
        match chunk {
            Chunk::Bytes { data, .. } => said.extend_from_slice(data),
            Chunk::Gap { length, reason, .. } => {
                self.gaps.push((length, reason));
                said.resize(said.len() + usize::try_from(length).unwrap(), b'_');
            }
        }
    }

    fn finished(&mut self, _at: &At<'_>, _way: weir_l7::Way, _time: Monotonic) {
        self.finished += 1;
    }

    fn call(&mut self, _at: &At<'_>, call: &Call) {
        self.calls.push(call.clone());
    }

    fn closed(&mut self, _at: &At<'_>, ended: &Ended) {
        self.ended.push(*ended);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> Result<(), WriterError> {
        Ok(())
    }
}

const ASKED: &[u8] = b"GET /a?token=canary HTTP/1.1\r\nHost: b\r\nAuthorization: canary\r\n\r\n";
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";

fn play(session: &mut Session, events: &[Event<'_>]) -> Recorder {
    let mut recorder = Recorder::default();
    for event in events {
        session.take(event, &mut recorder);
    }
    recorder
}

fn unmasked() -> SessionSettings {
    SessionSettings { redaction: weir_l7::conversation::Redaction::Off, ..SessionSettings::default() }
}

fn tcp(role: Role) -> Event<'static> {
    Event::Opened(opened(7, Transport::Tcp, Some(role)))
}

#[test]
fn a_connection_gives_its_calls_without_secrets_and_adds_up() {
    let mut session = session(SessionSettings::default());
    let (sent, received) = (ASKED.len(), ANSWERED.len());
    let fin = |way| Event::Finished(Finished { socket: SocketId(7), time_ns: at(900), way });
    let recorder = play(
        &mut session,
        &[
            tcp(Role::Client),
            data(7, Way::Sent, 0, &ASKED[..20]),
            data(7, Way::Sent, 20, &ASKED[20..]),
            data(7, Way::Received, 0, ANSWERED),
            fin(Way::Received),
            fin(Way::Sent),
            closed(7, whole(sent), whole(received)),
        ],
    );
    let [call] = recorder.calls.as_slice() else { panic!("{:?}", recorder.calls) };
    assert!(call.is_complete());
    assert_eq!((call.target(), call.status().as_deref()), ("/a?token=******", Some("200")));
    assert!(!String::from_utf8_lossy(&recorder.said[&(1, 0)]).contains("canary"));
    assert_eq!(recorder.said[&(1, 1)], ANSWERED);
    assert_eq!((recorder.finished, recorder.ended.len()), (2, 1));
    let counts = session.counts();
    assert_eq!((counts.connections, counts.closed, counts.unbalanced), (1, 1, 0));
    assert_eq!((counts.given, counts.delivered), ((sent + received) as u64, (sent + received) as u64));
    assert!(counts.is_balanced() && session.sockets() == 0);
}

#[test]
fn without_redaction_everything_is_shown_as_it_is() {
    let recorder = play(&mut session(unmasked()), &[tcp(Role::Client), data(7, Way::Sent, 0, ASKED)]);
    assert_eq!(recorder.said[&(1, 0)], ASKED);
}

#[test]
fn what_is_missing_shows_as_gaps_and_the_ledger_adds_up() {
    let body = Side { lost: 10, captured: 39, seen: 49, unseen: Some(0), ..Side::default() };
    let mut limited = Side { captured: 39, seen: 49, unseen: Some(0), ..Side::default() };
    limited.gaps[GapReason::Limit as usize] = 10;
    let untold = Side { untold: 10, ..limited };
    let unseen = Side { seen: 39, captured: 39, unseen: Some(10), ..Side::default() };
    let both = Side { seen: 44, lost: 5, captured: 39, unseen: Some(5), ..Side::default() };
    assert_eq!(ANSWERED.len(), 49);
    for (side, told, reason) in [
        (body, false, Reason::Lost),
        (limited, true, Reason::Limit),
        (untold, false, Reason::Lost),
        (unseen, false, Reason::Unseen),
        (both, false, Reason::Missing),
    ] {
        let mut session = session(SessionSettings::default());
        let mut events =
            vec![tcp(Role::Client), data(7, Way::Sent, 0, ASKED), data(7, Way::Received, 0, &ANSWERED[..39])];
        if told {
            events.push(gap(7, Way::Received, 39, 10, GapReason::Limit));
        }
        events.push(closed(7, whole(ASKED.len()), side));
        let recorder = play(&mut session, &events);
        assert_eq!(recorder.gaps, [(10, reason)]);
        assert_eq!(session.counts().unbalanced, 0, "{side:?}");
        let [call] = recorder.calls.as_slice() else { panic!("{:?}", recorder.calls) };
        assert_eq!((call.response.gap_bytes, call.ending.name()), (10, "complete"));
    }
}

#[test]
fn a_ledger_that_does_not_add_up_is_told() {
    let side = whole(ANSWERED.len());
    for wrong in [
        Side { seen: side.seen + 1, ..side },
        Side { captured: side.captured - 1, lost: 1, ..side },
        Side { unseen: Some(0), seen: side.seen + 5, captured: side.captured + 5, ..side },
    ] {
        let mut session = session(SessionSettings::default());
        let recorder = play(
            &mut session,
            &[tcp(Role::Server), data(7, Way::Received, 0, ANSWERED), closed(7, whole(0), wrong)],
        );
        assert_eq!(session.counts().unbalanced, 1, "{wrong:?}");
        assert!(!recorder.ended[0].is_balanced);
    }
}

#[test]
fn a_hole_waits_for_a_while_and_what_fills_it_comes_first() {
    let mut session = session(unmasked());
    let mut recorder = play(&mut session, &[tcp(Role::Client), data(7, Way::Sent, 3, b"def")]);
    assert_eq!(recorder.said, BTreeMap::new());
    assert_eq!(session.counts().waiting, 3);
    session.take(&data(7, Way::Sent, 0, b"abc"), &mut recorder);
    session.take(&data(7, Way::Sent, 9, b"jkl"), &mut recorder);
    let later = |milliseconds: u64| Tick { monotonic: Monotonic(at(milliseconds)), ..START };
    session.tick(later(20), &mut recorder);
    // Unknown protocols wait until there is enough to tell them.
    assert_eq!(session.counts().missing, 0);
    session.tick(later(400), &mut recorder);
    session.finish(later(500), &mut recorder);
    assert_eq!(recorder.said[&(1, 0)], b"abcdef___jkl");
    assert_eq!((session.counts().missing, session.counts().waiting), (3, 0));
    assert!(session.counts().is_balanced());
}

#[test]
fn bytes_whose_place_is_taken_are_counted_and_not_shown() {
    let mut session = session(unmasked());
    let side = Side { seen: 9, captured: 9, unseen: Some(0), ..Side::default() };
    let events = [
        tcp(Role::Client),
        data(7, Way::Sent, 0, b"abcdef"),
        data(7, Way::Sent, 3, b"xyz"),
        closed(7, side, whole(0)),
    ];
    let recorder = play(&mut session, &events);
    assert_eq!(recorder.said[&(1, 0)], b"abcdef___");
    assert_eq!((session.counts().duplicate, session.counts().unbalanced), (3, 0));
}

#[test]
fn datagrams_are_told_by_their_peers_and_put_together() {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(b"\x81\x83");
    let peers: [SocketAddr; 2] = ["10.0.0.9:1111".parse().unwrap(), "10.0.0.8:2222".parse().unwrap()];
    let mut session = session(SessionSettings::default());
    let mut socket = opened(3, Transport::Udp, None);
    (socket.remote, socket.local) = (None, "10.0.0.1:53".parse().unwrap());
    let mut events = vec![Event::Opened(socket)];
    for peer in peers {
        events.push(datagram(3, Way::Received, peer, query));
    }
    // One answer comes in two pieces.
    let split = |offset: u32, bytes| {
        let place = place(3, Way::Sent, offset.into(), answer.len());
        Event::Data(Data { place: Place { peer: Some(peers[0]), offset, ..place }, bytes })
    };
    events.extend([
        split(0, &answer[..7]),
        split(7, &answer[7..]),
        datagram(3, Way::Sent, peers[1], &answer),
    ]);
    // A socket alone is no connection.
    play(&mut session, &events[..1]);
    assert_eq!((session.sockets(), session.open()), (1, 0));
    let recorder = play(&mut session, &events[1..]);
    assert_eq!((session.sockets(), session.open()), (1, 2));
    assert_eq!(recorder.calls.len(), 2);
    assert!(
        recorder.calls.iter().all(|call| call.target() == "a" && call.is_complete()),
        "{:?}",
        recorder.calls
    );
    assert_eq!((session.counts().connections, session.sockets()), (2, 1));
    assert!(session.counts().is_balanced());
}

#[test]
fn datagrams_that_threads_send_at_once_stay_whole_and_cut_ones_have_a_gap() {
    let mut session = session(unmasked());
    let mut socket = opened(3, Transport::Udp, None);
    (socket.remote, socket.local) = (None, "10.0.0.1:5000".parse().unwrap());
    let peer: SocketAddr = "10.0.0.9:1111".parse().unwrap();
    let piece = |start: u64, length: usize, offset: u32, bytes| {
        let place = place(3, Way::Sent, start + u64::from(offset), length);
        Event::Data(Data { place: Place { peer: Some(peer), offset, ..place }, bytes })
    };
    let events = [
        Event::Opened(socket),
        // Two threads, each with a datagram in two pieces.
        piece(0, 6, 0, b"one".as_slice()),
        piece(6, 8, 0, b"four"),
        piece(0, 6, 3, b"two"),
        piece(6, 8, 4, b"five"),
        // The beginning of one is lost, and the end of another.
        piece(14, 9, 4, b"later"),
        piece(23, 7, 0, b"cut"),
    ];
    let mut recorder = play(&mut session, &events);
    session.finish(START, &mut recorder);
    assert_eq!(recorder.said[&(1, 0)], b"onetwofourfive_________cut____");
    assert_eq!(recorder.gaps, [(9, Reason::Lost), (4, Reason::Lost)]);
    let [ended] = recorder.ended.as_slice() else { panic!("{:?}", recorder.ended) };
    assert_eq!((ended.sides[0].seen, ended.sides[0].captured, ended.sides[0].gap()), (30, 17, 13));
    assert!(ended.is_balanced);
}

#[test]
fn silent_sockets_make_room_for_others_when_there_are_too_many() {
    let settings = SessionSettings { most_sockets: 8, ..SessionSettings::default() };
    let mut session = session(settings);
    let mut recorder = Recorder::default();
    for number in 0..7 {
        let mut silent = opened(number, if number < 4 { Transport::Tcp } else { Transport::Udp }, None);
        silent.remote = Some("10.0.0.2:9999".parse().unwrap());
        session.take(&Event::Opened(silent), &mut recorder);
    }
    let later = |seconds: u64| Tick { monotonic: Monotonic(at(seconds * 1000)), ..START };
    session.tick(later(5), &mut recorder);
    assert_eq!((session.sockets(), session.counts().forgotten), (7, 0));
    session.tick(later(15), &mut recorder);
    assert_eq!((session.sockets(), session.counts().forgotten), (4, 3), "datagrams first");
    for number in 10..14 {
        let mut recent = opened(number, Transport::Tcp, None);
        recent.time_ns = at(50_000);
        session.take(&Event::Opened(recent), &mut recorder);
    }
    session.tick(later(70), &mut recorder);
    assert_eq!((session.sockets(), session.counts().forgotten), (4, 7));
    assert_eq!(session.counts().refused, 0);
}

#[test]
fn an_opening_that_is_told_late_does_not_spoil_the_ledger() {
    let mut session = session(SessionSettings::default());
    let mut late = opened(7, Transport::Tcp, None);
    late.is_late = true;
    let side = Side { seen: 15, captured: 15, unseen: Some(0), ..Side::default() };
    let events = [
        data(7, Way::Sent, 0, b"nobody"),
        Event::Opened(late),
        data(7, Way::Sent, 6, b"follows i"),
        closed(7, side, whole(0)),
    ];
    play(&mut session, &events);
    let counts = session.counts();
    assert_eq!((counts.unknown, counts.closed, counts.unbalanced), (6, 1, 0));
    assert!(counts.is_balanced());
}

#[test]
fn a_query_without_an_answer_is_told_and_silent_peers_are_forgotten() {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let mut session = session(SessionSettings::default());
    let mut socket = opened(3, Transport::Udp, Some(Role::Client));
    socket.remote = Some("10.0.0.2:53".parse().unwrap());
    let mut recorder = play(&mut session, &[Event::Opened(socket), data(3, Way::Sent, 0, query)]);
    let later = |seconds: u64| Tick { monotonic: Monotonic(at(seconds * 1000)), ..START };
    session.tick(later(7), &mut recorder);
    assert_eq!(recorder.calls[0].ending.name(), "no-answer");
    session.tick(later(70), &mut recorder);
    assert_eq!(recorder.ended.len(), 1);
}

#[test]
fn what_is_too_much_to_follow_is_counted() {
    let settings = SessionSettings { most_sockets: 1, most_waiting: 4, ..SessionSettings::default() };
    let mut session = session(settings);
    let mut other = opened(8, Transport::Tcp, None);
    other.remote = None;
    let events = [
        tcp(Role::Client),
        Event::Opened(other),
        data(8, Way::Sent, 0, b"nobody"),
        data(7, Way::Sent, 5, b"abcdefgh"),
    ];
    play(&mut session, &events);
    let counts = session.counts();
    assert_eq!((counts.refused, counts.unknown, counts.hurried, counts.waiting), (1, 6, 1, 0));
    assert!(counts.is_balanced());
}

#[test]
fn calls_that_are_not_over_and_peers_share_the_room_of_all_connections() {
    const ASKS: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 3000\r\n\r\n";
    let keep = Keep { headers: true, body_bytes: 100_000 };
    // Room for the bodies of two.
    let settings = SessionSettings { keep, most_held: 10_000, most_peers: 3, ..SessionSettings::default() };
    let mut session = session(settings);
    let mut recorder = Recorder::default();
    let body = [b'b'; 3000];
    for socket in 1..=5 {
        let opened = Event::Opened(opened(socket, Transport::Tcp, Some(Role::Client)));
        let asked = data(socket, Way::Sent, 0, ASKS);
        let sent = data(socket, Way::Sent, ASKS.len() as u64, &body);
        for event in [opened, asked, sent] {
            session.take(&event, &mut recorder);
        }
    }
    let held = session.counts().held;
    assert!((10_000..20_000).contains(&held), "{held}");
    for socket in 1..=5 {
        session.take(&data(socket, Way::Received, 0, ANSWERED), &mut recorder);
    }
    let kept = |call: &Call| match &call.detail {
        weir_l7::call::Detail::Http(http) => http.request_body.len(),
        _ => 0,
    };
    assert_eq!(recorder.calls.iter().map(kept).collect::<Vec<_>>(), [3000, 3000, 0, 0, 0]);
    assert!(recorder.calls.iter().all(Call::is_complete));
    let counts = session.counts();
    assert_eq!((counts.held, counts.cut), (0, 0));
    assert!(counts.left_out >= 9000, "{counts:?}");

    let mut sockets = [8, 9].map(|socket| opened(socket, Transport::Udp, None));
    for socket in &mut sockets {
        socket.remote = None;
        session.take(&Event::Opened(*socket), &mut recorder);
    }
    for port in 1..=2 {
        let peer = SocketAddr::from(([10, 0, 0, 2], port));
        for socket in [8, 9] {
            session.take(&datagram(socket, Way::Received, peer, b"hello"), &mut recorder);
        }
    }
    let counts = session.counts();
    assert_eq!((counts.peers, counts.refused, counts.unfollowed), (3, 1, 5));
    session.finish(START, &mut recorder);
    assert_eq!((session.counts().peers, session.counts().held), (0, 0));
    assert!(session.counts().is_balanced());
}

#[test]
fn a_socket_that_connects_anew_is_another_connection() {
    let mut session = session(SessionSettings::default());
    let recorder = play(&mut session, &[tcp(Role::Client), data(7, Way::Sent, 0, b"x"), tcp(Role::Client)]);
    assert_eq!((recorder.ended.len(), session.counts().connections, session.sockets()), (1, 2, 1));
}

proptest! {
    /// Calls of two sides, cut anywhere, of which some are lost, left out or exchanged.
    #[test]
    fn whatever_is_lost_everything_is_accounted_for_and_no_secret_is_shown(
        pieces in prop::collection::vec((1..40_usize, 0..8_u8), 1..40),
        swap in prop::collection::vec(any::<bool>(), 40),
        calls in 1..4_usize,
    ) {
        let streams = [ASKED.repeat(calls), ANSWERED.repeat(calls)];
        let mut sides = [Side { unseen: Some(0), ..Side::default() }; 2];
        let mut positions = [0_usize; 2];
        let mut events = vec![tcp(Role::Client)];
        for (index, (length, fate)) in pieces.into_iter().enumerate() {
            let way = index % 2;
            let stream = &streams[way];
            let (start, end) = (positions[way], (positions[way] + length).min(stream.len()));
            positions[way] = end;
            if start == end {
                continue;
            }
            let side = &mut sides[way];
            side.seen += (end - start) as u64;
            let kernel_way = [Way::Sent, Way::Received][way];
            let bytes = (end - start) as u64;
            match fate {
                0 => side.lost += bytes,
                1 => {
                    side.gaps[GapReason::Limit as usize] += bytes;
                    events.push(gap(7, kernel_way, start as u64, bytes, GapReason::Limit));
                }
                2 => {
                    side.gaps[GapReason::Fault as usize] += bytes;
                    side.untold += bytes;
                }
                3 if length % 2 == 0 => {
                    side.seen -= bytes;
                    side.rejected += bytes;
                }
                3 => {
                    side.seen -= bytes;
                    side.unseen = side.unseen.map(|unseen| unseen + bytes);
                }
                _ => {
                    side.captured += bytes;
                    events.push(data(7, kernel_way, start as u64, &stream[start..end]));
                }
            }
        }
        // Two that follow each other may change places.
        for index in 1..events.len() - 1 {
            if swap[index % swap.len()] {
                events.swap(index, index + 1);
            }
        }
        events.push(closed(7, sides[0], sides[1]));
        let mut session = session(SessionSettings::default());
        let recorder = play(&mut session, &events);
        prop_assert_eq!(session.counts().unbalanced, 0, "{:?}", sides);
        prop_assert!(session.counts().is_balanced());
        prop_assert_eq!(session.counts().delivered, sides[0].captured + sides[1].captured);
        for ((_, way), said) in &recorder.said {
            prop_assert_eq!(said.len(), positions[*way]);
            prop_assert!(!String::from_utf8_lossy(said).contains("canary"));
        }
        let shown = format!("{:?}", recorder.calls);
        prop_assert!(!shown.contains("canary"));
    }
}
