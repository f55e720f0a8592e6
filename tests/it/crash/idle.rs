//! A source that has nothing for us does not keep its WAL for us.

use std::time::Duration;

use super::load::{durable_pair, follow};
use crate::support::cluster::builder;
use crate::support::db::Db;
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::wait;

/// An idle position is written every ten seconds.
const SOON: Duration = Duration::from_secs(25);

/// Waits until the slot has confirmed `position`, and looks on the way that it never passes the checkpoint.
async fn confirmed(stream: &Stream, running: &mut Running, position: &str) {
    wait::until("the slot is confirmed", SOON, async || {
        assert!(running.is_running(), "{}", running.stderr());
        // The slot first: the checkpoint may only have grown since.
        let slot = stream.source.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
        let fresh = Db::connect(&stream.pair.target, "app").await;
        let ahead = format!("SELECT '{slot}'::pg_lsn > applied_lsn FROM repcloud.checkpoint");
        assert_eq!(fresh.value(&ahead).await, "f", "the slot, at {slot}, has passed the checkpoint");
        stream.source.value(&format!("SELECT '{slot}'::pg_lsn >= '{position}'::pg_lsn")).await == "t"
    })
    .await;
}

#[tokio::test]
async fn idle_and_unpublished_sources_are_confirmed() {
    let schema =
        "CREATE TABLE public.t (id int PRIMARY KEY); CREATE TABLE public.unpublished (id int, v text)";
    let entries = &["mode = \"dml\"\ntables = [\"public.t\"]"];
    let stream = Stream::over(durable_pair(builder("source")), schema, "", entries).await;
    stream.catch_up();
    let mut running = follow(&stream);
    stream.source.exec("INSERT INTO t VALUES (1)").await;
    let position = "SELECT pg_current_wal_lsn()";
    confirmed(&stream, &mut running, &stream.source.value(position).await).await;

    for _ in 0..3 {
        stream
            .source
            .exec("INSERT INTO unpublished SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i")
            .await;
    }
    confirmed(&stream, &mut running, &stream.source.value(position).await).await;

    // No transaction at all, yet WAL.
    stream.source.exec("SELECT pg_switch_wal(); CHECKPOINT").await;
    confirmed(&stream, &mut running, &stream.source.value(position).await).await;

    // A transaction that is rolled back leaves WAL and no commit.
    stream.source.exec("BEGIN; INSERT INTO t SELECT generate_series(10, 20000); ROLLBACK").await;
    confirmed(&stream, &mut running, &stream.source.value(position).await).await;
    running.terminate();
    running.wait(SOON).expect_code(0);
    assert_eq!(stream.target.value("SELECT count(*) FROM t").await, "1");
}
