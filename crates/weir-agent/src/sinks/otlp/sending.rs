//! [`Line`]: the entries of one signal that are to be brought, and how far that has got.

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{answer::Answer, client::Client};
use crate::outlet::{Patience, WriteError};

/// Bytes of a request that is not made smaller even if it is too large.
const FEWEST_BYTES: usize = 16 << 10;

/// A request, and how many entries it has.
pub(super) type Request = (Bytes, usize);

/// Entries of one signal.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Entries that the collector has, or has refused.
    done: usize,
    /// The request that is being brought.
    request: Option<Request>,
    /// What came of them so far.
    pub(super) outcome: Outcome,
}

/// What came of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Entries that were refused, and what was said of the last.
    pub(super) refused: Option<(u64, String)>,
    /// Whether anything was taken.
    pub(super) has_taken: bool,
}

impl Line {
    /// Brings the rest of `total` entries. `make` gives a request with entries from a number on, of about so many bytes.
    pub(super) fn bring(
        &mut self,
        total: usize,
        client: &mut Client,
        runtime: &Runtime,
        patience: &Patience,
        make: impl Fn(usize, usize) -> Request,
    ) -> Result<(), WriteError> {
        while self.done < total {
            let (done, most_bytes) = (self.done, client.most_bytes);
            let (request, entries) = self.request.get_or_insert_with(|| make(done, most_bytes)).clone();
            match client.send(runtime, request, patience) {
                Answer::Taken(refused) => {
                    self.outcome.has_taken = true;
                    self.outcome.note(refused);
                }
                Answer::TooLarge(_) if client.most_bytes > FEWEST_BYTES && entries > 1 => {
                    client.most_bytes /= 2;
                    self.request = None;
                    continue;
                }
                Answer::TooLarge(error) | Answer::Never(error) => {
                    self.outcome.note(Some((entries as u64, error.to_string())));
                }
                Answer::NotNow(error, delay) => return Err(error.not_now(delay)),
            }
            self.request = None;
            self.done += entries;
        }
        Ok(())
    }
}

impl Outcome {
    /// Adds entries that were refused.
    pub(super) fn note(&mut self, refused: Option<(u64, String)>) {
        let Some((entries, text)) = refused else { return };
        let before = self.refused.take().map_or(0, |(before, _)| before);
        self.refused = Some((before + entries, text));
    }

    /// Adds what came of others.
    pub(super) fn add(&mut self, other: Self) {
        self.has_taken |= other.has_taken;
        self.note(other.refused);
    }
}
