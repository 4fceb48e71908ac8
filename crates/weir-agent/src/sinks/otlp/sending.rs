//! [`Line`]: the entries of one signal that are to be brought, and how far that has got.
//!
//! Some requests are under way at a time, so that the next is made while the collector works, and it works on several
//! processors. What comes back is not sent again; what fails is kept as it was made.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{runtime::Runtime, task};

use super::{
    answer::{Answer, OtlpError},
    client::Client,
};
use crate::outlet::{Patience, WriteError};

/// Bytes of a request that is not made smaller even if it is too large.
const FEWEST_BYTES: usize = 16 << 10;

/// A request, and how many entries it has.
pub(super) type Request = (Bytes, usize);

/// Entries of one signal.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Entries from here on have not been looked at.
    next: usize,
    /// Entries that are to go into smaller requests.
    again: Vec<Range<usize>>,
    /// Requests that were made and have not arrived.
    made: Vec<Made>,
    /// What came of the others so far.
    pub(super) outcome: Outcome,
}

/// A request as it is sent.
#[derive(Clone, Debug)]
struct Made {
    body: Bytes,
    entries: Range<usize>,
    /// How large it was to be.
    most_bytes: usize,
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
    /// Brings the rest of `total` entries. `make` gives a request with the first of these entries, of about so many bytes.
    pub(super) fn bring(
        &mut self,
        total: usize,
        client: &mut Client,
        runtime: &Runtime,
        patience: &Patience,
        make: impl Fn(Range<usize>, usize) -> Request,
    ) -> Result<(), WriteError> {
        let mut failure = None;
        runtime.block_on(async {
            let mut under_way = FuturesUnordered::new();
            loop {
                while failure.is_none()
                    && under_way.len() < client.most_under_way
                    && let Some(made) = self.take(total, client, &make)
                {
                    match client.send(made.body.clone(), patience) {
                        Ok(answer) => under_way.push(answer.map(|answer| (made, answer))),
                        Err(error) => {
                            self.made.push(made);
                            failure = Some(error.not_now(None));
                        }
                    }
                    // Lets it leave before the next is made.
                    if let Some(Some((made, answer))) = under_way.next().now_or_never() {
                        self.settle(made, answer, client, &mut failure);
                    }
                    task::yield_now().await;
                }
                let Some((made, answer)) = under_way.next().await else { break };
                self.settle(made, answer, client, &mut failure);
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// The next request, if there is one.
    fn take(
        &mut self,
        total: usize,
        client: &Client,
        make: impl Fn(Range<usize>, usize) -> Request,
    ) -> Option<Made> {
        if let Some(made) = self.made.pop() {
            return Some(made);
        }
        let all = match self.again.pop() {
            Some(entries) => entries,
            None => std::mem::replace(&mut self.next, total)..total,
        };
        if all.is_empty() {
            return None;
        }
        let most_bytes = client.most_bytes;
        let (request, count) = make(all.clone(), most_bytes);
        let entries = all.start..(all.start + count).min(all.end);
        if entries.end < all.end {
            self.again.push(entries.end..all.end);
        }
        Some(Made { body: client.packed(request), entries, most_bytes })
    }

    /// Notes what came of a request.
    fn settle(&mut self, made: Made, answer: Answer, client: &mut Client, failure: &mut Option<WriteError>) {
        let entries = made.entries.len();
        match answer {
            Answer::Taken(refused) => {
                self.outcome.has_taken = true;
                self.outcome.note(refused);
            }
            Answer::TooLarge(_) if made.most_bytes > FEWEST_BYTES && entries > 1 => {
                client.most_bytes = client.most_bytes.min(made.most_bytes / 2);
                self.again.push(made.entries);
            }
            Answer::TooLarge(error) | Answer::Never(error) => {
                self.outcome.note(Some((entries as u64, error.to_string())));
            }
            Answer::NotNow(error, delay) => {
                if let OtlpError::Unreachable(..) | OtlpError::Silent(..) | OtlpError::Ending(_) = &error {
                    client.disconnect();
                }
                self.made.push(made);
                // Whoever asks to wait is listened to.
                if failure.is_none() || delay.is_some() {
                    *failure = Some(error.not_now(delay));
                }
            }
        }
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
