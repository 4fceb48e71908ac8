//! Partitions: made before rows come for them, dropped when they are too old.
//!
//! A partition is made as a table of its own and then attached, which disturbs neither readers nor writers. Its name says
//! what it spans, in UTC: `flow_20261121`, `flow_2026112114`.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use tokio_postgres::{Client, error::SqlState};

use super::{
    config::{Part, Plan},
    error::{PostgresError, statement},
};

/// A table that has partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Flow,
    Edge,
    Span,
}

/// A partition: which table, and the second since 1970 with which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition {
    pub(super) table: Table,
    begin: i64,
    seconds: i64,
}

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Flow, Self::Edge, Self::Span];

    fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Edge => "edge",
            Self::Span => "otel_span",
        }
    }

    /// How pages are filled. An edge is added to again and again for a minute; with room in its page, its twelve columns of
    /// index stay as they are.
    fn room(self) -> &'static str {
        match self {
            Self::Edge => " WITH (fillfactor = 50)",
            Self::Flow | Self::Span => "",
        }
    }

    fn part(self, plan: &Plan) -> Part {
        match self {
            Self::Flow | Self::Span => plan.partition,
            Self::Edge => Part::Day,
        }
    }

    fn retention(self, plan: &Plan) -> Duration {
        match self {
            Self::Flow | Self::Span => plan.retention,
            Self::Edge => plan.edge_retention,
        }
    }
}

impl Part {
    fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

impl Partition {
    /// The one for a moment.
    pub(super) fn of(table: Table, seconds: i64, plan: &Plan) -> Self {
        let length = table.part(plan).seconds();
        Self { table, begin: seconds.div_euclid(length) * length, seconds: length }
    }

    /// Those for now and for what comes next.
    pub(super) fn ahead(now: i64, plan: &Plan) -> BTreeSet<Self> {
        let of = |table: Table| {
            let current = Self::of(table, now, plan);
            [current, Self { begin: current.begin + current.seconds, ..current }]
        };
        Table::ALL.into_iter().flat_map(of).collect()
    }

    fn name(self) -> String {
        let begin = Timestamp::from_second(self.begin).unwrap_or_default();
        let form = if self.seconds < Part::Day.seconds() { "%Y%m%d%H" } else { "%Y%m%d" };
        format!("{}_{}", self.table.name(), begin.strftime(form))
    }

    /// Reads a name.
    fn of_name(table: Table, name: &str) -> Option<Self> {
        let digits = name.strip_prefix(table.name())?.strip_prefix('_')?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let number = |from: usize, to: usize| digits.get(from..to);
        let seconds = match digits.len() {
            8 => Part::Day.seconds(),
            10 => Part::Hour.seconds(),
            _ => return None,
        };
        let hour = number(8, 10).unwrap_or("00");
        let text = format!("{}-{}-{}T{hour}:00:00Z", number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let begin: Timestamp = text.parse().ok()?;
        Some(Self { table, begin: begin.as_second(), seconds })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Makes a partition unless there is one that spans its time.
pub(super) async fn ensure(client: &mut Client, partition: Partition) -> Result<(), PostgresError> {
    let (name, table) = (partition.name(), partition.table.name());
    let bound = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default().to_string();
    let (from, to) = (bound(partition.begin), bound(partition.begin + partition.seconds));
    let is_there = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&name])
        .await
        .map_err(statement("look for a partition"))?;
    if is_there.get(0) {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(statement("begin"))?;
    let room = partition.table.room();
    let make = format!(
        "SET LOCAL lock_timeout = '5s';
         CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS){room};
         ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    let made = match transaction.batch_execute(&make).await {
        Ok(()) => transaction.commit().await,
        Err(error) => Err(error),
    };
    match made {
        Ok(()) => Ok(()),
        Err(error) => {
            // Another agent was quicker, or partitions had another length once and one of them spans this time.
            let is_there =
                [SqlState::DUPLICATE_TABLE, SqlState::INVALID_OBJECT_DEFINITION, SqlState::UNIQUE_VIOLATION];
            if error.code().is_some_and(|code| is_there.contains(code)) {
                return Ok(());
            }
            Err(statement("make a partition")(error))
        }
    }
}

/// Drops partitions all of whose rows are too old, and forgets names of batches that nobody will bring again. What cannot be
/// dropped now, because somebody reads it, is dropped another time.
pub(super) async fn drop_old(client: &Client, plan: &Plan) -> Result<(), PostgresError> {
    client
        .batch_execute("SET lock_timeout = '2s'")
        .await
        .map_err(statement("set the time to wait for a lock"))?;
    for table in Table::ALL {
        let rows = client
            .query(
                "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = to_regclass($1)",
                &[&table.name()],
            )
            .await
            .map_err(statement("list the partitions"))?;
        let retention = i64::try_from(table.retention(plan).as_secs()).unwrap_or(i64::MAX);
        let oldest = now().saturating_sub(retention);
        for row in rows {
            let name: String = row.get(0);
            let is_old = Partition::of_name(table, &name)
                .is_some_and(|partition| partition.begin + partition.seconds <= oldest);
            if is_old {
                client
                    .batch_execute(&format!("DROP TABLE IF EXISTS {name}"))
                    .await
                    .map_err(statement("drop an old partition"))?;
            }
        }
    }
    let seconds = plan.retention.as_secs_f64();
    client
        .execute("DELETE FROM weir_batch WHERE time < now() - $1 * interval '1 second'", &[&seconds])
        .await
        .map_err(statement("forget old batches"))?;
    client.batch_execute("RESET lock_timeout").await.map_err(statement("reset the time to wait for a lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_partition_spans() {
        for (name, table, begin, seconds) in [
            ("flow_20261121", Table::Flow, 1_795_219_200, 86_400),
            ("otel_span_2026112114", Table::Span, 1_795_219_200 + 14 * 3_600, 3_600),
        ] {
            let partition = Partition::of_name(table, name).unwrap();
            assert_eq!(partition, Partition { table, begin, seconds }, "{name}");
            assert_eq!(partition.name(), name);
        }
        for other in ["flow", "flow_2026", "flow_default", "flow_20261345", "edge_20261121", "flow_2026112a"]
        {
            assert_eq!(Partition::of_name(Table::Flow, other), None, "{other}");
        }
    }
}
