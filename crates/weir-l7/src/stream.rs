//! [`Reassembly`]: pieces of one direction, in the order in which they arrive, become the stream in its own order.
//!
//! What is in order passes through without being copied. What arrives ahead of its turn waits, within limits; a hole that is
//! not filled in time becomes a gap that says so. What was there already is dropped and counted. Every byte that was given is
//! accounted for, see [`StreamLedger`]. When two pieces claim one place, the first that arrived has it: nothing is guessed.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use weir_flow::Monotonic;

use crate::{Chunk, GapReason};

/// What may wait for its turn in one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most bytes that wait.
    pub bytes: usize,
    /// Most pieces that wait.
    pub pieces: usize,
    /// How long a hole may stay open.
    pub patience: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { bytes: 256 << 10, pieces: 256, patience: Duration::from_secs(1) }
    }
}

/// What became of everything that was given. All numbers are bytes of the stream.
///
/// `given = delivered + duplicate + waiting`, `given_gaps + found_gaps = Σ gaps + duplicate_gaps + waiting_gaps`, and the
/// stream so far is `delivered + Σ gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLedger {
    /// Bytes that came in.
    pub given: u64,
    /// Of those, handed on.
    pub delivered: u64,
    /// Of those, dropped because their place was taken, or lay before the beginning.
    pub duplicate: u64,
    /// Of those, waiting for their turn.
    pub waiting: u64,
    /// Gaps that came in.
    pub given_gaps: u64,
    /// Gaps that were found here: holes that were not filled, and what is missing at the end.
    pub found_gaps: u64,
    /// Gaps that were dropped because their place was taken.
    pub duplicate_gaps: u64,
    /// Gaps that wait for their turn.
    pub waiting_gaps: u64,
    /// Gaps that were handed on, by [`GapReason`].
    pub gaps: [u64; GapReason::ALL.len()],
}

impl StreamLedger {
    /// Gaps of this reason that were handed on.
    pub const fn gap(&self, reason: GapReason) -> u64 {
        self.gaps[reason as usize]
    }

    /// Gaps of all reasons that were handed on.
    pub fn all_gaps(&self) -> u64 {
        self.gaps.iter().sum()
    }

    /// How long the stream is so far: what was handed on, as bytes or as gaps.
    pub fn length(&self) -> u64 {
        self.delivered + self.all_gaps()
    }

    /// Whether every byte is accounted for.
    pub fn is_balanced(&self) -> bool {
        let gaps = self.all_gaps() + self.duplicate_gaps + self.waiting_gaps;
        self.given == self.delivered + self.duplicate + self.waiting
            && self.given_gaps + self.found_gaps == gaps
    }
}

/// Puts one direction of a connection in order.
#[derive(Clone, Debug)]
pub struct Reassembly {
    limits: StreamLimits,
    /// Where what is handed on next begins; not known before the first piece.
    next: Option<u64>,
    /// What waits, by position. No two overlap, and all are behind `next`.
    waiting: BTreeMap<u64, Waiting>,
    /// Since when the first hole is open.
    hole_since: Monotonic,
    ledger: StreamLedger,
}

#[derive(Clone, Debug)]
struct Waiting {
    time: Monotonic,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Gap { length: u64, reason: GapReason },
}

impl Waiting {
    fn at(&self, position: u64) -> Chunk<'_> {
        let time = self.time;
        match &self.content {
            Content::Bytes(data) => Chunk::Bytes { position, time, data },
            Content::Gap { length, reason } => {
                Chunk::Gap { position, time, length: *length, reason: *reason }
            }
        }
    }
}

impl Default for Reassembly {
    /// With the usual limits, beginning with the first piece that comes.
    fn default() -> Self {
        Self::new(None, StreamLimits::default())
    }
}

impl Reassembly {
    /// Begins at a position; `None` where it is not known, then the first piece says it and what lies before is too late.
    pub fn new(start: Option<u64>, limits: StreamLimits) -> Self {
        Self {
            limits,
            next: start,
            waiting: BTreeMap::new(),
            hole_since: Monotonic(0),
            ledger: StreamLedger::default(),
        }
    }

    /// What became of everything so far.
    pub const fn ledger(&self) -> &StreamLedger {
        &self.ledger
    }

    /// Where what is handed on next begins; `None` before the first piece.
    pub const fn next_position(&self) -> Option<u64> {
        self.next
    }

    /// Takes a piece and hands on what is in order now.
    pub fn push(&mut self, chunk: Chunk<'_>, out: &mut impl FnMut(Chunk<'_>)) {
        match chunk {
            Chunk::Bytes { .. } => self.ledger.given += chunk.length(),
            Chunk::Gap { .. } => self.ledger.given_gaps += chunk.length(),
        }
        let next = *self.next.get_or_insert(chunk.position());
        if chunk.position() == next && self.waiting.is_empty() && chunk.length() > 0 {
            // So it is nearly always.
            return self.deliver(chunk, out);
        }
        let (early, chunk) = chunk.split(next);
        if let Some(early) = early {
            self.drop_duplicate(&early);
        }
        let Some(mut chunk) = chunk else { return };
        if chunk.position() == next {
            let taken = self.waiting.keys().next().copied().unwrap_or(u64::MAX);
            let (now, later) = chunk.split(taken);
            if let Some(now) = now {
                self.deliver(now, out);
            }
            self.advance(out);
            let Some(later) = later else { return };
            // Of what is left, a part may be there already.
            let (late, later) = later.split(self.next.unwrap_or(next));
            if let Some(late) = late {
                self.drop_duplicate(&late);
            }
            let Some(later) = later else { return };
            if Some(later.position()) == self.next && self.waiting.is_empty() {
                self.deliver(later, out);
                return;
            }
            chunk = later;
        }
        self.store(chunk);
        self.advance(out);
        while self.waiting.len() > self.limits.pieces || self.ledger.waiting > self.limits.bytes as u64 {
            self.give_up_hole(chunk.time(), out);
        }
    }

    /// Gives up on holes that have been open for too long.
    pub fn expire(&mut self, now: Monotonic, out: &mut impl FnMut(Chunk<'_>)) {
        while !self.waiting.is_empty() && now - self.hole_since >= self.limits.patience {
            self.give_up_hole(now, out);
        }
    }

    /// Hands on all that waits, with gaps for the holes. `end` is where the stream ended, where somebody knows: what is
    /// missing up to there is a gap too.
    pub fn finish(&mut self, now: Monotonic, end: Option<u64>, out: &mut impl FnMut(Chunk<'_>)) {
        while !self.waiting.is_empty() {
            self.give_up_hole(now, out);
        }
        let (Some(next), Some(end)) = (self.next, end) else { return };
        if end > next {
            let length = end - next;
            self.ledger.found_gaps += length;
            self.deliver(Chunk::Gap { position: next, time: now, length, reason: GapReason::Unseen }, out);
        }
    }

    /// Keeps what has no place among the waiting yet.
    fn store(&mut self, chunk: Chunk<'_>) {
        if self.waiting.is_empty() {
            self.hole_since = chunk.time();
        }
        let mut rest = Some(chunk);
        while let Some(chunk) = rest.take() {
            let before = self.waiting.range(..=chunk.position()).next_back();
            let taken = before.map_or(0, |(position, waiting)| waiting.at(*position).end());
            let (duplicate, chunk) = chunk.split(taken);
            if let Some(duplicate) = duplicate {
                self.drop_duplicate(&duplicate);
            }
            let Some(chunk) = chunk else { return };
            let behind = self.waiting.range(chunk.position()..).next();
            let (fresh, later) = chunk.split(behind.map_or(u64::MAX, |(position, _)| *position));
            rest = later;
            let Some(fresh) = fresh else { continue };
            let content = match fresh {
                Chunk::Bytes { data, .. } => {
                    self.ledger.waiting += fresh.length();
                    // Nothing can be beyond the last position.
                    Content::Bytes(data[..usize::try_from(fresh.length()).unwrap_or(data.len())].to_vec())
                }
                Chunk::Gap { reason, .. } => {
                    self.ledger.waiting_gaps += fresh.length();
                    Content::Gap { length: fresh.length(), reason }
                }
            };
            self.waiting.insert(fresh.position(), Waiting { time: fresh.time(), content });
        }
    }

    /// Hands on what waits and whose turn it is.
    fn advance(&mut self, out: &mut impl FnMut(Chunk<'_>)) {
        while let Some(entry) = self.waiting.first_entry() {
            if Some(*entry.key()) != self.next {
                self.hole_since = self.hole_since.max(entry.get().time);
                return;
            }
            let (position, waiting) = entry.remove_entry();
            let chunk = waiting.at(position);
            match chunk {
                Chunk::Bytes { .. } => self.ledger.waiting -= chunk.length(),
                Chunk::Gap { .. } => self.ledger.waiting_gaps -= chunk.length(),
            }
            self.deliver(chunk, out);
        }
    }

    /// Turns the first hole into a gap, and hands on what is behind it.
    fn give_up_hole(&mut self, now: Monotonic, out: &mut impl FnMut(Chunk<'_>)) {
        let (Some(next), Some(first)) = (self.next, self.waiting.keys().next().copied()) else { return };
        if first > next {
            let length = first - next;
            self.ledger.found_gaps += length;
            self.deliver(Chunk::Gap { position: next, time: now, length, reason: GapReason::Missing }, out);
        }
        self.advance(out);
    }

    fn deliver(&mut self, chunk: Chunk<'_>, out: &mut impl FnMut(Chunk<'_>)) {
        self.next = Some(chunk.end());
        match chunk {
            Chunk::Bytes { .. } => self.ledger.delivered += chunk.length(),
            Chunk::Gap { reason, .. } => self.ledger.gaps[reason as usize] += chunk.length(),
        }
        out(chunk);
    }

    fn drop_duplicate(&mut self, chunk: &Chunk<'_>) {
        match chunk {
            Chunk::Bytes { .. } => self.ledger.duplicate += chunk.length(),
            Chunk::Gap { .. } => self.ledger.duplicate_gaps += chunk.length(),
        }
    }
}
