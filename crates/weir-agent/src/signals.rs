//! SIGINT and SIGTERM ask a command to come to its end; a second one ends it at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

/// The signals that ask for the end.
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Whether the user asked for the end.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Starts listening.
    pub fn on_signals() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            // In this order: the second signal finds the flag set and leaves; what is attached goes with the process.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    /// For those whom nobody asks.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    /// Whether a signal came.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What waits, on a thread of its own, for the first signal; it says whether one came. The second signal ends the
/// program at once.
pub fn wait_for_stop() -> io::Result<impl FnMut() -> bool> {
    // Registers the second signal first.
    Stop::on_signals()?;
    let mut signals = Signals::new(SIGNALS)?;
    Ok(move || signals.forever().next().is_some())
}
