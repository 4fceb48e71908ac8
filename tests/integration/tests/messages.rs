//! DNS messages on their way from the kernel: which come, which do not, and what is said of those.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use weir_datapath::flow::FlowOptions;
use weir_flow::filter::Filter;
use weir_integration::{Veth, checks, counting::Counting, require_root, traffic::UdpFlow};

#[test]
fn datagrams_at_a_dns_port_are_handed_over_whatever_the_hook() {
    if require_root() {
        for (way, options) in checks::ways() {
            println!("by {way}");
            checks::datagrams_at_a_dns_port_are_handed_over(&options);
        }
    }
}

#[test]
fn what_does_not_fit_the_ring_is_counted_as_lost() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let flow = UdpFlow::open(&veth.left, &veth.right, false);
    let options = FlowOptions { dns_ports: vec![flow.source().port()], ..FlowOptions::default() };
    let (mut counting, _, egress) = Counting::on(&veth.left, &options);
    let mut reader = counting.reader.take_dns().expect("there is a port");
    // Each takes 1,352 bytes of a ring of a mebibyte.
    flow.send(1000, 1000);
    let mut count = 0;
    reader.read(|_| count += 1).expect("records are whole");
    let ledger = reader.ledger().expect("it can be read");
    assert_eq!(ledger.seen, 1000);
    assert_eq!((ledger.written, ledger.unreadable), (count, 0));
    assert_eq!(ledger.lost, 1000 - count);
    assert!((700..800).contains(&count), "{count}");
    assert_eq!(counting.drain_all().flow(egress, checks::tuple(&flow)).packets, 1000, "counting goes on");
    flow.send(1, 1000);
    reader.read(|_| count += 1).expect("records are whole");
    assert_eq!(reader.ledger().expect("it can be read").written, count, "there is room again");
}

#[test]
fn messages_come_though_a_filter_keeps_their_flows_away() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let flow = UdpFlow::open(&veth.left, &veth.right, true);
    let filter = Filter::parse("proto=tcp").expect("the filter is good").pushdown();
    let dns_ports = vec![flow.destination().port()];
    let (mut counting, _, egress) =
        Counting::on(&veth.left, &FlowOptions { dns_ports, filter, ..FlowOptions::default() });
    let mut reader = counting.reader.take_dns().expect("there is a port");
    flow.send(5, 50);
    let mut count = 0;
    reader.read(|_| count += 1).expect("records are whole");
    assert_eq!(count, 5);
    assert_eq!(counting.drain_all().ledger(egress).filtered.packets, 5);
}

#[test]
fn of_tcp_those_segments_come_that_may_hold_a_message() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let listener = veth.right.namespace.run(|| TcpListener::bind((veth.right.ipv4, 0))).expect("a socket");
    let address = listener.local_addr().expect("it is bound");
    let options = FlowOptions { dns_ports: vec![address.port()], ..FlowOptions::default() };
    let (mut counting, ..) = Counting::on(&veth.left, &options);
    let mut reader = counting.reader.take_dns().expect("there is a port");
    let mut client = veth.left.namespace.run(|| TcpStream::connect(address)).expect("it listens");
    let (mut server, _) = listener.accept().expect("it was connected");
    let mut talk = |bytes: &[u8]| {
        client.write_all(bytes).expect("it is connected");
        server.read_exact(&mut vec![0; bytes.len()]).expect("it is connected");
    };
    let message = [&[0, 20][..], &[7; 20]].concat();
    talk(&message);
    talk(&[&message[..], &message[..]].concat());
    talk(&[0, 20]);
    talk(&[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    talk(&[&[0x20, 0][..], &[8; 3000]].concat());
    drop((client, server));
    let mut seen = Vec::new();
    reader
        .read(|packet| seen.push((packet.body.bytes.to_vec(), packet.body.is_cut)))
        .expect("records are whole");
    let whole = (vec![7; 20], false);
    // Of a message longer than what is copied the beginning comes; segments that begin within one say nonsense.
    assert_eq!(seen[..3], [whole.clone(), whole.clone(), whole]);
    assert_eq!(seen[3], (vec![8; 1280 - 2], true));
    assert!(seen[4..].iter().all(|(_, is_cut)| *is_cut), "{seen:?}");
    assert_eq!(counting.drain_all().flows.len(), 2);
}

#[test]
fn without_ports_there_are_no_messages() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    let mut counting = Counting::load(&veth.left.namespace, &FlowOptions::default());
    assert!(counting.reader.take_dns().is_none());
}
