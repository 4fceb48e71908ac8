//! [`Account`]: what became of the records that one consumer was offered, by observation point.
//!
//! At any time: offered = delivered + filtered + dropped (each under a name) + spooled + waiting. Points that are gone are
//! summed up by role and direction, so that an account does not grow for ever. What an earlier run left in a spool has a
//! page of its own: nobody here saw it at a point.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use weir_flow::{Direction, PointId, Role};

use crate::batch::{Tallies, Tally};

/// Why a consumer did not get a record that was meant for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Too much waited, so the oldest went.
    QueueFull,
    /// The consumer refused it for good.
    Rejected,
    /// The agent stopped, or the sink was removed, before it could be delivered.
    Stopped,
    /// The spool had no more room, so the oldest went.
    SpoolFull,
    /// The disk gave back something else than was spooled.
    SpoolDamaged,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::Rejected, Self::Stopped, Self::SpoolFull, Self::SpoolDamaged];

    /// The name in the ledger and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
        }
    }
}

/// Where a batch was before its fate was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In memory.
    Memory,
    /// In the spool.
    Spool,
    /// In the spool since an earlier run.
    Earlier,
}

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Everything that was meant for the consumer.
    pub offered: Tally,
    /// What it has.
    pub delivered: Tally,
    /// What its filter kept away.
    pub filtered: Tally,
    /// What was lost, in the order of [`Loss::ALL`].
    pub dropped: [Tally; Loss::ALL.len()],
    /// What is on disk and waits.
    pub spooled: Tally,
}

/// The account of one consumer. Shared: the pipeline offers, the worker delivers, others look.
#[derive(Debug, Default)]
pub struct Account(Mutex<Pages>);

/// The pages of an account.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    points: HashMap<PointId, Page>,
    closed: BTreeMap<(Role, Direction), Page>,
    /// Pages of points that are gone, while something of them is still under way.
    closing: HashMap<PointId, ((Role, Direction), Page)>,
    /// What an earlier run left.
    earlier: Page,
    /// Places in files of an earlier run that made no sense.
    damaged: u64,
    /// Nothing is added any more.
    is_closed: bool,
}

impl Page {
    /// What has neither been delivered nor lost, and is in memory alone.
    #[must_use]
    pub fn waiting(&self) -> Tally {
        let mut waiting = self.offered;
        for part in [self.delivered, self.filtered, self.spooled].into_iter().chain(self.dropped) {
            waiting -= part;
        }
        waiting
    }

    /// Everything lost.
    #[must_use]
    pub fn lost(&self) -> Tally {
        self.dropped.iter().fold(Tally::default(), |mut sum, part| {
            sum += *part;
            sum
        })
    }

    fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        self.spooled += other.spooled;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

impl Account {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Every change below leaves the pages whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, tallies: &Tallies, change: impl Fn(&mut Page, Tally)) {
        let mut pages = self.pages();
        if pages.is_closed {
            return;
        }
        for (id, tally) in tallies {
            if let Some((_, page)) = pages.closing.get_mut(id) {
                change(page, *tally);
                pages.close_if_settled(*id);
            } else {
                change(pages.points.entry(*id).or_default(), *tally);
            }
        }
    }

    /// The same, for what may come from a spool, where it then is no more.
    fn each_from(&self, tallies: &Tallies, origin: Origin, change: impl Fn(&mut Page, Tally)) {
        match origin {
            Origin::Memory => self.each(tallies, change),
            Origin::Spool => self.each(tallies, |page, tally| {
                page.spooled -= tally;
                change(page, tally);
            }),
            Origin::Earlier => {
                let mut pages = self.pages();
                if pages.is_closed {
                    return;
                }
                for tally in tallies.values() {
                    pages.earlier.spooled -= *tally;
                    change(&mut pages.earlier, *tally);
                }
            }
        }
    }

    /// A batch is on its way.
    pub fn offered(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.offered += tally);
    }

    /// A batch arrived.
    pub fn delivered(&self, tallies: &Tallies) {
        self.delivered_from(tallies, Origin::Memory);
    }

    /// A batch arrived.
    pub fn delivered_from(&self, tallies: &Tallies, origin: Origin) {
        self.each_from(tallies, origin, |page, tally| page.delivered += tally);
    }

    /// A batch is on disk now.
    pub fn spooled(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.spooled += tally);
    }

    /// An earlier run left this on disk.
    pub fn recovered(&self, tallies: &Tallies) {
        let mut pages = self.pages();
        for tally in tallies.values() {
            pages.earlier.offered += *tally;
            pages.earlier.spooled += *tally;
        }
    }

    /// Files of an earlier run made no sense at as many places.
    pub fn damaged(&self, places: u64) {
        self.pages().damaged += places;
    }

    /// A filter keeps this away.
    pub fn filtered(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.filtered += tally);
    }

    /// A batch is lost.
    pub fn dropped(&self, tallies: &Tallies, loss: Loss) {
        self.dropped_from(tallies, loss, Origin::Memory);
    }

    /// A batch is lost.
    pub fn dropped_from(&self, tallies: &Tallies, loss: Loss, origin: Origin) {
        self.each_from(tallies, origin, |page, tally| page.dropped[loss as usize] += tally);
    }

    /// Everything that still waits in memory is lost, and nothing is added any more: the worker was left behind.
    pub fn give_up(&self) {
        let mut pages = self.pages();
        if !pages.is_closed {
            let Pages { points, closing, .. } = &mut *pages;
            for page in points.values_mut().chain(closing.values_mut().map(|(_, page)| page)) {
                let waiting = page.waiting();
                page.dropped[Loss::Stopped as usize] += waiting;
            }
        }
        pages.is_closed = true;
    }

    /// Sums up the pages of points that are gone for good.
    pub fn close(&self, gone: &[(PointId, Role, Direction)]) {
        let mut pages = self.pages();
        for (id, role, direction) in gone {
            if let Some(page) = pages.points.remove(id) {
                pages.closing.insert(*id, ((*role, *direction), page));
                pages.close_if_settled(*id);
            }
        }
    }

    /// A copy of all pages.
    pub fn snapshot(&self) -> Pages {
        self.pages().clone()
    }

    /// The sum of all pages.
    pub fn total(&self) -> Page {
        self.pages().total()
    }
}

impl Pages {
    /// Sums up the page of a point that is gone, once nothing of it is under way.
    fn close_if_settled(&mut self, id: PointId) {
        let is_settled = |page: &Page| [page.waiting(), page.spooled] == [Tally::default(); 2];
        if let Some((_, page)) = self.closing.get(&id)
            && is_settled(page)
            && let Some((key, page)) = self.closing.remove(&id)
        {
            self.closed.entry(key).or_default().add(&page);
        }
    }

    /// What became of what an earlier run left in the spool.
    pub fn earlier(&self) -> Page {
        self.earlier
    }

    /// Places in files of an earlier run that made no sense: nobody knows what was there.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// What became of records of one point.
    pub fn of(&self, id: PointId) -> Page {
        self.points.get(&id).copied().unwrap_or_default()
    }

    /// What became of records of points that are gone for good.
    pub fn of_closed(&self, role: Role, direction: Direction) -> Page {
        let mut sum = self.closed.get(&(role, direction)).copied().unwrap_or_default();
        for (key, page) in self.closing.values() {
            if *key == (role, direction) {
                sum.add(page);
            }
        }
        sum
    }

    /// The sum of all pages but that of an earlier run. Packets of different roles may be the same ones: only records are
    /// to be read as a number of things.
    pub fn total(&self) -> Page {
        let mut total = Page::default();
        let closing = self.closing.values().map(|(_, page)| page);
        for page in self.points.values().chain(self.closed.values()).chain(closing) {
            total.add(page);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::Count;

    use super::*;

    fn tallies(id: u32, records: u64) -> Tallies {
        let count = Count { packets: 2 * records, bytes: 200 * records };
        Tallies::from([(PointId(id), Tally { records, count })])
    }

    #[test]
    fn what_was_offered_is_delivered_lost_by_name_or_waiting() {
        let account = Account::default();
        account.offered(&tallies(1, 10));
        account.delivered(&tallies(1, 4));
        account.dropped(&tallies(1, 3), Loss::QueueFull);
        let page = account.snapshot().of(PointId(1));
        assert_eq!((page.waiting().records, page.waiting().count.packets), (3, 6));
        assert_eq!(page.lost().records, 3);
        account.give_up();
        let page = account.snapshot().of(PointId(1));
        assert_eq!((page.waiting().records, page.dropped[Loss::Stopped as usize].records), (0, 3));
        // What the abandoned worker still manages to write does not make more of it.
        account.delivered(&tallies(1, 3));
        assert_eq!(account.total().delivered.records, 4);
    }

    #[test]
    fn points_that_are_gone_stay_in_the_sum_of_their_role() {
        let account = Account::default();
        account.offered(&tallies(1, 5));
        account.offered(&tallies(2, 7));
        account.close(&[
            (PointId(1), Role::PodEdge, Direction::Ingress),
            (PointId(9), Role::Other, Direction::Egress),
        ]);
        let pages = account.snapshot();
        assert_eq!(pages.of(PointId(1)), Page::default());
        assert_eq!(pages.of_closed(Role::PodEdge, Direction::Ingress).offered.records, 5);
        assert_eq!(pages.total().offered.records, 12);
    }
}
