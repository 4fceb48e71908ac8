//! [`Session`]: everything that the kernel tells, connection by connection.
//!
//! Pure: no I/O and no clock; time comes with the events and with [`Session::tick`]. Memory is bounded: so many sockets, so many
//! peers of one socket and of all, so many bytes that wait for their turn, of one stream and of all, so many that calls keep
//! which are not over. What is beyond is counted in [`Counts`].

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use weir_datapath::tap::{
    Closed, Event, Finished, GapReason as KernelReason, Opened, Place, SocketId, Transport,
};
use weir_flow::{Monotonic, Tick};
use weir_l7::{
    Chunk, GapReason, Keep, Protocol, Reassembly, StreamLimits,
    conversation::{self, Redaction},
};

use super::{
    Counts, Head, Output,
    head::way,
    socket::{Datagrams, Kind, Passing, Socket, Stream, Talk, Whole},
};
use crate::enrich::containers::Located;

/// What may wait of one stream. Holes that are not filled soon are losses: records of one call follow each other, and only
/// threads that share a socket exchange their places.
const LIMITS: StreamLimits =
    StreamLimits { bytes: 256 << 10, pieces: 64, patience: Duration::from_millis(200) };

/// How long a query may go without an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a peer of datagrams is remembered, and a socket that may be closed, where nobody tells.
const IDLE: Duration = Duration::from_mins(1);

/// The same for sockets of datagrams, while there is hardly room.
const HURRIED_IDLE: Duration = Duration::from_secs(10);

/// Most other ends with which one socket exchanges datagrams, so that none takes the room of all others.
const MOST_PEERS: usize = 4096;

/// What is wanted, and how much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct SessionSettings {
    /// What of messages is kept in calls.
    pub keep: Keep,
    /// Whether secrets are masked.
    pub redaction: Redaction,
    /// The protocol, where the user says it.
    pub protocol: Option<Protocol>,
    /// Most sockets that are followed.
    pub most_sockets: usize,
    /// Most bytes that wait for their turn, of all streams.
    pub most_waiting: u64,
    /// Most bytes that calls take which are not over, of all connections, about; beyond that nothing more is kept of messages.
    pub most_held: u64,
    /// Most other ends of sockets that exchange datagrams, of all sockets.
    pub most_peers: u64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            keep: Keep::default(),
            redaction: Redaction::On,
            protocol: None,
            most_sockets: 65_536,
            most_waiting: 64 << 20,
            most_held: 256 << 20,
            most_peers: 65_536,
        }
    }
}

/// Which container and pod a control group is of, if any.
pub type Locate = Box<dyn Fn(u64) -> Option<Arc<Located>> + Send>;

/// The state of all connections.
pub struct Session {
    settings: SessionSettings,
    locate: Locate,
    sockets: HashMap<SocketId, Socket, RandomState>,
    /// Sockets of which something waits.
    holes: HashSet<SocketId, RandomState>,
    counts: Counts,
    tick: Tick,
    last_sweep: Monotonic,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("sockets", &self.sockets.len())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Begins; `tick` is now.
    pub fn new(settings: SessionSettings, tick: Tick, locate: Locate) -> Self {
        Self {
            settings,
            locate,
            sockets: HashMap::default(),
            holes: HashSet::default(),
            counts: Counts::default(),
            tick,
            last_sweep: tick.monotonic,
        }
    }

    /// What became of everything so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sockets that are followed at present.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Connections that are not over; of sockets that exchange datagrams with several others, each of those.
    pub fn open(&self) -> u64 {
        let streams = self.sockets.values().filter(|socket| matches!(socket.kind, Kind::Stream(_)));
        streams.count() as u64 + self.counts.peers
    }

    /// Takes one thing that the kernel tells.
    pub fn take(&mut self, event: &Event<'_>, output: &mut dyn Output) {
        match event {
            Event::Opened(opened) => self.opened(opened, output),
            Event::Data(data) => {
                self.counts.given += data.bytes.len() as u64;
                let (position, time) = (data.place.position, Monotonic(data.place.time_ns));
                self.said(&data.place, Chunk::Bytes { position, time, data: data.bytes }, output);
            }
            Event::Gap(gap) => {
                self.counts.gaps += gap.length;
                let (position, time) = (gap.place.position, Monotonic(gap.place.time_ns));
                let chunk = Chunk::Gap { position, time, length: gap.length, reason: reason(gap.reason) };
                self.said(&gap.place, chunk, output);
            }
            Event::Finished(finished) => self.finished(finished, output),
            Event::Closed(closed) => {
                self.close(closed.socket, Monotonic(closed.time_ns), Some(closed), output);
            }
        }
        output.settle();
    }

    /// Gives up on what has waited for too long. Once or a few times a second.
    pub fn tick(&mut self, tick: Tick, output: &mut dyn Output) {
        self.tick = tick;
        let now = tick.monotonic;
        let Self { sockets, holes, counts, .. } = self;
        let mut passing = Passing { counts, tick, output };
        holes.retain(|id| {
            let Some(Socket { kind: Kind::Stream(stream), .. }) = sockets.get_mut(id) else { return false };
            stream.expire(now, &mut passing);
            passing.output.settle();
            stream.has_hole()
        });
        if now - self.last_sweep >= Duration::from_secs(1) {
            self.last_sweep = now;
            self.sweep(now, output);
        }
    }

    /// The end: everything that is open is over.
    pub fn finish(&mut self, tick: Tick, output: &mut dyn Output) {
        self.tick = tick;
        let open: Vec<SocketId> = self.sockets.keys().copied().collect();
        for socket in open {
            self.close(socket, tick.monotonic, None, output);
        }
    }

    fn opened(&mut self, opened: &Opened, output: &mut dyn Output) {
        let time = Monotonic(opened.time_ns);
        if self.sockets.contains_key(&opened.socket) {
            // It connects anew.
            self.close(opened.socket, time, None, output);
        }
        if self.sockets.len() >= self.settings.most_sockets {
            self.counts.refused += 1;
            return;
        }
        let kind = if opened.transport == Transport::Udp {
            Kind::Datagrams(HashMap::default())
        } else {
            let head = self.head(opened, None, output);
            let start = (opened.transport == Transport::Tcp || !opened.is_existing).then_some(0);
            let ways = [(); 2].map(|()| Reassembly::new(start, LIMITS));
            Kind::Stream(Box::new(Stream::new(self.talk(head), ways)))
        };
        self.sockets.insert(opened.socket, Socket { opened: *opened, kind, last: time });
    }

    fn head(&mut self, opened: &Opened, peer: Option<SocketAddr>, output: &mut dyn Output) -> Head {
        self.counts.connections += 1;
        self.counts.existing += u64::from(opened.is_existing);
        let located = (self.locate)(opened.process.cgroup);
        let head = Head::new(self.counts.connections, *opened, peer, located);
        output.opened(&super::At { head: &head, tick: self.tick });
        head
    }

    fn talk(&self, head: Head) -> Talk {
        let is_datagrams = head.opened.transport == Transport::Udp;
        let (local, remote) = head.ends();
        let remote = remote.map_or(0, |remote| remote.port());
        // The port of the server; where nobody knows which that is, the one that can be somebody's name.
        let port = match head.part {
            Some(weir_l7::Part::Client) => remote,
            Some(weir_l7::Part::Server) => local.port(),
            None if remote == 0 => local.port(),
            None => remote.min(local.port()),
        };
        let settings = conversation::Settings {
            transport: if is_datagrams { weir_l7::Transport::Datagram } else { weir_l7::Transport::Stream },
            protocol: self.settings.protocol,
            // Datagrams may go either way, whoever opened the socket.
            tapped: head.part.filter(|_| !is_datagrams),
            port: (port != 0).then_some(port),
            is_from_start: !head.opened.is_existing,
            keep: self.settings.keep,
            redaction: self.settings.redaction,
        };
        Talk::new(head, settings, self.settings.most_held)
    }

    fn said(&mut self, place: &Place, chunk: Chunk<'_>, output: &mut dyn Output) {
        let Some(socket) = self.sockets.get_mut(&place.socket) else {
            self.counts.unknown += chunk.bytes().map_or(0, |bytes| bytes.len() as u64);
            return;
        };
        socket.last = chunk.time();
        let mut passing = Passing { counts: &mut self.counts, tick: self.tick, output };
        match &mut socket.kind {
            Kind::Stream(stream) => {
                stream.push(way(place.way), chunk, &mut passing);
                if stream.has_hole() {
                    self.holes.insert(place.socket);
                    if passing.counts.waiting > self.settings.most_waiting {
                        passing.counts.hurried += 1;
                        stream.expire(Monotonic(u64::MAX), &mut passing);
                    }
                }
            }
            Kind::Datagrams(_) => self.datagram(place, chunk, output),
        }
    }

    fn datagram(&mut self, place: &Place, chunk: Chunk<'_>, output: &mut dyn Output) {
        let Some(Socket { opened, kind: Kind::Datagrams(peers), .. }) = self.sockets.get(&place.socket)
        else {
            return;
        };
        let peer = if opened.remote.is_some() { None } else { place.peer };
        let bytes = chunk.bytes().map_or(0, |bytes| bytes.len() as u64);
        if !peers.contains_key(&peer) {
            if peers.len() >= MOST_PEERS || self.counts.peers >= self.settings.most_peers {
                self.counts.refused += 1;
                self.counts.unfollowed += bytes;
                return;
            }
            let opened = *opened;
            let head = self.head(&opened, peer, output);
            let datagrams = Box::new(Datagrams::new(self.talk(head), chunk.time()));
            if let Some(Socket { kind: Kind::Datagrams(peers), .. }) = self.sockets.get_mut(&place.socket) {
                peers.insert(peer, datagrams);
                self.counts.peers += 1;
            }
        }
        let Some(Socket { kind: Kind::Datagrams(peers), .. }) = self.sockets.get_mut(&place.socket) else {
            return;
        };
        let Some(datagrams) = peers.get_mut(&peer) else { return };
        self.counts.delivered += bytes;
        let offset = u64::from(place.offset);
        let whole = Whole { start: place.position.wrapping_sub(offset), length: u64::from(place.operation) };
        let piece = match chunk {
            Chunk::Bytes { time, data, .. } => Chunk::Bytes { position: offset, time, data },
            Chunk::Gap { time, length, reason, .. } => Chunk::Gap { position: offset, time, length, reason },
        };
        let mut passing = Passing { counts: &mut self.counts, tick: self.tick, output };
        datagrams.push(way(place.way), whole, piece, &mut passing);
    }

    fn finished(&mut self, finished: &Finished, output: &mut dyn Output) {
        let Some(Socket { kind: Kind::Stream(stream), .. }) = self.sockets.get_mut(&finished.socket) else {
            return;
        };
        let mut passing = Passing { counts: &mut self.counts, tick: self.tick, output };
        stream.finished(way(finished.way), Monotonic(finished.time_ns), &mut passing);
    }

    fn close(&mut self, id: SocketId, time: Monotonic, closed: Option<&Closed>, output: &mut dyn Output) {
        let Some(socket) = self.sockets.remove(&id) else { return };
        self.holes.remove(&id);
        let mut passing = Passing { counts: &mut self.counts, tick: self.tick, output };
        match socket.kind {
            Kind::Stream(mut stream) => stream.close(time, closed, &mut passing),
            Kind::Datagrams(peers) => {
                peers.into_values().for_each(|mut datagrams| datagrams.close(time, &mut passing));
            }
        }
    }

    /// Forgets peers that have been silent; where there is hardly room, sockets too that nobody may tell to be closed.
    fn sweep(&mut self, now: Monotonic, output: &mut dyn Output) {
        let is_full = self.sockets.len() >= self.settings.most_sockets / 8 * 7;
        let unanswered = Monotonic(now.0.saturating_sub(u64::try_from(ANSWER.as_nanos()).unwrap_or(0)));
        let Self { sockets, counts, tick, .. } = self;
        let mut passing = Passing { counts, tick: *tick, output };
        sockets.retain(|_, socket| {
            let idle = now - socket.last;
            let is_forgotten = match &mut socket.kind {
                // There was no room to tell its end, or it is of a kind of which the kernel tells none.
                Kind::Stream(stream) => {
                    let is_forgotten = is_full && idle >= IDLE;
                    if is_forgotten {
                        stream.close(now, None, &mut passing);
                    }
                    is_forgotten
                }
                // Their ends are never told.
                Kind::Datagrams(peers) => {
                    let is_forgotten = is_full && idle >= HURRIED_IDLE;
                    peers.retain(|_, datagrams| {
                        datagrams.expire(unanswered, &mut passing);
                        let is_over = is_forgotten || now - datagrams.last >= IDLE;
                        if is_over {
                            datagrams.close(now, &mut passing);
                        }
                        !is_over
                    });
                    is_forgotten
                }
            };
            passing.counts.forgotten += u64::from(is_forgotten);
            !is_forgotten
        });
    }
}

/// The reason in terms of the streams.
const fn reason(reason: KernelReason) -> GapReason {
    match reason {
        KernelReason::Limit => GapReason::Limit,
        KernelReason::Budget => GapReason::Budget,
        KernelReason::Payload => GapReason::Payload,
        KernelReason::Fault => GapReason::Fault,
        KernelReason::Segments => GapReason::Segments,
        KernelReason::Sendfile => GapReason::Sendfile,
        KernelReason::Splice => GapReason::Splice,
        KernelReason::IoUring => GapReason::IoUring,
        KernelReason::Compat => GapReason::Compat,
        KernelReason::Truncated => GapReason::Truncated,
        KernelReason::Messages => GapReason::Messages,
        KernelReason::Kernel => GapReason::Kernel,
        KernelReason::Other => GapReason::Other,
    }
}
