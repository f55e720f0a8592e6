//! Ticks of a stream: one snapshot for all its queues, so that a batch is one step of the whole source.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::capture::CaptureError;
use crate::capture::trigger::rows::QueueError;
use crate::capture::trigger::tick::{COLUMNS, Tick, tick};
use crate::catalog::own_tables_readable;
use crate::model::{Lsn, Oid, PgTimestamp};
use crate::pg::PgError;

/// A stream as a reader of queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    /// Its name.
    pub name: String,
    /// Of the tables whose queues it reads.
    pub queues: Vec<Oid>,
    /// Of its position: an earlier owner's ticks give way.
    pub generation: i64,
}

/// Live columns, and our triggers, with those that fire before them, with the transaction that touched each last, by table: see `layout`.
/// $2 the tables' oids.
const SHAPE: &str = "coalesce((SELECT pg_catalog.jsonb_object_agg(q.oid::text, pg_catalog.jsonb_build_object('columns', \
     coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('number', a.attnum, 'name', a.attname, 'type', a.atttypid::int8, \
            'modifier', a.atttypmod, 'sql', pg_catalog.format_type(a.atttypid, a.atttypmod) || \
            coalesce((SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, k.collname) FROM pg_catalog.pg_collation k \
            JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace WHERE k.oid = a.attcollation AND k.collname <> 'default'), ''), 'generated', a.attgenerated <> '') ORDER BY a.attnum) \
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = q.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'), \
     'last', coalesce((SELECT c.relnatts FROM pg_catalog.pg_class c WHERE c.oid = q.oid), 0), \
     'triggers', coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('%s %s %s', t.tgname, t.tgenabled, t.xmin), ', ' ORDER BY t.tgname) \
            FROM pg_catalog.pg_trigger t WHERE t.tgrelid = q.oid \
            AND (t.tgname LIKE '!repcloud%' OR t.tgname < '!repcloud_row' AND t.tgtype & 67 = 1)), '')))::text \
     FROM pg_catalog.unnest($2::oid[]) AS q (oid)), '{}')";

/// Writes tick `number`. `snapshot`: of another session; without one it is this statement's own. The session must have
/// `synchronous_commit` on and be in no transaction.
pub async fn write(
    client: &Client,
    consumer: &StreamConsumer,
    number: u64,
    snapshot: Option<&str>,
) -> Result<Tick, CaptureError> {
    let sql = format!(
        "INSERT INTO repcloud.tick AS t (consumer, number, queue, generation, snapshot, shape, made_at, lsn) \
         SELECT $1, $3, 0, $4, coalesce($5::text::pg_catalog.pg_snapshot, pg_catalog.pg_current_snapshot()), {SHAPE}, pg_catalog.clock_timestamp(), \
           pg_catalog.pg_current_wal_insert_lsn() \
         ON CONFLICT (consumer, number) DO UPDATE SET queue = excluded.queue, generation = excluded.generation, \
           snapshot = excluded.snapshot, shape = excluded.shape, made_at = excluded.made_at, lsn = excluded.lsn \
         WHERE t.generation < excluded.generation RETURNING {COLUMNS}"
    );
    let StreamConsumer { name, queues, generation } = consumer;
    let place = i64::try_from(number).unwrap_or(i64::MAX);
    let row = client
        .query_opt(&sql, &[name, queues, &place, generation, &snapshot])
        .await
        .map_err(PgError::from)?;
    match row {
        Some(row) => Ok(tick(&row).map_err(PgError::from)?),
        None => Err(QueueError::TakenOver { consumer: name.clone() }.into()),
    }
}

/// The ticks from `from` on, which are ours from now on. Those that an earlier owner wrote after a later one are removed: their
/// snapshots may be older than ones before them. No earlier owner's session may be left.
///
/// They are kept as they are, and not taken anew: the rows of a table that joins were copied under one of them.
pub async fn adopt(client: &Client, consumer: &StreamConsumer, from: u64) -> Result<Vec<Tick>, CaptureError> {
    let StreamConsumer { name, generation, .. } = consumer;
    let place = i64::try_from(from).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT {COLUMNS}, generation FROM repcloud.tick WHERE consumer = $1 AND number >= $2 ORDER BY number"
    );
    let rows = client.query(&sql, &[name, &place]).await.map_err(PgError::from)?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let generation: i64 = row.try_get(4).map_err(PgError::from)?;
        found.push((tick(row).map_err(PgError::from)?, generation));
    }
    let kept = in_order(found, from);
    let Some(last) = kept.last() else {
        return Err(QueueError::TickLost { consumer: name.clone(), number: from }.into());
    };
    let last = i64::try_from(last.number).unwrap_or(i64::MAX);
    let gone = "DELETE FROM repcloud.tick WHERE consumer = $1 AND number > $2";
    client.execute(gone, &[name, &last]).await.map_err(PgError::from)?;
    let ours =
        "UPDATE repcloud.tick SET generation = $3 WHERE consumer = $1 AND number >= $2 AND generation < $3";
    client.execute(ours, &[name, &place, generation]).await.map_err(PgError::from)?;
    Ok(kept)
}

/// Those without a gap, from `from` on, up to the first that an earlier owner wrote behind a later one's.
fn in_order(found: Vec<(Tick, i64)>, from: u64) -> Vec<Tick> {
    let (mut next, mut owner) = (from, i64::MIN);
    found
        .into_iter()
        .take_while(|(tick, generation)| {
            let follows = tick.number == next && *generation >= owner;
            (next, owner) = (next + 1, *generation);
            follows
        })
        .map(|(tick, _)| tick)
        .collect()
}

/// Where a stream's ticks are, and what waits in its queues.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The oldest tick.
    pub first: u64,
    /// The latest tick.
    pub last: u64,
    /// When it was made.
    pub made_at: PgTimestamp,
    /// Seconds since then where rows wait that it does not show, else 0.
    pub waiting_seconds: f64,
    /// Bytes of the queues.
    pub bytes: u64,
}

/// Where the WAL was at each tick that is kept, by its number.
pub async fn places(client: &Client, consumer: &str) -> Result<BTreeMap<u64, Lsn>, PgError> {
    let sql = "SELECT number, lsn FROM repcloud.tick WHERE consumer = $1 AND lsn IS NOT NULL";
    let rows = client.query(sql, &[&consumer]).await?;
    let place = |row: &tokio_postgres::Row| -> Result<(u64, Lsn), tokio_postgres::Error> {
        let (number, lsn): (i64, PgLsn) = (row.try_get(0)?, row.try_get(1)?);
        Ok((u64::try_from(number).unwrap_or(0), Lsn(u64::from(lsn))))
    };
    Ok(rows.iter().map(place).collect::<Result<_, _>>()?)
}

/// Who reads queues in this database, and how many; nobody where our role may not look.
pub async fn readers(client: &Client) -> Result<Vec<(String, i64)>, PgError> {
    if !own_tables_readable(client, &["reads"]).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT consumer, count(*) FROM repcloud.reads GROUP BY 1 ORDER BY 1";
    let rows = client.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?)
}

/// True when `consumer` reads by triggers in this database, be it that its wildcards have matched no table yet. Whoever may not look
/// into the tables of queues reads none.
pub async fn reads_any(client: &Client, consumer: &str) -> Result<bool, PgError> {
    if !own_tables_readable(client, &["reads", "tick"]).await? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM repcloud.reads WHERE consumer = $1) OR EXISTS (SELECT FROM repcloud.tick WHERE consumer = $1)";
    Ok(client.query_one(sql, &[&consumer]).await?.try_get(0)?)
}

/// See [`Standing`]; `None` before the first tick.
pub async fn standing(client: &Client, consumer: &str) -> Result<Option<Standing>, PgError> {
    if !reads_any(client, consumer).await? {
        return Ok(None);
    }
    let sql = "SELECT min(number), max(number) FROM repcloud.tick WHERE consumer = $1 HAVING count(*) > 0";
    let Some(row) = client.query_opt(sql, &[&consumer]).await? else { return Ok(None) };
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let (first, last) = (number(row.try_get(0)?), number(row.try_get(1)?));
    let sql = "SELECT c.relname::text, pg_catalog.pg_total_relation_size(c.oid) FROM repcloud.reads r \
               JOIN pg_catalog.pg_class c ON c.relname = 'queue_' || r.queue \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'repcloud' WHERE r.consumer = $1";
    let (mut bytes, mut waits) = (0, Vec::new());
    for row in client.query(sql, &[&consumer]).await? {
        let name: String = row.try_get(0)?;
        bytes += number(row.try_get(1)?);
        waits.push(format!(
            "EXISTS (SELECT FROM repcloud.{name} WHERE NOT pg_catalog.pg_visible_in_snapshot(xid, t.snapshot))"
        ));
    }
    let waits = if waits.is_empty() { "false".to_owned() } else { waits.join(" OR ") };
    let sql = format!(
        "SELECT ((extract(epoch FROM made_at) - 946684800) * 1000000)::int8, \
         CASE WHEN {waits} THEN extract(epoch FROM pg_catalog.clock_timestamp() - made_at) ELSE 0 END::float8 \
         FROM repcloud.tick t WHERE consumer = $1 AND number = $2"
    );
    let place = i64::try_from(last).unwrap_or(i64::MAX);
    let Some(row) = client.query_opt(&sql, &[&consumer, &place]).await? else { return Ok(None) };
    Ok(Some(Standing {
        first,
        last,
        made_at: PgTimestamp(row.try_get(0)?),
        waiting_seconds: row.try_get(1)?,
        bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(number: u64, shape: &str) -> Tick {
        Tick { number, snapshot: String::new(), shape: shape.to_owned(), made_at: PgTimestamp(0) }
    }

    fn kept(found: &[(u64, i64)]) -> Vec<u64> {
        let found = found.iter().map(|&(n, generation)| (tick(n, ""), generation)).collect();
        in_order(found, 5).into_iter().map(|t| t.number).collect()
    }

    #[test]
    fn a_tick_of_an_earlier_owner_behind_a_later_ones_is_not_taken_over() {
        assert_eq!(kept(&[(5, 1), (6, 1), (7, 2), (8, 2)]), [5, 6, 7, 8]);
        assert_eq!(kept(&[(5, 1), (6, 2), (7, 1), (8, 2)]), [5, 6]);
        assert_eq!(kept(&[(5, 1), (7, 1)]), [5]);
        assert_eq!(kept(&[(6, 1)]), [] as [u64; 0]);
    }
}
