use std::net::{IpAddr, Ipv4Addr};

use weir_flow::{
    Counters, Detail, Identity, Initiator, Monotonic, Outcome, PointId, Quality, Role, SocketOwner, Tuple,
    Wall,
};

use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A record at interface `ifindex` between sockets with these cookies.
fn record(ifindex: u32, direction: Direction, [source, destination]: [u64; 2]) -> Record {
    let end = |cookie| Endpoint {
        address: LOCALHOST,
        port: 1,
        owner: SocketOwner { cookie, cgroup: 0 },
        process: None,
        identity: Identity::default(),
    };
    Record {
        tuple: Tuple::from_words([0; 5]),
        source: end(source),
        destination: end(destination),
        point: Arc::new(Point {
            id: PointId(0),
            netns: None,
            ifindex,
            interface: "eth0".into(),
            direction,
            role: Role::Uplink,
        }),
        delta: Counters::default(),
        total: Counters::default(),
        start: Wall::default(),
        end: Wall::default(),
        first: Monotonic::default(),
        last: Monotonic::default(),
        initiator: Initiator::Proven,
        end_reason: None,
        detail: Detail::Flow,
        outcome: Outcome::default(),
        quality: Quality::default(),
        dns: None,
    }
}

fn knows(cookie: u64, rtt_us: u32, retransmits: u32) -> QualityRecord {
    let srtt_eighths_us = rtt_us * 8;
    let minimum_rtt_us = if rtt_us == 0 { u32::MAX } else { rtt_us / 2 };
    QualityRecord { cookie, srtt_eighths_us, minimum_rtt_us, retransmits, reserved: 0 }
}

/// One reading that finds these open and those closed.
fn read(index: &mut Index, open: &[QualityRecord], closed: &[QualityRecord]) {
    index.begin();
    for record in open {
        index.is_open(record);
    }
    for record in closed {
        index.is_closed(record);
    }
    index.end();
}

/// What a record at this place is told.
#[track_caller]
fn check(index: &mut Index, mut record: Record, rtt_us: Option<u64>, retransmits: [Option<u32>; 2]) {
    index.add_to(&mut record);
    let quality = record.quality;
    assert_eq!(quality.rtt, rtt_us.map(Duration::from_micros));
    assert_eq!(quality.minimum_rtt, rtt_us.map(|rtt_us| Duration::from_micros(rtt_us / 2)));
    assert_eq!([quality.retransmits, quality.reverse_retransmits], retransmits);
}

#[test]
fn retransmits_are_told_once_at_each_place_and_round_trip_times_always() {
    let mut index = Index::default();
    let here = || record(2, Direction::Egress, [7, 0]);
    let there = || record(3, Direction::Ingress, [7, 0]);
    check(&mut index, here(), None, [None, None]);
    read(&mut index, &[knows(7, 0, 1)], &[]);
    check(&mut index, here(), None, [Some(1), None]);
    read(&mut index, &[knows(7, 100, 4)], &[]);
    check(&mut index, here(), Some(100), [Some(3), None]);
    check(&mut index, here(), Some(100), [Some(0), None]);
    check(&mut index, there(), Some(100), [Some(4), None]);
    // The end is part of it, and is remembered for the last record.
    read(&mut index, &[], &[knows(7, 120, 5)]);
    read(&mut index, &[], &[]);
    check(&mut index, here(), Some(120), [Some(1), None]);
    check(&mut index, there(), Some(120), [Some(1), None]);
}

#[test]
fn each_end_tells_its_own_and_keeps_it_when_the_ends_change_places() {
    let mut index = Index::default();
    read(&mut index, &[knows(7, 100, 1), knows(8, 200, 2)], &[]);
    check(&mut index, record(2, Direction::Egress, [7, 8]), Some(100), [Some(1), Some(2)]);
    read(&mut index, &[knows(7, 100, 2), knows(8, 200, 2)], &[]);
    check(&mut index, record(2, Direction::Ingress, [8, 7]), Some(200), [Some(0), Some(1)]);
    // Only the destination is on this machine.
    check(&mut index, record(4, Direction::Ingress, [0, 7]), Some(100), [None, Some(2)]);
}

#[test]
fn what_was_not_found_is_closed_and_makes_room_last() {
    let mut index = Index::default();
    read(&mut index, &[knows(1, 10, 0)], &[]);
    read(&mut index, &[], &[]);
    assert_eq!(index.closed, [1]);
    // It connects again: its counter starts anew.
    read(&mut index, &[knows(1, 10, 0)], &[]);
    assert!(index.closed.is_empty());
    let closed: Vec<QualityRecord> = (2..).take(MOST_CLOSED + 5).map(|cookie| knows(cookie, 10, 0)).collect();
    read(&mut index, &[knows(1, 10, 0)], &closed);
    assert_eq!(index.closed.len(), MOST_CLOSED);
    assert_eq!(index.sockets.len(), MOST_CLOSED + 1);
    assert!(index.sockets.contains_key(&1) && !index.sockets.contains_key(&6));
}

#[test]
fn a_counter_that_went_back_is_a_new_connection() {
    let mut index = Index::default();
    read(&mut index, &[knows(7, 100, 5)], &[]);
    check(&mut index, record(2, Direction::Egress, [7, 0]), Some(100), [Some(5), None]);
    read(&mut index, &[knows(7, 100, 2)], &[]);
    check(&mut index, record(2, Direction::Egress, [7, 0]), Some(100), [Some(2), None]);
}

#[test]
fn sockets_beyond_the_limit_are_counted() {
    let mut index = Index::default();
    let open: Vec<QualityRecord> = (1..).take(MOST_OPEN + 3).map(|cookie| knows(cookie, 10, 0)).collect();
    read(&mut index, &open, &[]);
    assert_eq!(index.left_out(), 3);
    assert_eq!(index.sockets.len(), MOST_OPEN);
}
