//! One process at a time works on a stream: the advisory lock in its target.

use crate::apply::checkpoint::{self, StreamKey};
use crate::apply::state_read;
use crate::flow::error::FlowError;
use crate::pg::Session;

/// Takes the stream's lock, or says who has it.
pub(crate) async fn hold_stream(target: &Session, key: &StreamKey) -> Result<(), FlowError> {
    if checkpoint::try_lock(target, key).await? {
        return Ok(());
    }
    Err(FlowError::Running {
        source_name: key.source.clone(),
        target_name: key.target.clone(),
        holder: state_read::lock_holder(target, key).await?,
    })
}
