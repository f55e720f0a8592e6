//! Errors of this room, and a server error cut down to what may be shown.

use std::fmt;

use tokio_postgres::error::SqlState;

use crate::model::RetryAdvice;

/// What a server said, without row values.
///
/// DETAIL, CONTEXT and the primary text of classes 22 (data exceptions) and P0 (RAISE) quote values, so they are
/// left out; the original error is not kept as a source, because its own text holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE; `None` when the connection broke or the answer could not be read.
    pub code: Option<SqlState>,
    /// Text to show.
    pub message: String,
    /// The connection is unusable.
    pub connection_lost: bool,
}

impl From<tokio_postgres::Error> for ServerError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&tokio_postgres::Error> for ServerError {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let io = std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>());
            return ServerError {
                code: None,
                message: error.to_string(),
                connection_lost: error.is_closed() || io,
            };
        };
        let code = db.code().clone();
        let mut message = match code.code().get(..2) {
            Some("22") => "a value was not accepted".to_owned(),
            // RAISE in somebody's function: its text is free, and often quotes the row.
            Some("P0") => "a function of the database raised an exception".to_owned(),
            _ => db.message().to_owned(),
        };
        if let (Some(schema), Some(table)) = (db.schema(), db.table()) {
            message.push_str(&format!(" (table \"{schema}\".\"{table}\"",));
            if let Some(column) = db.column() {
                message.push_str(&format!(", column \"{column}\""));
            }
            message.push(')');
        }
        // 57P01..57P03: shutdown, crash shutdown, not accepting connections yet.
        let connection_lost = code.code().starts_with("08") || code.code().starts_with("57P0");
        ServerError { code: Some(code), message, connection_lost }
    }
}

impl ServerError {
    /// True for this SQLSTATE.
    pub fn is(&self, code: &SqlState) -> bool {
        self.code.as_ref() == Some(code)
    }

    /// Passing troubles: a lost connection, a deadlock or serialization failure, a lock not granted in time, too
    /// many connections. Everything else needs a person.
    pub fn advice(&self) -> RetryAdvice {
        let passing = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::TOO_MANY_CONNECTIONS,
        ];
        if self.connection_lost || passing.iter().any(|code| self.is(code)) {
            RetryAdvice::Reconnect
        } else {
            RetryAdvice::Stop
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            Some(code) => write!(f, " (SQLSTATE {})", code.code()),
            None => Ok(()),
        }
    }
}

/// Reading the catalogs failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The server refused or the connection broke.
    #[error("reading {what} from the catalogs failed: {error}")]
    Server {
        /// What was being read.
        what: &'static str,
        /// What the server said.
        error: ServerError,
    },
    /// The catalogs hold something no PostgreSQL version we know of writes.
    #[error("the catalogs describe {what} in a way this version of repcloud does not know")]
    Unknown {
        /// Which object.
        what: String,
    },
}

impl CatalogError {
    /// What the caller should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            CatalogError::Server { error, .. } => error.advice(),
            CatalogError::Unknown { .. } => RetryAdvice::Stop,
        }
    }
}
