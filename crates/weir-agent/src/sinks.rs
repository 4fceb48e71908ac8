//! Sinks: consumers of flows outside of the agent.
//!
//! Each type is a folder of the same shape: `config` (what is written in the file and what it means) and `writer`
//! (delivers one batch). What is around them, queue, worker, retries and counters, is the same for all: an
//! [`Outlet`].

pub mod json;

use std::{collections::HashSet, io, sync::Arc};

use weir_flow::filter::Filter;

use crate::{
    config::{self, At, Problems, SinkDocument},
    outlet::Outlet,
};

/// A sink that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// Its name, unique among consumers.
    pub name: Arc<str>,
    /// What it gets; an empty filter lets everything through.
    pub filter: Filter,
    /// Most flows that wait for it.
    pub queue: usize,
    /// Where they go.
    pub plan: SinkPlan,
}

/// The closed list of sinks. To add one, add a variant here and to [`SinkDocument`], and a folder beside `json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkPlan {
    /// Lines of JSON.
    Json(json::Plan),
}

/// Starts the thread of a sink.
pub fn start(sink: &SinkConfig) -> io::Result<Outlet> {
    let SinkConfig { name, filter, queue, plan } = sink;
    let SinkPlan::Json(plan) = plan;
    Outlet::start(Arc::clone(name), *queue, filter.clone(), json::JsonWriter::new(plan))
}

/// Names that other consumers have.
const RESERVED: [&str; 2] = ["store", "live"];

/// Judges all sinks.
pub(crate) fn validate(documents: Vec<SinkDocument>, at: &At, problems: &mut Problems) -> Vec<SinkConfig> {
    let mut names = HashSet::new();
    let mut sinks = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let at = at.index(index);
        let SinkDocument::Json(document) = document;
        let plan = SinkPlan::Json(document.validate(&at, problems));
        let name: Arc<str> = document.name.as_deref().unwrap_or("json").into();
        let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        if name.is_empty() || !is_plain {
            problems.add(&at.key("name"), "must be made of letters, digits, `-`, `_` and `.`");
        } else if RESERVED.contains(&&*name) {
            problems.add(&at.key("name"), format!("`{name}` is the name of a part of the agent"));
        } else if !names.insert(Arc::clone(&name)) {
            problems.add(&at.key("name"), format!("`{name}` is the name of another sink: give each its own"));
        }
        let filter = config::filter(&document.filter, &at.key("filter"), problems);
        if let Some(filter) = filter {
            sinks.push(SinkConfig { name, filter, queue: document.queue, plan });
        }
    }
    sinks
}
