//! The loop that writes: receive a planned group, send it, check it, commit it, go on.
//!
//! The commit of a group travels with the next group's first statements when that one is ready already. A group whose
//! coalesced form fails is rolled back and replayed row by row (`serial`). Positions become confirmable only through
//! `progress`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::apply::checkpoint::CheckpointWriter;
use crate::apply::error::ApplyError;
use crate::apply::flusher::{Flusher, Shared};
use crate::apply::group::{Closing, PlannedGroup};
use crate::apply::plan::{Group, PlanOptions, plan};
use crate::apply::progress::Progress;
use crate::apply::route::Bindings;
use crate::apply::serial::{self, Careful};
use crate::apply::target_session::{Cause, Command, Failure, TargetSession};
use crate::model::{Lsn, PgTimestamp};
use crate::pg::Session;

/// Times and the like.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// How often a commit waits for the disk while changes flow.
    pub flush_every: Duration,
    /// How often a position without changes is written.
    pub idle_every: Duration,
    /// How long one such commit may take.
    pub flush_limit: Duration,
    /// A position at or beyond this one is written at once.
    pub until: Option<Lsn>,
    /// Likewise for this one, which changes while the applier runs; 0/0: none.
    pub wanted: watch::Receiver<Lsn>,
    /// Transactions to leave out, by the start of their commit record.
    pub skips: HashSet<Lsn>,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        ApplyOptions {
            flush_every: Duration::from_millis(250),
            idle_every: Duration::from_secs(10),
            flush_limit: Duration::from_secs(60),
            until: None,
            wanted: watch::channel(Lsn::INVALID).1,
            skips: HashSet::new(),
        }
    }
}

/// What the rest of the process may know of an applier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// In the target for its readers.
    pub applied: Lsn,
    /// The same, although the position row may not say it yet where there was nothing to write.
    pub passed: Lsn,
    /// Safe from a crash of the target: may be confirmed to the source.
    pub durable: Lsn,
    /// Changes committed since this process began.
    pub changes: u64,
    /// Source commit time of the last committed transaction.
    pub commit_time: Option<PgTimestamp>,
    /// Groups that had to go row by row.
    pub row_by_row: u64,
}

/// A group that is executed and checked, and whose COMMIT was not sent yet.
#[derive(Debug, Clone, Copy)]
struct Uncommitted {
    closing: Closing,
    changes: u64,
}

/// Writes groups into one target, in order.
#[derive(Debug)]
pub struct Applier {
    session: TargetSession,
    writer: CheckpointWriter,
    options: ApplyOptions,
    shared: Arc<Shared>,
    bindings: Bindings,
    /// BEGIN was sent and neither COMMIT nor ROLLBACK.
    open: bool,
    /// The open transaction holds the beginning of a source transaction that was too large for one group.
    holds_fragment: bool,
    /// The latest of several fragments began with a savepoint, which stands.
    savepoint: bool,
    /// Changes in the open transaction.
    pending_changes: u64,
    /// The same by route.
    pending_counts: Vec<u64>,
    uncommitted: Option<Uncommitted>,
    /// A position that no group has carried to the target yet.
    unwritten: Option<Closing>,
    /// The source waits for it.
    urgent: bool,
    last_write: Instant,
    /// Some target table has a deferrable constraint.
    deferrable: bool,
    begin: &'static str,
}

/// See [`Applier::check_deferred`].
const CHECK_DEFERRED: &str = "SET CONSTRAINTS ALL IMMEDIATE";

impl Applier {
    /// `progress` is what the checkpoint and the slot said. The flusher's session must commit synchronously.
    pub fn new(
        session: TargetSession,
        flush_session: Session,
        writer: CheckpointWriter,
        progress: Progress,
        options: ApplyOptions,
    ) -> (Applier, Flusher, watch::Receiver<ApplyReport>) {
        let mut flusher = Flusher {
            session: flush_session,
            key: writer.key().clone(),
            every: options.flush_every,
            limit: options.flush_limit,
            hurry: Arc::new(Notify::new()),
            shared: Vec::new(),
        };
        let (applier, report) = Applier::beside(&mut flusher, session, writer, progress, options);
        (applier, flusher, report)
    }

    /// One more into the same target: `flusher` makes its commits durable together with those it has been made for.
    pub fn beside(
        flusher: &mut Flusher,
        session: TargetSession,
        writer: CheckpointWriter,
        progress: Progress,
        options: ApplyOptions,
    ) -> (Applier, watch::Receiver<ApplyReport>) {
        let (applied, durable) = (progress.applied(), progress.durable());
        let start = ApplyReport { applied, passed: applied, durable, ..Default::default() };
        let (report, receiver) = watch::channel(start);
        let hurry = flusher.hurry.clone();
        let shared = Arc::new(Shared { progress: Mutex::new(progress), report, hurry });
        flusher.shared.push(shared.clone());
        let deferrable = session.routes().routes().iter().any(|r| r.has_deferrable);
        let applier = Applier {
            session,
            writer,
            options,
            shared,
            bindings: Bindings::default(),
            open: false,
            holds_fragment: false,
            savepoint: false,
            pending_changes: 0,
            pending_counts: Vec::new(),
            uncommitted: None,
            unwritten: None,
            urgent: false,
            last_write: Instant::now(),
            deferrable,
            begin: if deferrable { "BEGIN; SET CONSTRAINTS ALL DEFERRED" } else { "BEGIN" },
        };
        (applier, receiver)
    }

    /// Runs until the channel is closed and everything received is committed and durable.
    pub async fn run(mut self, mut groups: mpsc::Receiver<PlannedGroup>) -> Result<(), ApplyError> {
        loop {
            let next = match groups.try_recv() {
                Ok(group) => Some(group),
                Err(_) => {
                    self.commit().await?;
                    self.wait_for_group(&mut groups).await?
                }
            };
            match next {
                Some(group) => self.apply(group).await?,
                None => break,
            }
        }
        self.write_position().await
    }

    /// The next group; meanwhile a position without changes is written when its time has come.
    async fn wait_for_group(
        &mut self,
        groups: &mut mpsc::Receiver<PlannedGroup>,
    ) -> Result<Option<PlannedGroup>, ApplyError> {
        loop {
            // A position that waits goes with the rest of an open transaction, whose half must not be committed.
            let Some(unwritten) = self.unwritten.filter(|_| !self.holds_fragment) else {
                return Ok(groups.recv().await);
            };
            let wanted = *self.options.wanted.borrow_and_update();
            let hurry = self.urgent
                || self.options.until.is_some_and(|until| unwritten.position >= until)
                || (unwritten.position >= wanted && self.shared.progress().applied() < wanted);
            let due = if hurry { Instant::now() } else { self.last_write + self.options.idle_every };
            tokio::select! {
                biased;
                group = groups.recv() => return Ok(group),
                () = sleep_until(due) => self.write_position().await?,
                Ok(()) = self.options.wanted.changed() => {}
            }
        }
    }

    async fn apply(&mut self, planned: PlannedGroup) -> Result<(), ApplyError> {
        let PlannedGroup { group, plan, counts } = planned;
        let closing = group.closing();
        self.urgent |= group.batches.iter().any(|b| b.urgent);
        let skips = self.touches_skips(&group);
        let steps = plan?;
        let nothing_to_do = steps.as_ref().is_some_and(Vec::is_empty) && !skips;
        if nothing_to_do && self.uncommitted.is_some() {
            self.commit().await?;
        }
        if nothing_to_do && !self.open {
            self.unwritten = merge(self.unwritten, closing);
            self.shared.pass(closing);
            return Ok(());
        }
        let changes = group.changes() as u64;
        self.pending_changes =
            if self.uncommitted.is_some() || !self.open { 0 } else { self.pending_changes };
        let values = closing.map(|c| {
            let whole = merge(self.unwritten, Some(c)).unwrap_or(c);
            (whole, self.writer.values(&whole, (self.pending_changes + changes) as usize))
        });
        match (steps, skips) {
            (Some(steps), false) => self.coalesced(&group, &steps, values.as_ref().map(|v| &v.1)).await?,
            _ => {
                self.commit().await?;
                self.row_by_row(&group, values.as_ref().map(|v| &v.1), skips).await?;
            }
        }
        self.pending_changes += changes;
        self.pending_counts.resize(counts.len(), 0);
        self.pending_counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        match values {
            Some((closing, _)) => {
                self.unwritten = None;
                (self.holds_fragment, self.savepoint) = (false, false);
                self.uncommitted = Some(Uncommitted { closing, changes: self.pending_changes });
            }
            None => {
                self.savepoint = self.holds_fragment;
                self.holds_fragment = true;
            }
        }
        Ok(())
    }

    /// One flight: the last group's COMMIT, BEGIN, the statements, the position.
    async fn coalesced(
        &mut self,
        group: &Group,
        steps: &[crate::apply::plan::Step],
        position: Option<&Vec<String>>,
    ) -> Result<(), ApplyError> {
        let statement = self.writer.statement().clone();
        let fragment_before = self.holds_fragment;
        let begun = !self.session.has_prepared(steps);
        if begun {
            // Preparing talks to the server before anything of a flight is sent, and may fail: what it then aborts must be
            // this group alone, not the last one whose commit is due.
            self.commit().await?;
            self.sql(self.opening()).await?;
            self.open = true;
        }
        let committing = self.uncommitted.is_some();
        let mut flight = Vec::with_capacity(steps.len() + 3);
        if committing {
            flight.push(Command::Sql("COMMIT"));
        }
        if !begun {
            flight.push(Command::Sql(if committing { self.begin } else { self.opening() }));
        }
        let first_step = flight.len();
        flight.extend(steps.iter().map(Command::Step));
        if position.is_some() && self.deferrable {
            flight.push(Command::Sql(CHECK_DEFERRED));
        }
        let last_step = flight.len();
        flight.extend(position.map(|values| Command::Prepared(&statement, values)));
        let result = self.session.run(&flight).await;
        let commit_failed = matches!(&result, Err(f) if committing && f.at == 0);
        if committing && !commit_failed {
            self.committed();
        }
        self.open = true;
        match result {
            Ok(()) => Ok(()),
            Err(Failure { at, cause }) if at >= last_step && matches!(cause, Cause::RowCount { .. }) => {
                Err(ApplyError::Fenced)
            }
            Err(Failure { at, cause })
                if at < first_step || at >= last_step || !serial::is_about_a_row(&cause) =>
            {
                Err(serial::infrastructure(cause))
            }
            Err(Failure { cause, .. }) => {
                let back = if fragment_before { "ROLLBACK TO SAVEPOINT repcloud_group" } else { "ROLLBACK" };
                self.sql(back).await?;
                self.open = fragment_before;
                if serial::is_unique_violation(&cause) && self.replacing(group, position).await? {
                    return Ok(());
                }
                self.row_by_row(group, position, false).await
            }
        }
    }

    /// What a group begins with: a transaction, or a point to go back to inside the one that holds earlier parts of the
    /// same source transaction. The point before is given up: a thousand open ones, each inside the other, would be
    /// looked through by the server for every row it visits.
    fn opening(&self) -> &'static str {
        match (self.holds_fragment, self.savepoint) {
            (true, true) => "RELEASE SAVEPOINT repcloud_group; SAVEPOINT repcloud_group",
            (true, false) => "SAVEPOINT repcloud_group",
            (false, _) => self.begin,
        }
    }

    /// The group once more, changed rows as DELETE and INSERT: rows that exchanged values of a unique index at once (the
    /// source's check was deferred) have no other form. `false`: nothing was done, the group has to go row by row.
    async fn replacing(&mut self, group: &Group, position: Option<&Vec<String>>) -> Result<bool, ApplyError> {
        let options = PlanOptions { replace: true, ..PlanOptions::default() };
        let routes = self.session.routes().clone();
        let Some(steps) = plan(group, &routes, &mut self.bindings, options)? else { return Ok(false) };
        let was_open = self.open;
        self.sql(if was_open { "SAVEPOINT repcloud_group" } else { self.begin }).await?;
        let statement = self.writer.statement().clone();
        let mut flight: Vec<Command<'_>> = steps.iter().map(Command::Step).collect();
        if position.is_some() && self.deferrable {
            flight.push(Command::Sql(CHECK_DEFERRED));
        }
        let last_step = flight.len();
        flight.extend(position.map(|values| Command::Prepared(&statement, values)));
        match self.session.run(&flight).await {
            Ok(()) => {
                self.open = true;
                Ok(true)
            }
            Err(Failure { at, cause: Cause::RowCount { .. } }) if at >= last_step => Err(ApplyError::Fenced),
            Err(Failure { cause, .. }) if !serial::is_about_a_row(&cause) => {
                Err(serial::infrastructure(cause))
            }
            Err(_) => {
                self.sql(if was_open { "ROLLBACK TO SAVEPOINT repcloud_group" } else { "ROLLBACK" }).await?;
                Ok(false)
            }
        }
    }

    /// Replays a group in the source's order; carefully when that fails too, or when a transaction is left out.
    async fn row_by_row(
        &mut self,
        group: &Group,
        position: Option<&Vec<String>>,
        careful: bool,
    ) -> Result<(), ApplyError> {
        self.shared.publish(|report| report.row_by_row += 1);
        let was_open = self.open;
        self.sql(if was_open { "SAVEPOINT repcloud_group" } else { self.begin }).await?;
        self.open = true;
        let pipelined = match careful {
            true => Err(None),
            false => serial::apply_pipelined(&mut self.session, group, &mut self.bindings).await,
        };
        match pipelined {
            Ok(()) => {}
            Err(Some(error)) => return Err(error),
            Err(None) => {
                self.sql(if was_open { "ROLLBACK TO SAVEPOINT repcloud_group" } else { "ROLLBACK" }).await?;
                if !was_open {
                    self.sql(self.begin).await?;
                }
                let key = self.writer.key().clone();
                let mut careful =
                    Careful { session: &mut self.session, key: &key, skips: &self.options.skips };
                careful.apply(group, &mut self.bindings).await?;
            }
        }
        if let Some(values) = position {
            self.check_deferred(group).await?;
            let statement = self.writer.statement().clone();
            self.session
                .run(&[Command::Prepared(&statement, values)])
                .await
                .map_err(|f| serial::infrastructure(f.cause))?;
        }
        Ok(())
    }

    /// Deferred constraints are checked before the COMMIT, so that their failure has a transaction's name.
    async fn check_deferred(&mut self, group: &Group) -> Result<(), ApplyError> {
        if !self.deferrable {
            return Ok(());
        }
        match self.session.run(&[Command::Sql(CHECK_DEFERRED)]).await {
            Ok(()) => Ok(()),
            Err(Failure { cause, .. }) if serial::is_about_a_row(&cause) => {
                Err(ApplyError::RejectedAtCommit {
                    commit_lsn: group.last_commit().unwrap_or_default(),
                    reason: cause.text(),
                    table: cause.table(),
                })
            }
            Err(Failure { cause, .. }) => Err(serial::infrastructure(cause)),
        }
    }

    /// Sends the COMMIT that is due, alone.
    async fn commit(&mut self) -> Result<(), ApplyError> {
        if self.uncommitted.is_some() {
            self.sql("COMMIT").await?;
            self.committed();
        }
        Ok(())
    }

    /// The COMMIT was acknowledged.
    fn committed(&mut self) {
        self.open = false;
        if let Some(Uncommitted { closing, changes }) = self.uncommitted.take() {
            self.pending_changes = 0;
            self.session.routes().count(&std::mem::take(&mut self.pending_counts));
            self.last_write = Instant::now();
            self.shared.progress().committed(closing.position);
            if self.options.until.is_some_and(|until| closing.position >= until) {
                self.shared.hurry.notify_one();
            }
            self.shared.publish(|report| {
                report.changes += changes;
                report.commit_time = closing.commit_time.or(report.commit_time);
            });
        }
    }

    /// Writes the position that no group has carried, durably. Not while a transaction is half there: when the channel
    /// closes then, the session's end rolls that half back.
    async fn write_position(&mut self) -> Result<(), ApplyError> {
        if self.holds_fragment {
            return Ok(());
        }
        self.commit().await?;
        self.urgent = false;
        let Some(closing) = self.unwritten.take() else { return Ok(()) };
        let statement = self.writer.statement().clone();
        let values = self.writer.values(&closing, 0);
        let flight = [
            Command::Sql("BEGIN; SET LOCAL synchronous_commit = on"),
            Command::Prepared(&statement, &values),
        ];
        self.session.run(&flight).await.map_err(|f| serial::infrastructure(f.cause))?;
        self.sql("COMMIT").await?;
        self.last_write = Instant::now();
        self.shared.progress().committed_durably(closing.position);
        self.shared.publish(|report| report.commit_time = closing.commit_time.or(report.commit_time));
        Ok(())
    }

    async fn sql(&mut self, sql: &str) -> Result<(), ApplyError> {
        self.session.run(&[Command::Sql(sql)]).await.map_err(|f| serial::infrastructure(f.cause))
    }

    fn touches_skips(&self, group: &Group) -> bool {
        let skips = &self.options.skips;
        let mut txns = group.batches.iter().flat_map(|b| &b.txns);
        !skips.is_empty() && txns.any(|t| skips.contains(&t.txn.commit_lsn))
    }
}

/// The later position, with the later commit time.
fn merge(earlier: Option<Closing>, later: Option<Closing>) -> Option<Closing> {
    match (earlier, later) {
        (Some(a), Some(b)) => Some(Closing {
            position: a.position.max(b.position),
            commit_time: b.commit_time.or(a.commit_time),
        }),
        (a, b) => b.or(a),
    }
}
