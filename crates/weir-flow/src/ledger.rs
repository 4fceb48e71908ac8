//! The ledger: counters that prove nothing was lost.
//!
//! A [`Ledger`] says what one observation point saw and what became of it; a [`LedgerBook`] keeps them all since the
//! start. Sums never mix roles: the same packet may pass a pod's edge, a bridge and an uplink.

use std::{
    collections::BTreeMap,
    ops::{Add, AddAssign},
    sync::Arc,
};

use crate::{Balance, Direction, Point, PointId, Role};

/// Packets and bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Everything that one observation point saw over some time, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Every packet that passed.
    pub seen: Count,
    /// Packets as the kernel handed them over.
    pub skbs: u64,
    /// Σ `skb->len`.
    pub skb_bytes: u64,
    /// Σ of the flows that were read.
    pub flows: Count,
    /// Rejected by the filter.
    pub filtered: Count,
    /// Counted at another observation point.
    pub duplicate: Count,
    /// Neither IPv4 nor IPv6.
    pub non_ip: Count,
    /// IP whose header is cut short or contradicts itself.
    pub parse_error: Count,
    /// No room in the kernel's table: known in total only.
    pub overflow: Count,
}

/// Ledgers of all points since the start.
#[derive(Clone, Debug, Default)]
pub struct LedgerBook {
    pages: BTreeMap<PointId, Page>,
    /// Points that are gone, by role and direction.
    closed: BTreeMap<(Role, Direction), Ledger>,
    unlisted: Ledger,
}

#[derive(Clone, Debug)]
struct Page {
    point: Arc<Point>,
    ledger: Ledger,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.skbs += other.skbs;
        self.skb_bytes += other.skb_bytes;
        self.flows += other.flows;
        self.filtered += other.filtered;
        self.duplicate += other.duplicate;
        self.non_ip += other.non_ip;
        self.parse_error += other.parse_error;
        self.overflow += other.overflow;
    }
}

impl Ledger {
    /// Everything that has a name: flows and what was left out of them.
    #[must_use]
    pub fn accounted(&self) -> Count {
        self.flows + self.filtered + self.duplicate + self.non_ip + self.parse_error + self.overflow
    }

    /// Whether every packet and byte that was seen is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.seen == self.accounted()
    }
}

impl LedgerBook {
    /// Makes a point known, or changes its name or role. Its ledger so far goes with it to a new role.
    pub fn set_point(&mut self, point: Arc<Point>) {
        let ledger = self.pages.get(&point.id).map_or_else(Ledger::default, |page| page.ledger);
        self.pages.insert(point.id, Page { point, ledger });
    }

    /// Forgets a point; what it saw stays in the totals of its role.
    pub fn remove_point(&mut self, id: PointId) {
        if let Some(Page { point, ledger }) = self.pages.remove(&id) {
            *self.closed.entry((point.role, point.direction)).or_default() += ledger;
        }
    }

    /// Adds what a point saw since the last time. What an unknown point saw counts as unlisted.
    pub fn add(&mut self, id: PointId, ledger: &Ledger) {
        match self.pages.get_mut(&id) {
            Some(page) => page.ledger += *ledger,
            None => self.unlisted += *ledger,
        }
    }

    /// Adds what was seen at interfaces that no point stands for.
    pub fn add_unlisted(&mut self, ledger: &Ledger) {
        self.unlisted += *ledger;
    }

    /// Every point with what it saw so far, in the order in which they were numbered.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Point>, &Ledger)> {
        self.pages.values().map(|page| (&page.point, &page.ledger))
    }

    /// What a point saw so far.
    pub fn get(&self, id: PointId) -> Option<&Ledger> {
        self.pages.get(&id).map(|page| &page.ledger)
    }

    /// What was seen at interfaces that no point stands for.
    pub const fn unlisted(&self) -> &Ledger {
        &self.unlisted
    }

    /// What the points of one role and direction saw together, those included that are gone.
    pub fn total(&self, role: Role, direction: Direction) -> Ledger {
        let mut total = self.closed.get(&(role, direction)).copied().unwrap_or_default();
        for Page { point, ledger } in self.pages.values() {
            if (point.role, point.direction) == (role, direction) {
                total += *ledger;
            }
        }
        total
    }

    /// Totals of the roles of which anything was seen, both directions together, in the order that totals prefer.
    /// Loopback shows every packet in both directions: take one of them ([`LedgerBook::total`]) to count packets.
    pub fn totals(&self) -> impl Iterator<Item = (Role, Ledger)> {
        let total_of = |role| {
            let mut total = self.total(role, Direction::Ingress);
            total += self.total(role, Direction::Egress);
            (role, total)
        };
        Role::ALL.into_iter().map(total_of).filter(|(_, total)| *total != Ledger::default())
    }

    /// Σ of the flows that were read at the known points.
    pub fn flows(&self) -> Count {
        let pages = self.pages.values().map(|page| &page.ledger);
        pages.chain(self.closed.values()).fold(Count::default(), |sum, ledger| sum + ledger.flows)
    }

    /// Whether a flow table that was given all of them still has them all, in flows or in coarser rows.
    pub fn agrees_with(&self, balance: &Balance) -> bool {
        self.flows() == balance.table + balance.ended + balance.folded
    }

    /// Whether at every point every packet and byte that was seen is accounted for.
    pub fn is_balanced(&self) -> bool {
        self.all().all(Ledger::is_balanced)
    }

    fn all(&self) -> impl Iterator<Item = &Ledger> {
        let pages = self.pages.values().map(|page| &page.ledger);
        pages.chain(self.closed.values()).chain([&self.unlisted])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn count(packets: u64) -> Count {
        Count { packets, bytes: 100 * packets }
    }

    fn seen(flows: u64, overflow: u64) -> Ledger {
        Ledger {
            seen: count(flows + overflow),
            flows: count(flows),
            overflow: count(overflow),
            ..Ledger::default()
        }
    }

    fn book() -> LedgerBook {
        let mut book = LedgerBook::default();
        for (number, (role, direction)) in [
            (Role::Uplink, Direction::Ingress),
            (Role::Uplink, Direction::Egress),
            (Role::PodEdge, Direction::Ingress),
        ]
        .into_iter()
        .enumerate()
        {
            let id = PointId(u32::try_from(number).unwrap());
            let interface = "eth0".into();
            book.set_point(Arc::new(Point { id, netns: None, ifindex: 1, interface, direction, role }));
        }
        book
    }

    #[test]
    fn totals_never_mix_roles() {
        let mut book = book();
        book.add(PointId(0), &seen(1, 2));
        book.add(PointId(0), &seen(10, 0));
        book.add(PointId(1), &seen(100, 0));
        book.add(PointId(2), &seen(1000, 0));
        assert_eq!(book.total(Role::Uplink, Direction::Ingress), seen(11, 2));
        assert_eq!(
            book.totals().collect::<Vec<_>>(),
            [(Role::PodEdge, seen(1000, 0)), (Role::Uplink, seen(111, 2))]
        );
        assert_eq!(book.flows(), count(1111));
        assert!(book.is_balanced());
        let balance =
            Balance { table: count(1000), ended: count(100), folded: count(11), ..Balance::default() };
        assert!(book.agrees_with(&balance));
        assert!(!book.agrees_with(&Balance { folded: count(10), ..balance }));
    }

    #[test]
    fn what_is_not_accounted_for_unbalances_the_book_even_after_its_point_is_gone() {
        let mut book = book();
        book.add(PointId(1), &Ledger { non_ip: count(1), ..seen(5, 0) });
        assert!(!book.is_balanced());
        book.remove_point(PointId(1));
        assert!(!book.is_balanced());
        assert_eq!(book.get(PointId(1)), None);
        assert_eq!(book.total(Role::Uplink, Direction::Egress).flows, count(5));
    }

    #[test]
    fn what_no_point_stands_for_is_unlisted() {
        let mut book = book();
        book.add(PointId(77), &seen(3, 0));
        book.add_unlisted(&seen(4, 0));
        assert_eq!((book.unlisted(), book.flows()), (&seen(7, 0), count(0)));
        assert!(book.is_balanced());
        assert_eq!(book.totals().count(), 0);
    }

    #[test]
    fn a_point_that_changes_its_role_takes_its_ledger_along() {
        let mut book = book();
        book.add(PointId(0), &seen(3, 0));
        let (point, _) = book.iter().next().map(|(point, ledger)| (Arc::clone(point), *ledger)).unwrap();
        book.set_point(Arc::new(Point { role: Role::Bridge, ..(*point).clone() }));
        assert_eq!(book.totals().collect::<Vec<_>>(), [(Role::Bridge, seen(3, 0))]);
    }
}
