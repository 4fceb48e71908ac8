//! [`run()`]: reads what the kernel hands over until somebody asks for the end, the time is up, or nobody reads any more.

use std::{
    io,
    time::{Duration, Instant},
};

use weir_datapath::{
    now,
    tap::{Chosen, RuleId, Settings, Tap, TapError, interrupt_nobody},
};

use super::{
    Audit, AuditError, Counts, Order, Output, Selector, Session, SessionSettings, Summary, WriterError,
};
use crate::{
    privileges::{PrivilegeError, give_up, hide_memory},
    signals::Stop,
};

/// Longest wait for something to read: how late it is seen that the end was asked for.
const WAIT: Duration = Duration::from_millis(100);

/// How soon outputs are handed on what was read.
const FLUSH: Duration = Duration::from_millis(50);

/// How often containers and pods are looked for again.
const LOOK: Duration = Duration::from_secs(2);

/// The thread that reads has a larger share than those that it taps, by a little. It interrupts none of them.
const NICE: i32 = -5;

/// The only rule there is.
const RULE: RuleId = RuleId(1);

/// What is to be done.
#[derive(Debug)]
pub struct Running {
    /// What is tapped.
    pub order: Order,
    /// The tap, and what it uses.
    pub tap: (Tap, Chosen),
    /// Control groups of those who are meant, as they are now.
    pub cgroups: Vec<u64>,
    /// What is made of it.
    pub session: SessionSettings,
    /// Who is meant by containers and pods.
    pub selector: Selector,
    /// Where it is noted.
    pub audit: Audit,
    /// Where it goes, as the note has it.
    pub output_name: String,
}

/// What is told while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The tap is open, and everything from now on is seen.
    Began {
        /// By which hooks.
        chosen: &'a Chosen,
        /// Sockets that were open before.
        existing: u64,
    },
    /// From time to time.
    Going {
        /// What was handed over so far.
        counts: &'a Counts,
        /// Sockets that are followed.
        sockets: usize,
    },
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By a signal.
    Asked,
    /// The time of the order is over.
    Expired,
    /// Nobody reads the output, or it cannot be written.
    Output,
    /// Something failed.
    Failed,
}

impl Ending {
    /// For the note.
    const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Expired => "expired",
            Self::Output => "output",
            Self::Failed => "error",
        }
    }
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be noted.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The kernel refuses.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Reading failed.
    #[error("cannot wait for the kernel")]
    Wait(#[source] io::Error),
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The ledger.
    pub summary: Summary,
    /// Why it ended.
    pub ending: Ending,
    /// Whether all that was to be written is.
    pub written: Result<(), WriterError>,
    /// What went wrong besides.
    pub failure: Option<RunError>,
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refuses.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// It would run with more privileges than it needs.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
}

/// Opens a tap of which nothing is wanted yet, and gives up the privileges that it took. What else needs any comes before this,
/// other threads come after it.
pub fn open(settings: &Settings) -> Result<(Tap, Chosen), OpenError> {
    // Without the privilege for it, it goes at the pace of the others.
    rustix::process::setpriority_process(None, NICE).ok();
    interrupt_nobody().ok();
    hide_memory()?;
    let opened = Tap::open(settings)?;
    give_up(|| opened.0.totals().is_ok())?;
    Ok(opened)
}

/// A tap that is open, and what is made of what it tells.
struct Tapping<'a> {
    tap: Tap,
    session: Session,
    order: &'a Order,
    selector: &'a Selector,
    cgroups: Vec<u64>,
    output: &'a mut dyn Output,
}

/// Taps until the end.
///
/// # Errors
///
/// Why it did not begin. What goes wrong later is part of the outcome.
pub fn run(
    running: Running,
    output: &mut dyn Output,
    stop: &Stop,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcome, RunError> {
    let Running { order, tap: (tap, chosen), cgroups, session, selector, mut audit, output_name } = running;
    let start = now::tick();
    audit.begin(&order, &output_name, start.wall)?;
    let session = Session::new(session, start, selector.locate());
    let mut tapping = Tapping { tap, session, order: &order, selector: &selector, cgroups, output };
    let gone = tapping.go(&chosen, stop, tell);

    // Whatever ended it: nothing stays attached, the note says so, and what was taken is handed on.
    let Tapping { tap, mut session, output, .. } = tapping;
    let counted = tap.totals();
    let closed = tap.close(&mut |event| session.take(event, output));
    let left = session.open();
    let end = now::tick();
    session.finish(end, output);
    let (ending, mut failure) = match gone {
        Ok(ending) => (ending, None),
        Err(error) => (Ending::Failed, Some(error)),
    };
    let totals = closed.or_else(|error| {
        failure.get_or_insert(error.into());
        counted
    });
    let totals = totals.unwrap_or_default();
    let open = left.saturating_sub(totals.unclosed);
    let summary = Summary { totals, counts: session.counts().clone(), open, end };
    // The note comes first: it counts even where the output failed.
    let noted = audit.end(&order, ending.name(), &summary);
    let written = output.finish(&summary);
    let failure = failure.or(noted.err().map(RunError::from));
    Ok(Outcome { summary, ending, written, failure })
}

impl Tapping<'_> {
    fn go(
        &mut self,
        chosen: &Chosen,
        stop: &Stop,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Ending, RunError> {
        let Self { tap, session, order, selector, cgroups, output } = self;
        tap.set_rules(&[order.rule(RULE, cgroups.clone())])?;
        let existing = tap.existing()?;
        tell(Progress::Began { chosen, existing });
        let end = order.ttl.map(|ttl| Instant::now() + ttl);
        let mut next_flush = Instant::now();
        let mut next_look = Instant::now() + LOOK;
        let mut is_new = false;
        loop {
            let wait = if is_new { next_flush.saturating_duration_since(Instant::now()) } else { WAIT };
            tap.wait(wait).map_err(RunError::Wait)?;
            is_new |= tap.read(&mut |event| session.take(event, *output))? > 0;
            let now = Instant::now();
            if now >= next_flush {
                next_flush = now + FLUSH;
                is_new = false;
                session.tick(now::tick(), *output);
                if output.flush().is_err() {
                    return Ok(Ending::Output);
                }
                tell(Progress::Going { counts: session.counts(), sockets: session.sockets() });
            }
            if now >= next_look && order.selection.needs_groups() {
                next_look = now + LOOK;
                let found = selector.cgroups_again(&order.selection);
                // What is gone is gone; an order that means nobody for a while stays what it was.
                if found != *cgroups && !found.is_empty() {
                    tap.set_rules(&[order.rule(RULE, found.clone())])?;
                    *cgroups = found;
                }
            }
            if stop.is_asked() {
                return Ok(Ending::Asked);
            }
            if end.is_some_and(|end| now >= end) {
                return Ok(Ending::Expired);
            }
        }
    }
}
