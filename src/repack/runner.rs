//! Carries out the steps that `job` decides, for one table.

use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::apply::checkpoint;
use crate::capture::auto::Way;
use crate::catalog::TableDef;
use crate::copy::CopyError;
use crate::flow::slot::HeldSnapshot;
use crate::model::{Events, Oid, RetryAdvice, TableName};
use crate::pg::{self, Session};
use crate::repack::catch_up::Following;
use crate::repack::cut_over;
use crate::repack::dependents::Inventory;
use crate::repack::error::RepackError;
use crate::repack::fingerprint::Fingerprint;
use crate::repack::job::{Facts, Goal, Place, SlotFact, Step, Unusable, next_step};
use crate::repack::leftover;
use crate::repack::options::{RepackOptions, VerifyLevel};
use crate::repack::plan::RepackPlan;
use crate::repack::preflight::slot;
use crate::repack::preflight::space::bytes;
use crate::repack::rebuild::Rebuild;
use crate::repack::report::{NOTHING_TO_UNDO, Outcome, TableReport, changed_identity};
use crate::repack::shadow::{self, OURS, relation_oid};
use crate::repack::state::{self, RepackRow, RepackState};
use crate::repack::steps;
use crate::repack::watch::{Shown, retained_wal, unless_stopped};

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
    /// What is to be different: as the unfinished repack was begun, else as typed.
    pub(crate) rebuild: Rebuild,
    /// Changes are read from a queue.
    pub(crate) queue: bool,
    pub(crate) definition: Option<Definition>,
    /// What is no longer as it was when the repack began.
    pub(crate) changed: Vec<String>,
    pub(crate) snapshot: Option<HeldSnapshot>,
    pub(crate) following: Option<Following>,
    pub(crate) report: TableReport,
}

/// What the table is like.
pub(crate) struct Definition {
    pub(crate) inventory: Inventory,
    pub(crate) fingerprint: Fingerprint,
    /// Of the rebuilt table.
    pub(crate) wanted: Fingerprint,
    pub(crate) plan: RepackPlan,
    pub(crate) source: TableDef,
}

/// The definitions are read again under the lock, by plans made before.
pub(crate) const KEPT_PLANS: &str = "SET jit = off; SET plan_cache_mode = force_generic_plan";

pub(crate) async fn control_session(options: &RepackOptions) -> Result<Session, RepackError> {
    let session = pg::connect(&options.connect).await?;
    // What is written here is what a restart relies on.
    let durable = "SET synchronous_commit = on; SET row_security = off; SET statement_timeout = 0";
    session.batch_execute(&format!("{durable}; {KEPT_PLANS}")).await?;
    Ok(session)
}

impl Job<'_> {
    /// Ends what runs beside the steps. An error of it says more than what it led to.
    pub(crate) async fn close<T>(mut self, result: Result<T, RepackError>) -> Result<T, RepackError> {
        match (result, self.following.take()) {
            (Err(error), following) => {
                let error = match following {
                    Some(following) => following.cause(error),
                    None => error,
                };
                Err(if error.advice() == RetryAdvice::Stop { self.explain(error).await } else { error })
            }
            (Ok(done), Some(following)) => {
                following.finish().await?;
                Ok(done)
            }
            (result, None) => result,
        }
    }

    pub(crate) async fn drive(&mut self, goal: Goal) -> Result<Outcome, RepackError> {
        let (mut begun_anew, mut works) = (0, false);
        loop {
            let (canceller, stop) = (self.session.canceller(), self.stop.clone());
            let facts = unless_stopped(canceller, &stop, self.facts(goal)).await?;
            let step = next_step(&facts, goal);
            if step.works() && !works {
                self.reads_as_begun(goal, facts.slot)?;
                // What ended the process before is no news of this one.
                state::forget_error(&self.session, self.oid).await?;
                works = true;
            }
            match step {
                Step::Plan => self.begin(goal).await?,
                Step::MakeShadow => shadow::make(&self.session, self.oid, &self.definition()?.plan).await?,
                Step::MakeSlot => {
                    self.snapshot = Some(Box::pin(self.make_slot()).await?);
                }
                Step::CopyRows => self.copy_rows().await?,
                Step::BuildIndexes => steps::build_indexes(self).await?,
                Step::CatchUp => steps::catch_up(self, facts.state).await?,
                Step::Verify => steps::verify(self).await?,
                Step::KnownToDiffer => return Err(self.known_to_differ().await?),
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
                    return Err(self.gone().await?);
                }
                Step::NotPrepared(why) => {
                    let why = why.map(|why| self.told(why));
                    return Err(RepackError::NotPrepared { table: self.table.clone(), why });
                }
                Step::Undone => {
                    self.report.reason = Some(NOTHING_TO_UNDO.to_owned());
                    return Ok(Outcome::Aborted);
                }
            }
        }
    }

    /// The slot, or the queue. The server may have to wait for other transactions; a person need not.
    async fn make_slot(&self) -> Result<HeldSnapshot, RepackError> {
        let row = self.row().await?;
        let source = &self.definition()?.source;
        let (session, connect) = (&self.session, &self.options.connect);
        let making = async {
            match slot::way(self.options, source, self.events).await? {
                Way::Slot(plugin) => shadow::make_slot(session, connect, &row, plugin, self.events).await,
                Way::Triggers => shadow::make_queue(session, connect, &row, source, self.events).await,
            }
        };
        let made = Box::pin(steps::control(self).await?.over(making)).await;
        if matches!(made, Err(RepackError::Stopped | RepackError::Taken)) {
            // Else the server would go on waiting, and make the slot when nobody wants it any more.
            shadow::end_followers(session, &self.slot).await?;
        }
        made
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
    pub(crate) async fn facts(&mut self, goal: Goal) -> Result<Facts, RepackError> {
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
        // Undoing asks nothing of the table: whatever became of it, it must be possible.
        if place == Place::Before && begun != Some(RepackState::Swapped) && goal != Goal::Abort {
            if self.definition.is_none() {
                self.definition = Some(Box::pin(self.read_definition()).await?);
            }
            let stored = row.as_ref().filter(|_| !finished).map(|r| Fingerprint::from_text(&r.fingerprint));
            if let (Some(stored), Some(now)) = (stored, &self.definition) {
                self.changed = match stored {
                    Ok(stored) => stored.differences(&now.fingerprint),
                    Err(error) => vec![error.to_string()],
                };
                unchanged = self.changed.is_empty();
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
            compare: self.options.run.verify == VerifyLevel::Full
                && !self.shown.compared.load(Ordering::Relaxed),
            differs: row.as_ref().is_some_and(|r| !finished && r.differences > 0),
        })
    }

    async fn slot_fact(&mut self, known: bool) -> Result<SlotFact, RepackError> {
        let queue = shadow::queue_is_usable(&self.session, self.oid, &self.slot, known).await?;
        self.queue = queue.is_some();
        if let Some(usable) = queue {
            self.report.capture = "trigger";
            return Ok(if usable { SlotFact::Usable } else { SlotFact::Lost });
        }
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
        let as_before = !known
            || state::is_published_as_before(&self.session, self.oid, &shadow::publications(&self.slot))
                .await?;
        let usable = as_before
            && applied
                .is_some_and(|applied| confirmed.parse().is_ok_and(|c: crate::model::Lsn| c <= applied));
        Ok(if lost || !usable { SlotFact::Lost } else { SlotFact::Usable })
    }

    async fn published(&self) -> Result<bool, RepackError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = ANY ($1))";
        let names = shadow::publications(&self.slot);
        Ok(self.session.query_one(sql, &[&names]).await?.try_get(0)?)
    }

    /// The shadow we made; before that, anything in our schema that belongs to the table.
    async fn shadow_there(&self, row: Option<&RepackRow>, finished: bool) -> Result<bool, RepackError> {
        match row.filter(|r| !finished && r.shadow_oid != 0) {
            Some(row) => Ok(relation_oid(&self.session, &self.shadow_name()).await? == Some(row.shadow_oid)),
            None => Ok(!leftover::shadows(&self.session, self.oid, self.table).await?.is_empty()),
        }
    }

    pub(crate) fn shadow_name(&self) -> TableName {
        TableName::new(OURS, self.table.table.clone())
    }

    /// Pre-flight, then the first thing that is written.
    async fn begin(&mut self, goal: Goal) -> Result<(), RepackError> {
        unless_stopped(self.session.canceller(), &self.stop, steps::preflight(self)).await?;
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
            copy_seconds: 0.0,
            lock_ms: 0.0,
            error: None,
            rebuild: self.rebuild.to_text(),
            differences: 0,
        };
        state::plan(&self.session, &row).await?;
        self.shown.planned.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn begin_anew(&mut self, why: Unusable, told: bool) -> Result<(), RepackError> {
        if told {
            self.events.warning(format!("{}: {}; it begins anew", self.table, self.told(why)));
        }
        self.shown.planned.store(false, Ordering::Relaxed);
        self.shown.compared.store(false, Ordering::Relaxed);
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
            shadow::remove_capture(&self.session, self.oid, &self.slot).await?;
        }
        // Not by the table's name alone: it may be another one now.
        for shadow in leftover::shadows(&self.session, self.oid, self.table).await? {
            shadow::drop_shadow(&self.session, self.oid, &shadow).await?;
        }
        if state::exists(&self.session).await? {
            state::set_state(&self.session, self.oid, RepackState::Abandoned).await?;
        }
        Ok(())
    }

    async fn known_to_differ(&self) -> Result<RepackError, RepackError> {
        let differences = u64::try_from(self.row().await?.differences).unwrap_or(0);
        let connection = self.options.connection.clone();
        Ok(RepackError::KnownToDiffer { table: self.table.clone(), differences, connection })
    }

    async fn prepared(&mut self) -> Result<Outcome, RepackError> {
        state::set_prepared(&self.session, self.oid, true).await?;
        let retained = retained_wal(&self.session, &self.slot).await?;
        if self.queue {
            self.report.notes.push("its queue grows until `repcloud swap` or `repcloud abort`".to_owned());
            return Ok(Outcome::Prepared);
        }
        self.report.notes.push(format!(
            "slot \"{}\" holds back {} of WAL until `repcloud swap` or `repcloud abort`",
            self.slot,
            bytes(retained)
        ));
        Ok(Outcome::Prepared)
    }

    /// Publications the table is in, ours gone.
    async fn published_by(&self) -> Result<Vec<String>, RepackError> {
        let sql = "SELECT quote_ident(pubname) FROM pg_catalog.pg_publication_tables \
                   WHERE schemaname = $1 AND tablename = $2 ORDER BY pubname";
        let rows = self.session.query(sql, &[&self.table.schema, &self.table.table]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// After the swap: nothing of ours stays, foreign keys become valid again.
    async fn clean_up(&mut self) -> Result<(), RepackError> {
        if let Some(following) = self.following.take() {
            // Everything was applied before the exchange. What wal2json has sent since then, as it knows tables by name alone, are
            // changes of the new table, which do not fit: that it ended over them is of no interest.
            let _comes_too_late = following.finish().await;
        }
        let row = self.row().await?;
        // They are counted beside the position, which goes now.
        let counted = shadow::replayed(&self.session, &self.slot).await?;
        let changes = counted.max(u64::try_from(row.changes).unwrap_or(0));
        state::set_changes(&self.session, self.oid, changes).await?;
        shadow::remove_capture(&self.session, self.oid, &self.slot).await?;
        for statement in &row.after {
            shadow::bounded(&self.session, statement, &format!("`{statement}`")).await?;
            state::shift_after(&self.session, self.oid).await?;
        }
        let size = steps::size(&self.session, self.table).await?;
        state::set_figures(&self.session, self.oid, size, row.lock_ms.max(self.report.lock_ms)).await?;
        (self.report.bytes_before, self.report.bytes_after) = (row.bytes_before, size);
        self.report.rows_copied = row.rows_copied;
        self.report.changes_replayed = changes;
        let identities = (self.oid, row.shadow_oid);
        let publications = self.published_by().await?;
        let before = Fingerprint::from_text(&row.fingerprint).ok().and_then(|was| was.columns_of(self.table));
        let reordered = self.rebuild.reorders(before.as_deref());
        let differs = (self.options.settings.analyze_tables, reordered);
        self.report.notes.extend(changed_identity(self.table, identities, &publications, differs));
        state::set_state(&self.session, self.oid, RepackState::Cleaned).await
    }
}
