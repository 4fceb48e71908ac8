//! [`Weave`]: text without what stands beside it on the stream, and both together again.

use std::collections::VecDeque;

use super::{Held, Writer};
use crate::Chunk;

/// Most bytes beside the text that wait for it.
const MOST_WAITING: usize = 4096;

/// One side. The text has positions of its own, in which what stands beside it has no bytes.
#[derive(Debug, Default)]
pub(super) struct Weave {
    /// Bytes beside the text so far.
    given: u64,
    /// Of these, the ones that were handed on.
    told: u64,
    /// The others: text in front of them waits.
    waiting: VecDeque<Held>,
    waiting_bytes: usize,
}

impl Weave {
    /// Where text that is here on the stream is in the text.
    pub(super) const fn within_text(&self, position: u64) -> u64 {
        position.saturating_sub(self.given)
    }

    /// So many bytes beside the text were handed on by somebody else; nothing waits.
    pub(super) const fn pass_by(&mut self, bytes: usize) {
        self.given = self.given.saturating_add(bytes as u64);
        self.told = self.told.saturating_add(bytes as u64);
    }

    /// Takes bytes that stand beside the text, which may have to wait for it.
    pub(super) fn beside(&mut self, data: &[u8], must_wait: bool, writer: &mut Writer<'_>) {
        if !must_wait {
            self.pass_by(data.len());
            return writer.pass(data);
        }
        self.given = self.given.saturating_add(data.len() as u64);
        self.waiting_bytes += data.len();
        let mut held = Held::new();
        held.keep(data, writer);
        self.waiting.push_back(held);
    }

    /// Whether the text must not let them wait any longer.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting_bytes > MOST_WAITING
    }

    /// Hands on a piece of the text, and what stands beside it.
    pub(super) fn text(&mut self, piece: Chunk<'_>, out: &mut dyn FnMut(Chunk<'_>)) {
        let mut rest = Some(piece.moved(self.told));
        while let Some(piece) = rest.take() {
            let Some(next) = self.waiting.front() else { return out(piece) };
            let (before, behind) = piece.split(next.position);
            if let Some(before) = before {
                out(before);
            }
            rest = behind.map(|behind| behind.moved(self.tell(out)));
        }
    }

    /// Hands on what waits beside the text: all of the text was.
    pub(super) fn flush(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        while !self.waiting.is_empty() {
            self.tell(out);
        }
    }

    /// Hands on what comes next, and says how many bytes it is.
    fn tell(&mut self, out: &mut dyn FnMut(Chunk<'_>)) -> u64 {
        let Some(mut next) = self.waiting.pop_front() else { return 0 };
        let bytes = next.bytes.len();
        next.release(false, out);
        self.waiting_bytes -= bytes;
        self.told = self.told.saturating_add(bytes as u64);
        bytes as u64
    }
}
