//! Sessions that run statements of hours. The server goes on with one whose client has gone: whoever gives it up has to cancel it.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;

use crate::pg::{self, Canceller, ConnectOptions, PgError, Session};

/// Those of one step.
#[derive(Debug, Default)]
pub(crate) struct LongWork(Mutex<Vec<Canceller>>);

impl LongWork {
    /// A session without a limit to its statements.
    pub(crate) async fn session(&self, connect: &ConnectOptions) -> Result<Session, PgError> {
        let session = pg::connect(connect).await?;
        session.batch_execute("SET statement_timeout = 0").await?;
        if session.server_version() >= 140_000 {
            // Of a process that was killed nobody cancels anything. Some platforms cannot look, and refuse; the next process of ours
            // ends what it meets.
            let _not_everywhere = session.batch_execute("SET client_connection_check_interval = '2s'").await;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session.canceller());
        Ok(session)
    }

    /// Cancels what they run. One that cannot be reached is ended by the next process of ours that works on the table.
    pub(crate) async fn cancel(&self) {
        let cancellers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let _as_far_as_possible = join_all(cancellers.iter().map(Canceller::cancel)).await;
    }
}
