//! A table that joins a stream by triggers, or is copied again, holds up nobody, and gets each change once.

use std::time::Duration;

use crate::join::{LATE, OLD, TABLES, killed_while_late_is_copied};
use crate::support::cluster::Pair;
use crate::support::db::{Db, assert_same};
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;
use crate::triggers::{by_triggers, stream};

async fn streaming(stream: &Stream) -> bool {
    stream.target.value("SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'").await == "2"
}

#[tokio::test]
async fn the_others_go_on_while_a_table_is_copied() {
    let mut stream = stream(Pair::start(), TABLES, &[OLD]).await;
    stream.catch_up();
    // Its copy cannot write.
    let holder = Db::connect(&stream.pair.target, "app").await;
    holder.exec("CREATE TABLE late (id int PRIMARY KEY, v text, big text)").await;
    holder.exec("BEGIN; LOCK TABLE late IN SHARE MODE").await;
    by_triggers(&mut stream, &[OLD, LATE]);
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it is being copied", LIMIT, async || running.stderr().contains("copying public.late")).await;
    stream.source.exec("INSERT INTO old VALUES (100, 'x'); UPDATE late SET v = 'early' WHERE id < 5; INSERT INTO late VALUES (300, 'early', 'b')").await;
    wait::until("the other table goes on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM old WHERE id = 100").await == "1"
    })
    .await;
    wait::until("its changes wait in the target", LIMIT, async || {
        stream.target.value("SELECT count(*) > 0 FROM repcloud.parked").await == "t"
    })
    .await;
    holder.exec("COMMIT").await;
    stream.source.exec("UPDATE late SET v = 'later' WHERE id < 3; DELETE FROM late WHERE id = 7; UPDATE late SET id = 400 WHERE id = 8").await;
    wait::until("it streams too", LIMIT, async || streaming(&stream).await).await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("UPDATE late SET v = 'last' WHERE id = 1").await;
    stream.catch_up();
    for table in ["old", "late"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_while_a_table_is_copied() {
    let stream = stream(Pair::start(), TABLES, &[OLD, LATE]).await;
    killed_while_late_is_copied(stream, Duration::from_secs(3)).await;
}
