//! Asked to end under load, the process ends soon and in order, and the next one goes on.

use std::time::Duration;

use super::load::{INVARIANT, Load, Reader, assert_all_arrived, durable_pair, follow, loaded_stream};
use crate::support::cluster::builder;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_and_interrupted_under_load() {
    let mut stream = loaded_stream(durable_pair(builder("source"))).await;
    let load = Load::start(&stream.pair.source, 2);
    let reader = Reader::start(&stream.pair.target, INVARIANT);
    for (code, interrupt) in [(0, false), (130, true), (0, false), (130, true)] {
        let before: u64 = stream.target.value("SELECT count(*) FROM events").await.parse().unwrap();
        let mut running = follow(&stream);
        wait::until("changes flow", SOON, async || {
            assert!(running.is_running(), "{}", running.stderr());
            stream.target.value("SELECT count(*) FROM events").await.parse::<u64>().unwrap() > before + 10
        })
        .await;
        if interrupt {
            running.interrupt()
        } else {
            running.terminate()
        }
        running.wait(SOON).expect_code(code);
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'repcloud%'";
        wait::until("its sessions are gone", SOON, async || {
            stream.target.value(idle).await == "0" && stream.source.value(idle).await == "0"
        })
        .await;
    }
    load.stop().await;
    assert_all_arrived(&mut stream).await;
    reader.stop().await;
}

/// Before anything flows: while it waits for a slot that cannot be made yet.
#[tokio::test]
async fn terminated_while_the_slot_is_made() {
    let schema = "CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let stream =
        crate::support::stream::Stream::new(schema, "", &["mode = \"dml\"\ntables = [\"public.t\"]"]).await;
    stream.source.exec("BEGIN; INSERT INTO t VALUES (2)").await;
    let other = crate::support::db::Db::connect(&stream.pair.source, "app").await;
    let running = follow(&stream);
    wait::until("the slot is being made", SOON, async || {
        other.value("SELECT count(*) FROM pg_replication_slots").await == "1"
    })
    .await;
    running.terminate();
    running.wait(SOON).expect_code(0);
    stream.source.exec("COMMIT").await;
    stream.catch_up();
    crate::support::db::assert_same(&stream.source, &stream.target, "t").await;
}
