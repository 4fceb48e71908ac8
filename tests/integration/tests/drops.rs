//! Dropped packets are counted exactly, by the kernel's own reasons, where they were dropped.

use std::net::UdpSocket;

use weir_datapath::drops::DropPlace;
use weir_integration::{
    Veth,
    observing::{self, attach_drops, netns},
    require_root,
};

#[test]
fn packets_are_counted_by_the_reason_and_the_interface_they_were_dropped_at() {
    if !require_root() {
        return;
    }
    observing::packets_are_counted_by_the_reason_and_the_interface_they_were_dropped_at(1_000);
}

#[test]
fn packets_that_arrive_and_messages_that_are_none_are_not_drops() {
    if !require_root() {
        return;
    }
    let Some(drops) = attach_drops() else { return };
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
