//! One process at a time works on a stream: the advisory lock in its target.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::apply::ApplyError;
use crate::apply::checkpoint::{self, StreamKey};
use crate::apply::state_read;
use crate::apply::writers;
use crate::flow::error::FlowError;
use crate::pg::Session;

/// How long the server may take to notice that a process has ended.
const MOMENT: Duration = Duration::from_secs(2);

/// Takes the stream's lock, or says who has it. With the lock, nothing of an earlier holder writes any more. The session of a process
/// that has just ended is waited for a moment.
pub(crate) async fn hold_stream(target: &Session, key: &StreamKey) -> Result<(), FlowError> {
    let began = Instant::now();
    loop {
        match hold_stream_again(target, key, None).await {
            Err(FlowError::Running { .. }) if began.elapsed() < MOMENT => sleep(MOMENT / 40).await,
            result => return result,
        }
    }
}

/// The same for a process that streamed as generation `owned` before it lost a connection: it ends when another has taken
/// the stream over since.
pub(crate) async fn hold_stream_again(
    target: &Session,
    key: &StreamKey,
    owned: Option<i64>,
) -> Result<(), FlowError> {
    if checkpoint::try_lock(target, key).await? {
        writers::sign(target).await.map_err(FlowError::Target)?;
        return Ok(writers::end_writers(target, key).await?);
    }
    if let Some(owned) = owned {
        // Our own session that the server has not given up yet may hold the lock; a later generation is another's.
        let now = checkpoint::read(target, key).await?;
        if now.is_some_and(|now| now.generation > owned) {
            return Err(ApplyError::Fenced.into());
        }
    }
    Err(FlowError::Running {
        source_name: key.source.clone(),
        target_name: key.target.clone(),
        holder: state_read::lock_holder(target, key).await?,
    })
}
