//! [`Consumer`]: what is written once per sink, and what it is given.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::Patience;
use crate::batch::Batch;

/// Any error; only its text is of interest.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Longest time that a consumer is left alone if it asks for that.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A batch with a name that no other has, in this life of the agent or any other.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The name. It stays the same when a batch is brought again, also by the next life of the agent, so whoever keeps
    /// the names of what it has can tell what it has already.
    pub id: ParcelId,
    /// The records.
    pub batch: Arc<Batch>,
}

/// 128 bits, half of them random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParcelId(pub u128);

/// What a consumer says of parcels that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Receipt {
    /// Records of them that it then refused without saying which, and what it said of it.
    pub refused: Option<(u64, String)>,
}

/// Why parcels were not delivered.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The consumer is away or busy: the same parcels will be brought again.
    #[error(transparent)]
    Retry(BoxError),
    /// As before, and it said how long it wants to be left alone.
    #[error("{reason}; it wants to be asked again in {after:?}")]
    RetryAfter {
        /// How long.
        after: Duration,
        /// What it said.
        reason: BoxError,
    },
    /// It will never take these. Where there were several, each is brought once more by itself.
    #[error(transparent)]
    Reject(BoxError),
}

/// Takes parcels: a store, a sink, the live view. It lives on a thread of its own and may block there.
pub trait Consumer: Send {
    /// Takes all parcels or none of them. After an error other than [`WriteError::Reject`] the next call brings the same ones. It
    /// returns soon once `patience` is over.
    fn write(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<Receipt, WriteError>;

    /// When it wants to be woken. That is done between two deliveries, so perhaps later.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }

    /// Does what it does from time to time, whether parcels come or not. An error is told until it is called again without
    /// one, and keeps no parcels waiting; the consumer itself says by `wakes_at` when it tries again.
    fn wake(&mut self, _patience: &Patience) -> Result<Receipt, WriteError> {
        Ok(Receipt::default())
    }

    /// Finishes what it holds back; called once, at the end.
    fn finish(&mut self) {}
}

/// How much is brought at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Records at which no more are added. A batch is never divided, so there may be more.
    pub records: usize,
    /// Bytes at which no more are added, as the spool counts them.
    pub bytes: u64,
    /// Longest wait for more.
    pub time: Duration,
}

impl Batching {
    /// One batch at a time, at once.
    pub const SINGLE: Self = Self { records: 1, bytes: 1, time: Duration::ZERO };
}
