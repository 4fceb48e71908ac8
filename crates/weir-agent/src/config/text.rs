//! Values that are written with a unit: [`LengthText`] and [`SizeText`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{At, Problems};
use crate::units::{parse_duration, parse_size};

/// A length of time as it is written: `500ms`, `1s`, `5m`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("format" = "duration"))]
pub struct LengthText(String);

/// A number of bytes as it is written: `64MiB`, `1GB`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("format" = "size"))]
pub struct SizeText(String);

impl From<&str> for LengthText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&str> for SizeText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl LengthText {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The time, if it is one and in the range; else that is a problem.
    pub fn within(
        &self,
        shortest: Duration,
        longest: Duration,
        at: &At,
        problems: &mut Problems,
    ) -> Duration {
        let Some(length) = problems.take(at, parse_duration(&self.0)) else { return shortest };
        if length < shortest || length > longest {
            problems.add(at, format!("must be between {shortest:?} and {longest:?}"));
        }
        length
    }
}

impl SizeText {
    /// The bytes, if they are a size and in the range; else that is a problem.
    pub fn within(&self, least: u64, most: u64, at: &At, problems: &mut Problems) -> u64 {
        let Some(size) = problems.take(at, parse_size(&self.0)) else { return least };
        if size < least || size > most {
            problems.add(at, format!("must be between {least} and {most} bytes"));
        }
        size
    }
}
