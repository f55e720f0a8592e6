//! `repcloud.repack`: one row a repacked table. The only writer of these rows.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Row};

use crate::apply::checkpoint::StreamKey;
use crate::model::{Lsn, Oid, TableName, quote_ident};
use crate::pg::{PgError, Session};
use crate::repack::error::RepackError;

/// How far a repack has come. Each is a fact that is already true in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepackState {
    /// Written down; nothing made yet.
    Planned,
    /// The empty shadow is there.
    ShadowReady,
    /// All rows of the snapshot are in the shadow.
    RowsCopied,
    /// So are its indexes.
    IndexesBuilt,
    /// The changes since the snapshot were applied once.
    CaughtUp,
    /// Rows were compared.
    Verified,
    /// The shadow is the table.
    Swapped,
    /// Nothing of the repack is left.
    Cleaned,
    /// Undone.
    Abandoned,
}

impl RepackState {
    const ALL: [(RepackState, &'static str); 9] = [
        (RepackState::Planned, "planned"),
        (RepackState::ShadowReady, "shadow_ready"),
        (RepackState::RowsCopied, "rows_copied"),
        (RepackState::IndexesBuilt, "indexes_built"),
        (RepackState::CaughtUp, "caught_up"),
        (RepackState::Verified, "verified"),
        (RepackState::Swapped, "swapped"),
        (RepackState::Cleaned, "cleaned"),
        (RepackState::Abandoned, "abandoned"),
    ];

    /// The state as the table and `status --json` write it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("planned", |(_, word)| word)
    }

    /// The state of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, w)| *w == word).map(|(state, _)| *state)
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct RepackRow {
    /// The table's oid when the repack began.
    pub table_oid: Oid,
    /// Its name.
    pub table: TableName,
    /// The shadow's oid; 0: not made.
    pub shadow_oid: Oid,
    /// Slot and publication.
    pub slot: String,
    /// How far it has come.
    pub state: RepackState,
    /// It waits for a `swap`.
    pub prepared: bool,
    /// Where the slot was made; 0/0: not yet.
    pub copied_at: Lsn,
    /// See [`crate::repack::fingerprint`].
    pub fingerprint: String,
    /// Statements left to do after the swap.
    pub after: Vec<String>,
    /// What a person asks for.
    pub request: Option<String>,
    /// Rows in the shadow when the copy ended, or so far.
    pub rows_copied: i64,
    /// Rows expected.
    pub rows_total: i64,
    /// Heap, TOAST and indexes before.
    pub bytes_before: i64,
    /// The same after.
    pub bytes_after: i64,
    /// Changes applied.
    pub changes: i64,
    /// Attempts to swap.
    pub attempt: i32,
    /// Sessions that stood in the way of the last attempt.
    pub blocked_by: Vec<i32>,
    /// Why the copy rests.
    pub throttled_by: Option<String>,
    /// Seconds of the copy without those in which it rested.
    pub copy_seconds: f64,
    /// How long the exclusive lock was held.
    pub lock_ms: f64,
    /// What went wrong last.
    pub error: Option<String>,
    /// See [`crate::repack::rebuild::Rebuild::to_text`].
    pub rebuild: String,
    /// Rows of the copy that are known to differ.
    pub differences: i64,
}

/// The last one by way of JSON: a table that an earlier version made lacks it until [`ensure_table`].
const COLUMNS: &str = "table_oid, schema_name, table_name, shadow_oid, slot, state, prepared, copied_at_lsn, fingerprint, after, \
     request, rows_copied, rows_total, bytes_before, bytes_after, changes, attempt, blocked_by, throttled_by, lock_ms, error, rebuild, copy_seconds, \
     coalesce((pg_catalog.to_jsonb(repack) ->> 'differences')::int8, 0) AS differences";

impl RepackRow {
    /// It is neither done nor undone.
    pub fn is_unfinished(&self) -> bool {
        !matches!(self.state, RepackState::Cleaned | RepackState::Abandoned)
    }

    fn read(row: &Row) -> Result<Self, RepackError> {
        let word: String = row.try_get("state")?;
        let state = RepackState::parse(&word)
            .ok_or_else(|| RepackError::Damaged(format!("state \"{word}\" in repcloud.repack")))?;
        Ok(RepackRow {
            table_oid: row.try_get("table_oid")?,
            table: TableName::new(
                row.try_get::<_, String>("schema_name")?,
                row.try_get::<_, String>("table_name")?,
            ),
            shadow_oid: row.try_get("shadow_oid")?,
            slot: row.try_get("slot")?,
            state,
            prepared: row.try_get("prepared")?,
            copied_at: Lsn(u64::from(row.try_get::<_, PgLsn>("copied_at_lsn")?)),
            fingerprint: row.try_get("fingerprint")?,
            after: row.try_get("after")?,
            request: row.try_get("request")?,
            rows_copied: row.try_get("rows_copied")?,
            rows_total: row.try_get("rows_total")?,
            bytes_before: row.try_get("bytes_before")?,
            bytes_after: row.try_get("bytes_after")?,
            changes: row.try_get("changes")?,
            attempt: row.try_get("attempt")?,
            blocked_by: row.try_get("blocked_by")?,
            throttled_by: row.try_get("throttled_by")?,
            copy_seconds: row.try_get("copy_seconds")?,
            lock_ms: row.try_get("lock_ms")?,
            error: row.try_get("error")?,
            rebuild: row.try_get("rebuild")?,
            differences: row.try_get("differences")?,
        })
    }
}

/// Under which the position of a repack stands in `repcloud.checkpoint`, that of its first lane where it has several. No connection can
/// have the second name.
pub fn key(slot: &str) -> StreamKey {
    StreamKey { source: slot.to_owned(), target: "(repack)".to_owned() }
}

/// The name of slot and publication (CONTRACT 3).
pub fn slot_name(database: Oid, table: Oid) -> String {
    format!("repcloud_repack_{database}_{table}")
}

/// Makes the table, in a schema that [`crate::apply::checkpoint::ensure_schema`] has made.
pub async fn ensure_table(client: &Client) -> Result<(), RepackError> {
    let complete = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = 'repcloud.repack'::pg_catalog.regclass \
                    AND attname = 'differences')";
    if exists(client).await? && client.query_one(complete, &[]).await?.try_get(0)? {
        return Ok(());
    }
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock(7300102, 1)";
    // A table that an earlier version made lacks the last columns.
    let sql = format!(
        "BEGIN; {lock}; {}; ALTER TABLE repcloud.repack ADD COLUMN IF NOT EXISTS copied_xid xid8, \
         ADD COLUMN IF NOT EXISTS published text, ADD COLUMN IF NOT EXISTS rebuild text NOT NULL DEFAULT '', \
         ADD COLUMN IF NOT EXISTS copy_seconds float8 NOT NULL DEFAULT 0, \
         ADD COLUMN IF NOT EXISTS differences bigint NOT NULL DEFAULT 0; COMMIT",
        include_str!("schema.sql")
    );
    Ok(client.batch_execute(&sql).await?)
}

/// True when the state table is there.
pub async fn exists(client: &Client) -> Result<bool, RepackError> {
    // Not to_regclass: that fails without a right to the schema.
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relname = 'repack'), \
               pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.pg_get_userbyid(n.nspowner)::text, current_user::text \
               FROM pg_catalog.pg_namespace n WHERE n.nspname = 'repcloud'";
    let Some(row) = client.query_opt(sql, &[]).await? else { return Ok(false) };
    if row.try_get(1)? {
        return Ok(row.try_get(0)?);
    }
    let (owner, role): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let (owner, role) = (quote_ident(&owner), quote_ident(&role));
    Err(RepackError::Refused(vec![format!(
        "schema repcloud, where the state of repacks is kept, belongs to role {owner}, and role {role} may not use it; \
         work as {owner}, or run: GRANT {owner} TO {role}"
    )]))
}

/// The row of a table; `None` when it was never repacked.
pub async fn read(client: &Client, table: Oid) -> Result<Option<RepackRow>, RepackError> {
    let sql = format!("SELECT {COLUMNS} FROM repcloud.repack WHERE table_oid = $1");
    client.query_opt(&sql, &[&table]).await?.as_ref().map(RepackRow::read).transpose()
}

/// The same where it is unfinished.
pub async fn read_begun(client: &Client, table: Oid) -> Result<Option<RepackRow>, RepackError> {
    Ok(read(client, table).await?.filter(RepackRow::is_unfinished))
}

/// All rows, unfinished ones first.
pub async fn read_all(client: &Client) -> Result<Vec<RepackRow>, RepackError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM repcloud.repack ORDER BY state IN ('cleaned', 'abandoned'), started_at, table_oid"
    );
    client.query(&sql, &[]).await?.iter().map(RepackRow::read).collect()
}

/// The unfinished row of a table of this name: by what it was called when the repack began.
pub async fn read_unfinished(client: &Client, table: &TableName) -> Result<Option<RepackRow>, RepackError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM repcloud.repack WHERE schema_name = $1 AND table_name = $2 \
         AND state NOT IN ('cleaned', 'abandoned') ORDER BY started_at DESC LIMIT 1"
    );
    let row = client.query_opt(&sql, &[&table.schema, &table.table]).await?;
    row.as_ref().map(RepackRow::read).transpose()
}

/// A table of this name was repacked once, whatever became of it.
pub async fn is_known(client: &Client, table: &TableName) -> Result<bool, RepackError> {
    let sql = "SELECT EXISTS (SELECT FROM repcloud.repack WHERE schema_name = $1 AND table_name = $2)";
    Ok(client.query_one(sql, &[&table.schema, &table.table]).await?.try_get(0)?)
}

/// Begins a repack: state `planned`, everything else forgotten.
pub async fn plan(client: &Client, row: &RepackRow) -> Result<(), RepackError> {
    let sql = "INSERT INTO repcloud.repack (table_oid, schema_name, table_name, slot, state, prepared, fingerprint, rows_total, bytes_before, rebuild) \
               VALUES ($1, $2, $3, $4, 'planned', $5, $6, $7, $8, $9) \
               ON CONFLICT (table_oid) DO UPDATE SET schema_name = $2, table_name = $3, shadow_oid = 0, slot = $4, state = 'planned', \
               prepared = $5, copied_at_lsn = '0/0', copied_xid = NULL, published = NULL, fingerprint = $6, after = '{}', request = NULL, rows_copied = 0, rows_total = $7, \
               bytes_before = $8, bytes_after = 0, changes = 0, attempt = 0, blocked_by = '{}', throttled_by = NULL, copy_seconds = 0, lock_ms = 0, differences = 0, \
               error = NULL, rebuild = $9, started_at = now(), updated_at = now()";
    let (schema, name) = (&row.table.schema, &row.table.table);
    let past = "DELETE FROM repcloud.repack WHERE schema_name = $1 AND table_name = $2 AND table_oid <> $3 \
                AND state IN ('cleaned', 'abandoned')";
    client.execute(past, &[schema, name, &row.table_oid]).await?;
    client
        .execute(
            sql,
            &[
                &row.table_oid,
                schema,
                name,
                &row.slot,
                &row.prepared,
                &row.fingerprint,
                &row.rows_total,
                &row.bytes_before,
                &row.rebuild,
            ],
        )
        .await?;
    Ok(())
}

/// Moves to `state`.
pub async fn set_state(client: &Client, table: Oid, state: RepackState) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET state = $2, error = NULL, throttled_by = NULL, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &state.as_str()]).await?;
    Ok(())
}

/// All rows of the snapshot are in the shadow.
pub async fn set_rows_copied(client: &Client, table: Oid) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET state = 'rows_copied', error = NULL, throttled_by = NULL, \
               copied_xid = pg_catalog.pg_current_xact_id(), updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table]).await?;
    Ok(())
}

/// The transaction in which [`set_rows_copied`] was called, or a later one; `None` before.
pub async fn copied_xid(client: &Client, table: Oid) -> Result<Option<String>, RepackError> {
    let sql = "SELECT coalesce(copied_xid::xid, xmin)::text FROM repcloud.repack WHERE table_oid = $1";
    Ok(client.query_opt(sql, &[&table]).await?.map(|row| row.try_get(0)).transpose()?)
}

/// The empty shadow was made; to be called in its transaction.
pub async fn set_shadow(client: &Client, table: Oid, shadow: Oid) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET state = 'shadow_ready', shadow_oid = $2, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &shadow]).await?;
    Ok(())
}

/// The slot was made at `at`, rows are about to be copied under its snapshot.
pub async fn set_copied_at(client: &Client, table: Oid, at: Lsn) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET copied_at_lsn = $2, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &PgLsn::from(at.0)]).await?;
    Ok(())
}

/// Publications ($2) and their members, in a form that tells whether anybody changed them, if only for a while: a change that was
/// not published is not in the stream, and nothing else tells of it.
const PUBLISHED: &str = "(SELECT coalesce(string_agg(format('%s %s %s %s', p.oid, p.xmin, m.oid, m.xmin), ', ' ORDER BY p.oid, m.oid), '') \
     FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel m ON m.prpubid = p.oid WHERE p.pubname = ANY ($2))";

/// Remembers our publications as they are now.
pub async fn set_published(client: &Client, table: Oid, publications: &[String]) -> Result<(), RepackError> {
    let sql = format!("UPDATE repcloud.repack SET published = {PUBLISHED} WHERE table_oid = $1");
    client.execute(&sql, &[&table, &publications]).await?;
    Ok(())
}

/// True unless our publications are others than [`set_published`] saw.
pub async fn is_published_as_before(
    session: &Session,
    table: Oid,
    publications: &[String],
) -> Result<bool, RepackError> {
    let sql = format!(
        "SELECT coalesce(bool_and(published = {PUBLISHED}), true) FROM repcloud.repack WHERE table_oid = $1"
    );
    // Kept: asked again under the lock.
    let statement = session.prepared(&sql).await?;
    Ok(session.query_one(&statement, &[&table, &publications]).await?.try_get(0)?)
}

/// How many rows are copied, in how many seconds without those in which the copy rested, and why it rests now.
pub async fn set_progress(
    client: &Client,
    table: Oid,
    rows: i64,
    seconds: f64,
    throttled_by: Option<&str>,
) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET rows_copied = $2, copy_seconds = $3, throttled_by = $4, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &rows, &seconds, &throttled_by]).await?;
    Ok(())
}

/// An attempt to swap.
pub async fn set_attempt(
    client: &Client,
    table: Oid,
    attempt: i32,
    blocked_by: &[i32],
) -> Result<(), RepackError> {
    let sql =
        "UPDATE repcloud.repack SET attempt = $2, blocked_by = $3, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &attempt, &blocked_by]).await?;
    Ok(())
}

/// What is said of the table before the swap begins, so that the swap itself only moves the state.
pub async fn set_after(client: &Client, table: Oid, after: &[String]) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET after = $2, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &after]).await?;
    Ok(())
}

/// The statement that moves the state to `swapped`, for the swap's own transaction.
pub fn swapped_sql(table: Oid) -> String {
    format!(
        "UPDATE repcloud.repack SET state = 'swapped', updated_at = pg_catalog.now(), error = NULL WHERE table_oid = {table}"
    )
}

/// The first `done` statements of `after` are done.
pub async fn shift_after(client: &Client, table: Oid) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET after = after[2:], updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table]).await?;
    Ok(())
}

/// Figures of the end.
pub async fn set_figures(
    client: &Client,
    table: Oid,
    bytes_after: i64,
    lock_ms: f64,
) -> Result<(), RepackError> {
    let sql =
        "UPDATE repcloud.repack SET bytes_after = $2, lock_ms = $3, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &bytes_after, &lock_ms]).await?;
    Ok(())
}

/// How many changes were applied in all.
pub async fn set_changes(client: &Client, table: Oid, changes: u64) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET changes = $2, updated_at = now() WHERE table_oid = $1";
    let changes = i64::try_from(changes).unwrap_or(i64::MAX);
    client.execute(sql, &[&table, &changes]).await?;
    Ok(())
}

/// What went wrong.
pub async fn set_error(client: &Client, table: Oid, error: &str) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET error = $2, updated_at = now() WHERE table_oid = $1";
    client.execute(sql, &[&table, &error]).await?;
    Ok(())
}

/// What ended an earlier process: another one goes on. That rows differ stays.
pub async fn forget_error(client: &Client, table: Oid) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET error = NULL WHERE table_oid = $1 AND error IS NOT NULL AND differences = 0";
    client.execute(sql, &[&table]).await?;
    Ok(())
}

/// What a comparison found, in rows that differ; `error` says so to whoever asks for the state.
pub async fn set_differences(
    client: &Client,
    table: Oid,
    differences: u64,
    error: Option<&str>,
) -> Result<(), RepackError> {
    let sql =
        "UPDATE repcloud.repack SET differences = $2, error = $3, updated_at = now() WHERE table_oid = $1";
    let differences = i64::try_from(differences).unwrap_or(i64::MAX);
    client.execute(sql, &[&table, &differences, &error]).await?;
    Ok(())
}

/// Asks the process that works on the table for something; `None` takes the request back. False: there is no such table.
pub async fn set_request(client: &Client, table: Oid, request: Option<&str>) -> Result<bool, RepackError> {
    let sql = "UPDATE repcloud.repack SET request = $2 WHERE table_oid = $1";
    Ok(client.execute(sql, &[&table, &request]).await? == 1)
}

/// What is asked for.
pub async fn read_request(client: &Client, table: Oid) -> Result<Option<String>, RepackError> {
    let sql = "SELECT request FROM repcloud.repack WHERE table_oid = $1";
    match client.query_opt(sql, &[&table]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(None),
    }
}

/// It was made by `prepare` and waits, or no longer.
pub async fn set_prepared(client: &Client, table: Oid, prepared: bool) -> Result<(), RepackError> {
    let sql = "UPDATE repcloud.repack SET prepared = $2 WHERE table_oid = $1";
    client.execute(sql, &[&table, &prepared]).await?;
    Ok(())
}

/// The server process that holds the table for a process of ours, and what a person needs to find that. Only looks: taking the lock to
/// find out could keep its owner from it.
pub async fn holder(client: &Client, table: Oid) -> Result<Option<(i32, String)>, RepackError> {
    let sql = "SELECT l.pid, pg_catalog.format('pid %s of the server%s%s', l.pid, ', ' || nullif(a.application_name, ''), \
                   ', from ' || coalesce(pg_catalog.host(a.client_addr), 'this machine')) \
               FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
               WHERE l.locktype = 'advisory' AND l.classid = 7300104 AND l.objid = $1 AND l.granted \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    let row = client.query_opt(sql, &[&table]).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// How long a lock is asked for: a session of ours that has just ended may still hold it.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Takes the table for this process; false when another live one has it. The lock lasts as long as the session.
pub async fn lock(client: &Client, table: Oid) -> Result<bool, PgError> {
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        if try_lock(client, table).await? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The same without waiting.
pub async fn try_lock(client: &Client, table: Oid) -> Result<bool, PgError> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock(7300104, $1::oid::int8::bit(32)::int4)";
    Ok(client.query_one(sql, &[&table]).await?.try_get(0)?)
}

/// Ends server process `pid` if it is one of ours that holds the table, as [`try_lock`] takes it.
pub async fn end_holder(client: &Client, table: Oid, pid: i32) -> Result<(), PgError> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = $2 \
               AND classid = 7300104 AND objid = $1 AND granted";
    client.query(sql, &[&table, &pid]).await?;
    Ok(())
}
