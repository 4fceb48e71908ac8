//! Joins flows and sockets: by cookie, then by both ends, then by the port that somebody listens on. No I/O.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use weir_flow::{Listener, Process, ProcessConfidence, Tuple};
use weir_packet::protocol;

use super::open::{Families, Holder, OpenSocket, Use};

/// How long the owner of a closed socket is remembered: longer than a TCP flow stays idle before its last record.
const REMEMBERED_FOR: Duration = Duration::from_mins(2);
/// Most closed sockets that are remembered, about 4 MiB.
const REMEMBERED_LIMIT: usize = 65_536;

/// Everything that look-ups need, made anew by every snapshot.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_cookie: HashMap<u64, Owner>,
    by_ends: HashMap<Ends, Connection>,
    listeners: HashMap<Port, Vec<Waiting>>,
    namespaces: Vec<Namespace>,
}

/// A network namespace that flows are observed in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespace {
    /// The name that observation points there have; `None` for our own.
    pub(crate) name: Option<Arc<str>>,
    /// Its inode number.
    pub(crate) inode: u32,
    /// The addresses that its interfaces have. Loopback addresses need not be among them.
    pub(crate) addresses: HashSet<IpAddr>,
}

/// Who owns a socket that is known by its cookie.
#[derive(Clone, Debug)]
struct Owner {
    process: Arc<Process>,
    /// When it was last seen open.
    seen: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    netns: u32,
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
}

#[derive(Debug)]
struct Connection {
    cookie: u64,
    process: Arc<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Port {
    netns: u32,
    protocol: u8,
    number: u16,
}

/// A socket that takes what comes to a port.
#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    families: Families,
    process: Arc<Process>,
}

/// One end of a flow, as the index is asked about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Cookie of the socket at that end, or 0.
    pub(crate) cookie: u64,
    /// The flow as that end sends it.
    pub(crate) tuple: &'a Tuple,
    /// Name of the namespace of the observation point.
    pub(crate) netns: Option<&'a str>,
}

impl Index {
    /// Makes the index of a snapshot: of open sockets, and of cookies with those who opened the sockets. `name` tells
    /// what a process runs.
    pub(crate) fn new(
        sockets: &[OpenSocket],
        opened: &[(u64, Holder)],
        namespaces: Vec<Namespace>,
        now: Instant,
        mut name: impl FnMut(&Holder) -> Arc<str>,
    ) -> Self {
        // A socket can be held by several processes, which inherited it or got it passed. The choice is made by
        // sorting: the first one that is met stays.
        let mut sorted: Vec<&OpenSocket> = sockets.iter().collect();
        sorted.sort_by_key(|socket| precedence(&socket.holder));
        let mut processes = Processes { known: HashMap::new(), name: &mut name };
        let mut index = Self { namespaces, ..Self::default() };
        for socket in sorted {
            index.add(socket, now, &mut processes);
        }
        // Who holds a socket now is nearer to the truth than who opened it.
        for (cookie, opener) in opened {
            if let Entry::Vacant(place) = index.by_cookie.entry(*cookie) {
                let process = processes.get(opener, ProcessConfidence::Proven);
                place.insert(Owner { process, seen: now });
            }
        }
        index
    }

    fn add(&mut self, socket: &OpenSocket, now: Instant, processes: &mut Processes<'_>) {
        let OpenSocket { cookie, netns, holder, protocol, local, remote, use_ } = *socket;
        // Packets that carry the cookie of a listening socket belong to connections that somebody else may accept.
        let confidence = match use_ {
            Use::Listening(_) => ProcessConfidence::Listener,
            Use::Connected | Use::Bound(_) | Use::Idle => ProcessConfidence::Proven,
        };
        if cookie != 0
            && let Entry::Vacant(place) = self.by_cookie.entry(cookie)
        {
            place.insert(Owner { process: processes.get(&holder, confidence), seen: now });
        }
        if let Some(remote) = remote {
            if let Entry::Vacant(place) = self.by_ends.entry(Ends { netns, protocol, local, remote }) {
                let process = processes.get(&holder, ProcessConfidence::Proven);
                place.insert(Connection { cookie, process });
            }
        } else if let Use::Listening(families) | Use::Bound(families) = use_ {
            let waiting = self.listeners.entry(Port { netns, protocol, number: local.port() }).or_default();
            let is_known = |known: &Waiting| known.address == local.ip() && known.families == families;
            if !waiting.iter().any(is_known) {
                let process = processes.get(&holder, ProcessConfidence::Listener);
                waiting.push(Waiting { address: local.ip(), families, process });
            }
        }
    }

    /// Takes over what an older index knows of sockets that have been closed since: packets of theirs may still be
    /// unreported. Cookies are never used twice; ends are, so those are not kept.
    pub(crate) fn remember(&mut self, older: &Self, now: Instant) {
        let mut room = REMEMBERED_LIMIT;
        for (cookie, owner) in &older.by_cookie {
            if room == 0 {
                break;
            }
            if now.saturating_duration_since(owner.seen) < REMEMBERED_FOR
                && let Entry::Vacant(place) = self.by_cookie.entry(*cookie)
            {
                place.insert(owner.clone());
                room -= 1;
            }
        }
    }

    /// The process at an end, if it is known.
    pub(crate) fn process(&self, question: &Question<'_>) -> Option<&Arc<Process>> {
        let tuple = question.tuple;
        if question.cookie != 0
            && let Some(owner) = self.by_cookie.get(&question.cookie)
        {
            return Some(&owner.process);
        }
        let namespace =
            self.namespaces.iter().find(|namespace| namespace.name.as_deref() == question.netns)?;
        if !tuple.has_ports() {
            return None;
        }
        let (netns, protocol) = (namespace.inode, tuple.protocol());
        let local = SocketAddr::new(tuple.source(), tuple.source_port());
        let remote = SocketAddr::new(tuple.destination(), tuple.destination_port());
        if let Some(connection) = self.by_ends.get(&Ends { netns, protocol, local, remote }) {
            // Two cookies that differ are two sockets, one after the other.
            let is_other =
                question.cookie != 0 && connection.cookie != 0 && question.cookie != connection.cookie;
            if !is_other {
                return Some(&connection.process);
            }
        }
        let waiting = self.listeners.get(&Port { netns, protocol, number: local.port() })?;
        let exact = waiting.iter().find(|waiting| waiting.address == local.ip());
        // Whoever waits on any address waits on those of this namespace, not on those of packets that pass through.
        let found = exact.or_else(|| {
            namespace.owns(local.ip()).then(|| waiting.iter().find(|waiting| waiting.accepts(local.ip())))?
        })?;
        Some(&found.process)
    }

    /// Sockets of our own namespace that others come to. UDP ports in `ephemeral` are left out, because most sockets
    /// there belong to clients.
    pub(crate) fn listeners(&self, ephemeral: (u16, u16)) -> Vec<Listener> {
        let Some(own) = self.namespaces.iter().find(|namespace| namespace.name.is_none()) else {
            return Vec::new();
        };
        let is_client = |port: &Port| {
            port.protocol != protocol::TCP && (ephemeral.0..=ephemeral.1).contains(&port.number)
        };
        let ports = self.listeners.iter().filter(|(port, _)| port.netns == own.inode && !is_client(port));
        let all = ports.flat_map(|(port, waiting)| waiting.iter().map(move |waiting| (port, waiting)));
        all.map(|(port, waiting)| Listener {
            address: Some(waiting.address).filter(|address| !address.is_unspecified()),
            port: port.number,
            protocol: port.protocol,
        })
        .collect()
    }
}

impl Namespace {
    fn owns(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }
}

impl Waiting {
    /// Whether a socket bound to any address takes packets to this one.
    fn accepts(&self, address: IpAddr) -> bool {
        match self.address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.is_ipv4(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.is_ipv6() || self.families == Families::Both,
            _ => false,
        }
    }
}

/// Which of several holders of a socket is named: the one that started first, which opened it or got it first. The
/// first process of all comes last, because it opens sockets for others (socket activation).
fn precedence(holder: &Holder) -> (bool, u64, u32) {
    (holder.pid == 1, holder.started, holder.pid)
}

/// One [`Process`] per holder and confidence, however many sockets they have.
struct Processes<'a> {
    /// By holder and whether they are known as a listener only.
    known: HashMap<(Holder, bool), Arc<Process>>,
    name: &'a mut dyn FnMut(&Holder) -> Arc<str>,
}

impl Processes<'_> {
    fn get(&mut self, holder: &Holder, confidence: ProcessConfidence) -> Arc<Process> {
        let key = (*holder, confidence == ProcessConfidence::Listener);
        let make = || Arc::new(Process { pid: holder.pid, executable: (self.name)(holder), confidence });
        Arc::clone(self.known.entry(key).or_insert_with(make))
    }
}

#[cfg(test)]
mod tests;
