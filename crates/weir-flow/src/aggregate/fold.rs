//! [`Folds`]: the coarse rows that take the flows for which there is no room.

use std::{net::IpAddr, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weir_packet::{Tuple, ipv4_words, ipv6_words};

use super::{
    TableConfig,
    entry::{Counted, seconds},
    interfaces::{Interfaces, Location},
};
use crate::{
    Count, Counters, Detail, EndReason, Endpoint, Identity, Initiator, Monotonic, Observation, Outcome,
    Point, PointId, Quality, Record, SocketOwner, Tick, Traffic, Wall,
};

/// Most rows that tell protocols apart. Past that, rows are by point alone, with [`ANY_PROTOCOL`].
const MAXIMUM_ROWS: usize = 4096;

/// Number that IANA reserves: stands for any protocol in rows that do not tell them apart.
const ANY_PROTOCOL: u8 = 255;

/// Sums by point, protocol and family.
#[derive(Default)]
pub(super) struct Folds {
    rows: HashMap<FoldKey, Row, RandomState>,
    total: Count,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FoldKey {
    point: PointId,
    protocol: u8,
    is_ipv6: bool,
}

struct Row {
    point: Arc<Point>,
    counted: Counted,
    first: Monotonic,
    start: Option<Wall>,
    exported_s: u32,
    is_changed: bool,
}

impl Folds {
    /// Adds an observation at `point`.
    pub(super) fn add(&mut self, observation: &Observation, point: &Arc<Point>) {
        let (protocol, is_ipv6) = (observation.tuple.protocol(), observation.tuple.is_ipv6());
        let mut key = FoldKey { point: observation.point, protocol, is_ipv6 };
        if self.rows.len() >= MAXIMUM_ROWS && !self.rows.contains_key(&key) {
            (key.protocol, key.is_ipv6) = (ANY_PROTOCOL, false);
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            point: Arc::clone(point),
            counted: Counted::default(),
            first: observation.first,
            start: None,
            exported_s: seconds(observation.first),
            is_changed: false,
        });
        row.counted.add(&observation.traffic, observation.last);
        row.is_changed = true;
        if row.start.is_none() {
            row.first = row.first.min(observation.first);
        }
        self.total += observation.traffic.count();
    }

    /// Everything that was ever folded.
    pub(super) const fn total(&self) -> Count {
        self.total
    }

    /// Passes on a record of every row that changed or ended, and drops what ended.
    pub(super) fn tick(
        &mut self,
        tick: &Tick,
        config: &TableConfig,
        interfaces: &Interfaces,
        all: Option<EndReason>,
        receive: &mut dyn FnMut(Record),
    ) {
        self.rows.retain(|key, row| {
            let end_reason = match interfaces.locate(key.point) {
                Some(Location { interface, direction, .. }) => {
                    // It may have been renamed.
                    row.point = Arc::clone(interfaces.point(interface, direction));
                    let is_idle = tick.monotonic - row.counted.last >= config.other_idle;
                    is_idle.then_some(EndReason::Idle).or(all)
                }
                None => Some(EndReason::Shutdown),
            };
            if end_reason.is_some()
                || row.is_changed && config.emit.is_due(row.exported_s, tick, config.active)
            {
                receive(row.record(*key, end_reason, tick));
                row.counted.settle();
                row.is_changed = false;
                row.exported_s = seconds(tick.monotonic);
            }
            end_reason.is_none()
        });
    }

    /// Bytes in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.allocation_size()
    }
}

impl Row {
    fn record(&mut self, key: FoldKey, end_reason: Option<EndReason>, tick: &Tick) -> Record {
        let (first, last) = (self.first, self.counted.last);
        let start = *self.start.get_or_insert_with(|| tick.wall_of(first));
        let both = |forward| Counters { forward, reverse: Traffic::default() };
        let tuple = unspecified(key);
        let endpoint = |address: IpAddr| Endpoint {
            address,
            port: 0,
            owner: SocketOwner::default(),
            process: None,
            identity: Identity::default(),
        };
        Record {
            tuple,
            source: endpoint(tuple.source()),
            destination: endpoint(tuple.destination()),
            point: Arc::clone(&self.point),
            delta: both(self.counted.delta()),
            total: both(self.counted.total()),
            start,
            end: start + (last - first),
            first,
            last,
            initiator: Initiator::LowerPort,
            end_reason,
            detail: Detail::Folded,
            outcome: Outcome::default(),
            quality: Quality::default(),
            dns: None,
        }
    }
}

/// A tuple without addresses and ports.
fn unspecified(key: FoldKey) -> Tuple {
    let address = if key.is_ipv6 { ipv6_words([0; 16]) } else { ipv4_words([0; 4]) };
    Tuple::new(address, address, weir_packet::Details::new(key.is_ipv6, key.protocol))
}
