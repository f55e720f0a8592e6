//! The first copy of one big table: table synchronisation of a subscription, and ours.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::drain::Run;
use crate::processes::Sampler;
use crate::stage::{Stage, connect, finished, wait_true};
use crate::workload::{ITEMS, ROW};
use crate::{Options, drain::Drained};

const NAME: &str = "rows";

/// Rounds in turn; both begin with an empty database.
pub(crate) async fn run(stage: &Stage, options: &Options) -> anyhow::Result<Drained> {
    let rows = options.size(5_000, 1_000_000);
    let title = format!("first copy of {rows} rows");
    println!("{title}, {} rounds", options.rounds);
    stage.create(NAME)?;
    stage.source.psql(
        NAME,
        &format!(
            "{ITEMS}\nINSERT INTO items SELECT {ROW} FROM generate_series(1, {rows}) i;\nVACUUM ANALYZE;\nCREATE PUBLICATION bench FOR ALL TABLES;"
        ),
    )?;
    let mut runs: BTreeMap<&'static str, Vec<Run>> = BTreeMap::new();
    for round in 0..options.rounds {
        for turn in 0..2 {
            let (peer, run) = match (round + turn) % 2 {
                0 => ("native", native(stage).await?),
                _ => ("repcloud", repcloud(stage, rows).await?),
            };
            println!("  round {} {peer}: {:.2} s", round + 1, run.seconds);
            runs.entry(peer).or_default().push(run);
        }
    }
    Ok(Drained { title, changes: rows, runs })
}

async fn native(stage: &Stage) -> anyhow::Result<Run> {
    let target = connect(&stage.native, NAME).await?;
    target.batch_execute(ITEMS).await?;
    let conninfo = stage.source.conninfo(NAME).replace('\'', "''");
    let sampler = Sampler::start();
    let began = Instant::now();
    target
        .batch_execute(&format!("CREATE SUBSCRIPTION native_rows CONNECTION '{conninfo}' PUBLICATION bench"))
        .await?;
    // The worker that copies ends before it can be asked for: watched as soon as it is there.
    let worker = "SELECT pid FROM pg_stat_subscription WHERE relid IS NOT NULL";
    let mut watched = false;
    loop {
        if !watched && let Some(row) = target.query_opt(worker, &[]).await? {
            sampler.watch("target", row.get::<_, Option<i32>>(0).unwrap_or_default().unsigned_abs());
            watched = true;
        }
        let done = "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
        if target.query_one(done, &[]).await?.get(0) {
            break;
        }
        anyhow::ensure!(began.elapsed() < crate::stage::LIMIT, "the subscription's copy is too slow");
        sleep(Duration::from_millis(4)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let usage = sampler.finish();
    target.batch_execute("DROP SUBSCRIPTION native_rows").await?;
    target.batch_execute("DROP TABLE items").await?;
    target.batch_execute("CHECKPOINT").await?;
    Ok(Run { seconds, until_end: None, usage })
}

/// The whole command: table, publication, slot, rows, key, statistics, and the end.
async fn repcloud(stage: &Stage, rows: u64) -> anyhow::Result<Run> {
    let target = connect(&stage.ours, NAME).await?;
    let source = connect(&stage.source, NAME).await?;
    let sampler = Sampler::start();
    let began = Instant::now();
    let child = stage.stream(NAME, true)?;
    sampler.watch("client", child.id().context("repcloud ended at once")?);
    let watching = watch(&sampler, &source, &target);
    tokio::select! {
        result = finished(child, "repcloud") => result?,
        result = watching => result?,
    }
    let seconds = began.elapsed().as_secs_f64();
    let usage = sampler.finish();
    let count: i64 = target.query_one("SELECT count(*) FROM items", &[]).await?.get(0);
    anyhow::ensure!(count.unsigned_abs() == rows, "{count} of {rows} rows were copied");
    wait_true(
        &source,
        "the slot's end",
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'repcloud_rows__copy'",
    )
    .await?;
    source.batch_execute("SELECT pg_drop_replication_slot('repcloud_rows__copy')").await?;
    source.batch_execute("DROP PUBLICATION repcloud_rows__copy").await?;
    target.batch_execute("DROP TABLE items; DROP SCHEMA repcloud CASCADE").await?;
    target.batch_execute("CHECKPOINT").await?;
    Ok(Run { seconds, until_end: None, usage })
}

/// Watches the sessions of repcloud on both sides, for ever.
async fn watch(sampler: &Sampler, source: &Client, target: &Client) -> anyhow::Result<()> {
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'repcloud%'";
    loop {
        for (role, client) in [("source", source), ("target", target)] {
            for row in client.query(pids, &[]).await? {
                sampler.watch(role, row.get::<_, i32>(0).unsigned_abs());
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}
