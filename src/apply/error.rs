//! What can go wrong while changes are written.

use std::fmt;

use crate::apply::plan::PlanError;
use crate::apply::shape_error::ShapeError;
use crate::model::{Lsn, RetryAdvice, TableName};
use crate::pg::PgError;

/// An error of the applier. No text in it holds a row value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The target's connection or server.
    #[error("target: {0}")]
    Target(#[from] PgError),
    /// The source's tables and the target's do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The target does not take a row.
    #[error(
        "target table {table} rejects a row of the source transaction {commit_lsn} ({operation}): {reason}"
    )]
    Rejected {
        /// Target table.
        table: TableName,
        /// Start of the commit record: what `skip --lsn` takes.
        commit_lsn: Lsn,
        /// `insert`, `update`, `delete` or `truncate`.
        operation: &'static str,
        /// Without values.
        reason: String,
    },
    /// A deferred constraint of the target fails at the end of a transaction.
    #[error(
        "the target rejects the end of a group of source transactions, the last of which is {commit_lsn}: {reason}"
    )]
    RejectedAtCommit {
        /// The table whose constraint it is, where the server says so.
        table: Option<TableName>,
        /// Start of the last commit record of the group.
        commit_lsn: Lsn,
        /// Without values.
        reason: String,
    },
    /// A row is missing or already there, and the policy is to stop.
    #[error(
        "conflict in target table {table}, source transaction {commit_lsn} ({operation}): {reason}; it is recorded in repcloud.conflict"
    )]
    Conflict {
        /// Target table.
        table: TableName,
        /// Start of the commit record: what `skip --lsn` takes.
        commit_lsn: Lsn,
        /// `insert`, `update`, `delete` or `truncate`.
        operation: &'static str,
        /// Without values.
        reason: String,
    },
    /// Another process has taken over.
    #[error("another process has taken over this stream: the position row in the target is no longer ours")]
    Fenced,
    /// The planner's side of the channel ended without saying why.
    #[error("the planner stopped")]
    PlannerGone,
}

impl ApplyError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            ApplyError::Target(error) => error.advice(),
            ApplyError::PlannerGone => RetryAdvice::Reconnect,
            _ => RetryAdvice::Stop,
        }
    }

    /// What a person can do.
    pub fn hint(&self, source: &str) -> Option<String> {
        match self {
            ApplyError::Rejected { commit_lsn, .. } => Some(format!(
                "mend the target and start again, nothing is lost; or leave the transaction out: repcloud skip --source {source} --lsn {commit_lsn}"
            )),
            ApplyError::RejectedAtCommit { .. } => Some(
                "find the rows that break the constraint on the target, mend them and start again; nothing is lost".to_owned(),
            ),
            ApplyError::Conflict { commit_lsn, .. } => Some(format!(
                "mend the target row and start again, nothing is lost; or leave the transaction out: repcloud skip --source {source} --lsn {commit_lsn}; or set on_conflict = \"log\" or \"overwrite\""
            )),
            ApplyError::Plan(PlanError::Shape(error)) => match **error {
                ShapeError::ColumnDropped { .. } | ShapeError::TypeChanged { .. } => {
                    Some(format!("to accept it: {}", reset_command(source, error.target(), "accept-target")))
                }
                ShapeError::ColumnAdded { .. } | ShapeError::KeyMissing { .. } => None,
            },
            ApplyError::Plan(PlanError::LeafTruncated(table)) => Some(reset_command(source, table, "recopy")),
            ApplyError::Fenced => Some("only one process may stream from a source to a target".to_owned()),
            _ => None,
        }
    }
}

/// What a person types for a table that cannot go on by itself; `choice` as the option without the dashes. `reset` takes the
/// stream's lock, so nobody may run the stream meanwhile.
pub fn reset_command(source: &str, table: &impl fmt::Display, choice: &str) -> String {
    format!("with the stream stopped: repcloud reset --source {source} --table {table} --{choice}")
}
