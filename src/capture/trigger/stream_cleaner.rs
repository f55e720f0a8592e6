//! Removes queue rows that every stream that reads them has durably.

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::capture::Written;
use crate::capture::trigger::cleaner::{EVERY, forget_rows, forget_ticks, vacuumed};
use crate::capture::trigger::stream_ticks::StreamConsumer;
use crate::model::Lsn;
use crate::pg::{PgError, Session};

/// The oldest tick of every reader of a queue; null for one that has none yet.
const OLDEST: &str = "SELECT (SELECT t.snapshot FROM repcloud.tick t WHERE t.consumer = r.consumer ORDER BY t.number LIMIT 1) AS snapshot \
     FROM repcloud.reads r WHERE r.queue = $1";

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
            forget_ticks(&self.session, &self.consumer.name, self.consumer.generation, durable).await?;
            for (queue, removed) in self.consumer.queues.iter().zip(&mut removed) {
                *removed += forget_rows(&self.session, *queue, OLDEST).await?;
                *removed = vacuumed(&self.session, *queue, *removed).await?;
            }
            done = durable;
        }
    }
}

/// Once, for a stream that ends: what is durable by now.
pub async fn clean(client: &Client, consumer: &StreamConsumer, durable: Lsn) -> Result<(), PgError> {
    forget_ticks(client, &consumer.name, consumer.generation, durable).await?;
    for queue in &consumer.queues {
        forget_rows(client, *queue, OLDEST).await?;
    }
    Ok(())
}
