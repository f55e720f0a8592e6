//! What can go wrong between us and a server.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::model::RetryAdvice;
use crate::pg::failure::{self, FailureClass};

/// An error of a connection. No text in it holds a secret or a row's value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// The options, or a command's arguments, cannot work; the text says what to change.
    #[error("{what}")]
    Config {
        /// Which option or argument, and what is wrong with it.
        what: String,
    },
    /// No session came about.
    #[error("{0}")]
    Connect(Box<ConnectFailure>),
    /// The server answered with an error.
    #[error("the server answers: {message} (SQLSTATE {sqlstate}){}", Hint(.hint.as_deref()))]
    Server {
        /// The five characters.
        sqlstate: String,
        /// What happened and to which object, without values ([`failure::describe`]).
        message: String,
        /// The server's hint.
        hint: Option<String>,
    },
    /// The connection broke.
    #[error("the connection broke while {during}: {source}")]
    Io {
        /// What was going on.
        during: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The server closed the connection.
    #[error("the server closed the connection while {during}")]
    Closed {
        /// What was going on.
        during: String,
    },
    /// A wait reached its limit.
    #[error("{during} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        during: String,
        /// The limit.
        limit: Duration,
    },
    /// The server sent what the protocol does not allow here, or a command was left unfinished before.
    #[error("protocol error while {during}: {what}")]
    Protocol {
        /// What was going on.
        during: String,
        /// What was not understood.
        what: String,
    },
}

/// Why no session came about.
#[derive(Debug)]
pub struct ConnectFailure {
    /// [`crate::pg::ConnectOptions::target`].
    pub target: String,
    /// What happened.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What kind of failure it is.
    pub class: FailureClass,
    /// When the server said so: its SQLSTATE.
    pub sqlstate: Option<String>,
    /// The TLS handshake failed (libpq's `prefer` then goes on without TLS).
    pub(crate) in_tls: bool,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not connect to {}: {}{}", self.target, self.reason, Hint(self.hint.as_deref()))
    }
}

struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl PgError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        self.class().advice()
    }

    /// What kind of failure it is.
    pub fn class(&self) -> FailureClass {
        match self {
            PgError::Config { .. } => FailureClass::Other,
            PgError::Connect(failure) => failure.class,
            PgError::Server { sqlstate, .. } => failure::class_of_sqlstate(sqlstate),
            PgError::Io { .. } | PgError::Closed { .. } | PgError::Timeout { .. } => FailureClass::Transient,
            PgError::Protocol { .. } => FailureClass::Other,
        }
    }

    /// See [`failure::is_gone_meanwhile`].
    pub fn is_gone_meanwhile(&self) -> bool {
        matches!(self, PgError::Server { sqlstate, message, .. } if failure::is_gone_meanwhile(sqlstate, message))
    }

    /// The server has no publication of the name that a slot is read with.
    pub fn is_missing_publication(&self) -> bool {
        matches!(self, PgError::Server { sqlstate, message, .. } if sqlstate == "42704" && message.starts_with("publication "))
    }

    /// The server's SQLSTATE, when the server said something.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            PgError::Connect(failure) => failure.sqlstate.as_deref(),
            PgError::Server { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        PgError::Config { what: what.into() }
    }

    pub(crate) fn protocol(during: &str, what: impl Into<String>) -> Self {
        PgError::Protocol { during: during.to_owned(), what: what.into() }
    }

    pub(crate) fn io(during: &str, source: io::Error) -> Self {
        PgError::Io { during: during.to_owned(), source }
    }

    pub(crate) fn closed(during: &str) -> Self {
        PgError::Closed { during: during.to_owned() }
    }

    pub(crate) fn timeout(during: &str, limit: Duration) -> Self {
        PgError::Timeout { during: during.to_owned(), limit }
    }
}
