//! Removes queue rows that every consumer has durably, and keeps the queue small.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::capture::Written;
use crate::capture::trigger::ddl;
use crate::capture::trigger::tick::Consumer;
use crate::model::{Lsn, Oid};
use crate::pg::{PgError, Session};

/// How often it is looked whether there is something to remove.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Rows of one statement, so that none takes long.
const ROWS: i64 = 20_000;
/// After so many removed rows the queue is vacuumed: autovacuum may come too late, or be off.
const VACUUM_AFTER: u64 = 50_000;

/// Cleans one queue beside its reader.
#[derive(Debug)]
pub(super) struct Cleaner {
    pub(super) session: Session,
    pub(super) consumer: Consumer,
    pub(super) written: watch::Receiver<Written>,
}

impl Cleaner {
    /// Runs until it fails; whoever drops it ends it. What it had not removed then goes the next time.
    pub(super) async fn run(mut self) -> Result<std::convert::Infallible, PgError> {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut done, mut removed) = (Lsn::INVALID, 0);
        loop {
            tick.tick().await;
            let durable = self.written.borrow_and_update().durable;
            if durable <= done {
                continue;
            }
            removed += forget(&self.session, &self.consumer, durable).await?;
            done = durable;
            removed = vacuumed(&self.session, self.consumer.queue, removed).await?;
        }
    }
}

/// Rows removed since the queue was vacuumed, which is done where `removed` are enough.
pub(super) async fn vacuumed(client: &Client, queue: Oid, removed: u64) -> Result<u64, PgError> {
    if removed < VACUUM_AFTER {
        return Ok(removed);
    }
    // Without TRUNCATE, which would want a lock that writers wait for.
    let queue = ddl::queue_name(queue);
    client.batch_execute(&format!("VACUUM (TRUNCATE false) repcloud.{queue}")).await?;
    Ok(0)
}

/// Ticks before `durable` go, and rows that the oldest tick of every consumer shows. How many rows.
async fn forget(client: &Client, consumer: &Consumer, durable: Lsn) -> Result<u64, PgError> {
    let Consumer { name, queue, generation } = consumer;
    forget_ticks(client, name, *generation, durable).await?;
    let oldest = "SELECT DISTINCT ON (consumer) snapshot FROM repcloud.tick WHERE queue = $1 ORDER BY consumer, number";
    forget_rows(client, *queue, oldest).await
}

/// Ticks of `consumer` before `durable` go.
pub(super) async fn forget_ticks(
    client: &Client,
    consumer: &str,
    generation: i64,
    durable: Lsn,
) -> Result<(), PgError> {
    let before = i64::try_from(durable.0).unwrap_or(i64::MAX);
    let ticks = "DELETE FROM repcloud.tick WHERE consumer = $1 AND number < $2 AND generation <= $3";
    client.execute(ticks, &[&consumer, &before, &generation]).await?;
    Ok(())
}

/// Rows go that all snapshots show which `oldest` selects (`snapshot`, of queue $1): none while there is no snapshot, or one of
/// them is null. How many.
pub(super) async fn forget_rows(client: &Client, queue: Oid, oldest: &str) -> Result<u64, PgError> {
    let name = ddl::queue_name(queue);
    let rows = format!(
        "WITH oldest AS MATERIALIZED ({oldest}), \
         gone AS MATERIALIZED (SELECT q.ctid FROM repcloud.{name} q WHERE EXISTS (SELECT FROM oldest) \
           AND NOT EXISTS (SELECT FROM oldest o WHERE o.snapshot IS NULL OR NOT pg_catalog.pg_visible_in_snapshot(q.xid, o.snapshot)) LIMIT $2) \
         DELETE FROM repcloud.{name} q WHERE q.ctid = ANY (ARRAY(SELECT ctid FROM gone))"
    );
    let mut all = 0;
    loop {
        let now = client.execute(&rows, &[&queue, &ROWS]).await?;
        all += now;
        if now < ROWS.unsigned_abs() {
            return Ok(all);
        }
    }
}
