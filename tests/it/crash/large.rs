//! Transactions of the source that are too large for memory: whole in the target, or not there at all.

use std::time::Duration;

use super::load::{LIMIT, Reader, durable_pair, follow};
use crate::support::cluster::builder;
use crate::support::db::assert_same;
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::{scaled, wait};

const SCHEMA: &str = "CREATE TABLE public.big (id bigint PRIMARY KEY, a text, b numeric, c timestamptz);
    CREATE TABLE public.other (id bigint PRIMARY KEY)";

/// Row 1 is written first and row 0 last.
const WHOLE: &str =
    "SELECT CASE WHEN EXISTS (SELECT FROM big WHERE id = 1) = EXISTS (SELECT FROM big WHERE id = 0)
    THEN '' ELSE 'a part of a transaction' END";

async fn big_stream() -> Stream {
    let entries = &["mode = \"dml\"\ntables = [\"public.big\"]"];
    let stream = Stream::over(durable_pair(builder("source")), SCHEMA, "", entries).await;
    stream.catch_up();
    stream
}

fn insert(rows: u64) -> String {
    format!(
        "BEGIN;
         INSERT INTO big SELECT i, md5(i::text), i * 1.5, '2024-01-01'::timestamptz + i * interval '1 s' FROM generate_series(1, {rows}) i;
         UPDATE big SET a = 'changed' WHERE id % 10 = 0;
         INSERT INTO big VALUES (0, 'the last', 0, now());
         COMMIT"
    )
}

/// Waits until rows of the open transaction lie in the target's files.
async fn in_the_middle(stream: &Stream, running: &mut Running) {
    wait::until("the large transaction has begun to be written", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        let bytes: i64 = stream.target.value("SELECT pg_relation_size('big')").await.parse().unwrap();
        bytes > 1 << 20
    })
    .await;
    assert_eq!(
        stream.target.value("SELECT count(*) FROM big WHERE id = 1").await,
        "0",
        "too late for the middle"
    );
}

/// The most memory a process has had, in megabytes.
fn peak_memory(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kilobytes / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_a_large_transaction_is_seen_whole_or_not_at_all() {
    let stream = big_stream().await;
    let reader = Reader::start(&stream.pair.target, WHOLE);
    let mut running = follow(&stream);
    stream.source.exec(&insert(scaled(200_000, 2_000_000))).await;
    wait::until("the transaction arrives", LIMIT * 5, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value("SELECT count(*) FROM big WHERE id = 0").await == "1"
    })
    .await;
    let peak = peak_memory(&running);
    println!("peak memory {peak} MB, {} looks", reader.stop().await);
    assert!(peak <= 64, "the process has had {peak} MB");
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "big").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_large_transaction() {
    let stream = big_stream().await;
    let reader = Reader::start(&stream.pair.target, WHOLE);
    let mut running = follow(&stream);
    stream.source.exec(&insert(100_000)).await;
    in_the_middle(&stream, &mut running).await;
    running.kill();
    stream.catch_up();
    reader.stop().await;
    assert_same(&stream.source, &stream.target, "big").await;
}

/// A position that still waits to be written must not take the half of a transaction with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_the_middle_of_a_large_transaction() {
    let stream = big_stream().await;
    let reader = Reader::start(&stream.pair.target, WHOLE);
    let mut running = follow(&stream);
    stream.source.exec("INSERT INTO big VALUES (-1)").await;
    wait::until("the stream runs", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM big").await == "1"
    })
    .await;
    // Not published: a position without rows.
    for id in 0..20 {
        stream.source.exec(&format!("INSERT INTO other VALUES ({id})")).await;
    }
    stream.source.exec(&insert(150_000)).await;
    in_the_middle(&stream, &mut running).await;
    running.terminate();
    running.wait(Duration::from_secs(15)).expect_code(0);
    assert_eq!(stream.target.value("SELECT count(*) FROM big").await, "1", "a part of a transaction stayed");
    stream.catch_up();
    reader.stop().await;
    assert_same(&stream.source, &stream.target, "big").await;
}

/// The source stands still in the middle of a transaction for longer than an idle position may wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_rests_in_the_middle_of_a_large_transaction() {
    let stream = big_stream().await;
    let reader = Reader::start(&stream.pair.target, WHOLE);
    let mut running = follow(&stream);
    stream.source.exec("INSERT INTO big VALUES (-1)").await;
    wait::until("the stream runs", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM big").await == "1"
    })
    .await;
    for id in 0..20 {
        stream.source.exec(&format!("INSERT INTO other VALUES ({id})")).await;
    }
    let walsender: i32 =
        stream.source.value("SELECT active_pid FROM pg_replication_slots").await.parse().unwrap();
    let walsender = rustix::process::Pid::from_raw(walsender).unwrap();
    stream.source.exec(&insert(150_000)).await;
    in_the_middle(&stream, &mut running).await;
    rustix::process::kill_process(walsender, rustix::process::Signal::STOP).unwrap();
    // Longer than the ten seconds after which an idle position is written.
    tokio::time::sleep(Duration::from_secs(12)).await;
    rustix::process::kill_process(walsender, rustix::process::Signal::CONT).unwrap();
    wait::until("the transaction arrives", LIMIT * 2, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value("SELECT count(*) FROM big WHERE id = 0").await == "1"
    })
    .await;
    reader.stop().await;
    assert_same(&stream.source, &stream.target, "big").await;
}

/// Rows that exchange unique values in a transaction of several groups, after rows that do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_that_exchanges_unique_values() {
    let schema = "CREATE TABLE public.pairs (id int PRIMARY KEY, u int NOT NULL UNIQUE, note text);
        INSERT INTO pairs SELECT i, i, 'note' FROM generate_series(1, 30000) i";
    let stream = Stream::new(schema, "", &["mode = \"dml\"\ntables = [\"public.pairs\"]"]).await;
    stream.catch_up();
    let exchange = "DO $$ BEGIN
            UPDATE pairs SET note = 'touched' WHERE id <= 12000;
            FOR i IN 12001..30000 - 1 BY 2 LOOP
                UPDATE pairs SET u = -i WHERE id = i;
                UPDATE pairs SET u = i WHERE id = i + 1;
                UPDATE pairs SET u = i + 1 WHERE id = i;
            END LOOP;
            UPDATE pairs SET u = -u;
            UPDATE pairs SET u = 40000 + u;
        END $$";
    stream.source.exec(exchange).await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "pairs").await;
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.conflict").await, "0");
}
