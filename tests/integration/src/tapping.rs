//! A tap of this very process, and what it tells, compared with what was sent: every byte of a stream is known by its key
//! and position.

pub mod datagrams;
pub mod matrix;
pub mod peers;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use weir_datapath::tap::{
    Chosen, Closed, Event, GapReason, Limits, Opened, Payload, Processes, Rule, RuleId, Settings, Side,
    SocketId, Tap, TapError, Tier, Totals, Way,
};

use crate::{cannot_run, require_root};

/// Longest time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps other tests that ask for this from running, which a test needs whose tap counts what the whole process does, or
/// that knows which descriptor comes next. `None` without privilege, which has then been said.
#[must_use]
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    require_root().then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The byte of a stream at a position.
pub fn byte(key: u64, position: u64) -> u8 {
    let word = (position / 8).wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // The mixing of splitmix64: neighbouring words have nothing in common.
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ word >> 31).to_le_bytes()[usize::try_from(position % 8).unwrap_or(0)]
}

/// Part of a stream.
pub fn stream(key: u64, position: u64, length: usize) -> Vec<u8> {
    (position..).take(length).map(|position| byte(key, position)).collect()
}

/// A new connection to `to`, where `listener` listens, and the cookies of both ends, client first.
pub fn connection(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream, [SocketId; 2]) {
    let client = TcpStream::connect(to).expect("somebody listens");
    let (server, _) = listener.accept().expect("a connection waits");
    let ids = [socket_id(&client), socket_id(&server)];
    (client, server, ids)
}

/// The cookie of a socket.
pub fn socket_id(socket: &impl AsFd) -> SocketId {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).expect("it has eight bytes");
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most eight bytes.
    let outcome = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(outcome, 0, "sockets have cookies");
    SocketId(cookie)
}

/// A rule for everything that this process does, with a number.
pub fn own_rule(id: u32) -> Rule {
    Rule {
        id: RuleId(id),
        processes: Processes { pids: vec![process::id()], ..Processes::default() },
        networks: Vec::new(),
        ports: Vec::new(),
        way: None,
        role: None,
        payload: Payload::Full,
        limits: Limits { call: 1 << 20, ..Limits::default() },
    }
}

/// The tier that tests are asked to use (`WEIR_TAP_TIER`), the best one otherwise.
pub fn tier() -> Option<Tier> {
    std::env::var("WEIR_TAP_TIER").ok().and_then(|letter| Tier::from_letter(&letter))
}

/// A part of a stream as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte.
    pub position: u64,
    /// How many.
    pub length: u64,
    /// The bytes, or why there are none.
    pub bytes: Result<Vec<u8>, GapReason>,
    /// The other end, of a datagram.
    pub peer: Option<SocketAddr>,
    /// The rule.
    pub rule: RuleId,
    /// The process.
    pub pid: u32,
}

/// What was told of a socket, in this order.
#[derive(Debug, Default)]
pub struct Told {
    /// Openings.
    pub opened: Vec<Opened>,
    /// Pieces, by direction.
    pub pieces: [Vec<Piece>; 2],
    /// Sides that ended.
    pub finished: Vec<Way>,
    /// Its closing.
    pub closed: Option<Closed>,
    /// Bytes that came before the opening or after the closing.
    pub misplaced: u64,
}

impl Told {
    /// Pieces of a direction.
    pub fn side(&self, way: Way) -> &[Piece] {
        &self.pieces[way as usize]
    }

    /// Bytes that were told of a direction, and those of the gaps by reason.
    pub fn sums(&self, way: Way) -> (u64, BTreeMap<GapReason, u64>) {
        let mut captured = 0;
        let mut gaps = BTreeMap::new();
        for piece in self.side(way) {
            match &piece.bytes {
                Ok(_) => captured += piece.length,
                Err(reason) => *gaps.entry(*reason).or_default() += piece.length,
            }
        }
        (captured, gaps)
    }

    /// How many bytes are other than those of the stream with that key.
    pub fn wrong_bytes(&self, way: Way, key: u64) -> usize {
        let pieces = self.side(way).iter();
        let known = pieces.filter_map(|piece| Some((piece.position, piece.bytes.as_ref().ok()?)));
        known
            .map(|(position, bytes)| {
                bytes.iter().zip(position..).filter(|(told, position)| **told != byte(key, *position)).count()
            })
            .sum()
    }

    /// Holes and overlaps of a direction, in bytes: what lies between the pieces, and what two of them have in common.
    pub fn holes(&self, way: Way) -> (u64, u64) {
        let mut pieces: Vec<_> =
            self.side(way).iter().map(|piece| (piece.position, piece.position + piece.length)).collect();
        pieces.sort_unstable();
        let (mut end, mut holes, mut overlaps) = (0, 0, 0);
        for (from, to) in pieces {
            holes += from.saturating_sub(end);
            overlaps += end.min(to).saturating_sub(from);
            end = end.max(to);
        }
        (holes, overlaps)
    }

    /// The ledger of a direction at the closing.
    pub fn ledger(&self, way: Way) -> Side {
        let closed = self.closed.expect("the closing was told");
        if way == Way::Sent { closed.sent } else { closed.received }
    }
}

/// An open tap and what it has told.
#[derive(Debug)]
pub struct Recorder {
    /// The tap.
    pub tap: Tap,
    /// What it uses.
    pub chosen: Chosen,
    /// What it told, by socket.
    pub told: BTreeMap<SocketId, Told>,
}

impl Recorder {
    /// Opens a tap with rules. `None`, with the reason printed, where that is not possible.
    pub fn open(settings: &Settings, rules: &[Rule]) -> Option<Self> {
        let settings = Settings { tier: settings.tier.or(tier()), ..*settings };
        match Tap::open(&settings) {
            Ok((mut tap, chosen)) => {
                tap.set_rules(rules).expect("the rules are in order");
                Some(Self { tap, chosen, told: BTreeMap::new() })
            }
            Err(error @ TapError::Rule(_)) => panic!("{error}"),
            Err(error) => {
                cannot_run(&error.to_string());
                None
            }
        }
    }

    /// Takes what waits.
    pub fn read(&mut self) -> usize {
        let Self { tap, told, .. } = self;
        tap.read(&mut |event| take(told, event)).expect("the rings can be read")
    }

    /// Takes what comes until something holds. Panics if it does not in time.
    pub fn read_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.read();
            if holds(self) {
                return;
            }
            assert!(Instant::now() < end, "{what} was not told in time");
            self.tap.wait(Duration::from_millis(100)).expect("waiting works");
        }
    }

    /// Takes what comes until a socket's closing was told, and hands over all of it.
    pub fn closing(&mut self, socket: SocketId) -> Told {
        self.read_until("a closing", |recorder| {
            recorder.told.get(&socket).is_some_and(|told| told.closed.is_some())
        });
        self.told.remove(&socket).expect("it is there")
    }

    /// Closes the tap and returns what it told altogether.
    pub fn close(self) -> (BTreeMap<SocketId, Told>, Totals) {
        let Self { tap, mut told, .. } = self;
        let totals = tap.close(&mut |event| take(&mut told, event)).expect("it can be closed");
        (told, totals)
    }
}

fn take(told: &mut BTreeMap<SocketId, Told>, event: &Event<'_>) {
    let (place, length, bytes) = match *event {
        Event::Data(data) => (data.place, data.bytes.len() as u64, Ok(data.bytes.to_vec())),
        Event::Gap(gap) => (gap.place, gap.length, Err(gap.reason)),
        Event::Opened(opened) => return told.entry(opened.socket).or_default().opened.push(opened),
        Event::Finished(finished) => {
            return told.entry(finished.socket).or_default().finished.push(finished.way);
        }
        Event::Closed(closed) => {
            told.entry(closed.socket).or_default().closed = Some(closed);
            return;
        }
    };
    let told = told.entry(place.socket).or_default();
    if told.opened.is_empty() || told.closed.is_some() {
        told.misplaced += length;
    }
    told.pieces[place.way as usize].push(Piece {
        position: place.position,
        length,
        bytes,
        peer: place.peer,
        rule: place.rule,
        pid: place.pid,
    });
}
