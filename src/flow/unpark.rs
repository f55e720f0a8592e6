//! Parked changes are applied: read back in their order, through the same planner and applier as the stream's own.
//!
//! A group of changes and the rows they were kept in go in one transaction, so a crash at any point repeats nothing.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::apply::checkpoint::CheckpointWriter;
use crate::apply::group::GroupLimits;
use crate::apply::parked::{Unparked, Unparker};
use crate::apply::parked_store::{self, Parked};
use crate::apply::plan::{PlanError, PlanOptions};
use crate::apply::progress::Progress;
use crate::apply::route::{Route, RouteTable};
use crate::apply::target_session::TargetSession;
use crate::apply::{Applier, ApplyError, ApplyOptions, skip, writers};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::planner;
use crate::flow::stream::connect_target;
use crate::model::{Change, Lsn, TableName, TxnBatch, TxnSpan};
use crate::pg::Session;

/// Applies what waits for the targets of `routes`, which then stream again. An error leaves the rest waiting.
pub(crate) async fn unpark(
    options: &StreamOptions,
    target: &Session,
    generation: i64,
    replica_role: bool,
    mut routes: Vec<Route>,
) -> Result<(), FlowError> {
    let targets: Vec<TableName> = routes.iter().map(|r| r.target.clone()).collect();
    let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let sources: HashMap<String, (TableName, TableName)> =
        routes.iter().map(|r| (r.target.to_string(), (r.target.clone(), r.source.clone()))).collect();
    for route in &mut routes {
        // A parked change bears the name of its target: several may wait for one source.
        route.published = vec![route.target.clone()];
    }
    let routes = Arc::new(RouteTable::new(routes));
    let key = &options.key;
    let session = connect_target(options).await?;
    writers::mark_writer(&session, key).await.map_err(FlowError::Target)?;
    let session =
        TargetSession::new(session, routes.clone(), replica_role).await.map_err(FlowError::Target)?;
    let writer = CheckpointWriter::for_parked(session.session(), key.clone(), generation, &names)
        .await
        .map_err(FlowError::Target)?;
    let skips = skip::read_skips(target, key).await?.into_iter().collect();
    let asked = ApplyOptions { skips, ..ApplyOptions::default() };
    // Nothing is confirmed from here: the release below is a commit that waits for the disk and covers all before it.
    let begin = Progress::resume(Lsn::INVALID, Lsn::INVALID);
    let (applier, _flusher, _report) =
        Applier::new(session, connect_target(options).await?, writer, begin, asked);
    let (batches_in, batches) = mpsc::channel(2);
    let (groups_in, groups) = mpsc::channel(1);
    let reading = connect_target(options).await?;
    let feeder = async {
        let rows = parked_store::read(&reading, key, &names).await?;
        let mut rows = std::pin::pin!(rows);
        let mut feed = Feed {
            sources: &sources,
            unparker: Unparker::default(),
            batch: TxnBatch::default(),
            last: 0,
            out: batches_in,
        };
        while let Some(row) = rows.next().await {
            if !feed.take(row?).await? {
                // The applier has failed; its error tells why.
                return Ok(());
            }
        }
        feed.end().await
    };
    let planning = planner::run(routes, GroupLimits::default(), PlanOptions::default(), batches, groups_in);
    let (fed, (), applied) = tokio::join!(feeder, planning, applier.run(groups));
    // What stopped the applier closed the channels: its error is the cause.
    applied?;
    fed?;
    Ok(parked_store::release(target, key, &targets).await?)
}

/// Rows in, batches of transactions out.
struct Feed<'a> {
    sources: &'a HashMap<String, (TableName, TableName)>,
    unparker: Unparker,
    batch: TxnBatch,
    /// Number of the last row taken.
    last: i64,
    out: mpsc::Sender<TxnBatch>,
}

impl Feed<'_> {
    const CHANGES: usize = 2_500;
    const BYTES: usize = 1 << 20;

    /// `false`: nobody takes batches any more.
    async fn take(&mut self, parked: Parked) -> Result<bool, FlowError> {
        let Parked { seq, txn, row } = parked;
        let Some((name, source)) = self.sources.get(&row.target_table) else { return Ok(true) };
        let change = match self.unparker.take(name, &row).map_err(|e| FlowError::Internal(e.to_string()))? {
            Unparked::Described => return Ok(true),
            Unparked::Change(change) => change,
            Unparked::LeafTruncated => {
                return Err(ApplyError::from(PlanError::LeafTruncated(source.clone())).into());
            }
        };
        if self.batch.txns.last().is_some_and(|span| span.txn != txn) {
            self.close();
        }
        // A transaction that has not ended goes on in the next batch.
        if self.is_full() && !self.send().await {
            return Ok(false);
        }
        let at = self.batch.changes.len();
        match self.batch.txns.last_mut() {
            Some(span) if span.txn == txn && span.end_lsn.is_none() => span.changes.end = at + 1,
            _ => self.batch.txns.push(TxnSpan { txn, changes: at..at + 1, end_lsn: None }),
        }
        self.batch.bytes += change.data_len();
        self.push(change, at);
        self.last = seq;
        Ok(true)
    }

    /// One TRUNCATE of several tables was kept once for each of them: it is one again, since tables that refer to each
    /// other can only be truncated together.
    fn push(&mut self, change: Change, at: usize) {
        let begins = self.batch.txns.last().is_some_and(|span| span.changes.start == at);
        if let (
            false,
            Change::Truncate { relations: more, restart_identity: also, .. },
            Some(Change::Truncate { relations, restart_identity, .. }),
        ) = (begins, &change, self.batch.changes.last_mut())
            && restart_identity == also
            && more.iter().all(|m| relations.iter().all(|r| r.name != m.name))
        {
            relations.extend(more.iter().cloned());
            if let Some(span) = self.batch.txns.last_mut() {
                span.changes.end = at;
            }
            return;
        }
        self.batch.changes.push(change);
    }

    fn is_full(&self) -> bool {
        self.batch.changes.len() >= Self::CHANGES || self.batch.bytes >= Self::BYTES
    }

    /// The last transaction has ended; its position is the number of its last row.
    fn close(&mut self) {
        let end = Lsn(u64::try_from(self.last).unwrap_or(0));
        if let Some(span) = self.batch.txns.last_mut() {
            span.end_lsn = Some(end);
        }
    }

    async fn send(&mut self) -> bool {
        self.out.send(std::mem::take(&mut self.batch)).await.is_ok()
    }

    async fn end(mut self) -> Result<(), FlowError> {
        self.close();
        if !self.batch.txns.is_empty() {
            // A closed channel: the applier's error tells why.
            let _taken = self.send().await;
        }
        Ok(())
    }
}
