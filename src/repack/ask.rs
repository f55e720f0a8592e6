//! Questions to the database under repack, each with a name and a limit.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::model::RetryAdvice;
use crate::pg::{PgError, Session};

/// How long the catalogs may take to answer. They wait for nobody unless somebody holds an exclusive lock on a
/// table that is asked about.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A question that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("reading {what} failed: {error}")]
pub struct AskError {
    /// What was asked for.
    pub what: &'static str,
    /// Why there is no answer; a limit that was reached is among the reasons.
    pub error: PgError,
}

impl AskError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        self.error.advice()
    }

    pub(crate) fn of(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| AskError { what, error: error.into() }
    }
}

/// The rows of a query, within [`LIMIT`].
pub(crate) async fn rows(
    session: &Session,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, AskError> {
    rows_within(session, LIMIT, what, sql, parameters).await
}

/// The rows of a query. At the limit the statement is cancelled on the server.
pub(crate) async fn rows_within(
    session: &Session,
    limit: Duration,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, AskError> {
    match timeout(limit, session.query(sql, parameters)).await {
        Ok(answer) => answer.map_err(AskError::of(what)),
        Err(_) => {
            session.cancel().await.map_err(|error| AskError { what, error })?;
            Err(AskError { what, error: PgError::Timeout { during: format!("reading {what}"), limit } })
        }
    }
}

/// One cell of a row.
pub(crate) fn cell<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    what: &'static str,
) -> Result<T, AskError> {
    row.try_get(index).map_err(AskError::of(what))
}
