//! A process that was frozen while another took its place cannot write any more.

use rustix::process::Signal;

use super::load::{INVARIANT, LIMIT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::stream::Stream;
use crate::support::wait;

/// Sessions of the target that hold the stream's lock: they alone, or all of repcloud's.
const LOCK_HOLDER: &str = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 7300102)";
const ALL: &str = "true";

async fn frozen_and_replaced(ends: &str) {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    let mut first = follow(&stream);
    flows(&stream, &mut first).await;
    first.signal(Signal::STOP);
    let sessions = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'repcloud%' AND {ends}"
    );
    assert_ne!(stream.target.value(&sessions).await, "0");
    let walsender = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE active";
    stream.source.exec(walsender).await;
    let mut second = follow(&stream);
    flows(&stream, &mut second).await;
    first.signal(Signal::CONT);
    let finished = first.wait(LIMIT).expect_code(1);
    assert!(finished.stderr.contains("taken over"), "{finished:?}");
    load.goes_on(20).await;
    flows(&stream, &mut second).await;
    load.stop().await;
    second.terminate();
    second.wait(LIMIT).expect_code(0);
    assert_all_arrived(&mut stream).await;
    reader.stop().await;
}

/// Waits until more changes have arrived.
async fn flows(stream: &Stream, running: &mut crate::support::process::Running) {
    let count = "SELECT count(*) FROM events";
    let before: u64 = stream.target.value(count).await.parse().unwrap();
    wait::until("changes flow", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value(count).await.parse::<u64>().unwrap() > before + 10
    })
    .await;
}

/// All its sessions are gone, as after a restart of the target: it would connect anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_without_sessions_finds_the_stream_taken_over() {
    frozen_and_replaced(ALL).await;
}

/// Only the session with the lock is gone: its writing session is alive, with a transaction perhaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_with_a_writing_session_cannot_commit() {
    frozen_and_replaced(LOCK_HOLDER).await;
}
