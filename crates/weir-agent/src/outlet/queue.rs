//! [`Queue`]: batches that wait for one consumer. Never blocks who fills it: when there are too many records, the oldest
//! batches go.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::Batching;
use crate::batch::Batch;

/// A bounded queue of batches. Counted in records, because batches differ; one without records counts as one, so that
/// there is a bound to these too.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    most_records: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Arc<Batch>>,
    records: usize,
    /// What counts towards the bound.
    weight: usize,
    is_closed: bool,
}

impl Queue {
    /// A queue for as many records; one batch may always wait, however large.
    pub(super) fn new(most_records: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), most_records }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change below leaves the queue whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch and gives back those for which there is no room any more, the oldest first. A closed queue gives
    /// back the batch itself.
    #[must_use = "what is given back is lost and has to be counted"]
    pub(super) fn push(&self, batch: Arc<Batch>) -> Vec<Arc<Batch>> {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return vec![batch];
        }
        let mut lost = Vec::new();
        while waiting.weight + weight(&batch) > self.most_records
            && let Some(oldest) = waiting.batches.pop_front()
        {
            waiting.records -= oldest.records.len();
            waiting.weight -= weight(&oldest);
            lost.push(oldest);
        }
        waiting.records += batch.records.len();
        waiting.weight += weight(&batch);
        waiting.batches.push_back(batch);
        drop(waiting);
        self.changed.notify_one();
        lost
    }

    /// Waits for the next batches, as many as are to be brought at a time; none if nothing comes until then. `None` once the
    /// queue is closed and empty.
    pub(super) fn next(&self, batching: &Batching, until: Option<Instant>) -> Option<Vec<Arc<Batch>>> {
        let mut waiting = self.waiting();
        while waiting.batches.is_empty() && !waiting.is_closed {
            let Some(until) = until else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Vec::new());
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let end = Instant::now() + batching.time;
        while waiting.records < batching.records && !waiting.is_closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut taken = Vec::new();
        let mut records = 0;
        while (taken.is_empty() || records < batching.records)
            && let Some(batch) = waiting.batches.pop_front()
        {
            records += batch.records.len();
            waiting.weight -= weight(&batch);
            taken.push(batch);
        }
        waiting.records -= records;
        (!taken.is_empty()).then_some(taken)
    }

    /// Takes no more batches; those that wait can still be had.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_all();
    }

    /// Records that wait.
    pub(super) fn records(&self) -> usize {
        self.waiting().records
    }

    /// Batches that wait.
    #[cfg(test)]
    pub(super) fn batches(&self) -> usize {
        self.waiting().batches.len()
    }

    /// Most records that may wait.
    pub(super) fn most_records(&self) -> usize {
        self.most_records
    }
}

fn weight(batch: &Batch) -> usize {
    batch.records.len().max(1)
}
