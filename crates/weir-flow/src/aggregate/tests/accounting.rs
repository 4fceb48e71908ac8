//! Nothing is lost: the books balance whatever comes, and memory stays within its bound.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use weir_packet::{Details, Tuple, ipv4_words, protocol};

use super::timeline::{point, tick};
use crate::{
    Count, Detail, Direction, Emit, FlowTable, Monotonic, Observation, PointId, SocketOwner, TableConfig,
    Tick, Traffic, Wall,
};

/// Room for a handful of flows.
const TINY: usize = 4000;

/// A packet of the flow with this number.
pub(super) fn flow_number(number: u32, point: PointId, bytes: u64) -> Observation {
    let details = Details::new(false, protocol::TCP).with_ports(4000, 80);
    Observation {
        tuple: Tuple::new(ipv4_words(number.to_be_bytes()), ipv4_words([10, 0, 0, 1]), details),
        point,
        traffic: Traffic { packets: 1, bytes, skbs: 1, skb_bytes: bytes, ..Traffic::default() },
        first: Monotonic(0),
        last: Monotonic(0),
        owner: SocketOwner::default(),
    }
}

/// Even points are for ingress, as `point` numbers them.
fn direction_of(point: PointId) -> Direction {
    if point.0.is_multiple_of(2) { Direction::Ingress } else { Direction::Egress }
}

fn table(memory_bytes: usize, emit: Emit) -> FlowTable {
    let mut table = FlowTable::new(TableConfig { memory_bytes, emit, ..TableConfig::default() });
    for interface in ["eth1", "eth2"] {
        for direction in ["in", "out"] {
            table.set_point(Arc::new(point(interface, direction)));
        }
    }
    table
}

#[test]
fn what_finds_no_room_is_folded_and_what_has_room_goes_on() {
    let mut table = table(TINY, Emit::EveryTick);
    let (id, room) = (point("eth1", "in").id, u32::try_from(table.capacity()).expect("small"));
    for number in 0..room + 5 {
        table.observe(&flow_number(number, id, 100));
    }
    table.observe(&flow_number(0, id, 100));
    assert_eq!(table.len(), room as usize);
    assert_eq!(table.folded(), Count { packets: 5, bytes: 500 });
    let records = table.tick(tick("1")).records;
    let folded: Vec<_> = records.iter().filter(|record| record.detail == Detail::Folded).collect();
    assert_eq!(folded.len(), 1);
    assert_eq!(folded[0].total.forward.count(), table.folded());
    assert_eq!((folded[0].point.id, folded[0].tuple.protocol()), (id, protocol::TCP));
    assert!(folded[0].tuple.source().is_unspecified());
    assert_eq!(records[0].total.count().packets, 2);
}

#[test]
fn room_that_flows_leave_is_used_again() {
    let mut table = table(TINY, Emit::EveryTick);
    let (id, room) = (point("eth1", "in").id, u32::try_from(table.capacity()).expect("small"));
    for round in 0..100 {
        for number in 0..room {
            let mut observation = flow_number(round * room + number, id, 100);
            observation.first = Monotonic(u64::from(round) * 100_000_000_000);
            observation.last = observation.first;
            table.observe(&observation);
        }
        let drained =
            table.tick(Tick { monotonic: Monotonic(u64::from(round) * 100_000_000_000 + 1), wall: Wall(0) });
        assert!(drained.balance.is_balanced());
        table.tick(tick(&(u64::from(round) * 100 + 60).to_string()));
        assert!(table.is_empty());
    }
    assert_eq!(table.folded(), Count::default());
    assert!(table.memory_bytes() <= TINY + 1000, "{}", table.memory_bytes());
}

#[test]
fn a_flood_of_flows_stays_within_the_bound() {
    let memory_bytes = 1 << 20;
    let mut table = table(memory_bytes, Emit::EveryTick);
    for number in 0..100_000 {
        table.observe(&flow_number(number, point("eth1", "in").id, 100));
    }
    assert!(table.memory_bytes() <= memory_bytes + 4096, "{}", table.memory_bytes());
    assert_eq!(table.accounted(), Count { packets: 100_000, bytes: 10_000_000 });
}

#[test]
fn folded_rows_are_bounded_too() {
    let mut table = FlowTable::new(TableConfig { memory_bytes: 0, ..TableConfig::default() });
    for number in 0..100 {
        let mut each = point("eth1", "in");
        (each.id, each.ifindex) = (PointId(number), number);
        table.set_point(Arc::new(each));
    }
    let mut packets = 0;
    for number in 0..100 {
        for protocol in 0..=255 {
            let tuple = Tuple::new([0; 2], [0; 2], Details::new(protocol % 2 == 0, protocol));
            table.observe(&Observation { tuple, ..flow_number(0, PointId(number), 100) });
            packets += 1;
        }
    }
    assert_eq!(table.accounted().packets, packets);
    let drained = table.finish(tick("1"));
    assert!(drained.records.len() <= 4096 + 100 + 1, "{}", drained.records.len());
    assert!(table.memory_bytes() < 4 << 20);
}

#[test]
fn observations_at_an_unknown_point_are_counted_as_such() {
    let mut table = table(TINY, Emit::EveryTick);
    table.observe(&flow_number(0, PointId(99), 100));
    let balance = table.tick(tick("1")).balance;
    assert_eq!(balance.unplaced, Count { packets: 1, bytes: 100 });
    assert!(balance.is_balanced());
}

#[derive(Clone, Debug)]
enum Event {
    Observe(Observation),
    Tick(Duration),
    Remove(PointId),
}

fn event() -> impl Strategy<Value = Event> {
    let flags = prop::sample::select(vec![0x02_u16, 0x12, 0x10, 0x11, 0x04, 0x18]);
    let ends = (0..6_u8, 0..6_u8, 0..3_u16);
    let counts = (1..1000_u64, 1..1_000_000_u64);
    let observe = (ends, 0..4_u32, any::<bool>(), flags, counts, 0..2_000_000_000_u64).prop_map(
        |((source, destination, port), point, is_tcp, tcp_flags, (packets, bytes), delay)| {
            let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
            let details = Details::new(false, protocol).with_ports(4000, port);
            let tuple =
                Tuple::new(ipv4_words([10, 0, 0, source]), ipv4_words([10, 0, 0, destination]), details);
            let traffic = Traffic {
                packets,
                bytes,
                skbs: packets,
                skb_bytes: bytes,
                tcp_flags,
                last_tcp_flags: tcp_flags,
                syn: u32::from(tcp_flags == 2),
                ..Traffic::default()
            };
            // Relative to the last tick; the runner adds its time.
            let first = Monotonic(delay);
            let owner = SocketOwner::default();
            Event::Observe(Observation {
                tuple,
                point: PointId(point + 2),
                traffic,
                first,
                last: first,
                owner,
            })
        },
    );
    prop_oneof![
        20 => observe,
        3 => (0..30_000_u64).prop_map(|milliseconds| Event::Tick(Duration::from_millis(milliseconds))),
        1 => (2..6_u32).prop_map(|point| Event::Remove(PointId(point))),
    ]
}

/// Runs events and checks after each tick that all is accounted for, and at the end that the deltas of the records add
/// up to what was observed at each direction.
fn run(events: Vec<Event>, memory_bytes: usize, emit: Emit) {
    let mut table = table(memory_bytes, emit);
    let (mut now, mut observed, mut told) = (Duration::ZERO, Count::default(), Count::default());
    let (mut observed_by, mut told_by) = ([Count::default(); 2], [Count::default(); 2]);
    let mut tell = |records: &[crate::Record]| {
        for record in records {
            told += record.delta.count();
            let forward = record.point.direction;
            told_by[forward as usize] += record.delta.forward.count();
            told_by[forward.opposite() as usize] += record.delta.reverse.count();
        }
    };
    let at =
        |now: Duration| Tick { monotonic: Monotonic(u64::try_from(now.as_nanos()).unwrap()), wall: Wall(1) };
    for event in events {
        match event {
            Event::Observe(mut observation) => {
                observation.first.0 += at(now).monotonic.0;
                observation.last = observation.first;
                observed += observation.traffic.count();
                observed_by[direction_of(observation.point) as usize] += observation.traffic.count();
                table.observe(&observation);
                assert_eq!(table.accounted(), observed);
            }
            Event::Tick(pause) => {
                now += pause;
                let drained = table.tick(at(now));
                tell(&drained.records);
                assert!(drained.balance.is_balanced(), "{:?}", drained.balance);
                assert_eq!((drained.balance, drained.balance.observed), (table.balance(), observed));
            }
            Event::Remove(id) => {
                // A real point goes only after its last drain; a new one takes its place under the same number here.
                table.remove_point(id);
                let interface = if id.0 < 4 { "eth1" } else { "eth2" };
                let direction = if direction_of(id) == Direction::Ingress { "in" } else { "out" };
                table.set_point(Arc::new(point(interface, direction)));
            }
        }
    }
    tell(&table.finish(at(now)).records);
    assert!(table.is_empty());
    assert_eq!(table.accounted(), observed);
    assert_eq!(told, observed);
    assert_eq!(told_by, observed_by);
}

proptest! {
    #[test]
    fn nothing_is_ever_lost(events in prop::collection::vec(event(), 0..200)) {
        run(events, 1 << 20, Emit::EveryTick);
    }

    #[test]
    fn nothing_is_ever_lost_for_want_of_room(events in prop::collection::vec(event(), 0..200)) {
        run(events, TINY, Emit::EveryTick);
    }

    #[test]
    fn nothing_is_ever_lost_between_exports(events in prop::collection::vec(event(), 0..200)) {
        run(events, TINY, Emit::EndAndActive);
    }

    #[test]
    fn the_order_within_a_tick_does_not_matter(
        observations in prop::collection::vec((0..5_u32, 0..4_u32, 1..1000_u64), 0..60), seed: u64,
    ) {
        let make = |&(number, point, bytes): &(u32, u32, u64)| flow_number(number, PointId(point + 2), bytes);
        let describe = |order: &[(u32, u32, u64)]| {
            let mut table = table(1 << 20, Emit::EveryTick);
            for each in order {
                table.observe(&make(each));
            }
            let records = table.tick(tick("1")).records;
            let mut lines: Vec<_> = records.iter().map(|record| {
                format!("{:?} {:?} {:?}", record.tuple, record.point.id, record.total)
            }).collect();
            lines.sort();
            lines
        };
        let mut other = observations.clone();
        if !other.is_empty() {
            let middle = usize::try_from(seed % other.len() as u64).unwrap();
            other.rotate_left(middle);
            other[..].reverse();
        }
        prop_assert_eq!(describe(&observations), describe(&other));
    }
}
