//! `kill -9` at random moments under load, with both servers stopped like a crash in between.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use repcloud::cluster::StopMode;

use super::load::{INVARIANT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::scaled;
use crate::support::stream::Stream;

/// What is stopped like a crash, beside the program that is killed in every round.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stopped {
    Nothing,
    Source,
    Target,
    /// Once the program is gone.
    TargetAfter,
    SourceAfter,
}

use Stopped::{Nothing, Source, SourceAfter, Target, TargetAfter};

/// The target now and then, the source seldom.
pub(crate) const MOSTLY_TARGET: [Stopped; 5] = [Nothing, Target, TargetAfter, Target, Source];
/// The source, while it has commits that it never wrote.
pub(crate) const MOSTLY_SOURCE: [Stopped; 5] = [Source, Target, Source, SourceAfter, Source];

/// Round after round, under `load`; then everything must have arrived. How many transactions were acknowledged.
pub(crate) async fn killed_at_random_moments(stream: &mut Stream, load: Load, stopped: [Stopped; 5]) -> u64 {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // Whatever way the source is read, the target is at every moment as the source once was.
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    for round in 0..scaled(10, 50) {
        let mut running = follow(stream);
        // The moment is the test's subject: anywhere between connecting and streaming for a while.
        let moment = Duration::from_millis(random.random_range(20..1500));
        tokio::time::sleep(moment).await;
        let now = stopped[round % stopped.len()];
        match now {
            Target => stream.pair.target.restart(StopMode::Immediate).unwrap(),
            Source => stream.pair.source.restart(StopMode::Immediate).unwrap(),
            Nothing | TargetAfter | SourceAfter => {}
        }
        assert!(running.is_running(), "it gave up: {}", running.stderr());
        running.kill();
        match now {
            TargetAfter => stream.pair.target.restart(StopMode::Immediate).unwrap(),
            SourceAfter => stream.pair.source.restart(StopMode::Immediate).unwrap(),
            Nothing | Source | Target => {}
        }
    }
    load.goes_on(20).await;
    let committed = load.stop().await;
    assert_all_arrived(stream).await;
    let looks = reader.stop().await;
    println!("{committed} transactions, {looks} looks");
    assert!(looks > 20, "the reader looked {looks} times only");
    committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_at_random_moments_nothing_is_lost_or_doubled() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    killed_at_random_moments(&mut stream, load, MOSTLY_TARGET).await;
}
