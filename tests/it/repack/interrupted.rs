//! Repacks that are cut off, and what becomes of them.

use std::time::Duration;

use rand::Rng;
use repcloud::cluster::StopMode;

use super::load::{Load, TABLES, assert_journal, schema};
use super::{Capture, LIMIT, Live, ORDERS, THROTTLED};
use crate::support::scaled;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_at_any_moment_it_goes_on_or_is_undone() {
    killed_at_any_moment(Capture::Pgoutput).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_at_any_moment_by_triggers_it_goes_on_or_is_undone() {
    killed_at_any_moment(Capture::Trigger).await;
}

async fn killed_at_any_moment(capture: Capture) {
    let live = Live::by(capture, &schema(scaled(3_000, 30_000)), "").await;
    let load = Load::start(&live, 2).await;
    for round in 0..scaled(6, 50) {
        let table = format!("public.t{}", round % TABLES);
        let arguments = ["repack", "--table", &table, "--attempts", "200", "--no-progress"];
        let running = live.program.spawn(&arguments);
        let millis = rand::rng().random_range(0..900);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        running.kill();
        let before = live.state().await;
        let (finished, reports) = tokio::task::block_in_place(|| {
            if round % 2 == 0 {
                live.repack(&arguments[1..arguments.len() - 1])
            } else {
                live.command("abort", &["--table", &table])
            }
        });
        let finished = finished.expect_code(0);
        let wanted = if round % 2 == 0 { ["swapped"].as_slice() } else { ["aborted", "swapped"].as_slice() };
        let outcome = reports[0]["outcome"].as_str().unwrap();
        assert!(
            wanted.contains(&outcome),
            "round {round}, killed after {millis} ms in state {before}: {finished:?}"
        );
        live.assert_clean().await;
    }
    let journal = load.finish().await;
    assert_journal(&live, &journal).await;
}

#[tokio::test]
async fn killed_in_the_copy_it_begins_anew_and_abort_leaves_nothing() {
    killed_in_the_copy(Capture::Pgoutput).await;
}

#[tokio::test]
async fn killed_in_the_copy_by_triggers_it_begins_anew_and_abort_leaves_nothing() {
    killed_in_the_copy(Capture::Trigger).await;
}

async fn killed_in_the_copy(capture: Capture) {
    let (live, hold) = Live::by(capture, ORDERS, THROTTLED).await.hold();
    let made = match capture {
        Capture::Trigger => "SELECT count(*) FROM pg_trigger WHERE tgname = '!repcloud_row'",
        _ => "SELECT count(*) FROM pg_replication_slots",
    };
    let before = live.admin.table_hash("orders").await;
    for end in ["repack", "abort"] {
        std::fs::write(&hold, "").unwrap();
        let running = live.program.spawn(&["repack", "--table", "public.orders"]);
        until("the copy is held up", LIMIT, || async {
            live.state().await == "shadow_ready" && live.admin.value(made).await == "1"
        })
        .await;
        running.kill();
        std::fs::remove_file(&hold).unwrap();
        let (finished, reports) = live.command(end, &["--table", "public.orders"]);
        finished.expect_code(0);
        let outcome = if end == "repack" { "swapped" } else { "aborted" };
        assert_eq!(reports[0]["outcome"], outcome);
        assert_eq!(live.admin.table_hash("orders").await, before);
        live.assert_clean().await;
        // Always safe to repeat.
        let (finished, _) = live.command("abort", &["--table", "public.orders"]);
        finished.expect_code(0);
    }
}

#[tokio::test]
async fn ctrl_c_leaves_something_to_go_on_with() {
    let live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--postpone-swap"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    running.interrupt();
    running.wait(LIMIT).expect_code(130);
    live.owner.exec("UPDATE orders SET total = total + 1 WHERE id < 100").await;
    let before = live.admin.table_hash("orders").await;
    let (finished, reports) = live.repack(&["--table", "public.orders"]);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "swapped", "{finished:?}");
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_restarted_server_is_waited_for() {
    let mut live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--postpone-swap"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    live.cluster.restart(StopMode::Fast).expect("a restart");
    live.admin = crate::support::db::Db::connect(&live.cluster, "app").await;
    live.owner = live.session("app").await;
    live.owner.exec("UPDATE orders SET total = total + 1 WHERE id < 100").await;
    let before = live.admin.table_hash("orders").await;
    let finished = tokio::task::spawn_blocking({
        let program = live.program;
        move || {
            let swap = program.run(&["swap", "--table", "public.orders"], LIMIT);
            (swap, running.wait(LIMIT))
        }
    })
    .await
    .unwrap();
    finished.0.expect_code(0);
    finished.1.expect_code(0);
    assert_eq!(live.admin.table_hash("orders").await, before);
}

/// Its index is built no further as long as somebody holds advisory lock 5.
const SLOW: &str = "CREATE FUNCTION slow(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN \
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(5); RETURN id; END $$; \
    CREATE TABLE big_t (id int PRIMARY KEY, v text); INSERT INTO big_t SELECT i, 'v' || i FROM generate_series(1, 50) i; \
    CREATE INDEX big_t_idx ON big_t (slow(id))";

#[tokio::test]
async fn an_index_that_was_being_built_does_not_meet_the_next_process() {
    let live = Live::new(SLOW, "").await;
    let building = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%big_t_idx%' AND state = 'active'";
    let arguments = ["repack", "--table", "public.big_t"];
    for stop in [true, false] {
        let holder = live.session("app").await;
        holder.exec("SELECT pg_advisory_lock(5)").await;
        let running = live.program.spawn(&arguments);
        until("the index is being built", LIMIT, || async { live.admin.value(building).await == "1" }).await;
        if stop {
            running.terminate();
            running.wait(LIMIT).expect_code(130);
            until("it is cancelled", LIMIT, || async { live.admin.value(building).await == "0" }).await;
        } else {
            running.kill();
        }
        live.owner.exec("UPDATE repcloud.repack SET error = 'of the first'").await;
        let next = live.program.spawn(&["repack", "--json", "--table", "public.big_t"]);
        let shown = "SELECT count(*) FROM repcloud.repack WHERE error IS NULL";
        until("the old error is gone", LIMIT, || async { live.admin.value(shown).await == "1" }).await;
        holder.exec("SELECT pg_advisory_unlock(5)").await;
        next.wait(LIMIT).expect_code(0);
        live.assert_clean().await;
    }
}
