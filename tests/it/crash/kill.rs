//! `kill -9` at random moments under load, with both servers stopped like a crash in between.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use repcloud::cluster::StopMode;

use super::load::{INVARIANT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::scaled;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_at_random_moments_nothing_is_lost_or_doubled() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    for round in 0..scaled(10, 50) {
        let mut running = follow(&stream);
        // The moment is the test's subject: anywhere between connecting and streaming for a while.
        let moment = Duration::from_millis(random.random_range(20..1500));
        tokio::time::sleep(moment).await;
        match round % 5 {
            1 | 3 => stream.pair.target.restart(StopMode::Immediate).unwrap(),
            4 => stream.pair.source.restart(StopMode::Immediate).unwrap(),
            _ => {}
        }
        assert!(running.is_running(), "it gave up: {}", running.stderr());
        running.kill();
        if round % 5 == 2 {
            stream.pair.target.restart(StopMode::Immediate).unwrap();
        }
    }
    load.goes_on(20).await;
    let committed = load.stop().await;
    assert_all_arrived(&mut stream).await;
    let looks = reader.stop().await;
    println!("{committed} transactions, {looks} looks");
    assert!(looks > 20, "the reader looked {looks} times only");
}
