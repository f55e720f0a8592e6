//! Row by row, in the source's order: what is done with a group whose coalesced form failed or does not exist.
//!
//! First the whole group in one flight a few hundred statements long (a correct history only needed the order). If
//! that fails too, once more with a savepoint before every change: that finds the change, and its policy decides.

use std::collections::HashSet;

use crate::apply::blame::blame;
use crate::apply::checkpoint::StreamKey;
use crate::apply::conflict::{self, Resolution, operation};
use crate::apply::error::ApplyError;
use crate::apply::plan::{
    Group, Located, Resolved, Step, park_steps, resolve, serial_steps, single_route_steps,
};
use crate::apply::route::{Binding, Bindings, OnConflict, Route};
use crate::apply::row::Row;
use crate::apply::target_session::{Cause, Command, Failure, TargetSession};
use crate::apply::{single, skip};
use crate::model::{Change, Lsn, TableName};
use crate::pg::failure::{FailureClass, class_of_sqlstate};

/// Changes of one flight.
const FLIGHT: usize = 500;

/// Applies `group` inside the open target transaction, pipelined. `Err(None)`: a statement failed, the transaction is
/// aborted, and nothing is known about which policy applies.
pub(crate) async fn apply_pipelined(
    session: &mut TargetSession,
    group: &Group,
    bindings: &mut Bindings,
) -> Result<(), Option<ApplyError>> {
    let routes = session.routes().clone();
    let resolved = resolve(group, &routes, bindings).map_err(|e| Some(ApplyError::Plan(e.into())))?;
    for changes in resolved.changes.chunks(FLIGHT) {
        let mut steps = Vec::with_capacity(changes.len());
        for located in changes {
            steps.extend(serial_steps(&routes, &resolved, located).map_err(|e| Some(e.into()))?);
        }
        let flight: Vec<Command<'_>> = steps.iter().map(Command::Step).collect();
        match session.run(&flight).await {
            Ok(()) => {}
            Err(Failure { cause, .. }) if is_about_a_row(&cause) => return Err(None),
            Err(Failure { cause, .. }) => return Err(Some(infrastructure(cause))),
        }
    }
    Ok(())
}

/// True when the failure is about a row or its table, false when the connection or the server failed.
pub(crate) fn is_about_a_row(cause: &Cause) -> bool {
    match cause {
        Cause::RowCount { .. } => true,
        Cause::Error { sqlstate: Some(code), .. } => {
            matches!(
                class_of_sqlstate(code),
                FailureClass::Conflict
                    | FailureClass::Rejected
                    | FailureClass::Privilege
                    | FailureClass::Other
            )
        }
        Cause::Error { sqlstate: None, .. } => false,
    }
}

/// True when a unique index has the value already.
pub(crate) fn is_unique_violation(cause: &Cause) -> bool {
    matches!(cause, Cause::Error { sqlstate: Some(code), .. } if code == "23505")
}

/// Class 22, data exception: an input function or a length check refused a value.
fn is_about_a_value(cause: &Cause) -> bool {
    matches!(cause, Cause::Error { sqlstate: Some(code), .. } if code.starts_with("22"))
}

/// The error of a failed connection or server.
pub(crate) fn infrastructure(cause: Cause) -> ApplyError {
    match cause {
        Cause::Error { error, .. } => ApplyError::Target(error),
        Cause::RowCount { .. } => ApplyError::Fenced,
    }
}

/// A conflict is a row that is missing or already there; everything else about a row is a rejection.
fn is_conflict(cause: &Cause) -> bool {
    match cause {
        Cause::RowCount { .. } => true,
        Cause::Error { sqlstate, .. } => {
            sqlstate.as_deref().is_some_and(|c| class_of_sqlstate(c) == FailureClass::Conflict)
        }
    }
}

fn reason(cause: &Cause, change: &Change) -> String {
    match (cause, change) {
        (Cause::RowCount { touched: 0, .. }, Change::Insert { .. }) => "the row is already there".to_owned(),
        _ => cause.text(),
    }
}

/// What the careful pass works with.
pub(crate) struct Careful<'a> {
    pub(crate) session: &'a mut TargetSession,
    pub(crate) key: &'a StreamKey,
    /// Transactions to leave out.
    pub(crate) skips: &'a HashSet<Lsn>,
}

impl Careful<'_> {
    /// Applies `group` inside the open target transaction, a savepoint before each change.
    pub(crate) async fn apply(&mut self, group: &Group, bindings: &mut Bindings) -> Result<(), ApplyError> {
        let routes = self.session.routes().clone();
        let resolved = resolve(group, &routes, bindings).map_err(|e| ApplyError::Plan(e.into()))?;
        for located in &resolved.changes {
            if self.skips.contains(&located.txn.commit_lsn) {
                self.leave_out(located, &resolved).await?;
                continue;
            }
            match located.change {
                Change::Truncate { .. } => {
                    let steps = serial_steps(&routes, &resolved, located)?;
                    if let Err(cause) = self.attempt(&steps).await? {
                        return Err(match steps.iter().find_map(first_route) {
                            Some(route) => self.rejected(located, route, &cause),
                            None => infrastructure(cause),
                        });
                    }
                }
                _ => {
                    if let Err(cause) = self.attempt(&park_steps(&routes, &resolved, located)?).await? {
                        return Err(infrastructure(cause));
                    }
                    for binding in resolved.bindings(located) {
                        self.one(located, binding).await?;
                    }
                }
            }
        }
        let spans = group.batches.iter().flat_map(|b| &b.txns);
        for span in spans.filter(|s| self.skips.contains(&s.txn.commit_lsn)) {
            let client = self.session.session().client();
            skip::mark_skipped(client, self.key, span.txn.commit_lsn).await?;
        }
        Ok(())
    }

    async fn one(&mut self, located: &Located<'_>, binding: &Binding) -> Result<(), ApplyError> {
        let routes = self.session.routes().clone();
        let steps = single_route_steps(&routes, located, binding)?;
        let Err(cause) = self.attempt(&steps).await? else { return Ok(()) };
        if !is_conflict(&cause) {
            return Err(self.rejected_row(located, binding, &cause).await);
        }
        let route = routes.route(binding.route);
        let why = reason(&cause, located.change);
        match route.on_conflict {
            OnConflict::Stop => {
                // The record must outlive the transaction that is given up.
                self.sql("ROLLBACK").await?;
                self.record(located, binding.route, Resolution::Stopped, &why).await?;
                Err(ApplyError::Conflict {
                    table: route.target.clone(),
                    commit_lsn: located.txn.commit_lsn,
                    operation: operation(located.change),
                    reason: why,
                })
            }
            OnConflict::Log => self.record(located, binding.route, Resolution::Logged, &why).await,
            OnConflict::Overwrite => {
                let resolution = self.overwrite(located, binding).await?;
                self.record(located, binding.route, resolution, &why).await
            }
        }
    }

    /// Makes the target row what the source row is; logs where the whole row is not known or nothing remains to do.
    async fn overwrite(
        &mut self,
        located: &Located<'_>,
        binding: &Binding,
    ) -> Result<Resolution, ApplyError> {
        let routes = self.session.routes().clone();
        let route = routes.route(binding.route);
        let at = located.txn.commit_time;
        let way =
            single::overwrite(binding.route, route, binding, located.change, at).map_err(ApplyError::Plan)?;
        let Some(way) = way else { return Ok(Resolution::Logged) };
        for clear in &way.clear {
            // No row there is as good as one removed.
            if let Err(cause) = self.attempt(std::slice::from_ref(clear)).await?
                && !matches!(cause, Cause::RowCount { .. })
            {
                return Err(self.rejected_row(located, binding, &cause).await);
            }
        }
        match self.attempt(&way.insert).await? {
            Ok(()) => Ok(Resolution::Overwritten),
            Err(cause) => Err(self.rejected_row(located, binding, &cause).await),
        }
    }

    /// Keeps the change in the conflict table instead, for each table it would have gone to.
    async fn leave_out(&mut self, located: &Located<'_>, resolved: &Resolved<'_>) -> Result<(), ApplyError> {
        let routes: Vec<usize> = match located.change {
            Change::Truncate { relations, .. } => {
                let truncated =
                    |r: &Route| r.published.iter().any(|p| relations.iter().any(|t| t.name == *p));
                let all = self.session.routes().routes().iter().enumerate();
                all.filter(|(_, r)| truncated(r) && located.txn.commit_lsn >= r.copied_at)
                    .map(|(id, _)| id)
                    .collect()
            }
            _ => {
                let bindings = resolved.bindings(located).iter();
                bindings.filter(|b| located.txn.commit_lsn >= b.copied_at).map(|b| b.route).collect()
            }
        };
        for route in routes {
            self.record(located, route, Resolution::Skipped, "left out on request").await?;
        }
        for id in resolved.waiting(self.session.routes(), located) {
            if let Some(route) = self.session.routes().parked().get(id) {
                self.record_for(located, &route.target, Resolution::Skipped, "left out on request").await?;
            }
        }
        Ok(())
    }

    /// Runs `steps` under a savepoint. The outer error is the connection's.
    async fn attempt(&mut self, steps: &[Step]) -> Result<Result<(), Cause>, ApplyError> {
        self.sql("SAVEPOINT repcloud_row").await?;
        let flight: Vec<Command<'_>> = steps.iter().map(Command::Step).collect();
        match self.session.run(&flight).await {
            Ok(()) => {
                self.sql("RELEASE SAVEPOINT repcloud_row").await?;
                Ok(Ok(()))
            }
            Err(Failure { cause, .. }) if is_about_a_row(&cause) => {
                self.sql("ROLLBACK TO SAVEPOINT repcloud_row").await?;
                Ok(Err(cause))
            }
            Err(Failure { cause, .. }) => Err(infrastructure(cause)),
        }
    }

    async fn sql(&mut self, sql: &str) -> Result<(), ApplyError> {
        self.session.run(&[Command::Sql(sql)]).await.map_err(|f| infrastructure(f.cause))
    }

    async fn record(
        &self,
        located: &Located<'_>,
        route: usize,
        resolution: Resolution,
        reason: &str,
    ) -> Result<(), ApplyError> {
        let table = &self.session.routes().route(route).target;
        self.record_for(located, table, resolution, reason).await
    }

    async fn record_for(
        &self,
        located: &Located<'_>,
        table: &TableName,
        resolution: Resolution,
        reason: &str,
    ) -> Result<(), ApplyError> {
        let client = self.session.session().client();
        conflict::record(client, self.key, table, &located.txn, located.change, resolution, reason).await?;
        Ok(())
    }

    /// Names the column as well, where a value is what the target does not take and the server does not say which.
    async fn rejected_row(&self, located: &Located<'_>, binding: &Binding, cause: &Cause) -> ApplyError {
        let error = self.rejected(located, binding.route, cause);
        let ApplyError::Rejected { table, commit_lsn, operation, reason } = error else { return error };
        let image = match located.change {
            Change::Insert { new, .. } | Change::Update { new, .. } if is_about_a_value(cause) => Some(new),
            _ => None,
        };
        let column = match image {
            Some(new) => {
                let routes = self.session.routes().clone();
                let row = Row::new(std::borrow::Cow::Borrowed(new), binding);
                blame(self.session.session().client(), &routes.route(binding.route).shape, &row).await
            }
            None => None,
        };
        let reason = match column {
            Some(column) => format!("{column} does not take the value: {reason}"),
            None => reason,
        };
        ApplyError::Rejected { table, commit_lsn, operation, reason }
    }

    fn rejected(&self, located: &Located<'_>, route: usize, cause: &Cause) -> ApplyError {
        ApplyError::Rejected {
            table: self.session.routes().route(route).target.clone(),
            commit_lsn: located.txn.commit_lsn,
            operation: operation(located.change),
            reason: reason(cause, located.change),
        }
    }
}

fn first_route(step: &Step) -> Option<usize> {
    match step {
        Step::Rows { route, .. }
        | Step::Copy { route, .. }
        | Step::ReadAndReplace { route, .. }
        | Step::StampAll { route, .. } => Some(*route),
        Step::Truncate { routes, .. } => routes.first().copied(),
        Step::Park { .. } => None,
    }
}
