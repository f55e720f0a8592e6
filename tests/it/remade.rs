//! A target table that was dropped and made again holds not what was copied, and never streams on as if it did; one that was repacked does.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;
use crate::triggers::by_triggers;

const TABLES: &str = "
    CREATE TABLE public.good (id int PRIMARY KEY, v text);
    CREATE TABLE public.other (id int PRIMARY KEY, v text);
    INSERT INTO good VALUES (1, 'first');
    INSERT INTO other SELECT i, 'first' FROM generate_series(1, 10) i";
const BOTH: &str = "mode = \"dml\"\ntables = [\"public.good\", \"public.other\"]";
const MADE_AGAIN: &str = "DROP TABLE other; CREATE TABLE other (id int PRIMARY KEY, v text)";

async fn state(stream: &Stream) -> String {
    stream.target.value("SELECT state FROM repcloud.table_state WHERE target_table = 'public.other'").await
}

fn reset(stream: &Stream, how: &str) {
    let reset = ["reset", "--source", "prod", "--table", "public.other", how, "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
}

async fn recopied(stream: &Stream) {
    reset(stream, "--recopy");
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "other").await;
    assert_same(&stream.source, &stream.target, "good").await;
}

#[tokio::test]
async fn a_target_table_that_was_made_again_needs_another_copy() {
    for capture in ["slot", "trigger"] {
        let mut stream = Stream::new(TABLES, "", &[BOTH]).await;
        if capture == "trigger" {
            by_triggers(&mut stream, &[BOTH]);
        }
        stream.program = stream.program.env("REPCLOUD_PARK_PAUSE_SECONDS", "1");
        stream.catch_up();
        // While nobody streams.
        stream.target.exec(MADE_AGAIN).await;
        stream.source.exec("INSERT INTO other VALUES (11, 'x'); INSERT INTO good VALUES (2, 'x')").await;
        let told = stream.try_catch_up().expect_code(4);
        assert!(told.stderr.contains("target table public.other is another one"), "{told:?}");
        assert_eq!(state(&stream).await, "needs_copy", "{capture}");
        recopied(&stream).await;
        // It was parked, since it was gone.
        stream.target.exec("DROP TABLE other").await;
        stream.source.exec("INSERT INTO other VALUES (12, 'x')").await;
        stream.try_catch_up().expect_code(4);
        assert_eq!(state(&stream).await, "parked", "{capture}");
        stream.target.exec("CREATE TABLE other (id int PRIMARY KEY, v text)").await;
        stream.try_catch_up().expect_code(4);
        assert_eq!(state(&stream).await, "needs_copy", "{capture}");
        recopied(&stream).await;
        // While it runs; and the others go on.
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
        stream.target.exec(&format!("BEGIN; {MADE_AGAIN}; COMMIT")).await;
        wait::until("it is noticed", LIMIT, async || state(&stream).await == "needs_copy").await;
        stream.source.exec("INSERT INTO good VALUES (3, 'x')").await;
        wait::until("the other goes on", LIMIT, async || {
            stream.target.value("SELECT count(*) FROM good").await == "3"
        })
        .await;
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        // A person may say that the rows are right.
        stream.target.exec("INSERT INTO other SELECT i, 'first' FROM generate_series(1, 10) i; INSERT INTO other VALUES (11, 'x'), (12, 'x')").await;
        reset(&stream, "--accept-target");
        stream.source.exec("INSERT INTO other VALUES (13, 'x')").await;
        stream.catch_up();
        assert_same(&stream.source, &stream.target, "other").await;
        stream.target.exec(MADE_AGAIN).await;
        stream.try_catch_up().expect_code(4);
    }
}

#[tokio::test]
async fn a_target_table_that_was_repacked_streams_on() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    let repack = || {
        let repack = ["repack", "--connection", "copy", "--table", "public.other"];
        stream.program.run(&repack, LIMIT).expect_code(0);
    };
    let relation = async || stream.target.value("SELECT 'public.other'::regclass::oid").await;
    let before = relation().await;
    // Twice while nobody streams, and in ways that keep the relation.
    repack();
    repack();
    stream.target.exec("VACUUM FULL other").await;
    assert_ne!(relation().await, before);
    stream.source.exec("INSERT INTO other VALUES (11, 'x')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "other").await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    repack();
    stream.source.exec("INSERT INTO other VALUES (12, 'x')").await;
    wait::until("it goes on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM other").await == "12"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    // Its role could not write it down: what the repack itself recorded tells it.
    stream
        .target
        .exec("UPDATE repcloud.table_state SET target_oid = (SELECT table_oid FROM repcloud.repack WHERE shadow_oid = 'public.other'::regclass) WHERE target_table = 'public.other'")
        .await;
    stream.catch_up();
    // As after the restore of a dump, where every relation has another number.
    stream.target.exec("UPDATE repcloud.table_state SET target_oid = 1, state_oid = 2").await;
    stream.catch_up();
    assert_eq!(state(&stream).await, "streaming");
    // And from there on it is known again.
    stream.target.exec(MADE_AGAIN).await;
    stream.try_catch_up().expect_code(4);
}
