//! The alternative: one table of rows in `SQLite`, as a first attempt at a store would have it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rusqlite::{Connection, params};
use weir_agent::store::Range;
use weir_flow::{Record, Tick};

/// Rows in one transaction.
const TRANSACTION: usize = 10_000;

/// A table of rows with an index on time.
pub(super) struct Plain {
    connection: Connection,
    file: PathBuf,
    rows: usize,
}

impl Plain {
    pub(super) fn create(file: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.execute_batch(
            "CREATE TABLE flow (
                recorded INTEGER, start INTEGER, end INTEGER, source TEXT, source_port INTEGER, destination TEXT,
                destination_port INTEGER, transport INTEGER, interface TEXT, bytes INTEGER, packets INTEGER,
                reverse_bytes INTEGER, reverse_packets INTEGER, total_bytes INTEGER, total_packets INTEGER,
                source_namespace TEXT, source_owner TEXT, source_pod TEXT,
                destination_namespace TEXT, destination_owner TEXT, destination_pod TEXT);
             CREATE INDEX flow_recorded ON flow (recorded); BEGIN;",
        )?;
        Ok(Self { connection, file: file.to_owned(), rows: 0 })
    }

    pub(super) fn append(&mut self, records: &[Record], tick: &Tick) -> anyhow::Result<()> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO flow VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        for record in records {
            let [source, destination] = [&record.source, &record.destination]
                .map(|end| end.identity.workload.as_ref().context("every end has a workload"));
            let (source, destination) = (source?, destination?);
            insert.execute(params![
                tick.wall.0.cast_signed(),
                record.start.0.cast_signed(),
                record.end.0.cast_signed(),
                record.source.address.to_string(),
                record.source.port,
                record.destination.address.to_string(),
                record.destination.port,
                record.tuple.protocol(),
                record.point.interface,
                record.delta.forward.bytes.cast_signed(),
                record.delta.forward.packets.cast_signed(),
                record.delta.reverse.bytes.cast_signed(),
                record.delta.reverse.packets.cast_signed(),
                record.total.forward.bytes.cast_signed(),
                record.total.forward.packets.cast_signed(),
                source.namespace,
                source.owner_name,
                source.name,
                destination.namespace,
                destination.owner_name,
                destination.name,
            ])?;
            self.rows += 1;
            if self.rows.is_multiple_of(TRANSACTION) {
                self.connection.execute_batch("COMMIT; BEGIN")?;
            }
        }
        Ok(())
    }

    /// Edges of the service map.
    pub(super) fn edges(&mut self, range: Range) -> anyhow::Result<usize> {
        let mut select = self.connection.prepare_cached(
            "SELECT source_namespace, source_owner, destination_namespace, destination_owner, transport,
                destination_port, count(*), sum(bytes), sum(packets), sum(reverse_bytes), sum(reverse_packets)
             FROM flow WHERE recorded >= ?1 AND recorded < ?2 GROUP BY 1, 2, 3, 4, 5, 6",
        )?;
        let mut rows = select.query([range.since.0.cast_signed(), range.until.0.cast_signed()])?;
        let mut edges = 0;
        while rows.next()?.is_some() {
            edges += 1;
        }
        Ok(edges)
    }

    /// Size of the files.
    pub(super) fn bytes(&mut self) -> anyhow::Result<u64> {
        self.connection.execute_batch("COMMIT")?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(std::fs::metadata(&self.file)?.len())
    }
}
