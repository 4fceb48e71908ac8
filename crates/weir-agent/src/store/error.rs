//! What can go wrong with a store as a whole. (A damaged file of many is no error: answers name it.)

use std::{io, path::PathBuf};

use parquet::errors::ParquetError;
use thiserror::Error;

use crate::sinks::postgres::PostgresError;

/// Why a store does not do what it is asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no directory.
    #[error("no store in {}: give the directory that an agent writes to", directory.display())]
    NoStore {
        /// Where it was looked for.
        directory: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Somebody else writes.
    #[error(
        "the store in {} is in use by {}: stop it, or use another directory",
        directory.display(),
        holder.map_or_else(|| "another agent".to_owned(), |holder| format!("process {holder}"))
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The process, where it said so.
        holder: Option<u32>,
    },
    /// It was opened for reading.
    #[error("the store in {} was opened for reading alone", directory.display())]
    ReadOnly {
        /// The directory.
        directory: PathBuf,
    },
    /// Its rows come from somebody else.
    #[error("rows of the database at {place} are written by sinks of the type postgres alone")]
    OfSinks {
        /// `host:port`.
        place: String,
    },
    /// A database at a server cannot be read.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A runtime for its connection cannot be had.
    #[error("cannot wait for a connection")]
    Runtime(#[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {}: is there room, and is the directory the agent's own?", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A segment cannot be made.
    #[error("cannot make the segment {}", file.display())]
    Encode {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        error: Box<ParquetError>,
    },
    /// The database does not work.
    #[error("cannot use the database {}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// What `SQLite` says.
        #[source]
        error: rusqlite::Error,
    },
    /// The database was made by a later version.
    #[error(
        "the database {} has format {found}, this version knows {known}: use the Weir that wrote it, or another directory",
        file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
}
