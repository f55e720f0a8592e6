//! A table that joins a stream by triggers, or is copied again, holds up nobody, and gets each change once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cluster::Pair;
use crate::support::db::{Db, assert_same};
use crate::support::scaled;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;
use crate::triggers::{by_triggers, stream};

const TABLES: &str = "
    CREATE TABLE public.old (id int PRIMARY KEY, v text);
    CREATE TABLE public.late (id int PRIMARY KEY, v text, big text);
    ALTER TABLE late ALTER big SET STORAGE EXTERNAL;
    INSERT INTO old SELECT i, 'first' FROM generate_series(1, 20) i;
    INSERT INTO late SELECT i, 'first', repeat('x', 9000) FROM generate_series(1, 200) i";
const OLD: &str = "mode = \"dml\"\ntables = [\"public.old\"]";
const LATE: &str = "mode = \"dml\"\ntables = [\"public.late\"]";

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

/// A table is copied again and again, and the process is killed at any moment of it, under changes to both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_while_a_table_is_copied() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stream = stream(Pair::start(), TABLES, &[OLD, LATE]).await;
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
            let reset = ["reset", "--source", "prod", "--table", "public.late", "--recopy", "--yes"];
            stream.program.run(&reset, LIMIT).expect_code(0);
        }
        let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
        // The moment is the test's subject.
        tokio::time::sleep(Duration::from_millis(random.random_range(100..3000))).await;
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
