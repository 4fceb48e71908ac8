//! The database: sums by interval, the names of edges, and how much of the log is summed already.
//!
//! `SQLite` with a write-ahead log and `synchronous=NORMAL`: the death of the process loses nothing, a power failure at
//! most the last transactions, which are then made again from the log.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use foldhash::fast::FixedState;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use weir_flow::{Count, Role};

use super::{
    StoreError,
    answer::Traffic,
    entity::{EdgeKey, Entity},
    rollup::{Level, MOST_EDGES, Pending, SumKey, others},
};

/// Number of the format, kept in `user_version`.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE entity (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sort TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        UNIQUE (name, sort, kind, namespace));
    CREATE TABLE edge (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        source INTEGER NOT NULL REFERENCES entity, destination INTEGER NOT NULL REFERENCES entity,
        transport INTEGER NOT NULL, port INTEGER NOT NULL, role TEXT NOT NULL, again INTEGER NOT NULL,
        UNIQUE (source, destination, transport, port, role, again));
";

/// Most edges whose numbers are kept in memory.
const MOST_KNOWN: usize = 40_000;

/// How much of the log is in the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Applied {
    /// Number of the log.
    pub(super) log: u64,
    /// Frames of it.
    pub(super) frames: u64,
}

/// Writes sums.
pub(super) struct Writer {
    file: PathBuf,
    connection: Connection,
    known: HashMap<SumKey, i64>,
    /// For each level, the interval that was last written to, and its edges.
    current: HashMap<Level, (i64, HashSet<i64>)>,
}

/// Reads sums.
pub(super) struct Reader {
    file: PathBuf,
    connection: Connection,
    known: HashMap<i64, SumKey, FixedState>,
}

/// A sum, as it is read.
#[derive(Clone, Copy)]
pub(super) struct Sum<'s> {
    /// Beginning of the interval, seconds since 1970.
    pub(super) start: i64,
    /// Number of the edge, where the sum comes from the database: the same for the same key.
    pub(super) number: Option<i64>,
    /// What was summed.
    pub(super) key: &'s SumKey,
    /// The sum.
    pub(super) traffic: &'s Traffic,
}

/// Turns what `SQLite` says into our error.
trait OfFile<T> {
    fn of(self, file: &Path) -> Result<T, StoreError>;
}

impl<T> OfFile<T> for rusqlite::Result<T> {
    fn of(self, file: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Database { file: file.to_owned(), error })
    }
}

impl Writer {
    /// Opens the database and makes or checks its format.
    pub(super) fn open(file: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(file).of(file)?;
        // Before the first table: pages of what retention deletes are given back bit by bit.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").of(file)?;
        connection.pragma_update(None, "journal_mode", "WAL").of(file)?;
        connection.pragma_update(None, "synchronous", "NORMAL").of(file)?;
        connection.pragma_update(None, "cache_size", -4_096).of(file)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).of(file)?;
        match found {
            FORMAT => {}
            0 => {
                let tables = Level::ALL.map(|level| {
                    let table = level.table();
                    format!(
                        "CREATE TABLE {table} (
                            start INTEGER NOT NULL, edge INTEGER NOT NULL REFERENCES edge,
                            records INTEGER NOT NULL, opened INTEGER NOT NULL,
                            packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
                            reverse_packets INTEGER NOT NULL, reverse_bytes INTEGER NOT NULL,
                            PRIMARY KEY (start, edge)) WITHOUT ROWID;"
                    )
                });
                let all =
                    format!("BEGIN; {SCHEMA} {} PRAGMA user_version = {FORMAT}; COMMIT;", tables.concat());
                connection.execute_batch(&all).of(file)?;
            }
            found => return Err(StoreError::NewerFormat { file: file.to_owned(), found, known: FORMAT }),
        }
        Ok(Self { file: file.to_owned(), connection, known: HashMap::new(), current: HashMap::new() })
    }

    /// How much of the log is summed.
    pub(super) fn applied(&self) -> Result<Applied, StoreError> {
        applied(&self.connection).of(&self.file)
    }

    /// Adds what is pending at every level and notes how far the log is summed, all or nothing.
    pub(super) fn flush(&mut self, pending: &Pending, applied: Applied) -> Result<(), StoreError> {
        let Self { connection, known, current, file } = self;
        if known.len() > MOST_KNOWN {
            known.clear();
        }
        let flushed = flush(connection, known, current, pending, applied);
        if flushed.is_err() {
            // Numbers may have been given out in the transaction that did not happen.
            known.clear();
            current.clear();
        }
        flushed.of(file)
    }

    /// The time by which history was last kept, milliseconds since 1970.
    pub(super) fn kept_by_ms(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT value FROM meta WHERE name = 'kept_by_ms'";
        self.connection.query_row(sql, [], |row| row.get(0)).optional().of(&self.file)
    }

    /// Notes that time.
    pub(super) fn note_kept_by_ms(&self, time_ms: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta VALUES ('kept_by_ms', ?1) ON CONFLICT DO UPDATE SET value = ?1";
        let noted = self.connection.prepare_cached(sql).and_then(|mut insert| insert.execute([time_ms]));
        noted.map(|_| ()).of(&self.file)
    }

    /// Moves everything to the database proper and sends it to the disk.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).of(&self.file)
    }

    /// Removes sums that began before the given time (seconds since 1970) of each level.
    pub(super) fn expire(&self, before: [(Level, i64); 3]) -> Result<(), StoreError> {
        for (level, before) in before {
            let sql = format!("DELETE FROM {} WHERE start < ?1", level.table());
            self.connection.execute(&sql, [before]).of(&self.file)?;
        }
        self.connection.execute_batch("PRAGMA incremental_vacuum(256)").of(&self.file)
    }

    /// Removes edges and entities that no sum needs any more.
    pub(super) fn forget_unused(&mut self) -> Result<(), StoreError> {
        self.known.clear();
        self.current.clear();
        let sql = "
            BEGIN;
            DELETE FROM edge WHERE id NOT IN (
                SELECT edge FROM edge_10s UNION SELECT edge FROM edge_1m UNION SELECT edge FROM edge_1h);
            DELETE FROM entity WHERE id NOT IN (SELECT source FROM edge UNION SELECT destination FROM edge);
            COMMIT;";
        self.connection.execute_batch(sql).of(&self.file)
    }
}

fn applied(connection: &Connection) -> rusqlite::Result<Applied> {
    let get = |name: &str| -> rusqlite::Result<u64> {
        let value: Option<i64> = connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or_default().cast_unsigned())
    };
    Ok(Applied { log: get("applied_log")?, frames: get("applied_frames")? })
}

fn flush(
    connection: &mut Connection,
    known: &mut HashMap<SumKey, i64>,
    current: &mut HashMap<Level, (i64, HashSet<i64>)>,
    pending: &Pending,
    applied: Applied,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut add_sum = |Sum { start, key, traffic, .. }: Sum<'_>| -> rusqlite::Result<()> {
        let edge = edge_number(&transaction, known, key)?;
        for level in Level::ALL {
            let start = level.interval_of(start);
            let (interval, edges) = current.entry(level).or_default();
            if *interval != start {
                (*interval, *edges) = (start, edges_of(&transaction, level, start)?);
            }
            let edge = if edges.len() < MOST_EDGES || edges.contains(&edge) {
                edge
            } else {
                let rest = SumKey { edge: others(key.edge.role), again: key.again };
                edge_number(&transaction, known, &rest)?
            };
            edges.insert(edge);
            add(&transaction, level, start, edge, traffic)?;
        }
        Ok(())
    };
    let mut added = Ok(());
    pending.each(&mut |sum| {
        if added.is_ok() {
            added = add_sum(sum);
        }
    });
    added?;
    for (name, value) in [("applied_log", applied.log), ("applied_frames", applied.frames)] {
        transaction
            .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
            .execute(params![name, value.cast_signed()])?;
    }
    transaction.commit()
}

/// The edges that an interval has so far.
fn edges_of(transaction: &Transaction<'_>, level: Level, start: i64) -> rusqlite::Result<HashSet<i64>> {
    let sql = format!("SELECT edge FROM {} WHERE start = ?1", level.table());
    transaction.prepare_cached(&sql)?.query_map([start], |row| row.get(0))?.collect()
}

fn add(
    transaction: &Transaction<'_>,
    level: Level,
    start: i64,
    edge: i64,
    traffic: &Traffic,
) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
            records = records + ?3, opened = opened + ?4, packets = packets + ?5, bytes = bytes + ?6,
            reverse_packets = reverse_packets + ?7, reverse_bytes = reverse_bytes + ?8",
        level.table()
    );
    transaction.prepare_cached(&sql)?.execute(params![
        start,
        edge,
        traffic.records.cast_signed(),
        traffic.opened.cast_signed(),
        traffic.forward.packets.cast_signed(),
        traffic.forward.bytes.cast_signed(),
        traffic.reverse.packets.cast_signed(),
        traffic.reverse.bytes.cast_signed(),
    ])?;
    Ok(())
}

/// The number of an edge; given out if it has none.
fn edge_number(
    transaction: &Transaction<'_>,
    known: &mut HashMap<SumKey, i64>,
    key: &SumKey,
) -> rusqlite::Result<i64> {
    if let Some(number) = known.get(key) {
        return Ok(*number);
    }
    let source = entity_number(transaction, &key.edge.source)?;
    let destination = entity_number(transaction, &key.edge.destination)?;
    // NULL would be different from NULL in the index.
    let port = key.edge.port.map_or(-1, i64::from);
    let EdgeKey { transport, role, .. } = &key.edge;
    let values = params![source, destination, transport, port, role.as_str(), key.again];
    transaction
        .prepare_cached(
            "INSERT INTO edge (source, destination, transport, port, role, again) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?
        .execute(values)?;
    let number = transaction
        .prepare_cached(
            "SELECT id FROM edge WHERE source = ?1 AND destination = ?2 AND transport = ?3 AND port = ?4
             AND role = ?5 AND again = ?6",
        )?
        .query_row(values, |row| row.get(0))?;
    known.insert(key.clone(), number);
    Ok(number)
}

fn entity_number(transaction: &Transaction<'_>, entity: &Entity) -> rusqlite::Result<i64> {
    let (kind, namespace) = match entity {
        Entity::Workload { kind, namespace, .. } => (&**kind, namespace.as_deref().unwrap_or_default()),
        _ => ("", ""),
    };
    let values = params![entity.sort(), kind, namespace, entity.name()];
    transaction
        .prepare_cached(
            "INSERT INTO entity (sort, kind, namespace, name) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(values)?;
    transaction
        .prepare_cached(
            "SELECT id FROM entity WHERE sort = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4",
        )?
        .query_row(values, |row| row.get(0))
}

impl Reader {
    /// Opens the database for reading. `None` where there is none yet.
    pub(super) fn open(file: &Path) -> Result<Option<Self>, StoreError> {
        if !file.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).of(file)?;
        connection.pragma_update(None, "cache_size", -4_096).of(file)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).of(file)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).of(file)?;
        match found {
            0 => Ok(None),
            FORMAT => Ok(Some(Self { file: file.to_owned(), connection, known: HashMap::default() })),
            found => Err(StoreError::NewerFormat { file: file.to_owned(), found, known: FORMAT }),
        }
    }

    /// Hands out the sums of the intervals from `since` to before `until` (seconds since 1970), with how much of the
    /// log is in them.
    pub(super) fn sums(
        &mut self,
        level: Level,
        (since, until): (i64, i64),
        each: &mut dyn FnMut(Sum<'_>),
    ) -> Result<Applied, StoreError> {
        let Self { file, connection, known } = self;
        sums(connection, known, level, (since, until), each).of(file)
    }

    /// Beginning of the oldest interval of a level, seconds since 1970.
    pub(super) fn oldest(&self, level: Level) -> Result<Option<i64>, StoreError> {
        let sql = format!("SELECT MIN(start) FROM {}", level.table());
        self.connection.query_row(&sql, [], |row| row.get(0)).of(&self.file)
    }
}

fn sums(
    connection: &mut Connection,
    known: &mut HashMap<i64, SumKey, FixedState>,
    level: Level,
    (since, until): (i64, i64),
    each: &mut dyn FnMut(Sum<'_>),
) -> rusqlite::Result<Applied> {
    if known.len() > MOST_KNOWN {
        known.clear();
    }
    let transaction = connection.transaction()?;
    let applied = applied(&transaction)?;
    let sql = format!("SELECT * FROM {} WHERE start >= ?1 AND start < ?2", level.table());
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query([since, until])?;
    while let Some(row) = rows.next()? {
        let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
        let traffic = Traffic {
            records: number(2)?,
            opened: number(3)?,
            forward: Count { packets: number(4)?, bytes: number(5)? },
            reverse: Count { packets: number(6)?, bytes: number(7)? },
        };
        let edge: i64 = row.get(1)?;
        let key = match known.entry(edge) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(key_of(&transaction, edge)?),
        };
        each(Sum { start: row.get(0)?, number: Some(edge), key, traffic: &traffic });
    }
    Ok(applied)
}

fn key_of(transaction: &Transaction<'_>, edge: i64) -> rusqlite::Result<SumKey> {
    let sql = "
        SELECT transport, port, role, again, s.sort, s.kind, s.namespace, s.name, d.sort, d.kind, d.namespace, d.name
        FROM edge JOIN entity s ON s.id = source JOIN entity d ON d.id = destination WHERE edge.id = ?1";
    transaction.prepare_cached(sql)?.query_row([edge], |row| {
        let role: String = row.get(2)?;
        let role = Role::ALL.into_iter().find(|candidate| candidate.as_str() == role).unwrap_or(Role::Other);
        let entity = |first: usize| -> rusqlite::Result<Entity> {
            let text = |index: usize| row.get::<_, String>(first + index);
            let (sort, name) = (text(0)?, text(3)?.into());
            Ok(match sort.as_str() {
                "workload" => {
                    let namespace = Some(text(2)?).filter(|namespace| !namespace.is_empty()).map(Into::into);
                    Entity::Workload { kind: text(1)?.into(), namespace, name }
                }
                "process" => Entity::Process(name),
                "address" => Entity::Address(name),
                _ => Entity::Others,
            })
        };
        let edge = EdgeKey {
            source: entity(4)?,
            destination: entity(8)?,
            transport: row.get(0)?,
            port: u16::try_from(row.get::<_, i64>(1)?).ok(),
            role,
        };
        Ok(SumKey { edge, again: row.get(3)? })
    })
}
