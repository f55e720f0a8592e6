//! Makes and removes the queue of a table, with its triggers.

use std::time::Duration;

use tokio_postgres::Client;

use super::{LockLimits, SetupError, run_bounded, server};
use crate::capture::trigger::ddl::{self, QueueKind};
use crate::catalog::{TableDef, own_tables_readable};
use crate::model::{Oid, TableName, quote_literal};

/// CREATE TRIGGER wants SHARE ROW EXCLUSIVE: it waits for those who write, and writers wait behind it. So each attempt is short.
const TRIGGER_LOCKS: LockLimits = LockLimits {
    lock_timeout: Duration::from_millis(200),
    attempts: 8,
    pause: Duration::from_millis(100),
    against_users: true,
};

/// What is wrong with one of [`earlier_triggers`].
pub const FIRES_FIRST: &str = "a trigger on it has a name that sorts before repcloud's and fires first: what it changes would be queued before the \
    change it reacts to";

/// The triggers AFTER a row's change on `tables` that fire before ours, by the order of their names: each as the statement that gives it
/// another one.
pub async fn earlier_triggers(client: &Client, tables: &[Oid]) -> Result<Vec<(Oid, String)>, SetupError> {
    const WHAT: &str = "looking for triggers that fire before ours";
    // A partition's is renamed with the one that it comes from.
    let sql = "SELECT t.tgrelid, pg_catalog.format('ALTER TRIGGER %I ON %I.%I RENAME TO %I', t.tgname, n.nspname, r.relname, \
                      ('t_' || t.tgname)::pg_catalog.name) \
                 FROM pg_catalog.pg_trigger t \
                 JOIN pg_catalog.pg_class r ON r.oid = CASE t.tgparentid WHEN 0 THEN t.tgrelid ELSE pg_catalog.pg_partition_root(t.tgrelid) END \
                 JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace \
                WHERE t.tgrelid = ANY ($1) AND t.tgname < $2::pg_catalog.name AND t.tgtype & 67 = 1 AND t.tgenabled <> 'D' ORDER BY 1, t.tgname";
    let rows = client.query(sql, &[&tables, &ddl::ROW_TRIGGER]).await.map_err(server(WHAT))?;
    let read = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(read).collect::<Result<_, _>>().map_err(server(WHAT))
}

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
    if !own_tables_readable(client, &["reads"]).await.map_err(server(WHAT))? {
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
    if is_there(client, "repcloud.tick").await? {
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
    /// Only rows for which this holds are wanted, as the server prints it.
    pub condition: Option<&'a str>,
}

/// What all queues of streams share.
const SHARED: [(&str, &str); 3] = [
    ("repcloud.tick", ddl::TICKS),
    ("repcloud.reads", ddl::READS),
    ("repcloud.queue_seq", ddl::SHARED_SEQUENCE),
];

/// Columns that earlier versions did not make.
const LATER: [(&str, &str, &str); 2] =
    [("repcloud.tick", "lsn", "pg_catalog.pg_lsn"), ("repcloud.reads", "condition", "pg_catalog.text")];

/// Brings what an earlier version made up to date.
pub async fn update_shared(client: &Client) -> Result<(), SetupError> {
    const WHAT: &str = "bringing the tables of queues up to date";
    for (table, column, of) in LATER {
        let sql = "SELECT pg_catalog.to_regclass($1) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
                   WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped)";
        let row = client.query_one(sql, &[&table, &column]).await.map_err(server(WHAT))?;
        if row.try_get::<_, bool>(0).map_err(server(WHAT))? {
            let sql = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {of}");
            client.batch_execute(&sql).await.map_err(server(WHAT))?;
        }
    }
    Ok(())
}

/// The relation (as SQL writes it) exists.
pub async fn is_there(client: &Client, relation: &str) -> Result<bool, SetupError> {
    let sql = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
    let row = client.query_one(sql, &[&relation]).await;
    row.and_then(|row| row.try_get(0)).map_err(server(format!("looking for {relation}")))
}

/// Our role owns the table, or is a member of its owner; false for one that is gone.
pub async fn owns(client: &Client, table: Oid) -> Result<bool, SetupError> {
    let sql = "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = $1";
    let row = client.query_opt(sql, &[&table]).await;
    let owned = row.and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)));
    owned.map_err(server("looking for the owner of a table"))
}

/// Makes what all queues share, where it is missing: a role that may use it need not be able to make it.
pub async fn make_shared(client: &Client) -> Result<(), SetupError> {
    const WHAT: &str = "making what all queues share";
    for (name, sql) in SHARED {
        if !is_there(client, name).await? {
            client.batch_execute(sql).await.map_err(server(WHAT))?;
        }
    }
    Ok(())
}

/// Everything is there that queues share.
pub async fn shared_is_there(client: &Client) -> Result<bool, SetupError> {
    for (name, _) in SHARED {
        if !is_there(client, name).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Enters `consumer` as a reader of the queue of `table`, and makes it where it is missing; `true`: it was. When it returns, every write of a
/// transaction that began later is queued, and none that was before is unfinished.
///
/// # Errors
/// [`SetupError::Locked`] after a few seconds: transactions write to the table. Try again.
pub async fn subscribe(client: &Client, consumer: &str, wanted: &Captured<'_>) -> Result<bool, SetupError> {
    let Captured { table, owned, condition } = wanted;
    make_shared(client).await?;
    // First the reader: nobody then removes rows that it needs.
    let sql = "INSERT INTO repcloud.reads (consumer, queue, condition) VALUES ($1, $2, $3) \
               ON CONFLICT (consumer, queue) DO UPDATE SET condition = excluded.condition";
    client
        .execute(sql, &[&consumer, &table.oid, condition])
        .await
        .map_err(server("entering a reader of a queue"))?;
    let there = read_queue(client, table.oid).await?;
    if there.queue && there.fires {
        return Ok(false);
    }
    let name = table.name.to_string();
    let mut statements = ddl::drop(table.oid, None);
    statements.extend(ddl::create(
        table.oid,
        &name,
        QueueKind { unlogged: false, shared: true, always: *owned },
    ));
    run_bounded(client, &statements, std::slice::from_ref(&table.name), None, TRIGGER_LOCKS).await?;
    Ok(true)
}

/// Takes `consumer` out as a reader: of the queues of `tables`, or with `None` of all, and then its ticks go too. Queues that nobody
/// reads any more are removed, with their triggers. With `tables` all of it or, with an error, none. Returns how many.
pub async fn unsubscribe(
    client: &Client,
    consumer: &str,
    tables: Option<&[Oid]>,
) -> Result<usize, SetupError> {
    const WHAT: &str = "taking a reader out of its queues";
    if !is_there(client, "repcloud.reads").await? {
        return Ok(0);
    }
    let sql = "SELECT r.queue, NOT EXISTS (SELECT FROM repcloud.reads o WHERE o.queue = r.queue AND o.consumer <> $1) \
               FROM repcloud.reads r WHERE r.consumer = $1 AND ($2::oid[] IS NULL OR r.queue = ANY ($2) \
               OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.queue))";
    let reader = quote_literal(consumer);
    let limits = LockLimits { attempts: 20, ..TRIGGER_LOCKS };
    let (mut statements, mut names, mut removed) = (Vec::new(), Vec::new(), 0);
    for row in client.query(sql, &[&consumer, &tables]).await.map_err(server(WHAT))? {
        let queue: Oid = row.try_get(0).map_err(server(WHAT))?;
        if row.try_get(1).map_err(server(WHAT))? {
            statements.extend(drop_stream_queue(client, queue, &mut names).await?);
            removed += 1;
        }
        statements.push(format!("DELETE FROM repcloud.reads WHERE consumer = {reader} AND queue = {queue}"));
        if tables.is_none() {
            // Of many tables, locked at once, some one would always be busy.
            run_bounded(client, &std::mem::take(&mut statements), &std::mem::take(&mut names), None, limits)
                .await?;
        }
    }
    if tables.is_none() {
        statements.push(format!("DELETE FROM repcloud.tick WHERE consumer = {reader}"));
    }
    run_bounded(client, &statements, &names, None, limits).await?;
    Ok(removed)
}

/// The statements that remove a queue; adds the table that is to be locked to `names`.
async fn drop_stream_queue(
    client: &Client,
    queue: Oid,
    names: &mut Vec<TableName>,
) -> Result<Vec<String>, SetupError> {
    let facts = read_queue(client, queue).await?;
    let by_name = facts.triggers && owns(client, queue).await?;
    let name = facts.table.as_ref().filter(|_| by_name).map(ToString::to_string);
    if facts.queue {
        names.push(TableName::new("repcloud", ddl::queue_name(queue)));
    }
    names.extend(facts.table);
    Ok(ddl::drop(queue, name.as_deref()))
}
