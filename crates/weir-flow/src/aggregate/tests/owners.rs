//! Sockets and processes of the ends.

use std::sync::{Arc, Mutex};

use super::timeline::play;
use crate::{
    Direction, End, FlowTable, Process, ProcessConfidence, ProcessLookup, Record, TableConfig,
    record::Endpoint,
};

fn last_record(timeline: &str) -> Record {
    let mut table = FlowTable::new(TableConfig::default());
    play(&mut table, timeline).pop().expect("a record").1
}

#[track_caller]
fn check(timeline: &str, expect: [u64; 2]) {
    let record = last_record(timeline);
    assert_eq!([record.source.owner.cookie, record.destination.owner.cookie], expect, "{record:?}");
}

#[test]
fn a_socket_belongs_to_the_end_that_sends() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74 cookie=7
         0.1 eth1 in 10.0.0.2:80 > 10.0.0.1:4000 tcp SA 74
         tick 1",
        [7, 0],
    );
    // The node's side of a veth pair: the socket came along from the sender in the other namespace.
    check(
        "0.1 eth1 in 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74 cookie=7
         0.1 eth1 out 10.0.0.2:80 > 10.0.0.1:4000 tcp SA 74 cookie=8
         tick 1",
        [7, 8],
    );
}

#[test]
fn the_listening_socket_gives_way_to_the_connection() {
    check(
        "0.1 eth1 in 10.0.0.2:4000 > 10.0.0.1:80 tcp S 74
         0.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp SA 74 cookie=3
         tick 1
         1.1 eth1 out 10.0.0.1:80 > 10.0.0.2:4000 tcp A 66 cookie=9
         tick 2",
        [0, 9],
    );
}

#[test]
fn a_socket_that_the_kernel_closes_with_is_not_the_connection() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 74 cookie=7
         tick 1
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp R 54 cookie=1
         tick 2",
        [7, 0],
    );
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp FA 74 cookie=7
         tick 1
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp A 54 cookie=1
         tick 2",
        [7, 0],
    );
}

#[test]
fn what_has_no_socket_takes_none_away() {
    check(
        "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 74 cookie=7
         tick 1
         1.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:53 udp - 54
         tick 2",
        [7, 0],
    );
}

/// Names processes after the port that they send from, and notes what it was asked.
struct ByPort(Arc<Mutex<Vec<(u16, u64, Direction)>>>);

impl ProcessLookup for ByPort {
    fn process(&self, end: &End<'_>) -> Option<Arc<Process>> {
        let port = end.tuple.source_port();
        self.0.lock().expect("no panic").push((port, end.owner.cookie, end.point.direction));
        let executable = format!("p{port}").into();
        Some(Arc::new(Process { pid: port.into(), executable, confidence: ProcessConfidence::Proven }))
    }
}

#[test]
fn processes_are_asked_for_as_each_end_sends() {
    let asked = Arc::default();
    let mut table = FlowTable::new(TableConfig::default());
    table.set_processes(Box::new(ByPort(Arc::clone(&asked))));
    let timeline = "0.1 eth1 out 10.0.0.1:4000 > 10.0.0.2:80 tcp S 74 cookie=7
                    tick 1";
    let record = play(&mut table, timeline).pop().expect("a record").1;
    let name = |end: &Endpoint| end.process.as_ref().map(|process| process.executable.to_string());
    assert_eq!((name(&record.source), name(&record.destination)), (Some("p4000".into()), Some("p80".into())));
    let expect = [(4000, 7, Direction::Egress), (80, 0, Direction::Ingress)];
    assert_eq!(*asked.lock().expect("no panic"), expect);
}
