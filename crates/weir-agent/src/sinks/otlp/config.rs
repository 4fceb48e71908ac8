//! Which collector, what it gets, and how.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Signal,
    environment::{self, Lookup, Variables},
    headers::HeaderDocument,
    target::{self, Target},
};
use crate::{
    config::{At, LengthText, Problems},
    outlet::Batching,
    sinks::{BatchDocument, Shared, SpoolDocument, Surroundings, prometheus},
};

/// A collector or back end that understands OTLP. What is left out here, the standard variables `OTEL_EXPORTER_OTLP_…` say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Document {
    /// Name in logs, metrics and the ledger; by default the type.
    pub name: Option<String>,
    /// Only flows that match this filter.
    pub filter: String,
    /// Most flows that wait for this sink in memory; beyond that, those that are on disk are read back from there.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: usize,
    /// Where flows wait on disk, across restarts. On unless said otherwise.
    pub spool: SpoolDocument,
    /// How much is sent at a time. Larger ones are divided into requests of less than 4 MiB.
    pub batch: BatchDocument,
    /// Where it listens, such as `http://collector:4318`; `https` means TLS. With `http/protobuf`, `/v1/logs` and the
    /// like are added. Without it and without a variable: port 4318 of this machine, or 4317 with `grpc`.
    pub endpoint: Option<String>,
    /// How to talk to it; `http/protobuf` unless a variable says something else.
    pub protocol: Option<Protocol>,
    /// Headers of each request, for those who want to know who asks.
    pub headers: Vec<HeaderDocument>,
    /// How requests are compressed; `gzip` unless a variable says something else.
    pub compression: Option<Compression>,
    /// Longest wait for an answer; 10 seconds unless a variable says something else.
    pub timeout: Option<LengthText>,
    /// TLS, for `https`.
    pub tls: TlsDocument,
    /// Whether each flow is sent as a log record.
    pub logs: bool,
    /// Whether traffic between workloads is sent as metrics.
    pub metrics: bool,
    /// How often.
    pub metrics_interval: LengthText,
    /// Whether numbers are those since the beginning or those of the interval; `cumulative` unless a variable says
    /// something else.
    pub metrics_temporality: Option<Temporality>,
    /// Most edges with metrics of their own, those with the most bytes. The others are summed up as `__other__`.
    #[schemars(range(min = 1, max = 20_000))]
    pub metrics_edges: usize,
    /// How long an edge without traffic keeps its metrics.
    pub metrics_idle: LengthText,
    /// Whether each connection is sent as a span when it has ended.
    pub spans: bool,
    /// Attributes of the resource, besides `service.name`, `service.version`, `host.name` and, where it is known,
    /// `k8s.node.name`. They have precedence over those and over `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: Vec<AttributeDocument>,
}

/// How to talk to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum Protocol {
    #[expect(missing_docs, reason = "a comment would make it a schema of its own; the key explains it")]
    #[serde(rename = "grpc")]
    Grpc,
    #[expect(missing_docs, reason = "see above")]
    #[serde(rename = "http/protobuf")]
    Http,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Compression {
    #[expect(missing_docs, reason = "see above")]
    Gzip,
    #[expect(missing_docs, reason = "see above")]
    None,
}

/// What numbers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Temporality {
    #[expect(missing_docs, reason = "see above")]
    Cumulative,
    #[expect(missing_docs, reason = "see above")]
    Delta,
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct TlsDocument {
    /// File with the certificates, PEM, of those who sign collectors; by default those that this machine trusts.
    pub authority: Option<PathBuf>,
    /// File with our certificate chain, PEM, for collectors that ask for one.
    pub certificate: Option<PathBuf>,
    /// File with its private key, PEM.
    pub key: Option<PathBuf>,
}

/// An attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct AttributeDocument {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What is sent, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where flows go as logs, if they do.
    pub logs: Option<Target>,
    /// Where sums go as metrics, if they do, and how.
    pub metrics: Option<MetricsPlan>,
    /// Where connections go as spans, if they do.
    pub spans: Option<Target>,
    /// Attributes of the resource; of several with one name the last counts.
    pub resource: Vec<(String, String)>,
}

/// How sums are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPlan {
    /// Where they go.
    pub target: Target,
    /// How often.
    pub interval: Duration,
    /// What numbers are told.
    pub temporality: Temporality,
    /// Which edges have their own.
    pub edges: prometheus::Plan,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            name: None,
            filter: String::new(),
            queue: 30_000,
            spool: SpoolDocument::default(),
            batch: BatchDocument::default(),
            endpoint: None,
            protocol: None,
            headers: Vec::new(),
            compression: None,
            timeout: None,
            tls: TlsDocument::default(),
            logs: true,
            metrics: true,
            metrics_interval: "1m".into(),
            metrics_temporality: None,
            metrics_edges: 1_000,
            metrics_idle: "15m".into(),
            spans: false,
            resource: Vec::new(),
        }
    }
}

impl Document {
    /// The part that all sinks share.
    pub(in crate::sinks) fn shared(&self, batching: Batching) -> Shared<'_> {
        Shared {
            kind: "otlp",
            name: self.name.as_deref(),
            filter: &self.filter,
            queue: self.queue,
            batching,
            spool: Some(&self.spool),
            is_remote: true,
        }
    }

    /// Judges everything but the parts that all sinks share.
    pub(in crate::sinks) fn validate(
        &self,
        surroundings: &Surroundings<'_>,
        at: &At,
        problems: &mut Problems,
    ) -> Plan {
        let mut headers = Vec::new();
        for (index, header) in self.headers.iter().enumerate() {
            headers.extend(header.validate(&at.key("headers").index(index), problems));
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            problems.add(&at.key("tls"), "needs `certificate` and `key` together, or none of them");
        }
        if !(self.logs || self.metrics || self.spans) {
            problems.add(at, "sends nothing: set one of `logs`, `metrics` and `spans` to true");
        }
        let variables = surroundings.variables;
        let mut target =
            |signal| Target::of(self, &headers, Variables { all: variables, signal }, at, problems);
        let logs = if self.logs { target(Signal::Logs) } else { None };
        let spans = if self.spans { target(Signal::Spans) } else { None };
        let of_metrics = if self.metrics { target(Signal::Metrics) } else { None };
        let metrics = of_metrics.map(|target| self.metrics(target, variables, at, problems));
        Plan { logs, metrics, spans, resource: self.resource(surroundings, at, problems) }
    }

    fn metrics(&self, target: Target, all: Lookup<'_>, at: &At, problems: &mut Problems) -> MetricsPlan {
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        let interval = self.metrics_interval.within(second, hour, &at.key("metrics_interval"), problems);
        let (minute, day) = (Duration::from_mins(1), Duration::from_hours(24));
        let idle = self.metrics_idle.within(minute, day, &at.key("metrics_idle"), problems);
        if idle < interval {
            let text = "must not be shorter than `metrics_interval`, or edges vanish before they are told";
            problems.add(&at.key("metrics_idle"), text);
        }
        let temporality = self.metrics_temporality.or_else(|| {
            let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
                "cumulative" => Some(Temporality::Cumulative),
                // What needs little memory is different only for numbers that go up and down.
                "delta" | "lowmemory" => Some(Temporality::Delta),
                _ => None,
            };
            let variables = Variables { all, signal: Signal::Metrics };
            let wanted = "must be cumulative, delta or lowmemory";
            target::read(variables, "TEMPORALITY_PREFERENCE", parse, wanted, at, problems)
        });
        let temporality = temporality.unwrap_or(Temporality::Cumulative);
        let edges = prometheus::Plan { edges: self.metrics_edges, idle };
        MetricsPlan { target, interval, temporality, edges }
    }

    fn resource(
        &self,
        surroundings: &Surroundings<'_>,
        at: &At,
        problems: &mut Problems,
    ) -> Vec<(String, String)> {
        let mut attributes = vec![
            ("service.name".to_owned(), "weir".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let node = surroundings.node.iter();
        attributes.extend(node.map(|node| ("k8s.node.name".to_owned(), node.clone())));
        let found = environment::resource(surroundings.variables);
        let found = found.map_err(|reason| format!("the variable {reason}"));
        attributes.extend(problems.take(at, found).unwrap_or_default());
        for (index, AttributeDocument { name, value }) in self.resource.iter().enumerate() {
            if name.is_empty() {
                problems.add(&at.key("resource").index(index).key("name"), "must not be empty");
            }
            attributes.push((name.clone(), value.clone()));
        }
        attributes
    }
}
