//! `pause`, `resume` and `stop`: what a person asks of a running stream, and what it makes of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::apply::checkpoint;
use crate::apply::requests::{read_request, write_request};
use crate::apply::state_read;
use crate::capture::slot::stopped;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::hold::hold_stream_again;
use crate::flow::options::StreamOptions;
use crate::flow::status::Board;
use crate::flow::stream::{connect_source, connect_target};
use crate::flow::view::StreamState;
use crate::model::Events;
use crate::pg::Session;

pub use crate::apply::requests::Request;

/// How often it is looked whether somebody asks for something.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks the process that runs the stream for something, or to go on (`None`). False: no process runs it, or it has not come far
/// enough to be asked.
pub async fn ask(options: &StreamOptions, request: Option<Request>) -> Result<bool, FlowError> {
    let (target, key) = (connect_target(options).await?, &options.key);
    if checkpoint::schema_version(&target).await?.is_none() {
        return Ok(false);
    }
    checkpoint::ensure_schema(&target).await?;
    // Without a process the request would meet the next one.
    let runs = state_read::lock_holder(&target, key).await?.is_some();
    let asked = runs && write_request(&target, key, request).await?;
    target.close().await.map_err(FlowError::Target)?;
    Ok(asked)
}

/// Looks beside a running stream whether something is asked of it.
#[derive(Debug)]
pub(crate) struct Control<'a> {
    session: Session,
    options: &'a StreamOptions,
}

impl<'a> Control<'a> {
    pub(crate) async fn connect(options: &'a StreamOptions) -> Result<Control<'a>, FlowError> {
        Ok(Control { session: connect_target(options).await?, options })
    }

    /// Returns once something is asked.
    pub(crate) async fn asked(&self) -> Result<Request, FlowError> {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(request) = read_request(&self.session, &self.options.key).await? {
                return Ok(request);
            }
        }
    }

    /// Returns once it is asked to stop. A pause waits until the first rows are copied: cut off, the copy would begin anew.
    /// Nothing is meant for a process that has not got the stream: it is asked of another one, or was.
    pub(crate) async fn asked_to_stop(&self, board: &Board) -> Result<(), FlowError> {
        loop {
            sleep(LOOK_EVERY).await;
            if !board.view().held {
                continue;
            }
            // The state is made, or brought up to date, meanwhile.
            let ready = checkpoint::is_current(&self.session).await?;
            if ready && read_request(&self.session, &self.options.key).await? == Some(Request::Stop) {
                return Ok(());
            }
        }
    }
}

/// The stream rests, and keeps others from it, until a person lets it go on (true), or it is to end (false).
pub(crate) async fn rest(
    options: &StreamOptions,
    generation: Option<i64>,
    events: &Events,
    board: &Board,
    mut stop: watch::Receiver<bool>,
) -> Result<bool, FlowError> {
    let (source, target) = (connect_source(options).await?, connect_target(options).await?);
    hold_stream_again(&target, &options.key, generation).await?;
    events.info("paused by `repcloud pause`; the slot keeps WAL until `repcloud resume`");
    board.update(|v| (v.state, v.error, v.lag_seconds) = (StreamState::Paused, None, 0.0));
    let mut alarmed = false;
    loop {
        if let Some(slot) = facts::read_place(&source, options).await? {
            board.update(|v| {
                v.retained_wal_bytes = slot.retained;
                v.lag_bytes = slot.source_end.bytes_since(v.applied_lsn);
                v.slot_status.clone_from(&slot.wal_status);
            });
            let over = options.max_retained_wal.is_some_and(|limit| slot.retained > limit);
            if over && !alarmed {
                let kept = slot.retained >> 20;
                events.warning(format!(
                    "paused, and the source keeps {kept} MB of WAL, more than max_retained_wal"
                ));
            }
            alarmed = over;
        }
        match read_request(&target, &options.key).await? {
            None => return Ok(true),
            Some(Request::Stop) => return Ok(false),
            Some(Request::Pause) => {}
        }
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(false),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Forgets what was asked of an earlier process; by the holder of the stream.
pub(crate) async fn forget(target: &Session, options: &StreamOptions) -> Result<(), FlowError> {
    write_request(target, &options.key, None).await?;
    Ok(())
}
