//! What the agent remembers of traffic: raw flows for a while, sums of them for long.
//!
//! [`Store`] is what every kind of store can do; [`EmbeddedStore`] keeps everything in one directory and needs
//! nothing else; [`PostgresStore`] reads what sinks wrote into a PostgreSQL database. Stores answer in bounded time and memory: every query has limits, and an answer that was cut says so
//! and why ([`Coverage`]). They know no clock: rows have the time of the tick that they came with.
//!
//! Sums never mix roles of interfaces, because the same packet may pass several. An edge of the service map counts at
//! one role only: the first of [`Role::ALL`](weir_flow::Role::ALL) at which the edge was seen in the time asked for.
//! Within that role each flow counts at one interface, the one where the direction that the opener sends comes into the
//! node, else the one with the lowest number; other sightings of it in the same tick count as "again" and are left out of edges
//! and series, never of flows.

mod answer;
mod answering;
mod batch;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod database;
mod directory;
mod embedded;
mod encode;
mod entity;
mod error;
mod frame;
mod log;
mod order;
mod portable;
mod postgres;
mod query;
mod retention;
mod rollup;
mod scan;
mod schema;
mod segment;
mod tally;

use weir_flow::{Record, Tick};

/// Where the agent keeps its history unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/weir";

pub(crate) use self::portable::{Columns, decode_records, encode_records};
pub use self::{
    answer::{Coverage, Cut, Edge, Edges, Flows, Hint, Hints, Line, Origin, Rows, Series, Traffic},
    embedded::{EmbeddedStore, StoreConfig},
    entity::{EdgeKey, Entity},
    error::StoreError,
    postgres::{DatabaseUrl, PostgresStore, UrlError},
    query::{EdgeQuery, FlowQuery, HintQuery, Limits, Precision, Range, SeriesQuery},
    rollup::Level,
};

/// A place for history.
///
/// Queries may run beside appends and beside each other. They block: asynchronous callers put them on a thread of
/// their own.
pub trait Store: Send + Sync {
    /// Keeps the records of one tick. Once this returns, the death of the process does not lose them.
    fn append(&self, records: &[Record], tick: &Tick) -> Result<(), StoreError>;

    /// The service map: who talked to whom, the most traffic first.
    fn edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError>;

    /// How much, over time.
    fn series(&self, query: &SeriesQuery) -> Result<Series, StoreError>;

    /// Flows or groups of them, the most traffic first.
    fn flows(&self, query: &FlowQuery) -> Result<Flows, StoreError>;

    /// Values that a field had, the most traffic first: for completing what somebody types.
    fn hints(&self, query: &HintQuery) -> Result<Hints, StoreError>;
}
