//! Decoded messages to batches of transactions. Pure.
//!
//! The stream is read with `streaming` and `two_phase` off, so transactions come whole, one after the other, in
//! commit order. Positions are those of `proto-notes/positions.md`.

mod error;

use std::collections::HashMap;
use std::sync::Arc;

pub use error::AssembleError;

use crate::decode::pgoutput::{Begin, Commit, LogicalMessage, Message};
use crate::model::{Change, Lsn, Oid, Relation, Tuple, TxnBatch, TxnId, TxnSpan};

/// Prefix of the logical messages that are ours.
pub const MESSAGE_PREFIX: &str = "repcloud";

/// Where an [`Assembler`] starts and how large its batches grow.
#[derive(Debug, Clone, Copy)]
pub struct AssembleOptions {
    /// The checkpoint: transactions whose commit record starts before it are dropped, they are on the target.
    pub skip_before: Lsn,
    /// A batch with so many changes is full.
    pub max_changes: usize,
    /// A batch with so many bytes of row data is full.
    pub max_bytes: usize,
}

/// One of our own messages ([`MESSAGE_PREFIX`]), written inside a transaction with `pg_logical_emit_message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMessage {
    /// The transaction that holds it. It has arrived on the target once this transaction has.
    pub txn: TxnId,
    /// The message.
    pub message: LogicalMessage,
}

/// The transaction being read.
#[derive(Debug, Clone, Copy)]
struct Open {
    txn: TxnId,
    /// On the target already: its changes are dropped.
    skipped: bool,
    /// First change of it in the batch being filled.
    first: usize,
    /// An earlier batch holds a part of it.
    continued: bool,
}

/// Builds [`TxnBatch`]es from the messages of one stream, from its start to its end (a new connection needs a new
/// `Assembler`: the server describes its tables anew).
///
/// It never refuses for being full: whoever feeds it looks at [`is_full`](Self::is_full) after each message and
/// takes the batch.
#[derive(Debug)]
pub struct Assembler {
    options: AssembleOptions,
    relations: HashMap<Oid, Arc<Relation>, foldhash::fast::RandomState>,
    /// The table of the last change: changes come in runs.
    latest: Option<Arc<Relation>>,
    open: Option<Open>,
    batch: TxnBatch,
    own_messages: Vec<OwnMessage>,
    /// The last span of `batch` is an empty transaction as a whole, so the next empty one may replace it.
    last_is_empty: bool,
    /// Everything that committed before was sent on this stream.
    sent_up_to: Lsn,
    /// `caught_up_to` of the last batch taken.
    taken_up_to: Lsn,
}

impl Assembler {
    /// An assembler for a stream that starts now.
    pub fn new(options: AssembleOptions) -> Self {
        Assembler {
            options,
            relations: HashMap::default(),
            latest: None,
            open: None,
            batch: TxnBatch { caught_up_to: options.skip_before, ..TxnBatch::default() },
            own_messages: Vec::new(),
            last_is_empty: false,
            sent_up_to: Lsn::INVALID,
            taken_up_to: options.skip_before,
        }
    }

    /// Takes in the next message.
    ///
    /// After an error the stream is broken and must be closed; the batch holds what came before and may be taken.
    pub fn push(&mut self, message: Message) -> Result<(), AssembleError> {
        let kind = message.kind();
        match message {
            Message::Insert { relation, new, .. } => {
                let Some(relation) = self.row(kind, relation, [Some(&new), None])? else { return Ok(()) };
                self.add(Change::Insert { relation, new });
            }
            Message::Update { relation, old, new, .. } => {
                let old_tuple = old.as_ref().map(|old| old.tuple());
                let Some(relation) = self.row(kind, relation, [Some(&new), old_tuple])? else {
                    return Ok(());
                };
                self.add(Change::Update { relation, old, new });
            }
            Message::Delete { relation, old, .. } => {
                let Some(relation) = self.row(kind, relation, [Some(old.tuple()), None])? else {
                    return Ok(());
                };
                self.add(Change::Delete { relation, old });
            }
            Message::Truncate { relations, cascade, restart_identity, .. } => {
                if self.inside(kind)?.skipped {
                    return Ok(());
                }
                let relations =
                    relations.iter().map(|&oid| self.known(kind, oid)).collect::<Result<_, _>>()?;
                self.add(Change::Truncate { relations, cascade, restart_identity });
            }
            Message::Begin(begin) => self.begin(begin)?,
            Message::Commit(commit) => self.commit(commit)?,
            // Described also by transactions that are dropped: the server says it once for all that follow.
            Message::Relation { relation, .. } => self.describe(relation),
            Message::Logical(message) => self.logical(message)?,
            Message::Origin(_) => {
                self.inside(kind)?;
            }
            // Our own catalog reads know the types by name.
            Message::Type(_) => {}
            // Nothing of that transaction was sent: streaming is not asked for, and PostgreSQL 18 says it all the same.
            Message::StreamAbort(_) => {}
            Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamPrepare(_)
            | Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared { .. }
            | Message::RollbackPrepared(_) => return Err(AssembleError::NotAskedFor(kind)),
        }
        Ok(())
    }

    /// Takes in a keepalive: the source has sent everything that committed before `end`. Says nothing new while a
    /// transaction is being read.
    pub fn keepalive(&mut self, end: Lsn) {
        if self.open.is_none() {
            self.sent(end);
        }
    }

    /// The batch has reached a limit and should be taken before the next message.
    pub fn is_full(&self) -> bool {
        let Self { options, batch, own_messages, .. } = self;
        batch.changes.len() >= options.max_changes
            || batch.bytes >= options.max_bytes
            || own_messages.len() >= options.max_changes
    }

    /// True when [`take`](Self::take) would give something new: changes, an end of a transaction, or a position.
    pub fn pending(&self) -> bool {
        !self.batch.changes.is_empty()
            || !self.batch.txns.is_empty()
            || self.batch.caught_up_to > self.taken_up_to
    }

    /// Changes in the batch being filled.
    pub fn pending_changes(&self) -> usize {
        self.batch.changes.len()
    }

    /// True between the Begin and the Commit of a transaction (also of one that is dropped).
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The description of a table, when the stream has given one.
    pub fn relation(&self, oid: Oid) -> Option<&Arc<Relation>> {
        self.relations.get(&oid)
    }

    /// Our own messages of the batch being filled; to be called before [`take`](Self::take), which forgets them.
    pub fn take_own_messages(&mut self) -> Vec<OwnMessage> {
        std::mem::take(&mut self.own_messages)
    }

    /// Takes what is there and starts the next batch.
    ///
    /// May leave a transaction open. From its first change on, every batch up to its end then has a span of it,
    /// even an empty one, so that [`TxnBatch::is_open`] tells the truth.
    pub fn take(&mut self) -> TxnBatch {
        let changes = self.batch.changes.len();
        if let Some(open) = &mut self.open
            && !open.skipped
            && (open.continued || open.first < changes)
        {
            self.batch.txns.push(TxnSpan { txn: open.txn, changes: open.first..changes, end_lsn: None });
            open.continued = true;
        }
        if let Some(open) = &mut self.open {
            open.first = 0;
        }
        self.own_messages.clear();
        self.last_is_empty = false;
        self.taken_up_to = self.batch.caught_up_to;
        // A busy stream fills the next batch as far as this one; a quiet one must not hold memory for it.
        let next = TxnBatch {
            changes: Vec::with_capacity(changes.min(self.options.max_changes)),
            caught_up_to: self.taken_up_to,
            ..TxnBatch::default()
        };
        std::mem::replace(&mut self.batch, next)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), AssembleError> {
        let Begin { final_lsn, commit_time, xid } = begin;
        if let Some(open) = &self.open {
            return Err(AssembleError::Nested { open: open.txn.xid, began: xid });
        }
        if final_lsn < self.sent_up_to {
            return Err(AssembleError::OutOfOrder { xid, commit_lsn: final_lsn, after: self.sent_up_to });
        }
        self.open = Some(Open {
            txn: TxnId { xid, commit_lsn: final_lsn, commit_time },
            // The checkpoint is the end of a commit record, so a record that starts before it ends at it or before.
            skipped: final_lsn < self.options.skip_before,
            first: self.batch.changes.len(),
            continued: false,
        });
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), AssembleError> {
        let open = *self.inside("Commit")?;
        let Commit { commit_lsn, end_lsn, .. } = commit;
        if commit_lsn != open.txn.commit_lsn || end_lsn <= commit_lsn {
            let TxnId { xid, commit_lsn: announced, .. } = open.txn;
            return Err(AssembleError::CommitMismatch { xid, announced, commit_lsn, end_lsn });
        }
        if open.skipped && end_lsn > self.options.skip_before {
            let (xid, checkpoint) = (open.txn.xid, self.options.skip_before);
            return Err(AssembleError::CheckpointInside { checkpoint, xid, commit_lsn, end_lsn });
        }
        self.open = None;
        self.sent(end_lsn);
        if !open.skipped {
            self.finish(open, end_lsn);
        }
        Ok(())
    }

    /// Writes the span of a transaction that ended.
    fn finish(&mut self, open: Open, end_lsn: Lsn) {
        let changes = open.first..self.batch.changes.len();
        let empty = changes.is_empty() && !open.continued;
        // Of empty transactions in a row only the last matters: its position covers the others.
        if empty && self.last_is_empty {
            self.batch.txns.pop();
        }
        self.batch.txns.push(TxnSpan { txn: open.txn, changes, end_lsn: Some(end_lsn) });
        self.last_is_empty = empty;
    }

    fn sent(&mut self, up_to: Lsn) {
        self.sent_up_to = self.sent_up_to.max(up_to);
        self.batch.caught_up_to = self.batch.caught_up_to.max(up_to);
    }

    fn describe(&mut self, relation: Relation) {
        self.latest = None;
        match self.relations.get(&relation.oid) {
            // The server describes a table anew after any invalidation (an ANALYZE is enough).
            Some(known) if **known == relation => {}
            _ => {
                self.relations.insert(relation.oid, Arc::new(relation));
            }
        }
    }

    fn logical(&mut self, message: LogicalMessage) -> Result<(), AssembleError> {
        if !message.transactional || message.prefix != MESSAGE_PREFIX {
            return Ok(());
        }
        let open = self.inside("Message")?;
        if !open.skipped {
            let txn = open.txn;
            self.own_messages.push(OwnMessage { txn, message });
        }
        Ok(())
    }

    #[inline]
    fn inside(&self, message: &'static str) -> Result<&Open, AssembleError> {
        self.open.as_ref().ok_or(AssembleError::OutsideTransaction(message))
    }

    /// The table of a row change; `None` when the change belongs to a dropped transaction.
    #[inline]
    fn row(
        &mut self,
        message: &'static str,
        oid: Oid,
        images: [Option<&Tuple>; 2],
    ) -> Result<Option<Arc<Relation>>, AssembleError> {
        if self.inside(message)?.skipped {
            return Ok(None);
        }
        let relation = match &self.latest {
            Some(latest) if latest.oid == oid => Arc::clone(latest),
            _ => {
                let known = self.known(message, oid)?;
                self.latest.insert(known).clone()
            }
        };
        let described = relation.columns.len();
        match images.into_iter().flatten().find(|image| image.len() != described) {
            None => Ok(Some(relation)),
            Some(image) => {
                Err(AssembleError::ColumnCount { table: relation.name.clone(), described, sent: image.len() })
            }
        }
    }

    fn known(&self, message: &'static str, oid: Oid) -> Result<Arc<Relation>, AssembleError> {
        self.relations.get(&oid).cloned().ok_or(AssembleError::UnknownRelation { message, oid })
    }

    #[inline]
    fn add(&mut self, change: Change) {
        self.batch.bytes += change.data_len();
        self.batch.changes.push(change);
    }
}

#[cfg(test)]
mod tests;
