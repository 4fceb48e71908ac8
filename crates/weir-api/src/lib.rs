//! The HTTP contract between the agent and its clients: types, paths and a client.

#![forbid(unsafe_code)]

pub mod catalog;
pub mod client;
pub mod history;
pub mod ledger;
pub mod proxy;
pub mod status;
pub mod value;
