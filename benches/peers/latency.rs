//! From a commit on the source to its row's sight on the target, at a thousand changes a second.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::Options;
use crate::stage::{Stage, connect, finished, wait_true};

const NAME: &str = "latency";
const TABLE: &str = "CREATE TABLE beats (id bigint PRIMARY KEY, note text)";
const EVERY: Duration = Duration::from_millis(1);
/// How long a reader rests between two looks: adds half of it to what is measured, for both alike.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    pub(crate) native: Vec<Quantiles>,
    pub(crate) repcloud: Vec<Quantiles>,
    pub(crate) seconds: u64,
}

pub(crate) async fn run(stage: &Stage, options: &Options) -> anyhow::Result<Latencies> {
    let seconds = options.size(1, 10);
    println!("latency at 1,000 changes/s, {} rounds of {seconds} s", options.rounds);
    stage.create(NAME)?;
    stage.source.psql(NAME, &format!("{TABLE};\nCREATE PUBLICATION bench FOR ALL TABLES;"))?;
    stage.native.psql(NAME, TABLE)?;
    let native = connect(&stage.native, NAME).await?;
    let conninfo = stage.source.conninfo(NAME).replace('\'', "''");
    native
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION native_latency CONNECTION '{conninfo}' PUBLICATION bench"
        ))
        .await?;
    let ready = "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
    wait_true(&native, "the subscription", ready).await?;
    finished(stage.stream(NAME, true)?, "repcloud").await?;

    let mut result = Latencies { native: Vec::new(), repcloud: Vec::new(), seconds };
    let mut first = 1;
    for round in 0..options.rounds {
        for turn in 0..2 {
            // One at a time: the other's slot keeps the log meanwhile.
            let (peer, quantiles) = if (round + turn) % 2 == 0 {
                native.batch_execute("ALTER SUBSCRIPTION native_latency ENABLE").await?;
                let quantiles = measure(stage, &stage.native, &mut first, seconds).await?;
                native.batch_execute("ALTER SUBSCRIPTION native_latency DISABLE").await?;
                result.native.push(quantiles);
                ("native", quantiles)
            } else {
                native.batch_execute("ALTER SUBSCRIPTION native_latency DISABLE").await?;
                let child = stage.stream(NAME, false)?;
                let quantiles = measure(stage, &stage.ours, &mut first, seconds).await?;
                let pid = child
                    .id()
                    .and_then(|pid| i32::try_from(pid).ok())
                    .and_then(rustix::process::Pid::from_raw);
                rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM)?;
                finished(child, "repcloud").await?;
                result.repcloud.push(quantiles);
                ("repcloud", quantiles)
            };
            println!(
                "  round {} {peer}: p50 {:.2} ms, p99 {:.2} ms, worst {:.1} ms",
                round + 1,
                quantiles.p50,
                quantiles.p99,
                quantiles.worst
            );
        }
    }
    Ok(result)
}

async fn measure(
    stage: &Stage,
    target: &repcloud::cluster::Cluster,
    first: &mut i64,
    seconds: u64,
) -> anyhow::Result<Quantiles> {
    let writer = connect(&stage.source, NAME).await?;
    let reader = connect(target, NAME).await?;
    let count = i64::try_from(seconds)? * 1_000;
    // One before the others: whoever follows has started when it arrives.
    writer.execute("INSERT INTO beats VALUES ($1, 'first')", &[first]).await?;
    wait_true(&reader, "the first row", &format!("SELECT EXISTS (SELECT FROM beats WHERE id = {first})"))
        .await?;
    let (begin, end) = (*first + 1, *first + count);
    *first = end + 1;
    let writing = tokio::spawn(async move {
        let statement = writer.prepare("INSERT INTO beats VALUES ($1, 'beat')").await?;
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut committed = Vec::new();
        for id in begin..=end {
            tick.tick().await;
            writer.execute(&statement, &[&id]).await?;
            committed.push(Instant::now());
        }
        Ok::<_, tokio_postgres::Error>(committed)
    });
    let last = reader.prepare("SELECT id FROM beats ORDER BY id DESC LIMIT 1").await?;
    let began = Instant::now();
    let mut seen: Vec<Instant> = Vec::new();
    while (seen.len() as i64) < count {
        let id: i64 = reader.query_one(&last, &[]).await?.get(0);
        let now = Instant::now();
        while (seen.len() as i64) < id - begin + 1 {
            seen.push(now);
        }
        anyhow::ensure!(began.elapsed() < crate::stage::LIMIT, "rows do not arrive");
        sleep(LOOK_EVERY).await;
    }
    let committed = writing.await??;
    let mut delays: Vec<f64> = seen
        .iter()
        .zip(&committed)
        .map(|(seen, committed)| seen.saturating_duration_since(*committed).as_secs_f64() * 1e3)
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
    Ok(Quantiles { p50: at(0.5), p99: at(0.99), worst: at(1.0) })
}
