//! What became of real connections, as the counters of their packets tell it.

use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};

use weir_datapath::flow::{self, Device, Directions, FlowOptions};
use weir_flow::{FlowTable, Monotonic, Record, Role, TableConfig, TcpFailure, Tick, Wall};
use weir_integration::{
    Veth, require_root,
    tcp::{Connection, begin_to_connect, lose, tcp_info, wait_until},
};
use weir_packet::Link;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Runs `work` on a wire whose left end is counted. Gives back the last record of each flow, long after.
fn records_of(work: impl FnOnce(&Veth)) -> Vec<Record> {
    let wire = Veth::new();
    let left = &wire.left;
    let device = Device {
        index: left.index,
        name: left.name.as_str().into(),
        link: Link::Ethernet,
        role: Role::Uplink,
    };
    let (mut attacher, mut reader) =
        left.namespace.run(|| flow::load(&FlowOptions::default())).expect("the programs load");
    let attached =
        left.namespace.run(|| attacher.attach(&device, Directions::Both, true)).expect("it attaches");
    let mut table = FlowTable::new(TableConfig::default());
    attached.points.into_iter().for_each(|point| table.set_point(point));
    work(&wire);
    let mut drain = || reader.drain(|observation| table.observe(observation)).expect("the drain works").tick;
    drain();
    let now = drain();
    let mut records = table.tick(now).records;
    // Flows that are not over tell again, at their end.
    records.retain(|record| record.end_reason.is_some());
    let later = Tick { monotonic: Monotonic(now.monotonic.0 + HOUR_NS), wall: Wall(now.wall.0 + HOUR_NS) };
    records.extend(table.tick(later).records);
    records
}

fn closed_port(wire: &Veth) -> SocketAddr {
    (wire.right.ipv4, 9).into()
}

#[track_caller]
fn check(records: &[Record], failure: Option<TcpFailure>, is_unanswered: Option<bool>) {
    let [record] = records else { panic!("one flow, not {records:#?}") };
    assert_eq!((record.outcome.tcp_failure, record.outcome.is_unanswered), (failure, is_unanswered));
}

#[test]
fn a_closed_port_refuses() {
    if !require_root() {
        return;
    }
    let records = records_of(|wire| {
        let address = closed_port(wire);
        let outcome = wire.left.namespace.run(|| std::net::TcpStream::connect(address));
        assert_eq!(outcome.expect_err("nobody listens").kind(), std::io::ErrorKind::ConnectionRefused);
    });
    check(&records, Some(TcpFailure::Refused), Some(false));
}

#[test]
fn nobody_answers() {
    if !require_root() {
        return;
    }
    let records = records_of(|wire| {
        lose(wire, true);
        let socket = begin_to_connect(&wire.left, closed_port(wire));
        wait_until("the SYN was sent again", || tcp_info(&socket).retransmits >= 1);
    });
    check(&records, Some(TcpFailure::Unanswered), Some(true));
}

#[test]
fn a_connection_is_reset_and_another_one_is_closed() {
    if !require_root() {
        return;
    }
    let records = records_of(|wire| {
        let connection = Connection::over(wire);
        // Unread data at the close make the kernel send RST.
        std::io::Write::write_all(&mut &connection.client, b"unread").expect("it is connected");
        wait_until("it arrived", || connection.server.peek(&mut [0]).expect("it is connected") > 0);
        drop(connection.server);
        wait_until("the reset arrived", || matches!(connection.client.take_error(), Ok(Some(_)) | Err(_)));
    });
    check(&records, Some(TcpFailure::Reset), Some(false));

    let records = records_of(|wire| {
        let listener =
            wire.right.namespace.run(|| TcpListener::bind((wire.right.ipv4, 0))).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        let client = wire.left.namespace.run(|| std::net::TcpStream::connect(address)).expect("it listens");
        let (server, _) = listener.accept().expect("it was connected");
        client.shutdown(Shutdown::Write).expect("it is connected");
        wait_until("the end arrived", || matches!(server.peek(&mut [0]), Ok(0)));
        drop(server);
        wait_until("the end came back", || matches!(client.peek(&mut [0]), Ok(0)));
    });
    check(&records, None, Some(false));
}

#[test]
fn datagrams_go_unanswered_or_not() {
    if !require_root() {
        return;
    }
    let ask = |wire: &Veth| {
        let receiver = wire.right.namespace.run(|| UdpSocket::bind((wire.right.ipv4, 53))).expect("a socket");
        let sender = wire.left.namespace.run(|| UdpSocket::bind((wire.left.ipv4, 0))).expect("a socket");
        sender.send_to(b"?", receiver.local_addr().expect("it is bound")).expect("the wire is up");
        let (_, from) = receiver.recv_from(&mut [0; 8]).expect("it arrives");
        (receiver, sender, from)
    };
    let records = records_of(|wire| drop(ask(wire)));
    check(&records, None, Some(true));
    let records = records_of(|wire| {
        let (receiver, sender, from) = ask(wire);
        receiver.send_to(b"!", from).expect("the wire is up");
        sender.recv(&mut [0; 8]).expect("it arrives");
    });
    check(&records, None, Some(false));
}
