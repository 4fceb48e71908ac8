//! The `otlp` sink: flows for an OpenTelemetry Collector, or whatever else understands OTLP.
//!
//! Each flow is a log record (`flows`); sums of edges are metrics (`metrics`); and if that is wanted, each connection that has
//! ended is a span (`spans`). Some requests are under way at a time. What has been taken is not sent again when another
//! request of the same batch fails; but a request whose answer is lost may have been taken all the same, and OTLP has no way
//! to ask.

mod answer;
mod client;
mod config;
mod envelope;
mod environment;
mod flows;
mod grpc;
mod headers;
mod http_protobuf;
mod metrics;
mod sending;
mod spans;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod wire;
mod writer;

pub(crate) use self::environment::Lookup;
pub use self::{
    config::{
        AttributeDocument, Compression, Document, MetricsPlan, Plan, Protocol, Temporality, TlsDocument,
    },
    headers::{HeaderDocument, HeaderSource, HiddenText},
    target::Target,
    writer::OtlpWriter,
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Signal {
    Logs,
    Metrics,
    Spans,
}

impl Signal {
    /// Its name in variables.
    const fn in_variables(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
            Self::Spans => "TRACES",
        }
    }

    /// Its path with HTTP.
    const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
            Self::Spans => "/v1/traces",
        }
    }

    /// Its path with gRPC.
    const fn method(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Spans => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }
}
