//! Which session applies which change when several of them, the *lanes*, apply the changes of one table. Pure.
//!
//! Rows of one key always go to the same lane and there keep the source's order, so each lane has a history of its own that
//! touches nothing of the others'. Nobody may read the target meanwhile: a transaction's parts commit one by one, each with
//! its lane's position. What concerns more than one key (a changed key, TRUNCATE) makes its whole transaction go *alone*,
//! through the first lane: every lane has committed all that came before, and begins what comes after when it has
//! committed.
//!
//! After a crash each lane leaves out what its position covers. That is right only while the same change comes to the same
//! lane again: the lane depends on nothing but the number of lanes and the change, and whether a transaction goes alone on
//! nothing but its changes.

use std::borrow::Cow;
use std::sync::Arc;

use crate::apply::applier::ApplyReport;
use crate::apply::plan::relation_of;
use crate::apply::route::{Bindings, RouteTable};
use crate::apply::row::{Row, complete_new};
use crate::model::{Change, Lsn, Relation, Tuple, TxnBatch, TxnId, TxnSpan, Value};

/// Bytes of a transaction that are kept until its end is known; a larger one goes alone. Stored positions rest on it, and on
/// [`CHANGE_BYTES`].
const MOST_KEPT: usize = 16 << 20;
/// What a kept change takes besides its row.
const CHANGE_BYTES: usize = 256;

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Goes to this lane.
    Send(usize, TxnBatch),
    /// Nothing more is sent before every lane has committed everything up to this position.
    Drain(Lsn),
}

/// What is known of the transaction whose end has not come.
#[derive(Debug)]
enum Unfinished {
    /// Its changes with their lanes; nothing was handed out.
    Kept { changes: Vec<(usize, Change)>, bytes: usize },
    /// It goes alone.
    Alone,
}

impl Default for Unfinished {
    fn default() -> Self {
        Unfinished::Kept { changes: Vec::new(), bytes: 0 }
    }
}

/// Divides a stream of batches between lanes.
#[derive(Debug)]
pub struct Splitter {
    routes: Arc<RouteTable>,
    bindings: Bindings,
    /// By lane: what committed on the source before it was in the target when this began.
    from: Vec<Lsn>,
    /// By lane: the position that was handed out last.
    handed: Vec<Lsn>,
    /// By lane: what waits to be handed out.
    ready: Vec<TxnBatch>,
    /// Everything before it has been taken in.
    position: Lsn,
    unfinished: Unfinished,
    relation: Option<Arc<Relation>>,
    /// Changes of one batch, at most.
    batch_changes: usize,
    most_kept: usize,
    acts: Vec<Act>,
}

impl Splitter {
    /// `positions` are those of the lanes, in their order; at least one.
    pub fn new(routes: Arc<RouteTable>, positions: Vec<Lsn>, batch_changes: usize) -> Self {
        Splitter {
            routes,
            bindings: Bindings::default(),
            ready: positions.iter().map(|_| TxnBatch::default()).collect(),
            position: positions.iter().copied().min().unwrap_or_default(),
            handed: positions.clone(),
            from: positions,
            unfinished: Unfinished::default(),
            relation: None,
            batch_changes: batch_changes.max(1),
            most_kept: MOST_KEPT,
            acts: Vec::new(),
        }
    }

    /// The same with another limit to what is kept.
    #[cfg(test)]
    pub(super) fn keeping(self, most_kept: usize) -> Self {
        Splitter { most_kept, ..self }
    }

    /// Takes the next batch in.
    pub fn push(&mut self, batch: TxnBatch) -> Vec<Act> {
        let open = batch.is_open();
        let mut changes = batch.changes.into_iter();
        for span in batch.txns {
            for change in changes.by_ref().take(span.changes.len()) {
                self.take(span.txn, change);
            }
            if let Some(end) = span.end_lsn {
                self.end(span.txn, end);
            }
        }
        if !open {
            self.position = self.position.max(batch.caught_up_to);
        }
        self.hand_out(batch.urgent && !open);
        std::mem::take(&mut self.acts)
    }

    fn take(&mut self, txn: TxnId, change: Change) {
        let lane = self.lane(&change);
        let Unfinished::Kept { changes, bytes } = &mut self.unfinished else {
            return self.put(0, txn, change);
        };
        *bytes += change.data_len() + CHANGE_BYTES;
        let alone = lane.is_none() || *bytes > self.most_kept;
        changes.push((lane.unwrap_or_default(), change));
        if alone {
            let changes = std::mem::take(changes);
            self.unfinished = Unfinished::Alone;
            self.drain();
            for (_, change) in changes {
                self.put(0, txn, change);
            }
        }
    }

    fn end(&mut self, txn: TxnId, end: Lsn) {
        match std::mem::take(&mut self.unfinished) {
            Unfinished::Alone => {
                self.close(txn, end);
                self.drain();
            }
            Unfinished::Kept { changes, .. } => {
                if self.is_described_anew(&changes) {
                    self.drain();
                }
                for (lane, change) in changes {
                    self.put(lane, txn, change);
                }
                self.close(txn, end);
            }
        }
    }

    /// Everything so far goes out and is waited for.
    fn drain(&mut self) {
        self.hand_out(false);
        self.acts.push(Act::Drain(self.position));
    }

    /// Adds a change of the unfinished transaction to what `lane` gets, unless it has it.
    fn put(&mut self, lane: usize, txn: TxnId, change: Change) {
        let (Some(ready), Some(from)) = (self.ready.get_mut(lane), self.from.get(lane)) else { return };
        // As the reader does with the position of a stream.
        if txn.commit_lsn < *from {
            return;
        }
        ready.bytes += change.data_len();
        ready.changes.push(change);
        let at = ready.changes.len();
        match ready.txns.last_mut().filter(|span| span.end_lsn.is_none()) {
            Some(span) => span.changes.end = at,
            None => ready.txns.push(TxnSpan { txn, changes: at - 1..at, end_lsn: None }),
        }
        if at >= self.batch_changes {
            let batch = std::mem::take(ready);
            // The rest of the transaction, or at least its end, follows.
            ready.txns.push(TxnSpan { txn, changes: 0..0, end_lsn: None });
            self.acts.push(Act::Send(lane, batch));
        }
    }

    /// The transaction's end, for those lanes that have a part of it.
    fn close(&mut self, txn: TxnId, end: Lsn) {
        self.position = self.position.max(end);
        for ready in &mut self.ready {
            if let Some(span) = ready.txns.last_mut().filter(|span| span.txn == txn) {
                span.end_lsn = Some(end);
            }
        }
    }

    /// Hands out what waits, with the position for all; not the part of a transaction that goes alone without its end.
    fn hand_out(&mut self, urgent: bool) {
        let position = self.position;
        for (lane, (ready, handed)) in self.ready.iter_mut().zip(&mut self.handed).enumerate() {
            if ready.is_open() || (ready.is_empty() && position <= *handed && !urgent) {
                continue;
            }
            // Never back: the lane may have more than the one that has least.
            *handed = position.max(*handed);
            let batch = TxnBatch { caught_up_to: *handed, urgent, ..std::mem::take(ready) };
            self.acts.push(Act::Send(lane, batch));
        }
    }

    /// The lane of a change; `None`: its transaction goes alone.
    fn lane(&mut self, change: &Change) -> Option<usize> {
        let relation = relation_of(change)?;
        let bound = self.bindings.get(&self.routes, relation);
        let binding = match &*bound.bindings {
            [binding] => binding,
            // Routed nowhere, or not fitting: the lane's planner says what is to be said.
            [] => return Some(0),
            _ => return None,
        };
        let key = &*self.routes.route(binding.route).shape.key;
        let row = |tuple: Cow<'_, Tuple>| hash(&Row::new(tuple, binding), key);
        let hashed = match change {
            Change::Insert { new, .. } => row(Cow::Borrowed(new))?,
            Change::Delete { old, .. } => row(Cow::Borrowed(old.tuple()))?,
            Change::Update { old, new, .. } => {
                let new = Row::new(complete_new(relation, old.as_ref(), new), binding);
                if let Some(old) = old {
                    let old = Row::new(Cow::Borrowed(old.tuple()), binding);
                    if !old.same_key(&new, key) {
                        return None;
                    }
                }
                hash(&new, key)?
            }
            Change::Truncate { .. } => return None,
        };
        usize::try_from(hashed % self.ready.len().max(1) as u64).ok()
    }

    /// The table is described otherwise than before. Each lane then begins anew together with the others; nothing goes
    /// alone, for what a new process sees first would be no change to it.
    fn is_described_anew(&mut self, changes: &[(usize, Change)]) -> bool {
        let mut anew = false;
        for relation in changes.iter().filter_map(|(_, change)| relation_of(change)) {
            match &self.relation {
                Some(known) if Arc::ptr_eq(known, relation) => {}
                Some(known) => {
                    anew |= known != relation;
                    self.relation = Some(relation.clone());
                }
                None => self.relation = Some(relation.clone()),
            }
        }
        anew
    }
}

/// FNV-1a over the key's bytes, stirred; `None` when some column of it holds no value. Stored positions of lanes rest on it:
/// another function would send a change to a lane whose position leaves it out.
fn hash(row: &Row<'_>, key: &[u16]) -> Option<u64> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    if key.is_empty() {
        return None;
    }
    for &column in key {
        match row.value(column) {
            Value::Text(bytes) | Value::Binary(bytes) => {
                add(&(bytes.len() as u64).to_le_bytes());
                add(bytes);
            }
            Value::Null | Value::Unchanged => return None,
        }
    }
    // The low bits of FNV are those of the last byte.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some(hash ^ (hash >> 29))
}

/// What all lanes together have reached: a position is reached, and may be confirmed, where the lowest lane has reached it.
pub fn together(lanes: &[ApplyReport]) -> ApplyReport {
    let lowest = |of: fn(&ApplyReport) -> Lsn| lanes.iter().map(of).min().unwrap_or_default();
    ApplyReport {
        applied: lowest(|lane| lane.applied),
        passed: lowest(|lane| lane.passed),
        durable: lowest(|lane| lane.durable),
        changes: lanes.iter().map(|lane| lane.changes).sum(),
        commit_time: lanes.iter().filter_map(|lane| lane.commit_time).max(),
        row_by_row: lanes.iter().map(|lane| lane.row_by_row).sum(),
    }
}

/// How many lanes there are from here on: `wanted` where all have reached the same place, else as many as there were. What a
/// lane's position covers is known only by the number that was in force.
pub fn how_many(positions: &[Lsn], wanted: usize) -> usize {
    match positions {
        [first, others @ ..] if others.iter().any(|other| other != first) => positions.len(),
        _ => wanted.max(1),
    }
}
