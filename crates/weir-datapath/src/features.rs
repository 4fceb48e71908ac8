//! What this kernel, these capabilities and this machine allow, each with its remedy: the substance of `weir doctor`.
//!
//! [`Facts::gather`] looks (and really tries where that leaves no trace), [`evaluate`] judges; the latter is pure, so
//! that the verdict on any machine can be tested on this one. What could not be found out is said to be unknown.

use std::{env, fmt};

use thiserror::Error;

mod attempts;
mod capability;
mod evaluate;
mod facts;
mod kernel;

pub use attempts::Attempt;
pub use capability::{Capability, CapabilitySet};
pub use evaluate::{evaluate, softirqs_interleave};
pub use facts::Facts;
pub(crate) use facts::mount_of_type;
pub use kernel::{Config, Release};

/// Something that Weir uses of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Short name, such as `tcx`.
    pub name: &'static str,
    /// What Weir uses it for.
    pub purpose: &'static str,
    /// Whether it is there.
    pub state: State,
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is, with what is worth knowing about it.
    Available(String),
    /// Something else does its work, at a price.
    Degraded {
        /// What is not as it should be, and what it costs.
        reason: String,
        /// What to do about it; empty where nothing can be done or needs to be.
        remedy: String,
    },
    /// What it is for does not work.
    Missing {
        /// What is missing.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// It could not be found out, and why.
    Unknown(String),
}

/// All features, in the order in which they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The features.
    pub features: Vec<Feature>,
}

impl Report {
    /// The feature of that name.
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }
}

/// Looks at this machine and judges it. Takes some ten milliseconds and leaves nothing behind.
pub fn probe() -> Report {
    evaluate(&Facts::gather())
}

/// Counting is not permitted to this process.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot load the counting programs: needs {} ({remedy})", capability::enumerate(missing))]
pub struct MissingPrivilege {
    /// What is missing, not empty.
    pub missing: Vec<Capability>,
    /// What to do about it.
    pub remedy: String,
}

/// What counting by TC needs.
pub const COUNTING: [Capability; 3] = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];

/// What is missing for counting by TC, or `None` where the capabilities suffice. Cheap; call it before loading.
pub fn missing_for_counting() -> Option<MissingPrivilege> {
    let facts = Facts::of_process();
    missing_privilege(&facts, &COUNTING, &program_path())
}

/// What of `needed` is missing according to `facts`, with a remedy that fits the place. `program` is our own path.
fn missing_privilege(facts: &Facts, needed: &[Capability], program: &str) -> Option<MissingPrivilege> {
    let missing = facts.capabilities.missing(needed, &facts.release);
    if missing.is_empty() {
        return None;
    }
    let remedy = remedy_for(facts, needed, program);
    Some(MissingPrivilege { missing, remedy })
}

/// How to get the capabilities in `needed`.
fn remedy_for(facts: &Facts, needed: &[Capability], program: &str) -> String {
    // To someone with nothing, everything is missing: each capability once, as this kernel calls it.
    let needed = CapabilitySet::NONE.missing(needed, &facts.release);
    if facts.in_container {
        let names =
            needed.iter().map(|capability| capability.lower_case().trim_start_matches("cap_").to_uppercase());
        return format!("add to the container: capabilities {}", names.collect::<Vec<_>>().join(", "));
    }
    if facts.user == 0 {
        return "this root lacks them: start weir from a shell that has not dropped capabilities".to_owned();
    }
    // File capabilities replace each other, so the whole set is named, not only what is missing.
    let names = needed.iter().map(|capability| capability.lower_case()).collect::<Vec<_>>().join(",");
    format!("run as root, or: setcap {names}+ep {program}")
}

/// Our own path, for people to copy.
fn program_path() -> String {
    env::current_exe().map_or_else(|_| "weir".to_owned(), |path| path.display().to_string())
}

impl fmt::Display for State {
    /// One line: the detail, or the reason and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available(text) | Self::Unknown(text) => f.write_str(text),
            Self::Degraded { reason, remedy } | Self::Missing { reason, remedy } if remedy.is_empty() => {
                f.write_str(reason)
            }
            Self::Degraded { reason, remedy } | Self::Missing { reason, remedy } => {
                write!(f, "{reason}: {remedy}")
            }
        }
    }
}

impl State {
    /// `available`, `degraded`, `missing` or `unknown`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Available(_) => "available",
            Self::Degraded { .. } => "degraded",
            Self::Missing { .. } => "missing",
            Self::Unknown(_) => "unknown",
        }
    }
}

#[cfg(test)]
mod tests;
