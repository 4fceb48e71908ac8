//! [`PostgresStore`]: reads what sinks of the type `postgres` wrote into a database.
//!
//! Rows are asked for by slices of time, the newest first, with as much of the filter as SQL can say; everything else is
//! done with them here, as with the rows of any other store, so that the answers are the same. It writes nothing and takes
//! no lock for longer than a slice: agents may drop what is too old at any time.

mod address;
mod condition;
mod read;
mod rows;

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_postgres::Client;
use weir_flow::{Record, Tick};

pub use self::address::{DatabaseUrl, UrlError};
use super::{
    EdgeQuery, Edges, FlowQuery, Flows, HintQuery, Hints, Series, SeriesQuery, Store, StoreError, answering,
};
use crate::sinks::postgres::{connect, tables};

/// Settings of a connection that reads: nothing is changed, and nobody waits for a lock for long.
const SETTINGS: &str = "-c default_transaction_read_only=on -c lock_timeout=10s";

/// The tables of sinks in a PostgreSQL database.
pub struct PostgresStore {
    place: String,
    /// The node whose rows are read; without one, those of all.
    node: Option<String>,
    runtime: Runtime,
    connection: Mutex<Connection>,
    /// Columns of the table of flows.
    columns: HashSet<String>,
}

struct Connection {
    client: Client,
    task: JoinHandle<()>,
}

impl PostgresStore {
    /// Connects, and looks whether the tables are there and can be understood.
    pub fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StoreError::Runtime)?;
        let DatabaseUrl { plan, password, node } = url;
        let (connection, columns) = runtime.block_on(async {
            let (client, task) = connect(plan, password.as_ref(), SETTINGS).await?;
            let mut connection = Connection { client, task };
            let columns = tables(&mut connection.client, plan).await?;
            Ok::<_, StoreError>((connection, columns))
        })?;
        let (place, node) = (plan.place(), node.clone());
        Ok(Self { place, node, runtime, connection: Mutex::new(connection), columns })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, column: &str) -> bool {
        self.columns.contains(column)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store for PostgresStore {
    /// Refused: sinks write.
    fn append(&self, _records: &[Record], _tick: &Tick) -> Result<(), StoreError> {
        Err(StoreError::OfSinks { place: self.place.clone() })
    }

    fn edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        answering::edges(self, query)
    }

    fn series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        answering::series(self, query, query.step_length())
    }

    fn flows(&self, query: &FlowQuery) -> Result<Flows, StoreError> {
        answering::flows(self, query)
    }

    fn hints(&self, query: &HintQuery) -> Result<Hints, StoreError> {
        answering::hints(self, query)
    }
}
