//! Makes, extends and drops our publications, queues and triggers on the source; reads what [`super::publish`] decides from.
//!
//! All functions need a session that is not in a transaction. One that is dropped half-way leaves a transaction
//! open: close the connection then.

mod queue;
mod read;

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::capture::publish::{PublicationPlan, WantedTable};
use crate::catalog::{CatalogError, ServerError, read_tables};
use crate::model::{RetryAdvice, TableName, quote_ident};

pub use queue::{
    Captured, FIRES_FIRST, QueueFacts, create_queue, drop_queue, earlier_triggers, is_there, make_shared,
    owns, read_queue, shared_is_there, stream_readers, subscribe, unsubscribe, update_shared,
};
pub use read::{
    TableRequest, check_immutable, lock_holders, read_condition, read_publications, read_source,
    read_table_facts, read_wanted,
};

/// How long and how often to try for the locks (SHARE UPDATE EXCLUSIVE on each table: it waits for VACUUM,
/// ANALYZE, index builds and most of ALTER TABLE, never for the application's reads and writes, nor they for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockLimits {
    /// One attempt waits this long for a lock.
    pub lock_timeout: Duration,
    /// Attempts before giving up.
    pub attempts: u32,
    /// Pause after the first failed attempt; grows with each, with jitter.
    pub pause: Duration,
    /// The lock is one that writers, or readers, stand in the way of: they are named then.
    pub against_users: bool,
}

impl Default for LockLimits {
    fn default() -> Self {
        LockLimits {
            lock_timeout: Duration::from_millis(2000),
            attempts: 10,
            pause: Duration::from_millis(500),
            against_users: false,
        }
    }
}

/// The set-up of the source failed. Nothing was changed, unless the connection broke during COMMIT: then read
/// the publications again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The server refused or the connection broke.
    #[error("{what} failed: {error}")]
    Server {
        /// What was being done.
        what: String,
        /// What the server said.
        error: ServerError,
    },
    /// Definitions could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A lock was not granted in any attempt.
    #[error(
        "a lock on {} was not granted in {attempts} attempts; sessions that hold one: {}",
        names(tables),
        seen(holders)
    )]
    Locked {
        /// The tables to be published.
        tables: Vec<TableName>,
        /// How often it was tried.
        attempts: u32,
        /// Sessions and prepared transactions that hold a conflicting lock, as far as they could be seen.
        holders: Vec<String>,
    },
    /// A table changed between pre-flight and publication.
    #[error("table {table} changed its replica identity while it was being published; start again")]
    Changed {
        /// Which one.
        table: TableName,
    },
}

impl SetupError {
    /// What the caller should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            SetupError::Server { error, .. } => error.advice(),
            SetupError::Catalog(error) => error.advice(),
            SetupError::Locked { .. } | SetupError::Changed { .. } => RetryAdvice::Reconnect,
        }
    }
}

fn names(tables: &[TableName]) -> String {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn seen(holders: &[String]) -> String {
    if holders.is_empty() { "none seen now".to_owned() } else { holders.join(", ") }
}

pub(crate) fn server(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> SetupError {
    move |error| SetupError::Server { what: what.into(), error: error.into() }
}

/// Runs a plan in one transaction, with bounded attempts for its locks. `wanted` is what the plan was made of:
/// under the lock its replica identities are read once more, because a table published without one would fail
/// the application's updates from that moment on.
pub async fn apply_plan(
    client: &Client,
    plan: &PublicationPlan,
    wanted: &[WantedTable],
    limits: LockLimits,
) -> Result<(), SetupError> {
    if plan.statements.is_empty() {
        return Ok(());
    }
    let check = Recheck { names: &plan.added, wanted };
    run_bounded(client, &plan.statements, &plan.added, Some(check), limits).await
}

/// Runs statements on publications (`publish::drop_table_statements`) in one transaction, with bounded attempts.
pub async fn run_statements(
    client: &Client,
    statements: &[String],
    tables: &[TableName],
    limits: LockLimits,
) -> Result<(), SetupError> {
    run_bounded(client, statements, tables, None, limits).await
}

/// Drops publications of ours; those that are gone already are no error.
pub async fn drop_publications(
    client: &Client,
    names: &[String],
    limits: LockLimits,
) -> Result<(), SetupError> {
    if names.is_empty() {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|n| quote_ident(n)).collect();
    let drop = format!("DROP PUBLICATION IF EXISTS {}", quoted.join(", "));
    run_bounded(client, &[drop], &[], None, limits).await
}

/// The replica identities to compare under the lock.
#[derive(Clone, Copy)]
struct Recheck<'a> {
    names: &'a [TableName],
    wanted: &'a [WantedTable],
}

/// Drops a slot of ours in this database; false when there is none of this name. A slot that is in use is an error.
pub async fn drop_slot(client: &Client, name: &str) -> Result<bool, SetupError> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
               WHERE slot_name = $1 AND slot_type = 'logical' AND database = pg_catalog.current_database()";
    let rows = client.query(sql, &[&name]).await.map_err(server(format!("dropping slot \"{name}\"")))?;
    Ok(!rows.is_empty())
}

async fn run_bounded(
    client: &Client,
    statements: &[String],
    tables: &[TableName],
    check: Option<Recheck<'_>>,
    limits: LockLimits,
) -> Result<(), SetupError> {
    let attempts = limits.attempts.max(1);
    for attempt in 1..=attempts {
        let error = match transaction(client, statements, check, limits.lock_timeout).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Ends the failed transaction. When this fails too the connection is gone, which the first error or the
        // next use of the connection tells.
        let rolled_back = client.batch_execute("ROLLBACK").await;
        let lock = matches!(&error, SetupError::Server { error, .. }
            if error.is(&SqlState::LOCK_NOT_AVAILABLE) || error.is(&SqlState::T_R_DEADLOCK_DETECTED));
        if !lock || rolled_back.is_err() {
            return Err(error);
        }
        if attempt < attempts {
            tokio::time::sleep(pause(limits.pause, attempt)).await;
        }
    }
    let holders = lock_holders(client, tables, limits.against_users).await?;
    Err(SetupError::Locked { tables: tables.to_vec(), attempts, holders })
}

/// Grows with the attempts up to eightfold; half of it is random, so that two of us do not meet again.
fn pause(base: Duration, attempt: u32) -> Duration {
    let grown = base.saturating_mul(attempt.min(8));
    grown.mul_f64(rand::random_range(0.5..1.0))
}

async fn transaction(
    client: &Client,
    statements: &[String],
    check: Option<Recheck<'_>>,
    lock_timeout: Duration,
) -> Result<(), SetupError> {
    let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", lock_timeout.as_millis().max(1));
    client.batch_execute(&begin).await.map_err(server("beginning a transaction"))?;
    for statement in statements {
        // `execute` sends one statement only: a condition cannot smuggle in another.
        client.execute(statement, &[]).await.map_err(server(format!("`{statement}`")))?;
    }
    if let Some(check) = check {
        identities_are_as_before(client, check).await?;
    }
    client.batch_execute("COMMIT").await.map_err(server("committing it"))
}

async fn identities_are_as_before(client: &Client, check: Recheck<'_>) -> Result<(), SetupError> {
    let now = read_tables(client, check.names).await?;
    for before in check.wanted.iter().flat_map(WantedTable::storage) {
        if !check.names.contains(&before.name) {
            continue;
        }
        let same = now.iter().any(|t| {
            t.oid == before.oid
                && t.identity == before.identity
                && t.identity_columns() == before.identity_columns()
        });
        if !same {
            return Err(SetupError::Changed { table: before.name.clone() });
        }
    }
    Ok(())
}
