//! `repcloud repack` beside `VACUUM FULL`, pg_repack and the old repcloud: every tool on its own copy of the same bloated
//! table, on one machine, in one run, idle and under load.
//!
//! `make bench-repack` runs it and writes the figures into `benches/README.md` and `benches/repack.svg`; `--quick` is a trial at
//! small size that writes nothing; `--only NAME,NAME` runs some of the tools; `--rounds N`; `--rows N`; `--catch-up CHANGES` measures
//! nothing but the catch-up, with one and two lanes.
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
mod catch_up;
mod load;
#[path = "../shared/machine.rs"]
mod machine;
#[path = "../shared/processes.rs"]
mod processes;
#[path = "../shared/readme.rs"]
mod readme;
mod report;
mod run;
mod stage;
mod tools;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::report::Report;
use crate::stage::Stage;
use crate::tools::Tool;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rows: u64,
    pub(crate) rounds: usize,
    pub(crate) only: Vec<String>,
    pub(crate) write: bool,
    pub(crate) bin: PathBuf,
    /// Measure only how long a catch-up with so many changes takes.
    pub(crate) catch_up: Option<u64>,
}

impl Options {
    fn parse() -> anyhow::Result<Self> {
        // Another build of the program may be measured; else the one this run was built with.
        let bin = std::env::var_os("REPCLOUD_BENCH_BIN")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_repcloud")), PathBuf::from);
        let mut options =
            Options { rows: 1_000_000, rounds: 3, only: Vec::new(), write: true, bin, catch_up: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => (options.rows, options.rounds, options.write) = (100_000, 1, false),
                "--dry" => options.write = false,
                "--rounds" => options.rounds = value()?.parse()?,
                "--rows" => (options.rows, options.write) = (value()?.parse()?, false),
                "--catch-up" => (options.catch_up, options.write) = (Some(value()?.parse()?), false),
                "--only" => {
                    (options.only, options.write) = (value()?.split(',').map(str::to_owned).collect(), false);
                }
                other => bail!(
                    "unknown argument {other:?}; known: --quick, --dry, --rounds N, --rows N, --only NAME,NAME, --catch-up CHANGES"
                ),
            }
        }
        Ok(options)
    }

    fn wants(&self, tool: Tool) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == tool.name())
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match options.catch_up {
        Some(changes) => runtime.block_on(catch_up::measure(&options, changes)),
        None => runtime.block_on(measure(&options)),
    }
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::begin(options);
    let stage = Stage::start(options)?;
    let mut tools: Vec<Tool> = tools::ALL.into_iter().filter(|tool| options.wants(*tool)).collect();
    tools.retain(|tool| match stage.missing(*tool) {
        None => true,
        Some(why) => {
            println!("{} is left out: {why}", tool.title());
            report.left_out.push((*tool, why));
            false
        }
    });
    for loaded in [false, true] {
        println!("{}", if loaded { "under load" } else { "idle" });
        for round in 0..options.rounds {
            // In another order each time.
            for turn in 0..tools.len() {
                let tool = tools[(round + turn) % tools.len()];
                let measured =
                    run::run(&stage, tool, loaded).await.with_context(|| tool.title().to_owned())?;
                println!("  round {} {}: {}", round + 1, tool.title(), measured.line());
                report.add(tool, loaded, measured);
            }
        }
    }
    report.end();
    println!("{}", report.text());
    if options.write { report.write() } else { Ok(()) }
}
