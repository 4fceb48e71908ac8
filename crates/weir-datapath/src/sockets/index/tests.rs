//! Joins, on sockets made by hand.

use weir_packet::{Details, ipv4_words, ipv6_words};

use super::{super::open::Raw, *};

const HERE: u32 = 1;
const POD: u32 = 2;

fn holder(pid: u32, started: u64) -> Holder {
    Holder { started, pid, command: [0; 16] }
}

/// A TCP or UDP socket; a remote end of `""` is none, in state LISTEN for TCP.
fn socket(protocol: u8, local: &str, remote: &str, cookie: u64, netns: u32, holder: Holder) -> OpenSocket {
    let end = |text: &str| -> (IpAddr, u16) {
        let end: SocketAddr = text.parse().unwrap();
        (end.ip(), end.port())
    };
    let local = end(local);
    let any = if local.0.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let (remote, state) = match (remote, protocol) {
        ("", protocol::TCP) => (end(any), 10),
        ("", _) => (end(any), 7),
        (remote, _) => (end(remote), 1),
    };
    let families = if local.0.is_ipv6() { Families::Both } else { Families::Own };
    OpenSocket::new(&Raw { protocol: protocol.into(), state, local, remote, families }, cookie, netns, holder)
        .unwrap()
}

fn tuple(protocol: u8, source: &str, destination: &str) -> Tuple {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    };
    let details = Details::new(source.is_ipv6(), protocol).with_ports(source.port(), destination.port());
    Tuple::new(words(source.ip()), words(destination.ip()), details)
}

fn index(sockets: &[OpenSocket]) -> Index {
    let own = Namespace { name: None, inode: HERE, addresses: HashSet::from(["10.0.0.1".parse().unwrap()]) };
    let pod = Namespace { name: Some("pod".into()), inode: POD, addresses: HashSet::new() };
    Index::new(sockets, &[], vec![own, pod], Instant::now(), |holder| format!("program{}", holder.pid).into())
}

/// Checks who is found: `(pid, confidence)`.
#[track_caller]
fn check(index: &Index, cookie: u64, tuple: &Tuple, expect: Option<(u32, ProcessConfidence)>) {
    let found = index.process(&Question { cookie, tuple, netns: None });
    assert_eq!(found.map(|process| (process.pid, process.confidence)), expect, "{cookie} {tuple:?}");
}

use ProcessConfidence::{Listener as ByPort, Proven};

#[test]
fn cookies_come_before_ends_and_ends_before_ports() {
    let index = index(&[
        socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000", 11, HERE, holder(20, 2)),
        socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5001", 12, HERE, holder(21, 3)),
        socket(protocol::TCP, "0.0.0.0:80", "", 13, HERE, holder(10, 1)),
    ]);
    let sent = |port: u16| tuple(protocol::TCP, "10.0.0.1:80", &format!("10.0.0.9:{port}"));
    check(&index, 0, &sent(5000), Some((20, Proven)));
    check(&index, 12, &sent(5000), Some((21, Proven)));
    check(&index, 11, &sent(5000), Some((20, Proven)));
    // Another socket with the same ends: the one that we know is not it.
    check(&index, 99, &sent(5000), Some((10, ByPort)));
    check(&index, 0, &sent(5002), Some((10, ByPort)));
    check(&index, 0, &sent(5000).reversed(), None);
    assert_eq!(
        &*index.process(&Question { cookie: 11, tuple: &sent(1), netns: None }).unwrap().executable,
        "program20"
    );
}

#[test]
fn the_cookie_of_a_listening_socket_proves_no_more_than_its_port() {
    let index = index(&[socket(protocol::TCP, "10.0.0.1:80", "", 13, HERE, holder(10, 1))]);
    check(&index, 13, &tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:1"), Some((10, ByPort)));
}

#[test]
fn a_bound_udp_socket_is_proven_by_cookie_only() {
    let index = index(&[socket(protocol::UDP, "0.0.0.0:53", "", 13, HERE, holder(10, 1))]);
    let sent = tuple(protocol::UDP, "10.0.0.1:53", "10.0.0.9:4000");
    check(&index, 13, &sent, Some((10, Proven)));
    check(&index, 0, &sent, Some((10, ByPort)));
    check(&index, 0, &tuple(protocol::TCP, "10.0.0.1:53", "10.0.0.9:4000"), None);
}

#[test]
fn listeners_on_any_address_get_what_is_sent_to_addresses_of_their_namespace() {
    let both = index(&[socket(protocol::TCP, "[::]:80", "", 0, HERE, holder(10, 1))]);
    let only_v4 = index(&[socket(protocol::TCP, "0.0.0.0:80", "", 0, HERE, holder(10, 1))]);
    for (address, by_both, by_v4) in [
        ("10.0.0.1:80", true, true),
        ("127.0.0.1:80", true, true),
        ("127.8.9.10:80", true, true),
        ("[::1]:80", true, false),
        ("10.0.0.2:80", false, false),
        ("10.0.0.1:81", false, false),
    ] {
        let remote = if address.starts_with('[') { "[2001:db8::1]:7" } else { "192.0.2.1:7" };
        let sent = tuple(protocol::TCP, address, remote);
        check(&both, 0, &sent, by_both.then_some((10, ByPort)));
        check(&only_v4, 0, &sent, by_v4.then_some((10, ByPort)));
    }
}

#[test]
fn an_address_of_its_own_wins_over_any_address() {
    let index = index(&[
        socket(protocol::TCP, "0.0.0.0:80", "", 0, HERE, holder(10, 1)),
        socket(protocol::TCP, "10.0.0.1:80", "", 0, HERE, holder(11, 2)),
    ]);
    check(&index, 0, &tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:1"), Some((11, ByPort)));
    check(&index, 0, &tuple(protocol::TCP, "127.0.0.1:80", "127.0.0.1:1"), Some((10, ByPort)));
}

#[test]
fn ends_belong_to_a_namespace_and_cookies_to_the_machine() {
    let index = index(&[socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000", 11, POD, holder(20, 2))]);
    let sent = tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000");
    check(&index, 0, &sent, None);
    check(&index, 11, &sent, Some((20, Proven)));
    let there = Question { cookie: 0, tuple: &sent, netns: Some("pod") };
    assert_eq!(index.process(&there).unwrap().pid, 20);
    assert!(index.process(&Question { netns: Some("unknown"), ..there }).is_none());
}

#[test]
fn of_several_holders_the_first_is_named_but_the_first_process_last() {
    let shared = |holder| socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000", 11, HERE, holder);
    let sent = tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000");
    // Numbers wrap around, so the higher one can be the older process.
    for (holders, expect) in [
        (vec![holder(7, 9), holder(300, 5), holder(8, 7)], 300),
        (vec![holder(1, 0), holder(300, 5)], 300),
        (vec![holder(1, 0)], 1),
        (vec![holder(9, 5), holder(8, 5)], 8),
    ] {
        let sockets: Vec<OpenSocket> = holders.into_iter().map(shared).collect();
        check(&index(&sockets), 11, &sent, Some((expect, Proven)));
        check(&index(&sockets), 0, &sent, Some((expect, Proven)));
    }
}

#[test]
fn closed_sockets_are_remembered_by_cookie_for_a_while() {
    let old = index(&[
        socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000", 11, HERE, holder(20, 2)),
        socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5001", 12, HERE, holder(20, 2)),
    ]);
    let sent = tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000");
    let now = Instant::now();
    for (later, expect) in
        [(Duration::from_secs(1), Some((20, Proven))), (REMEMBERED_FOR + Duration::from_secs(1), None)]
    {
        let mut new =
            index(&[socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5001", 12, HERE, holder(30, 3))]);
        new.remember(&old, now + later);
        check(&new, 11, &sent, expect);
        check(&new, 0, &sent, None);
        check(&new, 12, &sent, Some((30, Proven)));
    }
}

#[test]
fn listeners_are_those_of_our_own_namespace_without_udp_clients() {
    let index = index(&[
        socket(protocol::TCP, "0.0.0.0:80", "", 0, HERE, holder(10, 1)),
        socket(protocol::TCP, "127.0.0.1:40000", "", 0, HERE, holder(10, 1)),
        socket(protocol::UDP, "127.0.0.1:53", "", 0, HERE, holder(10, 1)),
        socket(protocol::UDP, "0.0.0.0:40000", "", 0, HERE, holder(10, 1)),
        socket(protocol::TCP, "0.0.0.0:81", "", 0, POD, holder(10, 1)),
        socket(protocol::TCP, "10.0.0.1:82", "10.0.0.9:5000", 0, HERE, holder(10, 1)),
    ]);
    let mut listeners: Vec<(u8, u16, bool)> = index
        .listeners((32768, 60999))
        .iter()
        .map(|listener| (listener.protocol, listener.port, listener.address.is_some()))
        .collect();
    listeners.sort_unstable();
    let expect = [(protocol::TCP, 80, false), (protocol::TCP, 40000, true), (protocol::UDP, 53, true)];
    assert_eq!(listeners, expect);
}

#[test]
fn a_socket_that_nobody_holds_any_more_belongs_to_who_opened_it() {
    let held = socket(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000", 11, HERE, holder(20, 2));
    let opened = [(11, holder(5, 1)), (12, holder(5, 1))];
    let index = Index::new(&[held], &opened, Vec::new(), Instant::now(), |_| "".into());
    let sent = tuple(protocol::TCP, "10.0.0.1:80", "10.0.0.9:5000");
    check(&index, 11, &sent, Some((20, Proven)));
    check(&index, 12, &sent, Some((5, Proven)));
}
