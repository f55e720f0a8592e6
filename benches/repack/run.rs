//! One run of one tool on its own copy of the table.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::load::{Load, Seen};
use crate::processes::{Sampler, children_cpu_seconds};
use crate::stage::{Stage, connect};
use crate::tools::Tool;

/// The limit of one run.
const LIMIT: Duration = Duration::from_secs(180);
/// The load alone, before and after the tool.
const ALONE: Duration = Duration::from_secs(2);

/// What one run cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) client_cpu: f64,
    pub(crate) client_peak: u64,
    /// CPU seconds of the server's processes that ended in the meantime: those that served the tool.
    pub(crate) server_cpu: f64,
    /// Bytes of WAL; under load the load's are among them.
    pub(crate) wal: f64,
    pub(crate) lock_ms: Option<f64>,
    pub(crate) size_before: i64,
    pub(crate) size_after: i64,
    pub(crate) seen: Option<Seen>,
}

impl Measured {
    /// For the terminal.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{:.2} s, WAL {:.0} MB, {:.0} → {:.0} MB",
            self.seconds,
            self.wal / 1e6,
            self.size_before as f64 / 1e6,
            self.size_after as f64 / 1e6
        );
        if let Some(lock) = self.lock_ms {
            let _ = write!(line, ", lock {lock:.1} ms");
        }
        if let Some(seen) = &self.seen {
            let _ = write!(
                line,
                ", slowest client {:.1} ms, p99 {:.1} ms, {} failures",
                seen.slowest_ms,
                seen.p99_ms,
                seen.failures.len()
            );
        }
        line
    }
}

struct Facts {
    rows: i64,
    sum: i64,
    size: i64,
}

async fn facts(client: &Client) -> anyhow::Result<Facts> {
    let query = "select count(*), sum(v)::int8, pg_total_relation_size('public.orders') from public.orders";
    let row = client.query_one(query, &[]).await?;
    Ok(Facts { rows: row.get(0), sum: row.get(1), size: row.get(2) })
}

async fn position(client: &Client) -> anyhow::Result<f64> {
    let query = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// Runs a tool and looks whether the table is whole.
pub(crate) async fn run(stage: &Stage, tool: Tool, loaded: bool) -> anyhow::Result<Measured> {
    let name = tool.name();
    stage.copy(name)?;
    stage.set_up(tool, name).await?;
    // Not in the measured database: the old tool wants to be alone in some of its moments.
    let outside = connect(&stage.cluster.conninfo("postgres")).await?;
    let inside = connect(&stage.cluster.conninfo(name)).await?;
    let before = facts(&inside).await?;
    drop(inside);
    let load = if loaded { Some(Load::start(stage, name).await?) } else { None };
    if loaded {
        sleep(ALONE).await;
    }
    let postmaster = stage.cluster.pid().context("the server is gone")?;
    let (cpu, wal) = (children_cpu_seconds(postmaster), position(&outside).await?);
    let sampler = Sampler::start();
    let from = Instant::now();
    let child = stage.command(tool, name)?.spawn().context("cannot start it")?;
    sampler.watch("client", child.id().context("it has no pid")?);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.context("too slow")??;
    let to = Instant::now();
    let mut measured = Measured {
        seconds: (to - from).as_secs_f64(),
        wal: position(&outside).await? - wal,
        server_cpu: children_cpu_seconds(postmaster) - cpu,
        ..Measured::default()
    };
    if let Some(usage) = sampler.finish().get("client") {
        (measured.client_cpu, measured.client_peak) = (usage.cpu_seconds, usage.peak_bytes);
    }
    if let Some(load) = load {
        sleep(ALONE).await;
        measured.seen = Some(load.end(from, to + ALONE / 4).await?);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success(),
        "{}: {said} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    measured.lock_ms = said
        .lines()
        .find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?.get("lock_ms")?.as_f64());
    let inside = connect(&stage.cluster.conninfo(name)).await?;
    let after = facts(&inside).await?;
    whole(tool, &before, &after, measured.seen.as_ref())?;
    (measured.size_before, measured.size_after) = (before.size, after.size);
    drop(inside);
    stage.drop(name)?;
    Ok(measured)
}

/// Nothing lost, nothing doubled, and smaller. The old tool is known to lose rows: it is said, not a stop.
fn whole(tool: Tool, before: &Facts, after: &Facts, seen: Option<&Seen>) -> anyhow::Result<()> {
    let (rows, sum) = seen.map_or((0, 0), |seen| (seen.rows, seen.sum));
    if (after.rows, after.sum) != (before.rows + rows, before.sum + sum) {
        let text = format!(
            "{} rows with sum {} were expected, {} with {} found",
            before.rows + rows,
            before.sum + sum,
            after.rows,
            after.sum
        );
        anyhow::ensure!(tool == Tool::OldRepcloud, text);
        println!("  {}: {text}", tool.title());
    }
    anyhow::ensure!(
        after.size < before.size * 3 / 4,
        "it did not shrink: {} bytes, then {}",
        before.size,
        after.size
    );
    Ok(())
}
