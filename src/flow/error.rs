//! What ends a stream's run.

use crate::apply::ApplyError;
use crate::apply::checkpoint::StateError;
use crate::apply::error::reset_command;
use crate::capture::CaptureError;
use crate::capture::publish::Finding;
use crate::capture::setup::SetupError;
use crate::capture::trigger::QueueError;
use crate::catalog::CatalogError;
use crate::catalog::ddl::DdlError;
use crate::copy::CopyError;
use crate::flow::start::StopReason;
use crate::flow::work::TargetFinding;
use crate::model::{RetryAdvice, TableName};
use crate::pg::PgError;
use crate::verify::VerifyError;

/// Why a stream's run ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The source's connection or server.
    #[error("source: {0}")]
    Source(#[source] PgError),
    /// The target's connection or server.
    #[error("target: {0}")]
    Target(#[source] PgError),
    /// Pre-flight: nothing was changed.
    #[error("{}", list(.0))]
    Refused(Vec<String>),
    /// A person must decide.
    #[error("{0}")]
    Stopped(StopReason),
    /// The stream goes on or has ended as asked, but these tables are not in step.
    #[error("{}", .0.join("\n"))]
    Unfinished(Vec<String>),
    /// Partitions of a source table came or went.
    #[error(
        "the partitions of source table {source_table} have changed ({changes}); its rows in target table {target_table} are no longer certain: \
         copy the table again, {}", reset_command(.source_name, .target_table, "recopy")
    )]
    PartitionsChanged {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target_table: TableName,
        /// Source connection.
        source_name: String,
        /// What came and went.
        changes: String,
    },
    /// Another table bears the name of one that is followed.
    #[error(
        "source table {source_table} is another one than before: it was renamed, and the rows in target table {target_table} are those of the table \
         that had the name: copy the table again, {}", reset_command(.source_name, .target_table, "recopy")
    )]
    Replaced {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target_table: TableName,
        /// Source connection.
        source_name: String,
    },
    /// A source table that is followed is not there any more.
    #[error(
        "source table {source_table} does not exist any more (dropped, or renamed); the rows in target table {target_table} are no longer kept up: \
         take it out of the stream, with the stream stopped: repcloud drop-table {target_table} (--archive keeps its rows); or, once there is a source \
         table of that name again, {}", reset_command(.source_name, .target_table, "recopy")
    )]
    SourceGone {
        /// Source table.
        source_table: String,
        /// Target table.
        target_table: TableName,
        /// Source connection.
        source_name: String,
    },
    /// Another relation bears the name of a target table.
    #[error(
        "target table {target_table} is another one than the one that its rows went into: it was dropped and made again, or another table was given its \
         name, and rows may be missing: copy the table again, {}", reset_command(.source_name, .target_table, "recopy")
    )]
    Remade {
        /// Target table.
        target_table: TableName,
        /// Source connection.
        source_name: String,
    },
    /// A person ended it before what was asked for (`--until`) was there.
    #[error(
        "stopped before its end was reached; the position is kept in the target, start it again to go on"
    )]
    NotReached,
    /// Another process runs this stream.
    #[error("another process runs the stream {source_name} → {target_name}{}", held(.holder))]
    Running {
        /// Source connection.
        source_name: String,
        /// Target connection.
        target_name: String,
        /// Its session, as far as it can be seen.
        holder: Option<String>,
    },
    /// Set-up of the source.
    #[error("source: {0}")]
    Setup(#[from] SetupError),
    /// A slot was not made in time.
    #[error(
        "could not create slot \"{slot}\" within {seconds} s: the source waits for the end of {waiting_for}"
    )]
    SlotTimeout {
        /// Slot.
        slot: String,
        /// Limit.
        seconds: u64,
        /// Transactions, named.
        waiting_for: String,
    },
    /// Definitions.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Target tables.
    #[error(transparent)]
    Ddl(#[from] DdlError),
    /// First rows.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// State in the target.
    #[error(transparent)]
    State(#[from] StateError),
    /// Reading.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Writing.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A comparison.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A task of ours ended in a way it never should.
    #[error("internal error: {0}")]
    Internal(String),
}

fn held(holder: &Option<String>) -> String {
    holder.as_ref().map(|h| format!(" ({h})")).unwrap_or_default()
}

fn list(findings: &[String]) -> String {
    match findings {
        [one] => one.clone(),
        many => format!("{} findings, nothing was changed:\n  - {}", many.len(), many.join("\n  - ")),
    }
}

impl FlowError {
    /// From the source's pre-flight.
    pub fn refused_by_source(findings: &[Finding]) -> Self {
        FlowError::Refused(findings.iter().map(|f| format!("source: {f}")).collect())
    }

    /// From the target's pre-flight.
    pub fn refused_by_target(findings: &[TargetFinding]) -> Self {
        FlowError::Refused(findings.iter().map(ToString::to_string).collect())
    }

    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            FlowError::Source(error) | FlowError::Target(error) => error.advice(),
            FlowError::Setup(error) => error.advice(),
            FlowError::Catalog(error) => error.advice(),
            FlowError::Copy(error) => error.advice(),
            FlowError::Capture(error) => error.advice(),
            FlowError::Apply(error) => error.advice(),
            FlowError::State(error) => error.advice(),
            FlowError::Ddl(error) => error.advice(),
            FlowError::Verify(error) => error.advice(),
            FlowError::Running { .. } | FlowError::Stopped(StopReason::SlotActive { .. }) => {
                RetryAdvice::Reconnect
            }
            FlowError::Refused(_)
            | FlowError::Stopped(_)
            | FlowError::Unfinished(_)
            | FlowError::PartitionsChanged { .. }
            | FlowError::Replaced { .. }
            | FlowError::Remade { .. }
            | FlowError::SourceGone { .. }
            | FlowError::NotReached
            | FlowError::SlotTimeout { .. }
            | FlowError::Internal(_) => RetryAdvice::Stop,
        }
    }

    /// What a person can do; `source` is the connection's name.
    pub fn hint(&self, source: &str) -> Option<String> {
        match self {
            FlowError::Stopped(reason) => Some(reason.hint(source)),
            FlowError::Apply(error) => error.hint(source),
            FlowError::Capture(CaptureError::Queue(
                QueueError::Reshaped { table } | QueueError::Mixed { table },
            )) => Some(format!(
                "make the same change on the target where its columns were changed, and copy the table again, {}",
                reset_command(source, table, "recopy")
            )),
            FlowError::SlotTimeout { .. } => Some(
                "end these transactions, or start again when they have ended; no slot was left behind"
                    .to_owned(),
            ),
            // The slot reads our publications as they were at each change: made anew, they do not know the changes before.
            FlowError::Source(error) | FlowError::Capture(CaptureError::Source(error))
                if error.is_missing_publication() =>
            {
                Some(format!(
                    "somebody dropped what the slot reads by; `repcloud reset --source {source} --all --recopy` makes everything anew, \
                 `--accept-target` keeps the rows"
                ))
            }
            FlowError::Running { .. } => {
                Some("stop it first; `repcloud status` shows its process".to_owned())
            }
            _ => None,
        }
    }
}
