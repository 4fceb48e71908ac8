//! The pipeline, the only place where its parts are put together:
//!
//! ```text
//! reading thread ─► flow table ─tick─► enrich ─► filter ─► batch ─► fan-out ─► an outlet each: live view, store, sinks
//! ```
//!
//! The kernel is read on a thread of its own ([`Live`]). This one takes the records of each interval out of the flow
//! table, all at once, and offers them to every outlet, which never makes it wait. What becomes of each record is on the account of
//! its outlet; what the pipeline itself hands on or keeps away is on the account called `passage`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use weir_flow::{Record, Tick, filter::Filter};

use crate::{
    batch::{Collected, without},
    enrich::Enrichers,
    journal,
    ledger::Account,
    live::{Live, LiveError, Message, Progress, Shared, State, Witness},
    outlet::Outlet,
};

/// Ticks between two looks at which points are gone for good.
const COMPACT: u64 = 60;

/// What the server and a reload see of the pipeline.
pub struct Pipeline {
    /// Flow table and ledgers.
    pub counted: Shared,
    /// How many interfaces are attached.
    pub progress: Arc<Progress>,
    /// What left the flow table: offered; what the filter kept away: filtered; the rest went to every outlet.
    pub passage: Account,
    /// What is kept; an empty filter keeps everything.
    pub filter: ArcSwap<Filter>,
    /// Who completes the records of each tick.
    pub enrichers: Enrichers,
    /// When it began to count.
    pub started: Instant,
    outlets: Mutex<Vec<Arc<Outlet>>>,
    heartbeat: Mutex<Heartbeat>,
}

/// When the last interval ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heartbeat {
    /// Intervals so far.
    pub ticks: u64,
    /// The last one, once there is one.
    pub last: Option<(Tick, Instant)>,
    /// Whether everything was taken off.
    pub is_over: bool,
}

impl Pipeline {
    /// Joins what counts with those who want to know.
    pub fn new(live: &Live, enrichers: Enrichers, filter: Filter, outlets: Vec<Outlet>) -> Self {
        Self {
            counted: live.shared().clone(),
            progress: live.attachment().progress_handle(),
            passage: Account::default(),
            filter: ArcSwap::from_pointee(filter),
            enrichers,
            started: Instant::now(),
            outlets: Mutex::new(outlets.into_iter().map(Arc::new).collect()),
            heartbeat: Mutex::default(),
        }
    }

    /// Runs until a signal asks for the end and everything is detached. Gives back what interfaces counted themselves.
    pub fn run(&self, live: &Live) -> Result<Vec<Witness>, LiveError> {
        let mut witnesses = Vec::new();
        let mut failure = None;
        loop {
            match live.attachment().next()? {
                Message::Interval(tick) => self.tick(tick, Ending::No),
                Message::Note(text) => journal::info(text),
                Message::Witness(witness) => {
                    // Interfaces come and go for months; those at the end are enough.
                    if witnesses.len() < 4096 {
                        witnesses.push(witness);
                    }
                }
                Message::Stop => live.attachment().stop(),
                Message::Failed(error) => failure = Some(error),
                Message::Ended(tick) => {
                    self.tick(tick, Ending::Yes);
                    break;
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(witnesses),
        }
    }

    /// Hands on everything since the last tick.
    fn tick(&self, tick: Tick, ending: Ending) {
        let heartbeat = self.heartbeat();
        let last = heartbeat.last.map(|(last, _)| tick.monotonic - last.monotonic);
        let length = last.unwrap_or_else(|| self.started.elapsed());
        // Held throughout: whoever looks takes it first, and so finds every record either told and offered, or neither.
        let outlets = self.outlets();
        let mut collected = Collected::default();
        let hand_on = |collected: &mut Collected, is_last| {
            self.hand_on(std::mem::take(collected), &outlets, (tick, length), is_last);
        };

        let mut state = self.counted.lock();
        let State { table, books, .. } = &mut *state;
        let mut receive = |record: Record| {
            let places = books.places_of(&record);
            if collected.add(record, places) {
                hand_on(&mut collected, false);
            }
        };
        match ending {
            Ending::No => table.tick_each(tick, &mut receive),
            Ending::Yes => table.finish_each(tick, &mut receive),
        };
        let gone = if heartbeat.ticks.is_multiple_of(COMPACT) { books.compact() } else { Vec::new() };
        drop(state);

        hand_on(&mut collected, true);
        for account in outlets.iter().map(|outlet| outlet.account()).chain([&self.passage]) {
            account.close(&gone);
        }
        let is_over = matches!(ending, Ending::Yes);
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) =
            Heartbeat { ticks: heartbeat.ticks + 1, last: Some((tick, Instant::now())), is_over };
    }

    /// Completes records and offers them to all. Nobody waits here.
    fn hand_on(
        &self,
        mut collected: Collected,
        outlets: &[Arc<Outlet>],
        (tick, length): (Tick, Duration),
        is_last: bool,
    ) {
        self.enrichers.apply(&mut collected.records);
        let told = collected.tallies();
        let batch = collected.into_batch(tick, length, &self.filter.load(), is_last);
        self.passage.offered(&told);
        self.passage.filtered(&without(&told, &batch.tallies));
        for outlet in outlets {
            outlet.offer(&batch);
        }
        // Nothing of it waits here: without this the pages of points that are gone would stay for ever.
        self.passage.delivered(&batch.tallies);
    }

    /// When the last interval ended.
    pub fn heartbeat(&self) -> Heartbeat {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways to all consumers.
    pub fn outlets(&self) -> MutexGuard<'_, Vec<Arc<Outlet>>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every consumer finish what waits for it, all at once, and waits for them. Who looks at them meanwhile does not wait.
    pub fn close(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let outlets = self.outlets().clone();
        for outlet in &outlets {
            outlet.close(deadline);
        }
        for outlet in &outlets {
            outlet.wait(deadline);
        }
    }
}

/// Whether flows go on after a tick.
#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    Yes,
}
