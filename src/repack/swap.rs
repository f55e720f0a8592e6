//! The cut-over: the only place that takes the exclusive lock. One attempt is one transaction with one deadline: locks in
//! the order readers take them, the definitions once more and the last changes side by side, the exchange, a comparison, COMMIT.
//!
//! Whatever happens to this process, the server ends the transaction: it was told the same deadline.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::apply::target_relation;
use crate::capture::setup;
use crate::model::{Oid, TableName, quote_ident};
use crate::pg::Session;
use crate::repack::blockers::{self, Blockers};
use crate::repack::catch_up::Following;
use crate::repack::dependents::{self, Inventory};
use crate::repack::error::{RepackError, doing};
use crate::repack::fill;
use crate::repack::fingerprint::{Fingerprint, fingerprint};
use crate::repack::options::DeadlockResolution;
use crate::repack::plan::RepackPlan;
use crate::repack::shadow::{publications, relation_oid};
use crate::repack::state;

/// What one attempt needs.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) oid: Oid,
    /// The server process of the session.
    pub(crate) pid: i32,
    /// Slot and publication.
    pub(crate) slot: &'a str,
    pub(crate) plan: &'a RepackPlan,
    /// Of the table when the repack began.
    pub(crate) before: &'a Fingerprint,
    /// Of the table as it is to be.
    pub(crate) wanted: &'a Fingerprint,
    /// Materialized views of the table, and what told how they were filled when those of the shadow were.
    pub(crate) filled: (&'a [Oid], &'a str),
    /// The wait for one lock.
    pub(crate) lock_timeout: Duration,
    /// From the first lock to the commit.
    pub(crate) max_lock: Duration,
    pub(crate) resolution: DeadlockResolution,
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The shadow is the table.
    Swapped {
        /// From the first exclusive lock to the commit, by the server's clock, in milliseconds.
        lock_ms: f64,
    },
    /// A lock was not granted.
    Blocked(Blockers),
    /// A materialized view was filled since that of the shadow was.
    Stale,
    /// It was not done in time; this was being done.
    OutOfTime(&'static str),
    /// The connection broke, or the server ended the session: what happened is to be read from the database.
    Lost(RepackError),
}

const READING: &str = "reading its definition";
const DRAINING: &str = "waiting for its last changes";
const EXCHANGING: &str = "exchanging the two tables";

/// A clock on the server, in milliseconds.
const CLOCK: &str = "SELECT pg_catalog.extract('epoch', pg_catalog.clock_timestamp()) * 1000";

impl Attempt<'_> {
    /// Tries once. `session` is warm (it has read the definitions before), `watcher` looks who is in the way. After
    /// [`Outcome::Lost`] `session` is of no more use; after the others it is in no transaction.
    pub(crate) async fn run(
        &self,
        session: &Session,
        watcher: &Session,
        following: &mut Following,
    ) -> Result<Outcome, RepackError> {
        let deadline = Instant::now() + self.max_lock;
        let outcome = match self.lock(session, watcher, deadline).await {
            Ok(Ok(locked_at)) => self.locked((session, watcher), following, deadline, locked_at).await,
            Ok(Err(blockers)) => Ok(Outcome::Blocked(blockers)),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(Outcome::Swapped { lock_ms }) => Ok(Outcome::Swapped { lock_ms }),
            Ok(Outcome::Lost(error)) => Ok(Outcome::Lost(error)),
            other => match timeout(ANSWER_LIMIT, session.batch_execute("ROLLBACK")).await {
                Ok(Ok(())) => other,
                Ok(Err(error)) => Ok(Outcome::Lost(other.err().unwrap_or_else(|| error.into()))),
                Err(_) => Ok(Outcome::Lost(no_answer())),
            },
        }
    }

    /// The locks, one after the other. The inner error: they were not granted.
    async fn lock(
        &self,
        session: &Session,
        watcher: &Session,
        deadline: Instant,
    ) -> Result<Result<f64, Blockers>, RepackError> {
        let limit = self.max_lock.as_millis();
        let mut sql = format!(
            "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL check_function_bodies = off; SET LOCAL enable_seqscan = off; \
             SET LOCAL synchronous_commit = local; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit}; SET LOCAL tcp_user_timeout = {limit}",
            self.lock_timeout.as_millis().max(1)
        );
        for (index, step) in self.plan.locks.iter().enumerate() {
            sql.push_str("; ");
            sql.push_str(&step.statement);
            if index == 0 {
                sql.push_str("; ");
                sql.push_str(CLOCK);
            }
        }
        let mut seen = Blockers::default();
        let result = {
            let locking = timeout_at(deadline, session.simple_query(&sql));
            let patience = self.lock_timeout / 2;
            let watching = blockers::watch(watcher, self.pid, self.resolution, patience, &mut seen);
            tokio::select! {
                biased;
                result = locking => result,
                error = watching => match error { Ok(never) => match never {}, Err(error) => return Err(error) },
            }
        };
        match result {
            Ok(Ok(messages)) => Ok(Ok(clock(&messages)?)),
            Ok(Err(error)) if is_lock_failure(&error) => {
                if seen.pids().is_empty() {
                    blockers::holders(watcher, &[self.oid], &mut seen).await?;
                }
                Ok(Err(seen))
            }
            Ok(Err(error)) => Err(doing(format!("locking {} and what hangs on it", self.table))(error)),
            // The statement's own limit is the same; one that says nothing at all is a lost connection.
            Err(_) => Ok(Err(seen)),
        }
    }

    /// The table and what hangs on it, as this transaction sees it; our own publications aside.
    async fn read(&self, session: &Session) -> Result<Inventory, RepackError> {
        let mut inventory = dependents::read_here(session, self.table).await?;
        let ours = publications(self.slot);
        inventory.forget_publications(&ours.iter().map(String::as_str).collect::<Vec<_>>());
        Ok(inventory)
    }

    /// Nothing else reads or publishes the table than when its copy began.
    async fn captured_as_before(&self, session: &Session) -> Result<(), RepackError> {
        let mut differences = Vec::new();
        if !state::is_published_as_before(session, self.oid, &publications(self.slot)).await? {
            differences.push(format!("publication {}", quote_ident(self.slot)));
        }
        let readers = setup::stream_readers(session, self.oid).await?;
        differences.extend(readers.iter().map(|stream| format!("stream {stream} reads it by triggers")));
        match differences.is_empty() {
            true => Ok(()),
            false => Err(RepackError::Changed { table: self.table.clone(), differences }),
        }
    }

    /// What keeps the exchange from being made although the locks are there; `None`: nothing does.
    async fn objection(&self, session: &Session, deadline: Instant) -> Result<Option<Outcome>, RepackError> {
        let look = async {
            let (now, captured) = tokio::join!(self.read(session), self.captured_as_before(session));
            let differences = self.before.differences(&fingerprint(&now?));
            if !differences.is_empty() {
                return Err(RepackError::Changed { table: self.table.clone(), differences });
            }
            let (views, marks) = self.filled;
            if !views.is_empty() && fill::marks(session, views).await? != marks {
                return Ok(Some(Outcome::Stale));
            }
            captured?;
            Ok(None)
        };
        timeout_at(deadline, look).await.unwrap_or(Ok(Some(Outcome::OutOfTime(READING))))
    }

    /// Everything that was committed before the locks is in the shadow.
    async fn drained(&self, following: &mut Following, deadline: Instant) -> Result<bool, RepackError> {
        let Ok(mark) = timeout_at(deadline, following.mark()).await else { return Ok(false) };
        following.reached(mark?, deadline).await
    }

    /// The two tables change places, and `follow` is done with them; `None`: it is done.
    async fn exchange(
        &self,
        (session, watcher): (&Session, &Session),
        follow: Option<String>,
        deadline: Instant,
    ) -> Result<Option<Outcome>, RepackError> {
        let statements = self.plan.exchange.iter().cloned().chain([state::swapped_sql(self.oid)]);
        let sql = statements.chain(follow).collect::<Vec<_>>().join("; ");
        match timeout_at(deadline, session.batch_execute(&sql)).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) if is_canceled(&error) => Ok(Some(Outcome::OutOfTime(EXCHANGING))),
            // Somebody uses the copy: a VACUUM, or a person who looks at it.
            Ok(Err(error)) if is_lock_failure(&error) => {
                let mut seen = Blockers::default();
                if let Some(shadow) = relation_oid(watcher, &self.plan.shadow).await? {
                    blockers::holders(watcher, &[shadow], &mut seen).await?;
                }
                Ok(Some(Outcome::Blocked(seen)))
            }
            Ok(Err(error)) => Err(RepackError::Statement {
                what: format!("exchanging {} and its rebuilt copy", self.table),
                error: error.into(),
            }),
            Err(_) => Ok(Some(Outcome::OutOfTime(EXCHANGING))),
        }
    }

    async fn locked(
        &self,
        (session, watcher): (&Session, &Session),
        following: &mut Following,
        deadline: Instant,
        locked_at: f64,
    ) -> Result<Outcome, RepackError> {
        // Side by side: the one keeps our session busy, the other those that decode and apply.
        let (objection, drained, follow) = tokio::join!(
            self.objection(session, deadline),
            self.drained(following, deadline),
            // A stream that writes into the table knows it by its relation.
            timeout_at(deadline, target_relation::exchange(session, self.oid))
        );
        // A change that does not fit the shadow ends the drain too; what was changed says more.
        if let Some(outcome) = objection? {
            return Ok(outcome);
        }
        if !drained? {
            return Ok(Outcome::OutOfTime(DRAINING));
        }
        let Ok(follow) = follow else { return Ok(Outcome::OutOfTime(READING)) };
        if let Some(outcome) = self.exchange((session, watcher), follow?, deadline).await? {
            return Ok(outcome);
        }
        let Ok(after) = timeout_at(deadline, self.read(session)).await else {
            return Ok(Outcome::OutOfTime(READING));
        };
        let differences = self.wanted.differences_in_exchange(&fingerprint(&after?));
        if !differences.is_empty() {
            return Err(RepackError::NotAlike { table: self.table.clone(), differences });
        }
        // From here on only the server knows.
        match timeout(ANSWER_LIMIT, session.simple_query(&format!("COMMIT; {CLOCK}"))).await {
            Ok(Ok(messages)) => Ok(Outcome::Swapped { lock_ms: clock(&messages)? - locked_at }),
            Ok(Err(error)) => Ok(Outcome::Lost(error.into())),
            Err(_) => Ok(Outcome::Lost(no_answer())),
        }
    }
}

/// How long an answer to COMMIT or ROLLBACK is waited for before the connection counts as lost. A COMMIT that waits for a slow
/// disk holds the lock all the same, and what it became is looked for.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

fn no_answer() -> RepackError {
    RepackError::TimedOut {
        what: "the server's answer to the end of the swap".to_owned(),
        seconds: ANSWER_LIMIT.as_secs(),
    }
}

/// The server process of a session.
pub(crate) async fn backend_pid(session: &Session) -> Result<i32, RepackError> {
    Ok(session.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?)
}

fn is_lock_failure(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::LOCK_NOT_AVAILABLE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
            || *code == SqlState::QUERY_CANCELED
    })
}

/// By `statement_timeout`, which is the limit of the whole attempt.
fn is_canceled(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

fn clock(messages: &[SimpleQueryMessage]) -> Result<f64, RepackError> {
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        })
        .ok_or_else(|| RepackError::Internal("the server's clock is missing in its answer".to_owned()))
}

/// The wait of one lock attempt: as configured, half of `deadlock_timeout` at most, so that it is always us and never a
/// client who gives way.
pub(crate) async fn lock_timeout(
    session: &Session,
    configured: Duration,
) -> Result<(Duration, bool), RepackError> {
    let sql = "SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'";
    let millis: i64 = session.query_one(sql, &[]).await?.try_get(0)?;
    let cap = Duration::from_millis(u64::try_from(millis).unwrap_or(1000)) / 2;
    Ok((configured.min(cap), configured > cap))
}
