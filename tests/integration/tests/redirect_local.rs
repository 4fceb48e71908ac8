//! Sockets of a host that call a listener whose backends are on the same host: led there by programs of a cgroup.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
    time::Duration,
};

use weir_datapath::redirect::{
    BackendId, Desired, LocalMode, OnEmpty, Place, Redirect, Removed, Role, RuleId, Settings, Standing,
    Start, Transport,
};
use weir_integration::{
    Namespace,
    cgroup::ControlGroup,
    control_plane::wait,
    redirecting::{BpfFileSystem, backend, one_to_one, open_when_free, rule, teardown},
    require_root, require_tool,
};

/// `EPERM`.
const REFUSED: &str = "error 1";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it works in a test")
}

/// A host with an uplink behind which nobody answers, a cgroup of its own, and a redirect.
struct Host {
    namespace: Namespace,
    group: ControlGroup,
    file_system: BpfFileSystem,
}

impl Host {
    fn new(name: &str) -> Option<Self> {
        if !require_root() {
            return None;
        }
        let group = ControlGroup::make(name)?;
        let namespace = Namespace::new();
        namespace.ip("link add up0 type veth peer name nobody");
        namespace.ip("link set nobody up");
        namespace.ip("address add 10.0.0.1/24 dev up0");
        namespace.ip("address add fd00::1/64 dev up0 nodad");
        namespace.ip("link set up0 up");
        Some(Self { namespace, group, file_system: BpfFileSystem::new() })
    }

    fn settings(&self) -> Settings {
        Settings {
            local: LocalMode::Cgroup,
            cgroup: Some(self.group.path().to_owned()),
            ..self.file_system.settings(1024)
        }
    }

    /// A redirect with the uplink attached.
    fn open(&self) -> (Redirect, Start) {
        let (mut redirect, start) = open_when_free(&self.settings());
        assert!(redirect.local_trouble().is_none(), "{:?}", redirect.local_trouble());
        assert!(redirect.local().is_alive);
        let place = Place { interface: "up0".to_owned(), role: Role::Uplink };
        redirect.attach(&place).expect("it works in a test");
        (redirect, start)
    }

    /// Somebody in the cgroup who calls.
    fn caller(&self) -> Caller {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_call-out"));
        self.group.enter(&mut command);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is built");
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Caller { process, orders, answers }
    }
}

/// A process that calls as it is told to.
struct Caller {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Caller {
    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("it reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Answers everything by its name, over TCP and UDP.
fn serve(namespace: &Namespace, at: &str, name: &'static str) {
    let at = address(at);
    let (listener, socket) = namespace.run(|| {
        (TcpListener::bind(at).expect("it works in a test"), UdpSocket::bind(at).expect("it works in a test"))
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut room = [0; 256];
                while stream.read(&mut room).is_ok_and(|length| length > 0) {
                    if stream.write_all(name.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    thread::spawn(move || {
        let mut room = [0; 256];
        while let Ok((_, from)) = socket.recv_from(&mut room) {
            drop(socket.send_to(name.as_bytes(), from));
        }
    });
}

/// The rule of the demo in all four ways, to this host.
fn demo() -> Desired {
    let mut pairs = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        pairs.push((transport, address("10.0.0.10:12345"), address("10.0.0.1:23456")));
        pairs.push((transport, address("[fd00::10]:12345"), address("[fd00::1]:23456")));
    }
    one_to_one(&pairs)
}

/// One rule with these backends, numbered from 1 on.
fn shared(transport: Transport, listen: &str, backends: &[&str]) -> Desired {
    let ids: Vec<BackendId> = (1..).take(backends.len()).map(BackendId).collect();
    Desired {
        rules: vec![rule(1, transport, address(listen), &ids)],
        backends: ids.iter().zip(backends).map(|(id, at)| backend(id.0, 1, address(at))).collect(),
    }
}

fn opened_here(redirect: &Redirect, number: u32) -> u64 {
    let counters = redirect.counters().expect("it works in a test");
    counters.backends.get(&BackendId(number)).map_or(0, |backend| backend.opened_here)
}

#[test]
fn every_kind_of_socket_reaches_a_backend_on_its_own_host_and_sees_the_listener() {
    let Some(host) = Host::new("kinds") else { return };
    serve(&host.namespace, "10.0.0.1:23456", "four");
    serve(&host.namespace, "[fd00::1]:23456", "six");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        redirect.publish(&demo()).expect("it works in a test");
        let mut caller = host.caller();
        for (listen, any, name) in [
            ("10.0.0.10:12345", "0.0.0.0:0", "four"),
            ("[fd00::10]:12345", "[::]:0", "six"),
            ("[::ffff:10.0.0.10]:12345", "[::]:0", "four"),
        ] {
            assert_eq!(caller.order(&format!("tcp t {listen}")), listen);
            assert_eq!(caller.order("say t hello"), format!("{name} from {listen}"));
            assert_eq!(caller.order(&format!("udp c {any}")), "bound");
            assert_eq!(caller.order(&format!("connect c {listen}")), listen);
            assert_eq!(caller.order("say c hello"), format!("{name} from {listen}"));
            assert_eq!(caller.order(&format!("udp u {any}")), "bound");
            for _ in 0..3 {
                assert_eq!(caller.order(&format!("send u {listen} hello")), format!("{name} from {listen}"));
            }
        }
        // One for each socket, however much it sends: TCP and UDP of IPv4 have two families of sockets each.
        let opened: Vec<u64> = (1..=4).map(|number| opened_here(&redirect, number)).collect();
        assert_eq!(opened, [2, 1, 4, 2]);
        let mut conns = 0;
        redirect
            .connections(&mut |_| {
                conns += 1;
                std::ops::ControlFlow::Continue(())
            })
            .expect("it works in a test");
        assert_eq!(conns, 0, "no packet was changed");
    });
}

#[test]
fn what_is_no_listener_is_left_alone_and_so_are_other_processes_and_namespaces() {
    let Some(host) = Host::new("alone") else { return };
    if !require_tool("curl") {
        return;
    }
    serve(&host.namespace, "10.0.0.1:23456", "backend");
    serve(&host.namespace, "10.0.0.1:12345", "other");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        redirect.publish(&demo()).expect("it works in a test");
        let mut caller = host.caller();
        // The port of the listener at another address, and the backend itself.
        assert_eq!(caller.order("tcp a 10.0.0.1:12345"), "10.0.0.1:12345");
        assert_eq!(caller.order("say a hello"), "other from 10.0.0.1:12345");
        assert_eq!(caller.order("tcp b 10.0.0.1:23456"), "10.0.0.1:23456");
        assert_eq!(caller.order("say b hello"), "backend from 10.0.0.1:23456");
        assert_eq!(caller.order("udp u 0.0.0.0:0"), "bound");
        assert_eq!(caller.order("send u 10.0.0.10:12345 hello"), "backend from 10.0.0.10:12345");
        // From now on it talks to the backend itself, and its answers are the backend's.
        assert_eq!(caller.order("send u 10.0.0.1:23456 hello"), "backend from 10.0.0.1:23456");
        assert_eq!(opened_here(&redirect, 1), 0);

        // A process of the cgroup in another namespace, where the listener really is.
        let elsewhere = Namespace::new();
        elsewhere.ip("address add 10.0.0.10/32 dev lo");
        serve(&elsewhere, "10.0.0.10:12345", "elsewhere");
        let mut command = elsewhere.command(env!("CARGO_BIN_EXE_call-out"));
        host.group.enter(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it is built");
        let mut orders = process.stdin.take().expect("it is piped");
        writeln!(orders, "tcp a 10.0.0.10:12345\nsay a hello").expect("it reads");
        drop(orders);
        let output = process.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "10.0.0.10:12345\nelsewhere from 10.0.0.10:12345\n");
        assert_eq!(opened_here(&redirect, 1), 0);
    });
}

#[test]
fn backends_on_this_host_and_elsewhere_share_what_is_new() {
    let Some(host) = Host::new("shared") else { return };
    serve(&host.namespace, "10.0.0.1:1001", "one");
    serve(&host.namespace, "10.0.0.1:1002", "two");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        redirect
            .publish(&shared(Transport::Udp, "10.0.0.10:53", &["10.0.0.1:1001", "10.0.0.1:1002"]))
            .expect("it works in a test");
        let mut caller = host.caller();
        for socket in 0..40 {
            caller.order(&format!("udp s{socket} 0.0.0.0:0"));
            let first = caller.order(&format!("send s{socket} 10.0.0.10:53 hello"));
            assert!(first.ends_with(" from 10.0.0.10:53"), "{first}");
            assert_eq!(
                caller.order(&format!("send s{socket} 10.0.0.10:53 hello")),
                first,
                "it keeps its backend"
            );
        }
        let shares = [opened_here(&redirect, 1), opened_here(&redirect, 2)];
        assert_eq!(shares.iter().sum::<u64>(), 40);
        assert!(shares.iter().all(|share| (8..=32).contains(share)), "{shares:?}");

        // With affinity this host is one client.
        let mut desired = shared(Transport::Tcp, "10.0.0.10:80", &["10.0.0.1:1001", "10.0.0.1:1002"]);
        desired.rules[0].affinity = Some(Duration::from_mins(10));
        for (backend, id) in desired.backends.iter_mut().zip(11..) {
            backend.id = BackendId(id);
        }
        desired.rules[0].table = desired.rules[0].table.iter().map(|id| BackendId(id.0 + 10)).collect();
        redirect.publish(&desired).expect("it works in a test");
        for socket in 0..10 {
            assert_eq!(caller.order(&format!("tcp t{socket} 10.0.0.10:80")), "10.0.0.10:80");
        }
        let shares = [opened_here(&redirect, 11), opened_here(&redirect, 12)];
        assert!(shares == [10, 0] || shares == [0, 10], "{shares:?}");

        // One of them elsewhere: what falls to it is a packet's business, and nobody answers that here.
        let mut desired = shared(Transport::Tcp, "10.0.0.10:81", &["10.0.0.1:1001", "10.0.0.99:1002"]);
        for (backend, id) in desired.backends.iter_mut().zip(21..) {
            backend.id = BackendId(id);
        }
        desired.rules[0].table = [BackendId(22); 251].into();
        redirect.publish(&desired).expect("it works in a test");
        host.namespace.ip("route add blackhole 10.0.0.10/32");
        let blocked = caller.order("tcp x 10.0.0.10:81");
        assert!(blocked.starts_with("error "), "it is not led away: {blocked}");
        assert_eq!([opened_here(&redirect, 21), opened_here(&redirect, 22)], [0, 0]);
    });
}

#[test]
fn udp_leaves_a_backend_that_is_gone_and_stays_with_one_that_drains() {
    let Some(host) = Host::new("gone") else { return };
    serve(&host.namespace, "10.0.0.1:1001", "one");
    serve(&host.namespace, "10.0.0.1:1002", "two");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        let mut desired = shared(Transport::Udp, "10.0.0.10:53", &["10.0.0.1:1001", "10.0.0.1:1002"]);
        desired.rules[0].table = [BackendId(1); 251].into();
        redirect.publish(&desired).expect("it works in a test");
        let mut caller = host.caller();
        caller.order("udp u 0.0.0.0:0");
        assert_eq!(caller.order("send u 10.0.0.10:53 hello"), "one from 10.0.0.10:53");
        desired.rules[0].table = [BackendId(2); 251].into();
        for (standing, name) in [(Standing::Up, "one"), (Standing::Draining, "one"), (Standing::Gone, "two")]
        {
            desired.backends[0].standing = standing;
            redirect.publish(&desired).expect("it works in a test");
            let expected = format!("{name} from 10.0.0.10:53");
            assert_eq!(caller.order("send u 10.0.0.10:53 hello"), expected, "{standing:?}");
        }
    });
}

#[test]
fn listeners_at_addresses_of_this_host_are_led_to_any_backend() {
    let Some(host) = Host::new("own") else { return };
    let server = Namespace::new();
    host.namespace.ip(&format!("link add wire type veth peer name far netns {}", server.path()));
    host.namespace.ip("address add 10.9.0.1/24 dev wire");
    host.namespace.ip("link set wire up");
    server.ip("address add 10.9.0.2/24 dev far");
    server.ip("link set far up");
    serve(&server, "10.9.0.2:23456", "far");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        for (number, listen) in [(1, "127.0.0.1:80"), (2, "10.0.0.1:80"), (3, "127.7.7.7:80")] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let mut desired = one_to_one(&[(transport, address(listen), address("10.9.0.2:23456"))]);
                let id = number * 10 + u32::from(transport == Transport::Udp);
                desired.backends[0].id = BackendId(id);
                desired.rules[0].table = [BackendId(id); 251].into();
                redirect.publish(&desired).expect("it works in a test");
                let mut caller = host.caller();
                let answer = if transport == Transport::Tcp {
                    assert_eq!(caller.order(&format!("tcp s {listen}")), listen);
                    caller.order("say s hello")
                } else {
                    caller.order("udp s 0.0.0.0:0");
                    caller.order(&format!("send s {listen} hello"))
                };
                assert_eq!(answer, format!("far from {listen}"), "{transport:?}");
                assert_eq!(opened_here(&redirect, id), 1);
            }
        }
        // Nobody else could refuse such a call.
        for (on_empty, expected) in
            [(OnEmpty::Reset, REFUSED), (OnEmpty::Drop, REFUSED), (OnEmpty::Pass, "error 111")]
        {
            let mut desired =
                one_to_one(&[(Transport::Tcp, address("127.0.0.1:80"), address("10.9.0.2:23456"))]);
            desired.backends[0].id = BackendId(40);
            desired.rules[0].table = [].into();
            desired.rules[0].on_empty = on_empty;
            redirect.publish(&desired).expect("it works in a test");
            assert_eq!(host.caller().order("tcp s 127.0.0.1:80"), expected, "{on_empty:?}");
        }
    });
}

#[test]
fn without_an_uplink_sockets_are_led_from_addresses_of_this_host_alone() {
    let Some(host) = Host::new("uplink") else { return };
    serve(&host.namespace, "10.0.0.1:23456", "here");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        let desired = one_to_one(&[
            (Transport::Tcp, address("10.0.0.10:80"), address("10.0.0.1:23456")),
            (Transport::Tcp, address("10.0.0.1:80"), address("10.0.0.1:23456")),
        ]);
        redirect.publish(&desired).expect("it works in a test");
        let mut caller = host.caller();
        assert_eq!(caller.order("tcp a 10.0.0.10:80"), "10.0.0.10:80");
        assert_eq!(opened_here(&redirect, 1), 1, "it is a backend of this host");

        redirect.detach("up0").expect("it works in a test");
        host.namespace.ip("route add blackhole 10.0.0.10/32");
        assert!(
            caller.order("tcp b 10.0.0.10:80").starts_with("error "),
            "others are diverted, not this host"
        );
        assert_eq!(caller.order("tcp c 10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!((opened_here(&redirect, 1), opened_here(&redirect, 2)), (1, 1));
    });
}

#[test]
fn who_is_not_led_to_a_backend_on_this_host_is_left_alone() {
    let Some(host) = Host::new("alone") else { return };
    if !require_tool("curl") {
        return;
    }
    serve(&host.namespace, "10.0.0.1:23456", "here");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        let pairs = [(Transport::Tcp, address("10.0.0.10:80"), address("10.0.0.1:23456"))];
        redirect.publish(&one_to_one(&pairs)).expect("it works in a test");
    });
    // Of no cgroup that is led, and sent from an address that is not the backend's: nobody answers, and nobody refuses.
    host.namespace.ip("address add 10.0.0.7/24 dev up0");
    host.namespace.ip("neighbour add 10.0.0.10 lladdr 02:00:00:00:00:10 dev up0");
    let out = host
        .namespace
        .command("curl")
        .args(["-s", "--interface", "10.0.0.7", "--connect-timeout", "1", "http://10.0.0.10/"])
        .status()
        .expect("it is installed");
    assert_eq!(out.code(), Some(28), "it waits for an answer");
    host.namespace.run(|| {
        let (redirect, _) = host.open();
        let counters = redirect.counters().expect("it works in a test");
        let reasons = counters.rules.values().flat_map(|rule| &rule.reasons);
        let passed: u64 =
            reasons.filter(|(reason, _)| reason.name() == "backend_here").map(|(_, count)| count).sum();
        assert!(passed >= 1, "{counters:?}");
    });
}

#[test]
fn more_new_sockets_than_the_rule_allows_are_refused() {
    let Some(host) = Host::new("rate") else { return };
    serve(&host.namespace, "10.0.0.1:23456", "backend");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        let mut desired = demo();
        desired.rules[0].new_per_second = Some(1);
        redirect.publish(&desired).expect("it works in a test");
        let mut caller = host.caller();
        let answers: Vec<String> = (0..20).map(|_| caller.order("tcp t 10.0.0.10:12345")).collect();
        assert!(answers.contains(&REFUSED.to_owned()), "{answers:?}");
        assert!(answers.contains(&"10.0.0.10:12345".to_owned()), "{answers:?}");
        let counters = redirect.counters().expect("it works in a test");
        let limited: u64 = counters.rules[&RuleId(1)]
            .reasons
            .iter()
            .filter(|(reason, _)| reason.name() == "rate_limited")
            .map(|(_, count)| count)
            .sum();
        assert_eq!(limited, answers.iter().filter(|answer| *answer == REFUSED).count() as u64);
    });
}

#[test]
fn the_programs_outlive_the_process_and_teardown_takes_them_off() {
    let Some(host) = Host::new("restart") else { return };
    serve(&host.namespace, "10.0.0.1:23456", "backend");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        redirect.publish(&demo()).expect("it works in a test");
        let mut caller = host.caller();
        assert_eq!(caller.order("tcp t 10.0.0.10:12345"), "10.0.0.10:12345");
        drop(redirect);
        assert_eq!(caller.order("say t hello"), "backend from 10.0.0.10:12345");
        assert_eq!(caller.order("tcp n 10.0.0.10:12345"), "10.0.0.10:12345", "without a process");
        let root = host.file_system.root();
        let left = Redirect::peek(&root).expect("it works in a test").expect("it is pinned");
        assert_eq!(left.local().cgroup.as_deref(), Some(host.group.path()));
        assert!(left.local().is_alive);

        let (redirect, start) = host.open();
        assert!(matches!(start, Start::TookOver { .. }), "{start:?}");
        assert_eq!(caller.order("say t hello"), "backend from 10.0.0.10:12345", "it is still the listener");
        assert_eq!(caller.order("tcp m 10.0.0.10:12345"), "10.0.0.10:12345");
        assert_eq!(opened_here(&redirect, 1), 3);
        drop(redirect);

        // Switched off, and on again.
        let off = Settings { local: LocalMode::Off, ..host.settings() };
        let (redirect, _) = open_when_free(&off);
        assert_eq!(redirect.local().cgroup, None);
        host.namespace.ip("route add blackhole 10.0.0.10/32");
        assert!(caller.order("tcp o 10.0.0.10:12345").starts_with("error "));
        drop(redirect);
        drop(host.open());
        assert_eq!(caller.order("tcp p 10.0.0.10:12345"), "10.0.0.10:12345");

        let would = teardown(&root, true).expect("it works in a test");
        drop(open_when_free(&host.settings()));
        let mut removed = Vec::new();
        wait("the lock is free", || {
            removed = teardown(&root, false).unwrap_or_default();
            !removed.is_empty()
        });
        for removed in [would, removed] {
            let programs = removed.iter().filter(|it| matches!(it, Removed::CgroupProgram { .. })).count();
            assert_eq!(programs, 8, "{removed:?}");
        }
        assert!(!root.exists());
        assert!(caller.order("tcp q 10.0.0.10:12345").starts_with("error "));
    });
}

#[test]
fn another_cgroup_takes_the_place_of_the_one_before() {
    let Some(host) = Host::new("first") else { return };
    let Some(second) = ControlGroup::make("second") else { return };
    serve(&host.namespace, "10.0.0.1:23456", "backend");
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        redirect.publish(&demo()).expect("it works in a test");
        drop(redirect);
        let settings = Settings { cgroup: Some(second.path().to_owned()), ..host.settings() };
        let (redirect, _) = open_when_free(&settings);
        assert_eq!(redirect.local().cgroup.as_deref(), Some(second.path()));
        host.namespace.ip("route add blackhole 10.0.0.10/32");
        assert!(host.caller().order("tcp a 10.0.0.10:12345").starts_with("error "));
        drop(redirect);
        // A cgroup that goes away takes its programs along, a moment later; the next start finds that out.
        drop(second);
        let root = host.file_system.root();
        wait("the programs are off", || {
            let left = Redirect::peek(&root).expect("it works in a test").expect("it is pinned");
            !left.local().is_alive
        });
        drop(host.open());
        assert_eq!(host.caller().order("tcp a 10.0.0.10:12345"), "10.0.0.10:12345");

        let nowhere = Settings { cgroup: Some("/nowhere".into()), ..host.settings() };
        let (redirect, _) = open_when_free(&nowhere);
        assert!(redirect.local_trouble().is_some());
        assert_eq!(redirect.local().cgroup, None);
    });
}

#[test]
fn curl_and_dig_notice_nothing() {
    if !require_tool("curl") || !require_tool("dig") || !require_tool("dnsmasq") {
        return;
    }
    let Some(host) = Host::new("tools") else { return };
    let mut server = host.namespace.command("dnsmasq");
    server.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--no-resolv",
        "--no-hosts",
    ]);
    server.args(["--port=5353", "--listen-address=10.0.0.1", "--bind-interfaces", "--user=root"]);
    server.arg("--address=/weir.test/192.0.2.7");
    let mut server = server.stderr(Stdio::null()).spawn().expect("dnsmasq starts");
    let listener = host.namespace.run(|| TcpListener::bind("10.0.0.1:8080")).expect("it works in a test");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut room = [0; 1024];
            drop(stream.read(&mut room));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"));
        }
    });
    host.namespace.run(|| {
        let (mut redirect, _) = host.open();
        let desired = one_to_one(&[
            (Transport::Tcp, address("10.0.0.10:80"), address("10.0.0.1:8080")),
            (Transport::Udp, address("10.0.0.10:53"), address("10.0.0.1:5353")),
            (Transport::Tcp, address("10.0.0.10:53"), address("10.0.0.1:5353")),
        ]);
        redirect.publish(&desired).expect("it works in a test");
        let run = |program: &str, arguments: &[&str]| {
            let mut command = host.namespace.command(program);
            host.group.enter(&mut command);
            let output = command.args(arguments).output().expect("it is installed");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let said = run(
            "curl",
            &["-s", "--max-time", "20", "-w", " %{remote_ip}:%{remote_port}", "http://10.0.0.10"],
        );
        assert_eq!(said, "hello 10.0.0.10:80");
        for more in ["+notcp", "+tcp"] {
            let query = ["@10.0.0.10", "weir.test", "A", "+short", "+tries=10", "+time=2", more];
            assert_eq!(run("dig", &query), "192.0.2.7\n", "{more}");
        }
    });
    drop(server.kill());
    drop(server.wait());
}
