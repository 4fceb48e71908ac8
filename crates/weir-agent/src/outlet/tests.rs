use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::{
    batch::{Tally, samples::batch},
    ledger::{Page, Pages},
};

const LONG: Duration = Duration::from_secs(20);

/// Tells of each group of parcels and then does as it is told.
struct Obedient {
    came: SyncSender<Group>,
    orders: Receiver<Result<Receipt, WriteError>>,
}

/// Names of parcels, with second and number of records.
type Group = Vec<(ParcelId, u64, usize)>;

impl Consumer for Obedient {
    fn write(&mut self, parcels: &[Parcel], _patience: &Patience) -> Result<Receipt, WriteError> {
        let told =
            |Parcel { id, batch }: &Parcel| (*id, batch.tick.wall.0 / 1_000_000_000, batch.records.len());
        self.came.send(parcels.iter().map(told).collect()).unwrap();
        self.orders.recv_timeout(LONG).unwrap()
    }
}

struct Stage {
    outlet: Outlet,
    came: Receiver<Group>,
    orders: SyncSender<Result<Receipt, WriteError>>,
}

fn config(most_records: usize) -> OutletConfig {
    let filter = Filter::default();
    OutletConfig { name: "test".into(), most_records, filter, batching: Batching::SINGLE, spool: None }
}

fn stage(config: OutletConfig) -> Stage {
    let (send_came, came) = sync_channel(100);
    let (orders, receive_orders) = sync_channel(100);
    let consumer = Obedient { came: send_came, orders: receive_orders };
    let outlet = Outlet::start(config, consumer).unwrap();
    Stage { outlet, came, orders }
}

impl Stage {
    fn next_group(&self) -> Group {
        self.came.recv_timeout(LONG).unwrap()
    }

    /// Second and number of records of the only parcel that comes next.
    fn next(&self) -> (u64, usize) {
        let group = self.next_group();
        assert_eq!(group.len(), 1);
        (group[0].1, group[0].2)
    }

    fn accept(&self) {
        self.orders.send(Ok(Receipt::default())).unwrap();
    }

    fn refuse(&self) {
        self.orders.send(Err(WriteError::Retry("nobody there".into()))).unwrap();
    }

    /// For as many attempts as there may be until its end.
    fn refuse_what_comes(&self) {
        for _ in 0..10 {
            // It may have ended already.
            self.orders.send(Err(WriteError::Retry("nobody there".into()))).ok();
        }
    }

    fn until(&self, is_wanted: impl Fn(&Pages) -> bool) -> Pages {
        let deadline = Instant::now() + LONG;
        loop {
            let pages = self.outlet.account().snapshot();
            if is_wanted(&pages) {
                return pages;
            }
            assert!(Instant::now() < deadline, "{pages:?}");
            thread::yield_now();
        }
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
    let stage = stage(config(25));
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 10));
    for second in 2..=5 {
        stage.outlet.offer(&batch(10, second));
    }
    assert_eq!(stage.outlet.state().waiting, 20);
    let page = stage.outlet.account().total();
    assert_eq!((page.offered.records, page.dropped[Loss::QueueFull as usize].records), (50, 20));
    for _ in 0..3 {
        stage.accept();
    }
    assert_eq!([stage.next(), stage.next()], [(4, 10), (5, 10)]);
    let (page, state) = stage.end();
    assert_eq!((page.delivered.records, page.waiting()), (30, Tally::default()));
    assert_eq!(state.delivered_ns, Some(5_000_000_000));
}

#[test]
fn a_batch_is_brought_again_until_it_is_taken_or_refused_for_good() {
    let stage = stage(config(100));
    stage.outlet.offer(&batch(1, 1));
    stage.outlet.offer(&batch(2, 2));
    assert_eq!(stage.next(), (1, 1));
    stage.refuse();
    assert_eq!(stage.next(), (1, 1));
    assert_eq!(stage.outlet.state().trouble.map(|trouble| trouble.text).as_deref(), Some("nobody there"));
    stage.accept();
    assert_eq!(stage.next(), (2, 2));
    stage.orders.send(Err(WriteError::Reject("too long".into()))).unwrap();
    let (page, state) = stage.end();
    assert_eq!((page.delivered.records, page.dropped[Loss::Rejected as usize].records), (1, 2));
    assert_eq!((state.failures, state.trouble.map(|trouble| trouble.text).as_deref()), (2, Some("too long")));
}

#[test]
fn what_a_filter_keeps_away_is_counted() {
    let stage = stage(OutletConfig { filter: "dport=3".parse().unwrap(), ..config(100) });
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 1));
    stage.accept();
    let (page, _) = stage.end();
    assert_eq!((page.offered.records, page.filtered.records, page.delivered.records), (10, 9, 1));
    assert_eq!((page.filtered.count.packets, page.waiting().records), (9, 0));
}

#[test]
fn at_the_deadline_everything_that_waits_is_lost_by_name() {
    let stage = stage(config(100));
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
    stage.accept();
}

#[test]
fn what_comes_together_is_brought_together() {
    let batching = Batching { records: 30, bytes: u64::MAX, time: LONG };
    let stage = stage(OutletConfig { batching, ..config(100) });
    for second in 1..=4 {
        stage.outlet.offer(&batch(10, second));
    }
    let seconds = |group: &Group| group.iter().map(|(_, second, _)| *second).collect::<Vec<_>>();
    assert_eq!(seconds(&stage.next_group()), [1, 2, 3]);
    // One of them spoils the others: each comes once more by itself.
    stage.orders.send(Err(WriteError::Reject("one is bad".into()))).unwrap();
    assert_eq!(stage.next(), (1, 10));
    stage.accept();
    assert_eq!(stage.next(), (2, 10));
    stage.orders.send(Err(WriteError::Reject("this one is bad".into()))).unwrap();
    assert_eq!(stage.next(), (3, 10));
    let receipt = Receipt { refused: Some((4, "too old".to_owned())) };
    stage.orders.send(Ok(receipt)).unwrap();
    stage.accept();
    // The end brings what waits for more.
    let (page, state) = stage.end();
    assert_eq!((page.delivered.records, page.dropped[Loss::Rejected as usize].records), (30, 10));
    assert_eq!((state.refused, state.attempts, state.failures), (4, 5, 2));
}

fn spooled(directory: &std::path::Path, most_records: usize) -> OutletConfig {
    let spool = SpoolConfig { path: directory.join("spool"), bytes: 1 << 20 };
    OutletConfig { spool: Some(spool), ..config(most_records) }
}

#[test]
fn what_has_no_room_in_memory_waits_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let stage = stage(spooled(directory.path(), 25));
    for second in 1..=20 {
        stage.outlet.offer(&batch(10, second));
        // The queue before the disk has a bound too.
        stage.until(|pages| pages.total().spooled.records == second * 10);
    }
    stage.refuse();
    let first = stage.next_group();
    assert_eq!(stage.next_group(), first);
    for second in 2..=20 {
        stage.accept();
        assert_eq!(stage.next(), (second, 10));
    }
    stage.accept();
    let (page, state) = stage.end();
    assert_eq!(
        (page.delivered.records, page.spooled, page.waiting()),
        (200, Tally::default(), Tally::default())
    );
    assert_eq!((page.delivered.count.packets, page.lost().records), (200, 0));
    assert_eq!(state.spool.map(|spool| (spool.bytes, spool.trouble)), Some((0, None)));
}

#[test]
fn what_is_not_delivered_in_time_is_delivered_by_the_next_run_under_the_same_name() {
    let directory = tempfile::tempdir().unwrap();
    let before = stage(spooled(directory.path(), 100));
    for second in 1..=3 {
        before.outlet.offer(&batch(10, second));
    }
    let first = before.next_group();
    before.accept();
    let second = before.next_group();
    before.until(|pages| pages.total().spooled.records == 20);
    before.refuse();
    let third = before.next_group();
    assert_eq!(third, second);
    // Everything is on disk, so one more failure is enough to end.
    before.outlet.close(Instant::now() + LONG);
    // The first may come before all has been written.
    before.refuse_what_comes();
    before.outlet.wait(Instant::now() + LONG);
    let page = before.outlet.account().total();
    assert_eq!((page.delivered.records, page.spooled.records, page.lost().records), (10, 20, 0));
    assert_eq!(page.waiting(), Tally::default());
    drop(before);

    let after = stage(spooled(directory.path(), 100));
    assert_eq!(after.next_group(), second);
    after.accept();
    let last = after.next_group();
    assert_eq!((last[0].1, last[0].2), (3, 10));
    assert!(last[0].0 != second[0].0 && first[0].0 != second[0].0);
    after.outlet.offer(&batch(10, 4));
    after.accept();
    assert_eq!(after.next(), (4, 10));
    after.accept();
    let pages = after.until(|pages| pages.total().delivered.records == 10);
    let earlier = pages.earlier();
    assert_eq!((earlier.offered.records, earlier.delivered.records), (20, 20));
    assert_eq!((earlier.spooled.records, earlier.waiting().records), (0, 0));
    let (page, _) = after.end();
    assert_eq!((page.offered.records, page.delivered.records), (10, 10));
}

#[test]
fn a_spool_without_room_loses_the_oldest_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let spool = SpoolConfig { path: directory.path().join("spool"), bytes: 64 << 10 };
    let stage = stage(OutletConfig { spool: Some(spool), ..config(100) });
    let mut second = 0;
    let pages = loop {
        second += 1;
        stage.outlet.offer(&batch(100, second));
        let pages = stage.until(|pages| pages.total().waiting().records == 0);
        if pages.total().dropped[Loss::SpoolFull as usize].records > 0 {
            break pages.total();
        }
    };
    // The first was brought before there was too little room, so it is not among them.
    assert_eq!(stage.next(), (1, 100));
    stage.accept();
    let lost = |pages: &Page| pages.dropped[Loss::SpoolFull as usize].records;
    assert_eq!(pages.spooled.records + lost(&pages), second * 100);
    let oldest = stage.next().0;
    // Several may go at a time, and whoever looks may see the first of them gone only.
    let pages = stage.until(|pages| oldest == 2 + lost(&pages.total()) / 100);
    let lost = lost(&pages.total());
    for _ in oldest..=second {
        stage.accept();
    }
    let (page, _) = stage.end();
    assert_eq!(page.delivered.records + lost, second * 100);
}

#[test]
fn without_a_disk_records_wait_in_memory_and_the_disk_is_used_once_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    // A file is where the directory should be.
    let place = directory.path().join("spool");
    std::fs::write(&place, "").unwrap();
    let stage = stage(spooled(directory.path(), 25));
    let trouble = || stage.outlet.state().spool.and_then(|spool| spool.trouble);
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 10));
    for second in 2..=4 {
        stage.outlet.offer(&batch(10, second));
    }
    let pages = stage.until(|pages| pages.total().dropped[Loss::QueueFull as usize].records > 0);
    assert!(trouble().is_some_and(|text| text.contains("spool")));
    assert_eq!(pages.total().spooled.records, 0);
    std::fs::remove_file(&place).unwrap();
    for second in 3..=4 {
        stage.accept();
        assert_eq!(stage.next(), (second, 10));
    }
    stage.accept();
    let deadline = Instant::now() + LONG;
    while trouble().is_some() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    stage.outlet.offer(&batch(10, 5));
    assert_eq!(stage.next(), (5, 10));
    assert_eq!(stage.outlet.account().total().spooled.records, 10);
    stage.accept();
    let (page, _) = stage.end();
    assert_eq!((page.delivered.records, page.lost().records), (40, 10));
}

#[test]
fn what_is_being_delivered_when_the_spool_overflows_is_there_for_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let config = || {
        let spool = SpoolConfig { path: directory.path().join("spool"), bytes: 64 << 10 };
        OutletConfig { spool: Some(spool), ..config(100) }
    };
    let before = stage(config());
    before.outlet.offer(&batch(100, 1));
    let first = before.next_group();
    let mut second = 1;
    loop {
        second += 1;
        before.outlet.offer(&batch(100, second));
        let pages = before.until(|pages| pages.total().waiting().records == 0);
        if pages.total().dropped[Loss::SpoolFull as usize].records > 0 {
            break;
        }
    }
    before.outlet.close(Instant::now() + LONG);
    before.refuse_what_comes();
    before.outlet.wait(Instant::now() + LONG);
    let page = before.outlet.account().total();
    assert_eq!(page.spooled.records + page.lost().records, page.offered.records);
    drop(before);

    let after = stage(config());
    assert_eq!(after.next_group(), first);
    assert_eq!(after.outlet.account().snapshot().earlier().offered, page.spooled);
    (0..=second).for_each(|_| after.orders.try_send(Ok(Receipt::default())).unwrap_or_default());
}

#[test]
fn the_end_comes_with_one_more_attempt_however_long_the_back_off() {
    let directory = tempfile::tempdir().unwrap();
    for config in [config(100), spooled(directory.path(), 100)] {
        let has_spool = config.spool.is_some();
        let stage = stage(config);
        stage.outlet.offer(&batch(10, 1));
        stage.next();
        let after = Duration::from_mins(4);
        stage.orders.send(Err(WriteError::RetryAfter { after, reason: "busy".into() })).unwrap();
        // For the next attempt.
        stage.accept();
        let deadline = Instant::now() + Duration::from_mins(2);
        stage.outlet.close(deadline);
        stage.outlet.wait(deadline);
        assert!(Instant::now() + LONG < deadline);
        let page = stage.outlet.account().total();
        // An attempt that fails when the end has begun already is the last one, if nothing is lost by that.
        let arrived = page.delivered.records + if has_spool { page.spooled.records } else { 0 };
        assert_eq!((arrived, page.lost().records), (10, 0));
    }
}

#[test]
fn what_was_taken_of_a_refused_group_is_not_brought_again_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let batching = Batching { records: 30, bytes: u64::MAX, time: LONG };
    let before = stage(OutletConfig { batching, ..spooled(directory.path(), 100) });
    for second in 1..=3 {
        before.outlet.offer(&batch(10, second));
    }
    assert_eq!(before.next_group().len(), 3);
    before.orders.send(Err(WriteError::Reject("one is bad".into()))).unwrap();
    for second in 1..=2 {
        assert_eq!(before.next(), (second, 10));
        before.accept();
    }
    let third = before.next_group();
    before.outlet.close(Instant::now() + LONG);
    before.refuse_what_comes();
    before.outlet.wait(Instant::now() + LONG);
    let page = before.outlet.account().total();
    assert_eq!((page.delivered.records, page.spooled.records), (20, 10));
    drop(before);
    let after = stage(spooled(directory.path(), 100));
    assert_eq!(after.next_group(), third);
    assert_eq!(after.outlet.account().snapshot().earlier().offered.records, 10);
    after.accept();
    after.end();
}

#[test]
fn batches_without_records_have_a_bound_too() {
    let stage = stage(config(25));
    stage.outlet.offer(&batch(1, 1));
    stage.next();
    for second in 2..200 {
        stage.outlet.offer(&batch(0, second));
    }
    assert_eq!((stage.outlet.shared.queue.batches(), stage.outlet.state().waiting), (25, 0));
    (0..26).for_each(|_| stage.accept());
    stage.end();
}

#[test]
fn what_waited_in_memory_goes_to_the_disk_once_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    std::fs::write(&place, "").unwrap();
    let stage = stage(spooled(directory.path(), 100));
    stage.outlet.offer(&batch(10, 1));
    assert_eq!(stage.next(), (1, 10));
    for second in 2..=4 {
        stage.outlet.offer(&batch(10, second));
    }
    let deadline = Instant::now() + LONG;
    while stage.outlet.state().waiting < 30 || stage.outlet.shared.queue.records() > 0 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    std::fs::remove_file(&place).unwrap();
    // An interval in which nothing happened is enough.
    while stage.outlet.account().total().spooled.records < 30 {
        assert!(Instant::now() < deadline);
        stage.outlet.offer(&batch(0, 5));
        thread::yield_now();
    }
    // What is being brought is in nobody's hands but the consumer's.
    assert_eq!(stage.outlet.account().total().waiting().records, 10);
    for second in 2..=4 {
        stage.accept();
        assert_eq!(stage.next(), (second, 10));
    }
    stage.accept();
    let (page, _) = stage.end();
    assert_eq!((page.delivered.records, page.spooled.records, page.lost().records), (40, 0, 0));
}

#[test]
fn a_spool_of_nothing_but_damage_is_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let before = stage(spooled(directory.path(), 100));
    before.outlet.offer(&batch(10, 1));
    before.next();
    before.outlet.close(Instant::now() + LONG);
    before.refuse_what_comes();
    before.outlet.wait(Instant::now() + LONG);
    drop(before);
    let file = directory.path().join("spool/0000000001.spool");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for lost in [10, 0] {
        let after = stage(spooled(directory.path(), 100));
        let is_read = |pages: &Pages| pages.earlier().dropped[Loss::SpoolDamaged as usize].records == lost;
        after.until(is_read);
        let (_, state) = after.end();
        assert_eq!(state.spool.map(|spool| spool.bytes), Some(0));
    }
}

/// Always wants to be woken, and does as it is told then.
struct Sleeper {
    orders: Receiver<Result<Receipt, WriteError>>,
}

impl Consumer for Sleeper {
    fn write(&mut self, _parcels: &[Parcel], _patience: &Patience) -> Result<Receipt, WriteError> {
        Ok(Receipt::default())
    }

    fn wakes_at(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn wake(&mut self, _patience: &Patience) -> Result<Receipt, WriteError> {
        // Nobody gives orders any more at the end.
        self.orders.recv().unwrap_or_else(|_ended| Ok(Receipt::default()))
    }
}

#[test]
fn a_consumer_is_woken_without_parcels_and_what_fails_then_keeps_none_waiting() {
    let directory = tempfile::tempdir().unwrap();
    for config in [config(100), spooled(directory.path(), 100)] {
        let (give, orders) = sync_channel(0);
        let outlet = Outlet::start(config, Sleeper { orders }).unwrap();
        let until = |is_wanted: &dyn Fn() -> bool| {
            let deadline = Instant::now() + LONG;
            while !is_wanted() {
                assert!(Instant::now() < deadline, "{:?} {:?}", outlet.state(), outlet.account().total());
                thread::yield_now();
            }
        };
        let trouble = || outlet.state().trouble.map(|trouble| trouble.text);
        let fail = || give.send(Err(WriteError::Retry("no metrics".into()))).unwrap();
        fail();
        until(&|| trouble().as_deref() == Some("no metrics"));
        outlet.offer(&batch(10, 1));
        fail();
        until(&|| {
            // It waits for an order most of the time.
            give.try_send(Err(WriteError::Retry("no metrics".into()))).ok();
            outlet.account().total().delivered.records == 10
        });
        assert_eq!(trouble().as_deref(), Some("no metrics"));
        give.send(Ok(Receipt { refused: Some((3, "too old".to_owned())) })).unwrap();
        until(&|| trouble().is_none() && outlet.state().refused == 3);
        drop(give);
        let deadline = Instant::now() + LONG;
        outlet.close(deadline);
        outlet.wait(deadline);
    }
}
