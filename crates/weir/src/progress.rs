//! How far a long read has come: one line on standard error that is overwritten, if that is a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use weir_agent::units::Grouped;

const REFRESH: Duration = Duration::from_millis(200);

/// Progress through a file.
pub(crate) struct Progress {
    length: Option<u64>,
    is_on: bool,
    has_shown: bool,
    next: Instant,
}

impl Progress {
    /// Progress through as many bytes; `None` if nobody knows how many there are.
    pub(crate) fn new(length: Option<u64>) -> Self {
        // A file that takes less than a second does not flash a line.
        let next = Instant::now() + Duration::from_secs(1);
        Self { length, is_on: io::stderr().is_terminal(), has_shown: false, next }
    }

    /// Shows where we are, unless it did so just before.
    pub(crate) fn show(&mut self, offset: u64, packets: u64) {
        if !self.is_on || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + REFRESH;
        self.has_shown = true;
        let percent = match self.length {
            Some(length @ 1..) => format!("{:3} %, ", offset.min(length) * 100 / length),
            _ => String::new(),
        };
        // Where the terminal is gone, there is nobody to tell.
        self.is_on = write!(io::stderr(), "\r\x1b[Kreading: {percent}{} packets", Grouped(packets)).is_ok();
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if self.has_shown && self.is_on {
            self.is_on = write!(io::stderr(), "\r\x1b[K").is_ok();
        }
    }
}
