//! Every way to send and to receive over TCP, compared byte for byte.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    thread,
};

use weir_datapath::tap::{
    GapReason, Rule, Settings, Tier, Way,
    selfcheck::calls::{Receive, Send},
};

use super::{Recorder, Told, connection, own_rule, stream};

/// Sizes around those of the kernel's records, and one that takes many.
pub const SIZES: [usize; 9] = [1, 255, 256, 257, 4096, 16_384, 16_385, 65_536, 1 << 20];

/// Keys of the bytes that go each way.
const KEYS: [u64; 2] = [11, 12];

fn settings() -> Settings {
    Settings { ring: 64 << 20, count_messages: true, ..Settings::default() }
}

fn families() -> [(&'static str, IpAddr, IpAddr); 3] {
    let v4 = Ipv4Addr::LOCALHOST;
    [
        ("IPv4", v4.into(), v4.into()),
        ("IPv6", Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        ("mapped", Ipv6Addr::UNSPECIFIED.into(), v4.to_ipv6_mapped().into()),
    ]
}

/// Moves bytes of all sizes both ways over a new connection, and returns what was told of its ends, client first.
fn exchange(
    recorder: &mut Recorder,
    (listener, to): (&TcpListener, SocketAddr),
    send: Send,
    receive: Receive,
    sizes: &[usize],
) -> [Told; 2] {
    let (client, server, ids) = connection(listener, to);
    for (from, to, key) in [(&client, &server, KEYS[0]), (&server, &client, KEYS[1])] {
        let mut position = 0;
        for &size in sizes {
            let bytes = stream(key, position, size);
            thread::scope(|scope| {
                let sending = scope.spawn(|| send.all(from, &bytes));
                let case = format!("{send:?} {receive:?}");
                receive.all(to, size).expect(&case);
                sending.join().expect("it does not panic").expect(&case);
            });
            position += size as u64;
            recorder.read();
        }
    }
    drop((client, server));
    ids.map(|id| recorder.closing(id))
}

/// What is told of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Bytes,
    Gap(GapReason),
    Unseen,
    GapOrUnseen(GapReason),
}

/// Looks whether one direction of a socket was told as it was.
fn check(told: &Told, (way, key): (Way, u64), total: u64, expect: Expect, case: &str) {
    let ledger = told.ledger(way);
    let (captured, gaps) = told.sums(way);
    assert_eq!(told.misplaced, 0, "{case}");
    assert_eq!(told.wrong_bytes(way, key), 0, "{case}: wrong bytes");
    assert!(ledger.is_balanced(), "{case}: {ledger:?}");
    let expect = match expect {
        Expect::GapOrUnseen(reason) if ledger.seen > 0 => Expect::Gap(reason),
        Expect::GapOrUnseen(_) => Expect::Unseen,
        other => other,
    };
    let seen = if expect == Expect::Unseen { 0 } else { total };
    assert_eq!((ledger.seen, ledger.unseen), (seen, Some(total - seen)), "{case}: {ledger:?}");
    assert_eq!((ledger.lost, ledger.untold, ledger.rejected), (0, 0, 0), "{case}: {ledger:?}");
    assert_eq!(captured, ledger.captured, "{case}");
    assert_eq!(gaps.values().sum::<u64>(), ledger.gap(), "{case}");
    match expect {
        Expect::Bytes => assert_eq!(captured, total, "{case}: {gaps:?}"),
        Expect::Gap(reason) => assert_eq!(gaps.get(&reason), Some(&total), "{case}: {gaps:?}"),
        Expect::Unseen | Expect::GapOrUnseen(_) => return,
    }
    assert_eq!(told.holes(way), (0, 0), "{case}");
}

/// Every call, both ways, over each family, in all of these sizes.
pub fn every_way_over_tcp_is_told_byte_for_byte(tier: Option<Tier>, sizes: &[usize]) {
    let total = sizes.iter().sum::<usize>() as u64;
    let listeners: Vec<_> = families()
        .into_iter()
        .map(|(family, listen, connect)| {
            let listener = TcpListener::bind((listen, 0)).expect("loopback works");
            let to = SocketAddr::new(connect, listener.local_addr().expect("loopback works").port());
            (family, listener, to)
        })
        .collect();
    let ports = listeners.iter().map(|(_, _, to)| to.port()..=to.port()).collect();
    let settings = Settings { tier, ..settings() };
    let Some(mut recorder) = Recorder::open(&settings, &[Rule { ports, ..own_rule(3) }]) else { return };
    let by_calls = recorder.chosen.tier == Tier::Syscalls;
    let by_functions = matches!(recorder.chosen.tier, Tier::Functions | Tier::Probes);
    let sends = Send::ALL.map(|send| (send, Receive::Read));
    let receives = Receive::ALL.map(|receive| (Send::Write, receive));
    for (send, receive) in sends.into_iter().chain(receives) {
        let sent = match (send, send.gap()) {
            (_, None) => Expect::Bytes,
            // The 32-bit interface has a table of calls of its own, which is not looked at.
            (Send::Compat, _) if by_calls => Expect::Unseen,
            // Before 6.5 files and pipes did not go through these functions.
            (Send::Sendfile | Send::Splice, Some(reason)) if by_functions => Expect::GapOrUnseen(reason),
            (_, Some(reason)) => Expect::Gap(reason),
        };
        let received = match receive {
            Receive::Truncate => Expect::Gap(GapReason::Truncated),
            Receive::Splice if by_calls => Expect::Gap(GapReason::Splice),
            Receive::Splice => Expect::Unseen,
            _ => Expect::Bytes,
        };
        for (family, listener, to) in &listeners {
            let told = exchange(&mut recorder, (listener, *to), send, receive, sizes);
            for (end, told) in ["client", "server"].into_iter().zip(&told) {
                let keys = if end == "client" { KEYS } else { [KEYS[1], KEYS[0]] };
                let case = format!("{send:?} {receive:?} over {family}, {end}");
                check(told, (Way::Sent, keys[0]), total, sent, &format!("{case}, sent"));
                check(told, (Way::Received, keys[1]), total, received, &format!("{case}, received"));
            }
        }
    }
    let (_, totals) = recorder.close();
    assert!(totals.sent.is_balanced() && totals.received.is_balanced(), "{totals:?}");
    assert_eq!((totals.untold, totals.unfollowed), (0, 0));
}
