//! Interfaces that the programs are attached to.

use std::path::PathBuf;

use super::error::RedirectError;

/// Where connections begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// At this host, or anywhere behind it: packets are redirected as they leave by the interface.
    Uplink,
    /// Behind the interface: packets are redirected as they come in.
    Client,
}

/// An interface to attach to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// Its name.
    pub interface: String,
    /// Where connections begin.
    pub role: Role,
}

/// How programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PlaceHook {
    /// By pinned TCX links (since 6.6).
    Tcx,
    /// By filters of the clsact qdisc.
    Clsact,
}

/// What [`Redirect::attach`](super::Redirect::attach) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Index of the interface.
    pub ifindex: u32,
    /// How.
    pub hook: PlaceHook,
    /// Whether it was attached before; then the programs were replaced.
    pub was_attached: bool,
}

/// An interface as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceState {
    /// Its name.
    pub interface: String,
    /// Its index when it was attached.
    pub ifindex: u32,
    /// Where connections begin.
    pub role: Role,
    /// How.
    pub hook: PlaceHook,
    /// Whether the interface is there and both programs are on it.
    pub is_alive: bool,
}

/// What [`Redirect::refresh`](super::Redirect::refresh) did.
#[derive(Debug)]
pub enum PlaceChange {
    /// The interface is gone; it is attached again when one of that name comes.
    Gone {
        /// Its name.
        interface: String,
    },
    /// An interface of that name came, or lost its programs, and was attached.
    Attached {
        /// Its name.
        interface: String,
        /// Its index now.
        ifindex: u32,
    },
    /// An interface of that name is there and cannot be attached.
    Failed {
        /// Its name.
        interface: String,
        /// Why.
        error: RedirectError,
    },
}

/// How sockets of this host are led to where packets cannot be redirected to: to backends on this host, from listeners at
/// addresses of this host, and to all backends where no interface is an [`Role::Uplink`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum LocalMode {
    /// By programs of a cgroup, as they connect, or send datagrams to an address.
    #[default]
    Cgroup,
    /// Not at all: such a backend takes no connections of this host.
    Off,
}

/// How sockets of this host are led to backends at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalState {
    /// The cgroup that the programs are on; `None` if they are nowhere.
    pub cgroup: Option<PathBuf>,
    /// Whether all of them are there.
    pub is_alive: bool,
}
