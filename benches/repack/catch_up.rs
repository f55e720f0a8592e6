//! How long a catch-up takes: changes that were made after `prepare`, applied by a second one, with one and with two lanes.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::Options;
use crate::processes::{Sampler, children_cpu_seconds};
use crate::stage::Stage;
use crate::tools::Tool;

/// Changes of one transaction: eight of ten are updates, two inserts.
const IN_A_TRANSACTION: u64 = 10;

/// `changes` pending changes for each of the two, in turn.
pub(crate) async fn measure(options: &Options, changes: u64) -> anyhow::Result<()> {
    let stage = Stage::start(options)?;
    println!(
        "catch-up of {changes} changes in transactions of {IN_A_TRANSACTION}, table of {} rows",
        stage.rows
    );
    for round in 1..=options.rounds {
        let mut tools = [Tool::Jobs1, Tool::Jobs2];
        if round % 2 == 0 {
            tools.reverse();
        }
        for tool in tools {
            let line = one(&stage, tool, changes).await.with_context(|| tool.title().to_owned())?;
            println!("  round {round} {}: {line}", tool.title());
        }
    }
    Ok(())
}

async fn one(stage: &Stage, tool: Tool, changes: u64) -> anyhow::Result<String> {
    let name = tool.name();
    stage.copy(name)?;
    stage.set_up(tool, name).await?;
    let postmaster = stage.cluster.pid().context("the server is gone")?;
    run(stage, tool).await?;
    let (transactions, rows) = (changes / IN_A_TRANSACTION, stage.rows);
    stage.cluster.psql(
        name,
        &format!(
            "set synchronous_commit = off;
             do $$ declare i int; begin for i in 1..{transactions} loop
                 update orders set v = v + 1, at = clock_timestamp()
                     where id in (select 1 + (i * 8::bigint + n) * 7919 % {rows} from generate_series(0, 7) n);
                 insert into orders (customer, k, pad) select 1 + i % 1000, i % 100000, 'new' from generate_series(0, 1);
                 commit;
             end loop; end $$"
        ),
    )?;
    let server = children_cpu_seconds(postmaster);
    let (seconds, client, lanes) = run(stage, tool).await?;
    let server = children_cpu_seconds(postmaster) - server;
    anyhow::ensure!(
        stage
            .cluster
            .psql(name, "select (select sum(v) from orders) = (select sum(v) from repcloud_new.orders)")?
            == "t"
    );
    stage.command_named("abort", tool, name)?.output().await?;
    stage.drop(name)?;
    Ok(format!(
        "{seconds:.2} s, {:.0} changes/s, CPU {client:.2} s client, {server:.2} s server; {lanes} position rows",
        changes as f64 / seconds
    ))
}

/// `prepare`: seconds, CPU seconds of the command, lanes.
async fn run(stage: &Stage, tool: Tool) -> anyhow::Result<(f64, f64, String)> {
    let mut command = stage.command_named("prepare", tool, tool.name())?;
    command.args(["--verify", "off"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let sampler = Sampler::start();
    let from = Instant::now();
    let child = command.spawn().context("cannot start it")?;
    sampler.watch("client", child.id().context("it has no pid")?);
    let output = child.wait_with_output().await?;
    let seconds = from.elapsed().as_secs_f64();
    let client = sampler.finish().get("client").map_or(0.0, |usage| usage.cpu_seconds);
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lanes = stage.cluster.psql(tool.name(), "select count(*) from repcloud.checkpoint")?;
    Ok((seconds, client, lanes))
}
