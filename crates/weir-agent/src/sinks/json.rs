//! The `json` sink: flows as lines of JSON, for whatever reads lines.

mod config;

pub use self::config::{Document, Plan};
