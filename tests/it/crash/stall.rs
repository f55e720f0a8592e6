//! A target that stands still does not cost the connection to the source.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{LIMIT, follow};
use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::stream::Stream;
use crate::support::wait;

const STALL: Duration = Duration::from_secs(20);

async fn walsender(source: &Db) -> String {
    source.value("SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots").await
}

/// At first a trickle comes in, which is read; then more than our queues take: reading rests, signs of life go on.
#[tokio::test]
async fn a_target_that_stalls_for_longer_than_the_source_is_patient() {
    let pair = Pair::start_with(builder("source").setting("wal_sender_timeout", "2s"), builder("target"));
    let schema = "CREATE TABLE public.t (id bigserial PRIMARY KEY, v text)";
    let stream = Stream::over(pair, schema, "", &["mode = \"dml\"\ntables = [\"public.t\"]"]).await;
    stream.catch_up();
    let mut running = follow(&stream);
    wait::until("the slot is read", LIMIT, async || walsender(&stream.source).await != "0").await;
    let before = walsender(&stream.source).await;
    stream.target.exec("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let end = Instant::now() + STALL;
    while Instant::now() < end {
        let rows = if end - Instant::now() > STALL / 2 { 1 } else { 3000 };
        let insert = format!("INSERT INTO t (v) SELECT repeat('x', 100) FROM generate_series(1, {rows})");
        stream.source.exec(&insert).await;
        assert_eq!(
            walsender(&stream.source).await,
            before,
            "the source gave the connection up: {}",
            running.stderr()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stream.target.exec("COMMIT").await;
    let count = stream.source.value("SELECT count(*) FROM t").await;
    wait::until("what came in during the stall arrives", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value("SELECT count(*) FROM t").await == count
    })
    .await;
    assert_eq!(walsender(&stream.source).await, before, "the connection was made anew: {}", running.stderr());
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    assert_same(&stream.source, &stream.target, "t").await;
}
