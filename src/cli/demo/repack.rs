//! The second act: a bloated table is rebuilt while clients go on changing it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::clients::{Clients, RATE};
use super::narrator::{Narrator, bar, grouped};
use super::stage::{Home, Stage};
use super::stream::repcloud;
use crate::cli::report::Failure;

/// How long the rebuild may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How long clients write before it begins and after it ended.
const ALONE: Duration = Duration::from_secs(2);
/// Orders for each of pgbench's scales.
const ROWS: u64 = 60_000;

/// The part of a line of `repack --json` that is shown.
#[derive(Debug, Deserialize)]
struct Line {
    outcome: String,
    bytes_before: u64,
    bytes_after: u64,
    changes_replayed: u64,
    lock_ms: f64,
    total_seconds: f64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rebuilt {
    table: &'static str,
    bytes_before: u64,
    bytes_after: u64,
    seconds: f64,
    changes_replayed: u64,
    lock_ms: f64,
    client_transactions: u64,
    slowest_client_ms: f64,
}

/// Bloats a table, rebuilds it under load and compares it with the clients' journal.
pub(super) async fn act(
    voice: &Narrator,
    stage: &Arc<Stage>,
    home: &Home,
    scale: u32,
) -> Result<Rebuilt, Failure> {
    let rows = u64::from(scale) * ROWS;
    voice.step(10, "Another database of the source: a table of orders that many updates have bloated")?;
    stage.fill_depot(rows).await?;
    let before = stage.ask_depot("asking for the sum", SUM).await?;
    voice.note(&format!("{} rows, {}. Its owner is a plain role.", grouped(rows), size(stage).await?))?;

    voice.step(11, &format!("`repcloud repack --connection depot --table public.orders`, while clients begin {RATE} transactions a second"))?;
    let clients = Clients::start(stage, rows).await?;
    sleep(ALONE).await;
    let line = rebuild(voice, stage, home).await?;
    sleep(ALONE).await;
    let journal = clients.finish().await?;
    let after = stage.ask_depot("asking for the sum", SUM).await?;
    let (before, after) = (number(&before)?, number(&after)?);
    if after != before + journal.added {
        return Err(anyhow!(
            "the rebuilt table does not agree with the clients' journal: {before} + {} is not {after}",
            journal.added
        )
        .into());
    }
    let slowest = journal.slowest.as_secs_f64() * 1e3;
    voice.note(&format!(
        "Rebuilt in {:.1} s: {} MB before, {} MB after. {} changes were brought in meanwhile.",
        line.total_seconds,
        line.bytes_before >> 20,
        line.bytes_after >> 20,
        grouped(line.changes_replayed)
    ))?;
    voice.note(&format!(
        "It was locked for {:.0} ms. {} transactions of the clients, none failed, the slowest took {slowest:.0} ms.",
        line.lock_ms,
        grouped(journal.transactions)
    ))?;
    voice.note("Every one of their changes is in the table: its sum is what their journal says.")?;
    Ok(Rebuilt {
        table: "public.orders",
        bytes_before: line.bytes_before,
        bytes_after: line.bytes_after,
        seconds: line.total_seconds,
        changes_replayed: line.changes_replayed,
        lock_ms: line.lock_ms,
        client_transactions: journal.transactions,
        slowest_client_ms: slowest,
    })
}

const SUM: &str = "SELECT sum(amount) FROM public.orders";

fn number(text: &str) -> Result<i64, Failure> {
    Ok(text.parse().context("a sum that is no number")?)
}

async fn size(stage: &Arc<Stage>) -> Result<String, Failure> {
    stage
        .ask_depot("asking for the size", "SELECT pg_size_pretty(pg_total_relation_size('public.orders'))")
        .await
}

/// Runs the command, and shows how far it has come.
async fn rebuild(voice: &Narrator, stage: &Arc<Stage>, home: &Home) -> Result<Line, Failure> {
    const STATE: &str = "SELECT state, greatest(rows_copied, 0), greatest(rows_total, rows_copied, 1) FROM repcloud.repack \
         ORDER BY started_at DESC LIMIT 1";
    let mut command = repcloud(home)?;
    command.args(["repack", "--connection", "depot", "--table", "public.orders", "--capture=slot", "--json"]);
    command.arg("--no-progress").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().context("cannot start `repcloud repack`")?;
    let mut ended = std::pin::pin!(timeout(LIMIT, child.wait_with_output()));
    let mut line = voice.live();
    let began = Instant::now();
    let output = loop {
        tokio::select! {
            output = &mut ended => break output,
            () = sleep(Duration::from_millis(300)) => {}
        }
        // Before the first state is written there is nothing to show, not even the table.
        let state = stage.ask_depot("asking for the state", STATE).await.unwrap_or_default();
        if let Some((word, copied, total)) = parts(&state) {
            let seconds = began.elapsed().as_secs_f64();
            line.show(&format!("{} {word}, {seconds:.1} s", bar(copied, total)))?;
        }
    };
    drop(line);
    let output =
        output.context("the rebuild did not end in time")?.context("cannot wait for `repcloud repack`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let read = text.lines().find_map(|line| serde_json::from_str::<Line>(line).ok());
    match read {
        Some(line) if output.status.success() && line.outcome == "swapped" => Ok(line),
        _ => Err(anyhow!(
            "`repcloud repack` failed ({}): {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )
        .into()),
    }
}

/// `rows_copied|10|20` of a state's row.
fn parts(row: &str) -> Option<(&str, u64, u64)> {
    let mut parts = row.split('|');
    let (word, copied, total) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((word, copied, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_shown_when_there_is_one() {
        assert_eq!(parts("shadow_ready|10|20"), Some(("shadow_ready", 10, 20)));
        assert_eq!(parts(""), None);
        assert_eq!(parts("x|y|z"), None);
    }
}
