//! Carries out the steps that `job` decides, for one table.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::apply::checkpoint;
use crate::catalog::{TableDef, read_table};
use crate::copy::CopyError;
use crate::flow::slot::HeldSnapshot;
use crate::model::{Events, Oid, RetryAdvice, TableName};
use crate::pg::{self, Session};
use crate::repack::catch_up::Following;
use crate::repack::compare::Compared;
use crate::repack::cut_over;
use crate::repack::dependents::{self, Inventory};
use crate::repack::error::RepackError;
use crate::repack::fingerprint::{Fingerprint, fingerprint};
use crate::repack::job::{Facts, Goal, Place, SlotFact, Step, Unusable, next_step};
use crate::repack::options::{OnFailure, RepackOptions};
use crate::repack::plan::{PlanError, PlanOptions, RepackPlan, plan};
use crate::repack::preflight::space::bytes;
use crate::repack::report::{Outcome, TableReport};
use crate::repack::shadow::{self, OURS, relation_oid};
use crate::repack::state::{self, RepackRow, RepackState};
use crate::repack::steps;
use crate::repack::watch::{Shown, retained_wal};

/// Attempts after a lost connection, and how long they may take together.
const RETRY_FOR: Duration = Duration::from_secs(300);
/// What was thrown away and begun anew.
const BEGIN_ANEW: u32 = 5;

/// One table on its way.
pub(crate) struct Job<'a> {
    pub(crate) options: &'a RepackOptions,
    pub(crate) events: &'a Events,
    pub(crate) table: &'a TableName,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) shown: &'a Shown,
    /// Its session holds the table's lock.
    pub(crate) session: Session,
    /// Of the table when the repack began.
    pub(crate) oid: Oid,
    pub(crate) slot: String,
    pub(crate) definition: Option<Definition>,
    pub(crate) snapshot: Option<HeldSnapshot>,
    pub(crate) following: Option<Following>,
    pub(crate) report: TableReport,
}

/// What the table is like.
pub(crate) struct Definition {
    pub(crate) inventory: Inventory,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) plan: RepackPlan,
    pub(crate) source: TableDef,
}

/// Repacks, prepares or aborts one table; never fails, its report says what happened.
pub(crate) async fn run_table(
    options: &RepackOptions,
    table: &TableName,
    goal: Goal,
    events: &Events,
    stop: watch::Receiver<bool>,
) -> TableReport {
    let began = Instant::now();
    let shown = Shown::default();
    let mut report = TableReport::new(table);
    let mut failing_since: Option<Instant> = None;
    let mut pause = Duration::from_millis(200);
    let result = loop {
        let error = match attempt(options, table, goal, events, &stop, &shown, &mut report).await {
            Ok(outcome) => break Ok(outcome),
            Err(error) => error,
        };
        let since = *failing_since.get_or_insert_with(Instant::now);
        if error.advice() == RetryAdvice::Stop || since.elapsed() > RETRY_FOR || *stop.borrow() {
            break Err(error);
        }
        let wait = pause.mul_f64(rand::random_range(0.5..1.5));
        events.warning(format!("{table}: {error}; trying again in {:.1} s", wait.as_secs_f64()));
        sleep(wait).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    };
    match result {
        Ok(outcome) => report.outcome = outcome,
        Err(error) => fail(options, table, goal, events, error, &mut report).await,
    }
    report.total_seconds = began.elapsed().as_secs_f64();
    report
}

/// What becomes of a failed repack.
async fn fail(
    options: &RepackOptions,
    table: &TableName,
    goal: Goal,
    events: &Events,
    error: RepackError,
    report: &mut TableReport,
) {
    report.hint = error.hint();
    report.reason = Some(error.to_string());
    report.outcome = match &error {
        RepackError::Refused(_) => Outcome::Refused,
        RepackError::Ambiguous { .. } => Outcome::Ambiguous,
        _ => Outcome::Failed,
    };
    let undo = options.run.on_failure == OnFailure::Abort
        && goal != Goal::Abort
        && matches!(report.outcome, Outcome::Failed)
        && !matches!(error, RepackError::Running { .. } | RepackError::Stopped);
    if undo {
        // Its own failure must not hide the first one's reason.
        let never = watch::channel(false).1;
        let mut undone = TableReport::new(table);
        let shown = Shown::default();
        if let Err(second) = attempt(options, table, Goal::Abort, events, &never, &shown, &mut undone).await {
            report.notes.push(format!("it could not be undone either: {second}; run `repcloud abort`"));
        } else {
            report.notes.push("it was undone".to_owned());
        }
        return;
    }
    if let Err(second) = leave(options, table, &error, report).await {
        report.notes.push(format!("the reason could not be written down: {second}"));
    }
}

/// Writes the reason down and says what stays behind.
async fn leave(
    options: &RepackOptions,
    table: &TableName,
    error: &RepackError,
    report: &mut TableReport,
) -> Result<(), RepackError> {
    if matches!(error, RepackError::Refused(_) | RepackError::Running { .. }) {
        return Ok(());
    }
    let session = pg::connect(&options.connect).await?;
    if !state::exists(&session).await? {
        return Ok(());
    }
    let Some(row) = state::read_unfinished(&session, table).await? else { return Ok(()) };
    state::set_error(&session, row.table_oid, &error.to_string()).await?;
    let retained = retained_wal(&session, &row.slot).await?;
    report.notes.push(format!(
        "it stays in state {} (slot \"{}\" holds back {} of WAL); `repcloud repack` goes on with it, `repcloud abort` undoes it",
        row.state.as_str(),
        row.slot,
        bytes(retained)
    ));
    Ok(())
}

async fn attempt(
    options: &RepackOptions,
    table: &TableName,
    goal: Goal,
    events: &Events,
    stop: &watch::Receiver<bool>,
    shown: &Shown,
    report: &mut TableReport,
) -> Result<Outcome, RepackError> {
    let Some(mut job) = open(options, table, goal, events, stop, shown).await? else {
        return Ok(Outcome::Aborted);
    };
    job.report = report.clone();
    let result = job.drive(goal).await;
    *report = job.report.clone();
    job.close(result).await
}

/// Compares a table with its unfinished copy, row by row; nothing else works on it meanwhile.
///
/// # Errors
/// There is no copy that has all rows and indexes yet, or another process works on it.
pub(crate) async fn verify_table(
    options: &RepackOptions,
    table: &TableName,
    events: &Events,
    stop: watch::Receiver<bool>,
) -> Result<Compared, RepackError> {
    let shown = Shown::default();
    let Some(mut job) = open(options, table, Goal::Prepare, events, &stop, &shown).await? else {
        return Err(RepackError::Missing { table: table.clone() });
    };
    let facts = job.facts().await?;
    let step = next_step(&facts, Goal::Prepare);
    let result = match step {
        Step::CatchUp => steps::compare_caught_up(&mut job, facts.state).await,
        _ => Err(RepackError::Refused(vec![format!(
            "{table} has no copy that is ready to be compared; `repcloud prepare` makes one"
        )])),
    };
    job.close(result).await
}

/// Finds what there is of the table and locks it against other processes of ours. `None`: there is nothing to abort.
async fn open<'a>(
    options: &'a RepackOptions,
    table: &'a TableName,
    goal: Goal,
    events: &'a Events,
    stop: &watch::Receiver<bool>,
    shown: &'a Shown,
) -> Result<Option<Job<'a>>, RepackError> {
    let session = control_session(options).await?;
    let known = state::exists(&session).await?;
    let unfinished = if known { state::read_unfinished(&session, table).await? } else { None };
    let present = relation_oid(&session, table).await?;
    let oid = match (&unfinished, present) {
        (Some(row), _) => row.table_oid,
        (None, Some(oid)) => oid,
        (None, None) if goal == Goal::Abort => return Ok(None),
        (None, None) => return Err(RepackError::Missing { table: table.clone() }),
    };
    if !state::try_lock(&session, oid).await? {
        return Err(RepackError::Running { table: table.clone() });
    }
    let database: Oid = session
        .query_one(
            "SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
            &[],
        )
        .await?
        .try_get(0)?;
    Ok(Some(Job {
        options,
        events,
        table,
        stop: stop.clone(),
        shown,
        session,
        oid,
        slot: unfinished.map_or_else(|| state::slot_name(database, oid), |row| row.slot),
        definition: None,
        snapshot: None,
        following: None,
        report: TableReport::new(table),
    }))
}

pub(crate) async fn control_session(options: &RepackOptions) -> Result<Session, RepackError> {
    let session = pg::connect(&options.connect).await?;
    // What is written here is what a restart relies on.
    session
        .batch_execute("SET synchronous_commit = on; SET row_security = off; SET statement_timeout = 0")
        .await?;
    Ok(session)
}

impl Job<'_> {
    /// Ends what runs beside the steps. An error of it says more than what it led to.
    async fn close<T>(mut self, result: Result<T, RepackError>) -> Result<T, RepackError> {
        match (result, self.following.take()) {
            (Err(error), Some(following)) => Err(following.cause(error)),
            (Ok(done), Some(following)) => {
                following.finish().await?;
                Ok(done)
            }
            (result, None) => result,
        }
    }

    async fn drive(&mut self, goal: Goal) -> Result<Outcome, RepackError> {
        let mut begun_anew = 0;
        loop {
            let facts = self.facts().await?;
            let step = next_step(&facts, goal);
            match step {
                Step::Plan => self.begin(goal).await?,
                Step::MakeShadow => shadow::make(&self.session, self.oid, &self.definition()?.plan).await?,
                Step::MakeSlot => {
                    let row = self.row().await?;
                    let made = shadow::make_slot(&self.session, &self.options.connect, &row, self.events);
                    self.snapshot = Some(made.await?);
                }
                Step::CopyRows => self.copy_rows().await?,
                Step::BuildIndexes => steps::build_indexes(self).await?,
                Step::CatchUp => steps::catch_up(self, facts.state).await?,
                Step::Verify => steps::verify(self).await?,
                Step::Prepared => return self.prepared().await,
                Step::Swap => {
                    state::set_prepared(&self.session, self.oid, false).await?;
                    cut_over::run(self).await?;
                }
                Step::CleanUp => {
                    self.clean_up().await?;
                    return Ok(Outcome::Swapped);
                }
                Step::BeginAnew(why) => {
                    begun_anew += 1;
                    if begun_anew > BEGIN_ANEW {
                        return Err(RepackError::Internal(format!("begun anew {BEGIN_ANEW} times: {why}")));
                    }
                    self.begin_anew(why, facts.state.is_some()).await?;
                }
                Step::Undo => {
                    self.undo().await?;
                    if goal == Goal::Abort {
                        return Ok(Outcome::Aborted);
                    }
                    return Err(RepackError::Missing { table: self.table.clone() });
                }
                Step::Undone => return Ok(Outcome::Aborted),
            }
        }
    }

    /// TRUNCATE, or anything else that gives the table another heap, hides its rows from the snapshot: the copy begins anew.
    async fn copy_rows(&mut self) -> Result<(), RepackError> {
        match steps::copy_rows(self).await {
            Err(RepackError::Copy(error @ CopyError::Rewritten { .. })) => {
                self.events.warning(format!("{}: {error}", self.table));
                if let Some(snapshot) = self.snapshot.take() {
                    snapshot.release().await?;
                }
                Ok(())
            }
            result => result,
        }
    }

    pub(crate) fn definition(&self) -> Result<&Definition, RepackError> {
        self.definition
            .as_ref()
            .ok_or_else(|| RepackError::Internal("a step without the table's definition".to_owned()))
    }

    pub(crate) async fn row(&self) -> Result<RepackRow, RepackError> {
        state::read(&self.session, self.oid)
            .await?
            .ok_or_else(|| RepackError::Internal(format!("the state of {} has gone", self.table)))
    }

    /// What is true now. Also reads the table's definition where it is still the one to rebuild.
    async fn facts(&mut self) -> Result<Facts, RepackError> {
        if *self.stop.borrow() {
            return Err(RepackError::Stopped);
        }
        let known = state::exists(&self.session).await?;
        let row = if known { state::read(&self.session, self.oid).await? } else { None };
        let begun = row.as_ref().map(|r| r.state);
        let finished = matches!(begun, None | Some(RepackState::Cleaned | RepackState::Abandoned));
        let present = relation_oid(&self.session, self.table).await?;
        let place = match present {
            Some(oid) if oid == self.oid => Place::Before,
            Some(oid) if row.as_ref().is_some_and(|r| r.shadow_oid == oid) => Place::After,
            _ => Place::Gone,
        };
        let mut unchanged = true;
        if place == Place::Before && begun != Some(RepackState::Swapped) {
            if self.definition.is_none() {
                self.definition = Some(self.read_definition().await?);
            }
            let stored = row.as_ref().filter(|_| !finished).map(|r| Fingerprint::from_text(&r.fingerprint));
            if let (Some(stored), Some(now)) = (stored, &self.definition) {
                unchanged = stored.is_ok_and(|stored| stored.differences(&now.fingerprint).is_empty());
            }
        }
        Ok(Facts {
            state: begun,
            place,
            unchanged,
            slot: self.slot_fact(known).await?,
            published: self.published().await?,
            shadow: self.shadow_there(row.as_ref(), finished).await?,
            copy_begun: row.as_ref().is_some_and(|r| !finished && r.copied_at.0 > 0),
            snapshot: self.snapshot.is_some(),
            following: self.following.is_some(),
        })
    }

    async fn read_definition(&self) -> Result<Definition, RepackError> {
        let mut inventory = dependents::read(&self.session, self.table).await?;
        let ours = shadow::publications(&self.slot);
        inventory.forget_publications(&ours.iter().map(String::as_str).collect::<Vec<_>>());
        let settings = self.options.table_settings(self.table);
        let options = PlanOptions { fillfactor: settings.fillfactor, ..PlanOptions::default() };
        let missing = || RepackError::Missing { table: self.table.clone() };
        let source = read_table(&self.session, self.table).await?.ok_or_else(missing)?;
        Ok(Definition {
            fingerprint: fingerprint(&inventory),
            plan: plan(&inventory, &options).map_err(refused)?,
            inventory,
            source,
        })
    }

    async fn slot_fact(&self, known: bool) -> Result<SlotFact, RepackError> {
        let lost =
            if self.session.server_version() >= 170_000 { " OR invalidation_reason IS NOT NULL" } else { "" };
        let sql = format!(
            "SELECT coalesce(wal_status = 'lost', false){lost}, coalesce(confirmed_flush_lsn, '0/0')::text \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
        );
        let Some(slot) = self.session.query_opt(&sql, &[&self.slot]).await? else {
            return Ok(SlotFact::Absent);
        };
        let (lost, confirmed): (bool, String) = (slot.try_get(0)?, slot.try_get(1)?);
        let applied = if known { shadow::applied(&self.session, &self.slot).await? } else { None };
        let usable =
            applied.is_some_and(|applied| confirmed.parse().is_ok_and(|c: crate::model::Lsn| c <= applied));
        Ok(if lost || !usable { SlotFact::Lost } else { SlotFact::Usable })
    }

    async fn published(&self) -> Result<bool, RepackError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = ANY ($1))";
        let names = shadow::publications(&self.slot);
        Ok(self.session.query_one(sql, &[&names]).await?.try_get(0)?)
    }

    /// The shadow we made; before that, anything in our schema that bears its name.
    async fn shadow_there(&self, row: Option<&RepackRow>, finished: bool) -> Result<bool, RepackError> {
        let there = relation_oid(&self.session, &self.shadow_name()).await?;
        match (there, row.filter(|r| !finished && r.shadow_oid != 0)) {
            (None, _) => Ok(false),
            (Some(there), Some(row)) => Ok(there == row.shadow_oid),
            (Some(there), None) => Ok(!self.is_anothers(there).await?),
        }
    }

    /// Two tables of one name in different schemas have one name for their shadows: the first come has it.
    async fn is_anothers(&self, shadow: Oid) -> Result<bool, RepackError> {
        if !state::exists(&self.session).await? {
            return Ok(false);
        }
        let rows = state::read_all(&self.session).await?;
        Ok(rows.iter().any(|r| r.shadow_oid == shadow && r.table_oid != self.oid && r.is_unfinished()))
    }

    pub(crate) fn shadow_name(&self) -> TableName {
        TableName::new(OURS, self.table.table.clone())
    }

    /// Pre-flight, then the first thing that is written.
    async fn begin(&mut self, goal: Goal) -> Result<(), RepackError> {
        steps::preflight(self).await?;
        shadow::ensure_schemas(&self.session).await?;
        let definition = self.definition()?;
        let size = steps::size(&self.session, self.table).await?;
        let row = RepackRow {
            table_oid: self.oid,
            table: self.table.clone(),
            shadow_oid: 0,
            slot: self.slot.clone(),
            state: RepackState::Planned,
            prepared: goal == Goal::Prepare,
            copied_at: crate::model::Lsn::INVALID,
            fingerprint: definition.fingerprint.to_text(),
            after: Vec::new(),
            request: None,
            rows_copied: 0,
            rows_total: definition.source.estimated_rows.max(0.0) as i64,
            bytes_before: size,
            bytes_after: 0,
            changes: 0,
            attempt: 0,
            blocked_by: Vec::new(),
            throttled_by: None,
            lock_ms: 0.0,
            error: None,
        };
        state::plan(&self.session, &row).await
    }

    async fn begin_anew(&mut self, why: Unusable, told: bool) -> Result<(), RepackError> {
        if told {
            self.events.warning(format!("{}: {why}; it begins anew", self.table));
        }
        self.undo().await?;
        self.definition = None;
        Ok(())
    }

    /// Removes everything of ours; the table itself is not touched.
    async fn undo(&mut self) -> Result<(), RepackError> {
        if let Some(snapshot) = self.snapshot.take() {
            snapshot.release().await?;
        }
        if let Some(following) = self.following.take() {
            following.finish().await?;
        }
        if checkpoint::schema_version(&self.session).await?.is_some() {
            shadow::remove_capture(&self.session, &self.slot).await?;
        }
        if let Some(there) = relation_oid(&self.session, &self.shadow_name()).await?
            && !self.is_anothers(there).await?
        {
            shadow::drop_shadow(&self.session, &self.shadow_name()).await?;
        }
        if state::exists(&self.session).await? {
            state::set_state(&self.session, self.oid, RepackState::Abandoned).await?;
        }
        Ok(())
    }

    async fn prepared(&mut self) -> Result<Outcome, RepackError> {
        state::set_prepared(&self.session, self.oid, true).await?;
        let retained = retained_wal(&self.session, &self.slot).await?;
        self.report.notes.push(format!(
            "slot \"{}\" holds back {} of WAL until `repcloud swap` or `repcloud abort`",
            self.slot,
            bytes(retained)
        ));
        Ok(Outcome::Prepared)
    }

    /// After the swap: nothing of ours stays, foreign keys become valid again.
    async fn clean_up(&mut self) -> Result<(), RepackError> {
        if let Some(following) = self.following.take() {
            self.report.changes_replayed = following.report().changes;
            following.finish().await?;
        }
        shadow::remove_capture(&self.session, &self.slot).await?;
        let row = self.row().await?;
        for statement in &row.after {
            shadow::bounded(&self.session, statement, &format!("`{statement}`")).await?;
            state::shift_after(&self.session, self.oid).await?;
        }
        let size = steps::size(&self.session, self.table).await?;
        let changes = self.report.changes_replayed.max(u64::try_from(row.changes).unwrap_or(0));
        state::set_figures(&self.session, self.oid, changes, size, row.lock_ms.max(self.report.lock_ms))
            .await?;
        (self.report.bytes_before, self.report.bytes_after) = (row.bytes_before, size);
        self.report.rows_copied = row.rows_copied;
        self.report.changes_replayed = changes;
        state::set_state(&self.session, self.oid, RepackState::Cleaned).await
    }
}

/// What cannot be carried over speaks for itself, all of it at once.
fn refused(error: PlanError) -> RepackError {
    match error {
        PlanError::Refused { refusals, .. } => {
            RepackError::Refused(refusals.iter().map(ToString::to_string).collect())
        }
        error => error.into(),
    }
}
