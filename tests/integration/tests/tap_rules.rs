//! What a rule does not let through reaches nobody, rules change while bytes flow, and sockets are followed from process to
//! process.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    os::unix::fs::MetadataExt as _,
    process,
};

use weir_datapath::tap::{Payload, Processes, Role, Rule, RuleId, Settings, Way};
use weir_integration::tapping::{Recorder, alone, connection, own_rule, socket_id, stream};

/// Nobody else sends this.
const CANARY: &[u8] = b"the canary must not leave the kernel";

fn own_command() -> [u8; 16] {
    let mut command = [0; 16];
    let name = std::fs::read("/proc/self/comm").expect("loopback works");
    command[..name.len() - 1].copy_from_slice(&name[..name.len() - 1]);
    command
}

/// The cgroup of this process, and the topmost one.
fn own_cgroups() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let root = mounts.lines().find(|line| line.contains(" cgroup2 "))?.split(' ').nth(1)?.to_owned();
    let id = |path: &str| std::fs::metadata(path).ok().map(|metadata| metadata.ino());
    Some([id(&format!("{root}{path}"))?, id(&root)?])
}

/// Which directions of client and server are told of a connection on which both send the canary.
fn told_of(recorder: &mut Recorder, listener: &TcpListener, to: SocketAddr) -> Vec<(Role, Way)> {
    let (mut client, mut server, [of_client, of_server]) = connection(listener, to);
    let ids = [(of_client, Role::Client), (of_server, Role::Server)];
    let mut buffer = [0; CANARY.len()];
    client.write_all(CANARY).expect("loopback works");
    server.read_exact(&mut buffer).expect("loopback works");
    server.write_all(CANARY).expect("loopback works");
    client.read_exact(&mut buffer).expect("loopback works");
    drop((client, server));
    // What is told at all is in the rings by now.
    let mut told = Vec::new();
    recorder.read();
    for (id, role) in ids {
        let Some(socket) = recorder.told.remove(&id) else { continue };
        for way in [Way::Sent, Way::Received] {
            if socket.side(way).iter().any(|piece| piece.bytes.as_deref() == Ok(CANARY)) {
                told.push((role, way));
            }
        }
    }
    told
}

#[test]
fn only_what_a_rule_lets_through_is_told() {
    let Some(_alone) = alone() else { return };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("loopback works");
    let port = listener.local_addr().expect("loopback works").port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[]) else { return };
    let own = || Rule { ports: vec![port..=port], ..own_rule(9) };
    let of = |processes: Processes| Rule { processes, ..own() };
    let networks = |text: &str, length| {
        let address: IpAddr = text.parse().expect("loopback works");
        Rule { networks: vec![(address, length)], ..own() }
    };
    let (client, server) = (Role::Client, Role::Server);
    let (sent, received) = (Way::Sent, Way::Received);
    let everything = [(client, sent), (client, received), (server, sent), (server, received)];
    let mut cases = vec![
        ("own pid", own(), everything.to_vec()),
        ("another pid", of(Processes { pids: vec![1], ..Processes::default() }), vec![]),
        ("all but ourselves", of(Processes { all: true, ..Processes::default() }), vec![]),
        (
            "our command",
            of(Processes { commands: vec![own_command()], ..Processes::default() }),
            everything.to_vec(),
        ),
        (
            "another command",
            of(Processes { commands: vec![*b"nobody\0\0\0\0\0\0\0\0\0\0"], ..Processes::default() }),
            vec![],
        ),
        ("a port below", Rule { ports: vec![port - 1..=port - 1], ..own() }, vec![]),
        ("a port range", Rule { ports: vec![1..=1, port..=u16::MAX], ..own() }, everything.to_vec()),
        ("sent", Rule { way: Some(sent), ..own() }, vec![(client, sent), (server, sent)]),
        ("received", Rule { way: Some(received), ..own() }, vec![(client, received), (server, received)]),
        ("clients", Rule { role: Some(client), ..own() }, vec![(client, sent), (client, received)]),
        ("servers", Rule { role: Some(server), ..own() }, vec![(server, sent), (server, received)]),
        ("the network", networks("127.0.0.0", 8), everything.to_vec()),
        ("the address", networks("127.0.0.1", 32), everything.to_vec()),
        ("another address", networks("127.0.0.2", 31), vec![]),
        ("mapped", networks("::ffff:127.0.0.0", 104), everything.to_vec()),
        ("IPv6", networks("2001:db8::", 32), vec![]),
        ("everywhere", networks("::", 0), everything.to_vec()),
        ("lengths alone", Rule { payload: Payload::None, ..own() }, vec![]),
    ];
    if let Some([own, topmost]) = own_cgroups() {
        let cgroups = |cgroups: Vec<u64>| of(Processes { cgroups, ..Processes::default() });
        cases.push(("our cgroup", cgroups(vec![own]), everything.to_vec()));
        cases.push(("a cgroup above", cgroups(vec![topmost]), everything.to_vec()));
        cases.push(("another cgroup", cgroups(vec![u64::MAX]), vec![]));
    }
    for (name, rule, expect) in cases {
        recorder.tap.set_rules(&[rule]).expect("loopback works");
        assert_eq!(told_of(&mut recorder, &listener, to), expect, "{name}");
    }
    recorder.tap.set_rules(&[]).expect("loopback works");
    assert_eq!(told_of(&mut recorder, &listener, to), [], "no rules");
    let (told, totals) = recorder.close();
    // Sockets of other tests may have had a port of the range.
    let pieces = told.values().flat_map(|told| told.pieces.iter().flatten());
    assert_eq!(pieces.filter(|piece| piece.bytes.as_deref() == Ok(CANARY)).count(), 0, "nothing comes late");
    assert!(totals.rejected > 0 && totals.sent.is_balanced() && totals.received.is_balanced(), "{totals:?}");
}

#[test]
fn the_first_rule_that_matches_wins_and_rules_change_while_bytes_flow() {
    let Some(_alone) = alone() else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let to = listener.local_addr().expect("loopback works");
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[]) else { return };
    let (mut client, mut server, [id, _]) = connection(&listener, to);
    let with = |id, way| Rule { id: RuleId(id), ports: vec![to.port()..=to.port()], way, ..own_rule(id) };
    let mut position = 0;
    let mut expect = Vec::new();
    for rules in [
        vec![with(1, None)],
        vec![with(2, Some(Way::Received)), with(3, Some(Way::Sent)), with(4, None)],
        vec![],
        vec![with(5, None), with(6, None)],
    ] {
        recorder.tap.set_rules(&rules).expect("loopback works");
        client.write_all(&stream(1, position, 10)).expect("loopback works");
        server.read_exact(&mut [0; 10]).expect("loopback works");
        let wanted = rules.iter().find(|rule| rule.way != Some(Way::Received));
        expect.extend(wanted.map(|rule| (rule.id, position)));
        position += 10;
    }
    drop((client, server));
    let told = recorder.closing(id);
    let pieces: Vec<_> = told.side(Way::Sent).iter().map(|piece| (piece.rule, piece.position)).collect();
    assert_eq!(pieces, expect);
    assert_eq!(told.wrong_bytes(Way::Sent, 1), 0);
    let ledger = told.ledger(Way::Sent);
    // While there are no rules nothing is counted either.
    assert_eq!((ledger.seen, ledger.unseen), (30, Some(10)), "{ledger:?}");
}

#[test]
fn a_socket_stays_one_whichever_descriptor_it_has_and_a_descriptor_used_again_is_another() {
    let Some(_alone) = alone() else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let to = listener.local_addr().expect("loopback works");
    // The connection is there before the tap, with bytes on their way.
    let (mut client, mut server, ids) = connection(&listener, to);
    client.write_all(b"before").expect("loopback works");
    server.read_exact(&mut [0; 6]).expect("loopback works");
    let rule = Rule { ports: vec![to.port()..=to.port()], ..own_rule(1) };
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
    assert_eq!(recorder.tap.existing().expect("loopback works"), 2);
    let mut copy = client.try_clone().expect("loopback works");
    client.write_all(&stream(1, 0, 20)).expect("loopback works");
    copy.write_all(&stream(1, 20, 20)).expect("loopback works");
    let number = std::os::fd::AsRawFd::as_raw_fd(&copy.as_fd());
    drop(copy);
    let mut other = TcpStream::connect(to).expect("loopback works");
    assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&other.as_fd()), number);
    let (mut other_server, _) = listener.accept().expect("loopback works");
    other.write_all(&stream(2, 0, 30)).expect("loopback works");
    client.write_all(&stream(1, 40, 20)).expect("loopback works");
    server.read_exact(&mut [0; 60]).expect("loopback works");
    other_server.read_exact(&mut [0; 30]).expect("loopback works");
    let other_id = socket_id(&other);
    drop((client, server, other, other_server));
    let [client, server] = ids.map(|id| recorder.closing(id));
    for (told, way, role) in [(&client, Way::Sent, Role::Client), (&server, Way::Received, Role::Server)] {
        assert_eq!(told.wrong_bytes(way, 1), 0);
        assert_eq!(told.holes(way), (0, 0));
        assert_eq!((told.ledger(way).seen, told.ledger(way).unseen), (60, Some(0)));
        assert_eq!(told.opened.len(), 1);
        assert!(told.opened[0].is_existing);
        assert_eq!(told.opened[0].role, Some(role));
        assert_eq!(told.opened[0].process.pid, process::id());
    }
    let other = recorder.closing(other_id);
    assert_eq!((other.wrong_bytes(Way::Sent, 2), other.ledger(Way::Sent).seen), (0, 30));
    assert!(!other.opened[0].is_existing);
}

#[test]
fn a_connection_that_speaks_before_it_is_found_is_not_taken_for_a_new_one() {
    let Some(_alone) = alone() else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let to = listener.local_addr().expect("loopback works");
    let (mut client, mut server, ids) = connection(&listener, to);
    let rule = Rule { ports: vec![to.port()..=to.port()], ..own_rule(1) };
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
    client.write_all(b"busy").expect("loopback works");
    server.read_exact(&mut [0; 4]).expect("loopback works");
    assert_eq!(recorder.tap.existing().expect("loopback works"), 0, "both are known");
    drop((client, server));
    for id in ids {
        let told = recorder.closing(id);
        assert_eq!(told.opened.len(), 1);
        assert!(told.opened[0].is_existing && !told.opened[0].is_late, "{:?}", told.opened);
    }
}
