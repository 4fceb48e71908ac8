//! The redirect on wires between namespaces, with real sockets at both ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use weir_datapath::redirect::{
    Connection, ConnectionsOf, Desired, Place, PlaceChange, Redirect, Role, RuleId, Standing, Start,
    Transport,
};
use weir_integration::{
    Namespace,
    redirecting::{BpfFileSystem, backend, one_to_one, open_when_free, teardown, when_free},
    require_root, require_tool,
};

#[path = "redirect/elsewhere.rs"]
mod elsewhere;
#[path = "redirect/halves.rs"]
mod halves;
#[path = "redirect/moving.rs"]
mod moving;
#[path = "redirect/places.rs"]
mod places;
#[path = "redirect/resize.rs"]
mod resize;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Offloads of a veth, all of them.
const OFFLOADS: [&str; 2] =
    ["tx on rx on sg on tso on gso on gro on", "tx off rx off sg off tso off gso off gro off"];

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it works in a test")
}

/// A client, the host that it believes to talk to, and the one that answers: three namespaces at one bridge.
struct Lan {
    client: Namespace,
    listen: Namespace,
    server: Namespace,
    bridge: Namespace,
}

impl Lan {
    fn new() -> Self {
        let bridge = Namespace::new();
        bridge.ip("link add br0 type bridge");
        bridge.ip("link set br0 up");
        let host = |name: &str, number: u32| {
            let namespace = Namespace::new();
            namespace.ip(&format!("link add up0 type veth peer name {name} netns {}", bridge.path()));
            namespace.ip(&format!("address add 10.0.0.{number}/24 dev up0"));
            namespace.ip(&format!("address add fd00::{number}/64 dev up0 nodad"));
            namespace.ip("link set up0 up");
            bridge.ip(&format!("link set {name} master br0 up"));
            namespace.until_it_sends("up0");
            bridge.until_it_sends(name);
            namespace
        };
        Self { client: host("client", 1), listen: host("listen", 10), server: host("server", 138), bridge }
    }

    fn all(&self) -> [&Namespace; 3] {
        [&self.client, &self.listen, &self.server]
    }
}

/// The rule of the demo, for both families and protocols.
fn demo() -> Desired {
    let mut pairs = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        pairs.push((transport, address("10.0.0.10:12345"), address("10.0.0.138:23456")));
        pairs.push((transport, address("[fd00::10]:12345"), address("[fd00::138]:23456")));
    }
    one_to_one(&pairs)
}

fn place(interface: &str, role: Role) -> Place {
    Place { interface: interface.to_owned(), role }
}

/// Echoes on TCP and UDP until the process ends.
fn serve(namespace: &Namespace, at: &[&str]) {
    for at in at {
        let at = address(at);
        let (listener, socket) = namespace.run(|| {
            (
                TcpListener::bind(at).expect("it works in a test"),
                UdpSocket::bind(at).expect("it works in a test"),
            )
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn connect(namespace: &Namespace, to: &str) -> TcpStream {
    let stream =
        namespace.run(|| TcpStream::connect_timeout(&address(to), PATIENCE)).expect("it works in a test");
    stream.set_read_timeout(Some(PATIENCE)).expect("it works in a test");
    stream.set_write_timeout(Some(PATIENCE)).expect("it works in a test");
    stream
}

/// Sends `bytes` and expects them back.
fn exchange(stream: &TcpStream, bytes: &[u8]) {
    let mut writer = stream.try_clone().expect("it works in a test");
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).expect("it works in a test"));
        let mut back = vec![0; bytes.len()];
        let mut reader = stream;
        reader.read_exact(&mut back).expect("it works in a test");
        assert!(back == bytes, "{} bytes came back changed", bytes.len());
    });
}

/// How many connections are listed that are like this.
fn listed(redirect: &Redirect, is_meant: impl Fn(&Connection) -> bool) -> u64 {
    let mut count = 0;
    redirect
        .connections(&mut |connection| {
            count += u64::from(is_meant(connection));
            ControlFlow::Continue(())
        })
        .expect("they can be read");
    count
}

fn exchange_udp(namespace: &Namespace, from: &str, to: &str, length: usize) {
    let socket = namespace.run(|| UdpSocket::bind(address(from))).expect("it works in a test");
    // Connected: an answer from elsewhere does not count.
    socket.connect(address(to)).expect("it works in a test");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("it works in a test");
    let bytes: Vec<u8> = (0..length).map(|byte: usize| u8::try_from(byte % 256).unwrap_or(0)).collect();
    let mut back = vec![0; 65_536];
    let deadline = Instant::now() + PATIENCE;
    loop {
        socket.send(&bytes).expect("it works in a test");
        match socket.recv(&mut back) {
            Ok(received) => {
                assert_eq!(back[..received], bytes);
                return;
            }
            Err(error) => assert!(Instant::now() < deadline, "no answer from {to}: {error}"),
        }
    }
}

/// Errors of checksums that the namespaces counted.
fn checksum_errors(namespaces: &[&Namespace]) -> Vec<String> {
    let mut errors = Vec::new();
    for namespace in namespaces {
        let text = namespace.tool("nstat", "-asz");
        errors.extend(
            text.lines()
                .filter(|line| line.contains("Csum") && line.contains("Err"))
                .filter(|line| line.split_whitespace().nth(1) != Some("0"))
                .map(str::to_owned),
        );
    }
    errors
}

fn megabyte() -> Vec<u8> {
    (0..1_u32 << 20).map(|index| u8::try_from(index.wrapping_mul(2_654_435_761) >> 24).unwrap_or(0)).collect()
}

#[test]
fn the_demo_works_on_the_uplink_with_and_without_offloads() {
    if !require_root() || !require_tool("ethtool") || !require_tool("nstat") {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456", "[fd00::138]:23456"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, start) = file_system.open(4096);
        assert_eq!(start, Start::Fresh);
        redirect.publish(&demo()).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        for offloads in OFFLOADS {
            for namespace in lan.all() {
                namespace.offload("up0", offloads);
            }
            for to in ["10.0.0.10:12345", "[fd00::10]:12345"] {
                let stream = connect(&lan.client, to);
                assert_eq!(stream.peer_addr().unwrap(), address(to));
                exchange(&stream, &megabyte());
            }
            exchange_udp(&lan.client, "0.0.0.0:0", "10.0.0.10:12345", 100);
            exchange_udp(&lan.client, "[::]:0", "[fd00::10]:12345", 100);
            // In fragments.
            exchange_udp(&lan.client, "0.0.0.0:0", "10.0.0.10:12345", 4096);
            exchange_udp(&lan.client, "[::]:0", "[fd00::10]:12345", 4096);
        }
        assert_eq!(checksum_errors(&lan.all()), [""; 0]);
        let counters = redirect.counters().unwrap();
        for id in 1..=4 {
            let sum = counters.rules[&RuleId(id)].sum;
            assert!(sum.opened >= 2 && sum.forward_packets > 2 && sum.reverse_packets > 2, "{id}: {sum:?}");
        }
        let mut listed = Vec::new();
        redirect
            .connections(&mut |connection| {
                listed.push(*connection);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(listed.len() >= 8 && listed.iter().all(|connection| connection.is_replied), "{listed:?}");
        let one = listed[0];
        assert_eq!(redirect.connection(&one.tuple).unwrap().unwrap().backend, one.backend);
    });
}

#[test]
fn clients_behind_an_interface_are_redirected_through_a_router() {
    if !require_root() || !require_tool("ethtool") || !require_tool("nstat") {
        return;
    }
    let (client, router, server) = (Namespace::new(), Namespace::new(), Namespace::new());
    for (host, name, network) in [(&client, "clients", 1), (&server, "servers", 2)] {
        host.ip(&format!("link add up0 type veth peer name {name} netns {}", router.path()));
        host.ip(&format!("address add 10.0.{network}.2/24 dev up0"));
        host.ip(&format!("address add fd00:{network}::2/64 dev up0 nodad"));
        host.ip("link set up0 up");
        router.ip(&format!("address add 10.0.{network}.1/24 dev {name}"));
        router.ip(&format!("address add fd00:{network}::1/64 dev {name} nodad"));
        router.ip(&format!("link set {name} up"));
        // For neighbour discovery on behalf of others.
        router.ip(&format!("address add fe80::1/64 dev {name} nodad"));
        host.ip(&format!("route add default via 10.0.{network}.1"));
        host.ip(&format!("-6 route add default via fd00:{network}::1"));
    }
    router.sysctl("net/ipv4/ip_forward", "1");
    router.sysctl("net/ipv6/conf/all/forwarding", "1");
    serve(&server, &["10.0.2.2:8080", "[fd00:2::2]:8080"]);
    let file_system = BpfFileSystem::new();
    router.run(|| {
        let (mut redirect, _) = file_system.open(4096);
        let mut pairs = Vec::new();
        for transport in [Transport::Tcp, Transport::Udp] {
            pairs.push((transport, address("192.0.2.1:80"), address("10.0.2.2:8080")));
            pairs.push((transport, address("[2001:db8::1]:80"), address("[fd00:2::2]:8080")));
        }
        redirect.publish(&one_to_one(&pairs)).unwrap();
        redirect.attach(&place("clients", Role::Client)).unwrap();
        for offloads in OFFLOADS {
            for (namespace, interface) in
                [(&client, "up0"), (&server, "up0"), (&router, "clients"), (&router, "servers")]
            {
                namespace.offload(interface, offloads);
            }
            for to in ["192.0.2.1:80", "[2001:db8::1]:80"] {
                exchange(&connect(&client, to), &megabyte());
            }
            exchange_udp(&client, "0.0.0.0:0", "192.0.2.1:80", 100);
            exchange_udp(&client, "[::]:0", "[2001:db8::1]:80", 4096);
        }
        // A path that is narrower than anybody knows: the router's error must name the listener.
        router.ip("route replace 10.0.2.0/24 dev servers mtu lock 1400");
        router.ip("-6 route replace fd00:2::/64 dev servers proto kernel metric 256 mtu lock 1400");
        for (to, rule) in [("192.0.2.1:80", 1), ("[2001:db8::1]:80", 2)] {
            exchange(&connect(&client, to), &megabyte());
            let counters = redirect.counters().unwrap();
            let reasons = &counters.rules[&RuleId(rule)].reasons;
            let mut names = reasons.iter().map(|(reason, count)| (reason.name(), *count));
            assert!(names.any(|(name, count)| name == "icmp_translated" && count > 0), "{to}");
        }
        // Nobody there: the refusal is the listener's.
        let mut nobody = one_to_one(&[(Transport::Udp, address("192.0.2.1:80"), address("10.0.2.2:9"))]);
        nobody.rules[0].id = RuleId(77);
        nobody.rules[0].table = [weir_datapath::redirect::BackendId(78); 251].into();
        nobody.backends = vec![backend(78, 77, address("10.0.2.2:9"))];
        redirect.publish(&nobody).unwrap();
        let socket = client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.connect("192.0.2.1:80").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"anybody?").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(checksum_errors(&[&client, &router, &server]), [""; 0]);
    });
}

#[test]
fn a_connection_outlives_the_process_an_upgrade_and_ends_with_its_backend() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(4096);
        redirect.publish(&demo()).unwrap();
        assert!(!redirect.attach(&place("up0", Role::Uplink)).unwrap().was_attached);
        let stream = connect(&lan.client, "10.0.0.10:12345");
        exchange(&stream, b"before");
        // As after a kill: nothing was told to stop.
        drop(redirect);
        exchange(&stream, b"nobody there");
        exchange(&connect(&lan.client, "10.0.0.10:12345"), b"new ones as well");
        let seen = Redirect::peek(&file_system.root()).unwrap().unwrap();
        assert_eq!(seen.published().unwrap(), demo());
        assert!(seen.places()[0].is_alive);
        drop(seen);

        let (mut redirect, start) = file_system.open(4096);
        assert!(matches!(start, Start::TookOver { connections, .. } if connections >= 2), "{start:?}");
        assert_eq!(redirect.published().unwrap(), demo());
        assert!(redirect.attach(&place("up0", Role::Uplink)).unwrap().was_attached);
        exchange(&stream, b"after");
        // Two at once are one too many.
        assert!(Redirect::open(&file_system.settings(4096)).is_err());

        let mut gone = demo();
        for backend in &mut gone.backends {
            backend.standing = Standing::Gone;
        }
        assert!(redirect.publish(&gone).unwrap().connections_ended >= 1);
        let mut stream = stream;
        let reset = stream.write_all(b"anybody?").and_then(|()| stream.read(&mut [0; 8]));
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
        // Nobody takes a new one: refused at once.
        let refused = TcpStream::connect_timeout(&address("10.0.0.10:12345"), PATIENCE);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);

        redirect.publish(&demo()).unwrap();
        let mut stream = connect(&lan.client, "10.0.0.10:12345");
        exchange(&stream, b"again");
        let client = ConnectionsOf::Client("10.0.0.1".parse().unwrap());
        assert!(redirect.end_connections(client).unwrap() > 0);
        let reset = stream.write_all(b"anybody?").and_then(|()| stream.read(&mut [0; 8]));
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_belongs_to_others_is_as_it_was_after_teardown() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let lan = Lan::new();
    lan.client.tc("qdisc add dev up0 clsact");
    for direction in ["ingress", "egress"] {
        lan.client.tc(&format!("filter add dev up0 {direction} prio 7 protocol ip u32 match u32 0 0"));
    }
    let everything = || {
        let mut text = lan.client.tc("-j qdisc show");
        for direction in ["ingress", "egress"] {
            text += &lan.client.tc(&format!("-j filter show dev up0 {direction}"));
        }
        text + &lan.client.tool("bpftool", "net show")
    };
    let before = everything();
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        redirect.publish(&demo()).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        assert!(redirect.places()[0].is_alive);
        assert!(Redirect::teardown(&file_system.root(), false).is_err(), "it is held");
        drop(redirect);
        let would = teardown(&file_system.root(), true).unwrap();
        assert!(Redirect::peek(&file_system.root()).unwrap().unwrap().places()[0].is_alive);
        let removed = teardown(&file_system.root(), false).unwrap();
        assert!(would.len() > 10 && removed.len() >= would.len(), "{would:?} {removed:?}");
        assert!(!file_system.root().exists());
        assert_eq!(everything(), before);
        assert_eq!(teardown(&file_system.root(), false).unwrap(), []);
        // And from the beginning again.
        let (mut redirect, start) = file_system.open(64);
        assert_eq!(start, Start::Fresh);
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        redirect.detach("up0").unwrap();
        assert_eq!(everything(), before);
        assert_eq!(redirect.places(), []);
    });
}

#[test]
fn an_interface_that_is_made_again_is_attached_again() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(4096);
        redirect.publish(&demo()).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        assert!(redirect.refresh().unwrap().is_empty());
        lan.client.ip("link del up0");
        assert!(matches!(redirect.refresh().unwrap()[..], [PlaceChange::Gone { .. }]));
        assert!(!redirect.places()[0].is_alive);
        assert!(redirect.refresh().unwrap().is_empty());
        lan.client.ip(&format!("link add up0 type veth peer name client netns {}", lan.bridge.path()));
        lan.client.ip("address add 10.0.0.1/24 dev up0");
        lan.client.ip("link set up0 up");
        lan.bridge.ip("link set client master br0 up");
        let changes = redirect.refresh().unwrap();
        assert!(matches!(changes[..], [PlaceChange::Attached { .. }]), "{changes:?}");
        assert!(redirect.places()[0].is_alive);
        exchange(&connect(&lan.client, "10.0.0.10:12345"), b"hello");
    });
}

#[test]
fn churn_through_a_small_table_and_timeouts_leave_nothing_behind() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(4096);
        let mut desired = demo();
        for rule in &mut desired.rules {
            rule.timeouts.closing = Duration::from_millis(100);
        }
        redirect.publish(&desired).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        for round in 0..20 {
            for _ in 0..100 {
                exchange(&connect(&lan.client, "10.0.0.10:12345"), b"hello");
            }
            let expired = redirect.expire().unwrap();
            assert!(expired.connections <= 2000, "round {round}: {expired:?}");
        }
        let deadline = Instant::now() + PATIENCE;
        while redirect.expire().unwrap().connections > 0 {
            assert!(Instant::now() < deadline, "{:?}", redirect.expire());
            thread::yield_now();
        }
        let sum = redirect.counters().unwrap().rules[&RuleId(1)].sum;
        assert_eq!((sum.opened, sum.closed), (2000, 2000));
    });
}
