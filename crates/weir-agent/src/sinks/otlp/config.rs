//! Which collector, what it gets, and how.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Signal,
    environment::{self, Variables},
    headers::HeaderDocument,
    target::Target,
};
use crate::{
    config::{At, LengthText, Problems},
    outlet::Batching,
    sinks::{BatchDocument, Shared, SpoolDocument, Surroundings},
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
    /// Attributes of the resource; of several with one name the last counts.
    pub resource: Vec<(String, String)>,
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
        if !self.logs {
            problems.add(at, "sends nothing: set `logs` to true");
        }
        let variables = surroundings.variables;
        let mut target =
            |signal| Target::of(self, &headers, Variables { all: variables, signal }, at, problems);
        let logs = if self.logs { target(Signal::Logs) } else { None };
        Plan { logs, resource: self.resource(surroundings, at, problems) }
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
