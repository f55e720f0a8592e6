//! Beside every long step: does a person ask for something, does the slot hold back too much? On a session of its own.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::capture::trigger::ddl;
use crate::model::{Oid, TableName};
use crate::pg::{Canceller, Session};
use crate::repack::error::RepackError;
use crate::repack::state;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the steps of one table share with whoever looks at them.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Rows copied so far.
    pub(crate) rows: AtomicI64,
    /// A person paused the copy.
    pub(crate) paused: AtomicBool,
    /// A person asked the whole run to end, not this table alone.
    pub(crate) ends: AtomicBool,
    /// The state says that it was begun, and nobody but somebody else ends it.
    pub(crate) planned: AtomicBool,
    /// A person asked for the swap that waits.
    pub(crate) swap: AtomicBool,
    /// All changes were applied, since it was last asked.
    pub(crate) caught_up: AtomicBool,
    /// This process has compared all rows.
    pub(crate) compared: AtomicBool,
    /// Why the copy rests.
    pub(crate) resting: Mutex<Option<String>>,
    /// Bytes of WAL a second that a person asked for, instead of those of the configuration.
    pub(crate) wal_rate: Mutex<Option<Option<u64>>>,
}

/// How a request for another WAL rate begins; behind it stand bytes a second, or nothing for no limit.
pub(crate) const THROTTLE: &str = "throttle";

impl Shown {
    /// Why the copy rests, or that it does not.
    pub(crate) fn rest(&self, reason: Option<String>) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn limit(&self, rate: &str) {
        *self.wal_rate.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate.parse().ok());
    }

    /// Another limit of the WAL rate, once.
    pub(crate) fn take_limit(&self) -> Option<Option<u64>> {
        self.wal_rate.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn resting(&self) -> Option<String> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) session: Session,
    pub(crate) table: &'a TableName,
    pub(crate) oid: Oid,
    pub(crate) slot: String,
    pub(crate) max_retained_wal: Option<u64>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) shown: &'a Shown,
}

/// Does `work`, which asks the catalogs on one session, unless a person ends it first: what the server does for it is cancelled then, so that
/// nobody waits for its answer. The session is of no more use.
pub(crate) async fn unless_stopped<T>(
    session: Canceller,
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = Result<T, RepackError>>,
) -> Result<T, RepackError> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        result = work => result,
        Ok(_) = stop.wait_for(|stop| *stop) => {
            // Where it cannot be cancelled the server ends it with the session, which is given up.
            let _given_up = session.cancel().await;
            Err(RepackError::Stopped)
        }
    }
}

impl Watch<'_> {
    /// Does `work`, unless something ends it before.
    pub(crate) async fn over<T>(
        &self,
        work: impl Future<Output = Result<T, RepackError>>,
    ) -> Result<T, RepackError> {
        tokio::select! {
            biased;
            result = work => result,
            ended = self.run() => match ended { Ok(never) => match never {}, Err(error) => Err(error) },
        }
    }

    /// Returns when a reason to end appears.
    pub(crate) async fn run(&self) -> Result<Infallible, RepackError> {
        let mut stop = self.stop.clone();
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = (0, None);
        let (mut copying, mut looked) = (Duration::ZERO, Instant::now());
        loop {
            tokio::select! {
                biased;
                Ok(_) = stop.wait_for(|stop| *stop) => return Err(RepackError::Stopped),
                _ = tick.tick() => {}
            }
            self.requests().await?;
            self.retained().await?;
            let now = (self.shown.rows.load(Ordering::Relaxed), self.shown.resting());
            let passed = looked.elapsed();
            looked += passed;
            if now.1.is_none() {
                copying += passed;
            }
            if now != written {
                let seconds = copying.as_secs_f64();
                state::set_progress(&self.session, self.oid, now.0, seconds, now.1.as_deref()).await?;
                written = now;
            }
        }
    }

    async fn requests(&self) -> Result<(), RepackError> {
        let Some(request) = state::read_request(&self.session, self.oid).await? else { return Ok(()) };
        match request.as_str() {
            "stop" | "yield" | "yield all" => {
                self.shown.ends.store(request != "yield", Ordering::Relaxed);
                state::set_request(&self.session, self.oid, None).await?;
                return Err(if request == "stop" { RepackError::Stopped } else { RepackError::Taken });
            }
            throttle if throttle.starts_with(THROTTLE) => {
                self.shown.limit(throttle.trim_start_matches(THROTTLE).trim());
                state::set_request(&self.session, self.oid, None).await?;
            }
            "pause" => self.shown.paused.store(true, Ordering::Relaxed),
            "resume" => {
                self.shown.paused.store(false, Ordering::Relaxed);
                state::set_request(&self.session, self.oid, None).await?;
            }
            "swap" => {
                self.shown.swap.store(true, Ordering::Relaxed);
                state::set_request(&self.session, self.oid, None).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn retained(&self) -> Result<(), RepackError> {
        let Some(limit) = self.max_retained_wal else { return Ok(()) };
        let retained =
            retained_wal(&self.session, &self.slot).await? + queue_size(&self.session, self.oid).await?;
        if retained > limit {
            return Err(RepackError::TooMuchWal { table: self.table.clone(), retained, limit });
        }
        Ok(())
    }
}

/// Bytes of the table's queue; 0 without one.
async fn queue_size(session: &Session, table: Oid) -> Result<u64, RepackError> {
    let sql = "SELECT pg_catalog.pg_total_relation_size(oid) FROM pg_catalog.pg_class \
               WHERE relname = $1 AND relnamespace = 'repcloud'::pg_catalog.regnamespace";
    let row = session.query_opt(sql, &[&ddl::queue_name(table)]).await?;
    let bytes: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes of WAL that the slot holds back; 0 without a slot.
pub(crate) async fn retained_wal(session: &Session, slot: &str) -> Result<u64, RepackError> {
    let sql = "SELECT greatest(0, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn))::int8 \
               FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND restart_lsn IS NOT NULL";
    let row = session.query_opt(sql, &[&slot]).await?;
    let bytes: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
