//! The HTTP interface: listeners, who may ask, and what is answered.
//!
//! It only reads: nothing that a client sends changes what the agent does. Every answer has a bound, as have
//! connections, requests at a time and their size.

mod config;
mod guard;
mod ledger;
mod listen;
mod live;
mod metrics;
pub mod openapi;
mod page;
pub mod query;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{Router, routing::get};
use tokio::sync::Semaphore;
use weir_datapath::drops::Drops;

pub(crate) use self::{
    config::validate,
    guard::{Guard, Transport, check as guard_requests, problem},
};
pub use self::{
    config::{ServerConfig, TlsConfig},
    guard::Refusals,
    listen::{ServeError, Server},
    metrics::reference,
    tokens::Tokens,
};
use crate::{
    config::Shown, dns::DnsWatch, kubernetes::Kubernetes, pipeline::Pipeline, sinks::prometheus::Exposed,
    view::View,
};

/// Clients that may follow the live view at a time.
const MOST_FOLLOWERS: usize = 64;

/// What answers are made of.
#[derive(Clone)]
pub struct Answers {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) view: Arc<View>,
    pub(crate) kubernetes: Arc<Kubernetes>,
    pub(crate) drops: Option<Arc<Drops>>,
    pub(crate) shown: Arc<ArcSwap<Shown>>,
    pub(crate) edges: Arc<Exposed>,
    pub(crate) dns: Option<Arc<DnsWatch>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) followers: Arc<Semaphore>,
    /// Becomes true when the server ends.
    pub(crate) is_ending: tokio::sync::watch::Receiver<bool>,
    /// Wall time of the start.
    pub(crate) started: weir_flow::Wall,
}

/// The parts of the agent that answers are about.
pub struct AnswerSources {
    /// Records on their way, and ledgers.
    pub pipeline: Arc<Pipeline>,
    /// What happens now.
    pub view: Arc<View>,
    /// Names from a cluster.
    pub kubernetes: Arc<Kubernetes>,
    /// Dropped packets, where they are counted.
    pub drops: Option<Drops>,
    /// DNS, where it is read.
    pub dns: Option<Arc<DnsWatch>>,
}

impl Answers {
    /// Answers about these, and about the settings in effect.
    pub fn new(
        sources: AnswerSources,
        shown: Arc<ArcSwap<Shown>>,
        is_ending: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        let AnswerSources { pipeline, view, kubernetes, drops, dns } = sources;
        Self {
            pipeline,
            view,
            kubernetes,
            drops: drops.map(Arc::new),
            shown,
            edges: Arc::default(),
            dns,
            refusals: Arc::default(),
            followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
            is_ending,
            started: snapshot::now(),
        }
    }

    /// With the sums of a sink for `/metrics`, as long as there is one.
    #[must_use]
    pub fn with_edges(self, edges: Arc<Exposed>) -> Self {
        Self { edges, ..self }
    }
}

/// Every route. `more` is what other parts of the agent answer, with paths below `/api/v1`.
pub fn routes(answers: Answers, more: Router) -> Router {
    Router::new()
        .route("/", get(page::root))
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::readiness))
        .route("/metrics", get(metrics::answer))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/ledger", get(ledger::answer))
        .route("/api/v1/fields", get(status::fields))
        .route("/api/v1/interfaces", get(status::interfaces))
        .route("/api/v1/config", get(status::config))
        .route("/api/v1/live", get(live::follow))
        .route("/api/v1/openapi.json", get(openapi::document))
        .with_state(answers)
        .merge(more)
        .fallback(page::nothing)
}
