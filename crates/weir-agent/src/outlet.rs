//! [`Outlet`]: everything between the pipeline and one consumer (store, sink, live view): a bounded queue, for sinks
//! that may be away a spool on disk, a thread that delivers, attempts, and an account of what became of each record.
//!
//! ```text
//! pipeline ─► queue ─► worker ─► consumer
//! pipeline ─► queue ─► writer of the spool ─► backlog (disk, and some of it in memory) ─► worker ─► consumer
//! ```
//!
//! The pipeline only ever puts a batch into the queue, which does not wait. So a consumer that is slow or gone costs its
//! own records, by name, and nothing else. With a spool, what is in it waits for the next run of the agent if need be.

mod backlog;
mod consumer;
mod patience;
mod queue;
mod spool;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use weir_flow::filter::Filter;

use self::{
    backlog::Backlog,
    queue::Queue,
    worker::{Supply, Worker},
};
pub use self::{
    consumer::{Batching, BoxError, Consumer, LONGEST_PAUSE, Parcel, ParcelId, Receipt, WriteError},
    patience::{BackOff, Patience},
    spool::SpoolConfig,
};
use crate::{
    batch::Batch,
    journal,
    ledger::{Account, Loss},
};

/// What an outlet is to be like.
#[derive(Clone, Debug)]
pub struct OutletConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Most records that wait in memory.
    pub most_records: usize,
    /// What the consumer gets; an empty filter lets everything through.
    pub filter: Filter,
    /// How much it gets at a time.
    pub batching: Batching,
    /// Where records wait that have no room in memory, or that outlive the agent.
    pub spool: Option<SpoolConfig>,
}

/// The way to one consumer.
#[derive(Debug)]
pub struct Outlet {
    name: Arc<str>,
    shared: Arc<Shared>,
    backlog: Option<(Arc<Backlog>, SpoolConfig)>,
    /// Disconnected when all its threads have ended.
    ended: Mutex<Receiver<()>>,
    started_ns: u64,
    is_late: bool,
}

/// What pipeline, worker and those who look share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    account: Arc<Account>,
    patience: Patience,
    attempts: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
    /// Wall time of the last batch that was delivered, in nanoseconds; 0 before the first.
    delivered_ns: AtomicU64,
}

/// Why a consumer does not take anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why the last attempt failed.
    pub text: String,
    /// When the first of these attempts failed, nanoseconds of wall time.
    pub since_ns: u64,
}

/// How a consumer is doing.
#[derive(Clone, Debug)]
pub struct OutletState {
    /// Its name.
    pub name: Arc<str>,
    /// Records that wait in memory.
    pub waiting: usize,
    /// Most records that may wait there.
    pub most_waiting: usize,
    /// Attempts to deliver, since the start.
    pub attempts: u64,
    /// Those that failed.
    pub failures: u64,
    /// Records that it took and then refused without saying which.
    pub refused: u64,
    /// Why the last attempt failed, until one works.
    pub trouble: Option<Trouble>,
    /// How its spool is, if it has one.
    pub spool: Option<SpoolState>,
    /// End of the interval of the last batch that was delivered, nanoseconds of wall time.
    pub delivered_ns: Option<u64>,
    /// When it was started, nanoseconds of wall time.
    pub started_ns: u64,
    /// Whether it was started after the first batch.
    pub is_late: bool,
}

/// How a spool is.
#[derive(Clone, Debug)]
pub struct SpoolState {
    /// Bytes that wait in it.
    pub bytes: u64,
    /// Most bytes that it may take.
    pub most_bytes: u64,
    /// Why nothing can be spooled at present.
    pub trouble: Option<String>,
}

impl Outlet {
    /// Starts the threads of a consumer.
    pub fn start(config: OutletConfig, consumer: impl Consumer + 'static) -> std::io::Result<Self> {
        let OutletConfig { name, most_records, filter, batching, spool } = config;
        let account = Arc::<Account>::default();
        let shared = Arc::new(Shared {
            queue: Queue::new(most_records),
            account: Arc::clone(&account),
            patience: Patience::default(),
            attempts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            trouble: Mutex::default(),
            delivered_ns: AtomicU64::new(0),
        });
        let backlog = spool.map(|spool| {
            let backlog = Backlog::new(Arc::clone(&name), spool.clone(), most_records, account);
            (Arc::new(backlog), spool)
        });
        let (running, ended) = sync_channel::<()>(0);
        let supply = match &backlog {
            None => Supply::memory(filter),
            Some((backlog, _)) => {
                let (shared, backlog, running) = (Arc::clone(&shared), Arc::clone(backlog), running.clone());
                let supply = Supply::Spool(Arc::clone(&backlog));
                thread::Builder::new().name(format!("weir-{name}-spool")).spawn(move || {
                    worker::spool(&shared, &backlog, &filter);
                    drop(running);
                })?;
                supply
            }
        };
        let worker = Worker {
            name: Arc::clone(&name),
            shared: Arc::clone(&shared),
            supply,
            batching,
            consumer,
            back_off: BackOff::default(),
            refusal: None,
            aside: None,
        };
        // The thread is not joined: one that hangs in a system call must not keep the agent from ending.
        let started = thread::Builder::new().name(format!("weir-{name}")).spawn(move || {
            worker.run();
            drop(running);
        });
        if let Err(error) = started {
            shared.queue.close();
            return Err(error);
        }
        let started_ns = worker::now_ns();
        Ok(Self { name, shared, backlog, ended: Mutex::new(ended), started_ns, is_late: false })
    }

    /// Marks it as one that has not been offered everything since the start.
    #[must_use]
    pub fn late(self) -> Self {
        Self { is_late: true, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Offers a batch; never waits.
    pub fn offer(&self, batch: &Arc<Batch>) {
        self.shared.account.offered(&batch.tallies);
        for lost in self.shared.queue.push(Arc::clone(batch)) {
            self.shared.account.dropped(&lost.tallies, Loss::QueueFull);
        }
    }

    /// What became of all batches.
    pub fn account(&self) -> &Account {
        &self.shared.account
    }

    /// How it is doing.
    pub fn state(&self) -> OutletState {
        let shared = &self.shared;
        let delivered_ns = shared.delivered_ns.load(Ordering::Relaxed);
        let loose = |(backlog, _): &(Arc<Backlog>, _)| backlog.loose_records.load(Ordering::Relaxed);
        let spool = |(backlog, config): &(Arc<Backlog>, SpoolConfig)| SpoolState {
            bytes: backlog.pending_bytes.load(Ordering::Relaxed),
            most_bytes: config.bytes,
            trouble: backlog.trouble(),
        };
        OutletState {
            name: Arc::clone(&self.name),
            waiting: shared.queue.records() + self.backlog.as_ref().map_or(0, loose),
            most_waiting: shared.queue.most_records(),
            attempts: shared.attempts.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            spool: self.backlog.as_ref().map(spool),
            trouble: shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            delivered_ns: (delivered_ns > 0).then_some(delivered_ns),
            started_ns: self.started_ns,
            is_late: self.is_late,
        }
    }

    /// Takes no more batches; those that wait are to be delivered until the deadline.
    pub fn close(&self, deadline: Instant) {
        self.shared.patience.end_at(deadline);
        self.shared.queue.close();
    }

    /// Waits until its threads have ended, a moment longer than the deadline. What is neither delivered nor in the spool by
    /// then is lost, and counted so.
    pub fn wait(&self, deadline: Instant) {
        let time = deadline.saturating_duration_since(Instant::now()) + GRACE;
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(time)
        {
            journal::warn(format_args!("{} does not end: it is left behind", self.name));
        }
        self.shared.account.give_up();
        if let Some((backlog, _)) = &self.backlog {
            backlog.abandon();
        }
        let pages = self.shared.account.snapshot();
        let lost = pages.total().dropped[Loss::Stopped as usize].records;
        if lost > 0 {
            journal::error(format_args!(
                "{}: {lost} records could not be delivered before the end",
                self.name
            ));
        }
        let spooled = pages.total().spooled.records + pages.earlier().spooled.records;
        if spooled > 0 {
            journal::info(format_args!(
                "{}: {spooled} records wait in the spool for the next run",
                self.name
            ));
        }
    }
}

/// Time between the deadline, at which a worker gives up, and the moment at which nobody waits for it any more.
const GRACE: Duration = Duration::from_millis(500);
