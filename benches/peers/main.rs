//! Side by side with the alternatives: `pg_recvlogical` to nowhere (what decoding one slot costs), PostgreSQL's own
//! subscription, and `repcloud stream`, on one machine, in one run, over the same backlog; and of capture by triggers with mimeo.
//!
//! `make bench-peers` runs it and writes the figures into `benches/README.md` and `benches/peers.svg`; `--quick` is a
//! trial at small size that writes nothing; `--only NAME,NAME` runs some of the workloads; `--rounds N`.
// A benchmark may stop at the first surprise.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../shared/bars.rs"]
mod bars;
mod copy;
mod drain;
mod latency;
#[path = "../shared/machine.rs"]
mod machine;
#[path = "../shared/processes.rs"]
mod processes;
mod queues;
#[path = "../shared/readme.rs"]
mod readme;
mod report;
mod stage;
mod workload;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::report::Report;
use crate::stage::Stage;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) only: Vec<String>,
    pub(crate) write: bool,
    pub(crate) bin: PathBuf,
}

impl Options {
    fn parse() -> anyhow::Result<Self> {
        // Another build of the program may be measured; else the one this run was built with.
        let bin = std::env::var_os("REPCLOUD_BENCH_BIN")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_repcloud")), PathBuf::from);
        let mut options = Options { quick: false, rounds: 3, only: Vec::new(), write: true, bin };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => (options.quick, options.rounds, options.write) = (true, 1, false),
                "--dry" => options.write = false,
                "--rounds" => {
                    options.rounds = arguments.next().context("--rounds needs a number")?.parse()?
                }
                "--only" => {
                    let names = arguments.next().context("--only needs names")?;
                    options.only = names.split(',').map(str::to_owned).collect();
                    options.write = false;
                }
                other => {
                    bail!("unknown argument {other:?}; known: --quick, --dry, --rounds N, --only NAME,NAME")
                }
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// One of two numbers, by size.
    pub(crate) fn size(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::begin(options);
    let stage = Stage::start(options)?;
    for workload in workload::all(options) {
        if options.wants(workload.name) {
            println!("{}: {} changes, {} rounds", workload.title, workload.changes, options.rounds);
            report.drains.push(drain::run(&stage, &workload, options.rounds).await?);
        }
    }
    if options.wants("copy") {
        report.copy = Some(copy::run(&stage, options).await?);
    }
    if options.wants("latency") {
        report.latency = Some(latency::run(&stage, options).await?);
    }
    if options.wants("queues") {
        report.queues = Some(queues::run(&stage, options).await?);
    }
    report.end();
    println!("{}", report.text());
    if options.write { report.write() } else { Ok(()) }
}
