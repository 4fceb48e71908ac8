//! What is said over a connection: streams with gaps become calls of known protocols, without their secrets.
//!
//! Pure: no I/O, no clock (time comes in with each [`Chunk`]), no async runtime. Memory is bounded per connection, by
//! constants and limits with names. Nothing panics, whatever the bytes are.

#![forbid(unsafe_code)]

pub mod call;
mod chunk;
pub mod conversation;
mod decoder;
pub mod detect;
mod dns;
mod exchange;
mod http1;
mod postgresql;
pub mod redact;
mod redis;
mod scan;
mod sides;
pub mod stream;

use weir_flow::Monotonic;

pub use call::{Call, Ending, Keep, Protocol};
pub use chunk::{Chunk, GapReason};
pub use conversation::{Conversation, Load, Settings, Sink, Way};
pub use detect::{Foreign, Recognised};
pub use redact::Redactor;
pub use stream::{Reassembly, StreamLedger, StreamLimits};

/// Which part an end of a connection plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// It asks.
    Client,
    /// It answers.
    Server,
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a stream: TCP. Chunks begin and end anywhere.
    Stream,
    /// As datagrams: UDP. Each chunk is one.
    Datagram,
}

/// Where on a stream something is, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) position: u64,
    pub(crate) time: Monotonic,
}

impl Moment {
    /// So many bytes further, at the same time.
    pub(crate) fn behind(self, bytes: usize) -> Self {
        self.behind_gap(bytes as u64)
    }

    /// The same for a gap.
    pub(crate) fn behind_gap(self, length: u64) -> Self {
        Self { position: self.position.saturating_add(length), time: self.time }
    }
}
