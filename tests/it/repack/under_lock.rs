//! What goes wrong while the table is locked for the exchange: the application goes on within `--max-lock-ms`, and what became of
//! the exchange is known afterwards.

use std::time::{Duration, Instant};

use super::{LIMIT, Live, ORDERS};
use crate::support::process::Running;
use crate::support::proxy::{Proxy, Trap};
use crate::support::wait::until;

const MAX_LOCK: &str = "1000";

/// A server that is reached through a network that can fall silent.
async fn behind_a_proxy() -> (Live, Proxy) {
    let live = Live::new(ORDERS, "").await;
    let proxy = Proxy::start(live.cluster.port());
    let config = format!(
        "[connections.live]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"app\"\ndatabase = \"app\"\nsslmode = \"disable\"\n",
        proxy.port()
    );
    live.program.write("config/default.toml", &config);
    (live, proxy)
}

async fn ready_to_swap(live: &Live) -> Running {
    let running = live.program.spawn(&[
        "repack",
        "--json",
        "--table",
        "public.orders",
        "--postpone-swap",
        "--max-lock-ms",
        MAX_LOCK,
        "--attempts",
        "50",
    ]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    running
}

/// Lets the exchange begin and returns when it holds the lock, in the middle of its statements: each of them was made slow.
async fn caught_under_the_lock(live: &Live) {
    live.admin
        .exec(
            "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); END';
             CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
        )
        .await;
    live.admin.exec("UPDATE repcloud.repack SET request = 'swap'").await;
    until("it holds the lock", LIMIT, || async { live.admin.value(HOLDERS).await != "0" }).await;
}

const HOLDERS: &str = "SELECT count(*) FROM pg_locks WHERE relation = 'public.orders'::regclass AND mode = 'AccessExclusiveLock' AND granted";

/// One change of the application, which must not wait for longer than the lock may be held (twice: the server ends a frozen
/// transaction after as long again), and a moment.
async fn writes_on(live: &Live) {
    let writer = live.session("writer").await;
    let began = Instant::now();
    writer.exec("UPDATE orders SET total = total + 1 WHERE id = 1").await;
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(4), "the application waited {waited:?}");
}

/// It ends well, with the rows it should have.
async fn ends_exchanged(live: &Live, running: Running) {
    let before = live.admin.table_hash("orders").await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stdout.contains("\"swapped\""), "{finished:?}");
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_network_that_falls_silent_gives_the_lock_back() {
    let (live, proxy) = behind_a_proxy().await;
    let running = ready_to_swap(&live).await;
    caught_under_the_lock(&live).await;
    proxy.cut();
    live.admin.exec("DROP EVENT TRIGGER slow").await;
    writes_on(&live).await;
    ends_exchanged(&live, running).await;
}

#[tokio::test]
async fn a_session_that_is_ended_under_the_lock_gives_it_back() {
    let live = Live::new(ORDERS, "").await;
    let running = ready_to_swap(&live).await;
    caught_under_the_lock(&live).await;
    let end = HOLDERS.replace("count(*)", "count(pg_terminate_backend(pid))");
    assert_ne!(live.admin.value(&end).await, "0");
    live.admin.exec("DROP EVENT TRIGGER slow").await;
    writes_on(&live).await;
    ends_exchanged(&live, running).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_for_and_not_repeated() {
    lost_at_commit(true).await;
}

#[tokio::test]
async fn a_commit_that_never_arrives_is_looked_for_and_tried_again() {
    lost_at_commit(false).await;
}

async fn lost_at_commit(deliver: bool) {
    let (live, proxy) = behind_a_proxy().await;
    let oid = live.admin.value("SELECT 'orders'::regclass::oid").await;
    let running = ready_to_swap(&live).await;
    let copy = live.admin.value("SELECT 'repcloud_new.orders'::regclass::oid").await;
    proxy.set_trap(Trap { text: "COMMIT; SELECT pg_catalog.extract('epoch'", deliver });
    live.admin.exec("UPDATE repcloud.repack SET request = 'swap'").await;
    until("COMMIT was sent", LIMIT, || async { proxy.sprung() }).await;
    writes_on(&live).await;
    let now = live.admin.value("SELECT 'orders'::regclass::oid").await;
    assert_eq!(now, if deliver { copy.clone() } else { oid });
    ends_exchanged(&live, running).await;
    assert_eq!(live.admin.value("SELECT 'orders'::regclass::oid").await, copy, "it was exchanged once");
}
