//! What can go wrong while two tables are compared.

use std::fmt;
use std::time::Duration;

use crate::catalog::error::CatalogError;
use crate::model::{Lsn, RetryAdvice, TableName};
use crate::pg::PgError;

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the rows come from.
    Source,
    /// Where they should be.
    Target,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Source => "source",
            Place::Target => "target",
        })
    }
}

/// An error of a comparison. No text in it holds a row value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The server refused or the connection broke.
    #[error("{place} table {table}: {what} failed: {error}")]
    Server {
        /// Where.
        place: Place,
        /// Table.
        table: TableName,
        /// What was being done.
        what: &'static str,
        /// Without values.
        error: Box<PgError>,
    },
    /// A statement reached its limit and was cancelled.
    #[error(
        "{place} table {table}: {what} took longer than {limit:?} and was cancelled; try again when the server is less busy"
    )]
    Timeout {
        /// Where.
        place: Place,
        /// Table.
        table: TableName,
        /// What was being done.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The table's definition could not be read.
    #[error("{place}: {error}")]
    Catalog {
        /// Where.
        place: Place,
        /// Without values.
        error: Box<CatalogError>,
    },
    /// There is no such table.
    #[error("{place} table {table} does not exist, or the role may not see it")]
    NoTable {
        /// Where.
        place: Place,
        /// Table.
        table: TableName,
    },
    /// There is no such column.
    #[error("{place} table {table} has no column {column}: add it, or leave it out of the entry's columns")]
    NoColumn {
        /// Where.
        place: Place,
        /// Table.
        table: TableName,
        /// Column, quoted where SQL would.
        column: String,
    },
    /// It is no table.
    #[error("{place} {table} is neither a table nor a partitioned table, and only those can be compared")]
    NotATable {
        /// Where.
        place: Place,
        /// Name.
        table: TableName,
    },
    /// The target has not reached a position in time.
    #[error(
        "target table {table}: the stream has not reached {lsn} of the source within {limit:?}; look at its status, and compare again when it has caught up"
    )]
    NotApplied {
        /// Table.
        table: TableName,
        /// Position on the source.
        lsn: Lsn,
        /// The limit.
        limit: Duration,
    },
    /// The caller's wait failed.
    #[error(
        "target table {table}: waiting until the stream has reached {lsn} of the source failed: {reason}"
    )]
    Wait {
        /// Table.
        table: TableName,
        /// Position on the source.
        lsn: Lsn,
        /// As the caller gave it.
        reason: String,
    },
}

impl VerifyError {
    /// What its owner should do. A comparison starts from the beginning again.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            VerifyError::Server { error, .. } => error.advice(),
            VerifyError::Catalog { error, .. } => error.advice(),
            VerifyError::NotApplied { .. } => RetryAdvice::Reconnect,
            // It would take as long again.
            VerifyError::Timeout { .. }
            | VerifyError::Wait { .. }
            | VerifyError::NoTable { .. }
            | VerifyError::NoColumn { .. }
            | VerifyError::NotATable { .. } => RetryAdvice::Stop,
        }
    }
}
