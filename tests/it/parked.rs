//! A table that is stopped waits beside the stream: the others go on, and nothing of it is lost or doubled.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::db::assert_same;
use crate::support::process::Running;
use crate::support::scaled;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;

const TABLES: &str = "
    CREATE TABLE public.good (id int PRIMARY KEY, v text);
    CREATE TABLE public.bad (id int PRIMARY KEY, v text, big text, n numeric);
    ALTER TABLE bad ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE public.whole (id int, v text, big text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    INSERT INTO good SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO bad SELECT i, 'first', repeat('x', 9000), i FROM generate_series(1, 20) i;
    INSERT INTO whole SELECT i, 'first', repeat('x', 9000) FROM generate_series(1, 20) i";
const DML: &str = "mode = \"dml\"\ntables = [\"public.good\", \"public.bad\", \"public.whole\"]";

async fn streaming() -> Stream {
    let mut stream = Stream::new(TABLES, "", &[DML]).await;
    stream.program = stream.program.env("REPCLOUD_PARK_PAUSE_SECONDS", "1");
    stream.catch_up();
    stream
}

fn follow(stream: &Stream) -> Running {
    stream.program.spawn(&["stream", "--source", "prod"])
}

/// Changes of every kind, in transactions that both tables share.
const CHANGES: &str = "
    BEGIN; INSERT INTO good VALUES (100, 'a'); INSERT INTO bad VALUES (100, 'wrong', 'b', 'NaN'); COMMIT;
    UPDATE bad SET v = 'kept' WHERE id = 3;
    UPDATE bad SET id = 203 WHERE id = 3;
    UPDATE bad SET v = '', big = NULL, n = 0.10 WHERE id = 4;
    DELETE FROM bad WHERE id = 5;
    BEGIN; INSERT INTO bad VALUES (5, E'\"again\" \\\\ \\t \\001 😀', repeat('y', 3000), 1); SAVEPOINT s; DELETE FROM bad; ROLLBACK TO s; UPDATE good SET v = 'b' WHERE id = 1; COMMIT;
    UPDATE bad SET id = id + 1000";

#[tokio::test]
async fn a_row_that_is_rejected_holds_up_its_own_table_alone() {
    let stream = streaming().await;
    stream.target.exec("ALTER TABLE bad ADD CONSTRAINT no_wrong CHECK (v <> 'wrong')").await;
    stream.source.exec(CHANGES).await;
    let parked = stream.try_catch_up().expect_code(4);
    assert!(
        parked.stderr.contains("public.bad is parked") && parked.stderr.contains("no_wrong"),
        "{parked:?}"
    );
    assert_same(&stream.source, &stream.target, "good").await;
    assert_eq!(stream.target.value("SELECT count(*) FROM bad WHERE v = 'first'").await, "20");

    let status = stream.program.json(&["status"], LIMIT);
    let tables = status["streams"][0]["tables"].as_array().unwrap();
    let bad = tables.iter().find(|t| t["target_table"] == "public.bad").unwrap();
    assert_eq!((&bad["state"], bad["parked_changes"].as_u64().unwrap() > 20), (&Value::from("parked"), true));
    assert!(bad["error"].as_str().unwrap().contains("no_wrong"), "{bad}");

    // More comes while it waits; then the cause goes.
    stream
        .source
        .exec(
            "TRUNCATE bad; INSERT INTO bad VALUES (7, 'after', NULL, 7); INSERT INTO good VALUES (8000, 'c')",
        )
        .await;
    stream.try_catch_up().expect_code(4);
    assert_same(&stream.source, &stream.target, "good").await;
    stream.target.exec("ALTER TABLE bad DROP CONSTRAINT no_wrong").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "bad").await;
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
    let state = "SELECT state || parked_changes || parked_bytes || coalesce(error, '') FROM repcloud.table_state WHERE target_table = 'public.bad'";
    assert_eq!(stream.target.value(state).await, "streaming00");
}

#[tokio::test]
async fn a_running_stream_tries_again_by_itself() {
    let stream = streaming().await;
    let running = follow(&stream);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from slot")).await;
    stream
        .target
        .exec(
            "ALTER TABLE bad ADD CONSTRAINT no_wrong CHECK (v <> 'wrong'); ALTER TABLE whole RENAME TO away",
        )
        .await;
    stream.source.exec(CHANGES).await;
    stream
        .source
        .exec("UPDATE whole SET v = 'kept' WHERE id = 3; UPDATE whole SET big = 'z' WHERE id = 4; DELETE FROM whole WHERE id = 6; INSERT INTO whole VALUES (7, NULL, '')")
        .await;
    wait::until("both wait", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM repcloud.table_state WHERE state = 'parked'").await == "2"
    })
    .await;
    stream.source.exec("INSERT INTO good VALUES (8000, 'c')").await;
    wait::until("the others go on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM good WHERE id = 8000").await == "1"
    })
    .await;
    stream.target.exec("ALTER TABLE bad DROP CONSTRAINT no_wrong; ALTER TABLE away RENAME TO whole").await;
    wait::until("both are back", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'").await
            == "3"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    for table in ["good", "bad", "whole"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
}

#[tokio::test]
async fn tables_tied_by_foreign_keys_wait_together() {
    let schema = "CREATE TABLE public.parent (id int PRIMARY KEY, v text); CREATE TABLE public.child (id int PRIMARY KEY, parent int);
        CREATE TABLE public.alone (id int PRIMARY KEY)";
    let there = "CREATE TABLE public.parent (id int PRIMARY KEY, v text CHECK (v <> 'wrong'));
        CREATE TABLE public.child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE)";
    let tables = "mode = \"dml\"\ntables = [\"public.parent\", \"public.child\", \"public.alone\"]";
    let stream = Stream::new(schema, there, &[tables]).await;
    stream.catch_up();
    stream.source.exec("INSERT INTO parent VALUES (1, 'wrong'); INSERT INTO child VALUES (1, 1); INSERT INTO alone VALUES (1)").await;
    stream
        .source
        .exec(
            "TRUNCATE parent, child; INSERT INTO parent VALUES (2, 'wrong'); INSERT INTO child VALUES (2, 2)",
        )
        .await;
    let parked = stream.try_catch_up().expect_code(4);
    assert!(parked.stderr.contains("public.child is parked"), "{parked:?}");
    let states = "SELECT string_agg(target_table || ' ' || state, ',' ORDER BY target_table) FROM repcloud.table_state";
    assert_eq!(
        stream.target.value(states).await,
        "public.alone streaming,public.child parked,public.parent parked"
    );
    assert_eq!(stream.target.value("SELECT count(*) FROM alone").await, "1");
    assert_eq!(stream.target.value("SELECT count(*) FROM child").await, "0");
    stream.target.exec("ALTER TABLE parent DROP CONSTRAINT parent_v_check").await;
    stream.catch_up();
    for table in ["parent", "child", "alone"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
}

#[tokio::test]
async fn beyond_the_limit_the_table_needs_another_copy() {
    let mut stream = streaming().await;
    stream.program = stream.program.env("REPCLOUD_PARK_CHANGES", "50");
    stream.target.exec("ALTER TABLE bad ADD CONSTRAINT no_wrong CHECK (v <> 'wrong')").await;
    stream.source.exec("INSERT INTO bad VALUES (100, 'wrong')").await;
    let running = follow(&stream);
    wait::until("it is parked", LIMIT, async || running.stderr().contains("public.bad is parked")).await;
    stream
        .source
        .exec(
            "INSERT INTO bad SELECT i FROM generate_series(1000, 1100) i; INSERT INTO good VALUES (200, 'x')",
        )
        .await;
    wait::until("it is given up", LIMIT, async || running.stderr().contains("public.bad is given up")).await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
    let left = stream.try_catch_up().expect_code(4);
    assert!(
        left.stderr.contains("reset --source prod --table public.bad --recopy")
            && left.stderr.contains("no_wrong"),
        "{left:?}"
    );
    assert_same(&stream.source, &stream.target, "good").await;
    stream.target.exec("ALTER TABLE bad DROP CONSTRAINT no_wrong").await;
    let reset = ["reset", "--source", "prod", "--table", "public.bad", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "bad").await;
}

#[tokio::test]
async fn a_transaction_that_waits_may_be_left_out() {
    let stream = streaming().await;
    stream.target.exec("DELETE FROM bad WHERE id = 2").await;
    stream
        .source
        .exec("BEGIN; UPDATE bad SET v = 'x' WHERE id = 2; UPDATE good SET v = 'x' WHERE id = 2; COMMIT")
        .await;
    stream.source.exec("UPDATE bad SET v = 'y' WHERE id = 3; INSERT INTO bad VALUES (2000, 'z') ").await;
    stream.try_catch_up().expect_code(4);
    stream.try_catch_up().expect_code(4);
    let conflicts =
        "SELECT string_agg(resolution || ' ' || operation, ',' ORDER BY id) FROM repcloud.conflict";
    assert_eq!(
        stream.target.value(conflicts).await,
        "stopped update",
        "told once, however often it is tried"
    );
    assert_same(&stream.source, &stream.target, "good").await;
    let lsn = stream.target.value("SELECT DISTINCT commit_lsn FROM repcloud.conflict").await;
    let told = stream.program.run(&["skip", "--source", "prod", "--lsn", &lsn], LIMIT).expect_code(0);
    assert!(
        told.stdout.contains("that wait for public.bad") && told.stdout.contains("in the target already"),
        "{told:?}"
    );
    stream.catch_up();
    assert_eq!(stream.target.value(conflicts).await, "stopped update,skipped update");
    stream.source.exec("DELETE FROM bad WHERE id = 2").await;
    stream.target.exec("INSERT INTO bad VALUES (2)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "bad").await;
}

#[tokio::test]
async fn a_target_of_version_1_is_brought_up_to_date() {
    let stream = streaming().await;
    stream
        .target
        .exec(
            "DROP TABLE repcloud.parked; ALTER TABLE repcloud.table_state DROP source_oid, DROP target_oid, DROP state_oid, DROP parked_with, DROP parked_changes, DROP parked_bytes, \
             DROP CONSTRAINT table_state_state_check, ADD CONSTRAINT table_state_state_check CHECK (state IN ('copying', 'streaming', 'needs_copy', 'failed')); \
             ALTER TABLE repcloud.durability DROP request; DROP TABLE repcloud.dropped; DELETE FROM repcloud.version WHERE version > 1",
        )
        .await;
    let status = stream.program.json(&["status"], LIMIT);
    assert_eq!(status["streams"][0]["tables"][0]["state"], "streaming");
    stream.source.exec(CHANGES).await;
    stream.target.exec("ALTER TABLE bad ADD CONSTRAINT no_wrong CHECK (v <> 'wrong')").await;
    stream.try_catch_up().expect_code(4);
    assert_eq!(stream.target.value("SELECT max(version) FROM repcloud.version").await, "6");
    stream.target.exec("ALTER TABLE bad DROP CONSTRAINT no_wrong").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "bad").await;
}

/// The cause comes and goes, the process is killed at any moment of it, and the changes never rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_while_tables_wait_and_come_back() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stream = streaming().await;
    for round in 0..scaled(8, 40) {
        let running = follow(&stream);
        for step in 0..random.random_range(2..6) {
            let id = 10_000 + round * 100 + step;
            let v = if random.random_bool(0.4) { "wrong" } else { "fine" };
            stream
                .source
                .exec(&format!(
                    "BEGIN; INSERT INTO bad VALUES ({id}, '{v}', 'b', 0); INSERT INTO good VALUES ({id}, '{v}'); \
                     UPDATE bad SET n = n + 1 WHERE id % 7 = {round} % 7; COMMIT; UPDATE whole SET v = '{id}' WHERE id = 1"
                ))
                .await;
            if random.random_bool(0.5) {
                stream.target.exec("ALTER TABLE bad DROP CONSTRAINT IF EXISTS no_wrong").await;
            } else {
                stream.target.exec("ALTER TABLE bad DROP CONSTRAINT IF EXISTS no_wrong, ADD CONSTRAINT no_wrong CHECK (v <> 'wrong') NOT VALID").await;
            }
            // The moment is the test's subject.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        }
        running.kill();
    }
    stream.target.exec("ALTER TABLE bad DROP CONSTRAINT IF EXISTS no_wrong").await;
    stream.catch_up();
    for table in ["good", "bad", "whole"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
}
