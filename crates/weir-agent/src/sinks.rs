//! Sinks: consumers of flows outside of the agent.
//!
//! Each type is a folder of the same shape: `config` (what is written in the file and what it means) and `writer`
//! (delivers parcels). What is around them, queue, spool, batches, worker, retries and counters, is the same for all: an
//! [`Outlet`].

pub mod json;
pub mod otlp;
pub mod postgres;
pub mod prometheus;
mod settings;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use weir_flow::filter::Filter;

use self::prometheus::Exposed;
pub use self::settings::{BatchDocument, SpoolDocument};
use crate::{
    config::{self, At, Problems, SinkDocument},
    outlet::{Batching, Outlet, OutletConfig, SpoolConfig},
};

/// A sink that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// Its name, unique among consumers.
    pub name: Arc<str>,
    /// What it gets; an empty filter lets everything through.
    pub filter: Filter,
    /// Most flows that wait for it in memory.
    pub queue: usize,
    /// How much it gets at a time.
    pub batching: Batching,
    /// Where flows wait on disk, if they are to.
    pub spool: Option<SpoolConfig>,
    /// Where they go.
    pub plan: SinkPlan,
}

/// The closed list of sinks. To add one, add a variant here and to [`SinkDocument`], and a folder beside `json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkPlan {
    /// Lines of JSON.
    Json(json::Plan),
    /// OTLP.
    Otlp(Box<otlp::Plan>),
    /// Sums of edges for `/metrics`.
    Prometheus(prometheus::Plan),
    /// A PostgreSQL database.
    Postgres(postgres::Plan),
}

/// What a sink may want to know of the rest of the configuration.
pub(crate) struct Surroundings<'c> {
    /// The directory for what outlives the agent.
    pub(crate) state: &'c Path,
    /// Looks up environment variables.
    pub(crate) variables: otlp::Lookup<'c>,
    /// The node of the cluster that this is, where it was told.
    pub(crate) node: Option<String>,
}

/// The part of a sink's document that all have.
struct Shared<'d> {
    /// Its type, and its name unless it has another.
    kind: &'static str,
    name: Option<&'d str>,
    filter: &'d str,
    queue: usize,
    batching: Batching,
    /// Its spool, where it can have one.
    spool: Option<&'d SpoolDocument>,
    /// Whether it has a spool unless something else is said.
    is_remote: bool,
}

/// Starts the threads of a sink. `exposed` is where one for `/metrics` puts its sums.
pub fn start(sink: &SinkConfig, exposed: &Arc<Exposed>) -> io::Result<Outlet> {
    let SinkConfig { name, filter, queue, batching, spool, plan } = sink;
    let config = OutletConfig {
        name: Arc::clone(name),
        most_records: *queue,
        filter: filter.clone(),
        batching: *batching,
        spool: spool.clone(),
    };
    match plan {
        SinkPlan::Json(plan) => Outlet::start(config, json::JsonWriter::new(plan)),
        SinkPlan::Otlp(plan) => Outlet::start(config, otlp::OtlpWriter::new(plan)?),
        SinkPlan::Prometheus(plan) => {
            Outlet::start(config, prometheus::EdgeWriter::new(*plan, Arc::clone(exposed)))
        }
        SinkPlan::Postgres(plan) => Outlet::start(config, postgres::PostgresWriter::new(plan)?),
    }
}

/// Names that other consumers have.
const RESERVED: [&str; 2] = ["store", "live"];

/// Judges all sinks.
pub(crate) fn validate(
    documents: &[SinkDocument],
    surroundings: &Surroundings<'_>,
    at: &At,
    problems: &mut Problems,
) -> Vec<SinkConfig> {
    let mut names = HashSet::new();
    let mut spools: HashMap<PathBuf, Arc<str>> = HashMap::new();
    let mut sinks = Vec::new();
    let mut is_exposed = false;
    for (index, document) in documents.iter().enumerate() {
        let at = at.index(index);
        let (plan, shared) = match document {
            SinkDocument::Json(document) => {
                let plan = document.validate(&at, problems);
                let shared = document.shared(&plan);
                (SinkPlan::Json(plan), shared)
            }
            SinkDocument::Otlp(document) => {
                let plan = document.validate(surroundings, &at, problems);
                let batching = document.batch.validate(&at.key("batch"), problems);
                (SinkPlan::Otlp(Box::new(plan)), document.shared(batching))
            }
            SinkDocument::Prometheus(document) => {
                let plan = document.validate(&at, problems);
                if std::mem::replace(&mut is_exposed, true) {
                    problems.add(&at, "is a second sink of type prometheus: there is one /metrics only");
                }
                (SinkPlan::Prometheus(plan), document.shared())
            }
            SinkDocument::Postgres(document) => {
                let plan = document.validate(&at, problems);
                let shared = document.shared(&at, problems);
                (SinkPlan::Postgres(plan), shared)
            }
        };
        let name: Arc<str> = shared.name.unwrap_or(shared.kind).into();
        let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
            && name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        if !is_plain {
            let text = "must be made of letters, digits, `-`, `_` and `.`, a letter or digit first";
            problems.add(&at.key("name"), text);
        } else if RESERVED.contains(&&*name) {
            problems.add(&at.key("name"), format!("`{name}` is the name of a part of the agent"));
        } else if !names.insert(Arc::clone(&name)) {
            problems.add(&at.key("name"), format!("`{name}` is the name of another sink: give each its own"));
        }
        let Shared { filter, queue, batching, spool, is_remote, .. } = shared;
        let place = at.key("spool");
        let spool = spool.and_then(|spool| spool.validate(&name, is_remote, surroundings, &place, problems));
        if let Some(spool) = &spool
            && is_plain
            && let Some(other) = spools.insert(spool.path.clone(), Arc::clone(&name))
            && other != name
        {
            problems.add(&place.key("path"), format!("is the spool of `{other}`: give each sink its own"));
        }
        let filter = config::filter(filter, &at.key("filter"), problems);
        if let Some(filter) = filter {
            sinks.push(SinkConfig { name, filter, queue, batching, spool, plan });
        }
    }
    sinks
}
