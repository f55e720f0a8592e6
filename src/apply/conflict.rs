//! `repcloud.conflict`: what was left out, overwritten or stopped at. Row values go into the target's own table and
//! nowhere else.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::apply::checkpoint::StreamKey;
use crate::apply::single::stamp_text;
use crate::model::{Change, Relation, TableName, Tuple, TxnId, Value};
use crate::pg::PgError;

/// What was done about a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    Stopped,
    Logged,
    Overwritten,
    Skipped,
}

impl Resolution {
    fn as_str(self) -> &'static str {
        match self {
            Resolution::Stopped => "stopped",
            Resolution::Logged => "logged",
            Resolution::Overwritten => "overwritten",
            Resolution::Skipped => "skipped",
        }
    }
}

/// What a change is called in messages and in the conflict table.
pub(crate) fn operation(change: &Change) -> &'static str {
    match change {
        Change::Insert { .. } => "insert",
        Change::Update { .. } => "update",
        Change::Delete { .. } => "delete",
        Change::Truncate { .. } => "truncate",
    }
}

/// A row as JSON: column name → text, null, or absent when it was not sent.
fn row_json(relation: &Relation, tuple: &Tuple) -> String {
    let mut object = serde_json::Map::new();
    for (column, value) in relation.columns.iter().zip(tuple.values()) {
        let value = match value {
            Value::Null => serde_json::Value::Null,
            Value::Text(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
            Value::Unchanged => continue,
        };
        object.insert(column.name.clone(), value);
    }
    // jsonb cannot hold \u0000, which text cannot either.
    serde_json::Value::Object(object).to_string()
}

/// Writes one row of the conflict table, in whatever transaction the session is. What stops again at each attempt is
/// written once.
pub(crate) async fn record(
    client: &Client,
    key: &StreamKey,
    table: &TableName,
    txn: &TxnId,
    change: &Change,
    resolution: Resolution,
    reason: &str,
) -> Result<(), PgError> {
    let (old, new) = match change {
        Change::Insert { relation, new } => (None, Some(row_json(relation, new))),
        Change::Update { relation, old, new } => {
            (old.as_ref().map(|o| row_json(relation, o.tuple())), Some(row_json(relation, new)))
        }
        Change::Delete { relation, old } => (Some(row_json(relation, old.tuple())), None),
        Change::Truncate { .. } => (None, None),
    };
    client
        .execute(
            "INSERT INTO repcloud.conflict (source, target, target_table, commit_lsn, commit_time, xid, operation, resolution, reason, old_row, new_row) \
             SELECT $1, $2, $3, $4, $5::text::timestamptz, $6, $7, $8, $9, $10::text::jsonb, $11::text::jsonb \
             WHERE $8 <> 'stopped' OR NOT EXISTS (SELECT FROM repcloud.conflict WHERE source = $1 AND target = $2 AND target_table = $3 \
             AND commit_lsn = $4 AND operation = $7 AND resolution = $8 AND reason = $9 \
             AND old_row IS NOT DISTINCT FROM $10::text::jsonb AND new_row IS NOT DISTINCT FROM $11::text::jsonb)",
            &[
                &key.source,
                &key.target,
                &table.to_string(),
                &PgLsn::from(txn.commit_lsn.0),
                &stamp_text(txn.commit_time),
                &i64::from(txn.xid),
                &operation(change),
                &resolution.as_str(),
                &reason,
                &old,
                &new,
            ],
        )
        .await?;
    Ok(())
}
