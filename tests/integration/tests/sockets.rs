//! Every socket of processes that we know is found, with the right process and confidence.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use weir_datapath::sockets::{Method, SocketTable};
use weir_flow::{
    Direction, End, Point, PointId, Process, ProcessConfidence, ProcessLookup, Role, SocketOwner, Tuple,
};
use weir_integration::{Namespace, cannot_run, require_root};
use weir_packet::{Details, ipv4_words, ipv6_words, protocol};

/// A process that holds sockets, and what it says of them.
struct Holder {
    child: Child,
    sockets: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    protocol: u8,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    cookie: u64,
}

impl Holder {
    fn start(mut command: Command, count: usize) -> Self {
        command.arg(count.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the helper starts");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let lines = output.lines().map(Result::unwrap).take_while(|line| line != "ready");
        let sockets = lines.map(|line| Held::parse(&line)).collect();
        Self { child, sockets }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its input ends with us; it may have failed already.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

impl Held {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let [protocol, local, remote, cookie] = fields[..] else { panic!("{line}") };
        Self {
            protocol: if protocol == "tcp" { protocol::TCP } else { protocol::UDP },
            local: local.parse().expect("the helper prints addresses"),
            remote: remote.parse().ok(),
            cookie: cookie.parse().expect("the helper prints numbers"),
        }
    }

    /// What the socket sends, to somebody who does not exist if it has no other end.
    fn tuple(&self) -> Tuple {
        let somebody = if self.local.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
        let remote = self.remote.unwrap_or_else(|| somebody.parse().expect("an address"));
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => ipv4_words(address.octets()),
            IpAddr::V6(address) => ipv6_words(address.octets()),
        };
        let details =
            Details::new(self.local.is_ipv6(), self.protocol).with_ports(self.local.port(), remote.port());
        Tuple::new(words(self.local.ip()), words(remote.ip()), details)
    }
}

fn hold_sockets() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hold-sockets"))
}

fn point(netns: Option<&str>) -> Point {
    Point {
        id: PointId(1),
        netns: netns.map(Into::into),
        ifindex: 1,
        interface: "lo".into(),
        direction: Direction::Egress,
        role: Role::Loopback,
    }
}

fn look_up(table: &SocketTable, held: &Held, cookie: u64, point: &Point) -> Option<Arc<Process>> {
    let owner = SocketOwner { cookie, ..SocketOwner::default() };
    table.owners().process(&End { owner, tuple: held.tuple(), point })
}

/// Checks that each socket leads to its holder, by cookie where it has one, and by its ends or its port.
fn check_own_namespace(table: &SocketTable, holders: &[Holder]) {
    let point = point(None);
    for holder in holders {
        for held in &holder.sockets {
            let by_ends = look_up(table, held, 0, &point).unwrap_or_else(|| panic!("nobody has {held:?}"));
            assert_eq!(by_ends.pid, holder.child.id(), "{held:?}");
            assert_eq!(&*by_ends.executable, "hold-sockets");
            let expect =
                if held.remote.is_some() { ProcessConfidence::Proven } else { ProcessConfidence::Listener };
            assert_eq!(by_ends.confidence, expect, "{held:?}");
            if held.cookie == 0 {
                continue;
            }
            let by_cookie =
                look_up(table, held, held.cookie, &point).unwrap_or_else(|| panic!("nobody has {held:?}"));
            assert_eq!(by_cookie.pid, holder.child.id(), "{held:?}");
            let is_listener = held.protocol == protocol::TCP && held.remote.is_none();
            let expect = if is_listener { ProcessConfidence::Listener } else { ProcessConfidence::Proven };
            assert_eq!(by_cookie.confidence, expect, "{held:?}");
        }
    }
}

#[test]
fn the_walk_finds_two_hundred_sockets_of_known_processes() {
    if !require_root() {
        return;
    }
    let holders: Vec<Holder> = (0..5).map(|_| Holder::start(hold_sockets(), 40)).collect();
    assert!(holders.iter().map(|holder| holder.sockets.len()).sum::<usize>() >= 200);
    let mut table = SocketTable::open(&[]).unwrap();
    if let Method::Fallback(reason) = table.method() {
        cannot_run(&format!("there is no walk: {reason:?}"));
        return;
    }
    for _ in 0..3 {
        println!("{:?}", table.snapshot().unwrap());
    }
    check_own_namespace(&table, &holders);

    let listeners = table.listeners();
    for held in holders.iter().flat_map(|holder| &holder.sockets) {
        let is_listener = held.protocol == protocol::TCP && held.remote.is_none();
        let is_listed = listeners.iter().any(|listener| {
            (listener.protocol, listener.port) == (held.protocol, held.local.port())
                && listener.address == Some(held.local.ip())
        });
        assert!(!is_listener || is_listed, "{held:?}");
    }
}

#[test]
fn without_the_walk_the_kernels_lists_find_the_same() {
    if !require_root() {
        return;
    }
    let holders: Vec<Holder> = (0..5).map(|_| Holder::start(hold_sockets(), 40)).collect();
    let mut table = SocketTable::open_fallback(&[]).unwrap();
    for _ in 0..3 {
        println!("{:?}", table.snapshot().unwrap());
    }
    check_own_namespace(&table, &holders);
}

#[test]
fn sockets_in_another_namespace_are_found_by_cookie_and_by_ends_where_it_is_known() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let holder = Holder::start(namespace.command(env!("CARGO_BIN_EXE_hold-sockets")), 20);
    let mut table = SocketTable::open(&[]).unwrap();
    if let Method::Fallback(reason) = table.method() {
        cannot_run(&format!("there is no walk: {reason:?}"));
        return;
    }
    table.snapshot().unwrap();
    for held in &holder.sockets {
        let found = look_up(&table, held, held.cookie, &point(None)).map(|process| process.pid);
        // The same ends in our own namespace are somebody else's.
        assert_eq!(found, (held.cookie != 0).then_some(holder.child.id()), "{held:?}");
    }
}

#[test]
fn a_socket_that_was_closed_since_is_still_known_by_its_cookie() {
    if !require_root() {
        return;
    }
    let mut table = SocketTable::open(&[]).unwrap();
    let holder = Holder::start(hold_sockets(), 10);
    table.snapshot().unwrap();
    let pid = holder.child.id();
    let held = holder.sockets.iter().find(|held| held.cookie != 0 && held.remote.is_some()).unwrap();
    let (tuple_alone, with_cookie) = (0, held.cookie);
    let held = Held { ..*held };
    drop(holder);
    table.snapshot().unwrap();
    assert_eq!(look_up(&table, &held, tuple_alone, &point(None)), None);
    assert_eq!(look_up(&table, &held, with_cookie, &point(None)).unwrap().pid, pid);
}

#[test]
fn a_socket_that_lived_between_two_snapshots_is_known_by_its_cookie() {
    if !require_root() {
        return;
    }
    let mut table = SocketTable::open(&[]).unwrap();
    if let Some(reason) = table.openings_error() {
        cannot_run(&format!("openings are not noted: {reason:?}"));
        return;
    }
    if let Method::Fallback(reason) = table.method() {
        cannot_run(&format!("there is no walk: {reason:?}"));
        return;
    }
    table.snapshot().unwrap();
    let mut holder = Holder::start(hold_sockets(), 10);
    let pid = holder.child.id();
    let sockets = std::mem::take(&mut holder.sockets);
    drop(holder);
    table.snapshot().unwrap();
    // Accepted connections were opened by the other side, as far as the kernel is concerned.
    let accepted = |held: &Held| {
        held.remote.is_some()
            && sockets.iter().any(|other| other.remote.is_none() && other.local == held.local)
    };
    for held in sockets.iter().filter(|held| held.cookie != 0 && !accepted(held)) {
        let process = look_up(&table, held, held.cookie, &point(None));
        let process = process.unwrap_or_else(|| panic!("nobody opened {held:?}"));
        assert_eq!((process.pid, &*process.executable), (pid, "hold-sockets"), "{held:?}");
        assert_eq!(process.confidence, ProcessConfidence::Proven);
    }
}
