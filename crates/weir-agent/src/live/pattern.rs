//! [`Pattern`]: names of interfaces as people write them.

use std::str::FromStr;

use thiserror::Error;
use weir_datapath::interface;

/// Name of an interface, or a pattern in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// There was no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an interface has a name")]
pub struct NoName;

impl FromStr for Pattern {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        if text.is_empty() { Err(NoName) } else { Ok(Self(text.to_owned())) }
    }
}

impl Pattern {
    /// Whether it names one interface.
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The pattern as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the interface is meant.
    pub fn matches(&self, name: &str) -> bool {
        interface::matches(&self.0, name)
    }
}
