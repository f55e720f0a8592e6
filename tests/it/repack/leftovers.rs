//! What a repack that ended badly leaves: shown, limited, and undone or named.

use std::time::{Duration, Instant};

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

#[tokio::test]
async fn an_abort_that_cannot_remove_something_says_what_and_ends() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live.admin.exec("CREATE VIEW public.somebodys AS SELECT id FROM repcloud_new.orders").await;
    let began = Instant::now();
    let (finished, reports) = live.command("abort", &TABLE);
    finished.expect_code(1);
    assert!(began.elapsed() < Duration::from_secs(20), "it tried for {:?}", began.elapsed());
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("dropping repcloud_new.orders"), "{reason}");
    // WAL is no longer kept, whatever else stays.
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    live.admin.exec("DROP VIEW public.somebodys").await;
    live.command("abort", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_killed_one_is_shown_with_the_wal_it_keeps_and_given_up_at_the_limit() {
    let live = Live::new(ORDERS, "max_retained_wal = \"2MB\"").await;
    let running = live.program.spawn(&["prepare", "--follow", "--table", "public.orders"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    // An open transaction with changes of the table keeps the slot where it is.
    let open = live.session("writer").await;
    open.exec("BEGIN; UPDATE orders SET total = total + 1 WHERE id = 1").await;
    running.kill();
    live.owner.exec("CREATE TABLE noise AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i").await;
    let told = live.program.run(&["status"], LIMIT).expect_code(0).stdout;
    assert!(told.contains("no process works on it"), "{told}");
    assert!(told.contains("WAL kept") && !told.contains("WAL kept 0 B"), "{told}");
    let (finished, reports) = live.repack(&TABLE);
    finished.expect_code(1);
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("max_retained_wal"), "{reason}");
    assert_eq!(live.state().await, "verified", "without --on-failure abort it stays");
    open.exec("COMMIT").await;
    live.command("abort", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}
