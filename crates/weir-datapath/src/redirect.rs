//! The `redirect` object in user space: connections to a listener go to one of its backends.
//!
//! [`Redirect`] owns what is pinned under one directory: maps, programs on interfaces, the table of connections. All of
//! it works on without the process. What is wanted comes as a whole ([`Desired`]) and is brought into the kernel rule by
//! rule, each at once. Which backend is healthy, which table of backends a rule has and what things are called is not
//! decided here.
//!
//! Every call works in the network namespace of the calling thread, which must always be the same one.

mod attach;
mod check;
mod connection;
mod counters;
mod desired;
mod elsewhere;
mod error;
mod handle;
mod load;
mod local;
mod maps;
mod pins;
mod place;
mod places;
mod publish;
mod resize;
mod stamp;
mod tables;
mod teardown;
mod walk;
mod words;

pub use connection::{Connection, ConnectionState, ConnectionsOf, Tuple};
pub use counters::{BackendCounters, Counters, DropReason, Expired, Published, RuleCounters};
pub use desired::{
    BackendId, BackendState, Desired, Listener, OnEmpty, OnFull, PortPolicy, Ports, Prefix, RuleId,
    RuleState, Standing, Timeouts, Transport,
};
pub use error::RedirectError;
pub use handle::{Redirect, Settings, Start};
pub use place::{Attached, LocalMode, LocalState, Place, PlaceChange, PlaceHook, PlaceState, Role};

pub use teardown::Removed;

pub use crate::bpf::run::{CHECKSUM_COMPLETE, PacketRun, run_packet};
