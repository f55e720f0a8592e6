//! What `status` shows of repacks.

use serde::Serialize;

use crate::pg::{self, Session};
use crate::repack::error::RepackError;
use crate::repack::options::RepackOptions;
use crate::repack::state::{self, RepackRow};

/// One repack as CONTRACT 4 writes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepackView {
    /// Connection.
    pub connection: String,
    /// Table, quoted where SQL would.
    pub table: String,
    /// How far it has come.
    pub state: String,
    /// Rows in the copy.
    pub rows_copied: i64,
    /// Rows expected.
    pub rows_total: i64,
    /// Seconds until the rows are copied, at the rate so far without rests; none while it rests.
    pub eta_seconds: Option<f64>,
    /// Changes applied since.
    pub changes_replayed: i64,
    /// Bytes of WAL that were not applied yet; with triggers the size of the queue.
    pub lag_bytes: i64,
    /// Attempts to swap.
    pub attempt: i32,
    /// Sessions that stood in the way of the last attempt.
    pub blocked_by: Vec<i32>,
    /// Why the copy rests.
    pub throttled_by: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Some process works on it; not part of the JSON.
    #[serde(skip)]
    pub running: bool,
    /// Bytes of WAL that its slot holds back; not part of the JSON.
    #[serde(skip)]
    pub retained: i64,
    /// Bytes of the table, indexes included, when it began; not part of the JSON.
    #[serde(skip)]
    pub bytes: i64,
}

/// Seconds until the rows are copied.
fn eta(row: &RepackRow) -> Option<f64> {
    let copying = row.state == state::RepackState::ShadowReady && row.rows_copied > 0;
    let left = (row.rows_total - row.rows_copied).max(0) as f64;
    (copying && row.throttled_by.is_none()).then(|| left * row.copy_seconds / row.rows_copied as f64)
}

/// Unfinished repacks of a connection, and those that ended within a day.
pub async fn read(options: &RepackOptions) -> Result<Vec<RepackView>, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let views = read_on(&session, &options.connection).await?;
    session.close().await?;
    Ok(views)
}

/// The same on a session that is there; `connection` is its name.
pub async fn read_on(session: &Session, connection: &str) -> Result<Vec<RepackView>, RepackError> {
    if !state::exists(session).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT r.table_oid, CASE WHEN q.oid IS NOT NULL THEN pg_total_relation_size(q.oid) \
               ELSE greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), c.applied_lsn))::int8 END, coalesce(c.changes, 0), \
               coalesce(greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)), 0)::int8, \
               EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = 7300104 AND l.objid = r.table_oid \
                       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) \
               FROM repcloud.repack r LEFT JOIN (SELECT source, min(applied_lsn) AS applied_lsn, sum(changes)::int8 AS changes FROM repcloud.checkpoint \
                          WHERE target LIKE '(repack)%' AND phase = 'ready' GROUP BY source) c ON c.source = r.slot \
               LEFT JOIN pg_class q ON q.relname = 'queue_' || r.table_oid AND q.relnamespace = 'repcloud'::regnamespace \
               LEFT JOIN pg_replication_slots s ON s.slot_name = r.slot \
               WHERE r.state NOT IN ('cleaned', 'abandoned') OR r.updated_at > now() - interval '1 day'";
    let mut facts = std::collections::HashMap::new();
    for row in session.query(sql, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        let lag: Option<i64> = row.try_get(1)?;
        let changes: i64 = row.try_get(2)?;
        let (retained, running): (i64, bool) = (row.try_get(3)?, row.try_get(4)?);
        facts.insert(oid, (lag.unwrap_or(0), changes, retained, running));
    }
    let rows = state::read_all(session).await?;
    let views = rows.into_iter().filter_map(|row| {
        let (lag, changes, retained, running) = *facts.get(&row.table_oid)?;
        let eta_seconds = eta(&row).filter(|_| running);
        Some(RepackView {
            connection: connection.to_owned(),
            table: row.table.to_string(),
            state: row.state.as_str().to_owned(),
            rows_copied: row.rows_copied,
            rows_total: row.rows_total.max(row.rows_copied),
            eta_seconds,
            bytes: row.bytes_before,
            changes_replayed: changes.max(row.changes),
            lag_bytes: lag,
            // Of a process that tries, not of one that has stopped.
            attempt: if running { row.attempt } else { 0 },
            blocked_by: if running { row.blocked_by } else { Vec::new() },
            throttled_by: row.throttled_by.filter(|_| running),
            error: row.error,
            running,
            retained,
        })
    });
    Ok(views.collect())
}
