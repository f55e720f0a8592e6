//! The five-minute tour: two private servers, load, a stream, a crash, a comparison, a table rebuilt under load, and nothing
//! left behind.
//!
//! `tour` tells the story, `stage` sets it, `stream` runs the product as a user would, `pgbench` is the application,
//! `compare` judges, `repack` is the second act with `clients` of its own, and `narrator` speaks.

mod clients;
mod compare;
mod narrator;
mod pgbench;
mod repack;
mod stage;
mod stream;
mod tour;

use anyhow::Context as _;

use crate::cli::args::{DemoArgs, Global};
use crate::cli::report::{Exit, Failure};
use crate::cli::wiring::block_on;
use crate::service::shutdown::{Asked, Shutdown};

/// Runs the tour; whatever ends it, servers, files and processes of its own are gone afterwards.
pub(super) fn run(global: &Global, args: &DemoArgs) -> Result<Exit, Failure> {
    block_on(async {
        let shutdown = Shutdown::listen().context("cannot listen for signals")?;
        let narrator = narrator::Narrator::new(global);
        let mut stop = shutdown.stop.clone();
        let outcome = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            outcome = tour::run(&narrator, args) => Some(outcome),
        };
        // Dropping the tour has ended its processes and removed its servers and files.
        match (outcome, shutdown.asked()) {
            (Some(outcome), None) => outcome,
            (_, Some(Asked::Interrupt)) => {
                narrator.note("Interrupted; servers, files and processes of the demo are gone.")?;
                Ok(Exit::Interrupted)
            }
            _ => Err(Failure::new(
                Exit::Failed,
                anyhow::anyhow!("the demo was told to end before it was done"),
            )),
        }
    })
}
