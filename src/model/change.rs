//! Changes, and the batches in which they travel from capture to apply.

use std::ops::Range;
use std::sync::Arc;

use crate::model::lsn::Lsn;
use crate::model::relation::Relation;
use crate::model::tuple::Tuple;

/// The old row image that came with an update or a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// Only the replica identity's columns hold values; the others are NULL. (An update sends it only when a
    /// column of the identity changed.)
    Key(Tuple),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple),
}

impl OldTuple {
    /// The image, whichever columns it holds.
    pub fn tuple(&self) -> &Tuple {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
        }
    }
}

/// One row change, or one TRUNCATE, of a source transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new row.
    Insert {
        /// The table, as described at that moment.
        relation: Arc<Relation>,
        /// The row.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// The table, as described at that moment.
        relation: Arc<Relation>,
        /// Present when the identity changed, or always with REPLICA IDENTITY FULL.
        old: Option<OldTuple>,
        /// The row after the change; untouched TOAST columns are `Unchanged`.
        new: Tuple,
    },
    /// A removed row.
    Delete {
        /// The table, as described at that moment.
        relation: Arc<Relation>,
        /// What identifies the row.
        old: OldTuple,
    },
    /// TRUNCATE of one or several tables in one statement.
    Truncate {
        /// The tables, as described at that moment.
        relations: Vec<Arc<Relation>>,
        /// CASCADE was given.
        cascade: bool,
        /// RESTART IDENTITY was given.
        restart_identity: bool,
    },
}

impl Change {
    /// Bytes of row data (memory accounting, not exact).
    pub fn data_len(&self) -> usize {
        match self {
            Change::Insert { new, .. } => new.data_len(),
            Change::Update { old, new, .. } => {
                new.data_len() + old.as_ref().map_or(0, |o| o.tuple().data_len())
            }
            Change::Delete { old, .. } => old.tuple().data_len(),
            Change::Truncate { .. } => 0,
        }
    }
}

/// Microseconds since 2000-01-01 00:00 UTC, PostgreSQL's own clock (`TimestampTz`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PgTimestamp(pub i64);

/// What a source transaction is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnId {
    /// Top-level transaction id.
    pub xid: u32,
    /// Start of the commit record. Known from the first message on (Begin's `final_lsn`).
    pub commit_lsn: Lsn,
    /// When it committed on the source.
    pub commit_time: PgTimestamp,
}

/// The part of one source transaction that lies in one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnSpan {
    /// Which transaction.
    pub txn: TxnId,
    /// Its changes, as indexes into [`TxnBatch::changes`]; may be empty.
    pub changes: Range<usize>,
    /// End of the commit record (where the next transaction's position starts) when the transaction ends in this
    /// batch; `None` while it goes on in the next batch.
    pub end_lsn: Option<Lsn>,
}

/// Changes on their way from a capture to the applier, in commit order.
///
/// Transactions are contiguous. Only the last one may be unfinished (`end_lsn` is `None`): it goes on as the
/// first span of the next batch, with the same [`TxnId`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxnBatch {
    /// All changes of all spans.
    pub changes: Vec<Change>,
    /// Which changes belong to which transaction, in order, without gaps.
    pub txns: Vec<TxnSpan>,
    /// Bytes of row data (memory accounting, not exact).
    pub bytes: usize,
    /// The source has sent everything that committed before this position (from a keepalive, or a commit's end).
    /// Valid to adopt only when no transaction is unfinished.
    pub caught_up_to: Lsn,
    /// The source waits for a confirmation (it is shutting down): a position without changes is written at once.
    pub urgent: bool,
}

impl TxnBatch {
    /// True when the last transaction goes on in the next batch.
    pub fn is_open(&self) -> bool {
        self.txns.last().is_some_and(|t| t.end_lsn.is_none())
    }

    /// True when there is nothing in it but perhaps a position.
    pub fn is_empty(&self) -> bool {
        self.txns.is_empty()
    }
}
