//! Which transactions are applied together. Pure.

use crate::apply::plan::{Group, PlanError, Step};
use crate::model::{Lsn, PgTimestamp, TxnBatch};

/// When a group is closed although more input waits.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// Changes.
    pub changes: usize,
    /// Bytes of row data.
    pub bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        GroupLimits { changes: 10_000, bytes: 8 << 20 }
    }
}

/// Collects batches into a group of whole transactions; a transaction beyond the limits is cut into several groups,
/// which share one target transaction.
#[derive(Debug, Default)]
pub struct GroupBuilder {
    limits: GroupLimits,
    group: Group,
    changes: usize,
    bytes: usize,
}

impl GroupBuilder {
    /// With other limits than the default ones.
    pub fn new(limits: GroupLimits) -> Self {
        GroupBuilder { limits, ..GroupBuilder::default() }
    }

    /// Adds the next batch.
    pub fn push(&mut self, batch: TxnBatch) {
        self.changes += batch.changes.len();
        self.bytes += batch.bytes;
        self.group.batches.push(batch);
    }

    /// The group must be closed.
    pub fn is_full(&self) -> bool {
        self.changes >= self.limits.changes || self.bytes >= self.limits.bytes
    }

    /// The last transaction goes on: more input is certain to come.
    pub fn is_open(&self) -> bool {
        self.group.is_open()
    }

    /// The group so far; the builder starts anew.
    pub fn take(&mut self) -> Group {
        (self.changes, self.bytes) = (0, 0);
        std::mem::take(&mut self.group)
    }
}

impl Group {
    /// The last transaction goes on in the next group.
    pub fn is_open(&self) -> bool {
        self.batches.iter().rev().find(|b| !b.txns.is_empty()).is_some_and(TxnBatch::is_open)
    }

    /// Start of the last commit record.
    pub fn last_commit(&self) -> Option<Lsn> {
        self.batches.iter().flat_map(|b| &b.txns).next_back().map(|t| t.txn.commit_lsn)
    }

    /// Number of changes.
    pub fn changes(&self) -> usize {
        self.batches.iter().map(|b| b.changes.len()).sum()
    }

    /// The position the target has reached when this group is committed; `None` while its last transaction goes on.
    pub fn closing(&self) -> Option<Closing> {
        if self.is_open() {
            return None;
        }
        let last = self.batches.iter().flat_map(|b| &b.txns).rfind(|t| t.end_lsn.is_some());
        let idle = self.batches.iter().map(|b| b.caught_up_to).max().unwrap_or_default();
        let end = last.and_then(|t| t.end_lsn).unwrap_or_default();
        Some(Closing { position: end.max(idle), commit_time: last.map(|t| t.txn.commit_time) })
    }
}

/// Where a group ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Everything that committed on the source before it is in the target once the group is committed.
    pub position: Lsn,
    /// When its last transaction committed on the source; `None` when it holds a position alone.
    pub commit_time: Option<PgTimestamp>,
}

/// A group and its coalesced plan, ready for the target.
#[derive(Debug)]
pub struct PlannedGroup {
    /// What came from the source; kept for the row-by-row way.
    pub group: Group,
    /// The coalesced plan; `None` when only the row-by-row way is possible.
    pub plan: Result<Option<Vec<Step>>, PlanError>,
    /// Changes by route, for those who watch.
    pub counts: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TxnId, TxnSpan};

    fn batch(end: Option<u64>) -> TxnBatch {
        let txn = TxnId { xid: 1, commit_lsn: Lsn(10), commit_time: PgTimestamp(7) };
        TxnBatch { txns: vec![TxnSpan { txn, changes: 0..0, end_lsn: end.map(Lsn) }], ..TxnBatch::default() }
    }

    #[test]
    fn an_unfinished_transaction_closes_nothing() {
        let mut builder = GroupBuilder::default();
        builder.push(batch(Some(15)));
        builder.push(batch(None));
        assert!(builder.is_open());
        assert_eq!(builder.take().closing(), None);
    }

    #[test]
    fn the_position_is_the_last_commit_or_the_keepalive_behind_it() {
        let mut builder = GroupBuilder::default();
        builder.push(batch(Some(15)));
        let closing = |position, time: Option<i64>| {
            Some(Closing { position: Lsn(position), commit_time: time.map(PgTimestamp) })
        };
        assert_eq!(builder.take().closing(), closing(15, Some(7)));
        builder.push(batch(Some(15)));
        builder.push(TxnBatch { caught_up_to: Lsn(40), ..TxnBatch::default() });
        assert_eq!(builder.take().closing(), closing(40, Some(7)));
        builder.push(TxnBatch { caught_up_to: Lsn(50), ..TxnBatch::default() });
        assert_eq!(builder.take().closing(), closing(50, None));
    }
}
