//! [`Session`]: one connection that has found its tables, and one transaction per group of batches.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, NoTls, Statement, Transaction,
    config::SslMode as WireMode,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    columns::{self, Rows},
    config::{Plan, SslMode},
    edges::{Edges, UPSERT},
    error::{PostgresError, statement},
    partitions::{self, Partition, Table},
    schema, tls,
};
use crate::{batch::seen_again, causes::with_causes, journal, outlet::Parcel};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

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
        let (mut client, connection) = connect(plan).await?;
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

/// Connects in the ways that the mode allows, in its order.
async fn connect(plan: &Plan) -> Result<(Client, JoinHandle<()>), PostgresError> {
    let is_socket = plan.host.starts_with('/');
    let ways: &[WireMode] = match plan.sslmode {
        SslMode::Disable => &[WireMode::Disable],
        _ if is_socket => &[WireMode::Disable],
        SslMode::Allow => &[WireMode::Disable, WireMode::Require],
        SslMode::Prefer => &[WireMode::Prefer, WireMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[WireMode::Require],
    };
    let mut first = None;
    for way in ways {
        match connect_by(plan, *way).await {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                // Only what another way of encryption may mend is worth another attempt.
                let is_mendable = error.state().is_some_and(|state| state.code() == "28000")
                    || matches!(&error, PostgresError::Connect { source, .. } if source.code().is_none());
                first.get_or_insert(error);
                if !is_mendable {
                    break;
                }
            }
        }
    }
    Err(first.expect("there is at least one way"))
}

async fn connect_by(plan: &Plan, way: WireMode) -> Result<(Client, JoinHandle<()>), PostgresError> {
    let mut config = Config::new();
    config
        .host(&plan.host)
        .port(plan.port)
        .dbname(&plan.database)
        .user(&plan.user)
        .ssl_mode(way)
        .connect_timeout(CONNECT)
        .tcp_user_timeout(Duration::from_secs(30))
        .application_name("weir")
        .options(format!("-c search_path={} -c TimeZone=UTC", plan.schema));
    if let Some(source) = &plan.password {
        config.password(source.read_any()?.reveal());
    }
    let failed = |source| PostgresError::Connect { place: plan.place(), source };
    if way == WireMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        // Why a connection ended, the next statement says.
        return Ok((client, tokio::spawn(async move { drop(connection.await) })));
    }
    let tls = MakeRustlsConnect::new(tls::client_config(plan)?);
    let (client, connection) = config.connect(tls).await.map_err(failed)?;
    Ok((client, tokio::spawn(async move { drop(connection.await) })))
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
