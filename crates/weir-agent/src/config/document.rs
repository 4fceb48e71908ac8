//! The configuration as it is written: plain values with their defaults and their descriptions.
//!
//! The reference page and the JSON schema are made from these types, so their comments are for users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DnsDocument, LengthText, SecretDocument, SizeText, StoreDocument};
use crate::{kubernetes::KubernetesConfig, sinks};

/// Settings of the agent. Every one has a default; an empty file works.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// Interfaces to count: names, or patterns such as `veth*`. Without any, the edges of containers, the ways out,
    /// tunnels and loopback are counted.
    pub interfaces: Vec<String>,
    /// Which packets count: received by the interface, sent by it, or both.
    pub direction: DirectionDocument,
    /// Where to count: in traffic control, or on packet sockets as tcpdump does.
    pub hook: HookDocument,
    /// With `hook: socket`, also count frames for other stations.
    pub promiscuous: bool,
    /// Another network namespace to count in: its name, or the number of a process in it.
    pub netns: Option<String>,
    /// Keep only flows that match this filter, such as `not port=22`.
    #[schemars(extend("x-reload" = true))]
    pub filter: String,
    /// How often flows are read and handed on.
    pub interval: LengthText,
    /// Memory for flows, in the kernel and in the agent. What does not fit is folded into coarser rows.
    pub memory: SizeText,
    /// Which messages appear on standard error.
    #[schemars(extend("x-reload" = true))]
    pub log: LevelDocument,
    /// How long queues may take to empty when the agent stops; what is left then is counted as dropped.
    #[schemars(extend("x-reload" = true))]
    pub stop_deadline: LengthText,
    /// The view of what happens now, which clients follow.
    pub live: LiveDocument,
    /// Ask TCP sockets of this machine for round-trip times and retransmits.
    pub tcp_quality: bool,
    /// Count packets that the kernel drops, by its own reasons, for `/metrics`.
    pub drops: bool,
    /// What DNS messages say.
    pub dns: DnsDocument,
    /// Names of pods, services and nodes from the API server of a Kubernetes cluster.
    pub kubernetes: KubernetesConfig,
    /// History on this machine.
    pub store: StoreDocument,
    /// The HTTP interface.
    pub server: ServerDocument,
    /// Where flows go besides.
    #[schemars(extend("x-reload" = true))]
    pub sinks: Vec<SinkDocument>,
}

/// Which packets count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DirectionDocument {
    #[expect(missing_docs, reason = "a comment would make it a schema of its own; the key explains it")]
    Ingress,
    #[expect(missing_docs, reason = "see above")]
    Egress,
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Both,
}

/// Where packets are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum HookDocument {
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Tc,
    #[expect(missing_docs, reason = "see above")]
    Socket,
}

/// The least important messages that appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LevelDocument {
    #[expect(missing_docs, reason = "see above")]
    Error,
    #[expect(missing_docs, reason = "see above")]
    Warn,
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Info,
    #[expect(missing_docs, reason = "see above")]
    Debug,
}

/// The view of what happens now.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct LiveDocument {
    /// Most flows in one step of the view; the smallest are summed up.
    #[schemars(range(min = 1, max = 10000))]
    pub rows: usize,
    /// How far back a client that was away can resume.
    pub keep: LengthText,
    /// Memory for that; where it is less than `keep` needs, it decides.
    pub memory: SizeText,
}

/// The HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct ServerDocument {
    /// Addresses to listen on, each with its port. An empty list means none. One beyond loopback needs a `token`, or
    /// `tls` with `client_authority`.
    pub listen: Vec<String>,
    /// Unix socket to listen on as well, open to its owner and group.
    pub unix_socket: Option<std::path::PathBuf>,
    /// Bearer token that clients must send: its file or variable. It is read again on SIGHUP.
    pub token: Option<SecretDocument>,
    /// TLS for the addresses in `listen`.
    pub tls: Option<TlsDocument>,
    /// Names by which clients may call this server, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// Most connections at a time.
    #[schemars(range(min = 1, max = 10000))]
    pub connections: usize,
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct TlsDocument {
    /// File with the certificate chain, PEM.
    pub certificate: std::path::PathBuf,
    /// File with its private key, PEM.
    pub key: std::path::PathBuf,
    /// File with the certificates, PEM, of those who sign clients. With it, only clients with such a certificate get in.
    #[serde(default)]
    pub client_authority: Option<std::path::PathBuf>,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(inline)]
pub enum SinkDocument {
    /// Lines of JSON.
    Json(sinks::json::Document),
    /// OTLP, for an OpenTelemetry Collector.
    Otlp(sinks::otlp::Document),
    /// Traffic between workloads, for Prometheus to scrape.
    Prometheus(sinks::prometheus::Document),
    /// A PostgreSQL database.
    Postgres(sinks::postgres::Document),
}

impl Default for Document {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            direction: DirectionDocument::Both,
            hook: HookDocument::Tc,
            promiscuous: false,
            netns: None,
            filter: String::new(),
            interval: "1s".into(),
            memory: "64MiB".into(),
            log: LevelDocument::Info,
            stop_deadline: "5s".into(),
            live: LiveDocument::default(),
            tcp_quality: true,
            drops: true,
            dns: DnsDocument::default(),
            kubernetes: KubernetesConfig::default(),
            store: StoreDocument::default(),
            server: ServerDocument::default(),
            sinks: Vec::new(),
        }
    }
}

impl Default for LiveDocument {
    fn default() -> Self {
        Self { rows: 500, keep: "15m".into(), memory: "16MiB".into() }
    }
}

impl Default for ServerDocument {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:4780".to_owned()],
            unix_socket: None,
            token: None,
            tls: None,
            names: Vec::new(),
            connections: 256,
        }
    }
}
