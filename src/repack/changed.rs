//! What became of the table, of what hangs on it, and of its repack since it began.

use std::sync::atomic::Ordering;

use crate::capture::auto::Way;
use crate::catalog::read_table;
use crate::model::Oid;
use crate::repack::dependents;
use crate::repack::error::RepackError;
use crate::repack::fingerprint::{expected, fingerprint};
use crate::repack::job::{Goal, SlotFact, Unusable};
use crate::repack::plan::{PlanError, PlanOptions, plan};
use crate::repack::report::Outcome;
use crate::repack::runner::{Definition, Job};
use crate::repack::shadow;
use crate::repack::state::{self, RepackState};
use crate::repack::watch::unless_stopped;

impl Job<'_> {
    /// What became of the repack that this process had begun as `begun` before it lost its connection, when another process
    /// (`swap`, `abort`) ended it since.
    ///
    /// # Errors
    /// It was undone.
    pub(crate) async fn ended_elsewhere(
        &mut self,
        begun: Option<Oid>,
    ) -> Result<Option<Outcome>, RepackError> {
        let Some(begun) = begun.filter(|_| self.shown.planned.load(Ordering::Relaxed)) else {
            return Ok(None);
        };
        let there = state::exists(&self.session).await?;
        let row = if there { state::read(&self.session, begun).await? } else { None };
        match row {
            None => Err(RepackError::Taken),
            Some(row) if row.state == RepackState::Abandoned => Err(RepackError::Taken),
            Some(row) if row.state == RepackState::Cleaned && begun != self.oid => {
                (self.report.bytes_before, self.report.bytes_after) = (row.bytes_before, row.bytes_after);
                Ok(Some(Outcome::Swapped))
            }
            Some(_) => Ok(None),
        }
    }

    /// A statement that fails because the table was changed under it: that is what there is to say.
    pub(crate) async fn explain(&self, error: RepackError) -> RepackError {
        let (RepackError::Statement { .. } | RepackError::Dependents(_) | RepackError::Changed { .. }) =
            &error
        else {
            return error;
        };
        let Some(before) = &self.definition else { return error };
        match shadow::whereabouts(&self.session, self.oid, self.table).await {
            Ok(None) => {}
            Ok(Some(what)) => return RepackError::Gone { table: self.table.clone(), what },
            Err(_) => return error,
        }
        match Box::pin(self.read_definition()).await {
            Ok(now) => match before.fingerprint.differences(&now.fingerprint) {
                differences if differences.is_empty() => error,
                differences => RepackError::Changed { table: self.table.clone(), differences },
            },
            Err(_) => error,
        }
    }

    /// An unfinished repack goes on reading changes as it began to, and no other way can be asked of it.
    ///
    /// # Errors
    /// One was.
    pub(crate) fn reads_as_begun(&self, goal: Goal, slot: SlotFact) -> Result<(), RepackError> {
        if slot == SlotFact::Absent || !matches!(goal, Goal::Repack | Goal::Prepare) {
            return Ok(());
        }
        let ways = self.options.settings.capture.ways();
        let begun = match self.queue {
            true if !ways.contains(&Way::Triggers) => "trigger",
            false if ways == [Way::Triggers] => "slot",
            _ => return Ok(()),
        };
        Err(RepackError::Refused(vec![format!(
            "table {}: its unfinished repack was begun with --capture {begun}; go on with that, or undo it first (repcloud abort)",
            self.table
        )]))
    }

    /// The error of a repack whose table went away.
    pub(crate) async fn gone(&self) -> Result<RepackError, RepackError> {
        let what = shadow::whereabouts(&self.session, self.oid, self.table).await?;
        let what = what.unwrap_or_else(|| "it was dropped or renamed for a moment".to_owned());
        Ok(RepackError::Gone { table: self.table.clone(), what })
    }

    /// Why what there is cannot be used, with the names of what was changed.
    pub(crate) fn told(&self, why: Unusable) -> String {
        match (why, self.changed.is_empty()) {
            (Unusable::Changed, false) => format!("{why} ({})", self.changed.join("; ")),
            _ => why.to_string(),
        }
    }

    /// The definition as it is now. What is no change of the table may be another one: the default partition beside it, whether a
    /// materialized view is filled.
    pub(crate) async fn renew_definition(&mut self) -> Result<(), RepackError> {
        let changed = |differences| RepackError::Changed { table: self.table.clone(), differences };
        let reading = Box::pin(self.read_definition());
        let now = match unless_stopped(self.session.canceller(), &self.stop, reading).await {
            Err(RepackError::Refused(reasons)) => return Err(changed(reasons)),
            now => now?,
        };
        let differences = self.definition()?.fingerprint.differences(&now.fingerprint);
        if !differences.is_empty() {
            return Err(changed(differences));
        }
        self.definition = Some(now);
        Ok(())
    }

    pub(crate) async fn read_definition(&self) -> Result<Definition, RepackError> {
        let mut inventory = dependents::read(&self.session, self.table).await?;
        let ours = shadow::publications(&self.slot);
        inventory.forget_publications(&ours.iter().map(String::as_str).collect::<Vec<_>>());
        let settings = self.options.table_settings(self.table);
        let options = PlanOptions::new(settings.fillfactor, &self.rebuild);
        let missing = || RepackError::Missing { table: self.table.clone() };
        let source = read_table(&self.session, self.table).await?.ok_or_else(missing)?;
        Ok(Definition {
            fingerprint: fingerprint(&inventory),
            wanted: expected(&inventory, &options),
            plan: plan(&inventory, &options).map_err(refused)?,
            inventory,
            source,
        })
    }
}

/// What cannot be carried over speaks for itself, all of it at once.
fn refused(error: PlanError) -> RepackError {
    match error {
        PlanError::Refused { refusals, .. } => {
            RepackError::Refused(refusals.iter().map(ToString::to_string).collect())
        }
        PlanError::Options { what } => RepackError::Refused(vec![what]),
        error => error.into(),
    }
}
