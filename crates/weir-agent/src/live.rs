//! Live traffic: three threads between the kernel and what is shown.
//!
//! The attaching thread lives in the network namespace that is watched. It loads the programs, puts them on interfaces
//! and follows these as they come and go. The reading thread drains the kernel every second or faster and adds what it
//! read to the [`State`], behind a lock that nobody keeps while waiting for others. The thread that shows asks the
//! state for records whenever it is told that an interval is over. A slow output therefore delays intervals, and never
//! the reading; what cannot be kept is counted by name.
//!
//! The end is a chain: whoever wants it tells the attaching thread, which takes everything off and lets go of the
//! reading thread, which reads what is left and says [`Message::Ended`].

mod attach;
mod books;
mod error;
mod pattern;
mod plan;
mod read;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use weir_datapath::{
    dns::DnsReader,
    features,
    flow::{self, FlowOptions, LoadError, TableState},
};
use weir_flow::{FlowTable, TableConfig, Tick, filter::Pushdown};

use self::{attach::Attaching, read::Reading};
pub use self::{
    attach::{Programs, Progress},
    books::{Agreements, Books, Witness},
    error::LiveError,
    pattern::{NoName, Pattern},
    plan::{Plan, Wanted},
};
use crate::signals;

/// Messages that may wait for the thread that shows. More are not needed: most say "look at the state".
const MESSAGES: usize = 64;

/// What the threads share.
pub struct State {
    /// Flows that go on.
    pub table: FlowTable,
    /// What was counted where, and whether it adds up.
    pub books: Books,
    /// How reading goes.
    pub drains: Drains,
    /// Another filter for the kernel, which the next drain sets.
    pub wanted_filter: Option<Pushdown>,
}

/// How reading the kernel's counters goes.
#[derive(Clone, Debug, Default)]
pub struct Drains {
    /// How often they were read.
    pub count: u64,
    /// Time that all of it took, waiting included.
    pub took: Duration,
    /// Time that it waited for running programs.
    pub waited: Duration,
    /// How full the kernel's table was the last time.
    pub last: TableState,
}

impl Drains {
    fn add(&mut self, state: &TableState) {
        self.count += 1;
        self.took += state.took;
        self.waited += state.waited;
        self.last.clone_from(state);
    }
}

/// The state and its lock.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn new(memory_bytes: usize) -> Self {
        let table = FlowTable::new(TableConfig { memory_bytes, ..TableConfig::default() });
        let (books, drains) = (Books::default(), Drains::default());
        Self(Arc::new(Mutex::new(State { table, books, drains, wanted_filter: None })))
    }

    /// Waits for the state. A panic elsewhere ends the program, so nothing half-done is ever shown.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread that shows is told.
pub enum Message {
    /// An interval is over; everything counted in it is in the state.
    Interval(Tick),
    /// Something that the user should know; lower case, without full stop.
    Note(String),
    /// An interface came off, and this is what it counted itself meanwhile.
    Witness(Witness),
    /// A signal came.
    Stop,
    /// It cannot go on.
    Failed(LiveError),
    /// Nothing is attached any more, and everything that was counted is in the state.
    Ended(Tick),
}

/// Sends messages to the thread that shows.
#[derive(Clone)]
struct Messages(SyncSender<Message>);

impl Messages {
    /// Sends unless too many messages wait: an interval that is not shown becomes part of the next one, and notes are
    /// lost where nobody reads them.
    fn offer(&self, message: Message) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.0.try_send(message) {}
    }

    /// Sends, waiting for room. Where nobody listens any more, the program is about to end.
    fn send(&self, message: Message) {
        self.0.send(message).ok();
    }

    fn note(&self, text: String) {
        self.offer(Message::Note(text));
    }
}

/// When to show and when to end.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Length of an interval.
    pub interval: Duration,
    /// Time after which it is over; the last interval ends then.
    pub end: Option<Duration>,
}

/// Programs that are being attached on a thread of their own. Dropping it takes everything off first.
pub struct Attachment {
    messages: Option<Receiver<Message>>,
    sender: Messages,
    attaching: Attaching,
    thread: Option<JoinHandle<()>>,
}

impl Attachment {
    /// Loads programs by `load`, which also gives back what reads from them, and starts attaching in the background.
    /// The receiver is disconnected when everything was taken off.
    pub fn start<P: Programs, R: Send + 'static>(
        plan: Plan,
        load: impl FnOnce() -> Result<(P, R), LiveError> + Send + 'static,
    ) -> Result<(Self, R, Receiver<()>), LiveError> {
        let (sender, messages) = sync_channel(MESSAGES);
        let sender = Messages(sender);
        stop_on_signals(sender.clone())?;
        let (let_go, wait) = sync_channel(1);
        let (loaded, reader) = sync_channel(1);
        let (attaching, thread) = Attaching::start(plan, load, sender.clone(), loaded, let_go)?;
        let attachment = Self { messages: Some(messages), sender, attaching, thread: Some(thread) };
        match reader.recv() {
            Ok(loaded) => Ok((attachment, loaded?, wait)),
            Err(_) => Err(LiveError::LoaderEnded),
        }
    }

    /// Waits for the next message.
    pub fn next(&self) -> Result<Message, LiveError> {
        let messages = self.messages.as_ref().ok_or(LiveError::Ended)?;
        messages.recv().map_err(|_disconnected| LiveError::Ended)
    }

    /// A message, if one is there.
    pub fn poll(&self) -> Option<Message> {
        self.messages.as_ref()?.try_recv().ok()
    }

    /// Interfaces that are attached, and how many should be.
    pub fn progress(&self) -> (usize, usize) {
        self.attaching.progress()
    }

    /// The same for somebody who looks at another time.
    pub fn progress_handle(&self) -> Arc<Progress> {
        self.attaching.progress_handle()
    }

    /// Begins the end: everything is taken off.
    pub fn stop(&self) {
        self.attaching.stop();
    }
}

impl Drop for Attachment {
    /// Whatever went wrong, nothing stays attached.
    fn drop(&mut self) {
        self.stop();
        // Nobody is to wait for room in a channel that nobody reads any more.
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was shown where it happened.
            drop(thread.join());
        }
    }
}

/// Running threads that count.
pub struct Live {
    attachment: Attachment,
    shared: Shared,
    dns: Option<DnsReader>,
}

impl Live {
    /// Loads, starts reading, and starts attaching in the background.
    pub fn start(plan: Plan, options: FlowOptions, schedule: Schedule) -> Result<Self, LiveError> {
        let netns = plan.netns.clone();
        let (attachment, mut reader, let_go) =
            Attachment::start(plan, move || flow::load(&options).map_err(refusal))?;
        let shared = Shared::new(usize::try_from(reader.sizes().user_bytes).unwrap_or(usize::MAX));
        let dns = reader.take_dns();
        let (sender, attaching) = (attachment.sender.clone(), attachment.attaching.clone());
        let reading = Reading::new(reader, shared.clone(), schedule, sender, attaching, netns);
        spawn("read", move || reading.run(&let_go))?;
        Ok(Self { attachment, shared, dns })
    }

    /// What reads DNS messages, if they are wanted and nobody took it yet.
    pub fn take_dns(&mut self) -> Option<DnsReader> {
        self.dns.take()
    }

    /// The state that the threads share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What is attached, and what happens there.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

/// Says which capability is missing, if that is why programs cannot be loaded.
pub fn refusal(error: LoadError) -> LiveError {
    match features::missing_for_counting() {
        Some(missing) if error.is_permission() => missing.into(),
        _ => error.into(),
    }
}

fn stop_on_signals(messages: Messages) -> Result<(), LiveError> {
    let mut asked = signals::wait_for_stop().map_err(LiveError::Signals)?;
    spawn("signals", move || {
        if asked() {
            messages.send(Message::Stop);
        }
    })?;
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LiveError> {
    let builder = thread::Builder::new().name(format!("weir-{name}"));
    builder.spawn(work).map_err(LiveError::Thread)
}
