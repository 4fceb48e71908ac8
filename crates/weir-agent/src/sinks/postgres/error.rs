//! What can go wrong with a database, and whether it may pass.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::config::SecretError;

/// Why something was not written.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// There is no connection.
    #[error("cannot connect to {place}")]
    Connect {
        /// `host:port`.
        place: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// The password cannot be had.
    #[error("no password")]
    Secret(#[from] SecretError),
    /// The certificates cannot be used.
    #[error("cannot use the certificates in {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// The tables are those of a newer version.
    #[error(
        "the tables in schema {schema} have version {found} and this agent knows {known}: upgrade the agent, or give it \
         another schema"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Their version.
        found: i32,
        /// Our version.
        known: i32,
    },
    /// A name is taken.
    #[error("schema {schema} has a table {table} that is not Weir's: set `schema` to another one")]
    Foreign {
        /// The schema.
        schema: String,
        /// The table.
        table: &'static str,
    },
    /// There is nothing to read.
    #[error(
        "schema {schema} of the database {database} at {place} has no table of flows: is it the one that an agent writes to?"
    )]
    Missing {
        /// The schema.
        schema: String,
        /// The database.
        database: String,
        /// `host:port`.
        place: String,
    },
    /// The server does not answer.
    #[error("{place} has not answered for {limit:?}")]
    Silent {
        /// `host:port`.
        place: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Patience is over.
    #[error("the agent ends")]
    Ending,
}

impl PostgresError {
    /// What the server says, if it does.
    pub(super) fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Connect { source, .. } | Self::Statement { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether a table is not there.
    pub(crate) fn is_about_a_missing_table(&self) -> bool {
        self.state() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// Whether it is about the rows, so that they will most likely never be taken.
    pub(super) fn is_about_rows(&self) -> bool {
        // Data exceptions and violated constraints. That there is no partition is one of these.
        self.state().is_some_and(|state| state.code().starts_with("22") || state.code().starts_with("23"))
    }
}

/// Says what was tried.
pub(crate) fn statement(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
    move |source| PostgresError::Statement { what, source }
}
