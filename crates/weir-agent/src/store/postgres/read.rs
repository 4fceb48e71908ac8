//! Reads rows by slices of time.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::TryStreamExt as _;
use tokio::time::timeout;
use tokio_postgres::{
    Client,
    types::{BorrowToSql, ToSql},
};
use weir_flow::{Record, Wall};

use super::{
    PostgresStore,
    condition::Condition,
    rows::{Found, Named, Wanted},
};
use crate::{
    sinks::postgres::{PostgresError, statement},
    store::{
        Coverage, Cut, Origin, Range, StoreError,
        answering::{Asked, Raw, wall},
        encode::batch_of,
        tally::{Place, Tally},
    },
};

/// Length of the newest slice, and of the shortest one, in milliseconds.
const FIRST_MS: i64 = 60_000;
const SHORTEST_MS: i64 = 1_000;

/// Rows of a slice below which the next one is longer, and above which it is shorter.
const FEW: u32 = 50_000;
const MANY: u32 = 200_000;

/// A slice may be longer than the one before if that took less than this part of the time there is, and is to be shorter if
/// it took more than that one: the rows of a rare kind are few, however many the server looks at.
const QUICK: u32 = 32;
const SLOW: u32 = 4;

/// Rows that are put into columns at a time.
const BLOCK: usize = 4_096;

/// Longest wait for the server to say anything.
const SILENCE: Duration = Duration::from_mins(1);

/// Last moment that is asked for, milliseconds: the year 9999 ends.
const LAST_MS: i64 = 253_402_300_799_000;

/// Where in the database a row is: its table, and its place in it.
type Spot = (u32, String);

/// Where rows are that may be asked for once more.
#[derive(Default)]
pub(in crate::store) struct Spots(HashMap<Place, Spot>);

/// A reading that is under way.
struct Reading<'a> {
    store: &'a PostgresStore,
    client: &'a Client,
    asked: Asked<'a>,
    wanted: Wanted,
    started: Instant,
}

impl Raw for PostgresStore {
    type Scanned = Spots;

    fn add_up(&self, tally: &mut Tally, asked: Asked<'_>) -> Result<(Spots, Coverage), StoreError> {
        let connection = self.connection();
        let has = |column: &str| self.has(column);
        let wanted = Wanted::with(tally.columns(), &asked.filter.fields(), &has);
        let reading =
            Reading { store: self, client: &connection.client, asked, wanted, started: Instant::now() };
        Ok(self.runtime.block_on(reading.run(tally))?)
    }

    fn records(&self, scanned: &Spots, places: &[Place]) -> Result<Vec<Option<Record>>, StoreError> {
        let connection = self.connection();
        Ok(self.runtime.block_on(self.records_at(&connection.client, scanned, places))?)
    }
}

impl PostgresStore {
    /// Waits for the server, but not for ever.
    async fn within<T>(
        &self,
        what: &'static str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match timeout(SILENCE, answer).await {
            Ok(answer) => answer.map_err(statement(what)),
            Err(_late) => Err(PostgresError::Silent { place: self.place.clone(), limit: SILENCE }),
        }
    }

    async fn records_at(
        &self,
        client: &Client,
        Spots(spots): &Spots,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, PostgresError> {
        let wanted = Wanted::all(&|column| self.has(column));
        let mut by_table: HashMap<u32, Vec<&str>> = HashMap::new();
        for (table, spot) in places.iter().filter_map(|place| spots.get(place)) {
            by_table.entry(*table).or_default().push(spot);
        }
        let mut records: HashMap<Spot, Record> = HashMap::new();
        for (table, spots) in by_table {
            let sql = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1";
            let name = self.within("find a table", client.query_opt(sql, &[&table])).await?;
            // It may be gone by now.
            let Some(name) = name.map(|line| line.get::<_, String>(0)) else { continue };
            let sql = format!(
                "SELECT {}, ctid::text FROM {name} WHERE ctid = ANY ($1::text[]::tid[])",
                wanted.sql()
            );
            let lines = self.within("read flows", client.query(&sql, &[&spots])).await;
            let lines = match lines {
                Err(error) if error.is_about_a_missing_table() => continue,
                lines => lines?,
            };
            let mut found = Vec::with_capacity(lines.len());
            for line in &lines {
                found.push(wanted.read(line).map_err(statement("understand a flow"))?);
            }
            let rows: Vec<Named<'_>> = found.iter().map(|found| Named { found, wanted: &wanted }).collect();
            let batch = batch_of(&rows, &wanted.columns);
            for (row, line) in lines.iter().enumerate() {
                records.insert((table, line.get(wanted.width())), batch.record(row));
            }
        }
        Ok(places.iter().map(|place| records.get(spots.get(place)?).cloned()).collect())
    }
}

impl Reading<'_> {
    async fn run(self, tally: &mut Tally) -> Result<(Spots, Coverage), PostgresError> {
        let Asked { range, filter, limits, again, .. } = self.asked;
        let condition = Condition::of(filter, &self.store.columns, 2);
        let spot = if again { ", tableoid::oid, ctid::text" } else { "" };
        let node = match &self.store.node {
            Some(_) => format!(" AND node = ${}", condition.parameters.len() + 3),
            None => String::new(),
        };
        let sql = format!(
            "SELECT {}{spot} FROM flow WHERE time >= $1::timestamptz AND time < $2::timestamptz{}{node}",
            self.wanted.sql(),
            condition.sql
        );
        let prepared = self.store.within("prepare", self.client.prepare(&sql)).await?;
        let (since_ms, until_ms) = range.ms();
        let (since_ms, until_ms) = (since_ms.min(LAST_MS), until_ms.min(LAST_MS));
        let (mut end, mut length, mut source) = (until_ms, FIRST_MS, 0);
        let mut spots = Spots::default();
        let mut cuts = Vec::new();
        while end > since_ms {
            if self.started.elapsed() > limits.time {
                cuts.push(Cut::Time(limits.time));
                break;
            }
            if tally.is_full() {
                cuts.push(Cut::Memory);
                break;
            }
            let begin = end.saturating_sub(length).max(since_ms);
            let span = [moment(begin), moment(end)];
            let mut values: Vec<&(dyn ToSql + Sync)> = vec![&span[0], &span[1]];
            values.extend(condition.parameters.iter().map(|value| &**value as &(dyn ToSql + Sync)));
            values.extend(self.store.node.iter().map(|name| name as &(dyn ToSql + Sync)));
            let began = Instant::now();
            let rows = self.slice(&prepared, &values, source, tally, &mut spots).await?;
            end = begin;
            source += 1;
            length = next_length(length, rows, began.elapsed(), limits.time);
        }
        if tally.has_folded() && !cuts.contains(&Cut::Memory) {
            cuts.push(Cut::Memory);
        }
        cuts.extend(self.not_kept(range).await?);
        let since = if end > since_ms { wall(end).max(range.since) } else { range.since };
        Ok((spots, Coverage { range: Range { since, ..range }, origin: Origin::Raw, cuts }))
    }

    /// Adds the rows of a slice; says how many there were.
    async fn slice(
        &self,
        prepared: &tokio_postgres::Statement,
        values: &[&(dyn ToSql + Sync)],
        source: u32,
        tally: &mut Tally,
        spots: &mut Spots,
    ) -> Result<u32, PostgresError> {
        let values = values.iter().map(BorrowToSql::borrow_to_sql);
        let stream = self.store.within("read flows", self.client.query_raw(prepared, values)).await?;
        let mut stream = std::pin::pin!(stream);
        let (mut rows, mut block, mut block_spots) = (0, Vec::with_capacity(BLOCK), Vec::new());
        loop {
            let line = self.store.within("read flows", stream.try_next()).await?;
            if let Some(line) = &line {
                block.push(self.wanted.read(line).map_err(statement("understand a flow"))?);
                if self.asked.again {
                    let width = self.wanted.width();
                    block_spots.push((line.get(width), line.get(width + 1)));
                }
            }
            if block.len() == BLOCK || line.is_none() {
                let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
                self.add(&block, rows, source, tally);
                spots.note(tally, source, rows, &mut block_spots);
                block.clear();
                rows += count;
            }
            if line.is_none() {
                return Ok(rows);
            }
        }
    }

    fn add(&self, block: &[Found], first: u32, source: u32, tally: &mut Tally) {
        let rows: Vec<Named<'_>> = block.iter().map(|found| Named { found, wanted: &self.wanted }).collect();
        let mut batch = batch_of(&rows, &self.wanted.columns);
        batch.numbers = crate::store::batch::Numbers::From(first);
        let selected = batch.select(self.asked.filter);
        self.asked.sightings.add(tally, &batch, &selected, source);
    }

    /// Says so where the question goes back further than the table.
    async fn not_kept(&self, range: Range) -> Result<Option<Cut>, PostgresError> {
        let (since_ms, until_ms) = range.ms();
        let (since, until) = (moment(since_ms.min(LAST_MS)), moment(until_ms.min(LAST_MS)));
        let sql = "SELECT EXISTS (SELECT FROM flow WHERE time <= $1)";
        let earlier =
            self.store.within("look for older flows", self.client.query_one(sql, &[&since])).await?;
        if earlier.get(0) {
            return Ok(None);
        }
        // Rows came roughly in the order of time: one of the first is nearly the oldest, and few are older than that.
        let sql = "SELECT min(time) FROM (SELECT time FROM flow WHERE time >= $1 AND time < $2 LIMIT 10000) AS first";
        let Some(near) = self.oldest(sql, [since, until]).await? else { return Ok(None) };
        let sql = "SELECT min(time) FROM flow WHERE time >= $1 AND time <= $2";
        let oldest = self.oldest(sql, [since, near]).await?.unwrap_or(near);
        let since_1970 = oldest.duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = Wall(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX));
        Ok((oldest > range.since).then_some(Cut::Before(oldest)))
    }

    async fn oldest(
        &self,
        sql: &str,
        [from, to]: [SystemTime; 2],
    ) -> Result<Option<SystemTime>, PostgresError> {
        let values: [&(dyn ToSql + Sync); 2] = [&from, &to];
        let line = self.store.within("look for the oldest flow", self.client.query_one(sql, &values)).await?;
        Ok(line.get(0))
    }
}

impl Spots {
    /// Keeps those that are the latest of their group so far. Takes all that are given.
    fn note(&mut self, tally: &Tally, source: u32, first: u32, given: &mut Vec<Spot>) {
        let given = std::mem::take(given);
        if given.is_empty() {
            return;
        }
        let places = (0..tally.len()).map(|group| tally.total(group).latest);
        for place in places.clone().filter(|place| place.source == source && place.row >= first) {
            if let Some(spot) = given.get((place.row - first) as usize) {
                self.0.insert(place, spot.clone());
            }
        }
        if self.0.len() > 2 * tally.len() + BLOCK {
            let live: std::collections::HashSet<Place> = places.collect();
            self.0.retain(|place, _| live.contains(place));
        }
    }
}

/// Length of a slice, milliseconds, behind one that had so many rows and took so long, where all of them may take `limit`.
fn next_length(length: i64, rows: u32, took: Duration, limit: Duration) -> i64 {
    if rows >= MANY || took > limit / SLOW {
        (length / 4).max(SHORTEST_MS)
    } else if rows < FEW && took < limit / QUICK {
        length.saturating_mul(4)
    } else {
        length
    }
}

fn moment(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_grow_while_they_are_small_and_quick() {
        let (quick, middling, slow) = (Duration::ZERO, Duration::from_secs(3), Duration::from_secs(9));
        let cases = [
            (FEW - 1, quick, 40_000),
            (FEW - 1, middling, 10_000),
            (FEW - 1, slow, 2_500),
            (FEW, quick, 10_000),
            (MANY, quick, 2_500),
        ];
        for (rows, took, length) in cases {
            assert_eq!(next_length(10_000, rows, took, Duration::from_secs(30)), length, "{rows} {took:?}");
        }
        assert_eq!(next_length(SHORTEST_MS, MANY, slow, Duration::from_secs(30)), SHORTEST_MS);
    }
}
