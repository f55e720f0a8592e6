//! The oracle: a random workload goes to a native subscription and to us, and both copies equal the source.

mod compare;
mod statements;
mod tables;
mod values;
mod world;
mod writers;

use crate::support::cluster::Pair;
use crate::support::scaled;

use world::World;
use writers::Writers;

/// One seed: rows before the copy, a copy while writers write, a running stream, a backlog.
async fn seed(pair: &Pair, seed: u64) {
    let mut world = World::new(pair, tables::all(), seed).await;
    let mut writers = Writers::connect(&world.conninfo, 4, seed).await;
    let tables = world.tables().to_vec();
    let acts = scaled(400, 1500);
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

/// Seeds that once found something, and those that follow; `REPCLOUD_TEST_SEED` runs one alone.
#[tokio::test]
async fn scaled_random_workloads_arrive_everywhere() {
    let chosen = std::env::var("REPCLOUD_TEST_SEED")
        .ok()
        .map(|text| text.parse().expect("REPCLOUD_TEST_SEED is a number"));
    let pair = world::servers();
    match chosen {
        Some(number) => seed(&pair, number).await,
        None => {
            for number in 1..=scaled(2, 200) {
                seed(&pair, number).await;
            }
        }
    }
}
