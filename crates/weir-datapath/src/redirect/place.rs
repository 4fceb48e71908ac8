//! Interfaces that the programs are attached to.

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

/// How connections of this host to backends on this host are redirected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum LocalMode {
    /// In `connect` and `sendmsg`, before there is a packet. Not made yet: the same as [`LocalMode::Off`].
    #[default]
    Cgroup,
    /// Not at all: such a backend takes no connections of this host.
    Off,
}
