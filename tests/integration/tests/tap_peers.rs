//! A filter looks at the other end of each datagram where the socket has none of its own: what it does not mean is never told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use weir_datapath::tap::{Rule, Settings, SocketId, Tier, Totals, Way};
use weir_integration::{
    Namespace, require_root,
    tapping::{Recorder, Told, datagrams::Named, own_rule, socket_id, tier},
};

/// What the rule means, and what it does not.
const WANTED: &[u8] = b"wanted";
const CANARY: &[u8] = b"canary in a mine";

/// Each tap sees the whole process, and counts what others do.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> Option<MutexGuard<'static, ()>> {
    require_root().then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A socket without another end, and two that are connected to it.
struct Stage {
    _namespace: Namespace,
    own: UdpSocket,
    id: SocketId,
    wanted: UdpSocket,
    other: UdpSocket,
    /// Where our socket finds the two.
    to: [SocketAddr; 2],
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
    /// A socket of IPv6 that exchanges datagrams with those of IPv4.
    Mapped,
}

impl Stage {
    fn new(family: Family) -> Self {
        let namespace = Namespace::new();
        let v4 = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
        let (own, from, ends) = match family {
            Family::V4 => (v4(1), v4(1), [v4(2), v4(3)]),
            Family::V6 => (v6(1), v6(1), [v6(2), v6(3)]),
            Family::Mapped => (Ipv6Addr::UNSPECIFIED.into(), v4(1), [v4(2), v4(3)]),
        };
        for last in 1..=3 {
            namespace.ip(&format!("address add {}/128 dev lo", v6(last)));
        }
        let bind = |address| namespace.run(|| UdpSocket::bind((address, 0)).expect("the namespace is ours"));
        let (own, wanted, other) = (bind(own), bind(ends[0]), bind(ends[1]));
        let port = own.local_addr().expect("loopback works").port();
        let to = [&wanted, &other].map(|socket| {
            socket.connect((from, port)).expect("loopback works");
            match socket.local_addr().expect("loopback works") {
                SocketAddr::V4(end) if matches!(family, Family::Mapped) => {
                    (end.ip().to_ipv6_mapped(), end.port()).into()
                }
                end => end,
            }
        });
        // Asking makes the kernel give it a cookie.
        let id = socket_id(&own);
        Self { _namespace: namespace, own, id, wanted, other, to }
    }

    /// The address of the one that is wanted, as the tap tells it.
    fn meant(&self) -> SocketAddr {
        SocketAddr::new(self.to[0].ip().to_canonical(), self.to[0].port())
    }

    fn by_host(&self) -> Rule {
        let address = self.meant().ip();
        let length = if address.is_ipv4() { 32 } else { 128 };
        Rule { networks: vec![(address, length)], ..own_rule(1) }
    }

    fn by_port(&self) -> Rule {
        let port = self.meant().port();
        Rule { ports: vec![port..=port], ..own_rule(1) }
    }

    /// Three datagrams each way: the one in the middle is nobody's business.
    fn exchange(&self, call: Named) {
        let [wanted, other] = self.to;
        call.send(&self.own, &[(wanted, WANTED), (other, CANARY), (wanted, WANTED)]);
        for socket in [&self.wanted, &self.other, &self.wanted] {
            socket.recv(&mut [0; 64]).expect("loopback works");
        }
        for (socket, bytes) in [(&self.wanted, WANTED), (&self.other, CANARY), (&self.wanted, WANTED)] {
            socket.send(bytes).expect("loopback works");
        }
        call.receive(&self.own, 3);
    }
}

/// Nothing but what is wanted was told, so often each way, of a socket and one other end.
fn check(told: &BTreeMap<SocketId, Told>, id: SocketId, meant: SocketAddr, count: usize, case: &str) {
    for told in told.values() {
        for piece in told.pieces.iter().flatten() {
            assert_eq!(piece.bytes.as_deref(), Ok(WANTED), "{case}");
        }
    }
    for way in [Way::Sent, Way::Received] {
        let peers: Vec<_> = told[&id].side(way).iter().map(|piece| piece.peer).collect();
        assert_eq!(peers, vec![Some(meant); count], "{case} {way:?}");
    }
    assert_eq!(told[&id].opened.iter().map(|opened| opened.remote).collect::<Vec<_>>(), [None], "{case}");
}

fn is_balanced(totals: &Totals) -> bool {
    totals.sent.is_balanced() && totals.received.is_balanced()
}

#[test]
fn what_goes_to_others_or_comes_from_them_is_never_told() {
    let Some(_alone) = alone() else { return };
    for family in [Family::V4, Family::V6, Family::Mapped] {
        for tier in [tier(), Some(Tier::Syscalls)] {
            for by_port in [false, true] {
                let stage = Stage::new(family);
                let rule = if by_port { stage.by_port() } else { stage.by_host() };
                let settings = Settings { tier, count_messages: true, ..Settings::default() };
                let Some(mut recorder) = Recorder::open(&settings, &[rule]) else { return };
                recorder.tap.existing().expect("loopback works");
                for call in Named::ALL {
                    stage.exchange(call);
                }
                let (told, totals) = recorder.close();
                let case = format!("{family:?} {tier:?} by port: {by_port}");
                check(&told, stage.id, stage.meant(), 2 * Named::ALL.len(), &case);
                // Whoever is wanted has another end, which the rule does not mean.
                assert_eq!(told.len(), if by_port { 2 } else { 1 }, "{case}");
                assert!(is_balanced(&totals) && totals.nameless == 0, "{case} {totals:?}");
            }
        }
    }
}

#[test]
fn a_datagram_whose_other_end_nobody_tells_is_not_meant_and_counted() {
    let Some(_alone) = alone() else { return };
    for tier in [tier(), Some(Tier::Syscalls)] {
        let stage = Stage::new(Family::V4);
        let settings = Settings { tier, ..Settings::default() };
        let Some(recorder) = Recorder::open(&settings, &[stage.by_host()]) else { return };
        // The kernel is asked about one that is only looked at, and not about the one that is taken.
        for _ in 0..2 {
            stage.wanted.send(WANTED).expect("loopback works");
        }
        stage.own.peek_from(&mut [0; 64]).expect("loopback works");
        for _ in 0..2 {
            stage.own.recv(&mut [0; 64]).expect("loopback works");
        }
        let mut nameless = 2;
        // Messages that are not counted cannot be told apart.
        Named::Messages.send(&stage.own, &[(stage.to[0], WANTED), (stage.to[1], CANARY)]);
        let mut count = 1;
        if recorder.chosen.tier != Tier::Syscalls {
            nameless += 2;
            count = 0;
        }
        let (told, totals) = recorder.close();
        let sent = told.values().flat_map(|told| told.side(Way::Sent)).count();
        let received = told.values().flat_map(|told| told.side(Way::Received)).count();
        assert_eq!((sent, received, totals.nameless), (count, 0, nameless), "{tier:?}");
        assert!(is_balanced(&totals), "{totals:?}");
    }
}

#[test]
fn threads_that_share_a_socket_do_not_take_the_ends_of_each_other() {
    const EACH: usize = 3000;
    let Some(_alone) = alone() else { return };
    for tier in [tier(), Some(Tier::Syscalls)] {
        let stage = Stage::new(Family::V4);
        let settings = Settings { tier, ring: 64 << 20, ..Settings::default() };
        let Some(recorder) = Recorder::open(&settings, &[stage.by_host()]) else { return };
        thread::scope(|scope| {
            for (socket, bytes, to) in
                [(&stage.wanted, WANTED, stage.to[0]), (&stage.other, CANARY, stage.to[1])]
            {
                let own = &stage.own;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        // One after another, so that none finds the queue full.
                        own.send_to(bytes, to).expect("loopback works");
                        socket.recv(&mut [0; 64]).expect("loopback works");
                        socket.send(bytes).expect("loopback works");
                        own.recv_from(&mut [0; 64]).expect("loopback works");
                    }
                });
            }
        });
        let (told, totals) = recorder.close();
        check(&told, stage.id, stage.meant(), EACH, &format!("{tier:?}"));
        assert!(is_balanced(&totals), "{totals:?}");
        assert_eq!(totals.nameless, 0, "{tier:?}");
    }
}
