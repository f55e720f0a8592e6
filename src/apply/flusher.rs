//! Makes commits durable: the loop beside the one that writes, on a session of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::apply::applier::ApplyReport;
use crate::apply::checkpoint;
use crate::apply::error::ApplyError;
use crate::apply::group::Closing;
use crate::apply::progress::Progress;
use crate::pg::{PgError, Session};

/// Progress shared by the writing loop and the flushing loop.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) progress: Mutex<Progress>,
    pub(super) report: watch::Sender<ApplyReport>,
    /// The end is reached: the flusher need not wait for its time.
    pub(super) hurry: Arc<Notify>,
}

impl Shared {
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut ApplyReport)) {
        let progress = *self.progress();
        self.report.send_modify(|report| {
            report.applied = progress.applied();
            report.passed = report.passed.max(report.applied);
            report.durable = progress.durable();
            change(report);
        });
    }

    /// Nothing is to be written up to `closing`, and what came before is committed.
    pub(super) fn pass(&self, closing: Option<Closing>) {
        let Some(Closing { position, .. }) = closing else { return };
        self.report.send_if_modified(|report| {
            let further = position > report.passed;
            report.passed = report.passed.max(position);
            further
        });
    }
}

/// The loop that makes commits durable; runs beside [`super::Applier::run`] of one or several appliers, on a session of its own.
#[derive(Debug)]
pub struct Flusher {
    pub(super) session: Session,
    pub(super) key: checkpoint::StreamKey,
    pub(super) every: Duration,
    pub(super) limit: Duration,
    pub(super) hurry: Arc<Notify>,
    /// An applier's each.
    pub(super) shared: Vec<Arc<Shared>>,
}

impl Flusher {
    /// Runs until the applier is gone (its report has no reader is not enough: `stop` tells).
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), ApplyError> {
        loop {
            let stopping = tokio::select! {
                () = async { let _ = stop.wait_for(|s| *s).await.map(|_| ()); } => true,
                () = tokio::time::sleep(self.every) => false,
                () = self.hurry.notified() => false,
            };
            let started = |shared: &Arc<Shared>| Some((shared.clone(), shared.progress().start_flush()?));
            let flushes: Vec<_> = self.shared.iter().filter_map(started).collect();
            if !flushes.is_empty() {
                let work = checkpoint::flush(self.session.client(), &self.key);
                match tokio::time::timeout(self.limit, work).await {
                    Ok(result) => result?,
                    Err(_) => {
                        let during = "waiting for the target to make a commit durable (a synchronous standby that is away?)";
                        return Err(PgError::Timeout { during: during.into(), limit: self.limit }.into());
                    }
                }
                for (shared, flush) in flushes {
                    shared.progress().finish_flush(flush);
                    shared.publish(|_| {});
                }
            }
            if stopping {
                return Ok(());
            }
        }
    }
}
