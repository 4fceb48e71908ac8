//! The namespaces and wires that the other tests stand on.

use std::{fs, process::Stdio};

use weir_datapath::netns::{Netns, NetnsError};
use weir_integration::{
    Namespace, Veth, require_root,
    traffic::{UdpFlow, tcp_talk},
};

#[test]
fn a_namespace_is_entered_by_one_thread_only() {
    if !require_root() {
        return;
    }
    let before = Netns::current().unwrap();
    let namespace = Namespace::new();
    let inside = namespace.run(|| Netns::current().unwrap());
    assert_eq!(inside.identity(), namespace.netns().identity());
    assert_ne!(inside, before);
    assert_eq!(Netns::current().unwrap(), before);
}

#[test]
fn a_namespace_opens_by_the_number_of_a_process_inside() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    let mut cat = namespace.command("cat").stdin(Stdio::piped()).spawn().unwrap();
    let by_pid = Netns::open(&cat.id().to_string()).unwrap();
    drop(cat.stdin.take());
    cat.wait().unwrap();
    assert_eq!(by_pid.identity(), namespace.netns().identity());
    assert_eq!(by_pid.name().unwrap().as_ref(), cat.id().to_string());
}

#[test]
fn an_unknown_namespace_is_refused() {
    let error = Netns::open("weir-no-such-namespace").unwrap_err();
    assert!(matches!(error, NetnsError::Unknown { .. }), "{error:?}");
}

#[test]
fn a_quiet_wire_carries_what_is_sent_and_nothing_else() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    for ipv6 in [false, true] {
        let received = || {
            veth.right.namespace.run(|| {
                let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
                let line = table.lines().find(|line| line.trim_start().starts_with("right0:")).unwrap();
                let mut numbers =
                    line.split_whitespace().skip(1).map(|number| number.parse::<u64>().unwrap());
                (numbers.next().unwrap(), numbers.next().unwrap())
            })
        };
        let (bytes, packets) = received();
        let sent = UdpFlow::open(&veth.left, &veth.right, ipv6).send(1000, 100);
        let header = if ipv6 { 14 + 40 + 8 } else { 14 + 20 + 8 };
        assert_eq!(received(), (bytes + sent.payload_bytes + 1000 * header, packets + 1000));
    }
}

#[test]
fn a_tcp_connection_runs_to_its_end() {
    if !require_root() {
        return;
    }
    let veth = Veth::new();
    for ipv6 in [false, true] {
        let talk = tcp_talk(&veth.left, &veth.right, ipv6, 10_000, 300_000);
        assert_eq!(talk.client.ip(), veth.left.address(ipv6));
        assert_eq!(talk.server.ip(), veth.right.address(ipv6));
    }
}
