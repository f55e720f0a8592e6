//! Why what hangs on a table could not be read.

use crate::model::RetryAdvice;
use crate::pg::{FailureClass, failure};

/// Reading what hangs on a table failed.
#[derive(Debug, thiserror::Error)]
pub enum DependentsError {
    /// There is no such table.
    #[error("{table} does not exist, or the role may not use its schema")]
    Missing {
        /// The table.
        table: String,
    },
    /// The server refused, or the connection broke.
    #[error("reading {what} of {table} failed: {message}")]
    Server {
        /// What was being read.
        what: &'static str,
        /// The table.
        table: String,
        /// The server's words, without row values.
        message: String,
        /// What kind of failure.
        class: FailureClass,
    },
    /// The catalogs hold something that no PostgreSQL version we know of writes.
    #[error(
        "the catalogs describe {what} of {table} in a way this version of repcloud does not know: {problem}"
    )]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The table.
        table: String,
        /// What was not understood.
        problem: String,
    },
}

impl DependentsError {
    /// What the caller should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            DependentsError::Server { class, .. } => class.advice(),
            DependentsError::Missing { .. } | DependentsError::Unknown { .. } => RetryAdvice::Stop,
        }
    }

    pub(super) fn server(what: &'static str, table: &str, error: &tokio_postgres::Error) -> Self {
        let gone =
            error.as_db_error().is_some_and(|db| failure::is_gone_meanwhile(db.code().code(), db.message()));
        DependentsError::Server {
            what,
            table: table.to_owned(),
            message: failure::describe(error),
            class: if gone { FailureClass::Transient } else { failure::class_of(error) },
        }
    }
}
