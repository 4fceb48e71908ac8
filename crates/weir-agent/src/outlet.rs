//! [`Outlet`]: everything between the pipeline and one consumer (store, sink, live view): a bounded queue, a thread
//! that delivers, attempts, and an account of what became of each record.
//!
//! The pipeline only ever puts a batch into the queue, which does not wait. So a consumer that is slow or gone costs its
//! own records, by name, and nothing else.

mod patience;
mod queue;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use weir_flow::filter::Filter;

pub use self::patience::{BackOff, Patience};
use self::queue::Queue;
use crate::{
    batch::{Batch, without},
    causes::with_causes,
    journal,
    ledger::{Account, Loss},
};

/// Any error; only its text is of interest.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a batch was not delivered.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The consumer is away or busy: the same batch will be brought again.
    #[error(transparent)]
    Retry(BoxError),
    /// It will never take this batch.
    #[error(transparent)]
    Reject(BoxError),
}

/// Takes batches: a store, a sink, the live view. It lives on a thread of its own and may block there.
pub trait Consumer: Send {
    /// Takes one batch. After [`WriteError::Retry`] the next call brings the same batch. It returns soon once `patience`
    /// is over.
    fn write(&mut self, batch: &Batch, patience: &Patience) -> Result<(), WriteError>;

    /// Finishes what it holds back; called once, at the end.
    fn finish(&mut self) {}
}

/// The way to one consumer.
#[derive(Debug)]
pub struct Outlet {
    name: Arc<str>,
    shared: Arc<Shared>,
    /// Disconnected when the worker has ended.
    ended: Mutex<Receiver<()>>,
    started_ns: u64,
    is_late: bool,
}

/// What pipeline, worker and those who look share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    account: Account,
    patience: Patience,
    failures: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Wall time of the last batch that was delivered, in nanoseconds; 0 before the first.
    delivered_ns: AtomicU64,
}

/// How a consumer is doing.
#[derive(Clone, Debug)]
pub struct OutletState {
    /// Its name.
    pub name: Arc<str>,
    /// Records that wait.
    pub waiting: usize,
    /// Most records that may wait.
    pub most_waiting: usize,
    /// Attempts that failed, since the start.
    pub failures: u64,
    /// Why the last attempt failed, until one works.
    pub trouble: Option<String>,
    /// End of the interval of the last batch that was delivered, nanoseconds of wall time.
    pub delivered_ns: Option<u64>,
    /// When it was started, nanoseconds of wall time.
    pub started_ns: u64,
    /// Whether it was started after the first batch.
    pub is_late: bool,
}

impl Outlet {
    /// Starts the thread of a consumer. An empty filter lets everything through.
    pub fn start(
        name: Arc<str>,
        most_records: usize,
        filter: Filter,
        consumer: impl Consumer + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Queue::new(most_records),
            account: Account::default(),
            patience: Patience::default(),
            failures: AtomicU64::new(0),
            trouble: Mutex::default(),
            delivered_ns: AtomicU64::new(0),
        });
        let (running, ended) = sync_channel::<()>(0);
        let worker = Worker {
            name: Arc::clone(&name),
            shared: Arc::clone(&shared),
            filter,
            consumer,
            back_off: BackOff::default(),
        };
        // The thread is not joined: one that hangs in a system call must not keep the agent from ending.
        thread::Builder::new().name(format!("weir-{name}")).spawn(move || {
            worker.run();
            drop(running);
        })?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { name, shared, ended: Mutex::new(ended), started_ns, is_late: false })
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
        OutletState {
            name: Arc::clone(&self.name),
            waiting: shared.queue.records(),
            most_waiting: shared.queue.most_records(),
            failures: shared.failures.load(Ordering::Relaxed),
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

    /// Waits until the worker has ended, a moment longer than the deadline. What it has not delivered by then is lost,
    /// and counted so.
    pub fn wait(&self, deadline: Instant) {
        let time = deadline.saturating_duration_since(Instant::now()) + GRACE;
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(time)
        {
            journal::warn(format_args!("{} does not end: it is left behind", self.name));
        }
        self.shared.account.give_up();
        let lost = self.shared.account.total().dropped[Loss::Stopped as usize].records;
        if lost > 0 {
            journal::error(format_args!(
                "{}: {lost} records could not be delivered before the end",
                self.name
            ));
        }
    }
}

/// Time between the deadline, at which a worker gives up, and the moment at which nobody waits for it any more.
const GRACE: Duration = Duration::from_millis(500);

struct Worker<C> {
    name: Arc<str>,
    shared: Arc<Shared>,
    filter: Filter,
    consumer: C,
    back_off: BackOff,
}

impl<C: Consumer> Worker<C> {
    fn run(mut self) {
        while let Some(batch) = self.shared.queue.next() {
            let chosen;
            let batch = if self.filter.is_empty() {
                &*batch
            } else {
                chosen = batch.matching(&self.filter);
                self.shared.account.filtered(&without(&batch.tallies, &chosen.tallies));
                &chosen
            };
            self.deliver(batch);
        }
        self.consumer.finish();
    }

    fn deliver(&mut self, batch: &Batch) {
        let account = &self.shared.account;
        loop {
            if self.shared.patience.is_over() {
                account.dropped(&batch.tallies, Loss::Stopped);
                return;
            }
            match self.consumer.write(batch, &self.shared.patience) {
                Ok(()) => {
                    account.delivered(&batch.tallies);
                    self.shared.delivered_ns.store(batch.tick.wall.0, Ordering::Relaxed);
                    self.works();
                    return;
                }
                Err(WriteError::Reject(error)) => {
                    account.dropped(&batch.tallies, Loss::Rejected);
                    self.fails(&*error);
                    return;
                }
                Err(WriteError::Retry(error)) => {
                    self.fails(&*error);
                    self.shared.patience.wait(self.back_off.time());
                }
            }
        }
    }

    fn works(&mut self) {
        self.back_off.reset();
        let trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if trouble.is_some() {
            journal::info(format_args!("{} works again", self.name));
        }
    }

    /// Says so once, not at each attempt.
    fn fails(&self, error: &(dyn Error + 'static)) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        let text = with_causes(error);
        let mut trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref() != Some(&text) {
            journal::warn(format_args!("{}: {text}", self.name));
            *trouble = Some(text);
        }
    }
}
