//! The application of the second act: clients that change a table while it is rebuilt, and keep a journal of what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::stage::{DEPOT, Stage};
use crate::cli::report::Failure;
use crate::pg::{self, ConnectOptions, Session};

/// Clients at once.
const CLIENTS: u32 = 4;
/// Transactions a second, of all of them.
pub(super) const RATE: u32 = 300;
/// How long the last transactions may take.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Clients at work; they end when dropped.
#[derive(Debug)]
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    work: JoinSet<Result<Journal, pg::PgError>>,
}

/// What the clients did and saw.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Journal {
    pub(super) transactions: u64,
    /// What they added to the sum of all amounts.
    pub(super) added: i64,
    /// The longest time from the moment a transaction was due to its end.
    pub(super) slowest: Duration,
}

impl Clients {
    /// Clients of role `clerk`, who owns nothing, beginning transactions at fixed times.
    pub(super) async fn start(stage: &Stage, rows: u64) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = JoinSet::new();
        for client in 0..CLIENTS {
            let socket = stage.source.socket_dir().display().to_string();
            let options = ConnectOptions::new(socket, stage.source.port(), "clerk", DEPOT);
            let session = pg::connect(&options).await.context("the application cannot connect")?;
            work.spawn(write(session, stop.clone(), u64::from(client), rows));
        }
        Ok(Clients { stop, work })
    }

    /// Ends them. A transaction that failed fails the demo.
    pub(super) async fn finish(mut self) -> Result<Journal, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Journal::default();
        let joined = timeout(END_LIMIT, async {
            while let Some(one) = self.work.join_next().await {
                let one = one.context("a client was cut off")?;
                let one = one.map_err(|error| anyhow!("a transaction of the application failed: {error}"))?;
                all.transactions += one.transactions;
                all.added += one.added;
                all.slowest = all.slowest.max(one.slowest);
            }
            anyhow::Ok(())
        });
        joined.await.context("the application did not end in time")??;
        Ok(all)
    }
}

async fn write(
    session: Session,
    stop: Arc<AtomicBool>,
    client: u64,
    rows: u64,
) -> Result<Journal, pg::PgError> {
    let mut journal = Journal::default();
    let mut due = Instant::now();
    let mut row = client * rows / u64::from(CLIENTS);
    while !stop.load(Ordering::Relaxed) {
        due += Duration::from_secs(1) * CLIENTS / RATE;
        sleep_until(due).await;
        // Rows all over the table, the same ones in every demo.
        row = (row * 2_862_933_555 + 3_037) % rows;
        let amount = i64::try_from(row % 7).unwrap_or_default();
        let id = i64::try_from(row + 1).unwrap_or_default();
        let sql = "UPDATE public.orders SET amount = amount + $1, changed_at = now() WHERE id = $2";
        let changed = session.execute(sql, &[&amount, &id]).await?;
        journal.transactions += 1;
        journal.added += if changed > 0 { amount } else { 0 };
        journal.slowest = journal.slowest.max(due.elapsed());
    }
    session.close().await?;
    Ok(journal)
}
