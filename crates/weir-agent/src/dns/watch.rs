//! [`DnsWatch`]: the thread that takes messages from the kernel to the [`Observer`].

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use weir_datapath::dns::{DnsError, DnsLedger, DnsReader, DnsWaiter};
use weir_flow::Record;

use super::{Counts, Observer, observer::Fill};
use crate::{causes::with_causes, journal};

/// Time between two readings where there are few messages. Where there are many, the kernel says so.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no DNS.
#[derive(Debug, thiserror::Error)]
pub enum DnsWatchError {
    /// The kernel's side.
    #[error(transparent)]
    Reader(#[from] DnsError),
    /// There is no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What is known of DNS, kept up to date. Dropping it ends that.
pub struct DnsWatch {
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    reader: DnsReader,
    observer: Observer,
    /// Whether the last reading failed, which is told once.
    is_failing: bool,
}

/// Everything that is told of DNS as a whole.
#[derive(Clone, Debug, Default)]
pub struct DnsState {
    /// What became of packets in the kernel; nothing if it cannot be read.
    pub ledger: DnsLedger,
    /// Lookups and losses.
    pub counts: Counts,
    /// How much is known.
    pub fill: Fill,
}

impl DnsWatch {
    /// Starts to read. `ports` are those at which messages are.
    pub fn start(reader: DnsReader, ports: Vec<u16>) -> Result<Self, DnsWatchError> {
        let waiter = reader.waiter()?;
        let state = State { reader, observer: Observer::new(ports), is_failing: false };
        let (state, is_over) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        let (shared, over) = (Arc::clone(&state), Arc::clone(&is_over));
        let work = move || {
            while !over.load(Ordering::Relaxed) {
                wait(&waiter);
                lock(&shared).read();
            }
        };
        let thread = thread::Builder::new().name("weir-dns".to_owned()).spawn(work);
        Ok(Self { state, is_over, thread: Some(thread.map_err(DnsWatchError::Thread)?) })
    }

    /// Completes the records of an interval, by all messages that passed up to now. Each record must come here once.
    pub fn complete(&self, records: &mut [Record]) {
        let mut state = lock(&self.state);
        state.read();
        state.observer.complete(records);
    }

    /// Everything that is told of DNS as a whole.
    pub fn state(&self) -> DnsState {
        let state = lock(&self.state);
        DnsState {
            ledger: state.reader.ledger().unwrap_or_default(),
            counts: state.observer.counts().clone(),
            fill: state.observer.fill(),
        }
    }
}

impl State {
    fn read(&mut self) {
        let Self { reader, observer, is_failing } = self;
        // Before the messages are read, so that no lookup is given up whose response waits.
        let now = reader.now();
        let outcome = reader.read(|packet| observer.hear(packet));
        observer.expire(now);
        if let Err(error) = &outcome
            && !*is_failing
        {
            journal::warn(format_args!("some DNS messages are not read: {}", with_causes(error)));
        }
        *is_failing = outcome.is_err();
    }
}

/// A wait that fails is one that ends late.
fn wait(waiter: &DnsWaiter) {
    if waiter.wait(PAUSE).is_err() {
        thread::park_timeout(PAUSE);
    }
}

/// Waits for others that read or complete. A panic among them leaves names and numbers that are at worst incomplete.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for DnsWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was shown where it happened.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for DnsWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsWatch").finish_non_exhaustive()
    }
}
