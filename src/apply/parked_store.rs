//! `repcloud.parked` in the target: reading, forgetting, and the tables' states that go with it. Part of `checkpoint`.

use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Row};

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::apply::parked::ParkedRow;
use crate::model::{Lsn, PgTimestamp, TableName, TxnId};

/// How much may wait for one table before it is given up, and how often that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkLimits {
    /// Changes.
    pub changes: i64,
    /// Bytes of their images.
    pub bytes: i64,
    /// The first pause before what waits is tried again; each one is twice as long, up to twenty times the first.
    pub pause: Duration,
}

impl Default for ParkLimits {
    fn default() -> Self {
        ParkLimits { changes: 1_000_000, bytes: 1 << 30, pause: Duration::from_secs(30) }
    }
}

/// A parked row with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its number: the order of the source.
    pub seq: i64,
    /// Its transaction.
    pub txn: TxnId,
    /// The rest.
    pub row: ParkedRow,
}

/// What the applier of parked changes does in the transaction of a group: see [`super::checkpoint::CheckpointWriter`].
/// Descriptions of tables stay, since later rows lean on them.
pub(crate) const APPLIED: &str = "WITH gone AS (DELETE FROM repcloud.parked WHERE source = $4 AND target = $5 AND seq <= ($1::pg_lsn - '0/0')::int8 \
     AND operation <> 'relation' AND target_table IN (SELECT json_array_elements_text($7::json)) \
     RETURNING target_table, coalesce(octet_length(detail::text), 0) + coalesce(octet_length(old_row::text), 0) + coalesce(octet_length(new_row::text), 0) AS bytes), \
     counted AS (UPDATE repcloud.table_state t SET parked_changes = t.parked_changes - s.changes, parked_bytes = t.parked_bytes - s.bytes \
     FROM (SELECT target_table, count(*) AS changes, sum(bytes) AS bytes FROM gone GROUP BY 1) s \
     WHERE t.source = $4 AND t.target = $5 AND t.target_table = s.target_table) \
     UPDATE repcloud.checkpoint SET changes = changes + $3::int8, updated_at = now() \
     WHERE source = $4 AND target = $5 AND generation = $6::int8 AND phase = 'ready' AND $2 IS NOT NULL";

/// The parked rows of `tables`, in the source's order, as they come from the server.
pub async fn read<'a>(
    client: &'a Client,
    key: &StreamKey,
    tables: &[String],
) -> Result<impl Stream<Item = Result<Parked, StateError>> + use<'a>, StateError> {
    let sql = "SELECT seq, target_table, commit_lsn, (extract(epoch FROM commit_time) * 1000000)::int8 - 946684800000000, xid, operation, \
               detail::text, old_kind, old_row::text, new_row::text FROM repcloud.parked \
               WHERE source = $1 AND target = $2 AND target_table = ANY ($3) ORDER BY seq";
    let statement = client.prepare(sql).await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&key.source, &key.target, &tables];
    let rows = client.query_raw(&statement, params).await?;
    Ok(rows.map_err(StateError::from).map(|row| parked(&row?)))
}

fn parked(row: &Row) -> Result<Parked, StateError> {
    let xid: i64 = row.try_get(4)?;
    Ok(Parked {
        seq: row.try_get(0)?,
        txn: TxnId {
            xid: u32::try_from(xid).map_err(|_| StateError::Damaged("xid of a parked change".into()))?,
            commit_lsn: Lsn(u64::from(row.try_get::<_, PgLsn>(2)?)),
            commit_time: PgTimestamp(row.try_get(3)?),
        },
        row: ParkedRow {
            target_table: row.try_get(1)?,
            operation: row.try_get(5)?,
            detail: row.try_get(6)?,
            old_kind: row.try_get(7)?,
            old_row: row.try_get(8)?,
            new_row: row.try_get(9)?,
        },
    })
}

/// Parks `tables`: from the next start of the stream their changes wait. `first` is the one that is stopped, for `why`.
pub async fn park(
    client: &Client,
    key: &StreamKey,
    tables: &[TableName],
    first: &TableName,
    why: &str,
) -> Result<(), StateError> {
    let (names, first) = (text(tables), first.to_string());
    client
        .execute(
            "UPDATE repcloud.table_state SET state = 'parked', parked_with = $4, updated_at = now(), \
             error = CASE WHEN target_table = $4 THEN $5 ELSE 'it waits for ' || $4 || ', which foreign keys tie it to' END \
             WHERE source = $1 AND target = $2 AND target_table = ANY ($3) AND state IN ('streaming', 'parked')",
            &[&key.source, &key.target, &names, &first, &why],
        )
        .await?;
    Ok(())
}

/// Gives `tables` up: what waits for them goes, and they need another copy.
pub async fn give_up(
    client: &Client,
    key: &StreamKey,
    tables: &[TableName],
    why: &str,
) -> Result<(), StateError> {
    let names = text(tables);
    let give_up = "WITH gone AS (DELETE FROM repcloud.parked WHERE source = $1 AND target = $2 AND target_table = ANY ($3)) \
         UPDATE repcloud.table_state SET state = 'needs_copy', parked_with = NULL, parked_changes = 0, parked_bytes = 0, error = $4, updated_at = now() \
         WHERE source = $1 AND target = $2 AND target_table = ANY ($3)";
    client.execute(give_up, &[&key.source, &key.target, &names, &why]).await?;
    Ok(())
}

/// Everything that waited for `tables` is applied: they stream again. Refused while a change still waits.
pub async fn release(client: &Client, key: &StreamKey, tables: &[TableName]) -> Result<(), StateError> {
    let names = text(tables);
    let release = "WITH gone AS (DELETE FROM repcloud.parked WHERE source = $1 AND target = $2 AND target_table = ANY ($3) AND operation = 'relation') \
         UPDATE repcloud.table_state SET state = 'streaming', parked_with = NULL, parked_changes = 0, parked_bytes = 0, error = NULL, updated_at = now() \
         WHERE source = $1 AND target = $2 AND target_table = ANY ($3) \
         AND NOT EXISTS (SELECT FROM repcloud.parked WHERE source = $1 AND target = $2 AND target_table = ANY ($3) AND operation <> 'relation')";
    let released = client.execute(release, &[&key.source, &key.target, &names]).await?;
    match usize::try_from(released) == Ok(tables.len()) {
        true => Ok(()),
        false => Err(StateError::Damaged(format!("changes still wait for {}", names.join(", ")))),
    }
}

/// Removes what waits for `tables`.
pub async fn forget(client: &Client, key: &StreamKey, tables: &[String]) -> Result<(), StateError> {
    let sql = "WITH gone AS (DELETE FROM repcloud.parked WHERE source = $1 AND target = $2 AND target_table = ANY ($3)) \
         UPDATE repcloud.table_state SET parked_with = NULL, parked_changes = 0, parked_bytes = 0 \
         WHERE source = $1 AND target = $2 AND target_table = ANY ($3)";
    client.execute(sql, &[&key.source, &key.target, &tables]).await?;
    Ok(())
}

/// The target tables for which changes of this source transaction wait.
pub async fn waiting(client: &Client, key: &StreamKey, commit_lsn: Lsn) -> Result<Vec<String>, StateError> {
    let sql = "SELECT DISTINCT target_table FROM repcloud.parked \
               WHERE source = $1 AND target = $2 AND commit_lsn = $3 ORDER BY 1";
    let rows = client.query(sql, &[&key.source, &key.target, &PgLsn::from(commit_lsn.0)]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn text(tables: &[TableName]) -> Vec<String> {
    tables.iter().map(ToString::to_string).collect()
}
