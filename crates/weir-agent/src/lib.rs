//! The daemon: configuration, pipeline, enrichment, store, sinks and API.
//!
//! [`live`] is what `weir watch` and the agent share: threads between the kernel and whoever wants records. It knows
//! no async runtime; only the server, and what asks other machines, does.

#![forbid(unsafe_code)]

pub mod agent;
pub mod batch;
pub mod causes;
pub mod config;
pub mod dns;
pub mod enrich;
pub mod history;
pub mod journal;
pub mod kubernetes;
pub mod ledger;
pub mod live;
pub mod naming;
pub mod outlet;
pub mod pcapng;
pub mod pipeline;
pub mod private_file;
pub mod privileges;
mod process;
pub mod redirect;
pub mod reload;
pub mod server;
pub mod signals;
pub mod sinks;
pub mod store;
pub mod tap;
pub mod units;
pub mod view;
