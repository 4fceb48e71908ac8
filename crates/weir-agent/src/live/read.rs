//! The reading thread: drains the kernel, adds what it read to the state, says when an interval is over.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use weir_datapath::{
    flow::{DrainError, FlowReader},
    netns::Netns,
    sockets::{Method, SocketTable},
};
use weir_flow::{Observation, Tick};

use super::{LiveError, Message, Messages, Schedule, Shared, attach::Attaching};
use crate::causes::with_causes;

/// Longest time between two drains.
const LONGEST: Duration = Duration::from_secs(1);

/// Time between two drains while the kernel's table grows.
const HURRY: Duration = Duration::from_millis(100);

/// Time between two looks at the sockets where that is slow.
const SLOW_SOCKETS: Duration = Duration::from_secs(5);

/// Failures in a row after which it is given up.
const PATIENCE: u32 = 5;

/// What the thread works with.
pub(super) struct Reading {
    reader: FlowReader,
    shared: Shared,
    schedule: Schedule,
    messages: Messages,
    attaching: Attaching,
    sockets: Sockets,
    /// Flows at points that become known by the drain that reads them.
    late: Vec<Observation>,
    failures: u32,
}

impl Reading {
    pub(super) fn new(
        reader: FlowReader,
        shared: Shared,
        schedule: Schedule,
        messages: Messages,
        attaching: Attaching,
        netns: Option<Netns>,
    ) -> Self {
        let sockets = Sockets { table: None, netns, next: Instant::now() };
        let (late, failures) = (Vec::new(), 0);
        Self { reader, shared, schedule, messages, attaching, sockets, late, failures }
    }

    /// Reads until the attaching thread lets go, and then what is left.
    pub(super) fn run(mut self, let_go: &Receiver<()>) {
        self.sockets.open(&self.shared, &self.messages);
        let start = Instant::now();
        let mut next_interval = start + self.schedule.interval;
        let end = self.schedule.end.map(|duration| start + duration);
        let mut is_ending = false;
        let mut next_drain = next_interval.min(start + LONGEST);
        loop {
            if let Some(end) = end.filter(|_| !is_ending) {
                next_drain = next_drain.min(end);
            }
            let timeout = next_drain.saturating_duration_since(Instant::now());
            if !matches!(let_go.recv_timeout(timeout), Err(RecvTimeoutError::Timeout)) {
                break;
            }
            if !is_ending && end.is_some_and(|end| Instant::now() >= end) {
                is_ending = true;
                self.attaching.stop();
            }
            let drained = self.drain();
            let now = Instant::now();
            next_drain = now + LONGEST;
            if let Some((tick, is_growing)) = drained {
                if is_growing {
                    next_drain = now + HURRY;
                }
                // The interval that ends with everything is told by the end.
                if now >= next_interval && !is_ending && end.is_none_or(|end| next_interval < end) {
                    self.messages.offer(Message::Interval(tick));
                }
            } else if self.failures > PATIENCE {
                self.messages.send(Message::Failed(LiveError::Unreadable));
                self.attaching.stop();
                is_ending = true;
            }
            while next_interval <= now {
                next_interval += self.schedule.interval;
            }
            next_drain = next_drain.min(next_interval);
        }
        let last = self.drain_the_rest();
        self.messages.send(Message::Ended(last));
    }

    /// Reads what is left: both generations may hold something. Gives up after as many failures as ever.
    fn drain_the_rest(&mut self) -> Tick {
        let (mut left, mut last) = (2, Tick::default());
        while left > 0 && self.failures <= PATIENCE {
            if let Some((tick, _)) = self.drain() {
                (left, last) = (left - 1, tick);
            }
        }
        last
    }

    /// Reads once. `None` if that failed, which is told; what was counted is then read the next time.
    fn drain(&mut self) -> Option<(Tick, bool)> {
        let Self { reader, shared, late, .. } = self;
        let wanted_filter = shared.lock().wanted_filter.take();
        if let Some(filter) = wanted_filter {
            reader.set_filter(&filter);
        }
        let mut state = None;
        let drained = reader.drain(|observation| {
            // Locked when the wait for the kernel is over, and held until the ledgers are in as well: whoever looks
            // finds flows and ledgers of the same drains.
            let state = state.get_or_insert_with(|| shared.lock());
            if state.books.knows(observation.point) {
                state.table.observe(observation);
            } else {
                late.push(*observation);
            }
        });
        let drained = match drained {
            Ok(drained) => drained,
            Err(error) => {
                drop(state);
                self.failed(&error);
                return None;
            }
        };
        let mut state = state.unwrap_or_else(|| shared.lock());
        let changes = state.books.add(&drained);
        for point in changes.new {
            state.table.set_point(point);
        }
        for observation in std::mem::take(late) {
            state.table.observe(&observation);
        }
        for id in changes.gone {
            state.table.remove_point(id);
        }
        state.drains.add(&drained.table);
        drop(state);
        self.failures = 0;
        if let Some(error) = &drained.table.resize_error {
            self.messages.note(format!("cannot make the kernel's table larger or smaller: {error}"));
        }
        self.sockets.look(&self.shared, &self.messages);
        self.attaching.forget(self.reader.finish_drain());
        Some((drained.tick, drained.table.is_growing()))
    }

    fn failed(&mut self, error: &DrainError) {
        self.failures += 1;
        self.messages.note(with_causes(error));
    }
}

/// Who owns which socket, renewed with each drain.
struct Sockets {
    table: Option<SocketTable>,
    netns: Option<Netns>,
    next: Instant,
}

impl Sockets {
    fn open(&mut self, shared: &Shared, messages: &Messages) {
        match SocketTable::open(self.netns.as_slice()) {
            Ok(table) => {
                shared.lock().table.set_processes(Box::new(table.owners()));
                self.table = Some(table);
            }
            Err(error) => messages.note(format!("no names of processes: {}", with_causes(&error))),
        }
        self.look(shared, messages);
    }

    /// Lists the sockets, unless that was done a moment ago and is slow.
    fn look(&mut self, shared: &Shared, messages: &Messages) {
        let Some(table) = &mut self.table else { return };
        if Instant::now() < self.next {
            return;
        }
        if let Method::Fallback(_) = table.method() {
            self.next = Instant::now() + SLOW_SOCKETS;
        }
        match table.snapshot() {
            // Listeners are those of our own namespace.
            Ok(_) if self.netns.is_none() => shared.lock().table.set_listeners(table.listeners()),
            Ok(_) => {}
            Err(error) => {
                messages.note(format!("no names of processes any more: {}", with_causes(&error)));
                self.table = None;
            }
        }
    }
}
