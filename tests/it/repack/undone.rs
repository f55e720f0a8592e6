//! Runs that are ended from outside: undone by another process, interrupted, frozen.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{LIMIT, Live, ORDERS};
use crate::support::process::Running;
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

async fn waiting(live: &Live, more: &[&str]) -> Running {
    let arguments = ["repack", "--table", "public.orders", "--postpone-swap", "--json"];
    let running = live.program.spawn(&[arguments.as_slice(), more].concat());
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    running
}

fn only(stdout: &str) -> Value {
    super::reports(stdout).into_iter().next_back().unwrap()
}

#[tokio::test]
async fn whoever_undoes_it_the_run_ends_in_one_way() {
    let live = Live::new(ORDERS, "").await;
    for undo in [["abort", "--table", "public.orders"].as_slice(), &["abort"], &["drop-schema"]] {
        let running = waiting(&live, &[]).await;
        live.program.run(undo, LIMIT).expect_code(0);
        let ended = running.wait(LIMIT).expect_code(1);
        let report = only(&ended.stdout);
        assert_eq!(report["outcome"], "aborted", "{undo:?}: {ended:?}");
        assert!(report["reason"].as_str().unwrap().contains("undone by another process"), "{ended:?}");
    }
    // So it ends where the one that undoes it came while the connection was lost.
    let running = waiting(&live, &[]).await;
    live.admin
        .exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND application_name LIKE 'repcloud%'")
        .await;
    live.command("abort", &TABLE).0.expect_code(0);
    let ended = running.wait(LIMIT).expect_code(1);
    assert_eq!(only(&ended.stdout)["outcome"], "aborted", "{ended:?}");
    live.assert_clean().await;
    let running = waiting(&live, &[]).await;
    live.program.run(&["stop"], LIMIT).expect_code(0);
    let ended = running.wait(LIMIT).expect_code(130);
    assert_eq!(only(&ended.stdout)["outcome"], "failed", "{ended:?}");
    assert_eq!(live.state().await, "verified");
}

#[tokio::test]
async fn an_interrupted_run_is_undone_where_that_was_asked_for() {
    let live = Live::new(ORDERS, "").await;
    let undo = ["--on-failure", "abort"];
    for way in ["interrupt", "terminate", "stop"] {
        let running = waiting(&live, &undo).await;
        match way {
            "interrupt" => running.interrupt(),
            "terminate" => running.terminate(),
            _ => drop(live.program.run(&["stop"], LIMIT).expect_code(0)),
        }
        let ended = running.wait(LIMIT).expect_code(130);
        let report = only(&ended.stdout);
        assert_eq!(report["outcome"], "aborted", "{way}: {ended:?}");
        assert!(report["reason"].as_str().unwrap().contains("stopped, and undone"), "{way}: {ended:?}");
        live.assert_clean().await;
    }
    // In the copy.
    let (live, _hold) = Live::held(ORDERS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--on-failure", "abort"]);
    live.copy_rests().await;
    running.interrupt();
    let ended = running.wait(LIMIT).expect_code(130);
    assert!(ended.stdout.contains("undone"), "{ended:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn a_frozen_process_is_ended_by_abort() {
    let live = Live::new(ORDERS, "").await;
    let running = waiting(&live, &[]).await;
    running.signal(Signal::STOP);
    let began = Instant::now();
    let (undone, reports) = live.command("abort", &TABLE);
    let undone = undone.expect_code(0);
    assert_eq!(reports[0]["outcome"], "aborted", "{undone:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(undone.stderr.contains("waiting for the process that works on it (pid "), "{undone:?}");
    live.assert_clean().await;
    running.signal(Signal::CONT);
    let ended = running.wait(LIMIT).expect_code(1);
    assert_eq!(only(&ended.stdout)["outcome"], "aborted", "{ended:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn a_process_frozen_in_the_copy_is_ended_by_abort() {
    let schema = "CREATE TABLE orders (id int PRIMARY KEY, v text);
        INSERT INTO orders SELECT i, repeat('x', 500) FROM generate_series(1, 40000) i; ANALYZE";
    let live = Live::new(schema, "").await;
    let blocker = live.session("postgres").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--json", "--jobs", "2"]);
    // Its rows cannot be written, until it is frozen in the middle of them.
    until("the copy is there", LIMIT, || async {
        live.admin.value("SELECT to_regclass('repcloud_new.orders') IS NOT NULL").await == "t"
    })
    .await;
    blocker.exec("BEGIN; LOCK TABLE repcloud_new.orders IN SHARE MODE").await;
    let writes = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'repcloud_new.orders'::regclass AND mode = 'RowExclusiveLock' AND NOT granted";
    until("rows wait to be written", LIMIT, || async { live.admin.value(writes).await == "t" }).await;
    running.signal(Signal::STOP);
    blocker.exec("COMMIT").await;
    let idle = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'repcloud_new.orders'::regclass \
        AND l.mode = 'RowExclusiveLock' AND l.granted AND a.state = 'idle in transaction'";
    until("a session of it holds a lock and waits for it", LIMIT, || async {
        live.admin.value(idle).await == "t"
    })
    .await;
    live.command("abort", &TABLE).0.expect_code(0);
    live.assert_clean().await;
    running.signal(Signal::CONT);
    running.wait(LIMIT).expect_code(1);
    live.assert_clean().await;
}

#[tokio::test]
async fn the_wait_for_a_frozen_process_can_be_interrupted() {
    let live = Live::new(ORDERS, "").await;
    let running = waiting(&live, &[]).await;
    running.signal(Signal::STOP);
    for signal in [Signal::INT, Signal::TERM] {
        let abort = live.program.spawn(&["abort", "--table", "public.orders", "--json"]);
        until("it waits", LIMIT, || async { abort.stderr().contains("waiting for the process") }).await;
        abort.signal(signal);
        let ended = abort.wait(Duration::from_secs(8)).expect_code(130);
        assert!(only(&ended.stdout)["reason"].as_str().unwrap().contains("stopped"), "{ended:?}");
    }
    assert_eq!(live.admin.value("SELECT request IS NULL FROM repcloud.repack").await, "t");
    running.signal(Signal::CONT);
    live.command("swap", &TABLE).0.expect_code(0);
    running.wait(LIMIT).expect_code(0);
    live.assert_clean().await;
}
