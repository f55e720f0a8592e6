//! Errors of the copy.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::catalog::{CatalogError, ServerError};
use crate::model::{RetryAdvice, TableName};

/// Making a target table, or copying into it, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A server refused or a connection broke.
    #[error("{what} failed for table {table}: {error}")]
    Server {
        /// What was being done, on which side.
        what: String,
        /// The table there.
        table: TableName,
        /// What the server said.
        error: ServerError,
    },
    /// Definitions could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nothing moved for too long.
    #[error("the copy of table {table} waited {} s for {waited_for}", limit.as_secs_f64())]
    Stalled {
        /// Source table.
        table: TableName,
        /// `the source to send rows`, `the target to take rows`.
        waited_for: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The heap is not the one whose pages were counted: rows have other places now.
    #[error(
        "table {table} was rewritten or truncated (VACUUM FULL, CLUSTER, ALTER TABLE, TRUNCATE) while it was being copied; \
             its copy must begin again"
    )]
    Rewritten {
        /// Source table.
        table: TableName,
    },
    /// The source table was dropped or renamed meanwhile.
    #[error("source table {table} has gone while it was being copied")]
    Gone {
        /// Source table.
        table: TableName,
    },
    /// The target did not store what the source sent.
    #[error(
        "{sent} rows of table {table} were sent but {stored} stored; a trigger or rule of the target table \
             drops rows: disable it"
    )]
    Count {
        /// Target table.
        table: TableName,
        /// Rows the source sent.
        sent: u64,
        /// Rows the target counted.
        stored: u64,
    },
    /// It cannot be emptied for a new copy.
    #[error(
        "target table {table} cannot be emptied to be copied again: foreign keys refer to it ({keys}), and the role may not let them rest; \
         drop them, or GRANT SET ON PARAMETER session_replication_role TO the role (PostgreSQL 15); {error}"
    )]
    Referenced {
        /// Target table.
        table: TableName,
        /// Which keys, and on which tables.
        keys: String,
        /// What the server said.
        error: Box<CopyError>,
    },
    /// The role may not make it.
    #[error(
        "target table {table} does not exist, and role {role} may not make it; run on the target: {grant};"
    )]
    MayNotMake {
        /// Target table.
        table: TableName,
        /// Our role there, quoted.
        role: String,
        /// The statement that helps.
        grant: String,
    },
    /// The target lacks something that we cannot make.
    #[error("target table {table} needs {what}, which the target database does not have; {remedy}")]
    Missing {
        /// Target table.
        table: TableName,
        /// `type public.citext`.
        what: String,
        /// What to do.
        remedy: String,
    },
}

impl CopyError {
    /// The role lacks a right on a server.
    pub(crate) fn is_without_right(&self) -> bool {
        matches!(self, CopyError::Server { error, .. } if error.code == Some(SqlState::INSUFFICIENT_PRIVILEGE))
    }

    /// A lock was not granted in time.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, CopyError::Server { error, .. } if error.code == Some(SqlState::LOCK_NOT_AVAILABLE))
    }

    /// A relation that a statement named is not there.
    pub(super) fn is_undefined(&self) -> bool {
        const UNDEFINED: [SqlState; 2] = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        matches!(self, CopyError::Server { error, .. } if error.code.as_ref().is_some_and(|code| UNDEFINED.contains(code)))
    }

    /// What the caller should do. [`RetryAdvice::Reconnect`] means here: begin the table again.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            CopyError::Server { error, .. } => error.advice(),
            CopyError::Catalog(error) => error.advice(),
            CopyError::Stalled { .. } | CopyError::Rewritten { .. } => RetryAdvice::Reconnect,
            CopyError::Referenced { error, .. } => error.advice(),
            CopyError::Gone { .. }
            | CopyError::Count { .. }
            | CopyError::Missing { .. }
            | CopyError::MayNotMake { .. } => RetryAdvice::Stop,
        }
    }
}

/// Names what was being done when a server's answer was an error.
pub(super) fn server(
    what: impl Into<String>,
    table: &TableName,
) -> impl FnOnce(tokio_postgres::Error) -> CopyError {
    move |error| CopyError::Server { what: what.into(), table: table.clone(), error: error.into() }
}
