//! Who owns a socket: which process is behind an end of a flow.
//!
//! [`SocketTable::snapshot`] lists the sockets of all processes that our pid namespace shows; [`Owners`] answers for
//! the flows, first by socket cookie, then by both ends within the namespace, then by the port that somebody listens
//! on, and says which. Never a guess: an end that none of these knows has no process.
//!
//! Of several processes that hold one socket, the one that started first is named (the first process of all only if
//! nobody else holds it, because it opens sockets for others). Owners of closed sockets are remembered for two
//! minutes by their cookies, which are never used twice. Sockets that live shorter than the time between two snapshots
//! are known by who opened them, where the kernel can be made to note that ([`SocketTable::openings_error`]).

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use nix::ifaddrs::getifaddrs;
use weir_flow::{End, Listener, Process, ProcessLookup};

mod diag;
mod index;
pub(crate) mod kernel_types;
mod open;
mod openings;
mod process;
mod walk;

pub use diag::DiagError;
pub use kernel_types::KernelTypesError;
pub use openings::OpeningsError;
pub use walk::WalkError;

use self::{
    index::{Index, Namespace, Question},
    open::OpenSocket,
    process::ProcessNames,
    walk::{Found, Walk},
};
use crate::netns::{Netns, NetnsError, NetnsIdentity};

/// Most sockets that a snapshot takes in; the rest is counted. About 100 MiB would be needed for ten times as many.
const LIMIT: usize = 100_000;

/// Range of ports for clients where the kernel's setting cannot be read.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// Lists sockets and their processes, again and again.
#[derive(Debug)]
pub struct SocketTable {
    source: Source,
    /// Our own namespace first.
    namespaces: Vec<Netns>,
    names: ProcessNames,
    owners: Owners,
}

/// Where sockets are listed.
#[derive(Debug)]
enum Source {
    Walk(Box<Walk>),
    Diag(WalkError),
}

/// How a [`SocketTable`] lists sockets, and why not better.
#[derive(Debug)]
pub enum Method<'a> {
    /// By the walk over all open files: complete and quick.
    Walk,
    /// By `sock_diag` and `/proc`, because of this.
    Fallback(&'a WalkError),
}

/// What a snapshot found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Descriptors of sockets, shared ones as often as they are held.
    pub sockets: usize,
    /// Descriptors beyond what a snapshot takes in.
    pub left_out: usize,
    /// How long it took.
    pub duration: Duration,
}

/// Why a snapshot failed. The answers stay those of the last one that did not.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The walk failed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Answers who is behind an end of a flow, as of the last snapshot. Clones answer alike.
#[derive(Clone, Debug, Default)]
pub struct Owners(Arc<RwLock<Index>>);

impl SocketTable {
    /// Chooses the best way to list sockets that works here.
    ///
    /// Ends of flows that are observed in the namespace of the calling thread or in `others` can be named without a
    /// cookie.
    pub fn open(others: &[Netns]) -> Result<Self, NetnsError> {
        let source = match Walk::load() {
            Ok(walk) => Source::Walk(Box::new(walk)),
            Err(error) => Source::Diag(error),
        };
        Self::with_source(source, others)
    }

    /// The same without the walk, as on a kernel that has none.
    pub fn open_fallback(others: &[Netns]) -> Result<Self, NetnsError> {
        Self::with_source(Source::Diag(WalkError::NoIterator), others)
    }

    fn with_source(source: Source, others: &[Netns]) -> Result<Self, NetnsError> {
        let mut namespaces = vec![Netns::current()?];
        namespaces.extend_from_slice(others);
        Ok(Self { source, namespaces, names: ProcessNames::default(), owners: Owners::default() })
    }

    /// How sockets are listed here.
    pub const fn method(&self) -> Method<'_> {
        match &self.source {
            Source::Walk(_) => Method::Walk,
            Source::Diag(reason) => Method::Fallback(reason),
        }
    }

    /// Why sockets that live shorter than the time between two snapshots are not named, or `None` where they are.
    pub fn openings_error(&self) -> Option<&OpeningsError> {
        match &self.source {
            Source::Walk(walk) => walk.openings_error(),
            Source::Diag(_) => None,
        }
    }

    /// The answers, which every snapshot renews.
    pub fn owners(&self) -> Owners {
        self.owners.clone()
    }

    /// Lists all sockets as they are now. Look-ups go on meanwhile.
    pub fn snapshot(&mut self) -> Result<Snapshot, SnapshotError> {
        let start = Instant::now();
        let found = match &mut self.source {
            Source::Walk(walk) => walk.sockets()?,
            Source::Diag(_) => list_by_inode(&self.namespaces)?,
        };
        let mut described = Vec::with_capacity(self.namespaces.len());
        for (position, netns) in self.namespaces.iter().enumerate() {
            let name = if position == 0 { None } else { netns.name().cloned() };
            let addresses = in_namespace(netns, local_addresses)?;
            described.push(Namespace { name, inode: inode(netns.identity()), addresses });
        }
        let openers = found.opened.iter().map(|(_, holder)| *holder);
        let holders: HashSet<_> = found.sockets.iter().map(|socket| socket.holder).chain(openers).collect();
        self.names.retain(|holder| holders.contains(holder));
        let mut index =
            Index::new(&found.sockets, &found.opened, described, start, |holder| self.names.name(holder));
        self.owners.replace(&mut index, start);
        Ok(Snapshot { sockets: found.sockets.len(), left_out: found.left_out, duration: start.elapsed() })
    }

    /// The ports of our own namespace that somebody waits on, as of the last snapshot.
    pub fn listeners(&self) -> Vec<Listener> {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let ephemeral = range.as_deref().and_then(port_range).unwrap_or(EPHEMERAL);
        self.owners.0.read().unwrap_or_else(PoisonError::into_inner).listeners(ephemeral)
    }
}

impl Owners {
    /// Puts a newer index in place, which takes over what the old one remembers. The old one ends up in `index`.
    fn replace(&self, index: &mut Index, now: Instant) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.remember(&current, now);
        std::mem::swap(&mut *current, index);
    }
}

impl ProcessLookup for Owners {
    fn process(&self, end: &End<'_>) -> Option<Arc<Process>> {
        let question =
            Question { cookie: end.owner.cookie, tuple: &end.tuple, netns: end.point.netns.as_deref() };
        self.0.read().unwrap_or_else(PoisonError::into_inner).process(&question).cloned()
    }
}

/// Lists the sockets of these namespaces by the kernel's lists and `/proc/PID/fd`.
fn list_by_inode(namespaces: &[Netns]) -> Result<Found, NetnsError> {
    let holders = diag::holders();
    let mut found = Found::default();
    for netns in namespaces {
        // Without sock_diag in the kernel there are still the tables.
        let listed = in_namespace(netns, || diag::list().unwrap_or_else(|_| diag::list_from_proc()))?;
        for socket in diag::join(&listed, inode(netns.identity()), &holders) {
            found.add(socket);
        }
    }
    Ok(found)
}

impl Found {
    /// Takes a socket in while there is room.
    fn add(&mut self, socket: OpenSocket) {
        if self.sockets.len() < LIMIT {
            self.sockets.push(socket);
        } else {
            self.left_out += 1;
        }
    }
}

/// Runs `work` in a namespace, without a thread of its own if we are there.
fn in_namespace<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    if Netns::current()? == *netns { Ok(work()) } else { netns.run(work) }
}

/// Inode numbers of namespaces have 32 bits in the kernel.
fn inode(identity: NetnsIdentity) -> u32 {
    u32::try_from(identity.inode).unwrap_or(0)
}

/// The addresses of all interfaces of the namespace of the calling thread; none where they cannot be read.
fn local_addresses() -> HashSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return HashSet::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some((first.parse().ok()?, last.trim().parse().ok()?))
}
