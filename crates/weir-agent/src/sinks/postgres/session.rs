//! [`Session`]: one connection that has found its tables, and one transaction per group of batches.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Statement, Transaction,
    types::{ToSql, Type},
};

use super::{
    columns::{self, Rows},
    config::Plan,
    connect::connect,
    edges::{Edges, UPSERT},
    error::{PostgresError, statement},
    partitions::{self, Partition, Table},
    schema,
};
use crate::{batch::seen_again, causes::with_causes, config::SecretSource, journal, outlet::Parcel};

/// Bytes of rows that are sent at a time.
const PIECE: usize = 64 << 10;

/// Time between two looks for partitions that are too old.
const MAINTAIN: Duration = Duration::from_mins(10);

/// A connection.
pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
    claim: Statement,
    upsert: Statement,
    copy: String,
    /// Partitions that are there.
    known: BTreeSet<Partition>,
    maintained: Option<Instant>,
}

impl Session {
    /// Connects, and makes the tables if need be.
    pub(super) async fn open(plan: &Plan) -> Result<Self, PostgresError> {
        let password = plan.password.as_ref().map(SecretSource::read_any).transpose()?;
        let (mut client, connection) = connect(plan, password.as_ref(), "").await?;
        schema::ensure(&mut client, &plan.schema).await?;
        let mut known = BTreeSet::new();
        for partition in Partition::ahead(partitions::now(), plan) {
            partitions::ensure(&mut client, partition).await?;
            known.insert(partition);
        }
        let claim = client
            .prepare_typed(
                "INSERT INTO weir_batch (id, node) SELECT unnest($1::text[])::uuid, $2 ON CONFLICT DO NOTHING
                 RETURNING id::text",
                &[Type::TEXT_ARRAY, Type::TEXT],
            )
            .await
            .map_err(statement("prepare"))?;
        let upsert = client.prepare(UPSERT).await.map_err(statement("prepare"))?;
        let copy = columns::copy_statement("flow");
        Ok(Self { client, connection, claim, upsert, copy, known, maintained: None })
    }

    /// Whether the connection is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Writes those parcels that are not there yet, all or none.
    pub(super) async fn write(
        &mut self,
        parcels: &[Parcel],
        plan: &Plan,
        node: &str,
    ) -> Result<(), PostgresError> {
        self.prepare_partitions(parcels, plan).await?;
        let transaction = self.client.transaction().await.map_err(statement("begin"))?;
        let fresh = claim(&transaction, &self.claim, parcels, node).await?;
        if !fresh.is_empty() {
            let edges = copy(&transaction, &self.copy, &fresh, node).await?;
            if !edges.is_empty() {
                let sums = edges.into_columns();
                let mut values: Vec<&(dyn ToSql + Sync)> = vec![&node];
                values.extend(sums.iter().map(|column| &**column as &(dyn ToSql + Sync)));
                let added = transaction.execute(&self.upsert, &values).await;
                added.map_err(statement("add to the table edge"))?;
            }
        }
        transaction.commit().await.map_err(statement("commit"))
    }

    async fn prepare_partitions(&mut self, parcels: &[Parcel], plan: &Plan) -> Result<(), PostgresError> {
        let mut wanted = Partition::ahead(partitions::now(), plan);
        for parcel in parcels {
            let seconds = i64::try_from(parcel.batch.tick.wall.0 / 1_000_000_000).unwrap_or_default();
            wanted.extend([Table::Flow, Table::Edge].map(|table| Partition::of(table, seconds, plan)));
        }
        for partition in wanted {
            if !self.known.contains(&partition) {
                partitions::ensure(&mut self.client, partition).await?;
                self.known.insert(partition);
            }
        }
        Ok(())
    }

    /// Drops what is too old, if that has not been done lately.
    pub(super) async fn maintain(&mut self, plan: &Plan) {
        if self.maintained.is_some_and(|last| last.elapsed() < MAINTAIN) {
            return;
        }
        self.maintained = Some(Instant::now());
        if let Err(error) = partitions::drop_old(&self.client, plan).await {
            journal::warn(format_args!("{}: {}: tried again later", plan.place(), with_causes(&error)));
        }
        // Batches of long ago may want one that was dropped.
        self.known.clear();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Notes the names of parcels; gives back those that were not noted already.
async fn claim<'p>(
    transaction: &Transaction<'_>,
    claim: &Statement,
    parcels: &'p [Parcel],
    node: &str,
) -> Result<Vec<&'p Parcel>, PostgresError> {
    let name = |parcel: &Parcel| {
        let digits = format!("{:032x}", parcel.id.0);
        format!(
            "{}-{}-{}-{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..]
        )
    };
    let names: Vec<String> = parcels.iter().map(name).collect();
    let rows = transaction.query(claim, &[&names, &node]).await.map_err(statement("note the batches"))?;
    let noted: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(parcels
        .iter()
        .zip(&names)
        .filter(|(_, name)| noted.contains(*name))
        .map(|(parcel, _)| parcel)
        .collect())
}

/// Sends the rows; sums them up on the way.
async fn copy(
    transaction: &Transaction<'_>,
    copy: &str,
    parcels: &[&Parcel],
    node: &str,
) -> Result<Edges, PostgresError> {
    let failed = || statement("copy into the table flow");
    let sink = transaction.copy_in::<_, Bytes>(copy).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    let mut rows = Rows::of_node(node);
    let mut edges = Edges::default();
    let mut piece = Vec::with_capacity(PIECE + 4096);
    piece.extend_from_slice(columns::HEADER);
    for parcel in parcels {
        let batch = &parcel.batch;
        let again = seen_again(&batch.records);
        for (record, again) in batch.records.iter().zip(&again) {
            rows.put(record, batch.tick.wall, *again, &mut piece);
            if piece.len() >= PIECE {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE + 4096));
                sink.as_mut().send(full.into()).await.map_err(failed())?;
            }
        }
        edges.add(batch, &again);
    }
    piece.extend(columns::TRAILER);
    sink.as_mut().send(piece.into()).await.map_err(failed())?;
    sink.finish().await.map_err(failed())?;
    Ok(edges)
}
