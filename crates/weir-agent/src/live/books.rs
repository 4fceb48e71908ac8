//! [`Books`]: what was counted at which observation point, and whether it adds up.

use std::{collections::HashMap, sync::Arc};

use weir_datapath::{
    flow::Drained,
    witness::{self, Class, Counted},
};
use weir_flow::{Count, Direction, Ledger, Point, PointId};

/// Ledgers since the start.
#[derive(Default)]
pub struct Books {
    points: HashMap<PointId, Entry>,
    total: Ledger,
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
pub struct Changes {
    /// To be made known before the flows of the drain are added.
    pub new: Vec<Arc<Point>>,
    /// To be forgotten after that.
    pub gone: Vec<PointId>,
}

/// What an interface counted itself while a point was counted.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The point.
    pub point: Arc<Point>,
    /// What its numbers mean.
    pub class: Class,
    /// The numbers.
    pub counted: Counted,
    /// What it had counted before.
    pub before: Count,
}

/// How many witnesses agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreements {
    /// Witnesses that must agree to the packet, and do.
    pub exact: usize,
    /// Witnesses that count something else.
    pub other: usize,
    /// What the others of the first kind say.
    pub alarms: Vec<String>,
}

impl Books {
    /// Adds a drain.
    pub fn add(&mut self, drained: &Drained) -> Changes {
        self.drains += 1;
        let mut changes = Changes::default();
        for (point, ledger) in drained.ledgers.iter().chain(&drained.unlisted) {
            self.unbalanced += u64::from(!ledger.is_balanced());
            self.total += *ledger;
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
    pub fn knows(&self, id: PointId) -> bool {
        self.points.get(&id).is_some_and(|entry| entry.is_open)
    }

    /// Everything that was counted anywhere.
    pub fn total(&self) -> &Ledger {
        &self.total
    }

    /// How often the ledger of a point did not balance in a drain: zero, or there is a bug.
    pub fn unbalanced(&self) -> u64 {
        self.unbalanced
    }

    /// Compares with what the interfaces counted themselves.
    pub fn agreements(&self, witnesses: &[Witness]) -> Agreements {
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
