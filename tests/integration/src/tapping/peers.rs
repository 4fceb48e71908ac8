//! Datagrams of a socket that has no other end: with one end that a rule means, and one that it does not.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use weir_datapath::tap::{Rule, Settings, SocketId, Tier, Way};

use super::{Recorder, Told, datagrams::Named, own_rule, socket_id};
use crate::{Namespace, cannot_run};

/// What the rule means.
pub const WANTED: &[u8] = b"wanted";
/// What it does not mean.
pub const CANARY: &[u8] = b"canary in a mine";

/// A socket without another end, and two that are connected to it.
#[derive(Debug)]
pub struct Stage {
    _namespace: Namespace,
    /// Ours.
    pub own: UdpSocket,
    /// Its cookie.
    pub id: SocketId,
    /// The one that the rule means.
    pub wanted: UdpSocket,
    /// The one that it does not.
    pub other: UdpSocket,
    /// Where our socket finds the two.
    pub to: [SocketAddr; 2],
}

/// Of addresses.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// A socket of IPv6 that exchanges datagrams with those of IPv4.
    Mapped,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The other end's address.
    Host,
    /// Its port.
    Port,
}

impl Stage {
    /// Makes one, in a namespace of its own.
    pub fn new(family: Family) -> Self {
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
    pub fn meant(&self) -> SocketAddr {
        SocketAddr::new(self.to[0].ip().to_canonical(), self.to[0].port())
    }

    /// The rule, by address.
    pub fn by_host(&self) -> Rule {
        let address = self.meant().ip();
        let length = if address.is_ipv4() { 32 } else { 128 };
        Rule { networks: vec![(address, length)], ..own_rule(1) }
    }

    /// The rule, by port.
    pub fn by_port(&self) -> Rule {
        let port = self.meant().port();
        Rule { ports: vec![port..=port], ..own_rule(1) }
    }

    /// Three datagrams each way: the one in the middle is nobody's business.
    pub fn exchange(&self, call: Named) {
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
pub fn check(told: &BTreeMap<SocketId, Told>, id: SocketId, meant: SocketAddr, count: usize, case: &str) {
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

/// Every call, over these families, by address or by port.
pub fn what_goes_to_others_or_comes_from_them_is_never_told(tier: Option<Tier>, cases: &[(Family, By)]) {
    for (family, by) in cases {
        let stage = Stage::new(*family);
        let rule = match by {
            By::Host => stage.by_host(),
            By::Port => stage.by_port(),
        };
        let settings = Settings { tier, count_messages: true, ..Settings::default() };
        let Some(mut recorder) = Recorder::open(&settings, &[rule]) else { return };
        if let Some(missing) = recorder.chosen.without.first() {
            return cannot_run(missing);
        }
        recorder.tap.existing().expect("loopback works");
        for call in Named::ALL {
            stage.exchange(call);
        }
        let (told, totals) = recorder.close();
        let case = format!("{family:?} {tier:?} by {by:?}");
        check(&told, stage.id, stage.meant(), 2 * Named::ALL.len(), &case);
        // Whoever is wanted has another end, which the rule does not mean.
        assert_eq!(told.len(), if *by == By::Port { 2 } else { 1 }, "{case}");
        assert!(totals.sent.is_balanced() && totals.received.is_balanced(), "{case} {totals:?}");
        assert_eq!(totals.nameless, 0, "{case}");
    }
}
