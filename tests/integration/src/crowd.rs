//! A crowd: many rules, many connections at a time, and rules that change while those connect.
//!
//! A process may not have as many sockets, so most connections lose theirs at both ends without a word: for everybody in
//! between they go on.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    ops::ControlFlow,
    os::fd::AsRawFd as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket},
};
use weir_datapath::redirect::{Desired, Place, Role, Settings, Transport};

use crate::{
    Namespace, Neighbours, Veth,
    redirecting::{BpfFileSystem, backend, open_when_free, rule},
};

/// Ports of the server: each rule has a backend at both of them.
const PORTS: [u16; 2] = [23456, 23457];

/// Connections from one address, each from a port of its own.
const FROM_ONE: u32 = 25_000;
const FIRST_PORT: u16 = 10_000;

/// One of so many connections keeps its sockets.
const KEPT: u32 = 20;

/// What a client says whose connection keeps its sockets, and whose does not.
const STAYS: u8 = 1;
const GOES: u8 = 0;

/// Clients at a time.
const THREADS: u32 = 4;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rules, each with an address, two backends and a table.
    pub rules: u32,
    /// Connections at a time.
    pub connections: u32,
    /// How often a rule changes.
    pub changes: u32,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Publishing all rules the first time.
    pub first: Duration,
    /// Publishing that one of them changed, while clients connect.
    pub changes: Vec<Duration>,
    /// Connections that could not be made, with why.
    pub failures: Vec<String>,
    /// Connections that could carry bytes there and back at the end, of those that kept their sockets.
    pub alive: (usize, usize),
    /// Connections that were listed, and how long that took.
    pub listed: (u64, Duration),
    /// A sweep through the table, all calls together.
    pub sweep: Duration,
    /// Taking over rules and connections, as after a restart.
    pub restart: Duration,
    /// What was counted besides packets.
    pub reasons: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// The slowest change.
    pub fn slowest(&self) -> Duration {
        self.changes.iter().copied().max().unwrap_or_default()
    }

    /// The middle one.
    pub fn usual(&self) -> Duration {
        let mut sorted = self.changes.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

/// Makes one. Needs root.
pub fn crowd(size: Size) -> Outcome {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has one");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("nobody is forbidden what is allowed");
    let (client, server) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&client, "left0"), (&server, "right0"), 1, Neighbours::Resolved);
    client.ip(&format!("route add 10.64.0.0/16 via {}", wire.right.ipv4));
    for place in 0..=size.connections / FROM_ONE {
        client.ip(&format!("address add {}/32 dev left0", source(place * FROM_ONE).ip()));
    }
    client.sysctl("net/ipv4/ip_local_port_range", "1024 9999");
    let accepted = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    let file_system = BpfFileSystem::new();
    let settings = file_system.settings(size.connections + size.connections / 4);
    let listeners = PORTS.map(|port| {
        server.run(|| TcpListener::bind((wire.right.ipv4, port))).expect("nobody else listens there")
    });
    thread::scope(|scope| {
        for listener in &listeners {
            let (accepted, is_over) = (&accepted, &is_over);
            scope.spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    match answer(&mut stream) {
                        Ok(STAYS) => accepted.lock().expect("nobody panics").push(stream),
                        _ => forget(&stream),
                    }
                }
            });
        }
        let outcome = client.run(|| play(size, &settings, wire.right.ipv4, &accepted));
        is_over.store(true, Ordering::Relaxed);
        for listener in &listeners {
            let address = listener.local_addr().expect("it listens");
            drop(server.run(|| TcpStream::connect(address)));
        }
        outcome
    })
}

fn play(size: Size, settings: &Settings, server: Ipv4Addr, accepted: &Mutex<Vec<TcpStream>>) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut redirect, _) = open_when_free(settings);
    let mut desired = rules(size.rules, server);
    let start = Instant::now();
    redirect.publish(&desired).expect("there is room");
    outcome.first = start.elapsed();
    let place = Place { interface: "left0".to_owned(), role: Role::Uplink };
    redirect.attach(&place).expect("the interface is there");

    let failures = Mutex::new(Vec::new());
    let mut streams: Vec<TcpStream> = thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|thread| {
                let failures = &failures;
                scope.spawn(move || connect_all(size, thread, failures))
            })
            .collect();
        for change in 0..size.changes {
            // The same backends in turn: whoever connects now gets one of them.
            let rule = &mut desired.rules[change as usize % size.rules as usize];
            rule.table = rule.table.iter().rev().copied().collect();
            let start = Instant::now();
            redirect.publish(&desired).expect("there is room");
            outcome.changes.push(start.elapsed());
        }
        clients.into_iter().flat_map(|client| client.join().expect("clients do not panic")).collect()
    });
    outcome.failures = failures.into_inner().expect("nobody panics");

    let start = Instant::now();
    let mut count = |_: &_| {
        outcome.listed.0 += 1;
        ControlFlow::Continue(())
    };
    redirect.connections(&mut count).expect("the table can be read");
    outcome.listed.1 = start.elapsed();
    let start = Instant::now();
    while redirect.expire().expect("the table can be read").connections == 0 {}
    outcome.sweep = start.elapsed();
    let start = Instant::now();
    drop(redirect);
    let (mut redirect, _) = open_when_free(settings);
    redirect.publish(&desired).expect("nothing changes");
    outcome.restart = start.elapsed();

    outcome.alive.1 = streams.len();
    for stream in &mut streams {
        drop(stream.write_all(&[STAYS]));
    }
    for stream in accepted.lock().expect("nobody panics").iter_mut() {
        drop(answer(stream));
    }
    outcome.alive.0 = streams.iter_mut().filter_map(|stream| stream.read_exact(&mut [0]).ok()).count();
    let counters = redirect.counters().expect("they can be read");
    let reasons = counters.rules.values().flat_map(|rule| &rule.reasons).chain(&counters.other);
    let mut sums = std::collections::BTreeMap::new();
    reasons.for_each(|(reason, count)| *sums.entry(reason.name()).or_default() += count);
    outcome.reasons = sums.into_iter().collect();
    outcome
}

/// All rules: each has an address, port 80, and both backends in turn.
fn rules(count: u32, server: Ipv4Addr) -> Desired {
    let mut desired = Desired::default();
    for id in 1..=count {
        let pair = [0, 1].map(|which| {
            let address = SocketAddr::from((server, PORTS[which as usize]));
            backend(2 * id - 1 + which, id, address)
        });
        desired.rules.push(rule(id, Transport::Tcp, called(id - 1).into(), &pair.map(|backend| backend.id)));
        desired.backends.extend(pair);
    }
    desired
}

/// What a rule listens on.
fn called(rule: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0a40_0001 + rule), 80)
}

/// Where a connection is from.
fn source(connection: u32) -> SocketAddrV4 {
    let place = u8::try_from(connection / FROM_ONE).expect("a few addresses are enough");
    let port = u16::try_from(connection % FROM_ONE).expect("it is a port");
    SocketAddrV4::new(Ipv4Addr::new(10, 99, 1, 100 + place), FIRST_PORT + port)
}

/// Makes every `THREADS`th connection.
fn connect_all(size: Size, thread: u32, failures: &Mutex<Vec<String>>) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for connection in (0..size.connections).filter(|connection| connection % THREADS == thread) {
        let word = if (connection / THREADS).is_multiple_of(KEPT) { STAYS } else { GOES };
        match dial(source(connection), called(connection % size.rules), word) {
            Ok(stream) if word == STAYS => streams.push(stream),
            Ok(stream) => forget(&stream),
            Err(error) => failures.lock().expect("nobody panics").push(format!("{connection}: {error}")),
        }
    }
    streams
}

fn dial(from: SocketAddrV4, to: SocketAddrV4, word: u8) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&[word])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// Reads a word and sends it back.
fn answer(stream: &mut TcpStream) -> io::Result<u8> {
    let mut word = [0];
    stream.read_exact(&mut word)?;
    stream.write_all(&word)?;
    Ok(word[0])
}

/// Lets the socket end without telling the other side: what is under repair says nothing when it is closed.
fn forget(stream: &TcpStream) {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is of the type of this option.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).expect("it is short"),
        )
    };
    assert_eq!(outcome, 0, "needs root: {}", io::Error::last_os_error());
}
