//! Who is the source of a flow, through the whole table.

use super::timeline::{check, check_with, play};
use crate::{FlowTable, Listener, TableConfig};

fn with_listener(address: Option<&str>, port: u16, protocol: u8) -> FlowTable {
    let mut table = FlowTable::new(TableConfig::default());
    let address = address.map(|address| address.parse().expect("address"));
    table.set_listeners([Listener { address, port, protocol }]);
    table
}

#[test]
fn an_answer_to_a_syn_proves_that_the_other_side_asked() {
    check(
        "0.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp SA 74
         0.1 eth1 in 10.0.0.3:80 > 10.0.0.1:90 tcp SA 74
         tick 1",
        "1: tcp 10.0.0.2:4000 > 10.0.0.1:80 eth1/ingress +0+1 =0+1 74B proven
         1: tcp 10.0.0.1:90 > 10.0.0.3:80 eth1/egress +0+1 =0+1 74B proven",
    );
}

#[test]
fn a_syn_proves_it_whatever_the_ports() {
    check(
        "0.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp S 74
         tick 1",
        "1: tcp 10.0.0.1:80 > 10.0.0.2:4000 eth1/egress +1+0 =1+0 74B proven",
    );
}

#[test]
fn proof_turns_a_flow_round_together_with_its_counters() {
    check(
        "0.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp A 66 x3
         tick 1
         1.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp S 74
         1.1 eth1 in 10.0.0.2:4000 > 10.0.0.1:80 tcp A 66
         tick 2",
        "1: tcp 10.0.0.2:4000 > 10.0.0.1:80 eth1/ingress +0+3 =0+3 198B lowerport
         2: tcp 10.0.0.1:80 > 10.0.0.2:4000 eth1/egress +1+1 =4+1 338B proven",
    );
}

#[test]
fn an_echo_reply_belongs_to_the_side_that_asked() {
    check(
        "tick 1
         1.1 eth1 out 10.0.0.1:0 > 10.0.0.2:8 ping - 98
         1.2 eth1 in 10.0.0.2:8 > 10.0.0.1:0 ping - 98
         1.3 eth1 out 10.0.0.1:8 > 10.0.0.2:0 ping - 98
         tick 2",
        "2: icmp 10.0.0.2:8 > 10.0.0.1:0 eth1/ingress +1+1 =1+1 196B proven
         2: icmp 10.0.0.1:8 > 10.0.0.2:0 eth1/egress +1+0 =1+0 98B proven",
    );
}

#[test]
fn nothing_is_sent_from_a_group_address() {
    check(
        "0.1 eth1 in 224.0.0.251:5353 > 10.0.0.2:5353 udp - 98
         0.1 eth1 in 10.0.0.9:68 > 255.255.255.255:67 udp - 300
         tick 1",
        "1: udp 10.0.0.2:5353 > 224.0.0.251:5353 eth1/egress +0+1 =0+1 98B proven
         1: udp 10.0.0.9:68 > 255.255.255.255:67 eth1/ingress +1+0 =1+0 300B proven",
    );
}

#[test]
fn a_listener_beats_the_first_packet() {
    for table in [with_listener(None, 6000, 17), with_listener(Some("10.0.0.2"), 6000, 17)] {
        check_with(
            table,
            "tick 1
             1.1 eth1 in 10.0.0.2:6000 > 10.0.0.1:4000 udp - 98
             tick 2",
            "2: udp 10.0.0.1:4000 > 10.0.0.2:6000 eth1/egress +0+1 =0+1 98B listener",
        );
    }
}

#[test]
fn a_listener_elsewhere_says_nothing() {
    for table in [with_listener(Some("10.0.0.3"), 6000, 17), with_listener(None, 6000, 6)] {
        check_with(
            table,
            "tick 1
             1.1 eth1 in 10.0.0.2:6000 > 10.0.0.1:4000 udp - 98
             tick 2",
            "2: udp 10.0.0.2:6000 > 10.0.0.1:4000 eth1/ingress +1+0 =1+0 98B firstpacket",
        );
    }
}

#[test]
fn a_guess_that_was_told_is_kept() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.1 eth1 in 10.0.0.2:6000 > 10.0.0.1:7000 udp - 98\ntick 1");
    table.set_listeners([Listener { address: None, port: 7000, protocol: 17 }]);
    let (timeline, kept) = (
        "1.1 eth1 out 10.0.0.1:7000 > 10.0.0.2:6000 udp - 98
         tick 2",
        "2: udp 10.0.0.1:7000 > 10.0.0.2:6000 eth1/egress +1+0 =1+1 196B lowerport",
    );
    check_with(table, timeline, kept);
}

#[test]
fn a_guess_that_was_told_may_become_more_certain() {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, "0.1 eth1 in 10.0.0.2:6000 > 10.0.0.1:7000 udp - 98\ntick 1");
    table.set_listeners([Listener { address: None, port: 6000, protocol: 17 }]);
    let (timeline, kept) = (
        "1.1 eth1 out 10.0.0.1:7000 > 10.0.0.2:6000 udp - 98
         tick 2",
        "2: udp 10.0.0.1:7000 > 10.0.0.2:6000 eth1/egress +1+0 =1+1 196B listener",
    );
    check_with(table, timeline, kept);
}

#[test]
fn first_packets_at_the_same_time_leave_it_to_the_ports() {
    check(
        "tick 1
         1.1 eth1 in 10.0.0.2:53 > 10.0.0.1:4000 udp - 98
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 98
         tick 2",
        "2: udp 10.0.0.1:4000 > 10.0.0.2:53 eth1/egress +1+1 =1+1 196B lowerport",
    );
}

#[test]
fn tcp_taken_up_midway_is_left_to_the_ports() {
    check(
        "tick 1
         1.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp A 66
         tick 2",
        "2: tcp 10.0.0.1:4000 > 10.0.0.2:80 eth1/egress +0+1 =0+1 66B lowerport",
    );
}
