//! What can be wrong with a stream whose frames can be read.

use crate::model::{Lsn, Oid, RetryAdvice, TableName};

/// The stream contradicts itself, or holds what was not asked for. Nothing of the batch is lost by it, but the
/// stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A transaction that should have come earlier.
    #[error(
        "transaction {xid} committed at {commit_lsn}, before {after} which was already complete: the stream is \
         out of order; check that the slot is read by nobody else and that its server was not replaced"
    )]
    OutOfOrder {
        /// The transaction.
        xid: u32,
        /// Start of its commit record.
        commit_lsn: Lsn,
        /// Everything before this had been sent.
        after: Lsn,
    },
    /// A transaction began inside another.
    #[error("transaction {began} began before transaction {open} had ended: the stream is damaged")]
    Nested {
        /// The one that had not ended.
        open: u32,
        /// The one that began.
        began: u32,
    },
    /// Something that only has a meaning inside a transaction.
    #[error("a {0} message came outside of a transaction: the stream is damaged")]
    OutsideTransaction(&'static str),
    /// The end of a transaction says another position than its begin, or ends before it commits.
    #[error(
        "transaction {xid} was announced to commit at {announced}, but ended with commit {commit_lsn} and end \
         {end_lsn}: the stream is damaged"
    )]
    CommitMismatch {
        /// The transaction.
        xid: u32,
        /// What Begin said.
        announced: Lsn,
        /// What Commit said.
        commit_lsn: Lsn,
        /// What Commit said about its end.
        end_lsn: Lsn,
    },
    /// The checkpoint is no position between two transactions of this source.
    #[error(
        "the checkpoint {checkpoint} lies inside the commit record of transaction {xid} ({commit_lsn} to \
         {end_lsn}): it was not written for this source; check that the source was not replaced or restored"
    )]
    CheckpointInside {
        /// The checkpoint.
        checkpoint: Lsn,
        /// The transaction.
        xid: u32,
        /// Start of its commit record.
        commit_lsn: Lsn,
        /// End of its commit record.
        end_lsn: Lsn,
    },
    /// A change of a table that was not described.
    #[error("a {message} message is for table oid {oid}, which the stream has not described")]
    UnknownRelation {
        /// Which message.
        message: &'static str,
        /// The table.
        oid: Oid,
    },
    /// A row image that does not fit the table's description.
    #[error("a row of {table} came with {sent} columns, but the stream described {described}")]
    ColumnCount {
        /// The table.
        table: TableName,
        /// Columns described.
        described: usize,
        /// Columns that came.
        sent: usize,
    },
    /// A message of a protocol option that is off.
    #[error(
        "a {0} message came although the stream was started without streaming and two_phase: drop the slot and \
         let it be made anew, or give one that was created without two_phase"
    )]
    NotAskedFor(&'static str),
}

impl AssembleError {
    /// Always [`RetryAdvice::Stop`]: the source would send the same again.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }
}
