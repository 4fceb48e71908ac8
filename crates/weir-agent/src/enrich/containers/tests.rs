use std::net::{IpAddr, Ipv4Addr};

use weir_flow::{Identity, Process, ProcessConfidence, SocketOwner};

use super::*;

fn end(cgroup: u64, pid: Option<u32>) -> Endpoint {
    let process = pid
        .map(|pid| Arc::new(Process { pid, executable: "x".into(), confidence: ProcessConfidence::Proven }));
    Endpoint {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 1,
        owner: SocketOwner { cookie: 1, cgroup },
        process,
        identity: Identity::default(),
    }
}

#[test]
fn the_group_of_the_socket_decides_and_then_the_process() {
    let id = "cd".repeat(32);
    let containers = Containers::default();
    let mut groups = Groups::default();
    groups.insert(7, Located::of(&format!("/docker/{id}")));
    groups.insert(8, None);
    containers.0.groups.store(Arc::new(groups));

    let found = containers.at(&end(7, Some(std::process::id()))).expect("it is in the table");
    assert_eq!(found.container.as_ref().map(|container| &*container.id), Some(id.as_str()));
    assert!(matches!(containers.known(&end(8, None)), Known::NoContainer));
    assert!(matches!(containers.known(&end(9, None)), Known::NotYet));
    assert!(matches!(containers.known(&end(0, None)), Known::NoContainer));
    assert!(matches!(containers.known(&end(0, Some(std::process::id()))), Known::NotYet));
    containers.0.pids.refresh();
    assert!(!matches!(containers.known(&end(0, Some(std::process::id()))), Known::NotYet));
}

#[test]
fn a_watch_ends_when_it_is_dropped() {
    if let Ok((containers, watch)) = Containers::watch() {
        assert!(!containers.0.groups.load().is_empty());
        drop(watch);
    }
}
