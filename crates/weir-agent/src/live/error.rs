//! [`LiveError`]: why counting cannot start or go on.

use std::io;

use thiserror::Error;
use weir_datapath::{
    features::MissingPrivilege, flow::LoadError, interface::NetlinkError, netns::NetnsError,
};

/// Why traffic cannot be counted, or not any more.
#[derive(Debug, Error)]
pub enum LiveError {
    /// A capability is missing.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The thread that loads the programs is gone without a word: it panicked.
    #[error("the thread that loads the programs ended")]
    LoaderEnded,
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The sockets that wake the attaching thread cannot be made.
    #[error("cannot make a pair of sockets")]
    Wake(#[source] io::Error),
    /// The attaching thread cannot wait.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// The network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The interfaces cannot be listed or followed.
    #[error(transparent)]
    Interfaces(#[from] NetlinkError),
    /// Not one interface could be attached; the text is what was said about one of them.
    #[error("{0}")]
    NothingAttached(String),
    /// Reading failed several times in a row.
    #[error("the kernel's counters cannot be read any more")]
    Unreadable,
    /// The other threads are gone: one of them panicked.
    #[error("the threads that count have ended")]
    Ended,
}
