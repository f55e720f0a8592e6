//! A process that was frozen while another took its place cannot write any more.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::load::{INVARIANT, LIMIT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::db::Db;
use crate::support::stream::Stream;
use crate::support::wait;

/// Sessions of the target that hold the stream's lock: they alone, or all of repcloud's.
const LOCK_HOLDER: &str =
    "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 7300102)";
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
    // More than once: a walsender whose client takes nothing in blocks in its own farewell.
    wait::until("the slot is free", LIMIT, async || stream.source.value(walsender).await == "0").await;
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
    let began = Instant::now();
    wait::until("changes flow", LIMIT * 2, async || {
        assert!(running.is_running() && began.elapsed() < LIMIT, "{}", running.stderr());
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

/// The session that writes: it holds the writers' lock.
const WRITER: &str =
    "SELECT coalesce(min(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7300103";

async fn gone(target: &Db, pid: &str) -> bool {
    target.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await == "0"
}

/// The killed process's COMMIT is still under way when the next one starts: it must not come after the next one has read
/// the position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_under_way_when_its_process_is_killed() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    for _ in 0..2 {
        let mut first = follow(&stream);
        flows(&stream, &mut first).await;
        let writer = stream.target.value(WRITER).await;
        let session = Pid::from_raw(writer.parse().unwrap()).unwrap();
        kill_process(session, Signal::STOP).unwrap();
        load.goes_on(20).await;
        first.kill();
        let mut second = follow(&stream);
        let ending = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%terminate_backend%' AND pid <> pg_backend_pid()";
        wait::until("the next process ends the session", LIMIT, async || {
            assert!(second.is_running(), "{}", second.stderr());
            stream.target.value(ending).await != "0"
        })
        .await;
        kill_process(session, Signal::CONT).unwrap();
        flows(&stream, &mut second).await;
        assert!(gone(&stream.target, &writer).await);
        second.kill();
    }
    load.stop().await;
    assert_all_arrived(&mut stream).await;
    reader.stop().await;
}

/// A killed process's session waits for a lock; it does not hold the next process up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_waits_for_a_lock_when_its_process_is_killed() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let user = Db::connect(&stream.pair.target, "app").await;
    user.exec("BEGIN; SELECT FROM accounts WHERE id = 7 FOR UPDATE").await;
    let first = follow(&stream);
    stream.source.exec("UPDATE accounts SET note = 'first' WHERE id IN (3, 7)").await;
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'repcloud%')";
    wait::until("it waits for the row", LIMIT, async || stream.target.value(waits).await == "t").await;
    let writer = stream.target.value(WRITER).await;
    first.kill();
    let mut second = follow(&stream);
    wait::until("the session is gone", LIMIT, async || {
        assert!(second.is_running(), "{}", second.stderr());
        gone(&stream.target, &writer).await
    })
    .await;
    wait::until("the next one waits for the row", LIMIT, async || stream.target.value(waits).await == "t")
        .await;
    user.exec("COMMIT").await;
    wait::until("the change arrives", LIMIT, async || {
        stream.target.value("SELECT note FROM accounts WHERE id = 7").await == "first"
    })
    .await;
    second.kill();
    assert_all_arrived(&mut stream).await;
}
