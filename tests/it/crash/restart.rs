//! Servers that restart under load: the process reconnects and goes on.

use std::time::{Duration, Instant};

use repcloud::cluster::StopMode;

use super::load::{INVARIANT, LIMIT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::db::Db;
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::wait;

/// Waits until what the source holds now has been applied by the running process.
async fn follows(stream: &Stream, load: &Load, running: &mut Running) {
    load.goes_on(5).await;
    let source = Db::connect(&stream.pair.source, "app").await;
    let position = source.value("SELECT pg_current_wal_lsn()").await;
    let target = Db::connect(&stream.pair.target, "app").await;
    let reached = format!("SELECT applied_lsn >= '{position}' FROM repcloud.checkpoint");
    wait::until("the stream follows again", LIMIT, async || {
        assert!(running.is_running(), "it gave up: {}", running.stderr());
        target.value(&reached).await == "t"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_servers_restart_under_load() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    let mut running = follow(&stream);
    follows(&stream, &load, &mut running).await;
    for mode in [StopMode::Fast, StopMode::Immediate] {
        let began = Instant::now();
        stream.pair.source.stop(mode).unwrap();
        let took = began.elapsed();
        // A walsender that is not confirmed holds a fast shutdown up for wal_sender_timeout, a minute.
        assert!(took < Duration::from_secs(20), "the source took {took:?} to stop");
        println!("the source stopped {mode:?} in {took:?}");
        stream.pair.source.start().unwrap();
        follows(&stream, &load, &mut running).await;
        stream.pair.target.restart(mode).unwrap();
        follows(&stream, &load, &mut running).await;
    }
    // Both at once, and away for a while.
    stream.pair.target.stop(StopMode::Immediate).unwrap();
    stream.pair.source.restart(StopMode::Fast).unwrap();
    load.goes_on(50).await;
    stream.pair.target.start().unwrap();
    follows(&stream, &load, &mut running).await;
    let committed = load.stop().await;
    running.terminate();
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stderr.contains("trying again"), "{finished:?}");
    assert_all_arrived(&mut stream).await;
    println!("{committed} transactions, {} looks", reader.stop().await);
}

/// A source that stops while nothing happens is not held up either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_source_stops_at_once() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 1);
    let mut running = follow(&stream);
    follows(&stream, &load, &mut running).await;
    load.stop().await;
    let began = Instant::now();
    stream.pair.source.restart(StopMode::Fast).unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "the source took {took:?} to restart");
    let load = Load::start(&stream.pair.source, 1);
    follows(&stream, &load, &mut running).await;
    load.stop().await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    assert_all_arrived(&mut stream).await;
}
