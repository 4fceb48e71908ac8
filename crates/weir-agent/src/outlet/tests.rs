use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::{
    batch::{Tally, samples::batch},
    ledger::Page,
};

const LONG: Duration = Duration::from_secs(20);

/// Tells of each batch and then does as it is told.
struct Obedient {
    came: SyncSender<(u64, usize)>,
    orders: Receiver<Result<(), WriteError>>,
}

impl Consumer for Obedient {
    fn write(&mut self, batch: &Batch, _patience: &Patience) -> Result<(), WriteError> {
        self.came.send((batch.tick.wall.0 / 1_000_000_000, batch.records.len())).unwrap();
        self.orders.recv_timeout(LONG).unwrap()
    }
}

struct Stage {
    outlet: Outlet,
    came: Receiver<(u64, usize)>,
    orders: SyncSender<Result<(), WriteError>>,
}

fn stage(most_records: usize, filter: &str) -> Stage {
    let (send_came, came) = sync_channel(100);
    let (orders, receive_orders) = sync_channel(100);
    let consumer = Obedient { came: send_came, orders: receive_orders };
    let outlet = Outlet::start("test".into(), most_records, filter.parse().unwrap(), consumer).unwrap();
    Stage { outlet, came, orders }
}

impl Stage {
    fn next(&self) -> (u64, usize) {
        self.came.recv_timeout(LONG).unwrap()
    }

    fn end(self) -> (Page, OutletState) {
        let deadline = Instant::now() + LONG;
        self.outlet.close(deadline);
        self.outlet.wait(deadline);
        (self.outlet.account().total(), self.outlet.state())
    }
}

#[test]
fn a_slow_consumer_loses_the_oldest_and_never_stops_who_offers() {
    let stage = stage(25, "");
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 10));
    for second in 2..=5 {
        stage.outlet.offer(&batch(10, second));
    }
    assert_eq!(stage.outlet.state().waiting, 20);
    let page = stage.outlet.account().total();
    assert_eq!((page.offered.records, page.dropped[Loss::QueueFull as usize].records), (50, 20));
    for _ in 0..3 {
        stage.orders.send(Ok(())).unwrap();
    }
    assert_eq!([stage.next(), stage.next()], [(4, 10), (5, 10)]);
    let (page, state) = stage.end();
    assert_eq!((page.delivered.records, page.waiting()), (30, Tally::default()));
    assert_eq!(state.delivered_ns, Some(5_000_000_000));
}

#[test]
fn a_batch_is_brought_again_until_it_is_taken_or_refused_for_good() {
    let stage = stage(100, "");
    stage.outlet.offer(&batch(1, 1));
    stage.outlet.offer(&batch(2, 2));
    assert_eq!(stage.next(), (1, 1));
    stage.orders.send(Err(WriteError::Retry("nobody there".into()))).unwrap();
    assert_eq!(stage.next(), (1, 1));
    assert_eq!(stage.outlet.state().trouble.as_deref(), Some("nobody there"));
    stage.orders.send(Ok(())).unwrap();
    assert_eq!(stage.next(), (2, 2));
    stage.orders.send(Err(WriteError::Reject("too long".into()))).unwrap();
    let (page, state) = stage.end();
    assert_eq!((page.delivered.records, page.dropped[Loss::Rejected as usize].records), (1, 2));
    assert_eq!((state.failures, state.trouble.as_deref()), (2, Some("too long")));
}

#[test]
fn what_a_filter_keeps_away_is_counted() {
    let stage = stage(100, "dport=3");
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 1));
    stage.orders.send(Ok(())).unwrap();
    let (page, _) = stage.end();
    assert_eq!((page.offered.records, page.filtered.records, page.delivered.records), (10, 9, 1));
    assert_eq!((page.filtered.count.packets, page.waiting().records), (9, 0));
}

#[test]
fn at_the_deadline_everything_that_waits_is_lost_by_name() {
    let stage = stage(100, "");
    for second in 1..=3 {
        stage.outlet.offer(&batch(10, second));
    }
    stage.next();
    let deadline = Instant::now();
    stage.outlet.close(deadline);
    // It hangs: nobody gives the order.
    stage.outlet.wait(deadline);
    let page = stage.outlet.account().total();
    assert_eq!((page.dropped[Loss::Stopped as usize].records, page.waiting().records), (30, 0));
    stage.orders.send(Ok(())).unwrap();
}
