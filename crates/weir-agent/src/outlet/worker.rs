//! The threads of an outlet: one that delivers, and with a spool one before it that writes what comes to the disk.

use std::{
    error::Error,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use weir_flow::filter::Filter;

use super::{
    BackOff, Batching, Consumer, LONGEST_PAUSE, Parcel, ParcelId, Receipt, Shared, Trouble, WriteError,
    backlog::Backlog, patience::Waited, spool::random,
};
use crate::{
    batch::{Batch, without},
    causes::with_causes,
    journal,
    ledger::{Loss, Origin},
};

/// Where batches come from.
pub(super) enum Supply {
    /// The queue, and nothing else.
    Memory { filter: Filter, run: u64, count: u64 },
    /// A spool behind the queue.
    Spool(Arc<Backlog>),
}

/// The thread that delivers.
pub(super) struct Worker<C> {
    pub(super) name: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) supply: Supply,
    pub(super) batching: Batching,
    pub(super) consumer: C,
    pub(super) back_off: BackOff,
    /// What was last said of records that it refused.
    pub(super) refusal: Option<String>,
    /// What is wrong with that for which it is woken. It does not keep parcels from being delivered.
    pub(super) aside: Option<Trouble>,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Supply {
    /// The queue alone.
    pub(super) fn memory(filter: Filter) -> Self {
        Self::Memory { filter, run: random(), count: 0 }
    }
}

/// Keeps away what does not match, and counts it.
fn chosen(batch: Arc<Batch>, filter: &Filter, shared: &Shared) -> Arc<Batch> {
    if filter.is_empty() {
        return batch;
    }
    let chosen = batch.matching(filter);
    shared.account.filtered(&without(&batch.tallies, &chosen.tallies));
    Arc::new(chosen)
}

/// Moves what comes from the queue to the disk, until the queue is closed.
pub(super) fn spool(shared: &Shared, backlog: &Backlog, filter: &Filter) {
    backlog.open();
    while let Some(batches) = shared.queue.next(&Batching::SINGLE, None) {
        for batch in batches {
            let batch = chosen(batch, filter, shared);
            if batch.records.is_empty() {
                backlog.retry();
            } else {
                backlog.put(batch);
            }
        }
    }
    backlog.close();
}

impl<C: Consumer> Worker<C> {
    pub(super) fn run(mut self) {
        while let Some(group) = self.next() {
            let (parcels, origins): (Vec<Parcel>, Vec<Origin>) = group.into_iter().unzip();
            if !parcels.is_empty() && self.deliver(&parcels, &origins) == Next::Stop {
                break;
            }
            self.wake();
        }
        self.consumer.finish();
    }

    /// What came from there is done with.
    fn settle(&self, origins: &[Origin]) {
        if let Supply::Spool(backlog) = &self.supply {
            backlog.settle(origins.iter().filter(|origin| **origin != Origin::Memory).count());
        }
    }

    /// Wakes the consumer if it is time.
    fn wake(&mut self) {
        if self.consumer.wakes_at().is_none_or(|time| time > Instant::now()) {
            return;
        }
        match self.consumer.wake(&self.shared.patience) {
            Ok(receipt) => {
                if self.aside.take().is_some() {
                    self.well();
                }
                self.note_refused(receipt);
            }
            Err(error) => {
                self.fails(&error);
                self.aside.clone_from(&self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn next(&mut self) -> Option<Vec<(Parcel, Origin)>> {
        match &mut self.supply {
            Supply::Spool(backlog) => {
                backlog.take(&self.batching, &self.shared.patience, self.consumer.wakes_at())
            }
            Supply::Memory { filter, run, count } => {
                let batches = self.shared.queue.next(&self.batching, self.consumer.wakes_at())?;
                let parcel = |batch| {
                    *count += 1;
                    let id = ParcelId(u128::from(*run) << 64 | u128::from(*count));
                    (Parcel { id, batch: chosen(batch, filter, &self.shared) }, Origin::Memory)
                };
                Some(batches.into_iter().map(parcel).collect())
            }
        }
    }

    /// Brings parcels until they are taken or refused for good. What is left when it stops stays where it is accounted.
    fn deliver(&mut self, parcels: &[Parcel], origins: &[Origin]) -> Next {
        loop {
            if self.shared.patience.is_over() {
                return Next::Stop;
            }
            self.shared.attempts.fetch_add(1, Ordering::Relaxed);
            match self.consumer.write(parcels, &self.shared.patience) {
                Ok(receipt) => {
                    // Whoever sees that it was delivered sees no trouble any more.
                    self.works(receipt);
                    for (parcel, origin) in parcels.iter().zip(origins) {
                        self.shared.account.delivered_from(&parcel.batch.tallies, *origin);
                    }
                    self.settle(origins);
                    let newest = parcels.iter().map(|parcel| parcel.batch.tick.wall.0).max();
                    self.shared.delivered_ns.store(newest.unwrap_or_default(), Ordering::Relaxed);
                    return Next::GoOn;
                }
                Err(WriteError::Reject(error)) => {
                    self.fails(&*error);
                    if let ([parcel], [origin]) = (parcels, origins) {
                        self.shared.account.dropped_from(&parcel.batch.tallies, Loss::Rejected, *origin);
                        self.settle(origins);
                        return Next::GoOn;
                    }
                    // One of them spoils the others. Each is done with by itself: the end may come between two of them.
                    for (parcel, origin) in parcels.iter().zip(origins) {
                        if self.deliver(std::slice::from_ref(parcel), &[*origin]) == Next::Stop {
                            return Next::Stop;
                        }
                    }
                    return Next::GoOn;
                }
                Err(WriteError::Retry(error)) => {
                    self.fails(&*error);
                    if self.has_nothing_to_lose(origins) {
                        return Next::Stop;
                    }
                    self.wait(None);
                }
                Err(error @ WriteError::RetryAfter { after, .. }) => {
                    self.fails(&error);
                    if self.has_nothing_to_lose(origins) {
                        return Next::Stop;
                    }
                    // Some ask for no time at all, again and again.
                    let pause = self.back_off.time().max(after).min(LONGEST_PAUSE);
                    self.wait(Some(pause));
                }
            }
        }
    }

    /// Waits between two attempts: as long as it was asked to, or ever longer. When the end comes, there is another attempt at
    /// once, and with what is left of the time it begins anew.
    fn wait(&mut self, asked: Option<Duration>) {
        let time = asked.unwrap_or_else(|| self.back_off.time());
        if self.shared.patience.wait(time) == Waited::UntilTheEndBegan {
            self.back_off.reset();
        }
    }

    /// Whether the end has come and everything is on disk, so that the next run can go on with it.
    fn has_nothing_to_lose(&self, origins: &[Origin]) -> bool {
        let Supply::Spool(backlog) = &self.supply else { return false };
        !origins.contains(&Origin::Memory) && backlog.is_safe()
    }

    fn works(&mut self, receipt: Receipt) {
        self.back_off.reset();
        self.well();
        self.note_refused(receipt);
    }

    /// What was wrong is no more, but for what is wrong aside.
    fn well(&self) {
        let mut trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *trouble, self.aside.clone());
        if before.is_some() && self.aside.is_none() {
            journal::info(format_args!("{} works again", self.name));
        }
    }

    fn note_refused(&mut self, receipt: Receipt) {
        let Some((records, text)) = receipt.refused else { return };
        self.shared.refused.fetch_add(records, Ordering::Relaxed);
        if self.refusal.as_ref() != Some(&text) {
            journal::warn(format_args!("{}: it refused {records} records: {text}", self.name));
            self.refusal = Some(text);
        }
    }

    /// Says so once, not at each attempt.
    fn fails(&self, error: &(dyn Error + 'static)) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        // Servers like to add a hint below.
        let text = with_causes(error).replace('\n', "; ");
        let mut trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            journal::warn(format_args!("{}: {text}", self.name));
            let since_ns = trouble.as_ref().map_or_else(now_ns, |trouble| trouble.since_ns);
            *trouble = Some(Trouble { text, since_ns });
        }
    }
}

/// Wall time, in nanoseconds.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
