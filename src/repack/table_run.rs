//! One table from the command to its report: attempts after lost connections, and what becomes of a failure.

use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::model::{Events, Oid, RetryAdvice, TableName};
use crate::pg::{self, Session};
use crate::repack::compare::Compared;
use crate::repack::dependents;
use crate::repack::error::RepackError;
use crate::repack::job::{Goal, Step, next_step};
use crate::repack::options::{OnFailure, RepackOptions, Selection};
use crate::repack::preflight::space::bytes;
use crate::repack::preflight::{self, Severity};
use crate::repack::rebuild::Rebuild;
use crate::repack::report::{NOTHING_TO_UNDO, Outcome, TableReport};
use crate::repack::retries::Retries;
use crate::repack::runner::{Job, control_session};
use crate::repack::select;
use crate::repack::shadow::{self, relation_oid};
use crate::repack::state::{self, RepackRow};
use crate::repack::steps;
use crate::repack::watch::{Shown, retained_wal, unless_stopped};

/// One table and who looks at it.
#[derive(Clone, Copy)]
struct Run<'a> {
    options: &'a RepackOptions,
    table: &'a TableName,
    events: &'a Events,
    stop: &'a watch::Receiver<bool>,
    shown: &'a Shown,
}

/// Repacks, prepares or aborts one table; never fails, its report says what happened.
pub(crate) async fn run_table(
    options: &RepackOptions,
    table: &TableName,
    goal: Goal,
    events: &Events,
    stop: watch::Receiver<bool>,
) -> TableReport {
    let started = Instant::now();
    let shown = Shown::default();
    let run = Run { options, table, events, stop: &stop, shown: &shown };
    let mut report = TableReport::new(table);
    match run.with_retries(goal, &mut report).await {
        Ok(outcome) => report.outcome = outcome,
        Err(error) => run.fail(goal, error, &mut report).await,
    }
    report.ends_run = shown.ends.load(Ordering::Relaxed);
    report.total_seconds = started.elapsed().as_secs_f64();
    report
}

impl<'a> Run<'a> {
    async fn with_retries(&self, goal: Goal, report: &mut TableReport) -> Result<Outcome, RepackError> {
        let mut begun: Option<Oid> = None;
        let mut retries = Retries::default();
        loop {
            let error = match Box::pin(self.attempt(goal, report, &mut begun)).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            if self.shown.caught_up.swap(false, Ordering::Relaxed) {
                retries.renew();
            }
            let advice = match &error {
                // While the connection was lost, `swap` or `abort` took the table: how that ended is then asked.
                RepackError::Running { .. } if begun.is_some() => RetryAdvice::Reconnect,
                error => error.advice(),
            };
            let pause = match advice {
                RetryAdvice::Reconnect if !*self.stop.borrow() => retries.next(Instant::now().into_std()),
                _ => None,
            };
            let Some(pause) = pause else { return Err(error) };
            let wait = pause.mul_f64(rand::random_range(0.5..1.5));
            self.events.warning(format!(
                "{}: {error}; trying again in {:.1} s",
                self.table,
                wait.as_secs_f64()
            ));
            sleep(wait).await;
        }
    }

    /// What becomes of a failed repack.
    async fn fail(&self, goal: Goal, error: RepackError, report: &mut TableReport) {
        report.hint = error.hint();
        report.other_works = matches!(error, RepackError::Running { .. });
        report.interrupted = matches!(error, RepackError::Stopped);
        report.reason = Some(error.to_string());
        report.outcome = match &error {
            RepackError::Refused(_)
            | RepackError::Missing { .. }
            | RepackError::NotPrepared { .. }
            | RepackError::KnownToDiffer { .. } => Outcome::Refused,
            RepackError::Ambiguous { .. } => Outcome::Ambiguous,
            RepackError::Taken => Outcome::Aborted,
            _ => Outcome::Failed,
        };
        // Without the table there is nothing to go on with.
        let wanted =
            self.options.run.on_failure == OnFailure::Abort || matches!(error, RepackError::Gone { .. });
        let undo = wanted
            && goal != Goal::Abort
            && report.outcome == Outcome::Failed
            && !matches!(error, RepackError::Running { .. });
        if !undo {
            if let Err(second) = self.leave(&error, report).await {
                report.notes.push(format!("the reason could not be written down: {second}"));
            }
            return;
        }
        // Its own failure must not hide the first one's reason, and a person who stops us does not stop this.
        let never = watch::channel(false).1;
        let undoing = Run { stop: &never, ..*self };
        let mut undone = TableReport::new(self.table);
        match Box::pin(undoing.attempt(Goal::Abort, &mut undone, &mut None)).await {
            Ok(_) if report.interrupted => {
                report.outcome = Outcome::Aborted;
                report.reason = Some("stopped, and undone (--on-failure abort)".to_owned());
            }
            Ok(_) if matches!(error, RepackError::Gone { .. }) => {
                report.notes.push("what was made for it is removed".to_owned());
            }
            Ok(_) => report.notes.push("it was undone".to_owned()),
            Err(second) => {
                report.notes.push(format!("it could not be undone either: {second}; run `repcloud abort`"));
            }
        }
    }

    /// Writes the reason down and says what stays behind.
    async fn leave(&self, error: &RepackError, report: &mut TableReport) -> Result<(), RepackError> {
        if matches!(
            error,
            RepackError::Refused(_)
                | RepackError::Missing { .. }
                | RepackError::NotPrepared { .. }
                | RepackError::KnownToDiffer { .. }
                | RepackError::Running { .. }
                | RepackError::Taken
        ) {
            return Ok(());
        }
        let session = pg::connect(&self.options.connect).await?;
        if !state::exists(&session).await? {
            return Ok(());
        }
        let Some(row) = state::read_unfinished(&session, self.table).await? else { return Ok(()) };
        state::set_error(&session, row.table_oid, &error.to_string()).await?;
        let retained = retained_wal(&session, &row.slot).await?;
        let kept = match report.capture {
            "trigger" => "its triggers go on filling the queue".to_owned(),
            _ => format!("slot \"{}\" holds back {} of WAL", row.slot, bytes(retained)),
        };
        report.notes.push(format!(
            "it stays in state {} ({kept}); {}, `repcloud abort` undoes it",
            row.state.as_str(),
            next_repack(error)
        ));
        Ok(())
    }

    async fn attempt(
        &self,
        goal: Goal,
        report: &mut TableReport,
        begun: &mut Option<Oid>,
    ) -> Result<Outcome, RepackError> {
        let Some(mut job) = self.open(goal).await? else {
            report.reason = Some(NOTHING_TO_UNDO.to_owned());
            return Ok(Outcome::Aborted);
        };
        if goal != Goal::Abort
            && let Some(ended) = job.ended_elsewhere(*begun).await?
        {
            return Ok(ended);
        }
        *begun = Some(job.oid);
        job.report = report.clone();
        let result = Box::pin(job.drive(goal)).await;
        *report = job.report.clone();
        job.close(result).await
    }

    /// Which table is meant: that of an unfinished repack of this name, else the one that bears it, whatever it was called when its
    /// repack began.
    async fn find(&self, session: &Session) -> Result<Option<(Oid, Option<RepackRow>)>, RepackError> {
        let known = state::exists(session).await?;
        let unfinished = if known { state::read_unfinished(session, self.table).await? } else { None };
        if let Some(row) = unfinished {
            return Ok(Some((row.table_oid, Some(row))));
        }
        let Some(oid) = relation_oid(session, self.table).await? else { return Ok(None) };
        Ok(Some((oid, if known { state::read_begun(session, oid).await? } else { None })))
    }

    /// Our role may not even see the state: the rest of pre-flight is said all the same.
    async fn all_findings(
        &self,
        session: &Session,
        mut reasons: Vec<String>,
    ) -> Result<RepackError, RepackError> {
        let alone = Selection { tables: vec![self.table.clone()], ..Selection::default() };
        let chosen = select::select(session, &alone, &self.options.rules).await?;
        if let Some(facts) = chosen.tables.first() {
            let mut findings = preflight::check(session, self.options, facts).await?;
            if facts.kind == 'r' {
                let inventory = dependents::read(session, self.table).await?;
                findings.extend(preflight::dependents::judge(&inventory, &findings));
            }
            let refusing = findings.iter().filter(|finding| finding.severity == Severity::Refuse);
            reasons.extend(refusing.map(ToString::to_string));
        }
        Ok(RepackError::Refused(reasons))
    }

    /// Finds what there is of the table and locks it against other processes of ours. `None`: there is nothing to abort.
    async fn open(&self, goal: Goal) -> Result<Option<Job<'a>>, RepackError> {
        let Run { options, table, events, stop, shown } = *self;
        let session = control_session(options).await?;
        let there = match state::exists(&session).await {
            Err(RepackError::Refused(reasons)) if matches!(goal, Goal::Repack | Goal::Prepare) => {
                return Err(Box::pin(self.all_findings(&session, reasons)).await?);
            }
            there => there?,
        };
        if there {
            // An earlier version may have made it.
            state::ensure_table(&session).await?;
        }
        let Some((oid, _)) = self.find(&session).await? else {
            let missing = RepackError::Missing { table: table.clone() };
            // An abort may be repeated when the table is gone; one of a name that nobody knows is misspelt.
            let undone = goal == Goal::Abort && there && state::is_known(&session, table).await?;
            return if undone { Ok(None) } else { Err(missing) };
        };
        if !state::lock(&session, oid).await? {
            return Err(RepackError::Running { table: table.clone() });
        }
        let streams = preflight::streams::check(&session, oid, table).await?;
        if goal != Goal::Abort && !streams.is_empty() {
            return Err(RepackError::Refused(streams.iter().map(ToString::to_string).collect()));
        }
        // Whoever had the lock before may have exchanged or undone it meanwhile.
        let unfinished = match self.find(&session).await? {
            Some((now, unfinished)) if now == oid => unfinished,
            _ => return Err(RepackError::Moved { table: table.clone() }),
        };
        if let Some(row) = &unfinished {
            shadow::take_over(&session, row.shadow_oid, table).await?;
            shown.planned.store(true, Ordering::Relaxed);
        }
        let typed = &options.run.rebuild;
        let rebuild = match &unfinished {
            // Undoing asks nothing of it.
            Some(row) if goal != Goal::Abort => {
                let begun = Rebuild::from_text(&row.rebuild).unwrap_or_default();
                begun
                    .resumed(typed)
                    .map_err(|why| RepackError::Refused(vec![format!("table {table}: {why}")]))?
            }
            _ => typed.clone(),
        };
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
            rebuild,
            queue: false,
            definition: None,
            changed: Vec::new(),
            snapshot: None,
            following: None,
            report: TableReport::new(table),
        }))
    }
}

/// What another `repack` makes of what this error left.
fn next_repack(error: &RepackError) -> &'static str {
    match error {
        RepackError::Changed { .. } => "`repcloud repack` begins anew",
        RepackError::Differs { .. } => "`repcloud verify` compares it again",
        _ => "`repcloud repack` goes on with it",
    }
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
    let run = Run { options, table, events, stop: &stop, shown: &shown };
    let Some(mut job) = run.open(Goal::Prepare).await? else {
        return Err(RepackError::Missing { table: table.clone() });
    };
    let facts = unless_stopped(job.session.canceller(), &stop, job.facts(Goal::Prepare)).await?;
    let step = next_step(&facts, Goal::Prepare);
    let result = match step {
        Step::CatchUp | Step::KnownToDiffer => {
            Box::pin(steps::compare_caught_up(&mut job, facts.state)).await
        }
        // Renamed or dropped: `repack`, `swap` and `abort` remove the copy, looking at it does not.
        Step::Undo => Err(job.gone().await?),
        _ => Err(RepackError::Refused(vec![format!(
            "{table} has no copy that is ready to be compared; `repcloud prepare` makes one"
        )])),
    };
    job.close(result).await
}
