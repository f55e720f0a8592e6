//! Removes queue rows that every stream that reads them has durably.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::capture::Written;
use crate::capture::trigger::ddl;
use crate::capture::trigger::stream_ticks::StreamConsumer;
use crate::model::{Lsn, Oid};
use crate::pg::{PgError, Session};

/// How often it is looked whether there is something to remove.
const EVERY: Duration = Duration::from_secs(1);
/// Rows of one statement, so that none takes long.
const ROWS: i64 = 20_000;
/// After so many removed rows a queue is vacuumed: autovacuum may come too late, or be off.
const VACUUM_AFTER: u64 = 50_000;

/// Cleans a stream's queues beside its reader.
#[derive(Debug)]
pub(super) struct StreamCleaner {
    pub(super) session: Session,
    pub(super) consumer: StreamConsumer,
    pub(super) written: watch::Receiver<Written>,
}

impl StreamCleaner {
    /// Runs until it fails; whoever drops it ends it. What it had not removed then goes the next time.
    pub(super) async fn run(mut self) -> Result<std::convert::Infallible, PgError> {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done = Lsn::INVALID;
        let mut removed = vec![0; self.consumer.queues.len()];
        loop {
            tick.tick().await;
            let durable = self.written.borrow_and_update().durable;
            if durable <= done {
                continue;
            }
            forget_ticks(&self.session, &self.consumer, durable).await?;
            for (queue, removed) in self.consumer.queues.iter().zip(&mut removed) {
                *removed += forget_rows(&self.session, *queue).await?;
                if *removed >= VACUUM_AFTER {
                    // Without TRUNCATE, which would want a lock that writers wait for.
                    let name = ddl::queue_name(*queue);
                    self.session.batch_execute(&format!("VACUUM (TRUNCATE false) repcloud.{name}")).await?;
                    *removed = 0;
                }
            }
            done = durable;
        }
    }
}

/// Once, for a stream that ends: what is durable by now.
pub async fn clean(client: &Client, consumer: &StreamConsumer, durable: Lsn) -> Result<(), PgError> {
    forget_ticks(client, consumer, durable).await?;
    for queue in &consumer.queues {
        forget_rows(client, *queue).await?;
    }
    Ok(())
}

async fn forget_ticks(client: &Client, consumer: &StreamConsumer, durable: Lsn) -> Result<(), PgError> {
    let before = i64::try_from(durable.0).unwrap_or(i64::MAX);
    let ticks = "DELETE FROM repcloud.tick WHERE consumer = $1 AND number < $2 AND generation <= $3";
    client.execute(ticks, &[&consumer.name, &before, &consumer.generation]).await?;
    Ok(())
}

/// Rows that the oldest tick of every reader shows; none while a reader has no tick yet. How many.
async fn forget_rows(client: &Client, queue: Oid) -> Result<u64, PgError> {
    let name = ddl::queue_name(queue);
    let rows = format!(
        "WITH readers AS MATERIALIZED (SELECT (SELECT t.snapshot FROM repcloud.tick t WHERE t.consumer = r.consumer ORDER BY t.number LIMIT 1) AS snapshot \
           FROM repcloud.reads r WHERE r.queue = $1), \
         gone AS MATERIALIZED (SELECT q.ctid FROM repcloud.{name} q WHERE EXISTS (SELECT FROM readers) \
           AND NOT EXISTS (SELECT FROM readers o WHERE o.snapshot IS NULL OR NOT pg_catalog.pg_visible_in_snapshot(q.xid, o.snapshot)) LIMIT $2) \
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
