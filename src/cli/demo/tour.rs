//! The story, step by step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::compare::{Compared, compare};
use super::narrator::{Narrator, bar, grouped};
use super::pgbench::Load;
use super::repack::{self, Rebuilt};
use super::stage::{Home, Stage};
use super::stream::{Stream, repcloud};
use crate::cli::args::DemoArgs;
use crate::cli::report::{Exit, Failure};
use crate::flow::view::StreamState;

/// How long the first copy may take.
const COPY_LIMIT: Duration = Duration::from_secs(300);
/// How long a started stream may take until changes flow.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the last changes may take.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
/// How long the stream stays dead after its `kill -9`.
const OUTAGE: Duration = Duration::from_secs(2);
/// pgbench's transactions a second, at most; each is three updates and an insert.
const RATE: u32 = 1_000;

/// From the curtain to the applause.
pub(super) async fn run(voice: &Narrator, args: &DemoArgs) -> Result<Exit, Failure> {
    voice.say(
        "repcloud demo: two private PostgreSQL servers, a first copy, a stream, a crash, a comparison; then a bloated table, rebuilt \
         while it is written to.\n",
    )?;
    let (stage, home) = open(voice, args).await?;
    let transactions = play(voice, args, &stage, &home).await?;
    let compared = judge(voice, &home).await?;
    let differences: u64 = compared.iter().map(|table| table.differences).sum();
    if differences > 0 {
        return Err(Failure::from(anyhow!("{differences} rows differ between source and target")));
    }
    let rebuilt = repack::act(voice, &stage, &home, args.scale).await?;
    close(voice, stage, transactions, &compared, &rebuilt).await
}

/// Servers, tables, a configuration.
async fn open(voice: &Narrator, args: &DemoArgs) -> Result<(Arc<Stage>, Home), Failure> {
    voice.step(1, "Two private servers, a source and a target")?;
    let stage = Stage::start().await?;
    voice.note(&format!("Both run {}.", stage.source.binaries().version()))?;
    voice.note(&format!("All there is of them is in {}", stage.source.directory().display()))?;
    voice.note(&format!("and {}; it goes at the end.", stage.target.directory().display()))?;

    voice.step(2, "pgbench's bank on the source; the target stays empty")?;
    stage.fill(args.scale).await?;
    voice.note(&format!("{} accounts.", grouped(u64::from(args.scale) * 100_000)))?;

    voice.step(3, "A configuration")?;
    let home = stage.make_home()?;
    voice.note(&home.text)?;
    Ok((stage, home))
}

/// First rows, load, a crash, a restart; gives the number of pgbench's transactions.
async fn play(voice: &Narrator, args: &DemoArgs, stage: &Arc<Stage>, home: &Home) -> Result<u64, Failure> {
    voice.step(4, "`repcloud stream --source shop`: tables are made on the target, first rows are copied")?;
    let mut stream = Stream::start(home)?;
    first_copy(voice, stage, &mut stream, home).await?;

    voice
        .step(5, &format!("pgbench writes to the source for {} seconds; the stream follows", args.seconds))?;
    let begin = Instant::now();
    let load = Load::start(stage, args.seconds, RATE)?;
    let mut looks = Looks::default();
    follow(voice, stage, &mut stream, home, &mut looks, begin + Duration::from_secs(args.seconds * 2 / 5))
        .await?;

    voice.step(6, &format!("kill -9 {}: the stream dies in the middle of its work", stream.pid()))?;
    stream.kill().await?;
    sleep(OUTAGE).await;
    let kept = "SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)) FROM pg_replication_slots";
    let kept = stage.ask_source("asking for the slot", kept).await?;
    let dead = OUTAGE.as_secs();
    voice.note(&format!(
        "The source goes on. After {dead} seconds its slot holds {kept} of log that nobody has confirmed."
    ))?;

    voice.step(7, "The same command again: it goes on where the target's checkpoint says")?;
    let mut stream = Stream::start(home)?;
    follow(voice, stage, &mut stream, home, &mut looks, begin + Duration::from_secs(args.seconds)).await?;
    let transactions = load.finish().await?;
    voice.note(&format!("pgbench is done: {} transactions.", grouped(transactions)))?;
    voice.note(&format!(
        "{} times a reader of the target added up all accounts, tellers, branches and movements: the sums always agreed.",
        looks.count
    ))?;

    voice.step(
        8,
        "The stream is stopped, and `repcloud stream --source shop --until caught-up` brings the rest",
    )?;
    stream.stop(home).await?;
    let began = Instant::now();
    catch_up(home).await?;
    voice.note(&format!(
        "Everything is on the target and confirmed to the slot, after {:.1} s.",
        began.elapsed().as_secs_f64()
    ))?;

    Ok(transactions)
}

/// The comparison of both sides.
async fn judge(voice: &Narrator, home: &Home) -> Result<Vec<Compared>, Failure> {
    voice.step(9, "`repcloud verify --source shop`: source and target are compared, row by row")?;
    let compared = compare(home).await?;
    for table in &compared {
        voice.note(&format!(
            "{:<26}{:>12} rows, {} differences",
            table.table,
            grouped(table.rows),
            table.differences
        ))?;
    }
    Ok(compared)
}

/// The removal of everything, and the result.
async fn close(
    voice: &Narrator,
    stage: Arc<Stage>,
    transactions: u64,
    compared: &[Compared],
    rebuilt: &Rebuilt,
) -> Result<Exit, Failure> {
    let changes =
        stage.ask_target("reading the checkpoint", "SELECT changes FROM repcloud.checkpoint").await?;
    let last_owner = Arc::try_unwrap(stage).map_err(|_| anyhow!("the servers are still in use"))?;
    tokio::task::spawn_blocking(move || drop(last_owner)).await.context("the removal was cut off")?;
    let seconds = voice.elapsed().as_secs_f64();
    voice.result(
        &json!({"transactions": transactions, "changes_applied": changes.parse::<u64>().unwrap_or(0),
        "tables": compared, "differences": 0, "repack": rebuilt, "seconds": seconds}),
    )?;
    voice.say(&format!(
        "\nNo differences, nothing lost. Servers and files are removed. The demo took {seconds:.0} seconds.\n"
    ))?;
    Ok(Exit::Done)
}

/// Waits until the rows are there, and shows how they come.
async fn first_copy(
    voice: &Narrator,
    stage: &Arc<Stage>,
    stream: &mut Stream,
    home: &Home,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut line = voice.live();
    loop {
        if let Some(view) = stream.view(home)? {
            let (copied, total) = view.tables.iter().fold((0, 0), |(copied, total), table| {
                (copied + table.rows_copied, total + table.rows_total.max(table.rows_copied))
            });
            line.show(&format!(
                "{} {} of about {} rows",
                bar(copied, total),
                grouped(copied),
                grouped(total)
            ))?;
            if matches!(view.state, StreamState::CatchingUp | StreamState::Streaming) {
                break;
            }
        }
        limit(began, COPY_LIMIT, "the first copy")?;
        sleep(Duration::from_millis(100)).await;
    }
    drop(line);
    let sql = "SELECT sum(rows_copied) FROM repcloud.table_state";
    let rows = stage.ask_target("counting copied rows", sql).await?.parse().unwrap_or(0);
    voice.note(&format!(
        "{} {} rows copied in {:.1} s.",
        bar(rows, rows),
        grouped(rows),
        began.elapsed().as_secs_f64()
    ))?;
    Ok(())
}

/// What readers of the target saw.
#[derive(Debug, Default)]
struct Looks {
    count: u64,
    changes: u64,
}

/// Shows changes a second and the lag until `end`, and looks at the target as a reader would: its sums must agree at
/// every moment, or a transaction was seen in part.
async fn follow(
    voice: &Narrator,
    stage: &Arc<Stage>,
    stream: &mut Stream,
    home: &Home,
    looks: &mut Looks,
    end: Instant,
) -> Result<(), Failure> {
    const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT changes FROM repcloud.checkpoint)";
    let began = Instant::now();
    let mut line = voice.live();
    let mut before = began;
    while Instant::now() < end {
        sleep_until((before + Duration::from_secs(1)).min(end)).await;
        let answer = stage.ask_target("looking at the target", SUMS).await?;
        let (sums, changes) = answer.rsplit_once('|').context("the target did not answer")?;
        let sums: Vec<&str> = sums.split('|').collect();
        if sums.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(
                anyhow!("a reader of the target saw half a transaction: sums {}", sums.join(", ")).into()
            );
        }
        looks.count += 1;
        let changes: u64 = changes.parse().context("the checkpoint has no number of changes")?;
        let passed = before.elapsed().as_secs_f64().max(0.001);
        before = Instant::now();
        let rate = (changes.saturating_sub(looks.changes)) as f64 / passed;
        looks.changes = changes;
        match stream.view(home)?.filter(|view| view.state != StreamState::Copying) {
            Some(view) => line.show(&format!(
                "{:>7} changes/s, {} in all, lag {:.1} s ({} KB)",
                grouped(rate.round() as u64),
                grouped(changes),
                view.lag_seconds,
                view.lag_bytes >> 10
            ))?,
            None => {
                limit(began, START_LIMIT, "the start of the stream")?;
                line.show("starting")?;
            }
        }
    }
    drop(line);
    voice.note(&format!("{} changes are on the target.", grouped(looks.changes)))?;
    Ok(())
}

/// Runs the stream until it has caught up.
async fn catch_up(home: &Home) -> Result<(), Failure> {
    let mut command = repcloud(home)?;
    command.args(["stream", "--source", "shop", "--until", "caught-up", "--no-progress"]);
    let output = timeout(CATCH_UP_LIMIT, command.output()).await;
    let output =
        output.context("the stream did not catch up in time")?.context("cannot start `repcloud stream`")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("`repcloud stream --until caught-up` failed ({}): {}", output.status, text.trim_end()).into())
}

fn limit(began: Instant, limit: Duration, what: &str) -> Result<(), Failure> {
    if began.elapsed() < limit {
        return Ok(());
    }
    Err(anyhow!("{what} took longer than {} s", limit.as_secs()).into())
}
