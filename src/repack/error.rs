//! What ends a repack, or an attempt of it.

use crate::apply::checkpoint::StateError;
use crate::capture::setup::SetupError;
use crate::catalog::CatalogError;
use crate::copy::CopyError;
use crate::flow::FlowError;
use crate::model::{RetryAdvice, TableName};
use crate::pg::PgError;
use crate::repack::dependents::DependentsError;
use crate::repack::options::typed;
use crate::repack::plan::PlanError;
use crate::repack::preflight::PreflightError;
use crate::verify::VerifyError;

/// Why a repack ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepackError {
    /// The connection or the server.
    #[error("{0}")]
    Server(#[from] PgError),
    /// A statement of ours failed.
    #[error("{what} failed: {error}")]
    Statement {
        /// What was being done.
        what: String,
        /// What the server said.
        #[source]
        error: PgError,
    },
    /// Pre-flight; nothing was changed.
    #[error("{}", list(.0))]
    Refused(Vec<String>),
    /// The schemas stay, because repacks could not be undone.
    #[error("the schemas stay: {}", .0.join("; "))]
    NotUndone(Vec<String>),
    /// Another process works on the table.
    #[error("another process works on {table}")]
    Running {
        /// Which one.
        table: TableName,
    },
    /// The table is not there; nothing was begun.
    #[error("table {table} does not exist")]
    Missing {
        /// Which one.
        table: TableName,
    },
    /// The table went away, or another took its name, while it was being repacked.
    #[error("the repack of {table} cannot go on: {what}")]
    Gone {
        /// What it was called.
        table: TableName,
        /// What became of it.
        what: String,
    },
    /// The table was changed while it was repacked.
    #[error("{table} was changed while it was being repacked: {}", .differences.join("; "))]
    Changed {
        /// Which one.
        table: TableName,
        /// What, without row values.
        differences: Vec<String>,
    },
    /// What the swap would have left is not what was there before; it was rolled back.
    #[error("the swap of {table} was rolled back, it would have changed: {}", .differences.join("; "))]
    NotAlike {
        /// Which one.
        table: TableName,
        /// What, without row values.
        differences: Vec<String>,
    },
    /// A swap of what is not, or no longer, prepared.
    #[error(
        "{table} cannot be exchanged, {}: `repcloud repack` or `prepare` copies it, `abort` removes what there is",
        .why.as_deref().unwrap_or("it is not prepared")
    )]
    NotPrepared {
        /// Which one.
        table: TableName,
        /// Why not.
        why: Option<String>,
    },
    /// Rows differ.
    #[error("{differences} rows of the rebuilt {table} differ from the original; the swap was not tried")]
    Differs {
        /// Which one.
        table: TableName,
        /// How many.
        differences: u64,
    },
    /// An earlier comparison found differences.
    #[error(
        "the copy of {table} differed from it in {differences} rows when they were compared: \
         `repcloud verify {}` compares all rows again (also `--verify full`), `repcloud abort {}` removes the copy",
        typed(.connection, .table), typed(.connection, .table)
    )]
    KnownToDiffer {
        /// Which one.
        table: TableName,
        /// How many rows.
        differences: u64,
        /// Its connection.
        connection: String,
    },
    /// The locks were not granted in any attempt.
    #[error(
        "the locks for the swap of {table} were not granted in {attempts} attempts{}",
        blockers(.blocked_by)
    )]
    NotGranted {
        /// Which one.
        table: TableName,
        /// How often it was tried.
        attempts: u32,
        /// Sessions that stood in the way of the last attempt.
        blocked_by: Vec<String>,
    },
    /// The exchange took longer than it may.
    #[error(
        "the exchange of {table} was not done within {limit_ms} ms in {attempts} attempts; the last one ran out of time while {during}"
    )]
    OutOfTime {
        /// Which one.
        table: TableName,
        /// Attempts.
        attempts: u32,
        /// The limit of one attempt.
        limit_ms: u128,
        /// What it was at.
        during: &'static str,
    },
    /// Changes come faster than they can be applied.
    #[error("{table} cannot be caught up: for {seconds} s the distance has not become smaller than {behind}")]
    NotConverging {
        /// Which one.
        table: TableName,
        /// How long.
        seconds: u64,
        /// The smallest distance.
        behind: String,
    },
    /// Another process of ours finished its work on the table while this one waited for it.
    #[error("another process has just ended its work on {table}")]
    Moved {
        /// Which one.
        table: TableName,
    },
    /// The swap's session broke, and nothing was changed.
    #[error("the session of the swap was lost, nothing was changed: {0}")]
    SessionLost(String),
    /// The connection broke at COMMIT and the server does not answer.
    #[error(
        "whether {table} was exchanged is not known: the connection broke at COMMIT ({error}); `repcloud status` will tell once the server answers"
    )]
    Ambiguous {
        /// Which one.
        table: TableName,
        /// How it broke.
        error: String,
    },
    /// The slot holds back more WAL than it may.
    #[error("the slot or queue of {table} holds back {retained} bytes, max_retained_wal is {limit}")]
    TooMuchWal {
        /// Which one.
        table: TableName,
        /// Bytes kept.
        retained: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A person asked for it.
    #[error("stopped; what is prepared stays, `repcloud repack` goes on and `repcloud abort` undoes it")]
    Stopped,
    /// Another process took it from this one.
    #[error("undone by another process, for `repcloud abort` or `drop-schema`")]
    Taken,
    /// A step took longer than it may.
    #[error("{what} did not end within {seconds} s")]
    TimedOut {
        /// What.
        what: String,
        /// Limit.
        seconds: u64,
    },
    /// What hangs on the table.
    #[error(transparent)]
    Dependents(#[from] DependentsError),
    /// How it is rebuilt.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Capture and apply.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// Publication.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Definitions.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// State.
    #[error(transparent)]
    State(#[from] StateError),
    /// What speaks against a repack.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Comparison.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// `repcloud.repack` cannot be read.
    #[error("the state cannot be read: {0}")]
    Damaged(String),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

fn list(findings: &[String]) -> String {
    match findings {
        [one] => one.clone(),
        many => format!("{} findings:\n  - {}", many.len(), many.join("\n  - ")),
    }
}

fn blockers(blocked_by: &[String]) -> String {
    if blocked_by.is_empty() { String::new() } else { format!("; in the way: {}", blocked_by.join("; ")) }
}

impl From<tokio_postgres::Error> for RepackError {
    fn from(error: tokio_postgres::Error) -> Self {
        RepackError::Server(error.into())
    }
}

/// Names what failed.
pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> RepackError {
    move |error| RepackError::Statement { what: what.into(), error: error.into() }
}

impl RepackError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            RepackError::Server(error) if error.is_gone_meanwhile() => RetryAdvice::Reconnect,
            RepackError::Server(error) | RepackError::Statement { error, .. } => error.advice(),
            RepackError::Flow(error) => error.advice(),
            RepackError::Setup(error) => error.advice(),
            RepackError::Copy(error) => error.advice(),
            RepackError::Preflight(error) => error.advice(),
            RepackError::Dependents(error) => error.advice(),
            RepackError::Catalog(error) => error.advice(),
            RepackError::State(error) => error.advice(),
            RepackError::Verify(error) => error.advice(),
            RepackError::Plan(error) => error.advice(),
            RepackError::SessionLost(_) | RepackError::Moved { .. } => RetryAdvice::Reconnect,
            // All of them by name: a lost connection must not end a repack because it was met in some other place.
            RepackError::Refused(_)
            | RepackError::NotUndone(_)
            | RepackError::Running { .. }
            | RepackError::Missing { .. }
            | RepackError::Gone { .. }
            | RepackError::Changed { .. }
            | RepackError::NotAlike { .. }
            | RepackError::NotPrepared { .. }
            | RepackError::Differs { .. }
            | RepackError::KnownToDiffer { .. }
            | RepackError::NotGranted { .. }
            | RepackError::OutOfTime { .. }
            | RepackError::NotConverging { .. }
            | RepackError::Ambiguous { .. }
            | RepackError::TooMuchWal { .. }
            | RepackError::Stopped
            | RepackError::Taken
            | RepackError::TimedOut { .. }
            | RepackError::Damaged(_)
            | RepackError::Internal(_) => RetryAdvice::Stop,
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            RepackError::NotGranted { .. } => Some(
                "end the sessions named, or allow more attempts (--attempts) or deadlock_resolution = \"cancel_query\"".to_owned(),
            ),
            RepackError::NotConverging { .. } => {
                Some("run it when fewer changes are made; check_time says how often it is looked".to_owned())
            }
            RepackError::OutOfTime { .. } => {
                Some("allow more time (--max-lock-ms), or run it when fewer changes are made".to_owned())
            }
            RepackError::TooMuchWal { .. } => {
                Some("raise max_retained_wal, or run it when fewer changes are made".to_owned())
            }
            RepackError::Running { .. } => Some("`repcloud status` shows it".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each that a person may see; those that only pass on another room's words aside.
    fn all() -> Vec<RepackError> {
        let table = || TableName::new("public", "orders");
        let differences = || vec!["column public.orders.extra is new".to_owned()];
        vec![
            RepackError::Refused(vec!["one".to_owned(), "two".to_owned()]),
            RepackError::NotUndone(differences()),
            RepackError::Running { table: table() },
            RepackError::Missing { table: table() },
            RepackError::Gone { table: table(), what: "it was dropped".to_owned() },
            RepackError::Changed { table: table(), differences: differences() },
            RepackError::NotAlike { table: table(), differences: differences() },
            RepackError::NotPrepared { table: table(), why: Some("it was changed".to_owned()) },
            RepackError::Differs { table: table(), differences: 3 },
            RepackError::KnownToDiffer { table: table(), differences: 3, connection: "prod".to_owned() },
            RepackError::NotGranted { table: table(), attempts: 2, blocked_by: vec!["pid 7".to_owned()] },
            RepackError::OutOfTime { table: table(), attempts: 2, limit_ms: 300, during: "waiting" },
            RepackError::NotConverging { table: table(), seconds: 300, behind: "17 bytes of WAL".to_owned() },
            RepackError::Ambiguous { table: table(), error: "cut".to_owned() },
            RepackError::TooMuchWal { table: table(), retained: 2, limit: 1 },
            RepackError::Stopped,
            RepackError::Taken,
            RepackError::TimedOut { what: "a step".to_owned(), seconds: 20 },
            RepackError::Flow(FlowError::SlotTimeout {
                slot: "s".to_owned(),
                seconds: 300,
                waiting_for: "pid 7".to_owned(),
            }),
        ]
    }

    #[test]
    fn the_readme_lists_every_reason_to_stop() {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme.split_once("<!-- stops:").unwrap();
        let (table, _) = rest.split_once("<!-- /stops -->").unwrap();
        let mut rows: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        for error in all() {
            let told = error.to_string();
            let fits = |row: &str| {
                let mut left = told.as_str();
                row.split('…').all(|part| {
                    let (found, rest) =
                        left.split_once(part.trim()).map_or((false, ""), |(_, rest)| (true, rest));
                    left = rest;
                    found
                })
            };
            let row =
                rows.iter().position(|row| fits(row)).unwrap_or_else(|| panic!("not in README.md: {told}"));
            rows.remove(row);
        }
        assert_eq!(rows, [""; 0], "README.md speaks of what is never said");
    }

    #[test]
    fn a_lost_connection_is_tried_again_wherever_it_was_met() {
        let closed = || PgError::closed("reading");
        for error in [
            RepackError::Server(closed()),
            RepackError::State(StateError::Target(closed())),
            RepackError::Flow(FlowError::State(StateError::Target(closed()))),
            RepackError::Flow(FlowError::Target(closed())),
            // A publication of somebody else, dropped while the catalogs were read.
            RepackError::Server(PgError::Server {
                sqlstate: "42704".into(),
                message: "publication \"other\" does not exist".into(),
                hint: None,
            }),
        ] {
            assert_eq!(error.advice(), RetryAdvice::Reconnect, "{error:?}");
        }
        assert_eq!(RepackError::State(StateError::Foreign).advice(), RetryAdvice::Stop);
    }
}
