//! The oracle: a random workload goes to a native subscription and to us, and both copies equal the source.

mod compare;
mod statements;
mod tables;
mod values;
mod world;
mod writers;

use std::ops::RangeInclusive;

use crate::support::cluster::{Pair, has_wal2json};
use crate::support::scaled;

use world::{Capture, World};
use writers::Writers;

/// One seed: rows before the copy, a copy while writers write, a running stream, a backlog.
async fn seed(pair: &Pair, seed: u64, capture: Capture) {
    let tables = if capture == Capture::Wal2json { tables::all_finite() } else { tables::all() };
    let mut world = World::new(pair, tables, seed, capture).await;
    let mut writers = Writers::connect(&world.conninfo, 4, seed).await;
    let tables = world.tables().to_vec();
    // Each write is two with triggers.
    let acts = scaled(if capture == Capture::Trigger { 240 } else { 400 }, 600);
    writers.run(&tables, acts / 2).await;
    writers.settle().await;

    world.forget_deletions().await;
    world.start();
    world.wait_for_snapshot().await;
    writers.run(&tables, acts / 4).await;
    if seed.is_multiple_of(3) {
        world.kill_and_start();
    }
    writers.run(&tables, acts / 4).await;
    writers.settle().await;
    world.wait_for_copy().await;
    writers.run(&tables, acts).await;
    writers.settle().await;
    world.compare("with the stream running").await;

    writers.run(&tables, acts).await;
    writers.settle().await;
    world.compare("after a backlog").await;
    println!("seed {seed}: {:?}", writers.tally);
    world.finish().await;
}

/// Every third seed kills the program while it copies. `REPCLOUD_TEST_SEED` runs one seed alone.
async fn seeds(numbers: RangeInclusive<u64>, capture: Capture) {
    let chosen = std::env::var("REPCLOUD_TEST_SEED").ok();
    let numbers = match chosen.map(|text| text.parse().expect("REPCLOUD_TEST_SEED is a number")) {
        Some(number) => number..=number,
        None => numbers,
    };
    let pair = world::servers();
    for number in numbers {
        seed(&pair, number, capture).await;
    }
}

/// Seeds 1 and 2 found: `-` as a regclass, updates of rows without a key that hold a bool or an inet, equal logdel keys
/// spelt differently, tables truncated between snapshot and copy, TRUNCATE under a foreign key of the target.
#[tokio::test]
async fn scaled_random_workloads_arrive_everywhere() {
    seeds(1..=scaled(2, 100), Capture::Pgoutput).await;
}

#[tokio::test]
async fn scaled_random_workloads_arrive_after_a_kill_in_the_copy() {
    seeds(102..=scaled(102, 200), Capture::Pgoutput).await;
}

/// Without NaN and infinities: the plugin that Debian has cannot send them.
#[tokio::test]
async fn scaled_random_workloads_arrive_by_wal2json() {
    if has_wal2json() {
        seeds(301..=scaled(301, 360), Capture::Wal2json).await;
    }
}

/// By a role that may use no slot. The seed kills the program in the copy, so that ticks are read again.
#[tokio::test]
async fn scaled_random_workloads_arrive_by_triggers() {
    seeds(402..=scaled(402, 460), Capture::Trigger).await;
}
