//! What can go wrong.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::desired::{BackendId, RuleId};
use crate::{interface::NetlinkError, netns::NetnsError, object::LoadError};

/// Why the redirect does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused the object.
    #[error("cannot load the kernel object redirect")]
    Object(#[from] EbpfError),
    /// A map cannot be used.
    #[error("cannot use the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map cannot be read or written in one piece.
    #[error("cannot read or write the map {name}")]
    MapCall {
        /// Its name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What is pinned cannot be read or written.
    #[error("cannot use {path}: {remedy}")]
    Pin {
        /// The file or directory.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the pins.
    #[error("{path} is held by another weir proxy: stop that one first, or use another directory")]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// What is pinned is of another network namespace.
    #[error(
        "{path} diverts at {interface} of another network namespace: use another --root here, or run `weir proxy teardown` there"
    )]
    OtherNamespace {
        /// The directory.
        path: PathBuf,
        /// An interface there.
        interface: String,
    },
    /// What is pinned is of a build with other layouts.
    #[error(
        "{path} is of another version of weir and diverts still: run `weir proxy teardown`, which breaks its connections, or go on with that version"
    )]
    OtherLayout {
        /// The directory of that layout.
        path: PathBuf,
    },
    /// The interface does not exist.
    #[error("there is no interface {0} in this network namespace")]
    UnknownInterface(String),
    /// The programs cannot be attached.
    #[error("cannot attach to {interface}")]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        source: ProgramError,
    },
    /// No cgroup to attach to.
    #[error("no cgroup v2 is mounted: mount cgroup2, or name one")]
    NoCgroup,
    /// The number of the network namespace cannot be had.
    #[error("cannot tell this network namespace from others: needs Linux 5.14")]
    NetnsCookie(#[source] io::Error),
    /// The programs cannot be attached to the cgroup.
    #[error("cannot attach to the cgroup {path}")]
    Cgroup {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: ProgramError,
    },
    /// The filters of an interface cannot be read or changed.
    #[error("cannot read or change the filters of {interface}")]
    Filters {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// Interfaces cannot be listed.
    #[error("cannot list the interfaces of this network namespace")]
    Interfaces(#[from] NetlinkError),
    /// The network namespace cannot be told.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The addresses of this host cannot be listed.
    #[error("cannot list the addresses of this host")]
    Addresses(#[source] io::Error),
    /// A rule's number cannot be used.
    #[error("rule number {} is not between 1 and {}: no more listeners fit", .0.0, RuleId::LAST.0)]
    RuleNumber(RuleId),
    /// A backend's number cannot be used.
    #[error("backend number {} is not between 1 and {}: no more backends fit, each counted once for each listener", .0.0, BackendId::LAST.0)]
    BackendNumber(BackendId),
    /// A number is given twice.
    #[error("the number {0} is given to two rules, or to two backends")]
    Twice(u32),
    /// A table names a backend that does not exist or is another rule's.
    #[error("rule {} has backend {} in its table, which is not one of its backends", .rule.0, .backend.0)]
    NotItsBackend {
        /// The rule.
        rule: RuleId,
        /// The backend.
        backend: BackendId,
    },
    /// A backend has another address family than its rule.
    #[error("backend {} is not of the address family of rule {}", .backend.0, .rule.0)]
    Family {
        /// The rule.
        rule: RuleId,
        /// The backend.
        backend: BackendId,
    },
    /// A number means something else than before while it may still be in use.
    #[error("backend number {} is in use for another address: take a fresh number", .0.0)]
    BackendChanged(BackendId),
    /// Two listeners have addresses and ports in common.
    #[error("rules {} and {} listen on the same address and port", .0.0, .1.0)]
    Overlap(RuleId, RuleId),
    /// Too many ranges of ports on one prefix.
    #[error("too many port ranges on the addresses of rule {}: at most {most}", .rule.0)]
    TooManyRanges {
        /// The rule that is one too many.
        rule: RuleId,
        /// What fits.
        most: usize,
    },
    /// The tables of backends do not fit.
    #[error(
        "no room for the tables of backends: one needs {wanted} entries, {free} are left: use fewer backends, or fewer rules with several"
    )]
    Tables {
        /// Entries that a rule needs.
        wanted: usize,
        /// The longest piece that is left for it.
        free: usize,
    },
    /// What is in use does not fit into a table of connections of another size.
    #[error(
        "{used} connections are in the table, too many for one of {wanted}, which must have an eighth to spare: ask for more room, or wait until some are over"
    )]
    Capacity {
        /// Connections that should fit.
        wanted: u32,
        /// Connections that there are.
        used: u64,
    },
    /// While connections were moved to a table of another size more began than fit.
    #[error(
        "more connections began than fit into the table of {capacity} that those of before are moved to; what is attached works with both tables: start again when some are over, or end all by `weir proxy teardown` and start with more room"
    )]
    Full {
        /// Connections that fit.
        capacity: u32,
    },
    /// The handle came from [`Redirect::peek`](super::Redirect::peek).
    #[error("this redirect was opened to read only")]
    ReadOnly,
}

impl RedirectError {
    /// Whether it is what was wanted that cannot be had. That is said before anything is changed.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::RuleNumber(_)
                | Self::BackendNumber(_)
                | Self::Twice(_)
                | Self::NotItsBackend { .. }
                | Self::Family { .. }
                | Self::BackendChanged(_)
                | Self::Overlap(..)
                | Self::TooManyRanges { .. }
                | Self::Tables { .. }
        )
    }
}
