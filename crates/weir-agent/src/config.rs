//! The configuration: one YAML file, `WEIR_…` variables and `--set`, merged once and judged as a whole.
//!
//! A tree is read and merged (`merge`), compared with the shape that it should have (`shape`), turned into plain types
//! ([`Document`]), and those into [`Config`], whose values cannot be wrong any more. Every problem is reported, with
//! its path. Judging needs no privilege and looks at nothing but the file and the variables.

mod dns;
mod document;
mod merge;
mod problems;
pub mod reference;
mod secret;
mod shape;
mod shown;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use weir_datapath::flow::{Directions, Hook};
use weir_flow::filter::Filter;

pub use self::{
    dns::{DnsConfig, DnsDocument},
    document::{
        DirectionDocument, Document, HookDocument, LevelDocument, LiveDocument, ServerDocument, SinkDocument,
        TlsDocument,
    },
    problems::{At, Problem, Problems},
    secret::{Secret, SecretDocument, SecretError, SecretSource},
    shown::Shown,
    store::{StoreDocument, StoreSettings},
    text::{LengthText, SizeText},
};
pub(crate) use self::{merge::parse_yaml, validate::filter};
use crate::{
    journal::Level, kubernetes::KubernetesConfig, live::Pattern, server::ServerConfig, sinks::SinkConfig,
};

/// Settings that make sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is counted, and how.
    pub counting: CountingConfig,
    /// What is kept of it; an empty filter keeps everything.
    pub filter: Filter,
    /// The least important messages that appear.
    pub log: Level,
    /// How long queues may take to empty at the end.
    pub stop_deadline: Duration,
    /// The view of what happens now.
    pub live: LiveConfig,
    /// Whether TCP sockets are asked for round-trip times and retransmits.
    pub tcp_quality: bool,
    /// Whether packets that the kernel drops are counted.
    pub drops: bool,
    /// Which DNS messages are read.
    pub dns: DnsConfig,
    /// Names from a cluster.
    pub kubernetes: KubernetesConfig,
    /// History on this machine, if it is wanted.
    pub store: Option<StoreSettings>,
    /// The HTTP interface.
    pub server: ServerConfig,
    /// Where flows go besides.
    pub sinks: Vec<SinkConfig>,
    /// The same, to be shown.
    pub shown: Shown,
}

/// What is counted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct CountingConfig {
    /// Which interfaces. Without any, their roles decide.
    pub interfaces: Vec<Pattern>,
    /// Which packets.
    pub directions: Directions,
    /// Where.
    pub hook: Hook,
    /// Whether frames for other stations count.
    pub promiscuous: bool,
    /// Name of a network namespace, or number of a process in it; our own if nothing is said.
    pub netns: Option<String>,
    /// How often flows are read and handed on.
    pub interval: Duration,
    /// Bytes for flows, in the kernel and here.
    pub memory: u64,
}

/// The view of what happens now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// Most flows in one step; the smallest are summed up.
    pub rows: usize,
    /// How far back a client can resume.
    pub keep: Duration,
    /// Bytes for that.
    pub memory: usize,
}

/// Where settings come from, the later ones having precedence.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Values of `--set`.
    pub options: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no YAML.
    #[error("{} is no YAML: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Why, with line and column.
        reason: String,
    },
    /// It is wrong in some places.
    #[error("{0}")]
    Problems(Problems),
}

impl Config {
    /// Reads all sources and judges them.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut tree = match &sources.file {
            Some(path) => read(path)?,
            None => Value::Object(serde_json::Map::new()),
        };
        let variables = env::vars_os().filter_map(|(name, value)| {
            // Our names and values are text.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::of_tree(&mut tree, variables, &sources.options).map_err(ConfigError::Problems)
    }

    fn of_tree(
        tree: &mut Value,
        variables: impl Iterator<Item = (String, String)>,
        options: &[String],
    ) -> Result<Self, Problems> {
        let schema = reference::schema();
        let mut problems = Problems::default();
        let is_known = |key: &str| schema.pointer(&format!("/properties/{key}")).is_some();
        merge::apply_variables(tree, variables, is_known, &mut problems);
        for option in options {
            merge::apply_option(tree, option, &mut problems);
        }
        shape::read(tree.take(), &schema, problems, validate::validate)
    }
}

/// Judges another tree against the schema of its type, and then by `validate`: every problem of both, with its path in
/// the tree as it came.
pub(crate) fn check_shape<D: DeserializeOwned, T>(
    tree: Value,
    schema: &Value,
    validate: impl FnOnce(D, &mut Problems) -> Option<T>,
) -> Result<T, Problems> {
    shape::read(tree, schema, Problems::default(), |document, problems| validate(document, problems))
}

fn read(path: &Path) -> Result<Value, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse_yaml(&text).map_err(|reason| ConfigError::Syntax { path: path.to_owned(), reason })
}
