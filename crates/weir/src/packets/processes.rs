//! The names of processes: a thread that lists sockets, and look-ups that never wait for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use weir_datapath::sockets::{Method, Owners, SocketTable};
use weir_flow::{End, Process, ProcessLookup};

/// Time between two looks at the sockets when nobody asks.
const USUAL: Duration = Duration::from_secs(1);

/// The same where looking is slow.
const SLOW: Duration = Duration::from_secs(5);

/// Least time between two looks when packets of unknown sockets come.
const HURRY: Duration = Duration::from_millis(100);

/// Knows the processes behind sockets, as of a moment ago. The thread ends when this is dropped.
pub(crate) struct Processes {
    owners: Owners,
    wishes: Arc<Wishes>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Wishes {
    /// A packet of an unknown socket came.
    look: AtomicBool,
    stop: AtomicBool,
}

impl Processes {
    /// Looks for the first time, and then again and again.
    pub(crate) fn start() -> Result<Self> {
        let mut table = SocketTable::open(&[])?;
        table.snapshot()?;
        let owners = table.owners();
        let wishes = Arc::new(Wishes::default());
        let shared = Arc::clone(&wishes);
        let thread = thread::Builder::new()
            .name("weir-sockets".to_owned())
            .spawn(move || keep_looking(table, &shared))
            .context("cannot start a thread")?;
        Ok(Self { owners, wishes, thread: Some(thread) })
    }
}

impl ProcessLookup for Processes {
    fn process(&self, end: &End<'_>) -> Option<Arc<Process>> {
        let found = self.owners.process(end);
        if found.is_none() && end.owner.cookie != 0 {
            self.wishes.look.store(true, Ordering::Relaxed);
        }
        found
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.wishes.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been told, and there is nothing to take back.
            thread.join().ok();
        }
    }
}

fn keep_looking(mut table: SocketTable, wishes: &Wishes) {
    let usual = match table.method() {
        Method::Walk => USUAL,
        Method::Fallback(_) => SLOW,
    };
    let mut last = Instant::now();
    while !wishes.stop.load(Ordering::Relaxed) {
        thread::park_timeout(HURRY);
        let is_wished = usual == USUAL && wishes.look.swap(false, Ordering::Relaxed);
        if is_wished || last.elapsed() >= usual {
            // When it fails, the names stay as they were; the next look may succeed.
            table.snapshot().ok();
            last = Instant::now();
        }
    }
}
