//! What every sink has in common in the configuration: name, filter, queue, batches, spool.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Surroundings;
use crate::{
    config::{At, LengthText, Problems, SizeText},
    outlet::{Batching, SpoolConfig},
};

/// Where flows wait that the sink does not take yet, on disk, across restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct SpoolDocument {
    /// Whether there is one. By default there is for sinks on other machines, and none for standard output, files and unix sockets.
    pub enabled: Option<bool>,
    /// Its directory; by default `spool/NAME` in the directory of the store.
    pub path: Option<PathBuf>,
    /// Most that it may take on the disk. When more comes, the oldest goes and is counted. A flow takes about a hundred bytes.
    pub size: SizeText,
}

/// How much is sent at a time. The first of these that is reached decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct BatchDocument {
    /// Flows at which nothing more is waited for. What comes from one interval is never divided.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub records: usize,
    /// Bytes, as the spool counts them.
    pub size: SizeText,
    /// Time to wait for more.
    pub time: LengthText,
}

impl Default for SpoolDocument {
    fn default() -> Self {
        Self { enabled: None, path: None, size: "512MiB".into() }
    }
}

impl Default for BatchDocument {
    fn default() -> Self {
        Self { records: 20_000, size: "8MiB".into(), time: "1s".into() }
    }
}

impl SpoolDocument {
    /// The spool of the sink `name`, if it is to have one.
    pub(super) fn validate(
        &self,
        name: &str,
        by_default: bool,
        surroundings: &Surroundings<'_>,
        at: &At,
        problems: &mut Problems,
    ) -> Option<SpoolConfig> {
        let bytes = self.size.within(64 << 10, 1 << 50, &at.key("size"), problems);
        if self.path.as_ref().is_some_and(|path| !path.is_absolute()) {
            problems.add(&at.key("path"), "must be an absolute path: a daemon has no directory of its own");
        }
        let path = self.path.clone().unwrap_or_else(|| surroundings.state.join("spool").join(name));
        self.enabled.unwrap_or(by_default).then_some(SpoolConfig { path, bytes })
    }
}

impl BatchDocument {
    /// The same as numbers.
    pub fn validate(&self, at: &At, problems: &mut Problems) -> Batching {
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_mins(1));
        Batching {
            records: self.records,
            bytes: self.size.within(1, 1 << 30, &at.key("size"), problems),
            time: self.time.within(shortest, longest, &at.key("time"), problems),
        }
    }
}
