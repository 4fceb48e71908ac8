//! The live view: one [`Frame`] for each interval, kept in a ring so that a client that was away can resume.
//!
//! A frame is a JSON object with a list for each column. It is made once, whoever looks on; clients share it. It has the
//! largest flows and the sum of the others, so its size has a bound whatever the traffic.

mod encode;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use weir_flow::{
    Record, Role, Tick,
    group::{Sums, by_role},
};

use crate::{
    batch::Batch,
    config::LiveConfig,
    outlet::{Consumer, Parcel, Patience, Receipt, WriteError},
};

/// One interval, as clients get it.
#[derive(Debug)]
pub struct Frame {
    /// Its number, counted from 1.
    pub number: u64,
    /// Its end.
    pub tick: Tick,
    /// A JSON object without line feeds.
    pub json: String,
}

/// The frames of the last minutes.
#[derive(Debug)]
pub struct View {
    config: LiveConfig,
    frames: Mutex<Frames>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Frames {
    ring: VecDeque<Arc<Frame>>,
    bytes: usize,
    last: u64,
}

/// The frame after those that a client knows.
#[derive(Debug)]
pub struct Next {
    /// The frame.
    pub frame: Arc<Frame>,
    /// How many frames before it are not there any more.
    pub lost: u64,
}

impl View {
    /// An empty view.
    pub fn new(config: LiveConfig) -> Arc<Self> {
        Arc::new(Self { config, frames: Mutex::default(), newest: watch::Sender::new(0) })
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        // Every change below leaves the ring whole.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the number of the newest frame, again and again.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Number of the newest frame; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.frames().last
    }

    /// The oldest frame after number `known` that is still there.
    pub fn next(&self, known: u64) -> Option<Next> {
        let frames = self.frames();
        let oldest = frames.ring.front()?.number;
        let wanted = known.saturating_add(1).max(oldest);
        let place = usize::try_from(wanted - oldest).ok()?;
        let frame = Arc::clone(frames.ring.get(place)?);
        Some(Next { frame, lost: wanted - known.saturating_add(1).min(wanted) })
    }

    /// Frames that are kept, and the bytes that they take.
    pub fn size(&self) -> (usize, usize) {
        let frames = self.frames();
        (frames.ring.len(), frames.bytes)
    }

    fn add(&self, tick: Tick, json: String) {
        let mut frames = self.frames();
        frames.last += 1;
        frames.bytes += json.len();
        let number = frames.last;
        frames.ring.push_back(Arc::new(Frame { number, tick, json }));
        // The newest stays, however large.
        while frames.ring.len() > 1
            && let Some(oldest) = frames.ring.front()
            && (frames.bytes > self.config.memory
                || tick.monotonic - oldest.tick.monotonic > self.config.keep)
        {
            frames.bytes -= oldest.json.len();
            frames.ring.pop_front();
        }
        drop(frames);
        self.newest.send_replace(number);
    }
}

/// Makes frames of batches.
pub struct Viewer {
    view: Arc<View>,
    /// The largest flows of the interval so far.
    kept: Vec<Record>,
    /// What was too small.
    others: Vec<(Role, Sums)>,
}

impl Viewer {
    /// One that fills `view`.
    pub fn new(view: Arc<View>) -> Self {
        Self { view, kept: Vec::new(), others: Vec::new() }
    }

    /// Adds the largest records and sums up the others.
    fn take(&mut self, records: &[Record]) {
        let most = self.view.config.rows;
        let mut ranked: Vec<&Record> = records.iter().collect();
        if ranked.len() > most {
            ranked.select_nth_unstable_by_key(most, size);
            self.others.extend(by_role(&ranked.split_off(most)));
        }
        self.kept.extend(ranked.into_iter().cloned());
        self.kept.sort_by_cached_key(size);
        if self.kept.len() > most {
            let smallest = self.kept.split_off(most);
            self.others.extend(by_role(&smallest.iter().collect::<Vec<_>>()));
        }
        self.others = by_role(&self.others);
    }
}

/// The largest first.
fn size(record: &(impl std::borrow::Borrow<Record> + ?Sized)) -> Reverse<u64> {
    Reverse(record.borrow().delta.count().bytes)
}

impl Viewer {
    /// Adds a batch, and makes a frame when the interval is complete.
    fn add(&mut self, batch: &Batch) {
        self.take(&batch.records);
        if batch.is_last {
            let json = encode::frame(batch.tick, batch.length, &self.kept, &self.others);
            self.view.add(batch.tick, json);
            self.kept = Vec::new();
            self.others.clear();
        }
    }
}

impl Consumer for Viewer {
    fn write(&mut self, parcels: &[Parcel], _patience: &Patience) -> Result<Receipt, WriteError> {
        for parcel in parcels {
            self.add(&parcel.batch);
        }
        Ok(Receipt::default())
    }
}

/// Most flows that may wait for the view: it is quick, so this is for the moments in which the machine is not.
pub const VIEW_QUEUE: usize = 20_000;

/// How often something is sent to a client while there is nothing to tell.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
