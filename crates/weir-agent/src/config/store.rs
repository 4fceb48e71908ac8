//! The section `store` of the configuration.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{At, LengthText, Problems, SizeText};
use crate::store::StoreConfig;

/// History on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct StoreDocument {
    /// Whether there is any history.
    pub enabled: bool,
    /// Directory of the store. It is made if it is not there; only one agent may write to it.
    pub path: PathBuf,
    /// Most flows that wait for the store. When more come, the oldest are dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: usize,
    /// How long single flows are kept.
    pub flows_age: LengthText,
    /// Most that single flows may take on the disk; the oldest go first.
    pub flows_size: SizeText,
    /// How long sums of ten seconds are kept.
    pub ten_seconds_age: LengthText,
    /// How long sums of a minute are kept.
    pub minute_age: LengthText,
    /// How long sums of an hour are kept.
    pub hour_age: LengthText,
}

/// A store that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Its directory.
    pub path: PathBuf,
    /// Most flows that wait for it.
    pub queue: usize,
    /// How much is kept, and for how long.
    pub config: StoreConfig,
}

impl Default for StoreDocument {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/var/lib/weir".into(),
            queue: 60_000,
            flows_age: "24h".into(),
            flows_size: "2GiB".into(),
            ten_seconds_age: "2h".into(),
            minute_age: "48h".into(),
            hour_age: "90d".into(),
        }
    }
}

impl StoreDocument {
    /// The store, if one is wanted.
    pub(super) fn validate(&self, at: &At, problems: &mut Problems) -> Option<StoreSettings> {
        let (shortest, longest) = (Duration::from_mins(1), Duration::from_hours(10 * 365 * 24));
        let mut age = |text: &LengthText, key: &str| text.within(shortest, longest, &at.key(key), problems);
        let config = StoreConfig {
            flows_age: age(&self.flows_age, "flows_age"),
            ten_seconds_age: age(&self.ten_seconds_age, "ten_seconds_age"),
            minute_age: age(&self.minute_age, "minute_age"),
            hour_age: age(&self.hour_age, "hour_age"),
            flows_bytes: self.flows_size.within(1 << 20, 1 << 50, &at.key("flows_size"), problems),
            ..StoreConfig::default()
        };
        if !self.path.is_absolute() {
            problems.add(&at.key("path"), "must be an absolute path: a daemon has no directory of its own");
        }
        self.enabled.then(|| StoreSettings { path: self.path.clone(), queue: self.queue, config })
    }
}
