//! The application: clients that begin a transaction at fixed times, whatever became of the one before, as pgbench's `--rate`
//! does, and keep a journal of what they wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::stage::{Stage, connect};

/// Transactions a second, of all clients together.
pub(crate) const RATE: u32 = 300;
const CLIENTS: u32 = 4;

/// What one client did.
#[derive(Debug, Default)]
struct Journal {
    /// When it ended, and how long after its time.
    ended: Vec<(Instant, Duration)>,
    rows: i64,
    sum: i64,
    failures: Vec<String>,
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Journal>>,
}

/// What they saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) transactions: usize,
    pub(crate) slowest_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) failures: Vec<String>,
    /// Rows they added (less those they deleted), and what they added to the sum of `v`, over their whole life.
    pub(crate) rows: i64,
    pub(crate) sum: i64,
}

impl Load {
    pub(crate) async fn start(stage: &Stage, name: &str) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        let conninfo = format!("{} user=app", stage.cluster.conninfo(name).replace("user=postgres", ""));
        for client in 0..CLIENTS {
            let session = connect(&conninfo).await?;
            let seed = u64::from(client + 1) * 0x9E37_79B9_7F4A_7C15;
            clients.push(tokio::spawn(work(session, stop.clone(), seed, stage.rows)));
        }
        Ok(Load { stop, clients })
    }

    /// Ends the load; the latencies are of transactions that ended between the two moments.
    pub(crate) async fn end(self, from: Instant, to: Instant) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        let mut latencies = Vec::new();
        for client in self.clients {
            let journal = client.await?;
            seen.rows += journal.rows;
            seen.sum += journal.sum;
            seen.failures.extend(journal.failures);
            latencies.extend(
                journal
                    .ended
                    .iter()
                    .filter(|(at, _)| (from..=to).contains(at))
                    .map(|(_, took)| took.as_secs_f64() * 1e3),
            );
        }
        latencies.sort_by(f64::total_cmp);
        seen.transactions = latencies.len();
        seen.slowest_ms = latencies.last().copied().unwrap_or_default();
        seen.p99_ms = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        Ok(seen)
    }
}

async fn work(session: Client, stop: Arc<AtomicBool>, seed: u64, rows: u64) -> Journal {
    let mut journal = Journal::default();
    let mut random = seed;
    let every = Duration::from_secs(1) * CLIENTS / RATE;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        due += every;
        sleep_until(due).await;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = random % rows + 1;
        match transaction(&session, random >> 40, id, &mut journal).await {
            Ok(()) => journal.ended.push((Instant::now(), due.elapsed())),
            Err(error) => {
                let text = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
                journal.failures.push(text);
                if session.is_closed() {
                    break;
                }
            }
        }
    }
    journal
}

/// 70 of 100 update, 15 insert, 7 delete, 8 read the view.
async fn transaction(
    session: &Client,
    dice: u64,
    id: u64,
    journal: &mut Journal,
) -> Result<(), tokio_postgres::Error> {
    match dice % 100 {
        0..70 => {
            let sql = format!("update orders set v = v + 1, at = now() where id = {id}");
            journal.sum += changed(&session.simple_query(&sql).await?);
        }
        70..85 => {
            let sql = format!(
                "insert into orders (customer, k, pad) values (1 + {id} % 1000, ({id} % 100000)::int, 'new')"
            );
            journal.rows += changed(&session.simple_query(&sql).await?);
        }
        85..92 => {
            let sql = format!(
                "delete from orders where id = {id} and not exists (select from item where orders = {id}) returning v"
            );
            let answer = session.simple_query(&sql).await?;
            for message in &answer {
                if let SimpleQueryMessage::Row(row) = message {
                    journal.rows -= 1;
                    journal.sum -= row.get(0).and_then(|v| v.parse::<i64>().ok()).unwrap_or_default();
                }
            }
        }
        _ => {
            session.simple_query(&format!("select count(*) from totals where id = {id}")).await?;
        }
    }
    Ok(())
}

fn changed(answer: &[SimpleQueryMessage]) -> i64 {
    let count = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => i64::try_from(*rows).ok(),
        _ => None,
    });
    count.unwrap_or_default()
}
