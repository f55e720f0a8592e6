//! Holds changes back until what they are for is there. Meanwhile the server goes on decoding, which for the changes of a repack's
//! own copy is most of the work, and all of it for nothing.

use std::collections::VecDeque;

use tokio::sync::{mpsc, watch};

use crate::model::TxnBatch;

/// Bytes of changes that are held; with more the server has to wait.
const MOST_BYTES: usize = 32 << 20;
/// What a change takes besides its row.
const CHANGE_BYTES: usize = 256;

/// Passes batches on once `open` says so, in their order. What is held is dropped when `halted` says so before: it is not
/// confirmed, so it comes again.
pub async fn run(
    mut open: watch::Receiver<bool>,
    mut halted: watch::Receiver<bool>,
    mut batches: mpsc::Receiver<TxnBatch>,
    onward: mpsc::Sender<TxnBatch>,
) {
    let mut held = Held::default();
    loop {
        tokio::select! {
            biased;
            opened = open.wait_for(|open| *open) => match opened {
                Ok(_) => break,
                Err(_) => return,
            },
            _ = halted.wait_for(|halted| *halted) => return,
            batch = batches.recv(), if held.bytes < MOST_BYTES => match batch {
                Some(batch) => held.push(batch),
                None => return,
            },
        }
    }
    for batch in held.batches {
        if onward.send(batch).await.is_err() {
            return;
        }
    }
    while let Some(batch) = batches.recv().await {
        if onward.send(batch).await.is_err() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    batches: VecDeque<TxnBatch>,
    bytes: usize,
}

impl Held {
    /// Of positions without changes only the last one counts.
    fn push(&mut self, batch: TxnBatch) {
        if batch.is_empty()
            && let Some(last) = self.batches.back_mut().filter(|last| last.is_empty())
        {
            *last = batch;
            return;
        }
        self.bytes += batch.bytes + batch.changes.len() * CHANGE_BYTES;
        self.batches.push_back(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, PgTimestamp, TxnId, TxnSpan};

    fn position(lsn: u64) -> TxnBatch {
        TxnBatch { caught_up_to: Lsn(lsn), ..TxnBatch::default() }
    }

    fn rows(lsn: u64, bytes: usize) -> TxnBatch {
        let txn = TxnId { xid: 1, commit_lsn: Lsn(lsn), commit_time: PgTimestamp(0) };
        let span = TxnSpan { txn, changes: 0..0, end_lsn: Some(Lsn(lsn)) };
        TxnBatch { txns: vec![span], bytes, ..position(lsn) }
    }

    struct Ends {
        open: watch::Sender<bool>,
        halt: watch::Sender<bool>,
        input: mpsc::Sender<TxnBatch>,
        output: mpsc::Receiver<TxnBatch>,
    }

    fn gate() -> Ends {
        let (open, opened) = watch::channel(false);
        let (halt, halted) = watch::channel(false);
        let (input, batches) = mpsc::channel(1);
        let (onward, output) = mpsc::channel(1);
        tokio::spawn(run(opened, halted, batches, onward));
        Ends { open, halt, input, output }
    }

    #[tokio::test]
    async fn nothing_passes_until_it_is_open_and_then_everything_in_order() {
        let mut ends = gate();
        for batch in [position(1), position(2), rows(3, 10), position(4), position(5)] {
            ends.input.send(batch).await.unwrap();
        }
        // Taken in by now, for the channel has room for one.
        ends.input.send(rows(6, 10)).await.unwrap();
        assert!(ends.output.try_recv().is_err());
        ends.open.send_replace(true);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(ends.output.recv().await.unwrap().caught_up_to.0);
        }
        assert_eq!(seen, [2, 3, 5, 6]);
        ends.input.send(position(7)).await.unwrap();
        assert_eq!(ends.output.recv().await.unwrap().caught_up_to, Lsn(7));
    }

    #[tokio::test]
    async fn what_is_held_has_a_limit() {
        let mut ends = gate();
        ends.input.send(rows(1, MOST_BYTES)).await.unwrap();
        ends.input.send(rows(2, 1)).await.unwrap();
        // The second one waits in the channel: there is no room for a third.
        tokio::task::yield_now().await;
        assert!(ends.input.try_send(rows(3, 1)).is_err());
        ends.open.send_replace(true);
        assert_eq!(ends.output.recv().await.unwrap().caught_up_to, Lsn(1));
        assert_eq!(ends.output.recv().await.unwrap().caught_up_to, Lsn(2));
    }

    #[tokio::test]
    async fn a_halt_drops_what_is_held() {
        let mut ends = gate();
        ends.input.send(rows(1, 1)).await.unwrap();
        ends.halt.send_replace(true);
        assert_eq!(ends.output.recv().await, None);
        drop(ends.open);
    }
}
