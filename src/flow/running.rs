//! One stream between two preparations: reader, planner, applier, flusher and monitor side by side.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};

use crate::apply::checkpoint::{self, CheckpointWriter, TableRecord, TableState};
use crate::apply::group::GroupLimits;
use crate::apply::progress::Progress;
use crate::apply::route::RouteTable;
use crate::apply::skip;
use crate::apply::target_session::TargetSession;
use crate::apply::writers;
use crate::apply::{Applier, ApplyOptions, ApplyReport};
use crate::capture::slot::stopped;
use crate::capture::trigger::SharedTick;
use crate::capture::{Reader, Written};
use crate::flow::control::{Control, Request};
use crate::flow::error::FlowError;
use crate::flow::first_rows::{self, CopyFailed};
use crate::flow::join::{self, Joining};
use crate::flow::monitor::{Monitor, Watched, tell_unmatched};
use crate::flow::options::StreamOptions;
use crate::flow::parking::{self, Parking, Retry};
use crate::flow::pipeline::{self, Pipeline};
use crate::flow::prepare::Ready;
use crate::flow::slot::Making;
use crate::flow::status::Board;
use crate::flow::view::StreamState;
use crate::flow::work::TableWork;
use crate::flow::{newcomers, plugin, queued, queues};
use crate::model::{Events, Lsn, RetryAdvice, TableName};
use crate::pg::Session;
use crate::pg::replication::ReplicationClient;

use crate::flow::stream::connect_target;

/// How a connection's time ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The stream has ended.
    Done,
    /// It begins again at once: tables are set aside, or come back.
    Again,
    /// A person has asked for something.
    Asked(Request),
}

/// A stream whose tables are prepared, until it ends or has to begin again.
pub(super) struct Running<'a> {
    pub(super) options: &'a StreamOptions,
    pub(super) until: Option<Lsn>,
    /// By triggers: a position of the WAL, which the source has not reached.
    pub(super) awaited: Option<Lsn>,
    pub(super) events: &'a Events,
    pub(super) board: &'a Board,
    pub(super) control: Control<'a>,
    pub(super) making: Making,
    /// Of the reader by triggers.
    pub(super) ticks: Option<mpsc::Sender<SharedTick>>,
    pub(super) retry: &'a mut Retry,
}

impl Running<'_> {
    /// Streams until the end that was asked for, a request, a failure, or a reason to begin again.
    pub(super) async fn stream(
        &mut self,
        mut ready: Ready,
        replication: Option<ReplicationClient>,
        source: Session,
        target: Session,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Ended, FlowError> {
        let routes = Arc::new(std::mem::take(&mut ready.routes));
        let progress = Progress::resume(ready.from, ready.confirmed);
        let skips = self.skips(&target).await?;
        let any_skips = !skips.is_empty();
        let (wanted_in, wanted) = watch::channel(Lsn::INVALID);
        let asked = ApplyOptions { until: self.until, wanted, skips, ..ApplyOptions::default() };
        let (applier, flusher, report) =
            self.applier(&routes, ready.replica_role, ready.generation, progress, asked).await?;
        let (written_in, written) =
            watch::channel(Written { durable: progress.durable(), applied: progress.applied() });
        let (reader, received) = self.reader(&source, replication, &mut ready, &routes, written).await?;
        let monitor = Monitor {
            options: self.options,
            events: self.events,
            board: self.board,
            source: &source,
            target: &target,
            watched: Watched::new(received, routes.clone(), self.board),
            shapes: ready.shapes,
            wanted: wanted_in,
            skips: any_skips,
            work: &ready.work,
            until: self.until,
        };
        let mut pipeline = Pipeline::start(
            reader,
            (applier, flusher),
            routes.clone(),
            GroupLimits::default(),
            report.clone(),
            written_in,
        );
        let outcome = {
            let watching = monitor.run(report.clone());
            let when = (*self.retry, self.options.park);
            let due = parking::until_due(&target, &self.options.key, &ready.work, when, self.board);
            let joining = self.join(&target, &ready.work, &ready.joining);
            let awaited = (&source, self.awaited);
            let waiting = (&ready.waiting, !ready.joining.is_empty());
            let queued = queued::begins_again(self.options, waiting, awaited, self.events);
            let newcomers = self.newcomers((&source, &target), &ready.work, &ready.joining, &ready.left_out);
            tokio::select! {
                biased;
                done = pipeline.ended() => done.map(|()| Ended::Done),
                result = watching => result.map(|()| Ended::Done),
                asked = self.control.asked() => asked.map(Ended::Asked),
                error = target.ended() => Err(FlowError::Target(error)),
                result = joining => result,
                result = queued => result.map(|()| Ended::Again),
                result = due => result.map(|()| Ended::Again).map_err(FlowError::State),
                result = newcomers => result.map(|()| Ended::Again),
                () = stopped(&mut stop) => Ok(Ended::Done),
                never = self.analyze(&ready.fresh) => match never {},
            }
        };
        self.making.cancel(self.events).await;
        if outcome.as_ref().is_ok_and(|ended| *ended == Ended::Again) && !ready.joining.is_empty() {
            self.retry.now();
        }
        let finished = match outcome {
            Ok(ended) => Ok((ended, pipeline.finish().await)),
            Err(error) => Err(pipeline.cause(error)),
        };
        if matches!(finished, Ok((_, Ok(())))) {
            self.clean_up(&source, ready.generation, report).await?;
        }
        self.conclude(finished, (&target, &ready.work, (&ready.left_out, &ready.gone)), *stop.borrow()).await
    }

    /// By triggers: what is durable leaves the queues.
    async fn clean_up(
        &self,
        source: &Session,
        generation: i64,
        applied: watch::Receiver<ApplyReport>,
    ) -> Result<(), FlowError> {
        if self.options.by_triggers() {
            let durable = applied.borrow().durable;
            queues::clean_up(self.options, source, generation, durable).await?;
        }
        Ok(())
    }

    /// What the end of the pipeline means: it is done, it begins again without a table, or it failed.
    async fn conclude(
        &mut self,
        finished: Result<(Ended, Result<(), FlowError>), FlowError>,
        (target, work, apart): (&Session, &[TableWork], (&Vec<TableName>, &Vec<TableName>)),
        told_to_stop: bool,
    ) -> Result<Ended, FlowError> {
        match finished {
            Ok((Ended::Done, Ok(()))) if !told_to_stop => self.finished(target, work, apart).await,
            Ok((ended, Ok(()))) => Ok(ended),
            Ok((_, Err(error))) | Err(error) => self.set_aside(target, work, error).await,
        }
    }

    /// Until there is a new table to take in. Not while others join: their copy would begin again, and at its end new ones are
    /// taken in anyway.
    async fn newcomers(
        &self,
        sessions: (&Session, &Session),
        work: &[TableWork],
        joining: &[Joining],
        left_out: &[TableName],
    ) -> Result<(), FlowError> {
        if !joining.is_empty() {
            std::future::pending::<()>().await;
        }
        newcomers::arrive(self.options, sessions, work, left_out, self.events).await
    }

    /// Copies the tables that join; then the stream begins again with them. A copy that cannot be is told, and the others
    /// go on.
    async fn join(
        &self,
        target: &Session,
        work: &[TableWork],
        joining: &[Joining],
    ) -> Result<Ended, FlowError> {
        if joining.is_empty() {
            std::future::pending::<()>().await;
        }
        let snapshots = (&self.making, self.ticks.as_ref());
        let copied = join::join(self.options, work, joining, snapshots, (self.events, self.board)).await;
        let Err(CopyFailed { table, error }) = copied else { return Ok(Ended::Again) };
        let key = &self.options.key;
        let mut begun = checkpoint::read_tables(target, key).await?;
        // The others are begun again.
        let failed = |r: &TableRecord| table.as_ref().is_none_or(|t| t.to_string() == r.target_table);
        begun.retain(|r| r.state == TableState::Copying && failed(r));
        let parking = Parking { target, key, work, events: self.events };
        let names = parking.names(&begun.iter().collect::<Vec<_>>());
        if error.advice() == RetryAdvice::Reconnect || names.is_empty() {
            return Err(error);
        }
        parking.give_up(&names, &parking::with_hint(&error, key)).await?;
        Ok(Ended::Again)
    }

    /// The table that `error` is about is set aside, and the stream begins again; else it is an error of the stream.
    async fn set_aside(
        &mut self,
        target: &Session,
        work: &[TableWork],
        error: FlowError,
    ) -> Result<Ended, FlowError> {
        let key = &self.options.key;
        let parking = Parking { target, key, work, events: self.events };
        if !parking::is_of_tables(&error, work) {
            return Err(error);
        }
        // The applier's session, which may not have ended yet, holds rows that are to be marked.
        writers::end_writers(target, key).await?;
        match parking.set_aside(&error).await? {
            true => {
                self.retry.parked();
                Ok(Ended::Again)
            }
            false => Err(error),
        }
    }

    /// The end was reached: tables that are not in step are told.
    async fn finished(
        &self,
        target: &Session,
        work: &[TableWork],
        (left_out, gone): (&Vec<TableName>, &Vec<TableName>),
    ) -> Result<Ended, FlowError> {
        let key = &self.options.key;
        let mut records = checkpoint::read_tables(target, key).await?;
        let wanted = work.iter().map(|w| &w.target).chain(left_out).chain(gone);
        let wanted: BTreeSet<String> = wanted.map(ToString::to_string).collect();
        records.retain(|r| wanted.contains(&r.target_table));
        let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
        let lines = parking::unfinished(&records, &gone, key);
        if lines.is_empty() { Ok(Ended::Done) } else { Err(FlowError::Unfinished(lines)) }
    }

    /// Statistics of the tables that were just copied, beside the stream. The stream does not end with it.
    async fn analyze(&self, fresh: &[TableName]) -> std::convert::Infallible {
        first_rows::analyze_all(&self.options.target, fresh, self.events).await;
        std::future::pending().await
    }

    /// Starts to read at the position; with what shows how far it has come.
    async fn reader(
        &mut self,
        source: &Session,
        replication: Option<ReplicationClient>,
        ready: &mut Ready,
        routes: &RouteTable,
        written: watch::Receiver<Written>,
    ) -> Result<(Reader, Arc<AtomicU64>), FlowError> {
        let (slot, from) = (self.options.slot(), ready.from);
        let (reader, received, what) = match replication {
            Some(replication) => {
                let work = ready.work.as_slice();
                let reading =
                    plugin::reading(self.options, source, work, routes, &ready.publications).await?;
                let open = (replication, &self.options.source);
                let limits = GroupLimits::default();
                let reader =
                    pipeline::open_reader(source, open, &slot, from, &reading, limits, written).await?;
                let received = reader.received();
                (Reader::from(reader), received, "slot")
            }
            None => {
                let consumer = queues::consumer(source, self.options, ready.generation).await?;
                let tables = std::mem::take(&mut ready.tables);
                let (reader, ticks) =
                    queues::open_reader(self.options, tables, consumer, from, written).await?;
                self.ticks = Some(ticks);
                (reader.into(), Arc::new(AtomicU64::new(from.0)), "triggers as")
            }
        };
        self.events.info(format!("streaming from {what} \"{slot}\" at {from}"));
        self.board.update(|v| {
            v.state = StreamState::CatchingUp;
            v.error = None;
            v.applied_lsn = v.applied_lsn.max(from);
        });
        Ok((reader, received))
    }

    /// The transactions to leave out; a request that came too late is told and removed.
    async fn skips(&self, target: &Session) -> Result<HashSet<Lsn>, FlowError> {
        let key = &self.options.key;
        tell_unmatched(target, key, self.events).await?;
        Ok(skip::read_skips(target, key).await?.into_iter().collect())
    }

    async fn applier(
        &self,
        routes: &Arc<RouteTable>,
        replica_role: bool,
        generation: i64,
        progress: Progress,
        options: ApplyOptions,
    ) -> Result<(Applier, crate::apply::Flusher, watch::Receiver<ApplyReport>), FlowError> {
        let key = &self.options.key;
        let session = connect_target(self.options).await?;
        writers::mark_writer(&session, key).await.map_err(FlowError::Target)?;
        let session =
            TargetSession::new(session, routes.clone(), replica_role).await.map_err(FlowError::Target)?;
        let writer = CheckpointWriter::new(session.session(), key.clone(), generation)
            .await
            .map_err(FlowError::Target)?;
        let flush_session = connect_target(self.options).await?;
        Ok(Applier::new(session, flush_session, writer, progress, options))
    }
}
