//! [`Redirect`]: the loaded datapath.

use std::{
    fmt,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{
    connection::{Connection, ConnectionsOf, Tuple},
    counters::{Counters, Expired, Published},
    desired::Desired,
    error::RedirectError,
    place::{Attached, LocalMode, Place, PlaceChange, PlaceState},
};
use crate::object::LoadError;

/// Where things are and how large they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Directory of the pins, in a BPF file system; no dots in its name below the mount point.
    pub root: PathBuf,
    /// Connections that fit.
    pub capacity: u32,
    /// Connections of this host to itself.
    pub local: LocalMode,
    /// The cgroup (v2) whose processes these are.
    pub cgroup: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/sys/fs/bpf/weir/proxy"),
            capacity: 262_144,
            local: LocalMode::Cgroup,
            cgroup: PathBuf::from("/sys/fs/cgroup"),
        }
    }
}

/// What [`Redirect::open`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Nothing.
    Fresh,
    /// Maps of the same layout, which it uses on.
    TookOver {
        /// Connections in them.
        connections: u64,
    },
    /// Maps of another size, whose connections were copied.
    Migrated {
        /// Connections that were copied.
        connections: u64,
    },
}

/// Something that [`Redirect::teardown`] removed, or would.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Removed {
    /// A program of an interface.
    Program {
        /// The interface; its index if it is gone.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// `tcx` or `clsact`.
        hook: &'static str,
    },
    /// A clsact qdisc that was added for the programs and is empty.
    Qdisc {
        /// The interface.
        interface: String,
    },
    /// A program of a cgroup.
    CgroupProgram {
        /// Its name.
        name: String,
    },
    /// A pin.
    Pin {
        /// The file or directory.
        path: PathBuf,
    },
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { interface, direction, hook } => {
                write!(f, "program on {interface} {direction} ({hook})")
            }
            Self::Qdisc { interface } => write!(f, "empty clsact qdisc of {interface}"),
            Self::CgroupProgram { name } => write!(f, "cgroup program {name}"),
            Self::Pin { path } => write!(f, "{}", path.display()),
        }
    }
}

/// The loaded datapath of one network namespace.
///
/// Dropping it changes nothing: what is pinned works on.
#[derive(Debug)]
pub struct Redirect;

impl Redirect {
    /// Takes over what is pinned, or loads anew. Programs that are attached are replaced, those that see answers first.
    pub fn open(_settings: &Settings) -> Result<(Self, Start), RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// What is pinned, to read only; `None` if there is nothing.
    pub fn peek(_root: &Path) -> Result<Option<Self>, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Attaches to an interface, or replaces the programs there.
    pub fn attach(&mut self, _place: &Place) -> Result<Attached, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Takes the programs off an interface; nothing happens if there are none.
    pub fn detach(&mut self, _interface: &str) -> Result<(), RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// The interfaces that are to be attached.
    pub fn places(&self) -> Vec<PlaceState> {
        Vec::new()
    }

    /// Attaches to interfaces that came again. To be called when interfaces change.
    pub fn refresh(&mut self) -> Result<Vec<PlaceChange>, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Brings the kernel from what is published to `desired`, each rule at once. What is wrong with `desired` is said
    /// before the first change.
    pub fn publish(&mut self, _desired: &Desired) -> Result<Published, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// What is published, read from the kernel.
    pub fn published(&self) -> Result<Desired, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Hands over every connection until `visit` breaks.
    pub fn connections(
        &self,
        _visit: &mut dyn FnMut(&Connection) -> ControlFlow<()>,
    ) -> Result<(), RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// One connection.
    pub fn connection(&self, _tuple: &Tuple) -> Result<Option<Connection>, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Ends connections: TCP gets a reset at the client's next packet, UDP chooses again. Returns how many.
    pub fn end_connections(&mut self, _of: ConnectionsOf) -> Result<u64, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Removes what timed out; to be called about once a second. Bounded work: a large table takes several calls.
    pub fn expire(&mut self) -> Result<Expired, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Everything that is counted.
    pub fn counters(&self) -> Result<Counters, RedirectError> {
        Err(LoadError::NoObject.into())
    }

    /// Detaches what is ours and removes the pins. Says what it removed, or with `dry_run` would.
    pub fn teardown(_root: &Path, _dry_run: bool) -> Result<Vec<Removed>, RedirectError> {
        Err(LoadError::NoObject.into())
    }
}
