//! Ticks: numbered snapshots, written down on the source before what they show is applied anywhere.
//!
//! A transaction that waits for its flush writes them: a crash of the source could else undo transactions that were applied
//! already, and give their ids to others (`proto-notes/trigger-queue.md`).

use tokio_postgres::Client;

use crate::capture::CaptureError;
use crate::capture::trigger::rows::QueueError;
use crate::model::{Oid, PgTimestamp};
use crate::pg::PgError;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Counts up by one.
    pub number: u64,
    /// `pg_snapshot` as text.
    pub snapshot: String,
    /// Columns and triggers of the table as this snapshot shows them.
    pub shape: String,
    /// When.
    pub made_at: PgTimestamp,
}

/// Who reads a queue, and as which owner of its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Of the table whose queue it reads.
    pub queue: Oid,
    /// Of its position: an earlier owner's ticks give way.
    pub generation: i64,
}

/// Live columns, and our triggers with the transaction that touched each last: one that was disabled for a while has missed rows. And those
/// that fire before ours.
/// $2 the table's oid.
const SHAPE: &str = "coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('%s %I %s %s', a.attnum, a.attname, a.atttypid, a.atttypmod), ', ' \
            ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = $2 AND a.attnum > 0 AND NOT a.attisdropped), '') || '; ' || \
     coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('%s %s %s', t.tgname, t.tgenabled, t.xmin), ', ' ORDER BY t.tgname) \
            FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $2 \
            AND (t.tgname LIKE '!repcloud%' OR t.tgname < '!repcloud_row' AND t.tgtype & 67 = 1)), '')";

pub(super) const COLUMNS: &str = "number, snapshot::text, shape, \
     ((extract(epoch FROM made_at) - 946684800) * 1000000)::int8";

pub(super) fn tick(row: &tokio_postgres::Row) -> Result<Tick, tokio_postgres::Error> {
    let number: i64 = row.try_get(0)?;
    Ok(Tick {
        number: u64::try_from(number).unwrap_or(0),
        snapshot: row.try_get(1)?,
        shape: row.try_get(2)?,
        made_at: PgTimestamp(row.try_get(3)?),
    })
}

/// Writes tick `number`. `snapshot`: of another session, which shows the same columns; without one it is this statement's own.
/// The session must have `synchronous_commit` on and be in no transaction.
pub async fn write(
    client: &Client,
    consumer: &Consumer,
    number: u64,
    snapshot: Option<&str>,
) -> Result<Tick, CaptureError> {
    let sql = format!(
        "INSERT INTO repcloud.tick AS t (consumer, number, queue, generation, snapshot, shape, made_at) \
         SELECT $1, $3, $2, $4, coalesce($5::text::pg_catalog.pg_snapshot, pg_catalog.pg_current_snapshot()), {SHAPE}, pg_catalog.clock_timestamp() \
         ON CONFLICT (consumer, number) DO UPDATE SET queue = excluded.queue, generation = excluded.generation, \
           snapshot = excluded.snapshot, shape = excluded.shape, made_at = excluded.made_at \
         WHERE t.generation < excluded.generation RETURNING {COLUMNS}"
    );
    let Consumer { name, queue, generation } = consumer;
    let place = i64::try_from(number).unwrap_or(i64::MAX);
    let row =
        client.query_opt(&sql, &[name, queue, &place, generation, &snapshot]).await.map_err(PgError::from)?;
    match row {
        Some(row) => Ok(tick(&row).map_err(PgError::from)?),
        None => Err(QueueError::TakenOver { consumer: name.clone() }.into()),
    }
}

/// Tick `number` of the consumer; `None`: the source does not know it.
pub async fn read(client: &Client, consumer: &str, number: u64) -> Result<Option<Tick>, PgError> {
    let sql = format!("SELECT {COLUMNS} FROM repcloud.tick WHERE consumer = $1 AND number = $2");
    let place = i64::try_from(number).unwrap_or(i64::MAX);
    let row = client.query_opt(&sql, &[&consumer, &place]).await?;
    Ok(row.as_ref().map(tick).transpose()?)
}
