//! Makes and removes the queue of a table, with its triggers.

use std::time::Duration;

use tokio_postgres::Client;

use super::{LockLimits, SetupError, run_bounded, server};
use crate::capture::trigger::ddl::{self, QueueKind};
use crate::catalog::TableDef;
use crate::model::{Oid, TableName};

/// CREATE TRIGGER wants SHARE ROW EXCLUSIVE: it waits for those who write, and writers wait behind it. So each attempt is short.
const TRIGGER_LOCKS: LockLimits = LockLimits {
    lock_timeout: Duration::from_millis(200),
    attempts: 8,
    pause: Duration::from_millis(100),
    against_users: true,
};

/// What there is of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFacts {
    /// The queue itself.
    pub queue: bool,
    /// Both triggers are on the table, and fire whoever writes.
    pub armed: bool,
    /// Both triggers are on the table and fire, if perhaps not for replicated writes.
    pub fires: bool,
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
                 (SELECT count(*) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = ANY ($3) AND t.tgenabled IN ('A', 'O')), \
                 (SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1), \
                 (SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.oid = $1)";
    let triggers = [ddl::ROW_TRIGGER, ddl::TRUNCATE_TRIGGER];
    let row = client
        .query_one(sql, &[&table, &ddl::queue_name(table), &&triggers[..]])
        .await
        .map_err(server(WHAT))?;
    let there: i64 = row.try_get(1).map_err(server(WHAT))?;
    let always: i64 = row.try_get(2).map_err(server(WHAT))?;
    let firing: i64 = row.try_get(3).map_err(server(WHAT))?;
    let schema: Option<String> = row.try_get(4).map_err(server(WHAT))?;
    let name: Option<String> = row.try_get(5).map_err(server(WHAT))?;
    Ok(QueueFacts {
        queue: row.try_get(0).map_err(server(WHAT))?,
        armed: always == 2,
        fires: firing == 2,
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
    let statements = ddl::create(
        table.oid,
        &table.name.to_string(),
        QueueKind { unlogged: table.persistence == 'u', shared: false, always: true },
    );
    run_bounded(client, &statements, std::slice::from_ref(&table.name), None, TRIGGER_LOCKS).await
}

/// The streams that read the changes of the table with this oid from its queue, as far as the role may see it.
pub async fn stream_readers(client: &Client, table: Oid) -> Result<Vec<String>, SetupError> {
    const WHAT: &str = "looking for streams that read a queue";
    let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = 'repcloud' AND c.relname = 'reads' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
                 AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))";
    if !client.query_one(there, &[]).await.and_then(|row| row.try_get(0)).map_err(server(WHAT))? {
        return Ok(Vec::new());
    }
    let sql = "SELECT consumer FROM repcloud.reads WHERE queue = $1 ORDER BY 1";
    let rows = client.query(sql, &[&table]).await.map_err(server(WHAT))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(server(WHAT))
}

/// Removes queue, functions and triggers of the table with this oid, and all ticks of `consumer`. Where there are none nothing is done,
/// nor where a stream reads them.
pub async fn drop_queue(client: &Client, table: Oid, consumer: &str) -> Result<(), SetupError> {
    let facts = read_queue(client, table).await?;
    if !facts.queue && !facts.triggers || !stream_readers(client, table).await?.is_empty() {
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

/// A table that a stream reads by triggers.
#[derive(Debug, Clone)]
pub struct Captured<'a> {
    /// The table: a leaf where the source is partitioned.
    pub table: &'a TableDef,
    /// Our role owns it.
    pub owned: bool,
}

/// Enters `consumer` as a reader of the queues of `tables`, and makes those that are missing. When it returns, every write of a
/// table is queued, and no write from before is unfinished. Returns the number of queues made.
///
/// # Errors
/// [`SetupError::Locked`] after a few seconds: transactions write to the table. Try again.
pub async fn subscribe(
    client: &Client,
    consumer: &str,
    tables: &[Captured<'_>],
) -> Result<usize, SetupError> {
    for sql in [ddl::TICKS, ddl::READS, ddl::SHARED_SEQUENCE] {
        client.batch_execute(sql).await.map_err(server("making what all queues share"))?;
    }
    let mut made = 0;
    for Captured { table, owned } in tables {
        // First the reader: nobody then removes rows that it needs.
        let sql = "INSERT INTO repcloud.reads (consumer, queue) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        client
            .execute(sql, &[&consumer, &table.oid])
            .await
            .map_err(server("entering a reader of a queue"))?;
        let there = read_queue(client, table.oid).await?;
        if there.queue && there.fires {
            continue;
        }
        let name = table.name.to_string();
        let mut statements = ddl::drop(table.oid, None);
        statements.extend(ddl::create(
            table.oid,
            &name,
            QueueKind { unlogged: false, shared: true, always: *owned },
        ));
        run_bounded(client, &statements, std::slice::from_ref(&table.name), None, TRIGGER_LOCKS).await?;
        made += 1;
    }
    Ok(made)
}

/// Takes `consumer` out as a reader: of the queues of `tables`, or with `None` of all, and then its ticks go too. Queues that nobody
/// reads any more are removed, with their triggers. Returns how many.
pub async fn unsubscribe(
    client: &Client,
    consumer: &str,
    tables: Option<&[Oid]>,
) -> Result<usize, SetupError> {
    const WHAT: &str = "taking a reader out of its queues";
    let there = "SELECT pg_catalog.to_regclass('repcloud.reads') IS NOT NULL";
    if !client.query_one(there, &[]).await.and_then(|row| row.try_get(0)).map_err(server(WHAT))? {
        return Ok(0);
    }
    let sql = "SELECT r.queue, NOT EXISTS (SELECT FROM repcloud.reads o WHERE o.queue = r.queue AND o.consumer <> $1) \
               FROM repcloud.reads r WHERE r.consumer = $1 AND ($2::oid[] IS NULL OR r.queue = ANY ($2) \
               OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.queue))";
    let mut removed = 0;
    for row in client.query(sql, &[&consumer, &tables]).await.map_err(server(WHAT))? {
        let queue: Oid = row.try_get(0).map_err(server(WHAT))?;
        if row.try_get(1).map_err(server(WHAT))? {
            drop_stream_queue(client, queue).await?;
            removed += 1;
        }
        let sql = "DELETE FROM repcloud.reads WHERE consumer = $1 AND queue = $2";
        client.execute(sql, &[&consumer, &queue]).await.map_err(server(WHAT))?;
    }
    if tables.is_none() {
        let sql = "DELETE FROM repcloud.tick WHERE consumer = $1";
        client.execute(sql, &[&consumer]).await.map_err(server(WHAT))?;
    }
    Ok(removed)
}

async fn drop_stream_queue(client: &Client, queue: Oid) -> Result<(), SetupError> {
    const WHAT: &str = "removing a queue";
    let facts = read_queue(client, queue).await?;
    let sql = "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = $1";
    let row = client.query_opt(sql, &[&queue]).await.map_err(server(WHAT))?;
    let owned: Option<bool> = row.map(|row| row.try_get(0)).transpose().map_err(server(WHAT))?;
    let by_name = facts.triggers && owned == Some(true);
    let name = facts.table.as_ref().filter(|_| by_name).map(ToString::to_string);
    let limits = LockLimits { attempts: 60, ..TRIGGER_LOCKS };
    let tables: Vec<TableName> = facts.table.into_iter().collect();
    run_bounded(client, &ddl::drop(queue, name.as_deref()), &tables, None, limits).await
}
