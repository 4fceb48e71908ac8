//! Finds what a dead Weir left attached, and removes that alone.
//!
//! TCX links, packet sockets, programs and maps go away with the process. What stays after a `kill -9` are filters of
//! clsact qdiscs, and the qdisc where Weir had to add it. They are harmless: the programs count into maps that nobody
//! reads. A filter is ours if its handle carries our mark, its name begins like ours, and its program is one of those
//! that this binary ships; it is dead if nobody holds its instance's number (see [`crate::instance`]).
//!
//! Everything here works in the network namespace of the calling thread.

use std::{collections::HashSet, io, sync::Arc};

use aya::{EbpfError, EbpfLoader, programs::Program};
use nix::net::if_::if_nameindex;
use thiserror::Error;
use weir_flow::Direction;

pub(crate) mod clsact;

use self::clsact::{Clsact, Filter};
use crate::{
    instance::{FILTER_NAME_PREFIX, InstanceNumber, Qdisc},
    memlock, object,
};

/// A filter that a Weir attached.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// The Weir that attached it.
    pub instance: InstanceNumber,
    /// Whether it may be removed.
    pub status: Status,
    qdisc: Qdisc,
    filter: Filter,
}

/// Whether a filter may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its Weir is gone.
    Dead,
    /// Its Weir is running, and uses it.
    Live,
    /// Its Weir is gone, but its program is not one of this binary: another version's, or an imitation.
    OtherProgram,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Removed the filter.
    Filter,
    /// Removed the filter, and the clsact qdisc, which its Weir had added and which was empty then.
    FilterAndQdisc,
    /// It was gone already.
    Gone,
}

/// Whether to remove filters whose program is not one of this binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Do not.
    #[default]
    No,
    /// Remove them too.
    Yes,
}

/// Why leftovers cannot be listed or removed.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// The kernel cannot be asked for its filters.
    #[error("cannot list the filters of clsact qdiscs")]
    List(#[source] io::Error),
    /// The names of interfaces cannot be listed.
    #[error("cannot list the interfaces")]
    Interfaces(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot remove the filter from {interface}{}", remedy(source))]
    Remove {
        /// Name of the interface.
        interface: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// Its Weir is running.
    #[error("the filter on {interface} is in use: stop weir {instance} first")]
    InUse {
        /// Name of the interface.
        interface: Arc<str>,
        /// The running Weir.
        instance: InstanceNumber,
    },
    /// Its program is not one of ours.
    #[error(
        "the filter on {interface} runs a program that this weir does not ship: use the version that attached it, or --force"
    )]
    OtherProgram {
        /// Name of the interface.
        interface: Arc<str>,
    },
    /// Whether its Weir is running cannot be found out.
    #[error("cannot find out whether weir {instance} is running")]
    Liveness {
        /// The Weir in question.
        instance: InstanceNumber,
        /// Why.
        source: io::Error,
    },
}

/// Lists every filter that a Weir attached in this network namespace, of live ones too. Changes nothing.
pub fn list() -> Result<Vec<Leftover>, CleanupError> {
    let mut clsact = Clsact::open().map_err(CleanupError::List)?;
    let marked = marked_filters(&mut clsact).map_err(CleanupError::List)?;
    if marked.is_empty() {
        return Ok(Vec::new());
    }
    let interfaces = if_nameindex().map_err(|errno| CleanupError::Interfaces(errno.into()))?;
    let name_of = |ifindex: u32| {
        let interface = interfaces.iter().find(|interface| interface.index() == ifindex)?;
        Some(Arc::from(interface.name().to_string_lossy()))
    };
    let shipped = shipped_tags();
    let mut leftovers = Vec::new();
    for (filter, instance, qdisc) in marked {
        let Some(interface) = name_of(filter.ifindex) else { continue };
        let is_shipped = filter.program.is_some_and(|program| shipped.contains(&program.tag));
        let status = if is_live(instance)? {
            Status::Live
        } else if is_shipped {
            Status::Dead
        } else {
            Status::OtherProgram
        };
        leftovers.push(Leftover { interface, instance, status, qdisc, filter });
    }
    Ok(leftovers)
}

/// Removes a filter that a dead Weir left, and with the last one the qdisc that this Weir added, if it is empty.
pub fn remove(leftover: &Leftover, force: Force) -> Result<Removal, CleanupError> {
    let interface = || Arc::clone(&leftover.interface);
    let instance = leftover.instance;
    if leftover.status == Status::OtherProgram && force == Force::No {
        return Err(CleanupError::OtherProgram { interface: interface() });
    }
    // While we hold its number, no new Weir can draw it and attach under it.
    let _held = instance.bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => CleanupError::InUse { interface: interface(), instance },
        _ => CleanupError::Liveness { instance, source },
    })?;
    let removal = remove_filter(leftover);
    removal.map_err(|source| CleanupError::Remove { interface: interface(), source })
}

fn remove_filter(leftover: &Leftover) -> io::Result<Removal> {
    let mut clsact = Clsact::open()?;
    let filter = &leftover.filter;
    // Interface indexes and handles can be used again, so it must be the very same filter still.
    if !clsact.filters(filter.ifindex, filter.direction)?.contains(filter) {
        return Ok(Removal::Gone);
    }
    clsact.delete_filter(filter)?;
    if leftover.qdisc == Qdisc::Added && clsact.delete_empty_qdisc(filter.ifindex)? {
        return Ok(Removal::FilterAndQdisc);
    }
    Ok(Removal::Filter)
}

/// Filters that carry our mark in handle and name.
fn marked_filters(clsact: &mut Clsact) -> io::Result<Vec<(Filter, InstanceNumber, Qdisc)>> {
    let mut marked = Vec::new();
    for ifindex in clsact.interfaces()? {
        for direction in Direction::ALL {
            for filter in clsact.filters(ifindex, direction)? {
                if let Some((instance, qdisc)) = mark(&filter) {
                    marked.push((filter, instance, qdisc));
                }
            }
        }
    }
    Ok(marked)
}

fn mark(filter: &Filter) -> Option<(InstanceNumber, Qdisc)> {
    if filter.kind != "bpf" || filter.chain != 0 || !filter.name.starts_with(FILTER_NAME_PREFIX) {
        return None;
    }
    InstanceNumber::from_filter_handle(filter.handle)
}

fn is_live(instance: InstanceNumber) -> Result<bool, CleanupError> {
    match instance.bind() {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(source) => Err(CleanupError::Liveness { instance, source }),
    }
}

/// Tags of the TC programs that this binary ships. An object that cannot be loaded here, for want of a privilege or
/// because the binary was built without it, adds none: then everything counts as another program's.
fn shipped_tags() -> HashSet<u64> {
    [object::FLOW, object::PACKETS]
        .into_iter()
        .flat_map(|object| tags_of(object).unwrap_or_default())
        .collect()
}

/// The kernel computes a tag when it loads a program, over the instructions without the addresses and constants of
/// maps. So the programs are loaded for a moment, with the smallest of maps.
fn tags_of(object: &[u8]) -> Result<Vec<u64>, EbpfError> {
    let mut tags = Vec::new();
    if object.is_empty() {
        return Ok(tags);
    }
    memlock::lift();
    let mut loaded = EbpfLoader::new().load(object)?;
    for (_, program) in loaded.programs_mut() {
        if let Program::SchedClassifier(program) = program {
            program.load()?;
            tags.push(program.info()?.tag());
        }
    }
    Ok(tags)
}

fn remedy(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied { ": needs CAP_NET_ADMIN" } else { "" }
}

impl Leftover {
    /// Direction of the packets that it sees.
    pub const fn direction(&self) -> Direction {
        self.filter.direction
    }

    /// Priority of the filter.
    pub const fn priority(&self) -> u16 {
        self.filter.priority
    }

    /// Handle of the filter, as `tc` shows it.
    pub const fn handle(&self) -> u32 {
        self.filter.handle
    }

    /// Name of the filter.
    pub fn name(&self) -> &str {
        &self.filter.name
    }
}
