//! Interfaces of every kind, however they are attached and wherever a process ended.

use std::process::{Command, Stdio};

use weir_datapath::redirect::{PlaceHook, RedirectError};
use weir_integration::{
    crowd::{Size, crowd},
    frames::PageSender,
    redirecting::{
        backend,
        reference::{Before, Check, Description, Part},
        rule,
    },
};

use super::*;

/// Writes down that the interface is attached by this hook, as a process does before it attaches, and as one that was
/// killed may have left it.
pub(super) fn write_place(
    file_system: &BpfFileSystem,
    namespace: &Namespace,
    interface: &str,
    hook: PlaceHook,
) {
    let index = namespace.run(|| nix::net::if_::if_nametoindex(interface).expect("it is there"));
    let mut value = [0_u8; 32];
    value[..interface.len()].copy_from_slice(interface.as_bytes());
    value[16..24].copy_from_slice(&namespace.netns().identity().inode.to_ne_bytes());
    // PLACE_UPLINK; HOOK_TCX or HOOK_CLSACT
    value[24] = 1;
    value[25] = if hook == PlaceHook::Tcx { 1 } else { 2 };
    let words = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>();
    let map = file_system.layout().join("maps/PLACES");
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["map", "update", "pinned"]).arg(map).arg("key").args(words(&index.to_ne_bytes()));
    let status = bpftool.arg("value").args(words(&value)).status().expect("it is installed");
    assert!(status.success());
}

#[test]
fn filters_of_clsact_divert_survive_a_kill_and_go_wherever_a_process_ended() {
    if !require_root() || !require_tool("bpftool") {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    let seen = || {
        let filters = |direction: &str| lan.client.tc(&format!("-j filter show dev up0 {direction}"));
        format!("{}{}{}", lan.client.tc("-j qdisc show"), filters("ingress"), filters("egress"))
    };
    let call = || exchange(&connect(&lan.client, "10.0.0.10:12345"), b"hello");
    for with_others in [false, true] {
        if with_others {
            lan.client.tc("qdisc add dev up0 clsact");
            lan.client.tc("filter add dev up0 egress prio 49 protocol ip u32 match u32 0 0");
        }
        let before = seen();
        let file_system = BpfFileSystem::new();
        lan.client.run(|| {
            let (mut redirect, _) = file_system.open(64);
            redirect.publish(&demo()).unwrap();
            write_place(&file_system, &lan.client, "up0", PlaceHook::Clsact);
            let attached = redirect.attach(&place("up0", Role::Uplink)).unwrap();
            assert_eq!((attached.hook, attached.was_attached), (PlaceHook::Clsact, false));
            assert!(redirect.places()[0].is_alive && redirect.refresh().unwrap().is_empty());
            call();
            let old = connect(&lan.client, "10.0.0.10:12345");
            // As after a kill.
            drop(redirect);
            exchange(&old, b"nobody there");
            let (mut redirect, _) = file_system.open(64);
            let attached = redirect.attach(&place("up0", Role::Uplink)).unwrap();
            assert!(attached.was_attached && attached.hook == PlaceHook::Clsact);
            exchange(&old, b"after");
            redirect.detach("up0").unwrap();
            assert_eq!(seen(), before);

            write_place(&file_system, &lan.client, "up0", PlaceHook::Clsact);
            redirect.attach(&place("up0", Role::Uplink)).unwrap();
            call();
            drop(redirect);
            // The interface has another name by now, which changes nothing about whose filters these are.
            for (from, to) in [("up0", "up1"), ("up1", "up0")] {
                lan.client.ip(&format!("link set {from} down"));
                lan.client.ip(&format!("link set {from} name {to}"));
                if to == "up1" {
                    teardown(&file_system.root(), false).unwrap();
                }
            }
            lan.client.ip("link set up0 up");
            assert_eq!(seen(), before);

            let (mut redirect, _) = file_system.open(64);
            write_place(&file_system, &lan.client, "up0", PlaceHook::Clsact);
            redirect.attach(&place("up0", Role::Uplink)).unwrap();
            drop(redirect);
            teardown(&file_system.root(), false).unwrap();
            assert_eq!(seen(), before);
        });
    }
}

#[test]
fn what_is_pinned_belongs_to_one_network_namespace() {
    if !require_root() {
        return;
    }
    // Interfaces have the same names and numbers in both.
    let (lan, other) = (Lan::new(), Lan::new());
    serve(&lan.server, &["10.0.0.138:23456"]);
    let file_system = BpfFileSystem::new();
    let root = file_system.root();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        redirect.publish(&demo()).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
    });
    let stream = connect(&lan.client, "10.0.0.10:12345");
    other.client.run(|| {
        let error = when_free(|| Redirect::open(&file_system.settings(64))).unwrap_err();
        assert!(
            matches!(&error, RedirectError::OtherNamespace { interface, .. } if interface == "up0"),
            "{error}"
        );
        assert!(Redirect::peek(&root).unwrap().unwrap().places()[0].is_alive);
    });
    exchange(&stream, b"still there");
    lan.client.ip("link delete up0");
    other.client.run(|| {
        let (mut redirect, start) = file_system.open(64);
        assert!(matches!(start, Start::TookOver { .. }) && redirect.places().is_empty());
        assert!(!redirect.attach(&place("up0", Role::Uplink)).unwrap().was_attached);
        drop(redirect);
    });
    // From elsewhere it can be taken away.
    teardown(&root, false).unwrap();
    assert_eq!(other.client.run(|| weir_datapath::hook::tcx_programs("up0").unwrap()), []);
}

#[test]
fn clients_behind_a_port_of_a_bridge_are_redirected() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    serve(&lan.server, &["10.0.0.138:23456"]);
    // The bridge is their router: what they send has its address and not that of the port.
    lan.bridge.ip("address add 10.0.0.254/24 dev br0");
    lan.bridge.sysctl("net/ipv4/ip_forward", "1");
    lan.bridge.sysctl("net/ipv4/conf/all/send_redirects", "0");
    lan.bridge.sysctl("net/ipv4/conf/br0/send_redirects", "0");
    lan.client.ip("route add 192.0.2.1/32 via 10.0.0.254");
    // Answers come back by the router, too.
    lan.server.ip("route add 10.0.0.1/32 via 10.0.0.254");
    let file_system = BpfFileSystem::new();
    lan.bridge.run(|| {
        let (mut redirect, _) = file_system.open(64);
        let rules = [(Transport::Tcp, address("192.0.2.1:80"), address("10.0.0.138:23456"))];
        redirect.publish(&one_to_one(&rules)).unwrap();
        redirect.attach(&place("client", Role::Client)).unwrap();
        exchange(&connect(&lan.client, "192.0.2.1:80"), &megabyte());
    });
}

#[test]
fn headers_that_do_not_lie_in_the_linear_part_are_translated_both_ways() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    let mac = |namespace: &Namespace| -> Vec<u8> {
        let text = namespace.ip("-o link show up0");
        let (_, mac) = text.split_once("link/ether ").expect("it is an Ethernet device");
        mac[..17].split(':').map(|byte| u8::from_str_radix(byte, 16).expect("it is hexadecimal")).collect()
    };
    let macs = lan.all().map(mac);
    let senders = [&lan.client, &lan.server].map(|namespace| PageSender::new(namespace, "up0"));
    let [mut of_client, mut of_server] = senders;
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        redirect.publish(&demo()).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
    });
    for [client, listen, backend] in [
        ["10.0.0.1:999", "10.0.0.10:12345", "10.0.0.138:23456"],
        ["[fd00::1]:999", "[fd00::10]:12345", "[fd00::138]:23456"],
    ] {
        let [client, listen, backend] = [client, listen, backend].map(address);
        let bind = |namespace: &Namespace, at| {
            let socket = namespace.run(|| UdpSocket::bind(at)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (caller, server) = (bind(&lan.client, client), bind(&lan.server, backend));
        // Connected: an answer from elsewhere does not count.
        caller.connect(listen).unwrap();
        let mut bytes = [0; 2000];
        for length in [0, 1, 7, 1400] {
            let frame = |macs: [&[u8]; 2], source, destination| {
                let payload = (0..length).map(|byte: usize| u8::try_from(byte % 251).unwrap_or(0)).collect();
                let (before, check, part) = (Before::default(), Check::Full, Part::Whole);
                let packet = Description {
                    before,
                    is_tcp: false,
                    source,
                    destination,
                    flags: 0,
                    payload,
                    check,
                    part,
                };
                let mut frame = packet.frame();
                frame[..12].copy_from_slice(&macs.concat());
                (frame, packet.payload)
            };
            let (asked, payload) = frame([&macs[1], &macs[0]], client, listen);
            of_client.send(&asked);
            assert_eq!(server.recv_from(&mut bytes).unwrap(), (length, client));
            assert_eq!(bytes[..length], payload);
            let (answered, payload) = frame([&macs[0], &macs[2]], backend, client);
            of_server.send(&answered);
            assert_eq!(caller.recv(&mut bytes).unwrap(), length);
            assert_eq!(bytes[..length], payload);
        }
    }
    assert_eq!(checksum_errors(&lan.all()), [""; 0]);
}

/// A device without link headers between the client and the server, each packet in a datagram.
fn tunnel(lan: &Lan) -> Vec<std::process::Child> {
    let end = |namespace: &Namespace, inside: &str, own: &str, peer: &str| {
        let mut socat = namespace.command("socat");
        socat.arg(format!("TUN:{inside}/24,tun-name=tun0,tun-type=tun,iff-no-pi,iff-up"));
        socat.arg(format!("UDP4:{peer}:6000,bind={own}:6000"));
        let socat = socat.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
        let deadline = Instant::now() + PATIENCE;
        while !namespace.ip("-o link show").contains("tun0: <POINTOPOINT,MULTICAST,NOARP,UP") {
            assert!(Instant::now() < deadline, "{}", namespace.ip("-o link show"));
        }
        socat
    };
    vec![
        end(&lan.client, "192.0.2.1", "10.0.0.1", "10.0.0.138"),
        end(&lan.server, "192.0.2.2", "10.0.0.138", "10.0.0.1"),
    ]
}

#[test]
fn a_device_without_link_headers_diverts_refuses_and_translates_errors() {
    if !require_root() || !require_tool("socat") {
        return;
    }
    let lan = Lan::new();
    let tunnels = tunnel(&lan);
    serve(&lan.server, &["192.0.2.2:8080"]);
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(64);
        let to = address("192.0.2.2:8080");
        let mut rules = one_to_one(&[
            (Transport::Tcp, address("192.0.2.10:80"), to),
            (Transport::Udp, address("192.0.2.10:80"), to),
            (Transport::Tcp, address("192.0.2.10:81"), to),
            (Transport::Udp, address("192.0.2.10:82"), address("192.0.2.2:9")),
        ]);
        rules.rules[2].table = [].into();
        redirect.publish(&rules).unwrap();
        redirect.attach(&place("tun0", Role::Uplink)).unwrap();
        exchange(&connect(&lan.client, "192.0.2.10:80"), &megabyte());
        exchange_udp(&lan.client, "0.0.0.0:0", "192.0.2.10:80", 100);
        exchange_udp(&lan.client, "0.0.0.0:0", "192.0.2.10:80", 4096);
        let refused = TcpStream::connect_timeout(&address("192.0.2.10:81"), PATIENCE);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // Nobody is at that port: the error must be about the address that was called.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("192.0.2.10:82").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"anybody?").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
    assert_eq!(checksum_errors(&lan.all()), [""; 0]);
    for mut socat in tunnels {
        socat.kill().unwrap();
        socat.wait().unwrap();
    }
}

#[test]
fn a_client_keeps_its_backend_and_no_more_connections_begin_than_a_rule_allows() {
    if !require_root() {
        return;
    }
    let lan = Lan::new();
    for server in [&lan.server, &lan.listen] {
        serve(server, &["0.0.0.0:23456"]);
    }
    let file_system = BpfFileSystem::new();
    lan.client.run(|| {
        let (mut redirect, _) = file_system.open(4096);
        let (first, second) =
            (backend(1, 1, address("10.0.0.138:23456")), backend(2, 1, address("10.0.0.10:23456")));
        let mut kept = rule(1, Transport::Tcp, address("10.0.0.99:80"), &[first.id, second.id]);
        kept.affinity = Some(Duration::from_hours(1));
        let mut limited =
            rule(2, Transport::Udp, address("10.0.0.99:81"), &[backend(3, 2, first.address).id]);
        limited.new_per_second = Some(5);
        let mut desired = Desired {
            rules: vec![kept, limited],
            backends: vec![first, second, backend(3, 2, first.address)],
        };
        redirect.publish(&desired).unwrap();
        redirect.attach(&place("up0", Role::Uplink)).unwrap();
        // Nobody has the address, so the way to it has to be told.
        lan.client.ip("neighbour add 10.0.0.99 lladdr 02:00:00:00:00:99 dev up0");
        let backends = |redirect: &Redirect| {
            let mut backends = std::collections::BTreeMap::<_, u32>::new();
            let mut visit = |connection: &Connection| {
                *backends.entry((connection.tuple.client.ip(), connection.backend)).or_default() += 1;
                ControlFlow::Continue(())
            };
            redirect.connections(&mut visit).unwrap();
            backends
        };
        for _ in 0..20 {
            exchange(&connect(&lan.client, "10.0.0.99:80"), b"hello");
        }
        let there = backends(&redirect);
        assert!(there.len() == 1 && there.values().all(|count| *count == 20), "{there:?}");
        let ((_, kept), _) = there.iter().next().unwrap();
        // Its backend takes no more: the client gets the other one, and keeps that when the first is back.
        for standing in [Standing::Draining, Standing::Up] {
            desired.backends.iter_mut().find(|it| it.id == *kept).unwrap().standing = standing;
            redirect.publish(&desired).unwrap();
            for _ in 0..10 {
                exchange(&connect(&lan.client, "10.0.0.99:80"), b"hello");
            }
        }
        let there = backends(&redirect);
        assert_eq!(there.values().copied().collect::<Vec<_>>(), [20, 20], "{there:?}");

        for _ in 0..40 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"hello", "10.0.0.99:81").unwrap();
        }
        let counters = redirect.counters().unwrap();
        let limited = &counters.rules[&RuleId(2)];
        // Nobody listens there, which is said too, once in a while.
        let refused = limited.reasons.iter().filter(|(reason, _)| reason.name() == "rate_limited");
        let refused: u64 = refused.map(|(_, count)| count).sum();
        // A new second may begin under way.
        assert!(limited.sum.opened >= 5 && refused > 0 && limited.sum.opened + refused == 40, "{limited:?}");
    });
}

#[test]
fn a_crowd_connects_while_rules_change_and_nobody_is_turned_away() {
    if !require_root() {
        return;
    }
    let size = Size { rules: 10_000, connections: 100_000, changes: 20 };
    let outcome = crowd(size);
    println!("{outcome:?}");
    assert!(outcome.failures.is_empty(), "{} failed: {:?}", outcome.failures.len(), outcome.failures.first());
    assert_eq!((outcome.alive.0, outcome.listed.0), (outcome.alive.1, u64::from(size.connections)));
    assert_eq!(outcome.reasons, []);
    // What it takes on an idle machine is in the documentation of the benchmark.
    assert!(outcome.slowest() < Duration::from_secs(5), "{:?}", outcome.changes);
}
