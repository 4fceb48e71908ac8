//! [`Books`]: what was counted at which observation point, and whether it adds up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weir_datapath::{
    flow::Drained,
    witness::{self, Class, Counted},
};
use weir_flow::{Count, Direction, Ledger, Point, PointId, Role};

/// Ledgers since the start.
#[derive(Default)]
pub(crate) struct Books {
    points: HashMap<PointId, Entry>,
    total: Ledger,
    roles: BTreeMap<Role, Ledger>,
    drains: u64,
    unbalanced: u64,
}

struct Entry {
    ledger: Ledger,
    /// The drain that named the point last.
    drain: u64,
    is_open: bool,
}

/// Points that a drain named for the first time, and those that it did not name any more.
#[derive(Default)]
pub(crate) struct Changes {
    /// To be made known before the flows of the drain are added.
    pub(crate) new: Vec<Arc<Point>>,
    /// To be forgotten after that.
    pub(crate) gone: Vec<PointId>,
}

/// What an interface counted itself while a point was counted.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    /// The point.
    pub(crate) point: Arc<Point>,
    /// What its numbers mean.
    pub(crate) class: Class,
    /// The numbers.
    pub(crate) counted: Counted,
    /// What it had counted before.
    pub(crate) before: Count,
}

/// How many witnesses agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreements {
    /// Witnesses that must agree to the packet, and do.
    pub(crate) exact: usize,
    /// Witnesses that count something else.
    pub(crate) other: usize,
    /// What the others of the first kind say.
    pub(crate) alarms: Vec<String>,
}

impl Books {
    /// Adds a drain.
    pub(crate) fn add(&mut self, drained: &Drained) -> Changes {
        self.drains += 1;
        let mut changes = Changes::default();
        for (point, ledger) in drained.ledgers.iter().chain(&drained.unlisted) {
            self.unbalanced += u64::from(!ledger.is_balanced());
            self.total += *ledger;
            *self.roles.entry(point.role).or_default() += *ledger;
            let entry = self.points.entry(point.id).or_insert_with(|| {
                changes.new.push(Arc::clone(point));
                Entry { ledger: Ledger::default(), drain: 0, is_open: true }
            });
            entry.ledger += *ledger;
            entry.drain = self.drains;
        }
        for (id, entry) in &mut self.points {
            if entry.is_open && entry.drain != self.drains {
                entry.is_open = false;
                changes.gone.push(*id);
            }
        }
        changes
    }

    /// Whether a drain has named this point.
    pub(crate) fn knows(&self, id: PointId) -> bool {
        self.points.get(&id).is_some_and(|entry| entry.is_open)
    }

    /// Everything that was counted anywhere.
    pub(crate) fn total(&self) -> &Ledger {
        &self.total
    }

    /// The same by role. A packet that passes interfaces of several roles is counted for each of them.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (Role, &Ledger)> {
        self.roles.iter().filter(|(_, ledger)| ledger.seen.packets > 0).map(|(role, ledger)| (*role, ledger))
    }

    /// How often the ledger of a point did not balance in a drain: zero, or there is a bug.
    pub(crate) fn unbalanced(&self) -> u64 {
        self.unbalanced
    }

    /// Compares with what the interfaces counted themselves.
    pub(crate) fn agreements(&self, witnesses: &[Witness]) -> Agreements {
        let mut agreements = Agreements::default();
        for witness in witnesses {
            let (point, class) = (&witness.point, witness.class);
            let ledger = self.points.get(&point.id).map(|entry| entry.ledger).unwrap_or_default();
            let agreement = witness::compare(class, point.direction, &ledger, &witness.counted);
            if agreement.is_alarm() {
                let (packets, bytes) = (agreement.skbs_difference, agreement.bytes_difference);
                let way = if point.direction == Direction::Ingress { "received" } else { "sent" };
                agreements.alarms.push(format!(
                    "{} says that it {way} {packets:+} packets, {bytes:+} bytes more than were counted",
                    point.interface
                ));
            } else if agreement.class.may_alarm() {
                agreements.exact += 1;
            } else {
                agreements.other += 1;
            }
        }
        agreements
    }
}
