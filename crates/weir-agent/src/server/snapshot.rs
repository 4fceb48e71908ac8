//! [`Snapshot`]: everything that answers and metrics tell, taken in one moment.
//!
//! Flow table, ledgers and accounts are read under one lock, so their sums fit together to the byte.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use weir_flow::{Count, Direction, Ledger, Point, Role, Wall};

use super::Answers;
use crate::{
    batch::Tally,
    dns::DnsState,
    enrich::{Lost, Miss},
    kubernetes::Status,
    ledger::{Page, Pages},
    live::Drains,
    outlet::OutletState,
    pipeline::Heartbeat,
};

/// The agent in one moment.
pub(super) struct Snapshot {
    pub(super) time: Wall,
    pub(super) heartbeat: Heartbeat,
    /// Every point; those that are gone and were summed up have no interface.
    pub(super) places: Vec<Place>,
    pub(super) total: Ledger,
    pub(super) unbalanced: u64,
    pub(super) passage: Pages,
    pub(super) outlets: Vec<(OutletState, Pages)>,
    pub(super) table: Table,
    pub(super) drains: Drains,
    /// What is known of the cluster.
    pub(super) kubernetes: Status,
    /// What enrichers did not find.
    pub(super) misses: Vec<Miss>,
    /// What enrichers lost.
    pub(super) losses: Vec<Lost>,
    /// What is known of DNS, if messages are read.
    pub(super) dns: Option<DnsState>,
    /// Interfaces that are attached, and how many should be.
    pub(super) progress: (usize, usize),
}

/// The flow table.
pub(super) struct Table {
    pub(super) flows: usize,
    pub(super) capacity: usize,
    pub(super) bytes: usize,
    pub(super) folded: Count,
}

/// A point, or all points of a role and direction that are gone.
pub(super) struct Place {
    pub(super) point: Option<Arc<Point>>,
    pub(super) role: Role,
    pub(super) direction: Direction,
    pub(super) is_open: bool,
    pub(super) ledger: Ledger,
    pub(super) passage: Page,
    /// In the order of `outlets`.
    pub(super) consumers: Vec<Page>,
}

impl Snapshot {
    /// Looks at everything.
    pub(super) fn take(answers: &Answers) -> Self {
        let pipeline = &answers.pipeline;
        // In the order in which a tick takes them.
        let held = pipeline.outlets();
        let state = pipeline.counted.lock();
        let passage = pipeline.passage.snapshot();
        let outlets: Vec<_> =
            held.iter().map(|outlet| (outlet.state(), outlet.account().snapshot())).collect();
        let points = state.books.points();
        let closed: Vec<_> = state.books.closed().collect();
        let (total, unbalanced, drains) =
            (*state.books.total(), state.books.unbalanced(), state.drains.clone());
        let table = Table {
            flows: state.table.len(),
            capacity: state.table.capacity(),
            bytes: state.table.memory_bytes(),
            folded: state.table.folded(),
        };
        drop(state);
        drop(held);
        let open = points.into_iter().map(|(point, ledger, is_open)| {
            let id = point.id;
            Place {
                role: point.role,
                direction: point.direction,
                point: Some(point),
                is_open,
                ledger,
                passage: passage.of(id),
                consumers: outlets.iter().map(|(_, pages)| pages.of(id)).collect(),
            }
        });
        let gone = closed.into_iter().map(|(role, direction, ledger)| Place {
            point: None,
            role,
            direction,
            is_open: false,
            ledger,
            passage: passage.of_closed(role, direction),
            consumers: outlets.iter().map(|(_, pages)| pages.of_closed(role, direction)).collect(),
        });
        let places = open.chain(gone).collect();
        Self {
            time: now(),
            heartbeat: pipeline.heartbeat(),
            places,
            total,
            unbalanced,
            passage,
            outlets,
            table,
            drains,
            kubernetes: answers.kubernetes.status(),
            misses: pipeline.enrichers.misses(),
            losses: pipeline.enrichers.losses(),
            dns: answers.dns.as_ref().map(|watch| watch.state()),
            progress: pipeline.progress.get(),
        }
    }

    /// Whether everything is accounted for, at every point and up to every consumer.
    pub(super) fn is_balanced(&self) -> bool {
        let earlier = self.outlets.iter().map(|(_, pages)| pages.earlier());
        self.unbalanced == 0
            && self.places.iter().all(|place| place.is_balanced(&self.outlets))
            && earlier.into_iter().all(|page| page.waiting() == Tally::default())
    }

    /// Records that some consumer should have had and did not get.
    pub(super) fn dropped_records(&self) -> u64 {
        let lost = |pages: &Pages| pages.total().lost().records + pages.earlier().lost().records;
        self.outlets.iter().map(|(_, pages)| lost(pages)).sum()
    }

    /// Whether the agent counts and hands on: something is attached, or nothing is to be, and intervals end.
    pub(super) fn is_ready(&self) -> bool {
        let (attached, wanted) = self.progress;
        (attached > 0 || wanted == 0) && self.heartbeat.last.is_some() && !self.heartbeat.is_over
    }
}

impl Place {
    /// What is in flows but not in records yet.
    pub(super) fn held(&self) -> Count {
        let (flows, told) = (self.ledger.flows, self.passage.offered.count);
        Count {
            packets: flows.packets.saturating_sub(told.packets),
            bytes: flows.bytes.saturating_sub(told.bytes),
        }
    }

    /// Whether nothing is missing and nothing is there twice.
    pub(super) fn is_balanced(&self, outlets: &[(OutletState, Pages)]) -> bool {
        let told = self.passage.offered.count;
        let mut offered = self.passage.offered;
        offered -= self.passage.filtered;
        let is_complete = |(page, (outlet, _)): (&Page, &(OutletState, Pages))| {
            let mut known = page.waiting();
            for part in [page.delivered, page.filtered, page.spooled].into_iter().chain(page.dropped) {
                known += part;
            }
            known == page.offered && (outlet.is_late || page.offered == offered)
        };
        self.ledger.is_balanced()
            && told + self.held() == self.ledger.flows
            && self.consumers.iter().zip(outlets).all(is_complete)
    }
}

/// This moment.
pub(super) fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
