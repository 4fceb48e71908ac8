//! [`Account`]: what became of the records that one consumer was offered, by observation point.
//!
//! At any time: offered = delivered + filtered + dropped (each under a name) + waiting. Points that are gone are summed
//! up by role and direction, so that an account does not grow for ever.

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
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::Rejected, Self::Stopped];

    /// The name in the ledger and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        }
    }
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
}

/// The account of one consumer. Shared: the pipeline offers, the worker delivers, others look.
#[derive(Debug, Default)]
pub struct Account(Mutex<Pages>);

/// The pages of an account.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    points: HashMap<PointId, Page>,
    closed: BTreeMap<(Role, Direction), Page>,
    /// Nothing is added any more.
    is_closed: bool,
}

impl Page {
    /// What has neither been delivered nor lost.
    #[must_use]
    pub fn waiting(&self) -> Tally {
        let mut waiting = self.offered;
        for part in [self.delivered, self.filtered].into_iter().chain(self.dropped) {
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
            change(pages.points.entry(*id).or_default(), *tally);
        }
    }

    /// A batch is on its way.
    pub fn offered(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.offered += tally);
    }

    /// A batch arrived.
    pub fn delivered(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.delivered += tally);
    }

    /// A filter keeps this away.
    pub fn filtered(&self, tallies: &Tallies) {
        self.each(tallies, |page, tally| page.filtered += tally);
    }

    /// A batch is lost.
    pub fn dropped(&self, tallies: &Tallies, loss: Loss) {
        self.each(tallies, |page, tally| page.dropped[loss as usize] += tally);
    }

    /// Everything that still waits is lost, and nothing is added any more: the worker was left behind.
    pub fn give_up(&self) {
        let mut pages = self.pages();
        if !pages.is_closed {
            for page in pages.points.values_mut() {
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
                pages.closed.entry((*role, *direction)).or_default().add(&page);
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
    /// What became of records of one point.
    pub fn of(&self, id: PointId) -> Page {
        self.points.get(&id).copied().unwrap_or_default()
    }

    /// What became of records of points that are gone for good.
    pub fn of_closed(&self, role: Role, direction: Direction) -> Page {
        self.closed.get(&(role, direction)).copied().unwrap_or_default()
    }

    /// The sum of all pages. Packets of different roles may be the same ones: only records are to be read as a number
    /// of things.
    pub fn total(&self) -> Page {
        let mut total = Page::default();
        for page in self.points.values().chain(self.closed.values()) {
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
