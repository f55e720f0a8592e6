//! One stream from start to stop: prepare, then reader, planner, applier, flusher and monitor side by side, and again
//! after a passing failure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::checkpoint::CheckpointWriter;
use crate::apply::group::GroupLimits;
use crate::apply::progress::Progress;
use crate::apply::skip;
use crate::apply::target_session::TargetSession;
use crate::apply::writers;
use crate::apply::{Applier, ApplyOptions, ApplyReport};
use crate::capture::slot::{plugin_options, stopped};
use crate::capture::{SlotReader, Written};
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::first_rows;
use crate::flow::monitor::{Monitor, Watched, tell_unmatched};
use crate::flow::options::StreamOptions;
use crate::flow::pipeline::{self, Pipeline};
use crate::flow::prepare::{Preparation, Ready};
use crate::flow::status::Board;
use crate::flow::view::StreamState;
use crate::model::{Events, Lsn, RetryAdvice};
use crate::pg::replication::ReplicationClient;
use crate::pg::{self, Session};

/// Where a stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It does not.
    Stopped,
    /// Once everything that had committed before the command began is durable and confirmed.
    CaughtUp,
    /// Likewise for this position.
    Position(Lsn),
}

/// Failures without any progress in between for so long end the stream.
const GIVE_UP_AFTER: Duration = Duration::from_secs(900);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs a stream until `stop` turns true, the position is reached, or a failure that does not pass.
pub async fn run(
    options: &StreamOptions,
    until: Until,
    events: &Events,
    board: &Board,
    mut stop: watch::Receiver<bool>,
) -> Result<(), FlowError> {
    let mut target_position = match until {
        Until::Position(lsn) => Some(lsn),
        Until::Stopped | Until::CaughtUp => None,
    };
    let mut pause = FIRST_PAUSE;
    let mut failing_since: Option<Instant> = None;
    let mut owned = None;
    let mut applied_before = board.view().applied_lsn;
    loop {
        let error =
            match run_once(options, until, &mut target_position, &mut owned, events, board, stop.clone())
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        if *stop.borrow() {
            return Ok(());
        }
        let applied = board.view().applied_lsn;
        if applied > applied_before {
            (pause, failing_since, applied_before) = (FIRST_PAUSE, None, applied);
        }
        let since = *failing_since.get_or_insert_with(Instant::now);
        if error.advice() == RetryAdvice::Stop || since.elapsed() > GIVE_UP_AFTER {
            board.update(|v| {
                v.state = StreamState::Failed;
                v.error = Some(error.to_string());
            });
            return Err(error);
        }
        let wait = pause.mul_f64(rand::rng().random_range(0.5..1.5));
        events.warning(format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
        board.update(|v| v.error = Some(error.to_string()));
        if tokio::time::timeout(wait, stopped(&mut stop)).await.is_ok() {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

pub(crate) async fn connect_source(options: &StreamOptions) -> Result<Session, FlowError> {
    pg::connect(&options.source).await.map_err(FlowError::Source)
}

pub(crate) async fn connect_target(options: &StreamOptions) -> Result<Session, FlowError> {
    let session = pg::connect(&options.target).await.map_err(FlowError::Target)?;
    session.batch_execute("SET synchronous_commit = on").await.map_err(|e| FlowError::Target(e.into()))?;
    Ok(session)
}

async fn run_once(
    options: &StreamOptions,
    until: Until,
    target_position: &mut Option<Lsn>,
    owned: &mut Option<i64>,
    events: &Events,
    board: &Board,
    stop: watch::Receiver<bool>,
) -> Result<(), FlowError> {
    let source = connect_source(options).await?;
    let target = connect_target(options).await?;
    if until == Until::CaughtUp && target_position.is_none() {
        *target_position = Some(facts::source_end(&source).await?);
    }
    board.update(|v| v.state = StreamState::Copying);
    let mut stopping = stop.clone();
    let preparation =
        async { Preparation::new(options, &source, &target, events, board).await?.run(*owned).await };
    let (ready, replication) = tokio::select! {
        biased;
        () = stopped(&mut stopping) => return Ok(()),
        result = preparation => result?,
    };
    *owned = Some(ready.generation);
    Running { options, until: *target_position, events, board }
        .stream(ready, replication, source, target, stop)
        .await
}

struct Running<'a> {
    options: &'a StreamOptions,
    until: Option<Lsn>,
    events: &'a Events,
    board: &'a Board,
}

impl Running<'_> {
    async fn stream(
        &self,
        ready: Ready,
        replication: ReplicationClient,
        source: Session,
        target: Session,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), FlowError> {
        let routes = Arc::new(ready.routes);
        let progress = Progress::resume(ready.from, ready.confirmed);
        let skips = self.skips(&target).await?;
        let any_skips = !skips.is_empty();
        let (wanted_in, wanted) = watch::channel(Lsn::INVALID);
        let asked = ApplyOptions { until: self.until, wanted, skips, ..ApplyOptions::default() };
        let (applier, flusher, report) =
            self.applier(&routes, ready.replica_role, ready.generation, progress, asked).await?;
        let (written_in, written) =
            watch::channel(Written { durable: progress.durable(), applied: progress.applied() });
        let reader = self.reader(&source, replication, ready.from, &ready.publications, written).await?;
        let watched = Watched::new(reader.received(), routes.clone(), self.board);
        let monitor = Monitor {
            options: self.options,
            events: self.events,
            board: self.board,
            source: &source,
            target: &target,
            watched,
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
            let watching = monitor.run(report);
            let lost_lock = target.ended();
            let analyzing = async {
                first_rows::analyze_all(&self.options.target, &ready.fresh, self.events).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                done = pipeline.ended() => done,
                result = watching => result,
                error = lost_lock => Err(FlowError::Target(error)),
                () = stopped(&mut stop) => Ok(()),
                () = analyzing => Ok(()),
            }
        };
        match outcome {
            Ok(()) => pipeline.finish().await,
            Err(error) => Err(pipeline.cause(error)),
        }
    }

    /// Starts the replication stream at `from`.
    async fn reader(
        &self,
        source: &Session,
        replication: ReplicationClient,
        from: Lsn,
        publications: &[String],
        written: watch::Receiver<Written>,
    ) -> Result<SlotReader, FlowError> {
        let slot = self.options.slot();
        let plugin = plugin_options(publications, false);
        let reader = pipeline::open_reader(source, replication, &slot, from, &plugin, written).await?;
        self.events.info(format!("streaming from slot \"{slot}\" at {from}"));
        self.board.update(|v| {
            v.state = StreamState::CatchingUp;
            v.error = None;
            v.applied_lsn = v.applied_lsn.max(from);
        });
        Ok(reader)
    }

    /// The transactions to leave out; a request that came too late is told and removed.
    async fn skips(&self, target: &Session) -> Result<HashSet<Lsn>, FlowError> {
        let key = &self.options.key;
        tell_unmatched(target, key, self.events).await?;
        Ok(skip::read_skips(target, key).await?.into_iter().collect())
    }

    async fn applier(
        &self,
        routes: &Arc<crate::apply::route::RouteTable>,
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
