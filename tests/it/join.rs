//! A table that joins a running stream, or is copied again, holds up nobody, and gets each change once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::db::{Db, assert_same};
use crate::support::scaled;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;

pub(crate) const TABLES: &str = "
    CREATE TABLE public.old (id int PRIMARY KEY, v text);
    CREATE TABLE public.late (id int PRIMARY KEY, v text, big text);
    ALTER TABLE late ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE public.elsewhere (id int);
    INSERT INTO old SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO late SELECT i, 'first', repeat('x', 9000) FROM generate_series(1, 200) i";
pub(crate) const OLD: &str = "mode = \"dml\"\ntables = [\"public.old\"]";
pub(crate) const LATE: &str = "mode = \"dml\"\ntables = [\"public.late\"]";

fn add_late(stream: &Stream) {
    stream.program.write("config/default.toml", &configuration(&stream.pair, &[OLD, LATE]));
}

#[tokio::test]
async fn the_others_go_on_while_a_table_joins() {
    let stream = Stream::new(TABLES, "", &[OLD]).await;
    stream.catch_up();
    add_late(&stream);
    // The snapshot has to wait for it.
    let holder = Db::connect(&stream.pair.source, "app").await;
    holder.exec("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from slot")).await;
    stream.source.exec("INSERT INTO old VALUES (100, 'x'); UPDATE late SET v = 'early' WHERE id < 5; INSERT INTO late VALUES (300, 'early', 'b')").await;
    wait::until("the other table goes on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM old WHERE id = 100").await == "1"
    })
    .await;
    assert_eq!(stream.target.value("SELECT to_regclass('public.late') IS NULL").await, "t", "not copied yet");
    holder.exec("COMMIT").await;
    stream.source.exec("UPDATE late SET v = 'later' WHERE id < 3; DELETE FROM late WHERE id = 7; UPDATE late SET id = 400 WHERE id = 8").await;
    wait::until("it streams too", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'").await
            == "2"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("UPDATE late SET v = 'last' WHERE id = 1").await;
    stream.catch_up();
    for table in ["old", "late"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
    assert_eq!(stream.source.value("SELECT count(*) FROM pg_replication_slots").await, "1");
}

#[tokio::test]
async fn caught_up_means_with_the_tables_that_join() {
    let stream = Stream::new(TABLES, "", &[OLD]).await;
    stream.catch_up();
    add_late(&stream);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "late").await;
}

/// The source waits for a transaction before it gives a slot; who ends meanwhile leaves nothing there that goes on waiting.
#[tokio::test]
async fn a_stream_that_ends_while_a_slot_is_made_leaves_nobody_waiting_on_the_source() {
    let stream = Stream::new(TABLES, "", &[OLD]).await;
    let holder = Db::connect(&stream.pair.source, "app").await;
    for slot in ["repcloud_prod__copy", "repcloud_prod__copy_%"] {
        holder.exec("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        let being_made = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '{slot}' AND confirmed_flush_lsn IS NULL"
        );
        wait::until("a slot is being made", LIMIT, async || stream.source.value(&being_made).await == "1")
            .await;
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        let left = format!(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') + (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '{slot}')"
        );
        wait::until("nothing of it is left", LIMIT, async || stream.source.value(&left).await == "0").await;
        holder.exec("COMMIT").await;
        stream.catch_up();
        add_late(&stream);
    }
    assert_same(&stream.source, &stream.target, "late").await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_leaves_the_others_alone() {
    let stream = Stream::new(
        TABLES,
        "CREATE TABLE public.late (id int PRIMARY KEY, v text CHECK (v <> 'first'), big text)",
        &[OLD],
    )
    .await;
    stream.catch_up();
    add_late(&stream);
    stream.source.exec("INSERT INTO old VALUES (100, 'x')").await;
    let left = stream.try_catch_up().expect_code(4);
    assert!(
        left.stderr.contains("public.late needs another copy") && left.stderr.contains("late_v_check"),
        "{left:?}"
    );
    assert_same(&stream.source, &stream.target, "old").await;
    stream.target.exec("ALTER TABLE late DROP CONSTRAINT late_v_check").await;
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.late", "--recopy", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_while_a_table_joins() {
    killed_while_late_is_copied(Stream::new(TABLES, "", &[OLD, LATE]).await, Duration::from_secs(2)).await;
}

/// A table is copied again and again, and the process is killed at any moment of it, after `longest` at the latest, under changes to both.
pub(crate) async fn killed_while_late_is_copied(stream: Stream, longest: Duration) {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    stream.catch_up();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (stop, db) = (stop.clone(), Db::connect(&stream.pair.source, "app").await);
        async move {
            for n in 1000_u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (key, one) = (n % 150 + 1, n - 500);
                db.exec(&format!(
                    "BEGIN; INSERT INTO old VALUES ({n}, 'w'); INSERT INTO late VALUES ({n}, 'w', 'b'); UPDATE late SET v = '{n}' WHERE id = {key}; \
                     DELETE FROM late WHERE id = {one} AND id > 1000; COMMIT"
                ))
                .await;
            }
        }
    });
    for _ in 0..scaled(8, 40) {
        if random.random_bool(0.7) {
            stream
                .program
                .run(&["reset", "--source", "prod", "--table", "public.late", "--recopy", "--yes"], LIMIT)
                .expect_code(0);
        }
        let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
        // The moment is the test's subject.
        tokio::time::sleep(random.random_range(Duration::from_millis(100)..longest)).await;
        assert!(running.is_running(), "{}", running.stderr());
        running.kill();
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    stream.catch_up();
    for table in ["old", "late"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
}
