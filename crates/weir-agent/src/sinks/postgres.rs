//! The `postgres` sink: flows and sums of them in a PostgreSQL database, for SQL and for Grafana.
//!
//! It makes its tables itself and keeps them as they should be. Rows come by binary `COPY`; a batch that was written
//! already is recognised by its name, so nothing is there twice. Several agents may write into one database.

mod columns;
mod config;
mod connect;
mod edges;
mod error;
mod partitions;
mod schema;
mod session;
mod tls;
mod writer;

pub(crate) use self::{columns::column_name, connect::connect, error::statement, schema::tables};
pub use self::{
    config::{Document, Part, Plan, SslMode},
    error::PostgresError,
    writer::PostgresWriter,
};
