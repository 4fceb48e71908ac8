//! The tables: made when they are missing, with columns for all fields, of a version that this agent knows.
//!
//! Looking costs one question. Only where something is missing is a lock taken that all agents know, so that several may
//! start at once, and no lock on a table that has all its columns.

use std::collections::HashSet;

use tokio_postgres::{Client, Transaction};

use super::{
    columns::COLUMNS,
    config::Plan,
    error::{PostgresError, statement},
};

/// Version of the tables. Columns for new fields need no new one; everything else does.
pub(super) const VERSION: i32 = 1;

/// For `pg_advisory_xact_lock`: `weir` and a number.
const LOCK: i64 = 0x7765_6972_0001;

/// Tables, views and functions that there must be.
const RELATIONS: [&str; 7] =
    ["weir_schema", "weir_batch", "flow", "edge", "otel_span", "weir_nodes", "weir_edges"];

const TABLES: &str = include_str!("tables.sql");
const VIEWS: &str = include_str!("views.sql");

/// What is there.
struct Found {
    relations: HashSet<String>,
    /// Kind of each table that must be partitioned.
    plain: Vec<String>,
    columns: HashSet<String>,
    version: Option<i32>,
}

/// The columns of the table of flows, for those who read it. Nothing is made.
pub(crate) async fn tables(client: &mut Client, plan: &Plan) -> Result<HashSet<String>, PostgresError> {
    let looking = client.transaction().await.map_err(statement("begin"))?;
    let found = look(&looking, &plan.schema).await?;
    looking.commit().await.map_err(statement("look for the tables"))?;
    found.is_complete(&plan.schema)?;
    if found.version.is_none() || !["time", "again"].iter().all(|own| found.columns.contains(*own)) {
        let (schema, database) = (plan.schema.clone(), plan.database.clone());
        return Err(PostgresError::Missing { schema, database, place: plan.place() });
    }
    Ok(found.columns)
}

/// Makes what is missing.
pub(super) async fn ensure(client: &mut Client, schema: &str) -> Result<(), PostgresError> {
    let begin = client.transaction().await.map_err(statement("begin"))?;
    if !look(&begin, schema).await?.is_complete(schema)? {
        begin
            .batch_execute(&format!("SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock({LOCK})"))
            .await
            .map_err(statement("wait for agents that make the tables"))?;
        make(&begin, schema).await?;
    }
    begin.commit().await.map_err(statement("make the tables"))
}

async fn make(transaction: &Transaction<'_>, schema: &str) -> Result<(), PostgresError> {
    // `CREATE SCHEMA IF NOT EXISTS` wants a privilege even where there is one.
    let count = transaction
        .query_one("SELECT count(*) FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .map_err(statement("look for the schema"))?;
    if count.get::<_, i64>(0) == 0 {
        let create = format!("CREATE SCHEMA {schema}");
        transaction.batch_execute(&create).await.map_err(statement("make the schema"))?;
    }
    // Somebody else may have made everything meanwhile.
    let found = look(transaction, schema).await?;
    if found.is_complete(schema)? {
        return Ok(());
    }
    transaction.batch_execute(TABLES).await.map_err(statement("make the tables"))?;
    let found = look(transaction, schema).await?;
    let missing = COLUMNS.iter().filter(|column| !found.columns.contains(&column.name));
    let additions: Vec<String> =
        missing.map(|column| format!("ADD COLUMN {} {}", column.name, column.sql)).collect();
    if !additions.is_empty() {
        let alter = format!("ALTER TABLE flow {}", additions.join(", "));
        transaction.batch_execute(&alter).await.map_err(statement("add columns to the table flow"))?;
    }
    transaction.batch_execute(VIEWS).await.map_err(statement("make the views"))?;
    transaction
        .batch_execute(&format!("DELETE FROM weir_schema; INSERT INTO weir_schema VALUES ({VERSION})"))
        .await
        .map_err(statement("note the version of the tables"))
}

async fn look(transaction: &Transaction<'_>, schema: &str) -> Result<Found, PostgresError> {
    let relations: Vec<&str> = RELATIONS.to_vec();
    let rows = transaction
        .query(
            "SELECT relname::text, relkind::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
             WHERE nspname = $1 AND relname = ANY ($2)",
            &[&schema, &relations],
        )
        .await
        .map_err(statement("look for the tables"))?;
    let mut found =
        Found { relations: HashSet::new(), plain: Vec::new(), columns: HashSet::new(), version: None };
    for row in rows {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        if ["flow", "edge", "otel_span"].contains(&name.as_str()) && kind != "p" {
            found.plain.push(name.clone());
        }
        found.relations.insert(name);
    }
    let rows = transaction
        .query(
            "SELECT attname::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
             JOIN pg_namespace n ON n.oid = relnamespace
             WHERE nspname = $1 AND relname = 'flow' AND attnum > 0 AND NOT attisdropped",
            &[&schema],
        )
        .await
        .map_err(statement("look for the columns"))?;
    found.columns = rows.iter().map(|row| row.get(0)).collect();
    if found.relations.contains("weir_schema") {
        let row = transaction
            .query_opt(&format!("SELECT max(version) FROM {schema}.weir_schema"), &[])
            .await
            .map_err(statement("look for the version of the tables"))?;
        found.version = row.and_then(|row| row.get(0));
    }
    Ok(found)
}

impl Found {
    /// Whether nothing is missing; an error where it cannot be added.
    fn is_complete(&self, schema: &str) -> Result<bool, PostgresError> {
        if let Some(found) = self.version.filter(|version| *version > VERSION) {
            return Err(PostgresError::Newer { schema: schema.to_owned(), found, known: VERSION });
        }
        for table in ["flow", "edge", "otel_span"] {
            if self.plain.iter().any(|plain| plain == table) {
                return Err(PostgresError::Foreign { schema: schema.to_owned(), table });
            }
        }
        Ok(self.version == Some(VERSION)
            && RELATIONS.iter().all(|name| self.relations.contains(*name))
            && COLUMNS.iter().all(|column| self.columns.contains(&column.name)))
    }
}
