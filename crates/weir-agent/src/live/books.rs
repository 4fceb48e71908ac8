//! [`Books`]: what was counted at which observation point, and whether it adds up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weir_datapath::{
    flow::Drained,
    witness::{self, Class, Counted},
};
use weir_flow::{Count, Direction, Ledger, Point, PointId, Record, Role};

/// Points that are gone and still have a ledger of their own; those gone before are summed up.
const MOST_CLOSED: usize = 1024;

/// Ledgers since the start.
#[derive(Default)]
pub struct Books {
    points: HashMap<PointId, Entry>,
    /// Points that are gone, summed up by role and direction.
    closed: BTreeMap<(Role, Direction), Ledger>,
    total: Ledger,
    roles: BTreeMap<Role, Ledger>,
    drains: u64,
    unbalanced: u64,
}

struct Entry {
    point: Arc<Point>,
    /// The other direction of the interface.
    partner: Option<PointId>,
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
            *self.roles.entry(point.role).or_default() += *ledger;
            let entry = self.points.entry(point.id).or_insert_with(|| {
                changes.new.push(Arc::clone(point));
                let (point, ledger) = (Arc::clone(point), Ledger::default());
                Entry { point, partner: None, ledger, drain: 0, is_open: true }
            });
            entry.ledger += *ledger;
            entry.drain = self.drains;
        }
        self.pair(&changes.new);
        for (id, entry) in &mut self.points {
            if entry.is_open && entry.drain != self.drains {
                entry.is_open = false;
                changes.gone.push(*id);
            }
        }
        changes
    }

    /// Lets the two directions of new interfaces find each other.
    fn pair(&mut self, new: &[Arc<Point>]) {
        for point in new {
            let is_partner = |other: &&Arc<Point>| {
                other.ifindex == point.ifindex
                    && other.netns == point.netns
                    && other.direction != point.direction
            };
            let partner = new.iter().find(is_partner).map(|other| other.id);
            if let Some(entry) = self.points.get_mut(&point.id) {
                entry.partner = partner;
            }
        }
    }

    /// Sums up ledgers of points that are gone, except for the youngest thousand, and says which. To be called now and
    /// then by whoever runs for long.
    pub fn compact(&mut self) -> Vec<(PointId, Role, Direction)> {
        let mut gone: Vec<(u64, PointId)> = self
            .points
            .iter()
            .filter(|(_, entry)| !entry.is_open)
            .map(|(id, entry)| (entry.drain, *id))
            .collect();
        let Some(surplus) = gone.len().checked_sub(MOST_CLOSED).filter(|surplus| *surplus > 0) else {
            return Vec::new();
        };
        gone.sort_unstable();
        let mut compacted = Vec::with_capacity(surplus);
        for (_, id) in gone.into_iter().take(surplus) {
            let Some(Entry { point, ledger, .. }) = self.points.remove(&id) else { continue };
            *self.closed.entry((point.role, point.direction)).or_default() += ledger;
            compacted.push((id, point.role, point.direction));
        }
        compacted
    }

    /// Points at which the forward and the reverse direction of a record were counted.
    pub fn places_of(&self, record: &Record) -> [PointId; 2] {
        let id = record.point.id;
        [record.point.direction, record.reverse_direction()].map(|direction| match self.points.get(&id) {
            Some(entry) if entry.point.direction != direction => entry.partner.unwrap_or(id),
            _ => id,
        })
    }

    /// Every point with its ledger, and whether it is still counted; in the order in which they were numbered.
    pub fn points(&self) -> Vec<(Arc<Point>, Ledger, bool)> {
        let entries = self.points.values();
        let mut points: Vec<_> =
            entries.map(|entry| (Arc::clone(&entry.point), entry.ledger, entry.is_open)).collect();
        points.sort_by_key(|(point, ..)| point.id);
        points
    }

    /// Ledgers of points that are gone and were summed up.
    pub fn closed(&self) -> impl Iterator<Item = (Role, Direction, Ledger)> {
        self.closed.iter().map(|((role, direction), ledger)| (*role, *direction, *ledger))
    }

    /// Whether a drain has named this point.
    pub fn knows(&self, id: PointId) -> bool {
        self.points.get(&id).is_some_and(|entry| entry.is_open)
    }

    /// Everything that was counted anywhere.
    pub fn total(&self) -> &Ledger {
        &self.total
    }

    /// The same by role. A packet that passes interfaces of several roles is counted for each of them.
    pub fn roles(&self) -> impl Iterator<Item = (Role, &Ledger)> {
        self.roles.iter().filter(|(_, ledger)| ledger.seen.packets > 0).map(|(role, ledger)| (*role, ledger))
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
