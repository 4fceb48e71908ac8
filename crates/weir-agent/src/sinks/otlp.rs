//! The `otlp` sink: flows for an OpenTelemetry Collector, or whatever else understands OTLP.
//!
//! Requests are made and sent one after the other. What has been taken is not sent again when a later request of the same
//! batch fails; but a request whose answer is lost may have been taken all the same, and OTLP has no way to ask.

mod answer;
mod client;
mod config;
mod envelope;
mod environment;
mod flows;
mod grpc;
mod headers;
mod http_protobuf;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod wire;
mod writer;

pub(crate) use self::environment::Lookup;
pub use self::{
    config::{AttributeDocument, Compression, Document, Plan, Protocol, TlsDocument},
    headers::{HeaderDocument, HeaderSource, HiddenText},
    target::Target,
    writer::OtlpWriter,
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Signal {
    Logs,
}

impl Signal {
    /// Its name in variables.
    const fn in_variables(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
        }
    }

    /// Its path with HTTP.
    const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
        }
    }

    /// Its path with gRPC.
    const fn method(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}
