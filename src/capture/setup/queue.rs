//! Makes and removes the queue of a table, with its triggers.

use std::time::Duration;

use tokio_postgres::Client;

use super::{LockLimits, SetupError, run_bounded, server};
use crate::capture::trigger::ddl;
use crate::catalog::TableDef;
use crate::model::{Oid, TableName};

/// CREATE TRIGGER wants SHARE ROW EXCLUSIVE: it waits for those who write, and writers wait behind it. So each attempt is short.
const TRIGGER_LOCKS: LockLimits =
    LockLimits { lock_timeout: Duration::from_millis(200), attempts: 8, pause: Duration::from_millis(100) };

/// What there is of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFacts {
    /// The queue itself.
    pub queue: bool,
    /// Both triggers are on the table, and fire whoever writes.
    pub armed: bool,
    /// The table, whatever it is called now; `None`: it is gone.
    pub table: Option<TableName>,
    /// One of our triggers is on the table.
    pub triggers: bool,
}

/// Reads it; `table` is the table's oid.
pub async fn read_queue(client: &Client, table: Oid) -> Result<QueueFacts, SetupError> {
    const WHAT: &str = "reading what there is of a queue";
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class q JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace \
                       WHERE n.nspname = 'repcloud' AND q.relname = $2), \
                 (SELECT count(*) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = ANY ($3)), \
                 (SELECT count(*) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = ANY ($3) AND t.tgenabled = 'A'), \
                 (SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1), \
                 (SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.oid = $1)";
    let triggers = [ddl::ROW_TRIGGER, ddl::TRUNCATE_TRIGGER];
    let row = client
        .query_one(sql, &[&table, &ddl::queue_name(table), &&triggers[..]])
        .await
        .map_err(server(WHAT))?;
    let there: i64 = row.try_get(1).map_err(server(WHAT))?;
    let always: i64 = row.try_get(2).map_err(server(WHAT))?;
    let schema: Option<String> = row.try_get(3).map_err(server(WHAT))?;
    let name: Option<String> = row.try_get(4).map_err(server(WHAT))?;
    Ok(QueueFacts {
        queue: row.try_get(0).map_err(server(WHAT))?,
        armed: always == 2,
        table: schema.zip(name).map(|(schema, name)| TableName::new(schema, name)),
        triggers: there > 0,
    })
}

/// Makes queue, functions and triggers in one transaction: after it every write is queued, and none that was before is
/// unfinished. In schema `repcloud`, which must be there.
///
/// # Errors
/// [`SetupError::Locked`] after a few seconds: transactions write to the table. Try again.
pub async fn create_queue(client: &Client, table: &TableDef) -> Result<(), SetupError> {
    client.batch_execute(ddl::TICKS).await.map_err(server("making repcloud.tick"))?;
    let statements = ddl::create(table.oid, &table.name.to_string(), table.persistence == 'u');
    run_bounded(client, &statements, std::slice::from_ref(&table.name), None, TRIGGER_LOCKS).await
}

/// Removes queue, functions and triggers of the table with this oid, and all ticks of `consumer`. Where there are none nothing is done.
pub async fn drop_queue(client: &Client, table: Oid, consumer: &str) -> Result<(), SetupError> {
    let facts = read_queue(client, table).await?;
    if !facts.queue && !facts.triggers {
        return Ok(());
    }
    let name = facts.table.filter(|_| facts.triggers);
    let statements = ddl::drop(table, name.as_ref().map(ToString::to_string).as_deref());
    let limits = LockLimits { attempts: 60, ..TRIGGER_LOCKS };
    let tables: Vec<TableName> = name.into_iter().collect();
    run_bounded(client, &statements, &tables, None, limits).await?;
    let ticks = "SELECT pg_catalog.to_regclass('repcloud.tick') IS NOT NULL";
    let row = client.query_one(ticks, &[]).await.map_err(server("looking for repcloud.tick"))?;
    if row.try_get(0).map_err(server("looking for repcloud.tick"))? {
        let sql = "DELETE FROM repcloud.tick WHERE consumer = $1";
        client.execute(sql, &[&consumer]).await.map_err(server("removing ticks"))?;
    }
    Ok(())
}
