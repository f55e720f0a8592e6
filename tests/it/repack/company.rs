//! Who else is there: readers with old snapshots, long and short ones, maintenance, big transactions. The application never queues
//! for longer than one attempt to get the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use repcloud::cluster::StopMode;
use tokio::task::JoinHandle;

use super::{LIMIT, Live, ORDERS, connect};
use crate::support::db::Db;
use crate::support::process::Running;
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

/// One attempt (500 ms by default) and a busy machine.
const TOO_LONG: Duration = Duration::from_secs(2);

/// Runs the same statement again and again; its slowest run.
struct Client {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u32, Duration)>,
}

impl Client {
    async fn start(live: &Live, role: &str, sql: &'static str) -> Client {
        let db = connect(&live.cluster, role).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut runs, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                db.exec(sql).await;
                slowest = slowest.max(began.elapsed());
                runs += 1;
            }
            (runs, slowest)
        });
        Client { stop, task }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (runs, slowest) = self.task.await.expect("a client failed");
        assert!(runs > 0 && slowest < TOO_LONG, "{runs} runs, the slowest took {slowest:?}");
    }
}

const WRITE: &str = "UPDATE orders SET total = total + 1 WHERE id = 11";

async fn ready(live: &Live) -> Running {
    let arguments = ["repack", "--json", "--table", "public.orders", "--postpone-swap", "--attempts", "1000"];
    let running = live.program.spawn(&arguments);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    running
}

async fn ask_for_swap(live: &Live) {
    live.admin.exec("UPDATE repcloud.repack SET request = 'swap'").await;
}

async fn attempts(live: &Live) -> i32 {
    live.admin.value("SELECT max(attempt) FROM repcloud.repack").await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_before_the_copy_is_waited_for() {
    let live = Live::new(ORDERS, "").await;
    let old = live.session("reader").await;
    old.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let pid = old.value("SELECT pg_backend_pid()").await;
    let running = live.program.spawn(&["repack", "--json", "--table", "public.orders"]);
    let told = format!("waiting for transactions with an older snapshot (pid {pid})");
    until("it waits", LIMIT, || async { running.stderr().contains(&told) }).await;
    assert_eq!(old.value("SELECT count(*) FROM orders").await, "3000");
    let writer = Client::start(&live, "writer", WRITE).await;
    old.exec("COMMIT").await;
    running.wait(LIMIT).expect_code(0);
    writer.finish().await;
    live.assert_clean().await;
}

#[tokio::test]
async fn a_snapshot_from_after_the_copy_sees_every_row_after_the_exchange() {
    let live = Live::new(ORDERS, "").await;
    let running = ready(&live).await;
    let reader = live.session("reader").await;
    reader.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    live.session("writer").await.exec("DELETE FROM orders WHERE id > 3000").await;
    live.command("swap", &TABLE).0.expect_code(0);
    running.wait(LIMIT).expect_code(0);
    assert_eq!(reader.value("SELECT count(*) FROM orders").await, "3000", "as of its snapshot");
    reader.exec("COMMIT").await;
    assert_eq!(reader.value("SELECT count(*) FROM orders").await, "1500");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_query_is_waited_for_in_short_attempts() {
    let live = Live::new(ORDERS, "").await;
    let running = ready(&live).await;
    let reader = live.session("reader").await;
    let long = tokio::spawn(async move { reader.exec("SELECT count(*), pg_sleep(3) FROM orders").await });
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("the long query runs", LIMIT, || async { live.admin.value(sleeping).await == "1" }).await;
    let writer = Client::start(&live, "writer", WRITE).await;
    ask_for_swap(&live).await;
    until("an attempt was given up", LIMIT, || async { attempts(&live).await > 0 }).await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stderr.contains("the locks were not granted, in the way: pid"), "{finished:?}");
    long.await.expect("the long query is not disturbed");
    writer.finish().await;
    live.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_short_readers_does_not_keep_it_from_the_exchange() {
    let live = Live::new(ORDERS, "").await;
    let mut clients = Vec::new();
    for sql in ["SELECT count(*) FROM orders", "SELECT n FROM big_count", "SELECT * FROM orders WHERE id = 7"]
    {
        clients.push(Client::start(&live, "reader", sql).await);
    }
    clients.push(Client::start(&live, "writer", WRITE).await);
    let running = ready(&live).await;
    ask_for_swap(&live).await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stdout.contains("\"swapped\""), "{finished:?}");
    for client in clients {
        client.finish().await;
    }
    live.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_of_the_copy_is_named_and_waited_for() {
    let live = Live::new(ORDERS, "lock_timeout = \"100ms\"").await;
    let running = ready(&live).await;
    // It takes a few seconds, as one of a large table would.
    let vacuum = connect(&live.cluster, "app").await;
    vacuum.exec("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 5").await;
    vacuum.exec("UPDATE repcloud_new.orders SET total = total WHERE id % 3 = 0").await;
    let pid = vacuum.value("SELECT pg_backend_pid()").await;
    let vacuum = tokio::spawn(async move { vacuum.try_exec("VACUUM (FREEZE) repcloud_new.orders").await });
    let held = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE pid = {pid} AND relation = 'repcloud_new.orders'::regclass"
    );
    until("it vacuums", LIMIT, || async { live.admin.value(&held).await == "t" }).await;
    let writer = Client::start(&live, "writer", WRITE).await;
    ask_for_swap(&live).await;
    until("an attempt was given up", LIMIT, || async { attempts(&live).await > 0 }).await;
    live.admin.exec(&format!("SELECT pg_cancel_backend({pid})")).await;
    let finished = running.wait(LIMIT).expect_code(0);
    // Perhaps with the writer, whose turn it was.
    let named = |line: &str| line.contains("in the way: ") && line.contains(&format!("pid {pid}"));
    assert!(finished.stderr.lines().any(named), "{finished:?}");
    let _cancelled = vacuum.await.unwrap();
    writer.finish().await;
    live.assert_clean().await;
}

#[tokio::test]
async fn big_transactions_with_savepoints_in_the_copy() {
    let schema = "CREATE TABLE big (id int PRIMARY KEY, v int NOT NULL, u int UNIQUE);
        INSERT INTO big SELECT i, 0, i FROM generate_series(1, 1000) i; ANALYZE";
    let (live, hold) = Live::held(schema, "").await;
    let running = live.program.spawn(&["repack", "--json", "--table", "public.big", "--verify", "full"]);
    live.copy_rests().await;
    let writer = live.session("writer").await;
    writer
        .exec(
            "SET synchronous_commit = off;
             BEGIN; INSERT INTO big SELECT i, 1, i FROM generate_series(1001, 101000) i;
             SAVEPOINT a; UPDATE big SET v = -1; ROLLBACK TO a;
             SAVEPOINT b; UPDATE big SET v = v + 1 WHERE id % 2 = 0; RELEASE b;
             SAVEPOINT c; DELETE FROM big WHERE id % 10 = 0; RELEASE c; COMMIT;
             BEGIN; DELETE FROM big; ROLLBACK",
        )
        .await;
    writer.exec("UPDATE big SET u = -u WHERE id <= 50000").await;
    std::fs::remove_file(&hold).unwrap();
    let before = live.admin.table_hash("big").await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stdout.contains("\"swapped\""), "{finished:?}");
    assert_eq!(live.admin.table_hash("big").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_prepared_transaction_of_another_database_is_named() {
    let mut live = Live::new(ORDERS, "").await;
    live.cluster.configure("max_prepared_transactions", "5").expect("a setting");
    live.cluster.restart(StopMode::Fast).expect("a restart");
    live.cluster.create_database("other").expect("a database");
    live.admin = Db::connect(&live.cluster, "app").await;
    let other = Db::connect(&live.cluster, "other").await;
    other.exec("BEGIN; CREATE TABLE x (id int); PREPARE TRANSACTION 'gone'").await;
    let running = live.program.spawn(&["repack", "--json", "--table", "public.orders"]);
    until("it is named", LIMIT, || async {
        running.stderr().contains("for the end of prepared transaction 'gone' (database other, ")
    })
    .await;
    other.exec("COMMIT PREPARED 'gone'").await;
    running.wait(LIMIT).expect_code(0);
}
