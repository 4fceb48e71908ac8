//! Dropped packets are counted exactly, by the kernel's own reasons, where they were dropped.

use std::{net::UdpSocket, os::unix::fs::MetadataExt as _};

use weir_datapath::{
    drops::{DropPlace, Drops, DropsError},
    sockets::KernelTypesError,
};
use weir_integration::{Namespace, Veth, cannot_run, require_root, tcp};

const PACKETS: u64 = 1_000;

fn attached() -> Option<Drops> {
    match Drops::attach() {
        Ok(drops) => Some(drops),
        Err(error @ (DropsError::NoReasons | DropsError::KernelTypes(KernelTypesError::Read(_)))) => {
            cannot_run(&error.to_string());
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

fn netns(namespace: &Namespace) -> u32 {
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

#[test]
fn packets_are_counted_by_the_reason_and_the_interface_they_were_dropped_at() {
    if !require_root() {
        return;
    }
    let Some(drops) = attached() else { return };
    let wire = Veth::new();
    let right = (netns(&wire.right.namespace), wire.right.index, wire.right.name.as_str());
    let send = |count: u64| {
        let socket = wire.left.namespace.run(|| UdpSocket::bind((wire.left.ipv4, 0))).expect("a socket");
        for _ in 0..count {
            socket.send_to(b"to a closed port", (wire.right.ipv4, 9)).expect("the wire is up");
        }
    };
    send(PACKETS);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), PACKETS);
    // To an address of the link layer that is nobody's.
    tcp::lose(&wire, true);
    send(PACKETS + 1);
    assert_eq!(dropped(&drops, "OTHERHOST", right), PACKETS + 1);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), PACKETS);
    // Counts only grow, and a second observer counts for itself.
    let second = attached().expect("it worked before");
    tcp::lose(&wire, false);
    send(7);
    assert_eq!(dropped(&drops, "NO_SOCKET", right), PACKETS + 7);
    assert_eq!(dropped(&second, "NO_SOCKET", right), 7);
}

#[test]
fn packets_that_arrive_and_messages_that_are_none_are_not_drops() {
    if !require_root() {
        return;
    }
    let Some(drops) = attached() else { return };
    let wire = Veth::new();
    let receiver = wire.right.namespace.run(|| UdpSocket::bind((wire.right.ipv4, 0))).expect("a socket");
    let sender = wire.left.namespace.run(|| UdpSocket::bind((wire.left.ipv4, 0))).expect("a socket");
    let address = receiver.local_addr().expect("it is bound");
    let mut buffer = [0; 64];
    for _ in 0..100 {
        sender.send_to(b"wanted", address).expect("the wire is up");
        receiver.recv(&mut buffer).expect("it arrives");
    }
    let ours = [netns(&wire.left.namespace), netns(&wire.right.namespace)];
    for count in drops.snapshot().expect("the counters can be read").counts {
        let is_ours = match &count.place {
            DropPlace::Interface { netns, .. } | DropPlace::Namespace(netns) => ours.contains(netns),
            DropPlace::Unknown | DropPlace::Others => false,
        };
        assert!(!is_ours, "{count:?}");
    }
}
