//! One stream from start to stop: prepare, then reader, planner, applier, flusher and monitor side by side, and again
//! after a passing failure.

use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::ApplyError;
use crate::capture::slot::stopped;
use crate::flow::control::{self, Control, Request};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::parking::{self, Retry};
use crate::flow::patience::Patience;
use crate::flow::prepare::Preparation;
use crate::flow::running::{Ended, Running};
use crate::flow::slot::Making;
use crate::flow::status::Board;
use crate::flow::view::StreamState;
use crate::flow::{facts, plugin, queues};
use crate::model::{Events, Lsn};
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
    let mut patience = Patience::new(&board.view());
    let (mut owned, mut counted) = (None, false);
    let mut retry = Retry::new(options.park.pause);
    loop {
        let mut life = Life {
            position: &mut target_position,
            owned: &mut owned,
            retry: &mut retry,
            counted: &mut counted,
        };
        let once = Box::pin(run_once(options, until, &mut life, events, board, stop.clone()));
        let error = match once.await {
            Ok(Ended::Done) if *stop.borrow() => return ended_early(until),
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Again) => {
                patience.renew();
                continue;
            }
            Ok(Ended::Asked(Request::Stop)) => return told_to_stop(until, events),
            Ok(Ended::Asked(Request::Pause)) => {
                match control::rest(options, owned, events, board, stop.clone()).await {
                    Ok(true) => {
                        patience.renew();
                        continue;
                    }
                    Ok(false) => return told_to_stop(until, events),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if *stop.borrow() {
            return ended_early(until);
        }
        let Some(pause) = patience.after(&error, &board.view(), owned.is_some(), Instant::now()) else {
            board.update(|v| {
                v.state = StreamState::Failed;
                v.error = Some(error.to_string());
                v.held &= !matches!(error, FlowError::Apply(ApplyError::Fenced));
            });
            return Err(error);
        };
        let wait = pause.mul_f64(rand::rng().random_range(0.5..1.5));
        // A person may be needed: what can be done is told at once.
        let told = parking::with_hint(&error, &options.key);
        events.warning(format!("{told}; trying again in {:.1} s", wait.as_secs_f64()));
        board.update(|v| v.error = Some(error.to_string()));
        if tokio::time::timeout(wait, stopped(&mut stop)).await.is_ok() {
            return ended_early(until);
        }
    }
}

/// The stream of another target of this process goes on.
fn told_to_stop(until: Until, events: &Events) -> Result<(), FlowError> {
    events.info("stopped; start it again to go on");
    ended_early(until)
}

/// A stream that runs until it is stopped has done what was asked; one that was to reach something has not, and who waits for that must
/// not go on as if.
fn ended_early(until: Until) -> Result<(), FlowError> {
    if until == Until::Stopped { Ok(()) } else { Err(FlowError::NotReached) }
}

pub(crate) async fn connect_source(options: &StreamOptions) -> Result<Session, FlowError> {
    pg::connect(&options.source).await.map_err(FlowError::Source)
}

pub(crate) async fn connect_target(options: &StreamOptions) -> Result<Session, FlowError> {
    let session = pg::connect(&options.target).await.map_err(FlowError::Target)?;
    session.batch_execute("SET synchronous_commit = on").await.map_err(|e| FlowError::Target(e.into()))?;
    Ok(session)
}

/// What outlives a connection.
struct Life<'a> {
    position: &'a mut Option<Lsn>,
    owned: &'a mut Option<i64>,
    retry: &'a mut Retry,
    /// The position is the number of a tick.
    counted: &'a mut bool,
}

async fn run_once(
    options: &StreamOptions,
    until: Until,
    life: &mut Life<'_>,
    events: &Events,
    board: &Board,
    stop: watch::Receiver<bool>,
) -> Result<Ended, FlowError> {
    let source = connect_source(options).await?;
    let target = connect_target(options).await?;
    if until == Until::CaughtUp && life.position.is_none() {
        *life.position = Some(facts::source_end(&source).await?);
    }
    board.update(|v| v.state = StreamState::Copying);
    let options = &options.in_way(plugin::choose(options, &source, events).await?);
    let mut stopping = stop.clone();
    let (owned, try_parked) = (*life.owned, life.retry.is_due());
    let making = Making::default();
    let preparation = async {
        let new = Preparation::new(options, &source, &target, &making, (events, board));
        new.await?.run(owned, try_parked).await
    };
    let control = Control::connect(options).await?;
    let prepared = tokio::select! {
        biased;
        () = stopped(&mut stopping) => Err(Ok(Ended::Done)),
        result = preparation => result.map_err(Err),
        asked = control.asked_to_stop(board) => Err(asked.map(|()| Ended::Asked(Request::Stop))),
    };
    making.cancel(events).await;
    let (ready, replication) = match prepared {
        Ok(prepared) => prepared,
        Err(ended) => return ended,
    };
    *life.owned = Some(ready.generation);
    if try_parked {
        life.retry.tried();
    }
    let mut awaited = None;
    if options.by_triggers() && until != Until::Stopped && !*life.counted {
        awaited = match until {
            Until::Position(lsn) if facts::written_end(&source).await? < lsn => Some(lsn),
            _ => None,
        };
        // The reader's first own snapshot, which is taken after this command began, and after the position was written.
        *life.position = Some(queues::next_tick(&source, options).await?);
        *life.counted = awaited.is_none();
    }
    // A table that joins belongs to what is to be caught up with.
    let joins = !ready.joining.is_empty() || !ready.waiting.0.is_empty();
    let until = life.position.filter(|_| !joins && awaited.is_none());
    let retry = &mut *life.retry;
    let mut running = Running { options, until, awaited, events, board, control, making, ticks: None, retry };
    Box::pin(running.stream(ready, replication, source, target, stop)).await
}
