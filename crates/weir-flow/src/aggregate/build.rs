//! [`Builder`]: makes records of entries, with direction, points and processes.

use std::sync::Arc;

use super::{entry::Entry, interfaces::Interfaces, key::Way};
use crate::{
    Count, Counters, Detail, Direction, End, EndReason, Endpoint, Identity, Initiator, Monotonic,
    ProcessLookup, Quality, Record, Tick, Traffic,
    initiator::{Evidence, Listeners},
    outcome::{Answers, Outcome},
};

/// What it takes to make a record of an entry.
#[derive(Clone, Copy)]
pub(super) struct Builder<'a> {
    pub(super) interfaces: &'a Interfaces,
    pub(super) listeners: &'a Listeners,
    pub(super) processes: Option<&'a dyn ProcessLookup>,
    /// Time of the first tick, if there was one: what began later was seen from its beginning.
    pub(super) started: Option<Monotonic>,
    /// Now.
    pub(super) tick: Tick,
    /// Whether packets may be missing where they leave, because they were counted where they came in.
    pub(super) is_deduplicated: bool,
}

impl Builder<'_> {
    /// The way from the side that opened the flow. Until the first record any better reason wins; after it, only proof
    /// turns a flow round.
    pub(super) fn direction(&self, entry: &Entry) -> (Way, Initiator) {
        if entry.initiator == Some(Initiator::Proven) {
            return (entry.forward, Initiator::Proven);
        }
        let [canonical, reverse] = &entry.ways;
        let was_running = self.started.is_some_and(|started| entry.first > started);
        let evidence = Evidence {
            tuple: entry.key.tuple,
            openings: [canonical.openings(), reverse.openings()],
            had_syn: [canonical.had_syn(), reverse.had_syn()],
            opener: entry.opener,
            opener_is_certain: was_running && !entry.is_tied && !entry.is_tcp(),
            went_one_way: entry.ways[entry.opener.opposite().index()].count() == Count::default(),
        };
        let (way, initiator) = evidence.weigh(self.listeners);
        match entry.initiator {
            Some(told) if initiator != Initiator::Proven && (way != entry.forward || told < initiator) => {
                (entry.forward, told)
            }
            _ => (way, initiator),
        }
    }

    /// What a flow is to people.
    pub(super) fn record(
        &self,
        entry: &Entry,
        (forward, initiator): (Way, Initiator),
        end_reason: Option<EndReason>,
    ) -> Record {
        let point_of = |way| self.interfaces.point(entry.key.interface(), entry.key.direction(way));
        let endpoint = |way: Way| {
            let (tuple, owner) = (entry.key.tuple_of(way), entry.owners[way.index()]);
            let end = End { owner, tuple, point: point_of(way) };
            let process = self.processes.and_then(|processes| processes.process(&end));
            let port = if tuple.has_ports() { tuple.source_port() } else { 0 };
            Endpoint { address: tuple.source(), port, owner, process, identity: Identity::default() }
        };
        let start = if entry.is_dated { entry.start } else { self.tick.wall_of(entry.first) };
        let tuple = entry.key.tuple_of(forward);
        let total = counters(forward, |way| entry.ways[way.index()].total());
        let answers = self.answers(entry, forward);
        Record {
            tuple,
            source: endpoint(forward),
            destination: endpoint(forward.opposite()),
            point: Arc::clone(point_of(forward)),
            delta: counters(forward, |way| entry.ways[way.index()].delta()),
            total,
            start,
            end: start + (entry.last() - entry.first),
            first: entry.first,
            last: entry.last(),
            initiator,
            end_reason,
            detail: Detail::Flow,
            outcome: Outcome::of(&tuple, &total, end_reason, answers),
            quality: Quality::default(),
            dns: None,
        }
    }

    /// Whether packets that answer the flow count at its interface.
    fn answers(&self, entry: &Entry, forward: Way) -> Answers {
        let (key, interfaces) = (&entry.key, self.interfaces);
        let [sent, answered] = [forward, forward.opposite()].map(|way| key.direction(way));
        if !interfaces.is_counted(key.interface(), answered) {
            return Answers::Uncertain;
        }
        // Where packets leave that came in at an interface of the same role, they are not counted again.
        let is_hidden = self.is_deduplicated
            && (sent, answered) == (Direction::Ingress, Direction::Egress)
            && interfaces.have_other_way_in(key.interface(), interfaces.point(key.interface(), sent).role);
        if is_hidden { Answers::Uncertain } else { Answers::Counted }
    }
}

/// Sorts the counters of both ways into forward and reverse.
pub(super) fn counters(forward: Way, of: impl Fn(Way) -> Traffic) -> Counters {
    Counters { forward: of(forward), reverse: of(forward.opposite()) }
}
