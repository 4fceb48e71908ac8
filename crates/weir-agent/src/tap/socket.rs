//! What is kept of one socket: the two streams of a connection, or the datagrams exchanged with each peer.

use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weir_datapath::tap::{Closed, Opened, Side};
use weir_flow::{Monotonic, Tick};
use weir_l7::{
    Call, Chunk, Conversation, GapReason, Load, Protocol, Reassembly, Recognised, Sink, StreamLedger, Way,
    conversation,
};

use super::{At, Counts, Ended, Head, Output};

/// A socket that a rule lets through.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) opened: Opened,
    pub(super) kind: Kind,
    /// When it was last heard of.
    pub(super) last: Monotonic,
}

#[derive(Debug)]
pub(super) enum Kind {
    Stream(Box<Stream>),
    /// By the other end, where the socket has none of its own.
    Datagrams(HashMap<Option<SocketAddr>, Box<Datagrams>, RandomState>),
}

/// A connection and what is said over it.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) head: Head,
    conversation: Conversation,
    calls: u64,
    /// What is counted of it already.
    load: Load,
    /// Most bytes that calls of all connections may take.
    most_held: u64,
}

/// A connection of streams.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) talk: Talk,
    ways: [Reassembly; 2],
    /// Bytes and gaps that the kernel handed over, by way.
    captured: [u64; 2],
    gaps: [u64; 2],
    /// Whether bytes were handed over before it was known whose they are.
    is_late: bool,
}

/// Datagrams to and from one other end.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) talk: Talk,
    /// Datagrams of each way that come in pieces, of several threads at once.
    pieces: [Vec<Pieces>; 2],
    pub(super) last: Monotonic,
    sides: [Side; 2],
}

/// Most datagrams of one way that are in pieces at the same time.
const MOST_IN_PIECES: usize = 8;

/// Where a datagram is on its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Its position, which no other one has that is not empty.
    pub(super) start: u64,
    /// Its length.
    pub(super) length: u64,
}

/// The beginning of a datagram, and how much of it was told.
#[derive(Debug)]
struct Pieces {
    whole: Whole,
    bytes: Vec<u8>,
    /// Bytes up to the end of the last piece.
    told: u64,
    /// Why what is behind the bytes is not there.
    reason: Option<GapReason>,
    /// When the last piece was moved.
    time: Monotonic,
}

/// What everything on its way out passes.
struct Outlet<'a> {
    head: &'a mut Head,
    calls: &'a mut u64,
    counts: &'a mut Counts,
    tick: Tick,
    output: &'a mut dyn Output,
}

impl Sink for Outlet<'_> {
    fn chunk(&mut self, way: Way, chunk: Chunk<'_>) {
        self.output.chunk(&At { head: self.head, tick: self.tick }, way, chunk);
        self.head.next[way as usize] = chunk.end();
    }

    fn call(&mut self, call: Call) {
        *self.calls += 1;
        let place = Protocol::ALL.iter().position(|protocol| *protocol == call.protocol());
        self.counts.calls[place.unwrap_or_default()] += 1;
        self.output.call(&At { head: self.head, tick: self.tick }, &call);
    }
}

/// What is the same for all connections while an event is dealt with.
pub(super) struct Passing<'a> {
    pub(super) counts: &'a mut Counts,
    pub(super) tick: Tick,
    pub(super) output: &'a mut dyn Output,
}

impl Talk {
    pub(super) fn new(head: Head, settings: conversation::Settings, most_held: u64) -> Self {
        Self { head, conversation: Conversation::new(settings), calls: 0, load: Load::default(), most_held }
    }

    fn with<T>(
        &mut self,
        passing: &mut Passing<'_>,
        work: impl FnOnce(&mut Conversation, &mut Outlet<'_>) -> T,
    ) -> T {
        let Self { head, conversation, calls, load, most_held } = self;
        let Passing { counts, tick, output } = passing;
        conversation.be_brief(counts.held >= *most_held);
        let mut outlet = Outlet { head, calls, counts, tick: *tick, output: *output };
        let result = work(conversation, &mut outlet);
        let before = std::mem::replace(load, conversation.load());
        counts.held = counts.held + load.held - before.held;
        counts.left_out += load.left_out - before.left_out;
        counts.cut += load.cut - before.cut;
        if head.part.is_none()
            && let Recognised::Protocol(_, tapped) = conversation.recognised()
        {
            head.part = Some(tapped);
        }
        result
    }

    pub(super) fn at(&self, tick: Tick) -> At<'_> {
        At { head: &self.head, tick }
    }

    fn closed(&mut self, passing: &mut Passing<'_>, ended: &Ended) {
        passing.output.settle();
        passing.output.closed(&At { head: &self.head, tick: passing.tick }, ended);
    }
}

impl Stream {
    pub(super) fn new(talk: Talk, ways: [Reassembly; 2]) -> Self {
        let is_late = talk.head.opened.is_late;
        Self { talk, ways, captured: [0; 2], gaps: [0; 2], is_late }
    }

    /// Whether something waits, be it a gap.
    pub(super) fn has_hole(&self) -> bool {
        self.ways.iter().any(|way| way.ledger().waiting + way.ledger().waiting_gaps > 0)
    }

    pub(super) fn push(&mut self, way: Way, chunk: Chunk<'_>, passing: &mut Passing<'_>) {
        match chunk {
            Chunk::Bytes { .. } => self.captured[way as usize] += chunk.length(),
            Chunk::Gap { .. } => self.gaps[way as usize] += chunk.length(),
        }
        let stream = &mut self.ways[way as usize];
        let before = Marks::of(stream);
        self.talk.with(passing, |conversation, outlet| {
            stream.push(chunk, &mut |chunk| conversation.push(way, chunk, outlet));
        });
        before.count(stream, passing.counts);
    }

    /// Gives up on holes that are open for too long.
    pub(super) fn expire(&mut self, now: Monotonic, passing: &mut Passing<'_>) {
        for way in [Way::Sent, Way::Received] {
            let stream = &mut self.ways[way as usize];
            let before = Marks::of(stream);
            self.talk.with(passing, |conversation, outlet| {
                stream.expire(now, &mut |chunk| conversation.push(way, chunk, outlet));
            });
            before.count(stream, passing.counts);
        }
    }

    /// One end will say no more.
    pub(super) fn finished(&mut self, way: Way, time: Monotonic, passing: &mut Passing<'_>) {
        // What is missing before the end may still come.
        if !self.has_hole() {
            self.talk.with(passing, |conversation, outlet| conversation.end(way, time, outlet));
            passing.output.settle();
            passing.output.finished(&self.talk.at(passing.tick), way, time);
        }
    }

    /// The connection is over; nothing follows. `closed` is what the kernel counted, where it told.
    pub(super) fn close(&mut self, time: Monotonic, closed: Option<&Closed>, passing: &mut Passing<'_>) {
        let mut is_balanced = true;
        let mut sides = [Side::default(); 2];
        for way in [Way::Sent, Way::Received] {
            let index = way as usize;
            let stream = &mut self.ways[index];
            let before = Marks::of(stream);
            let side = closed.map(|closed| if way == Way::Sent { closed.sent } else { closed.received });
            let tail = self.talk.with(passing, |conversation, outlet| {
                let mut pass = |chunk: Chunk<'_>| conversation.push(way, chunk, outlet);
                stream.finish(time, None, &mut pass);
                let Some(side) = side else { return 0 };
                let end = length(&side);
                let next = stream.next_position().unwrap_or(0);
                let left = end.saturating_sub(next);
                if left > 0 {
                    // At the very end, positions do not tell what was lost from what nobody saw.
                    let reason = match (side.lost + side.untold, side.rejected + side.unseen.unwrap_or(0)) {
                        (_, 0) => GapReason::Lost,
                        (0, _) => GapReason::Unseen,
                        _ => GapReason::Missing,
                    };
                    let gap = Chunk::Gap { position: next, time, length: left, reason };
                    stream.push(gap, &mut pass);
                }
                left
            });
            before.count(stream, passing.counts);
            passing.counts.missing += tail;
            let ledger = stream.ledger();
            is_balanced &= ledger.is_balanced();
            if let Some(side) = side {
                passing.counts.unseen += side.unseen.unwrap_or(0);
                // Where threads share a socket, places are claimed twice, and others stay empty.
                let has_length =
                    ledger.duplicate + ledger.duplicate_gaps > 0 || ledger.length() == length(&side);
                let has_all = self.is_late
                    || self.captured[index] == side.captured && self.gaps[index] == side.gap() - side.untold;
                is_balanced &= side.is_balanced() && has_all && has_length;
            }
            sides[index] = side.unwrap_or_else(|| told(self.captured[index], self.gaps[index]));
        }
        self.talk.with(passing, |conversation, outlet| conversation.finish(time, outlet));
        if closed.is_some() {
            passing.counts.closed += 1;
            passing.counts.unbalanced += u64::from(!is_balanced);
        }
        let ended = Ended { time, sides, calls: self.talk.calls, is_balanced };
        self.talk.closed(passing, &ended);
    }
}

/// How long a stream is, by the kernel's counts.
fn length(side: &Side) -> u64 {
    side.seen + side.rejected + side.unseen.unwrap_or(0)
}

/// What a side comes to where the kernel does not tell.
fn told(captured: u64, gaps: u64) -> Side {
    let mut side = Side { seen: captured + gaps, captured, ..Side::default() };
    side.gaps[weir_datapath::tap::GapReason::Other as usize] = gaps;
    side
}

/// What is counted of the ledger of a stream, at one moment.
struct Marks {
    delivered: u64,
    duplicate: u64,
    waiting: u64,
    found_gaps: u64,
}

impl Marks {
    const fn of(stream: &Reassembly) -> Self {
        let StreamLedger { delivered, duplicate, waiting, found_gaps, .. } = *stream.ledger();
        Self { delivered, duplicate, waiting, found_gaps }
    }

    /// Adds what has changed since.
    const fn count(&self, stream: &Reassembly, counts: &mut Counts) {
        let after = Self::of(stream);
        counts.delivered += after.delivered - self.delivered;
        counts.duplicate += after.duplicate - self.duplicate;
        counts.waiting = counts.waiting + after.waiting - self.waiting;
        counts.missing += after.found_gaps - self.found_gaps;
    }
}

impl Datagrams {
    pub(super) fn new(talk: Talk, time: Monotonic) -> Self {
        Self { talk, pieces: Default::default(), last: time, sides: Default::default() }
    }

    /// A piece of a datagram, captured or not. Its position is that in the datagram.
    pub(super) fn push(&mut self, way: Way, whole: Whole, piece: Chunk<'_>, passing: &mut Passing<'_>) {
        let time = piece.time();
        self.last = time;
        if let (0, Some(bytes)) = (piece.position(), piece.bytes())
            && bytes.len() as u64 == whole.length
        {
            // Nearly all of them come whole.
            self.said(way, time, bytes, passing);
            self.sides[way as usize].seen += whole.length;
            return;
        }
        let waiting = &mut self.pieces[way as usize];
        let place = waiting.iter().position(|pieces| pieces.whole == whole);
        let place = place.unwrap_or_else(|| {
            let pieces = Pieces { whole, bytes: Vec::new(), told: 0, reason: None, time };
            waiting.push(pieces);
            waiting.len() - 1
        });
        let pieces = &mut waiting[place];
        if piece.position() > pieces.told {
            // Those between were lost.
            pieces.reason = pieces.reason.or(Some(GapReason::Lost));
        }
        match piece {
            Chunk::Bytes { data, .. } if pieces.reason.is_none() => {
                pieces.bytes.extend_from_slice(data);
                passing.counts.held += data.len() as u64;
            }
            Chunk::Bytes { .. } => {}
            Chunk::Gap { reason, .. } => pieces.reason = Some(pieces.reason.unwrap_or(reason)),
        }
        pieces.told = piece.end();
        pieces.time = time;
        if pieces.told >= whole.length {
            let pieces = waiting.remove(place);
            self.hand_on(way, &pieces, passing);
        } else if waiting.len() > MOST_IN_PIECES || passing.counts.held > self.talk.most_held {
            // The rest of the oldest was lost, or there is no room to wait for it.
            let pieces = waiting.remove(0);
            self.hand_on(way, &pieces, passing);
        }
    }

    fn hand_on(&mut self, way: Way, pieces: &Pieces, passing: &mut Passing<'_>) {
        let length = pieces.bytes.len() as u64;
        passing.counts.held -= length;
        if length > 0 {
            self.said(way, pieces.time, &pieces.bytes, passing);
        }
        self.sides[way as usize].seen += pieces.whole.length;
        let missing = pieces.whole.length.saturating_sub(length);
        if missing > 0 {
            let position = self.talk.head.next[way as usize];
            let reason = pieces.reason.unwrap_or(GapReason::Lost);
            self.sides[way as usize].gaps[weir_datapath::tap::GapReason::Other as usize] += missing;
            let gap = Chunk::Gap { position, time: pieces.time, length: missing, reason };
            self.talk.with(passing, |conversation, outlet| conversation.push(way, gap, outlet));
        }
    }

    /// Gives up on the rest of datagrams of which nothing was told since this time.
    fn give_up(&mut self, before: Monotonic, passing: &mut Passing<'_>) {
        for way in [Way::Sent, Way::Received] {
            for pieces in std::mem::take(&mut self.pieces[way as usize]) {
                if pieces.time < before {
                    self.hand_on(way, &pieces, passing);
                } else {
                    self.pieces[way as usize].push(pieces);
                }
            }
        }
    }

    fn said(&mut self, way: Way, time: Monotonic, data: &[u8], passing: &mut Passing<'_>) {
        self.sides[way as usize].captured += data.len() as u64;
        let position = self.talk.head.next[way as usize];
        let chunk = Chunk::Bytes { position, time, data };
        self.talk.with(passing, |conversation, outlet| conversation.push(way, chunk, outlet));
        passing.output.settle();
    }

    /// Gives up on what was asked before this time, or has not come whole since.
    pub(super) fn expire(&mut self, before: Monotonic, passing: &mut Passing<'_>) {
        self.give_up(before, passing);
        self.talk.with(passing, |conversation, outlet| conversation.expire(before, outlet));
    }

    pub(super) fn close(&mut self, time: Monotonic, passing: &mut Passing<'_>) {
        self.give_up(Monotonic(u64::MAX), passing);
        passing.counts.peers -= 1;
        self.talk.with(passing, |conversation, outlet| conversation.finish(time, outlet));
        let is_balanced = self.sides.iter().all(Side::is_balanced);
        let ended = Ended { time, sides: self.sides, calls: self.talk.calls, is_balanced };
        self.talk.closed(passing, &ended);
    }
}
