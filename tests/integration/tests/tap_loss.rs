//! What is lost is accounted for: a reader that stops, limits, many threads on one socket, connections by the thousand.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use weir_datapath::tap::{GapReason, Limits, Payload, Rule, Settings, Side, SocketId, Totals, Way};
use weir_integration::{
    require_root,
    tapping::{Recorder, Told, connection, own_rule, stream},
};

/// Keys of the bytes that go each way.
const KEYS: [u64; 2] = [31, 32];

/// Threads that share a socket, and what each sends.
const THREADS: u64 = 4;
const MESSAGES: u64 = 500;
const LENGTH: u64 = 64;

/// Short connections.
const CONNECTIONS: usize = 10_000;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let address = listener.local_addr().expect("loopback works");
    (listener, address)
}

fn rule(address: SocketAddr) -> Rule {
    Rule { ports: vec![address.port()..=address.port()], ..own_rule(5) }
}

/// Sends so many messages of `size` over a new connection, and ends it. Returns its ends, client first.
fn send(listener: &TcpListener, size: usize, count: usize) -> [SocketId; 2] {
    let to = listener.local_addr().expect("it listens");
    let (client, server, ids) = connection(listener, to);
    let bytes = stream(KEYS[0], 0, size * count);
    thread::scope(|scope| {
        scope.spawn(|| {
            bytes.chunks(size).for_each(|part| (&client).write_all(part).expect("loopback works"));
        });
        let mut buffer = vec![0; bytes.len()];
        (&server).read_exact(&mut buffer).expect("loopback works");
        assert!(buffer == bytes);
    });
    ids
}

/// Everything that must hold whatever was lost. Returns how many bytes were.
fn check(told: &Told, way: Way, key: u64, total: u64) -> u64 {
    let ledger = told.ledger(way);
    assert_eq!(told.wrong_bytes(way, key), 0);
    assert!(ledger.is_balanced(), "{ledger:?}");
    assert_eq!((ledger.seen, ledger.unseen), (total, Some(0)), "{ledger:?}");
    let (captured, gaps) = told.sums(way);
    assert_eq!(captured, ledger.captured, "{ledger:?}");
    assert_eq!(gaps.values().sum::<u64>() + ledger.untold, ledger.gap(), "{ledger:?}");
    let (holes, overlaps) = told.holes(way);
    assert_eq!(overlaps, 0);
    // A loss at the end is no hole between pieces.
    assert!(holes <= ledger.lost + ledger.untold, "{holes} {ledger:?}");
    assert_eq!(captured + gaps.values().sum::<u64>() + ledger.lost + ledger.untold, total);
    ledger.lost
}

fn is_balanced(totals: &Totals) -> bool {
    totals.sent.is_balanced() && totals.received.is_balanced() && totals.rules.values().all(Side::is_balanced)
}

#[test]
fn what_a_stopped_reader_loses_is_counted_to_the_byte() {
    if !require_root() {
        return;
    }
    let (listener, address) = listener();
    let settings = Settings { ring: 1 << 20, ..Settings::default() };
    let Some(mut recorder) = Recorder::open(&settings, &[rule(address)]) else { return };
    let mut lost = 0;
    for size in [100, 4096, 65_536] {
        // Nobody reads meanwhile; then somebody does, and there is room again.
        let count = (8 << 20) / size;
        let ends = send(&listener, size, count);
        let [client, server] = ends.map(|id| recorder.closing(id));
        let total = (size * count) as u64;
        lost += check(&client, Way::Sent, KEYS[0], total);
        lost += check(&server, Way::Received, KEYS[0], total);
    }
    assert!(lost > 0);
    let (_, totals) = recorder.close();
    assert!(is_balanced(&totals), "{totals:?}");
    assert_eq!(totals.sent.lost + totals.received.lost, lost);
}

#[test]
fn limits_leave_gaps_of_known_length() {
    if !require_root() {
        return;
    }
    let (listener, address) = listener();
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[]) else { return };
    let total = 64 << 10;
    let cases = [
        (Payload::Full, Limits { call: 1000, ..Limits::default() }, 16 * 1000, GapReason::Limit),
        (Payload::Full, Limits { connection: Some(10_000), ..Limits::default() }, 10_000, GapReason::Limit),
        (Payload::Headers, Limits::default(), 2048, GapReason::Payload),
        (Payload::None, Limits::default(), 0, GapReason::Payload),
    ];
    for (payload, limits, expect, reason) in cases {
        recorder
            .tap
            .set_rules(&[Rule { payload, limits, way: Some(Way::Sent), ..rule(address) }])
            .expect("loopback works");
        let [client, _] = send(&listener, 4096, 16);
        let told = recorder.closing(client);
        assert_eq!(check(&told, Way::Sent, KEYS[0], total), 0);
        let (captured, gaps) = told.sums(Way::Sent);
        assert_eq!(
            (captured, gaps.get(&reason)),
            (expect, Some(&(total - expect))),
            "{payload:?} {limits:?}"
        );
    }
    // A second may end in between, so only the order of magnitude is known.
    let limits = Limits { per_second: Some(8192), ..Limits::default() };
    recorder.tap.set_rules(&[Rule { limits, ..rule(address) }]).expect("loopback works");
    let [client, _] = send(&listener, 4096, 16);
    let told = recorder.closing(client);
    check(&told, Way::Sent, KEYS[0], total);
    assert!(told.sums(Way::Sent).1[&GapReason::Budget] > 0);
}

#[test]
fn threads_that_share_a_socket_lose_nothing() {
    if !require_root() {
        return;
    }
    let (listener, address) = listener();
    let settings = Settings { ring: 64 << 20, ..Settings::default() };
    let Some(mut recorder) = Recorder::open(&settings, &[rule(address)]) else { return };
    let (client, mut server, ids) = connection(&listener, address);
    let total = THREADS * MESSAGES * LENGTH;
    let received = thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                let message = [u8::try_from(thread).expect("loopback works"); 64];
                for _ in 0..MESSAGES {
                    (&*client).write_all(&message).expect("loopback works");
                }
            });
        }
        let mut received = vec![0; usize::try_from(total).expect("loopback works")];
        server.read_exact(&mut received).expect("loopback works");
        received
    });
    drop((client, server));
    let [client, server] = ids.map(|id| recorder.closing(id));
    for (told, way) in [(&client, Way::Sent), (&server, Way::Received)] {
        let ledger = told.ledger(way);
        assert_eq!((ledger.seen, ledger.captured, ledger.unseen), (total, total, Some(0)), "{way:?}");
    }
    // Who was told to have sent what is what came out at the other end; each call as a whole.
    let told: u64 = client
        .side(Way::Sent)
        .iter()
        .filter(|piece| {
            let bytes = piece.bytes.as_ref().expect("loopback works");
            bytes.len() == 64 && bytes.iter().all(|byte| *byte == bytes[0])
        })
        .count() as u64;
    assert_eq!(told, THREADS * MESSAGES);
    let told: Vec<u8> = server
        .side(Way::Received)
        .iter()
        .flat_map(|piece| piece.bytes.clone().expect("loopback works"))
        .collect();
    assert!(told == received);
}

/// Makes [`CONNECTIONS`], one after another, and does something else meanwhile.
fn short_connections(listener: &TcpListener, mut meanwhile: impl FnMut()) {
    let address = listener.local_addr().expect("it listens");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let (mut server, _) = listener.accept().expect("loopback works");
                let mut buffer = [0; 16];
                server.read_exact(&mut buffer).expect("loopback works");
                server.write_all(&buffer).expect("loopback works");
            }
        });
        let clients = scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let mut client = TcpStream::connect(address).expect("loopback works");
                client.write_all(b"sixteen bytes in").expect("loopback works");
                // Ours is not the side that waits for stray segments, so ports are free again.
                client.read_to_end(&mut Vec::new()).expect("loopback works");
            }
        });
        while !clients.is_finished() {
            meanwhile();
        }
    });
}

#[test]
fn connections_that_there_is_no_room_to_tell_of_are_counted_and_their_bytes_lost() {
    if !require_root() {
        return;
    }
    let (listener, address) = listener();
    let Some(recorder) = Recorder::open(&Settings::default(), &[rule(address)]) else { return };
    short_connections(&listener, thread::yield_now);
    let (told, totals) = recorder.close();
    assert!(is_balanced(&totals), "{totals:?}");
    let all = 2 * CONNECTIONS as u64;
    assert_eq!(told.len() as u64 + totals.unopened, all, "{totals:?}");
    assert!(totals.unopened > 0 && totals.untold >= totals.unopened, "{totals:?}");
    // Those that were told to be open were told to be closed, and all that was captured is theirs.
    assert_eq!(totals.unclosed, 0);
    let sides = told
        .values()
        .map(|told| told.closed.expect("it was told"))
        .flat_map(|closed| [closed.sent, closed.received]);
    let captured: u64 = sides.map(|side| side.captured).sum();
    assert!(told.values().all(|told| told.misplaced == 0 && told.opened.len() == 1));
    assert_eq!(totals.sent.captured + totals.received.captured, captured);
    assert_eq!(totals.sent.seen + totals.received.seen, all * 32);
}

#[test]
fn thousands_of_short_connections_are_all_opened_and_closed_and_balanced() {
    if !require_root() {
        return;
    }
    let (listener, address) = listener();
    // Room for all of it, however seldom the reader has its turn.
    let settings = Settings { ring: 64 << 20, ..Settings::default() };
    let Some(mut recorder) = Recorder::open(&settings, &[rule(address)]) else { return };
    short_connections(&listener, || {
        recorder.read();
        recorder.tap.wait(std::time::Duration::from_millis(20)).expect("loopback works");
    });
    let (told, totals) = recorder.close();
    assert!(is_balanced(&totals), "{totals:?}");
    assert_eq!((totals.untold, totals.unfollowed, totals.skipped), (0, 0, 0));
    assert_eq!(told.len(), 2 * CONNECTIONS);
    for told in told.values() {
        let closed = told.closed.expect("each was closed");
        assert_eq!((told.opened.len(), told.misplaced), (1, 0));
        for side in [closed.sent, closed.received] {
            assert_eq!((side.seen, side.captured, side.unseen), (16, 16, Some(0)));
        }
    }
}
