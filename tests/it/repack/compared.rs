//! What a comparison found is not forgotten, and one that is asked for is made.

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];
const VERIFY: [&str; 5] = ["verify", "--connection", "live", "--table", "public.orders"];
/// Behind our back, and the way back.
const SPOIL: &str = "UPDATE repcloud_new.orders SET total = total + 7 WHERE id = 2001";
const MEND: &str = "UPDATE repcloud_new.orders SET total = total - 7 WHERE id = 2001";

async fn prepared() -> Live {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live
}

async fn oid(live: &Live) -> String {
    live.admin.value("SELECT 'orders'::regclass::oid").await
}

#[tokio::test]
async fn a_verified_copy_is_compared_again_where_that_is_asked_for() {
    for command in ["swap", "repack", "prepare"] {
        let live = prepared().await;
        let before = oid(&live).await;
        live.admin.exec(SPOIL).await;
        let full = [&TABLE[..], &["--verify", "full"]].concat();
        let failed = live.command(command, &full).0.expect_code(1);
        assert!(failed.stdout.contains("1 rows of the rebuilt"), "{command}: {failed:?}");
        assert_eq!(oid(&live).await, before, "{command}");
        live.admin.exec(MEND).await;
        let done = live.command(command, &full).0.expect_code(0);
        assert_eq!(done.stderr.matches("rows compared").count(), 1, "{command}: {done:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_known_to_differ_is_not_exchanged_until_a_comparison_finds_nothing() {
    let live = prepared().await;
    let before = oid(&live).await;
    live.admin.exec(SPOIL).await;
    live.program.run(&VERIFY, LIMIT).expect_code(1);
    for command in ["swap", "repack", "prepare"] {
        let (refused, reports) = live.command(command, &TABLE);
        refused.expect_code(3);
        let reason = reports[0]["reason"].as_str().unwrap();
        assert!(reason.contains("differed from it in 1 rows"), "{command}: {reason}");
        assert!(reason.contains("`repcloud verify --connection live --table public.orders`"), "{reason}");
        assert!(reason.contains("`repcloud abort --connection live --table public.orders`"), "{reason}");
    }
    assert_eq!(oid(&live).await, before);
    live.admin.exec(MEND).await;
    live.command("swap", &TABLE).0.expect_code(3);
    live.program.run(&VERIFY, LIMIT).expect_code(0);
    live.command("swap", &TABLE).0.expect_code(0);
    assert_ne!(oid(&live).await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_process_that_is_killed_after_it_found_differences_leaves_them_written_down() {
    let live = prepared().await;
    live.admin.exec(SPOIL).await;
    let failed = live.command("swap", &[&TABLE[..], &["--verify", "full"]].concat()).0;
    failed.expect_code(1);
    live.command("swap", &TABLE).0.expect_code(3);
    live.command("abort", &TABLE).0.expect_code(0);
    // What was thrown away is not held against the next one.
    let waiting = live.program.spawn(&["repack", "--table", "public.orders", "--postpone-swap"]);
    until("it waits", LIMIT, || async { waiting.stderr().contains("waiting for `repcloud swap`") }).await;
    waiting.kill();
    live.admin.exec(SPOIL).await;
    live.program.run(&VERIFY, LIMIT).expect_code(1);
    // The state stands in the database: whoever comes next, on whatever machine, reads it.
    live.command("repack", &TABLE).0.expect_code(3);
    live.command("abort", &TABLE).0.expect_code(0);
    live.command("repack", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}

/// A state table that an earlier version made lacks what is read here.
#[tokio::test]
async fn a_state_of_an_earlier_version_can_be_looked_at_and_taken_up() {
    let live = prepared().await;
    live.admin.exec("ALTER TABLE repcloud.repack DROP COLUMN differences").await;
    live.program.run(&["status"], LIMIT).expect_code(0);
    live.command("swap", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}
