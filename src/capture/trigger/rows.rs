//! Queue rows to changes, and pages of them to batches. Pure.

use std::sync::Arc;

use crate::capture::trigger::layout::Shape;
use crate::catalog::TableDef;
use crate::decode::composite::{self, CompositeError};
use crate::model::{
    Change, Lsn, Oid, OldTuple, PgTimestamp, Relation, RelationColumn, ReplicaIdentity, TableName, TxnBatch,
    TxnId, TxnSpan,
};

/// What is wrong with a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The table, or one of our triggers on it, is not what it was when the last batch was cut.
    #[error("the columns of {table}, or repcloud's triggers on it, were changed")]
    Reshaped {
        /// Which one.
        table: TableName,
    },
    /// Its columns changed, and queued rows do not tell whether they were written before or after.
    #[error(
        "the columns of {table} were changed, and its queued changes do not tell which of them came before"
    )]
    Mixed {
        /// Which one.
        table: TableName,
    },
    /// A row that cannot be read.
    #[error("row {seq} of the queue of {table} cannot be read: {problem}")]
    Row {
        /// Which table.
        table: TableName,
        /// The row's number.
        seq: i64,
        /// What is wrong, without values.
        problem: String,
    },
    /// The batch we applied last is not known to the source.
    #[error(
        "the source does not know batch {number} of {consumer}, which was applied: it was restored to an earlier state or is \
         another server; begin anew"
    )]
    TickLost {
        /// Who reads.
        consumer: String,
        /// The batch.
        number: u64,
    },
    /// Another process has taken the queue over.
    #[error("another process reads the queue as {consumer}")]
    TakenOver {
        /// Who reads.
        consumer: String,
    },
}

/// One row of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow<'a> {
    /// Its number.
    pub seq: i64,
    /// `I`, `U`, `D`, `T`.
    pub op: u8,
    /// The row before.
    pub old: Option<&'a [u8]>,
    /// The row after.
    pub new: Option<&'a [u8]>,
}

/// A captured table: the text of its rows has its live columns, of which those that are generated are left out.
#[derive(Debug, Clone)]
pub struct QueueTable {
    relation: Arc<Relation>,
    kept: Vec<bool>,
    /// Of the relation's columns, as SQL writes them.
    types: Vec<String>,
    /// The columns of its primary key.
    key: Vec<String>,
}

impl QueueTable {
    /// Of the table as it is.
    pub fn new(table: &TableDef) -> Self {
        let stored = table.columns.iter().filter(|c| c.generated.is_none());
        let columns = stored.clone().map(|c| RelationColumn {
            name: c.name.clone(),
            type_oid: c.type_oid,
            type_modifier: c.type_modifier,
            in_identity: true,
        });
        QueueTable {
            relation: Arc::new(Relation {
                oid: table.oid,
                name: table.name.clone(),
                // Whole rows are queued, whatever the replica identity is.
                identity: ReplicaIdentity::Full,
                columns: columns.collect(),
            }),
            kept: table.columns.iter().map(|c| c.generated.is_none()).collect(),
            types: stored.map(|c| c.type_sql.clone()).collect(),
            key: table.primary_key().unwrap_or_default(),
        }
    }

    /// As a tick showed it.
    pub(super) fn of_shape(oid: Oid, name: &TableName, shape: &Shape) -> Self {
        let stored = shape.columns.iter().filter(|c| !c.generated);
        let columns = stored.map(|c| RelationColumn {
            name: c.name.clone(),
            type_oid: c.type_oid,
            type_modifier: c.type_modifier,
            in_identity: true,
        });
        let relation =
            Relation { oid, name: name.clone(), identity: ReplicaIdentity::Full, columns: columns.collect() };
        QueueTable {
            relation: Arc::new(relation),
            kept: shape.columns.iter().map(|c| !c.generated).collect(),
            types: shape.columns.iter().filter(|c| !c.generated).map(|c| c.type_sql.clone()).collect(),
            key: Vec::new(),
        }
    }

    /// The type of a column, as SQL writes it.
    pub(super) fn type_of(&self, column: &str) -> Option<&str> {
        let index = self.relation.column_index(column)?;
        self.types.get(index).map(String::as_str)
    }

    /// The columns of its primary key; empty without one, and where a tick alone shows the table.
    pub(super) fn key(&self) -> &[String] {
        &self.key
    }

    /// The table's oid.
    pub fn oid(&self) -> Oid {
        self.relation.oid
    }

    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.relation.name
    }

    /// The change that a row tells of.
    pub fn change(&self, row: &QueueRow<'_>) -> Result<Change, QueueError> {
        let relation = self.relation.clone();
        let unreadable =
            |problem: String| QueueError::Row { table: self.name().clone(), seq: row.seq, problem };
        let image = |image: Option<&[u8]>| match image.map(|text| composite::decode(text, &self.kept)) {
            Some(Ok(tuple)) => Ok(tuple),
            // A column more or less between two batches, which is gone again.
            Some(Err(CompositeError::Fields { .. })) => {
                Err(QueueError::Reshaped { table: self.name().clone() })
            }
            Some(Err(error)) => Err(unreadable(error.to_string())),
            None => Err(unreadable("an image is missing".to_owned())),
        };
        Ok(match row.op {
            b'I' => Change::Insert { relation, new: image(row.new)? },
            b'U' => {
                Change::Update { relation, old: Some(OldTuple::Full(image(row.old)?)), new: image(row.new)? }
            }
            b'D' => Change::Delete { relation, old: OldTuple::Full(image(row.old)?) },
            b'T' => Change::Truncate { relations: vec![relation], cascade: false, restart_identity: false },
            _ => return Err(unreadable("its operation is unknown".to_owned())),
        })
    }
}

/// A page of batch `number`, which was cut at `made_at`; `last`: nothing of it follows. One batch is one transaction, its
/// number the position; its commit begins where the one before ended.
pub fn page(number: u64, made_at: PgTimestamp, changes: Vec<Change>, first: bool, last: bool) -> TxnBatch {
    let position = Lsn(number);
    let caught_up_to = if last { position } else { Lsn(number.saturating_sub(1)) };
    let bytes = changes.iter().map(Change::data_len).sum();
    if first && last && changes.is_empty() {
        return TxnBatch { caught_up_to, ..TxnBatch::default() };
    }
    let commit_lsn = Lsn(number.saturating_sub(1));
    let txn = TxnId { xid: 0, commit_lsn, commit_time: made_at };
    let span = TxnSpan { txn, changes: 0..changes.len(), end_lsn: last.then_some(position) };
    TxnBatch { changes, txns: vec![span], bytes, caught_up_to, urgent: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tuple, Value};

    fn table(kept: &[bool]) -> QueueTable {
        let column = |i: usize| RelationColumn {
            name: format!("c{i}"),
            type_oid: 25,
            type_modifier: -1,
            in_identity: true,
        };
        let columns = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| column(i)).collect();
        let relation = Relation {
            oid: 7,
            name: TableName::new("public", "t"),
            identity: ReplicaIdentity::Full,
            columns,
        };
        QueueTable { relation: Arc::new(relation), kept: kept.to_vec(), types: Vec::new(), key: Vec::new() }
    }

    fn row(op: u8, old: Option<&'static str>, new: Option<&'static str>) -> QueueRow<'static> {
        QueueRow { seq: 5, op, old: old.map(str::as_bytes), new: new.map(str::as_bytes) }
    }

    #[test]
    fn each_operation_becomes_its_change() {
        let table = table(&[true, false]);
        let tuple = |text: &'static str| -> Tuple { [Value::Text(text.as_bytes())].into_iter().collect() };
        let relation = table.relation.clone();
        assert_eq!(
            table.change(&row(b'U', Some("(a,9)"), Some("(b,9)"))),
            Ok(Change::Update {
                relation: relation.clone(),
                old: Some(OldTuple::Full(tuple("a"))),
                new: tuple("b")
            })
        );
        assert_eq!(
            table.change(&row(b'I', None, Some("(b,)"))),
            Ok(Change::Insert { relation: relation.clone(), new: tuple("b") })
        );
        assert_eq!(
            table.change(&row(b'D', Some("(a,)"), None)),
            Ok(Change::Delete { relation, old: OldTuple::Full(tuple("a")) })
        );
        assert!(matches!(table.change(&row(b'T', None, None)), Ok(Change::Truncate { .. })));
    }

    #[test]
    fn a_row_of_other_columns_is_a_changed_table_and_a_broken_one_tells_no_value() {
        let table = table(&[true, true]);
        let changed = Err(QueueError::Reshaped { table: TableName::new("public", "t") });
        assert_eq!(table.change(&row(b'I', None, Some("(1,2,3)"))), changed);
        for broken in [row(b'I', None, Some("(secret")), row(b'I', None, None), row(b'X', None, None)] {
            let error = table.change(&broken).unwrap_err().to_string();
            assert!(error.contains("row 5 of the queue of public.t") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_batch_of_several_pages_is_one_transaction_that_ends_once() {
        let at = PgTimestamp(1);
        let truncate = || Change::Truncate { relations: vec![], cascade: false, restart_identity: false };
        let first = page(9, at, vec![truncate()], true, false);
        assert!(first.is_open());
        assert_eq!(first.caught_up_to, Lsn(8));
        let last = page(9, at, vec![], false, true);
        assert_eq!(last.txns[0].end_lsn, Some(Lsn(9)));
        assert_eq!(last.txns[0].txn, first.txns[0].txn);
        let nothing = page(9, at, vec![], true, true);
        assert!(nothing.is_empty() && nothing.caught_up_to == Lsn(9));
    }
}
