//! [`Decode`]: the protocol of a connection, once it is known.

#[cfg(test)]
pub(crate) mod script;

use std::fmt::Debug;

use weir_flow::Monotonic;

use crate::{
    Load, Moment, Part, Transport,
    call::{Call, Keep, Protocol},
    dns::Dns,
    exchange::Trust,
    http1::Http1,
    postgresql::Postgresql,
    redis::Redis,
};

/// A connection of a known protocol becomes calls. Chunks of each side come in the order of its stream.
pub(crate) trait Decode: Debug + Send {
    /// A side says something.
    fn bytes(&mut self, part: Part, at: Moment, data: &[u8], out: &mut Vec<Call>);

    /// Bytes that a side said are not there.
    fn gap(&mut self, part: Part, at: Moment, length: u64, out: &mut Vec<Call>);

    /// One side will say no more.
    fn end(&mut self, part: Part, time: Monotonic, out: &mut Vec<Call>);

    /// The connection is over.
    fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>);

    /// Whether what this side says is understood at present; otherwise a boundary was lost, or it is another protocol by now.
    fn understands(&self, part: Part) -> bool;

    /// What is held of calls that are not over, and what was left out.
    fn load(&self) -> Load;

    /// Says whether there is no room for more than one request without an answer, and none for what is kept of messages.
    fn be_brief(&mut self, is_brief: bool);

    /// A call was handed out.
    fn told(&mut self, _call: &Call) {}

    /// Gives up on datagrams without answers that were said before this time.
    fn expire(&mut self, _before: Monotonic, _out: &mut Vec<Call>) {}
}

/// For a protocol; `trust` is certain for a connection that is seen from its beginning.
pub(crate) fn decoder(protocol: Protocol, transport: Transport, trust: Trust, keep: Keep) -> Box<dyn Decode> {
    match protocol {
        Protocol::Http => Box::new(Http1::new(trust, keep)),
        Protocol::Dns => Box::new(Dns::new(transport == Transport::Stream, trust != Trust::Certain)),
        Protocol::Postgresql => Box::new(Postgresql::new(trust)),
        Protocol::Redis => Box::new(Redis::new(trust)),
    }
}
