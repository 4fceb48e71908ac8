//! `weir proxy`: what connections are diverted to, decided here and carried out by [`weir_datapath::redirect`].
//!
//! Rules become, with what commands and health checks say, the wanted state ([`engine`]), which is published to the kernel as
//! a whole. That part is pure: events and time go in, the wanted state comes out.

mod checks;
pub mod diff;
pub mod doctor;
pub mod document;
pub mod engine;
mod follow;
pub mod health;
pub mod maglev;
pub mod metrics;
mod overlap;
mod owner;
pub mod process;
pub mod proxy;
pub mod reference;
pub mod resolve;
mod routes;
pub mod rules;
pub mod service;
pub mod state;
#[cfg(test)]
mod tests;
pub mod text;
pub mod trace;
pub mod view;
mod watching;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

/// Where a rule or an interface comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The rules file: whoever changes it there decides.
    File,
    /// A command: no file changes it.
    Command,
}

/// Where each rule comes from.
pub type Sources = BTreeMap<Arc<str>, Source>;
