//! When flows begin and end, and what each tick tells of them.

use std::sync::Arc;

use super::{
    accounting::flow_number,
    timeline::{EPOCH, check, check_with, play, point, tick},
};
use crate::{Direction, Emit, FlowTable, Initiator, Monotonic, Point, PointId, TableConfig, Wall};

#[test]
fn a_tcp_connection_ends_one_tick_after_both_fins() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp SA 74
         0.2 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 66 x2
         tick 1
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp FA 66
         tick 2
         2.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp FA 66
         tick 3
         3.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 66
         tick 4
         tick 5",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +3+1 =3+1 280B proven
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =4+1 346B proven
         3: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+1 =4+2 412B proven
         4: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =5+2 478B proven fin",
    );
}

#[test]
fn a_connection_within_one_tick_is_told_and_then_ends_without_new_packets() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp SFA 74 x5
         0.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp SFA 74 x4
         tick 1
         tick 2",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +5+4 =5+4 666B lowerport
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+0 =5+4 666B lowerport fin",
    );
}

#[test]
fn a_refused_connection_is_reset() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp RA 54
         tick 1
         tick 2",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+1 =1+1 128B proven
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+0 =1+1 128B proven reset",
    );
}

#[test]
fn silence_ends_tcp_after_a_minute_and_udp_after_a_quarter() {
    check(
        "0.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 80
         tick 1
         tick 15
         tick 16
         tick 60
         tick 61",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven
         1: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +1+0 =1+0 80B lowerport
         16: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +0+0 =1+0 80B lowerport idle
         61: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+0 =1+0 74B proven idle",
    );
}

#[test]
fn after_a_long_silence_another_flow_begins_even_between_ticks() {
    check(
        "0.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 80
         tick 1
         16 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 90
         tick 17",
        "1: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +1+0 =1+0 80B lowerport
         17: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +0+0 =1+0 80B lowerport idle
         17: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +1+0 =1+0 90B firstpacket",
    );
}

#[test]
fn a_port_used_again_at_once_is_another_flow() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp SFA 74
         0.2 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp SFA 74
         0.3 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp SA 75
         0.3 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 75
         tick 1
         tick 2",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+1 =1+1 148B lowerport fin
         1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+1 =1+1 150B proven",
    );
}

#[test]
fn a_port_used_again_later_is_another_flow() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp RA 54
         tick 1
         tick 2
         2.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         tick 3",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+1 =1+1 128B proven
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+0 =1+1 128B proven reset
         3: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven",
    );
}

#[test]
fn request_and_response_are_one_flow_even_out_of_order() {
    check(
        "tick 1
         1.2 eth1 in 10.0.0.2:53 > 10.0.0.1:4000 udp - 120
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 80
         tick 2",
        "2: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +1+1 =1+1 200B firstpacket",
    );
}

#[test]
fn loopback_shows_each_direction_of_the_interface_as_a_flow() {
    check(
        "tick 1
         1.1 lo1 out 127.0.0.1:4000 > 127.0.0.1:80 tcp S 74
         1.1 lo1 in 127.0.0.1:4000 > 127.0.0.1:80 tcp S 74
         1.1 lo1 out 127.0.0.1:80 > 127.0.0.1:4000 tcp SA 74
         1.1 lo1 in 127.0.0.1:80 > 127.0.0.1:4000 tcp SA 74
         tick 2",
        "2: tcp 127.0.0.1:4000 > 127.0.0.1:80 lo1/egress +1+1 =1+1 148B proven
         2: tcp 127.0.0.1:4000 > 127.0.0.1:80 lo1/ingress +1+1 =1+1 148B proven",
    );
}

#[test]
fn a_hairpin_shows_the_same_packets_as_two_flows() {
    check(
        "tick 1
         1.1 eth1 in 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         tick 2",
        "2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/ingress +1+0 =1+0 74B proven
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven",
    );
}

#[test]
fn loopback_counted_at_egress_alone_shows_both_directions_in_one_flow() {
    check(
        "tick 1
         1.1 lo1 out 127.0.0.1:4000 > 127.0.0.1:80 tcp S 74
         1.1 lo1 out 127.0.0.1:80 > 127.0.0.1:4000 tcp SA 74
         tick 2",
        "2: tcp 127.0.0.1:4000 > 127.0.0.1:80 lo1/egress +1+1 =1+1 148B proven",
    );
}

#[test]
fn interfaces_are_never_added_up() {
    check(
        "0.1 eth1 in 10.0.0.1:4000 > 10.0.0.2:53 udp - 80
         0.1 eth2 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 80
         tick 1",
        "1: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/ingress +1+0 =1+0 80B lowerport
         1: udp 10.0.0.1:4000 > 10.0.0.2:53 eth2/egress +1+0 =1+0 80B lowerport",
    );
}

#[test]
fn icmp_errors_each_way_are_flows_of_their_own() {
    check(
        "0.1 eth1 in 10.0.0.9:3 > 10.0.0.2:1 icmp - 70
         0.1 eth1 out 10.0.0.2:3 > 10.0.0.9:1 icmp - 70
         0.1 eth1 out 10.0.0.2:1 > 10.0.0.9:3 icmp - 71
         tick 1",
        "1: icmp 10.0.0.9:3 > 10.0.0.2:1 eth1/ingress +1+0 =1+0 70B proven
         1: icmp 10.0.0.2:3 > 10.0.0.9:1 eth1/egress +1+0 =1+0 70B proven
         1: icmp 10.0.0.2:1 > 10.0.0.9:3 eth1/egress +1+0 =1+0 71B proven",
    );
}

#[test]
fn for_export_a_long_flow_is_told_every_minute_and_at_its_end() {
    let table = FlowTable::new(TableConfig { emit: Emit::EndAndActive, ..TableConfig::default() });
    check_with(
        table,
        "1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         tick 2
         30 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 66
         tick 60
         tick 61
         70 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 66
         tick 120
         tick 122
         123 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp R 54
         tick 124
         tick 125",
        "61: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +2+0 =2+0 140B proven
         122: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =3+0 206B proven
         125: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+1 =3+1 260B proven reset",
    );
}

#[test]
fn finishing_ends_everything() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.1 eth1 out 10.0.0.1:4001 > 10.0.0.2:80 tcp R 74
         tick 1
         finish 2",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven
         1: tcp 10.0.0.1:4001 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B lowerport
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+0 =1+0 74B proven shutdown
         2: tcp 10.0.0.1:4001 > 10.0.0.2:80 eth1/egress +0+0 =1+0 74B lowerport reset",
    );
}

#[test]
fn flows_end_with_their_interface() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         0.1 eth2 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
         remove eth1
         tick 1
         1.1 eth3 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 76
         tick 2",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven shutdown
         1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth2/egress +1+0 =1+0 74B proven
         2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth3/egress +1+0 =1+0 76B proven",
    );
}

#[test]
fn a_new_interface_with_an_old_index_shares_nothing_with_it() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74");
    table.remove_point(point("eth1", "in").id);
    table.remove_point(point("eth1", "out").id);
    let mut again = point("new1", "out");
    again.id = PointId(50);
    table.set_point(Arc::new(again));
    check_with(
        table,
        "tick 1",
        "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +1+0 =1+0 74B proven shutdown",
    );
}

#[test]
fn a_direction_that_is_not_counted_borrows_the_point_of_the_other() {
    let mut table = FlowTable::new(TableConfig::default());
    let only = Arc::new(point("eth1", "in"));
    table.set_point(Arc::clone(&only));
    let mut answer = flow_number(0, only.id, 74);
    answer.traffic.tcp_flags = 0x12;
    table.observe(&answer);
    let record = table.flows().next().expect("a flow").record();
    assert_eq!((record.initiator, record.total.reverse.packets), (Initiator::Proven, 1));
    assert_eq!((record.point.id, record.point.direction), (only.id, Direction::Egress));
}

#[test]
fn a_direction_that_is_counted_again_goes_on() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74");
    table.remove_point(point("eth1", "in").id);
    let again = Point { id: PointId(50), ..point("eth1", "in") };
    table.set_point(Arc::new(again));
    assert!(table.tick(tick("1")).records[0].end_reason.is_none());
    let mut answer = flow_number(0x0a00_0001, PointId(50), 74);
    answer.tuple = answer.tuple.reversed();
    table.observe(&answer);
    assert_eq!(table.len(), 2);
    let points: Vec<_> = table.flows().map(|flow| flow.record().point.id).collect();
    assert_eq!(points, [point("eth1", "out").id, point("eth1", "out").id]);
}

#[test]
fn wall_time_is_set_once() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74");
    let mut now = tick("1");
    let first = table.tick(now).records.remove(0);
    assert_eq!((first.start, first.end), (Wall(500_000_000) + EPOCH, Wall(500_000_000) + EPOCH));
    play(&mut table, "1.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 66");
    // Somebody set the clock: the flow keeps its own.
    now.monotonic = Monotonic(2_000_000_000);
    now.wall = Wall(7);
    let second = table.tick(now).records.remove(0);
    assert_eq!((second.start, second.end), (first.start, Wall(1_500_000_000) + EPOCH));
}

#[test]
fn renaming_an_interface_renames_its_flows() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.5 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74");
    for direction in ["in", "out"] {
        let mut renamed = point("eth1", direction);
        renamed.interface = "wan1".into();
        table.set_point(Arc::new(renamed));
    }
    check_with(table, "tick 1", "1: tcp 10.0.0.1:4000 > 10.0.0.2:80 wan1/egress +1+0 =1+0 74B proven");
}

#[test]
fn a_missing_answer_is_told_at_the_end_where_it_would_have_been_counted() {
    let unanswered = |timeline: &str, source: &str| -> Vec<Option<bool>> {
        let mut table = FlowTable::new(TableConfig::default());
        let records = play(&mut table, timeline).into_iter().map(|(_, record)| record);
        let of_source = records.filter(|record| record.source.address.to_string() == source);
        of_source.map(|record| record.outcome.is_unanswered).collect()
    };
    let alone = "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74
                 0.1 eth1 in 10.0.0.3:4000 > 10.0.0.1:80 tcp S 74
                 0.1 lo3 out 127.0.0.1:4000 > 127.0.0.2:80 tcp S 74
                 tick 1
                 tick 61";
    for source in ["10.0.0.1", "10.0.0.3", "127.0.0.1"] {
        assert_eq!(unanswered(alone, source), [None, Some(true)], "{source}");
    }
    // With another way in, the answer to what was received may have come in there. Then it is not counted again where it
    // leaves.
    let beside = format!("0.1 eth2 in 10.1.0.1:1 > 10.1.0.2:2 udp - 60\n{alone}");
    assert_eq!(unanswered(&beside, "10.0.0.1"), [None, Some(true)]);
    assert_eq!(unanswered(&beside, "10.0.0.3"), [None, None]);
}
