//! [`Decoder`]: the protocol of a connection, once it is known.

#[cfg(test)]
pub(crate) mod script;

use weir_flow::Monotonic;

use crate::{
    Moment, Part, Transport,
    call::{Call, Keep, Protocol},
    dns::Dns,
    exchange::Trust,
    http1::Http1,
    postgresql::Postgresql,
    redis::Redis,
};

/// A connection of a known protocol. Chunks of each side come in the order of its stream.
#[derive(Debug)]
pub(crate) enum Decoder {
    Http(Box<Http1>),
    Dns(Box<Dns>),
    Postgresql(Box<Postgresql>),
    Redis(Box<Redis>),
}

impl Decoder {
    /// `trust` is certain for a connection that is seen from its beginning.
    pub(crate) fn new(protocol: Protocol, transport: Transport, trust: Trust, keep: Keep) -> Self {
        match protocol {
            Protocol::Http => Self::Http(Box::new(Http1::new(trust, keep))),
            Protocol::Dns => {
                Self::Dns(Box::new(Dns::new(transport == Transport::Stream, trust != Trust::Certain)))
            }
            Protocol::Postgresql => Self::Postgresql(Box::new(Postgresql::new(trust))),
            Protocol::Redis => Self::Redis(Box::new(Redis::new(trust))),
        }
    }

    pub(crate) fn bytes(&mut self, part: Part, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        match (self, part) {
            (Self::Http(http), Part::Client) => http.client_bytes(at, data, out),
            (Self::Http(http), Part::Server) => http.server_bytes(at, data, out),
            (Self::Dns(dns), part) => dns.bytes(part, at, data, out),
            (Self::Postgresql(postgresql), Part::Client) => postgresql.client_bytes(at, data, out),
            (Self::Postgresql(postgresql), Part::Server) => postgresql.server_bytes(at, data, out),
            (Self::Redis(redis), Part::Client) => redis.client_bytes(at, data, out),
            (Self::Redis(redis), Part::Server) => redis.server_bytes(at, data, out),
        }
    }

    pub(crate) fn gap(&mut self, part: Part, at: Moment, length: u64, out: &mut Vec<Call>) {
        match (self, part) {
            (Self::Http(http), Part::Client) => http.client_gap(at, length, out),
            (Self::Http(http), Part::Server) => http.server_gap(at, length, out),
            (Self::Dns(dns), part) => dns.gap(part, at, length, out),
            (Self::Postgresql(postgresql), Part::Client) => postgresql.client_gap(at, length, out),
            (Self::Postgresql(postgresql), Part::Server) => postgresql.server_gap(at, length, out),
            (Self::Redis(redis), Part::Client) => redis.client_gap(length),
            (Self::Redis(redis), Part::Server) => redis.server_gap(length, out),
        }
    }

    /// One side will say no more.
    pub(crate) fn end(&mut self, part: Part, time: Monotonic, out: &mut Vec<Call>) {
        match (self, part) {
            (Self::Http(http), Part::Client) => http.client_end(),
            (Self::Http(http), Part::Server) => http.server_end(time, out),
            (Self::Postgresql(postgresql), Part::Server) => postgresql.server_end(out),
            (Self::Redis(redis), Part::Server) => redis.server_end(time, out),
            (Self::Dns(_), _) | (Self::Postgresql(_) | Self::Redis(_), Part::Client) => {}
        }
    }

    /// Gives up on datagrams without answers that were said before this time.
    pub(crate) fn expire(&mut self, before: Monotonic, out: &mut Vec<Call>) {
        if let Self::Dns(dns) = self {
            dns.expire(before, out);
        }
    }

    /// The connection is over.
    pub(crate) fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        match self {
            Self::Http(http) => http.finish(time, out),
            Self::Dns(dns) => dns.finish(out),
            Self::Postgresql(postgresql) => postgresql.finish(out),
            Self::Redis(redis) => redis.finish(time, out),
        }
    }

    /// How many bytes of a body this side has still to say before its next message, where that is known.
    pub(crate) fn left_in_body(&self, part: Part) -> Option<u64> {
        match self {
            Self::Http(http) => http.left_in_body(part),
            Self::Dns(_) | Self::Postgresql(_) | Self::Redis(_) => None,
        }
    }

    /// Whether what this side says is understood at present; otherwise a boundary was lost, or it is another protocol by now.
    pub(crate) fn understands(&self, part: Part) -> bool {
        match (self, part) {
            (Self::Http(http), Part::Client) => http.understands_client(),
            (Self::Http(http), Part::Server) => http.understands_server(),
            (Self::Dns(dns), part) => dns.understands(part),
            (Self::Postgresql(postgresql), Part::Client) => postgresql.understands_client(),
            (Self::Postgresql(postgresql), Part::Server) => postgresql.understands_server(),
            (Self::Redis(redis), Part::Client) => redis.understands_client(),
            (Self::Redis(redis), Part::Server) => redis.understands_server(),
        }
    }
}
