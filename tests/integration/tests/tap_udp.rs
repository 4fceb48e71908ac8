//! Datagrams are told whole, in their order, with the other end where the socket has none.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
};

use weir_datapath::tap::{
    GapReason, Payload, Rule, Settings, Tier, Transport, Way,
    selfcheck::calls::{Receive, Send},
};
use weir_integration::{
    require_root,
    tapping::{Recorder, Told, own_rule, socket_id, stream, tier},
};

const SIZES: [usize; 8] = [1, 0, 255, 256, 257, 1472, 9000, 59_000];

const KEY: u64 = 21;

/// What was told of two sockets that send all sizes by `send`, and the addresses of both.
fn datagrams(recorder: &mut Recorder, sockets: &[UdpSocket; 2], send: Send, receive: Receive) {
    // Asking makes the kernel give them cookies.
    let ids = sockets.each_ref().map(socket_id);
    let mut position = 0;
    for size in SIZES {
        let bytes = stream(KEY, position, size);
        if size == 0 {
            sockets[0].send(&[]).expect("loopback works");
            sockets[1].recv(&mut []).expect("loopback works");
        } else {
            let sent = send.once(sockets[0].as_fd(), &bytes).expect("loopback works");
            assert_eq!(sent, size, "{send:?}");
            let mut buffer = vec![0; size];
            assert_eq!(
                receive.once(sockets[1].as_fd(), &mut buffer).expect("loopback works"),
                size,
                "{receive:?}"
            );
        }
        position += size as u64;
    }
    let total = SIZES.iter().sum::<usize>() as u64;
    let is_all = |told: Option<&Told>, way| {
        told.is_some_and(|told| told.side(way).iter().map(|piece| piece.length).sum::<u64>() == total)
    };
    recorder.read_until("all datagrams", |recorder| {
        is_all(recorder.told.get(&ids[0]), Way::Sent) && is_all(recorder.told.get(&ids[1]), Way::Received)
    });
}

fn bound(address: IpAddr) -> UdpSocket {
    UdpSocket::bind((address, 0)).expect("loopback works")
}

fn all_over_udp(tier: Option<Tier>) {
    if !require_root() {
        return;
    }
    let settings = Settings { ring: 64 << 20, count_messages: true, tier, ..Settings::default() };
    let Some(mut recorder) = Recorder::open(&settings, &[own_rule(3)]) else { return };
    let sends = [Send::Write, Send::Send, Send::Writev(3), Send::Pwritev2, Send::SendMsg, Send::SendMmsg(1)];
    let receives = [
        Receive::Read,
        Receive::Recv,
        Receive::Readv(3),
        Receive::Preadv2,
        Receive::RecvMsg,
        Receive::RecvMmsg(1),
    ];
    let sends = sends.map(|send| (send, Receive::Read));
    let receives = receives.map(|receive| (Send::Write, receive));
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for (send, receive) in sends.into_iter().chain(receives) {
            let sockets = [bound(address), bound(address)];
            sockets[0].connect(sockets[1].local_addr().expect("loopback works")).expect("loopback works");
            sockets[1].connect(sockets[0].local_addr().expect("loopback works")).expect("loopback works");
            datagrams(&mut recorder, &sockets, send, receive);
            for (socket, way) in sockets.iter().zip([Way::Sent, Way::Received]) {
                let told = recorder.told.remove(&socket_id(socket)).expect("loopback works");
                let case = format!("{send:?} {receive:?} {address} {way:?}");
                assert_eq!(told.wrong_bytes(way, KEY), 0, "{case}");
                assert_eq!(told.holes(way), (0, 0), "{case}");
                assert_eq!(told.sums(way).0, SIZES.iter().sum::<usize>() as u64, "{case}");
                assert_eq!(told.opened.len(), 1, "{case}");
                assert_eq!(told.opened[0].transport, Transport::Udp);
                assert_eq!(told.opened[0].local, socket.local_addr().expect("loopback works"));
            }
        }
    }
    let (_, totals) = recorder.close();
    assert!(totals.sent.is_balanced() && totals.received.is_balanced(), "{totals:?}");
}

#[test]
fn every_way_to_send_and_receive_datagrams_is_told_byte_for_byte() {
    all_over_udp(tier());
}

#[test]
fn system_calls_alone_tell_datagrams_just_the_same() {
    all_over_udp(Some(Tier::Syscalls));
}

#[test]
fn a_socket_without_another_end_has_one_per_datagram() {
    if !require_root() {
        return;
    }
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[own_rule(1)]) else { return };
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let server = bound(address);
        let clients = [bound(address), bound(address)];
        let id = socket_id(&server);
        let mut buffer = [0; 64];
        for client in &clients {
            client
                .send_to(b"question", server.local_addr().expect("loopback works"))
                .expect("loopback works");
            let (length, from) = server.recv_from(&mut buffer).expect("loopback works");
            server.send_to(&buffer[..length], from).expect("loopback works");
            client.recv_from(&mut buffer).expect("loopback works");
        }
        recorder.read_until("both questions and answers", |recorder| {
            recorder.told.get(&id).is_some_and(|told| told.pieces.iter().all(|side| side.len() == 2))
        });
        let told = &recorder.told[&id];
        assert_eq!(told.opened[0].remote, None);
        let ends: Vec<SocketAddr> =
            clients.iter().map(|client| client.local_addr().expect("loopback works")).collect();
        for way in [Way::Sent, Way::Received] {
            let peers: Vec<_> = told.side(way).iter().filter_map(|piece| piece.peer).collect();
            assert_eq!(peers, ends, "{way:?}");
        }
    }
}

#[test]
fn what_a_small_buffer_or_an_uncounted_message_hides_is_a_gap() {
    if !require_root() {
        return;
    }
    let ports = |socket: &UdpSocket| {
        let port = socket.local_addr().expect("loopback works").port();
        vec![port..=port]
    };
    let sockets = [bound(Ipv4Addr::LOCALHOST.into()), bound(Ipv4Addr::LOCALHOST.into())];
    sockets[0].connect(sockets[1].local_addr().expect("loopback works")).expect("loopback works");
    let rule = Rule { ports: ports(&sockets[1]), ..own_rule(1) };
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
    if recorder.chosen.tier == Tier::Syscalls {
        return;
    }
    let ids = sockets.each_ref().map(socket_id);
    sockets[0].send(&stream(KEY, 0, 100)).expect("loopback works");
    assert_eq!(Receive::Truncate.once(sockets[1].as_fd(), &mut [0; 30]).expect("loopback works"), 100);
    Send::SendMmsg(3).once(sockets[0].as_fd(), &stream(KEY, 100, 30)).expect("loopback works");
    recorder.read_until("both ends", |recorder| {
        let length = |id, way| {
            recorder
                .told
                .get(id)
                .map_or(0, |told: &Told| told.side(way).iter().map(|piece| piece.length).sum())
        };
        length(&ids[0], Way::Sent) == 130_u64 && length(&ids[1], Way::Received) == 100
    });
    let (captured, gaps) = recorder.told[&ids[1]].sums(Way::Received);
    assert_eq!((captured, gaps.get(&GapReason::Truncated)), (30, Some(&70)));
    assert_eq!(recorder.told[&ids[1]].wrong_bytes(Way::Received, KEY), 0);
    let (captured, gaps) = recorder.told[&ids[0]].sums(Way::Sent);
    assert_eq!((captured, gaps.get(&GapReason::Messages)), (100, Some(&30)));
}

#[test]
fn a_socket_that_is_connected_anew_is_judged_and_told_anew() {
    if !require_root() {
        return;
    }
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let [client, wanted, other] = [(); 3].map(|()| bound(address));
        let port = wanted.local_addr().expect("loopback works").port();
        let rule = Rule { ports: vec![port..=port], way: Some(Way::Sent), ..own_rule(1) };
        let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
        let id = socket_id(&client);
        for (server, said) in [(&wanted, "one"), (&other, "canary"), (&wanted, "two")] {
            client.connect(server.local_addr().expect("loopback works")).expect("loopback works");
            client.send(said.as_bytes()).expect("loopback works");
        }
        recorder.read_until("both", |recorder| {
            recorder.told.get(&id).is_some_and(|told| told.side(Way::Sent).len() == 2)
        });
        let told = recorder.told.remove(&id).expect("loopback works");
        let said: Vec<_> = told.side(Way::Sent).iter().map(|piece| piece.bytes.clone()).collect();
        assert_eq!(said, [Ok(b"one".to_vec()), Ok(b"two".to_vec())]);
        let remotes: Vec<_> = told.opened.iter().map(|opened| opened.remote).collect();
        assert_eq!(remotes, [wanted.local_addr().ok(); 2]);
    }
}

#[test]
fn other_ends_are_told_of_the_calls_that_name_them_alone_also_without_payload() {
    if !require_root() {
        return;
    }
    for payload in [Payload::Full, Payload::None] {
        let rule = Rule { payload, ..own_rule(1) };
        let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
        if recorder.chosen.tier == Tier::Syscalls {
            return;
        }
        let [server, first, second] = [(); 3].map(|()| bound(Ipv4Addr::LOCALHOST.into()));
        let id = socket_id(&server);
        let to = server.local_addr().expect("loopback works");
        for client in [&first, &second] {
            client.send_to(b"question", to).expect("loopback works");
        }
        // The kernel is asked who sent the first one, and not who sent the second.
        let (_, from) = server.recv_from(&mut [0; 64]).expect("loopback works");
        server.recv(&mut [0; 64]).expect("loopback works");
        server.send_to(b"answer", from).expect("loopback works");
        recorder.read_until("all three", |recorder| {
            recorder
                .told
                .get(&id)
                .is_some_and(|told| told.side(Way::Received).len() == 2 && told.side(Way::Sent).len() == 1)
        });
        let peers = |way| recorder.told[&id].side(way).iter().map(|piece| piece.peer).collect::<Vec<_>>();
        assert_eq!(peers(Way::Received), [Some(from), None], "{payload:?}");
        assert_eq!(peers(Way::Sent), [Some(from)], "{payload:?}");
    }
}
