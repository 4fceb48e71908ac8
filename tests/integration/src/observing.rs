//! What must hold on every kernel of the programs that only watch: sockets, and packets that the kernel drops.
//!
//! A kernel that lacks what such a program needs has to say so; then there is nothing to check.

use std::{
    io::{Read as _, Write as _},
    net::UdpSocket,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    time::Duration,
};

use weir_datapath::{
    drops::{DropPlace, Drops, DropsError},
    quality::{Qualities, QualityError, TcpQuality},
    sockets::KernelTypesError,
};
use weir_flow::{Quality, field::Value, record_of};

use crate::{
    Namespace, Veth, cannot_run,
    tcp::{Connection, TcpInfo, cookie, lose, tcp_info, wait_until},
};

/// The programs that watch sockets, unless this kernel has no way for them.
pub fn attach_quality() -> Option<TcpQuality> {
    match TcpQuality::attach() {
        Ok(quality) => Some(quality),
        Err(error @ (QualityError::NoCgroup | QualityError::KernelTypes(_) | QualityError::NoIterator)) => {
            cannot_run(&error.to_string());
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// The program that counts drops, unless this kernel has no way for it.
pub fn attach_drops() -> Option<Drops> {
    match Drops::attach() {
        Ok(drops) => Some(drops),
        Err(error @ (DropsError::NoReasons | DropsError::KernelTypes(KernelTypesError::Read(_)))) => {
            cannot_run(&error.to_string());
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// What a record of a connection between sockets with these cookies is told.
pub fn told(qualities: &Qualities, source: u64, destination: u64) -> Quality {
    let mut record = record_of(&|name| match name {
        "source.socket.cookie" => Value::Integer(source),
        "destination.socket.cookie" => Value::Integer(destination),
        _ => Value::Absent,
    });
    qualities.add_to(std::slice::from_mut(&mut record));
    record.quality
}

/// A request and its answer.
pub fn exchange(connection: &mut Connection) {
    let mut buffer = [0; 4];
    connection.client.write_all(b"ping").expect("it is connected");
    connection.server.read_exact(&mut buffer).expect("it arrives");
    connection.server.write_all(b"pong").expect("it is connected");
    connection.client.read_exact(&mut buffer).expect("it arrives");
}

/// Waits until nothing is on its way, so that the numbers stay.
pub fn settled(socket: &impl AsFd) -> TcpInfo {
    wait_until("everything is acknowledged", || tcp_info(socket).unacknowledged == 0);
    tcp_info(socket)
}

/// The kernel rounds down to microseconds.
pub fn microseconds(duration: Option<Duration>) -> Option<u32> {
    duration.map(|duration| u32::try_from(duration.as_micros()).expect("it is short"))
}

/// Round-trip times and retransmits of both ends are those that the sockets tell, after losses, too.
pub fn round_trip_times_and_retransmits_are_those_of_the_sockets() {
    let Some(mut quality) = attach_quality() else { return };
    let qualities = quality.qualities();
    let wire = Veth::new();
    let mut connection = Connection::over(&wire);
    let [client, server] = [cookie(&connection.client), cookie(&connection.server)];
    exchange(&mut connection);

    lose(&wire, true);
    connection.client.write_all(b"lost").expect("it is connected");
    wait_until("it was sent again", || tcp_info(&connection.client).retransmits >= 2);
    quality.read().expect("it can be read");
    let first = told(&qualities, client, server).retransmits.expect("the socket is known");
    assert!(first >= 2, "{first}");

    lose(&wire, false);
    connection.server.read_exact(&mut [0; 4]).expect("it arrives in the end");
    let info = [settled(&connection.client), settled(&connection.server)];
    let reading = quality.read().expect("it can be read");
    assert!(reading.open >= 2 && reading.lost == 0 && reading.left_out == 0, "{reading:?}");
    let now = told(&qualities, client, server);
    assert_eq!(first + now.retransmits.expect("the socket is known"), info[0].retransmits);
    assert_eq!(now.reverse_retransmits, Some(info[1].retransmits));
    assert_eq!(microseconds(now.rtt), Some(info[0].rtt_us));
    assert_eq!(microseconds(now.minimum_rtt), Some(info[0].minimum_rtt_us));
    // With the server's socket alone, it is the server's.
    assert_eq!(microseconds(told(&qualities, 0, server).rtt), Some(info[1].rtt_us));
    // Both of these together have told everything.
    assert_eq!(told(&qualities, client, server).retransmits, Some(0));
}

/// What a socket knew when it was closed is told, though it was never found open.
pub fn what_a_socket_knew_is_told_after_its_end() {
    let Some(mut quality) = attach_quality() else { return };
    let qualities = quality.qualities();
    let wire = Veth::new();
    let mut connection = Connection::over(&wire);
    let client = cookie(&connection.client);
    exchange(&mut connection);
    let info = settled(&connection.client);
    drop(connection);
    wait_until("its end was told", || {
        quality.read().expect("it can be read");
        told(&qualities, client, 0).retransmits.is_some()
    });
    let now = told(&qualities, client, 0);
    assert!(now.rtt.is_some());
    assert!(microseconds(now.minimum_rtt) <= Some(info.minimum_rtt_us));
}

/// Number of a network namespace, as the kernel gives it.
pub fn netns(namespace: &Namespace) -> u32 {
    let inode = std::fs::metadata(namespace.path()).expect("it is open").ino();
    u32::try_from(inode).expect("the kernel numbers namespaces in 32 bits")
}

/// Packets dropped for this reason at an interface.
fn dropped(drops: &Drops, reason: &str, at: (u32, u32, &str)) -> u64 {
    let snapshot = drops.snapshot().expect("the counters can be read");
    assert_eq!(snapshot.skipped, 0);
    let place = DropPlace::Interface { netns: at.0, ifindex: at.1, name: at.2.into() };
    let counts = snapshot.counts.iter().filter(|count| *count.reason == *reason && count.place == place);
    counts.map(|count| count.packets).sum()
}

/// `packets` that nobody wants and one more that is for another machine are counted by reason and interface.
pub fn packets_are_counted_by_the_reason_and_the_interface_they_were_dropped_at(packets: u64) {
    let Some(drops) = attach_drops() else { return };
    let wire = Veth::new();
    let right = (netns(&wire.right.namespace), wire.right.index, wire.right.name.as_str());
    let send = |count: u64| {
        let socket = wire.left.namespace.run(|| UdpSocket::bind((wire.left.ipv4, 0))).expect("a socket");
        for _ in 0..count {
            socket.send_to(b"to a closed port", (wire.right.ipv4, 9)).expect("the wire is up");
        }
    };
    send(packets);
    wait_until("all arrived", || dropped(&drops, "NO_SOCKET", right) >= packets);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), packets);
    // To an address of the link layer that is nobody's.
    lose(&wire, true);
    send(packets + 1);
    let strangers = || {
        let names = ["OTHERHOST", "NOT_SPECIFIED"];
        names.map(|name| dropped(&drops, name, right)).into_iter().sum::<u64>()
    };
    wait_until("all arrived", || strangers() > packets);
    assert_eq!(strangers(), packets + 1);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), packets);
    // Counts only grow, and a second observer counts for itself.
    let second = attach_drops().expect("it worked before");
    lose(&wire, false);
    send(7);
    wait_until("all arrived", || dropped(&second, "NO_SOCKET", right) >= 7);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), packets + 7);
    assert_eq!(dropped(&second, "NO_SOCKET", right), 7);
}
