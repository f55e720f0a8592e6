//! Reader, planner, applier and flusher side by side: what a stream and the catch-up of a repack share. The latter may have several
//! planners and appliers (`lanes`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::apply::group::GroupLimits;
use crate::apply::route::RouteTable;
use crate::apply::{Applier, ApplyReport, Flusher};
use crate::capture::{CaptureError, Reader, Reading, SlotOptions, SlotReader, Written};
use crate::flow::error::FlowError;
use crate::flow::gate;
use crate::flow::lanes::Lanes;
use crate::model::{Lsn, TxnBatch};
use crate::pg::replication::ReplicationClient;
use crate::pg::{ConnectOptions, Session};

/// How long the tasks may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The tasks that carry changes from a slot or a queue into a target, until the first of them ends.
#[derive(Debug)]
pub struct Pipeline {
    tasks: JoinSet<Result<(), FlowError>>,
    halt: watch::Sender<bool>,
    /// The first error of the tasks whose end was seen: whoever waits for more of them may be dropped meanwhile.
    error: Option<FlowError>,
}

impl Pipeline {
    /// Starts the tasks. `report` is the applier's, `written` the reader's other end.
    pub fn start(
        reader: impl Into<Reader>,
        (applier, flusher): (Applier, Flusher),
        routes: Arc<RouteTable>,
        limits: GroupLimits,
        report: watch::Receiver<ApplyReport>,
        written: watch::Sender<Written>,
    ) -> Self {
        let lanes = Lanes::new(vec![(applier, report)], flusher);
        Self::start_behind(None, reader, lanes, routes, limits, written)
    }

    /// As [`Self::start`], but with `gate` nothing is applied before it says `true`; and there may be several lanes.
    pub fn start_behind(
        gate: Option<watch::Receiver<bool>>,
        reader: impl Into<Reader>,
        lanes: Lanes,
        routes: Arc<RouteTable>,
        limits: GroupLimits,
        written: watch::Sender<Written>,
    ) -> Self {
        let (batches_in, mut batches) = mpsc::channel::<TxnBatch>(4);
        let (halt, halted) = watch::channel(false);
        let mut tasks: JoinSet<Result<(), FlowError>> = JoinSet::new();
        if let Some(open) = gate {
            let (onward, behind) = mpsc::channel(1);
            let holding = gate::run(open, halted.clone(), std::mem::replace(&mut batches, behind), onward);
            tasks.spawn(async move {
                holding.await;
                Ok(())
            });
        }
        let report = lanes.report();
        let flusher = lanes.start(batches, &routes, limits, &mut tasks);
        let reading = reader.into().run(batches_in, halted.clone());
        tasks.spawn(async move { Ok(reading.await?) });
        tasks.spawn(async move { Ok(flusher.run(halted).await?) });
        tasks.spawn(async move {
            relay(report, written).await;
            Ok(())
        });
        Pipeline { tasks, halt, error: None }
    }

    /// Waits until one of the tasks has ended: with an error, or because another one has, whose error [`Self::finish`],
    /// [`Self::reason`] or [`Self::cause`] then finds. May be dropped and called again.
    pub async fn ended(&mut self) -> Result<(), FlowError> {
        if self.error.is_none()
            && let Some(done) = self.tasks.join_next().await
        {
            self.note(done);
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// The error behind an end that [`Self::ended`] saw no error of: that of another task. Nothing runs any more afterwards. May
    /// be dropped and called again.
    pub async fn reason(&mut self) -> Result<(), FlowError> {
        self.halt.send_replace(true);
        // Those that do not end in time are aborted with the set: what they did not commit comes again.
        let _ended = timeout(END_LIMIT, self.drain()).await.is_ok();
        self.error.take().map_or(Ok(()), Err)
    }

    /// Ends the tasks in order: the reader confirms and ends the stream, its channel closes, the applier writes the
    /// rest. A task that ended early without an error ended because of another one's: that error comes to light here.
    pub async fn finish(mut self) -> Result<(), FlowError> {
        self.reason().await
    }

    async fn drain(&mut self) {
        while let Some(done) = self.tasks.join_next().await {
            self.note(done);
        }
    }

    fn note(&mut self, done: Result<Result<(), FlowError>, JoinError>) {
        if let Err(error) = joined(done) {
            self.error.get_or_insert(error);
        }
    }

    /// The first task to end may only have seen another one's failure from its side: an applier's or planner's error
    /// that is there by now says more than a closed connection.
    pub fn cause(mut self, error: FlowError) -> FlowError {
        if matches!(error, FlowError::Apply(_)) {
            return error;
        }
        let mut seen = self.error.take();
        loop {
            if let Some(FlowError::Apply(other)) = seen {
                return FlowError::Apply(other);
            }
            let Some(done) = self.tasks.try_join_next() else { return error };
            seen = joined(done).err();
        }
    }
}

/// Changes the reader hands on at once, at most.
pub(crate) const BATCH_CHANGES: usize = 2_500;

/// Starts reading `slot` at `from`, as `reading` says, in batches that a group of `limits` can hold. `source` is asked how long the
/// server waits for a sign of life.
pub async fn open_reader(
    source: &Session,
    (replication, connect): (ReplicationClient, &ConnectOptions),
    slot: &str,
    from: Lsn,
    reading: &Reading,
    limits: GroupLimits,
    written: watch::Receiver<Written>,
) -> Result<SlotReader, FlowError> {
    let status_every = status_interval(source).await?;
    let stream = reading.start(replication, connect, slot, from).await.map_err(|error| match error {
        CaptureError::Source(error) => FlowError::Source(error),
        error => FlowError::Capture(error),
    })?;
    let options = SlotOptions {
        from,
        batch_changes: limits.changes.min(BATCH_CHANGES),
        batch_bytes: 1 << 20,
        status_every,
        silence_limit: status_every * 12,
    };
    Ok(SlotReader::new(stream, reading, options, written))
}

/// A quarter of the server's patience, ten seconds at most.
async fn status_interval(source: &Session) -> Result<Duration, FlowError> {
    let sql = "SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout'";
    let row = source.query_one(sql, &[]).await.map_err(|e| FlowError::Source(e.into()))?;
    let millis: i64 = row.try_get(0).map_err(|e| FlowError::Source(e.into()))?;
    let longest = Duration::from_secs(10);
    Ok(match u64::try_from(millis) {
        Ok(millis @ 1..) => (Duration::from_millis(millis) / 4).min(longest),
        _ => longest,
    })
}

/// Tells the reader what may be confirmed. Ends when the applier is gone.
async fn relay(mut report: watch::Receiver<ApplyReport>, written: watch::Sender<Written>) {
    while report.changed().await.is_ok() {
        let ApplyReport { durable, applied, .. } = *report.borrow_and_update();
        written.send_replace(Written { durable, applied });
    }
}

fn joined(done: Result<Result<(), FlowError>, JoinError>) -> Result<(), FlowError> {
    done.unwrap_or_else(|error| Err(FlowError::Internal(format!("a task of the stream ended: {error}"))))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn whoever_is_dropped_while_it_waits_for_the_reason_loses_no_error() {
        let mut tasks: JoinSet<Result<(), FlowError>> = JoinSet::new();
        let (release, released) = oneshot::channel::<()>();
        tasks.spawn(async { Ok(()) });
        let mut pipeline = Pipeline { tasks, halt: watch::channel(false).0, error: None };
        pipeline.ended().await.unwrap();
        pipeline.tasks.spawn(async { Err(FlowError::Internal("why".to_owned())) });
        pipeline.tasks.spawn(async move {
            let _released = released.await;
            Ok(())
        });
        assert!(timeout(Duration::from_millis(50), pipeline.reason()).await.is_err());
        release.send(()).unwrap();
        assert_eq!(
            pipeline.reason().await.unwrap_err().to_string(),
            FlowError::Internal("why".to_owned()).to_string()
        );
    }
}
