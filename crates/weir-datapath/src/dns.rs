//! DNS messages as they pass the interfaces that are counted, on their way from the `flow` object.
//!
//! [`FlowReader::take_dns`](crate::flow::FlowReader::take_dns) gives the [`DnsReader`], which belongs on a thread that
//! keeps up. Messages come once for each interface that they pass; packets that the ledger calls duplicates are left
//! out. What does not fit the ring is lost and counted. Nothing is parsed here, and nothing is put together: of a message
//! in several segments or fragments only the first part comes.

mod body;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
};
use weir_common::dns::{DNS_COUNT_WORDS, DnsCounts, DnsHeader};
use weir_flow::{Monotonic, Role, Tuple};
use zerocopy::FromBytes as _;

pub use self::body::Body;
use self::body::bodies;
use crate::{
    flow::Points,
    now,
    object::{LoadError, take},
};

/// Messages that are read at a time; the ring holds fewer.
const MOST_AT_ONCE: usize = 8192;

/// Places whose role is remembered. Far more than there are interfaces at a time.
const MOST_PLACES: usize = 8192;

/// Why messages cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The wait for messages failed.
    #[error("cannot wait for DNS messages")]
    Wait(#[source] io::Error),
    /// The counters cannot be read.
    #[error("cannot read the counters of DNS messages")]
    Counts(#[from] MapError),
    /// A record contradicts itself: the object and the binary are not of one build.
    #[error("the kernel programs wrote a record of {0} bytes that is shorter than it says")]
    Record(usize),
}

/// A message at one interface.
#[derive(Clone, Copy, Debug)]
pub struct DnsPacket<'a> {
    /// When it was seen.
    pub time: Monotonic,
    /// Who sent it to whom.
    pub tuple: Tuple,
    /// Index of the interface.
    pub ifindex: u32,
    /// What the interface is; [`Role::Other`] if it is gone.
    pub role: Role,
    /// The message.
    pub body: Body<'a>,
}

/// What became of packets at DNS ports, as the kernel hands them over: `seen` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsLedger {
    /// Packets that could hold a message: datagrams, and segments of TCP that are long enough.
    pub seen: u64,
    /// Handed over.
    pub written: u64,
    /// No room in the ring buffer.
    pub lost: u64,
    /// The kernel would not copy them.
    pub unreadable: u64,
}

/// Takes messages out of the ring buffer.
pub struct DnsReader {
    ring: RingBuf<MapData>,
    counts: PerCpuArray<MapData, [u64; DNS_COUNT_WORDS]>,
    points: Points,
    /// By row and index of the interface, so that a row that is given out again is another place.
    roles: HashMap<(u32, u32), Role>,
}

/// Waits for messages, without keeping anybody from reading them.
pub struct DnsWaiter(OwnedFd);

impl DnsWaiter {
    /// Waits until there are so many messages that they should be read at once, or for as long as `timeout`. Few messages
    /// that come during the wait wake nobody. A signal ends it early.
    pub fn wait(&self, timeout: Duration) -> Result<(), DnsError> {
        let mut descriptor = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure, which outlives the call.
        if unsafe { libc::poll(&raw mut descriptor, 1, milliseconds) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(DnsError::Wait(error));
            }
        }
        Ok(())
    }
}

impl DnsReader {
    pub(crate) fn new(ebpf: &mut Ebpf, points: Points) -> Result<Self, LoadError> {
        let map = |name| move |source| LoadError::Map { name, source };
        Ok(Self {
            ring: take(ebpf, "EVENTS")?.try_into().map_err(map("EVENTS"))?,
            counts: take(ebpf, "EVENT_COUNTS")?.try_into().map_err(map("EVENT_COUNTS"))?,
            points,
            roles: HashMap::new(),
        })
    }

    /// What tells another thread when to read.
    pub fn waiter(&self) -> Result<DnsWaiter, DnsError> {
        // SAFETY: the ring keeps its descriptor open for as long as it is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        descriptor.try_clone_to_owned().map(DnsWaiter).map_err(DnsError::Wait)
    }

    /// The time by the clock of the messages.
    pub fn now(&self) -> Monotonic {
        now::monotonic()
    }

    /// Hands over messages that are there, without waiting: so many at most that it ends, however fast they come.
    pub fn read(&mut self, mut sink: impl FnMut(&DnsPacket<'_>)) -> Result<(), DnsError> {
        let Self { ring, points, roles, .. } = self;
        for _ in 0..MOST_AT_ONCE {
            let Some(item) = ring.next() else { break };
            let (header, bytes) = record(&item).ok_or(DnsError::Record(item.len()))?;
            if roles.len() >= MOST_PLACES {
                roles.clear();
            }
            let role = roles
                .entry((header.row, header.ifindex))
                .or_insert_with(|| points.role_at(header.row, header.ifindex).unwrap_or(Role::Other));
            let tuple = Tuple::from_words(header.tuple);
            for body in bodies(tuple.protocol(), bytes) {
                let (time, ifindex) = (Monotonic(header.time_ns), header.ifindex);
                sink(&DnsPacket { time, tuple, ifindex, role: *role, body });
            }
        }
        Ok(())
    }

    /// What became of packets since loading.
    pub fn ledger(&self) -> Result<DnsLedger, DnsError> {
        let mut sum = DnsLedger::default();
        for words in self.counts.get(&0, 0)?.iter() {
            let counts: DnsCounts = zerocopy::transmute!(*words);
            sum.seen += counts.seen;
            sum.written += counts.written;
            sum.lost += counts.lost;
            sum.unreadable += counts.unreadable;
        }
        Ok(sum)
    }
}

/// Takes a record apart; `None` if it is shorter than it says, which no program writes.
fn record(record: &[u8]) -> Option<(DnsHeader, &[u8])> {
    let (header, bytes) = DnsHeader::read_from_prefix(record).ok()?;
    let bytes = bytes.get(..header.captured as usize)?;
    Some((header, bytes))
}
