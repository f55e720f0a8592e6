//! The loop that makes commits durable: a commit that waits for the disk, now and then, on a session of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::apply::applier::Shared;
use crate::apply::checkpoint;
use crate::apply::error::ApplyError;
use crate::pg::{PgError, Session};

/// The loop that makes commits durable; runs beside [`Applier::run`], on a session of its own.
#[derive(Debug)]
pub struct Flusher {
    pub(super) session: Session,
    pub(super) key: checkpoint::StreamKey,
    pub(super) every: Duration,
    pub(super) limit: Duration,
    pub(super) shared: Arc<Shared>,
}

impl Flusher {
    /// Runs until the applier is gone (its report has no reader is not enough: `stop` tells).
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), ApplyError> {
        loop {
            let stopping = tokio::select! {
                () = async { let _ = stop.wait_for(|s| *s).await.map(|_| ()); } => true,
                () = tokio::time::sleep(self.every) => false,
                () = self.shared.hurry() => false,
            };
            let flush = self.shared.progress().start_flush();
            if let Some(flush) = flush {
                let work = checkpoint::flush(self.session.client(), &self.key);
                match tokio::time::timeout(self.limit, work).await {
                    Ok(result) => result?,
                    Err(_) => {
                        let during = "waiting for the target to make a commit durable (a synchronous standby that is away?)";
                        return Err(PgError::Timeout { during: during.into(), limit: self.limit }.into());
                    }
                }
                self.shared.progress().finish_flush(flush);
                self.shared.publish(|_| {});
            }
            if stopping {
                return Ok(());
            }
        }
    }
}
