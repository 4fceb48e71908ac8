//! Messages of the agent: plain lines on standard error, `LEVEL text`, with the time unless the system's journal adds it.
//!
//! One level for the whole process, which a reload may change. Nothing is said per flow or per packet.

use std::{
    env, fmt,
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use jiff::Timestamp;

/// How important a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Data is lost, or somebody must act.
    Error,
    /// Unexpected, but dealt with.
    Warn,
    /// Start, stop, reload.
    #[default]
    Info,
    /// For those who look for the reason of something.
    Debug,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the least important level that is shown.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Says that data is lost or that somebody must act.
pub fn error(message: impl fmt::Display) {
    write(Level::Error, &message);
}

/// Says something unexpected that was dealt with.
pub fn warn(message: impl fmt::Display) {
    write(Level::Warn, &message);
}

/// Says what happens.
pub fn info(message: impl fmt::Display) {
    write(Level::Info, &message);
}

/// Says what only those want to know who look for the reason of something.
pub fn debug(message: impl fmt::Display) {
    write(Level::Debug, &message);
}

fn write(level: Level, message: &dyn fmt::Display) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let name = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN ",
        Level::Info => "INFO ",
        Level::Debug => "DEBUG",
    };
    // One write, so that lines of several threads do not mix. Where it fails, nobody is left to tell.
    let line = if journal_adds_time() {
        format!("{name} {message}\n")
    } else {
        format!("{:.3} {name} {message}\n", Timestamp::now())
    };
    io::stderr().write_all(line.as_bytes()).ok();
}

/// Whether standard error goes to the journal of systemd (systemd.exec(5), `JOURNAL_STREAM`).
fn journal_adds_time() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| env::var_os("JOURNAL_STREAM").is_some())
}
