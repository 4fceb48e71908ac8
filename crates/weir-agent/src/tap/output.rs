//! [`Output`]: where calls and bytes go.

use std::io;

use weir_datapath::tap::Side;
use weir_flow::{Monotonic, Tick};
use weir_l7::{Call, Chunk, Way};

use super::{Head, Summary, WriterError};

/// Where and when something happens.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The connection.
    pub head: &'a Head,
    /// What the time of events is on people's clock.
    pub tick: Tick,
}

/// A connection that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// When.
    pub time: Monotonic,
    /// What was sent and received, as the kernel counted; of datagrams, as far as it was told.
    pub sides: [Side; 2],
    /// Calls that were understood.
    pub calls: u64,
    /// Whether every byte is accounted for.
    pub is_balanced: bool,
}

/// Takes what a [`Session`](super::Session) hands out. Nothing that comes here has secrets in it, unless masking is switched off.
///
/// What cannot be written is told by [`Output::flush`], not byte by byte.
pub trait Output {
    /// A connection is seen for the first time.
    fn opened(&mut self, _at: &At<'_>) {}

    /// A piece of a stream, or a gap in it, in order. All pieces of a datagram come together, before [`Output::settle`].
    fn chunk(&mut self, _at: &At<'_>, _way: Way, _chunk: Chunk<'_>) {}

    /// Everything that one event brought has been handed over.
    fn settle(&mut self) {}

    /// One end will say no more.
    fn finished(&mut self, _at: &At<'_>, _way: Way, _time: Monotonic) {}

    /// A call that is over.
    fn call(&mut self, _at: &At<'_>, _call: &Call) {}

    /// The connection is over.
    fn closed(&mut self, _at: &At<'_>, _ended: &Ended) {}

    /// Hands on what waits, and says what went wrong since the last time.
    fn flush(&mut self) -> io::Result<()>;

    /// Adds what is only known at the end. Nothing comes behind it.
    fn finish(&mut self, summary: &Summary) -> Result<(), WriterError>;
}
