//! The state of a stream in its target: schema `repcloud`. The only writer of position rows.

use tokio_postgres::types::{PgLsn, Type};
use tokio_postgres::{Client, Statement};

use crate::apply::group::Closing;
use crate::apply::lane_rows::OF_ALL_LANES;
use crate::apply::parked_store;
use crate::apply::single::stamp_text;
use crate::model::{Lsn, RetryAdvice, TableName};
use crate::pg::PgError;

pub use crate::apply::lane_rows::{LanePosition, changes, lowest, take_over_lanes};
pub use crate::apply::table_state::{
    TableRecord, TableState, known_storage, read_dropped, read_leaves, read_tables, set_dropped,
    set_known_columns, set_source_oid, set_table_state, write_leaves, write_table,
};

/// Which stream a row belongs to: the names of the two connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// Source connection.
    pub source: String,
    /// Target connection.
    pub target: String,
}

/// What goes wrong with the state itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The target's connection or server.
    #[error("target: {0}")]
    Target(#[from] PgError),
    /// Written by a later repcloud.
    #[error(
        "schema repcloud in the target has version {found}, this program knows versions up to {known}; use a newer repcloud"
    )]
    Newer {
        /// In the database.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// A schema of that name that is not ours.
    #[error(
        "schema repcloud in the target exists but has no version table; it is not ours, rename or drop it"
    )]
    Foreign,
    /// A row that cannot be read.
    #[error("the state in schema repcloud cannot be read: {0}")]
    Damaged(String),
}

impl StateError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            StateError::Target(error) => error.advice(),
            StateError::Newer { .. } | StateError::Foreign | StateError::Damaged(_) => RetryAdvice::Stop,
        }
    }
}

impl From<tokio_postgres::Error> for StateError {
    fn from(error: tokio_postgres::Error) -> Self {
        StateError::Target(error.into())
    }
}

/// Every table that repcloud makes in schema `repcloud`, but for queues.
pub const TABLES: [&str; 11] = [
    "version",
    "checkpoint",
    "durability",
    "table_state",
    "parked",
    "conflict",
    "skip",
    "dropped",
    "repack",
    "tick",
    "reads",
];

/// The version that `schema.sql` and what follows it make.
pub const VERSION: i32 = 6;

/// Makes schema `repcloud` in the target, or checks the one that is there. Safe to call from several processes.
pub async fn ensure_schema(client: &Client) -> Result<(), StateError> {
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock(7300102, 1)";
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '30s'; {lock}"
        ))
        .await?;
    let result = ensure_schema_locked(client).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    result
}

async fn ensure_schema_locked(client: &Client) -> Result<(), StateError> {
    const STEPS: [&str; 6] = [
        include_str!("schema.sql"),
        include_str!("schema_2.sql"),
        include_str!("schema_3.sql"),
        include_str!("schema_4.sql"),
        include_str!("schema_5.sql"),
        include_str!("schema_6.sql"),
    ];
    let found = schema_version(client).await?.unwrap_or(0);
    if found > VERSION {
        return Err(StateError::Newer { found, known: VERSION });
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        client.batch_execute(step).await?;
    }
    Ok(())
}

/// True when schema `repcloud` is there, in the version of this program.
pub async fn is_current(client: &Client) -> Result<bool, StateError> {
    Ok(schema_version(client).await? == Some(VERSION))
}

/// The version of the target's schema `repcloud`; `None` without one.
pub async fn schema_version(client: &Client) -> Result<Option<i32>, StateError> {
    let row = client
        .query_one("SELECT to_regclass('repcloud.version') IS NOT NULL, to_regclass('repcloud.checkpoint') IS NOT NULL OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'repcloud')", &[])
        .await?;
    match (row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?) {
        (true, _) => {
            Ok(Some(client.query_one("SELECT max(version) FROM repcloud.version", &[]).await?.try_get(0)?))
        }
        (false, true) => Err(StateError::Foreign),
        (false, false) => Ok(None),
    }
}

/// `repcloud.checkpoint`'s row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Slot it belongs to.
    pub slot: String,
    /// `ready`, or `creating` while the slot is being made.
    pub ready: bool,
    /// Source system identifier.
    pub system_id: String,
    /// Source timeline.
    pub timeline: u32,
    /// Counts the processes that have owned the stream.
    pub generation: i64,
    /// Everything that committed on the source before it is in the target.
    pub applied: Lsn,
    /// Changes applied since the stream began.
    pub changes: i64,
}

/// Reads the position row.
pub async fn read(client: &Client, key: &StreamKey) -> Result<Option<Checkpoint>, StateError> {
    let row = client
        .query_opt(
            "SELECT slot, phase, system_id, timeline, generation, applied_lsn, changes FROM repcloud.checkpoint WHERE source = $1 AND target = $2",
            &[&key.source, &key.target],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let timeline: i64 = row.try_get(3)?;
    Ok(Some(Checkpoint {
        slot: row.try_get(0)?,
        ready: row.try_get::<_, &str>(1)? == "ready",
        system_id: row.try_get(2)?,
        timeline: u32::try_from(timeline).map_err(|_| StateError::Damaged("timeline".into()))?,
        generation: row.try_get(4)?,
        applied: Lsn(u64::from(row.try_get::<_, PgLsn>(5)?)),
        changes: row.try_get(6)?,
    }))
}

/// Writes the intention to make `slot`: the first row of a stream.
pub async fn record_intention(
    client: &Client,
    key: &StreamKey,
    slot: &str,
    system_id: &str,
    timeline: u32,
) -> Result<(), StateError> {
    client
        .execute(
            "WITH d AS (INSERT INTO repcloud.durability (source, target) VALUES ($1, $2) ON CONFLICT DO NOTHING) \
             INSERT INTO repcloud.checkpoint (source, target, slot, phase, system_id, timeline) VALUES ($1, $2, $3, 'creating', $4, $5)",
            &[&key.source, &key.target, &slot, &system_id, &i64::from(timeline)],
        )
        .await?;
    Ok(())
}

/// The slot exists: the stream's position is valid from here on.
pub async fn record_slot(client: &Client, key: &StreamKey, at: Lsn) -> Result<(), StateError> {
    client
        .execute(
            "UPDATE repcloud.checkpoint SET phase = 'ready', applied_lsn = $3, updated_at = now() WHERE source = $1 AND target = $2",
            &[&key.source, &key.target, &PgLsn::from(at.0)],
        )
        .await?;
    Ok(())
}

/// Binds the position to another system or timeline (a promotion, or `reset --accept-system`).
pub async fn record_system(
    client: &Client,
    key: &StreamKey,
    system_id: &str,
    timeline: u32,
) -> Result<(), StateError> {
    client
        .execute(
            "UPDATE repcloud.checkpoint SET system_id = $3, timeline = $4 WHERE source = $1 AND target = $2",
            &[&key.source, &key.target, &system_id, &i64::from(timeline)],
        )
        .await?;
    Ok(())
}

/// Takes the stream over: every commit of an earlier owner fails from here on. Returns our generation, and the position
/// as no earlier owner can move it any more.
pub async fn take_over(client: &Client, key: &StreamKey) -> Result<(i64, Lsn), StateError> {
    let row = client
        .query_one(
            "UPDATE repcloud.checkpoint SET generation = generation + 1 WHERE source = $1 AND target = $2 RETURNING generation, applied_lsn",
            &[&key.source, &key.target],
        )
        .await?;
    Ok((row.try_get(0)?, Lsn(u64::from(row.try_get::<_, PgLsn>(1)?))))
}

/// True when no other live process holds the stream; the lock lasts as long as the session.
pub async fn try_lock(client: &Client, key: &StreamKey) -> Result<bool, StateError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.pg_try_advisory_lock(7300102, pg_catalog.hashtext($1 || '__' || $2))",
            &[&key.source, &key.target],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Forgets the stream's position, so that it begins anew with a new slot.
pub async fn back_to_creating(
    client: &Client,
    key: &StreamKey,
    slot: &str,
    system_id: &str,
    timeline: u32,
) -> Result<(), StateError> {
    client
        .execute(
            "UPDATE repcloud.checkpoint SET phase = 'creating', applied_lsn = '0/0', slot = $3, system_id = $4, timeline = $5, generation = generation + 1 WHERE source = $1 AND target = $2",
            &[&key.source, &key.target, &slot, &system_id, &i64::from(timeline)],
        )
        .await?;
    Ok(())
}

/// Removes all that the target knows of one table of the stream, or of the whole stream.
pub async fn forget(client: &Client, key: &StreamKey, table: Option<&TableName>) -> Result<(), StateError> {
    if let Some(table) = table {
        parked_store::forget(client, key, &[table.to_string()]).await?;
        client
            .execute(
                "DELETE FROM repcloud.table_state WHERE source = $1 AND target = $2 AND target_table = $3",
                &[&key.source, &key.target, &table.to_string()],
            )
            .await?;
        return Ok(());
    }
    for name in ["parked", "table_state", "durability", "skip", "checkpoint"] {
        let sql = format!("DELETE FROM repcloud.{name} WHERE {OF_ALL_LANES}");
        client.execute(&sql, &[&key.source, &key.target]).await?;
    }
    Ok(())
}

/// The statement that moves the position, fenced by the generation.
#[derive(Debug)]
pub struct CheckpointWriter {
    statement: Statement,
    key: StreamKey,
    generation: i64,
    /// A last parameter.
    tables: Option<String>,
}

impl CheckpointWriter {
    /// Prepares the statement on the applier's session.
    pub async fn new(client: &Client, key: StreamKey, generation: i64) -> Result<Self, PgError> {
        let statement = client
            .prepare_typed(
                "UPDATE repcloud.checkpoint SET applied_lsn = $1::text::pg_lsn, commit_time = coalesce(nullif($2, '')::timestamptz, commit_time), \
                 changes = changes + $3::text::bigint, updated_at = now() \
                 WHERE source = $4 AND target = $5 AND generation = $6::text::bigint AND phase = 'ready'",
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT],
            )
            .await?;
        Ok(CheckpointWriter { statement, key, generation, tables: None })
    }

    /// The same for the applier of parked changes: a position is the number of a row of `repcloud.parked`, and rows of
    /// `tables` up to it go. The stream's own position stays where it is.
    pub async fn for_parked(
        client: &Client,
        key: StreamKey,
        generation: i64,
        tables: &[String],
    ) -> Result<Self, PgError> {
        let statement = client.prepare_typed(parked_store::APPLIED, &[Type::TEXT; 7]).await?;
        let tables = serde_json::json!(tables).to_string();
        Ok(CheckpointWriter { statement, key, generation, tables: Some(tables) })
    }

    /// The prepared statement.
    pub(crate) fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Its parameters.
    pub(crate) fn values(&self, closing: &Closing, changes: usize) -> Vec<String> {
        let mut values = vec![
            closing.position.to_string(),
            closing.commit_time.map(stamp_text).unwrap_or_default(),
            changes.to_string(),
            self.key.source.clone(),
            self.key.target.clone(),
            self.generation.to_string(),
        ];
        values.extend(self.tables.clone());
        values
    }

    /// Which stream.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }
}

/// A commit that waits for the disk and so covers every commit acknowledged before it was sent. The session must have
/// `synchronous_commit` on.
pub async fn flush(client: &Client, key: &StreamKey) -> Result<(), PgError> {
    let statement = "UPDATE repcloud.durability SET flushed_at = now() WHERE source = $1 AND target = $2";
    client.execute(statement, &[&key.source, &key.target]).await?;
    Ok(())
}
