//! [`FlowTable`]: turns observations into records, in bounded memory.
//!
//! CPUs and both directions are merged. Nothing that was observed is ever dropped: flows for which there is no room are
//! summed in coarser rows, so that at any time Σ observed = Σ table + ended + folded, in packets and bytes.
//!
//! The table has no clock: time comes in with observations and ticks. It does not filter and asks nobody; names come
//! from the [`ProcessLookup`] that it was given.

use std::{sync::Arc, time::Duration};

use weir_packet::Tuple;

use crate::{
    Count, Counters, EndReason, Listener, Monotonic, Observation, Point, PointId, ProcessLookup, Record,
    Tick, initiator::Listeners,
};
use build::Builder;
use entry::{Entry, Stage, seconds};
pub(crate) use entry::{FIN, RST, SYN};
use fold::Folds;
use interfaces::Interfaces;
use key::Key;
use store::Store;

mod build;
mod entry;
mod fold;
mod interfaces;
pub(crate) mod key;
mod store;
#[cfg(test)]
mod tests;

/// How a [`FlowTable`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Most bytes that flows and their index may take. Reserved at once, used as flows come.
    pub memory_bytes: usize,
    /// Silence after which a TCP flow is over.
    pub tcp_idle: Duration,
    /// Silence after which any other flow is over.
    pub other_idle: Duration,
    /// Longest time that a flow with traffic goes without a record, where not every tick yields one.
    pub active: Duration,
    /// Which flows yield a record at a tick.
    pub emit: Emit,
    /// Whether packets may be missing where they leave, because they were counted where they came in.
    pub is_deduplicated: bool,
}

/// Which flows yield a record at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// Those that changed or ended: for views.
    #[default]
    EveryTick,
    /// Those that ended, and those that changed and have had no record for the active timeout: for export.
    EndAndActive,
}

/// The flows that go on, and the sums of everything else.
pub struct FlowTable {
    config: TableConfig,
    store: Store,
    interfaces: Interfaces,
    folds: Folds,
    listeners: Listeners,
    processes: Option<Box<dyn ProcessLookup>>,
    /// Time of the first and of the last tick.
    ticks: Option<(Monotonic, Tick)>,
    observed: Count,
    ended: Count,
    unplaced: Count,
    /// Whether an interface was removed since the last tick.
    has_departures: bool,
    /// Flows with something to tell.
    changed: usize,
}

/// What one tick yielded.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// Flows that changed or ended, and folded rows.
    pub records: Vec<Record>,
    /// How the table stands after the tick.
    pub balance: Balance,
}

/// The books of a [`FlowTable`]: what came in, and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Everything that was ever observed.
    pub observed: Count,
    /// In flows that go on.
    pub table: Count,
    /// In flows that are over.
    pub ended: Count,
    /// In coarser rows, because there was no room.
    pub folded: Count,
    /// Observed at points that the table does not know: a mistake of the caller.
    pub unplaced: Count,
}

/// A flow in the table, as it stands.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    builder: Builder<'a>,
    entry: &'a Entry,
}

impl Default for TableConfig {
    /// 24 MiB (about 70,000 flows); TCP idle 60 s, others 15 s; active 60 s; each packet counted once.
    fn default() -> Self {
        Self {
            memory_bytes: 24 << 20,
            tcp_idle: Duration::from_mins(1),
            other_idle: Duration::from_secs(15),
            active: Duration::from_mins(1),
            emit: Emit::EveryTick,
            is_deduplicated: true,
        }
    }
}

impl FlowTable {
    /// An empty table.
    pub fn new(config: TableConfig) -> Self {
        Self {
            store: Store::new(config.memory_bytes),
            config,
            interfaces: Interfaces::default(),
            folds: Folds::default(),
            listeners: Listeners::default(),
            processes: None,
            ticks: None,
            observed: Count::default(),
            ended: Count::default(),
            unplaced: Count::default(),
            has_departures: false,
            changed: 0,
        }
    }

    /// Makes a point known, or changes its name or role. Must precede the first observation at that point.
    ///
    /// The two points of one interface (same namespace and index, opposite directions) find each other.
    pub fn set_point(&mut self, point: Arc<Point>) {
        self.interfaces.set(point);
    }

    /// Forgets a point whose last observations have been added. When both points of an interface are forgotten, its
    /// flows end at the next tick ([`EndReason::Shutdown`]).
    pub fn remove_point(&mut self, id: PointId) {
        self.interfaces.remove(id);
        self.has_departures = true;
    }

    /// Replaces what is known of listening sockets.
    pub fn set_listeners(&mut self, listeners: impl IntoIterator<Item = Listener>) {
        self.listeners = listeners.into_iter().collect();
    }

    /// Sets who is asked for the processes at the ends of records.
    pub fn set_processes(&mut self, processes: Box<dyn ProcessLookup>) {
        self.processes = Some(processes);
    }

    /// Adds what was counted of one flow at one point. The order of the observations between two ticks does not matter.
    ///
    /// A flow that is silent for the idle timeout, or closed and then opened anew, is another flow from then on.
    pub fn observe(&mut self, observation: &Observation) {
        let count = observation.traffic.count();
        self.observed += count;
        let Some(location) = self.interfaces.locate(observation.point) else {
            self.unplaced += count;
            return;
        };
        let (key, way) = Key::new(&observation.tuple, location);
        let idle = idle_timeout(&self.config, &key.tuple);
        let mut known = self.store.find(&key);
        if let Some(position) = known
            && !self.store.is_full()
            && let Some(reason) = self.store.get_mut(position).ended_before(observation, idle)
        {
            self.store.unlink(position);
            self.store.get_mut(position).stage = Stage::Over(reason);
            known = None;
        }
        let position = known.or_else(|| self.store.insert(Entry::new(key, way, observation)));
        if let Some(position) = position {
            let entry = self.store.get_mut(position);
            self.changed += usize::from(!entry.is_changed);
            entry.add(way, observation);
        } else {
            let point = self.interfaces.point(location.interface, location.direction);
            self.folds.add(observation, point);
        }
    }

    /// Ends what is over at this time and collects the records that [`TableConfig::emit`] asks for.
    pub fn tick(&mut self, tick: Tick) -> Drained {
        let mut records =
            Vec::with_capacity(if self.config.emit == Emit::EveryTick { self.changed } else { 0 });
        let balance = self.tick_each(tick, &mut |record| records.push(record));
        Drained { records, balance }
    }

    /// As [`FlowTable::tick`], but hands over one record after another. All records of a full table together take more
    /// memory than the table.
    pub fn tick_each(&mut self, tick: Tick, receive: &mut dyn FnMut(Record)) -> Balance {
        self.pass(tick, None, receive)
    }

    /// Ends all flows ([`EndReason::Shutdown`], unless they were over anyway).
    pub fn finish(&mut self, tick: Tick) -> Drained {
        let mut records = Vec::with_capacity(self.len());
        let balance = self.finish_each(tick, &mut |record| records.push(record));
        Drained { records, balance }
    }

    /// As [`FlowTable::finish`], but hands over one record after another.
    pub fn finish_each(&mut self, tick: Tick, receive: &mut dyn FnMut(Record)) -> Balance {
        self.pass(tick, Some(EndReason::Shutdown), receive)
    }

    /// Flows that go on, and those that are over but not yet told. Wall times of flows that no tick has seen are by the
    /// clocks of the last tick.
    pub fn flows(&self) -> impl Iterator<Item = Flow<'_>> {
        let (started, tick) = self.ticks.map_or((None, Tick::default()), |(first, last)| (Some(first), last));
        let builder = Builder {
            interfaces: &self.interfaces,
            listeners: &self.listeners,
            processes: self.processes.as_deref(),
            started,
            tick,
            is_deduplicated: self.config.is_deduplicated,
        };
        self.store.iter().map(move |entry| Flow { builder, entry })
    }

    /// Flows that go on, and those that are over but not yet told.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most flows at a time, as [`TableConfig::memory_bytes`] allows.
    pub fn capacity(&self) -> usize {
        self.store.capacity()
    }

    /// Bytes in use: of flows, those used at the busiest time, because that memory is kept.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.folds.memory_bytes()
    }

    /// Everything that was ever put into coarser rows for want of room.
    pub fn folded(&self) -> Count {
        self.folds.total()
    }

    /// Where everything is that was ever observed; equals the sum of all observations, or there is a bug.
    pub fn accounted(&self) -> Count {
        self.balance().accounted()
    }

    /// The books, by adding up the whole table (a few milliseconds for 64 k flows).
    pub fn balance(&self) -> Balance {
        self.balance_with(self.store.iter().fold(Count::default(), |sum, entry| sum + entry.count()))
    }

    fn balance_with(&self, table: Count) -> Balance {
        let (observed, ended, unplaced) = (self.observed, self.ended, self.unplaced);
        Balance { observed, table, ended, folded: self.folds.total(), unplaced }
    }

    /// One pass over everything: end, tell, release.
    fn pass(&mut self, tick: Tick, all: Option<EndReason>, receive: &mut dyn FnMut(Record)) -> Balance {
        let started = self.ticks.map(|(first, _)| first);
        let builder = Builder {
            interfaces: &self.interfaces,
            listeners: &self.listeners,
            processes: self.processes.as_deref(),
            started,
            tick,
            is_deduplicated: self.config.is_deduplicated,
        };
        let mut table = Count::default();
        for position in self.store.positions() {
            let entry = self.store.get_mut(position);
            if entry.stage == Stage::Free {
                continue;
            }
            entry.date(&tick);
            let is_gone = self.has_departures && self.interfaces.is_gone(entry.key.interface());
            let end_reason =
                end_reason(entry, &self.config, &tick).or(is_gone.then_some(EndReason::Shutdown)).or(all);
            let is_due =
                entry.is_changed && self.config.emit.is_due(entry.exported_s, &tick, self.config.active);
            if is_due || end_reason.is_some() {
                let (forward, initiator) = builder.direction(entry);
                receive(builder.record(entry, (forward, initiator), end_reason));
                self.changed -= usize::from(entry.is_changed);
                (entry.forward, entry.initiator) = (forward, Some(initiator));
                entry.settle(&tick);
            }
            let count = entry.count();
            if end_reason.is_none() {
                table += count;
                if entry.stage == Stage::Closing {
                    entry.stage = Stage::Lingering;
                }
            } else {
                self.ended += count;
                if !matches!(entry.stage, Stage::Over(_)) {
                    self.store.unlink(position);
                }
                self.store.release(position);
            }
        }
        self.folds.tick(&tick, &self.config, &self.interfaces, all, receive);
        if self.has_departures {
            self.interfaces.sweep();
            self.has_departures = false;
        }
        self.ticks = Some((started.unwrap_or(tick.monotonic), tick));
        self.balance_with(table)
    }
}

impl Flow<'_> {
    /// Addresses and ports from the source to the destination, as far as these can be told now.
    pub fn tuple(&self) -> Tuple {
        self.entry.key.tuple_of(self.builder.direction(self.entry).0)
    }

    /// Counters since the flow was first seen.
    pub fn total(&self) -> Counters {
        let (forward, _) = self.builder.direction(self.entry);
        build::counters(forward, |way| self.entry.ways[way.index()].total())
    }

    /// Last packet.
    pub fn last(&self) -> Monotonic {
        self.entry.last()
    }

    /// The whole record, with the counters since the last record that a tick made. Making it changes nothing.
    pub fn record(&self) -> Record {
        let end_reason = if let Stage::Over(reason) = self.entry.stage { Some(reason) } else { None };
        self.builder.record(self.entry, self.builder.direction(self.entry), end_reason)
    }
}

impl Balance {
    /// Where everything is.
    #[must_use]
    pub fn accounted(&self) -> Count {
        self.table + self.ended + self.folded + self.unplaced
    }

    /// Whether everything observed is somewhere.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.observed == self.accounted()
    }
}

impl Emit {
    /// Whether something that changed, and was last told of in second `exported_s`, yields a record.
    fn is_due(self, exported_s: u32, tick: &Tick, active: Duration) -> bool {
        match self {
            Self::EveryTick => true,
            Self::EndAndActive => {
                u64::from(seconds(tick.monotonic).saturating_sub(exported_s)) >= active.as_secs()
            }
        }
    }
}

fn idle_timeout(config: &TableConfig, tuple: &Tuple) -> Duration {
    if tuple.protocol() == weir_packet::protocol::TCP { config.tcp_idle } else { config.other_idle }
}

/// Why a flow is over at this tick, if it is.
fn end_reason(entry: &Entry, config: &TableConfig, tick: &Tick) -> Option<EndReason> {
    match entry.stage {
        Stage::Over(reason) => Some(reason),
        Stage::Lingering => Some(entry.closed_by()),
        Stage::Free | Stage::Live | Stage::Closing => {
            let is_idle = tick.monotonic - entry.last() >= idle_timeout(config, &entry.key.tuple);
            is_idle.then_some(if entry.stage == Stage::Closing { entry.closed_by() } else { EndReason::Idle })
        }
    }
}
