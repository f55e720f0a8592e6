//! What is asked of running repacks.

use std::time::{Duration, Instant};

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TWO: &str = "CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one SELECT generate_series(1, 100);
    CREATE TABLE two (id int PRIMARY KEY); INSERT INTO two SELECT generate_series(1, 200); ANALYZE";

/// The tables that a process works on now.
async fn working(live: &Live) -> String {
    if live.admin.value("SELECT to_regclass('repcloud.repack') IS NULL").await == "t" {
        return String::new();
    }
    let sql = "SELECT coalesce(string_agg(table_name || ' ' || state, ',' ORDER BY table_name), '') FROM repcloud.repack r \
         WHERE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 7300104 AND objid = r.table_oid)";
    live.admin.value(sql).await
}

#[tokio::test]
async fn stop_ends_the_process_and_abort_takes_one_table_from_it() {
    let live = Live::new(TWO, "").await;
    let arguments = ["repack", "--table", "public.one", "--table", "public.two", "--postpone-swap", "--json"];
    let running = live.program.spawn(&arguments);
    until("one is ready", LIMIT, || async { working(&live).await.ends_with("verified") }).await;
    let first = working(&live).await;
    let (table, other) = if first.starts_with("one") { ("one", "two") } else { ("two", "one") };
    live.command("abort", &["--table", &format!("public.{table}")]).0.expect_code(0);
    until("the other is ready", LIMIT, || async { working(&live).await == format!("{other} verified") })
        .await;
    live.program.run(&["stop", "--connection", "live"], LIMIT).expect_code(0);
    running.wait(LIMIT).expect_code(130);
    let running = live.program.spawn(&arguments);
    until("one is ready", LIMIT, || async { working(&live).await.ends_with("verified") }).await;
    live.program.run(&["stop"], LIMIT).expect_code(0);
    let ended = running.wait(LIMIT).expect_code(130);
    assert_eq!(ended.stdout.lines().count(), 1, "it does not go on with the other table: {ended:?}");
    live.command("abort", &[]).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn drop_schema_ends_what_runs_and_says_so() {
    let live = Live::new(TWO, "").await;
    let spawn = |table: &str| {
        live.program.spawn(&[
            "repack",
            "--table",
            table,
            "--table",
            "public.one",
            "--postpone-swap",
            "--json",
        ])
    };
    let first = live.program.spawn(&["repack", "--table", "public.one", "--postpone-swap", "--json"]);
    until("one is ready", LIMIT, || async { working(&live).await == "one verified" }).await;
    let second = spawn("public.two");
    until("both run", LIMIT, || async { working(&live).await.ends_with("two verified") }).await;
    let dropped = live.program.run(&["drop-schema"], LIMIT).expect_code(0);
    assert!(dropped.stderr.contains("nothing of repcloud is left"), "{dropped:?}");
    for running in [first, second] {
        let ended = running.wait(LIMIT).expect_code(1);
        assert!(ended.stdout.contains("undone by another process"), "{ended:?}");
    }
    assert_eq!(
        live.admin.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'").await,
        "0"
    );
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}

#[tokio::test]
async fn a_pause_holds_up_copy_and_exchange() {
    let (live, hold) = Live::held(ORDERS, "").await;
    let mut running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
    let reason =
        |live: &Live| live.program.json(&["status"], LIMIT)["repacks"][0]["throttled_by"].to_string();
    until("it rests", LIMIT, || async { reason(&live).contains("throttle_file") }).await;
    live.program.run(&["pause"], LIMIT).expect_code(0);
    until("it is paused", LIMIT, || async { reason(&live).contains("repcloud pause") }).await;
    std::fs::remove_file(&hold).unwrap();
    live.program.run(&["resume", "--connection", "live"], LIMIT).expect_code(0);
    // And where it waits for locks.
    let reader = live.session("reader").await;
    reader.exec("BEGIN; SELECT count(*) FROM orders").await;
    until("it tries to swap", LIMIT, || async {
        live.admin.value("SELECT coalesce(max(attempt), 0) FROM repcloud.repack").await != "0"
    })
    .await;
    live.program.run(&["pause"], LIMIT).expect_code(0);
    until("it was heard", LIMIT, || async { running.stderr().contains("waiting for `repcloud resume`") })
        .await;
    reader.exec("COMMIT").await;
    assert!(running.is_running());
    assert_eq!(live.state().await, "verified");
    live.program.run(&["resume"], LIMIT).expect_code(0);
    running.wait(LIMIT).expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_running_copy_is_throttled_and_let_run_again() {
    let (live, hold) = Live::held(TWO, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.one"]);
    live.copy_rests().await;
    let throttle = |rate: &str| {
        let told = live.program.json(&["throttle", "--connection", "live", "--max-wal-rate", rate], LIMIT);
        assert_eq!(told["asked"][0], "live: public.one");
    };
    throttle("1kB");
    let heard = "SELECT request IS NULL FROM repcloud.repack";
    until("it was heard", LIMIT, || async { live.admin.value(heard).await == "t" }).await;
    live.owner.exec("CREATE TABLE noise (v text)").await;
    // The rate is measured over a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        noise(&live).await;
    }
    std::fs::remove_file(&hold).unwrap();
    until("the copy rests for the WAL", LIMIT, || async {
        noise(&live).await;
        live.admin
            .value("SELECT coalesce(throttled_by, '') FROM repcloud.repack")
            .await
            .contains("max_wal_rate")
    })
    .await;
    throttle("off");
    until("it goes on", LIMIT, || async {
        noise(&live).await;
        live.state().await == "cleaned"
    })
    .await;
    running.wait(LIMIT).expect_code(0);
}

async fn noise(live: &Live) {
    live.owner.exec("INSERT INTO noise SELECT repeat('x', 100) FROM generate_series(1, 1000)").await;
}
