//! `repcloud.table_state`: how far each target table of a stream is. Part of `checkpoint`, which shows it to the others.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::apply::route::ShapeFingerprint;
use crate::model::name::parse_table_name;
use crate::model::{Lsn, Oid, TableName};

/// State of a target table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableState {
    /// Marked ours, rows not complete.
    Copying,
    /// Rows complete, changes follow.
    Streaming,
    /// Its changes wait in `repcloud.parked`.
    Parked,
    /// Stopped; its rows are no longer kept up.
    NeedsCopy,
    /// Stopped by an error.
    Failed,
}

impl TableState {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            TableState::Copying => "copying",
            TableState::Streaming => "streaming",
            TableState::Parked => "parked",
            TableState::NeedsCopy => "needs_copy",
            TableState::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, StateError> {
        let all = [
            TableState::Copying,
            TableState::Streaming,
            TableState::Parked,
            TableState::NeedsCopy,
            TableState::Failed,
        ];
        all.into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| StateError::Damaged(format!("table state \"{text}\"")))
    }
}

/// `repcloud.table_state`'s row.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRecord {
    /// Target table as SQL writes it.
    pub target_table: String,
    /// Source table as SQL writes it.
    pub source_table: String,
    /// The source's relation that the rows are of; `None`: the one that bears the name when it is looked at next.
    pub source_oid: Option<Oid>,
    /// The target's relation that the rows went into; `None`: the one that bears the name when it is looked at next.
    pub target_oid: Option<Oid>,
    /// `dml` or `logdel`.
    pub mode: String,
    /// State.
    pub state: TableState,
    /// Changes of transactions that committed before it are in the copied rows.
    pub copied_at: Lsn,
    /// We created the table.
    pub made_by_us: bool,
    /// The source's columns when the rows were copied.
    pub known_columns: Option<Vec<ShapeFingerprint>>,
    /// Rows copied.
    pub rows_copied: i64,
    /// Rows estimated when the copy began.
    pub rows_total: i64,
    /// Why it is stopped.
    pub error: Option<String>,
    /// The table for which it waits while it is parked: itself, or one that foreign keys tie it to. Set by
    /// [`crate::apply::parked_store`] alone, like the two below.
    pub parked_with: Option<String>,
    /// Changes that wait.
    pub parked_changes: i64,
    /// Bytes of their images.
    pub parked_bytes: i64,
}

/// All table rows of the stream.
pub async fn read_tables(client: &Client, key: &StreamKey) -> Result<Vec<TableRecord>, StateError> {
    let rows = client
        .query(
            "SELECT target_table, source_table, mode, state, copied_at_lsn, made_by_us, known_columns::text, rows_copied, rows_total, error, \
             to_jsonb(t)->>'parked_with', coalesce((to_jsonb(t)->>'parked_changes')::int8, 0), coalesce((to_jsonb(t)->>'parked_bytes')::int8, 0), (to_jsonb(t)->>'source_oid')::oid, \
             CASE WHEN (to_jsonb(t)->>'state_oid')::oid = t.tableoid THEN (to_jsonb(t)->>'target_oid')::oid END \
             FROM repcloud.table_state t WHERE source = $1 AND target = $2 ORDER BY target_table",
            &[&key.source, &key.target],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            let known: Option<String> = row.try_get(6)?;
            Ok(TableRecord {
                target_table: row.try_get(0)?,
                source_table: row.try_get(1)?,
                mode: row.try_get(2)?,
                state: TableState::parse(row.try_get(3)?)?,
                copied_at: Lsn(u64::from(row.try_get::<_, PgLsn>(4)?)),
                made_by_us: row.try_get(5)?,
                known_columns: known
                    .map(|json| serde_json::from_str(&json))
                    .transpose()
                    .map_err(|e| StateError::Damaged(format!("known_columns: {e}")))?,
                rows_copied: row.try_get(7)?,
                rows_total: row.try_get(8)?,
                error: row.try_get(9)?,
                // Older versions have none of them, and `status` reads it without bringing it up to date.
                parked_with: row.try_get(10)?,
                parked_changes: row.try_get(11)?,
                parked_bytes: row.try_get(12)?,
                source_oid: row.try_get(13)?,
                target_oid: row.try_get(14)?,
            })
        })
        .collect()
}

/// Writes a table's row whole.
pub async fn write_table(client: &Client, key: &StreamKey, record: &TableRecord) -> Result<(), StateError> {
    let known = record
        .known_columns
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| StateError::Damaged(format!("known_columns: {e}")))?;
    client
        .execute(
            "INSERT INTO repcloud.table_state (source, target, target_table, source_table, mode, state, copied_at_lsn, made_by_us, known_columns, rows_copied, rows_total, error, source_oid, target_oid, state_oid) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12, $13, $14, 'repcloud.table_state'::regclass) \
             ON CONFLICT (source, target, target_table) DO UPDATE SET source_table = excluded.source_table, mode = excluded.mode, state = excluded.state, \
             copied_at_lsn = excluded.copied_at_lsn, made_by_us = excluded.made_by_us, known_columns = excluded.known_columns, \
             rows_copied = excluded.rows_copied, rows_total = excluded.rows_total, error = excluded.error, source_oid = excluded.source_oid, \
             target_oid = excluded.target_oid, state_oid = excluded.state_oid, updated_at = now()",
            &[
                &key.source,
                &key.target,
                &record.target_table,
                &record.source_table,
                &record.mode,
                &record.state.as_str(),
                &PgLsn::from(record.copied_at.0),
                &record.made_by_us,
                &known,
                &record.rows_copied,
                &record.rows_total,
                &record.error,
                &record.source_oid,
                &record.target_oid,
            ],
        )
        .await?;
    Ok(())
}

/// The leaves of a partitioned source table when its rows were copied, by target table. Tables without are left out.
pub async fn read_leaves(client: &Client, key: &StreamKey) -> Result<Vec<(String, Vec<String>)>, StateError> {
    let rows = client
        .query(
            "SELECT target_table, known_leaves FROM repcloud.table_state \
             WHERE source = $1 AND target = $2 AND state = 'streaming' AND known_leaves IS NOT NULL",
            &[&key.source, &key.target],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The source tables whose changes `record`'s table gets, as they were when it was copied: itself, or its leaves.
pub async fn known_storage(
    client: &Client,
    key: &StreamKey,
    record: &TableRecord,
) -> Result<Vec<TableName>, StateError> {
    let sql = "SELECT coalesce(known_leaves, ARRAY[source_table]) FROM repcloud.table_state \
               WHERE source = $1 AND target = $2 AND target_table = $3";
    let row = client.query_opt(sql, &[&key.source, &key.target, &record.target_table]).await?;
    let names: Vec<String> = row.map_or(Ok(Vec::new()), |row| row.try_get(0))?;
    let parse = |name: &String| parse_table_name(name);
    names
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|e| StateError::Damaged(format!("a table name: {e}")))
}

/// Target tables that were taken out of the stream and are not to come back by a wildcard. None where schema `repcloud` is not
/// there, or older.
pub async fn read_dropped(client: &Client, key: &StreamKey) -> Result<Vec<String>, StateError> {
    let there = "SELECT pg_catalog.to_regclass('repcloud.dropped') IS NOT NULL";
    if !client.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT target_table FROM repcloud.dropped WHERE source = $1 AND target = $2";
    let rows = client.query(sql, &[&key.source, &key.target]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Remembers that `table` was taken out of the stream, or (`dropped` false) forgets it.
pub async fn set_dropped(
    client: &Client,
    key: &StreamKey,
    table: &TableName,
    dropped: bool,
) -> Result<(), StateError> {
    let sql = match dropped {
        true => "INSERT INTO repcloud.dropped VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        false => "DELETE FROM repcloud.dropped WHERE source = $1 AND target = $2 AND target_table = $3",
    };
    client.execute(sql, &[&key.source, &key.target, &table.to_string()]).await?;
    Ok(())
}

/// Writes the source's relation down.
pub async fn set_source_oid(
    client: &Client,
    key: &StreamKey,
    target_table: &TableName,
    oid: Oid,
) -> Result<(), StateError> {
    let sql = "UPDATE repcloud.table_state SET source_oid = $4 WHERE source = $1 AND target = $2 AND target_table = $3";
    client.execute(sql, &[&key.source, &key.target, &target_table.to_string(), &oid]).await?;
    Ok(())
}

/// Records them, or that the source table has none.
pub async fn write_leaves(
    client: &Client,
    key: &StreamKey,
    target_table: &TableName,
    leaves: Option<&[String]>,
) -> Result<(), StateError> {
    client
        .execute(
            "UPDATE repcloud.table_state SET known_leaves = $4 WHERE source = $1 AND target = $2 AND target_table = $3",
            &[&key.source, &key.target, &target_table.to_string(), &leaves],
        )
        .await?;
    Ok(())
}

/// Records the source's columns as the target now expects them.
pub async fn set_known_columns(
    client: &Client,
    key: &StreamKey,
    table: &TableName,
    columns: &[ShapeFingerprint],
) -> Result<(), StateError> {
    let known =
        serde_json::to_string(columns).map_err(|e| StateError::Damaged(format!("known_columns: {e}")))?;
    client
        .execute(
            "UPDATE repcloud.table_state SET known_columns = $4::text::jsonb, updated_at = now() WHERE source = $1 AND target = $2 AND target_table = $3",
            &[&key.source, &key.target, &table.to_string(), &known],
        )
        .await?;
    Ok(())
}

/// Sets a table's state alone.
pub async fn set_table_state(
    client: &Client,
    key: &StreamKey,
    table: &TableName,
    state: TableState,
    error: Option<&str>,
) -> Result<u64, StateError> {
    Ok(client
        .execute(
            "UPDATE repcloud.table_state SET state = $4, error = $5, updated_at = now() WHERE source = $1 AND target = $2 AND target_table = $3",
            &[&key.source, &key.target, &table.to_string(), &state.as_str(), &error],
        )
        .await?)
}
