//! Prepare, swap, abort; what happens on the way, and who stands in it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

#[tokio::test]
async fn prepared_today_swapped_tomorrow() {
    let live = Live::new(ORDERS, "").await;
    let (finished, reports) = live.command("prepare", &TABLE);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "prepared", "{finished:?}");
    assert_eq!(live.state().await, "verified");
    live.session("writer")
        .await
        .exec("UPDATE orders SET total = total + 1 WHERE id < 1000; DELETE FROM orders WHERE id > 5900")
        .await;
    let before = live.admin.table_hash("orders").await;
    let status = live.program.json(&["status"], LIMIT);
    assert_eq!(status["repacks"][0]["state"], "verified", "{status}");
    let (finished, reports) = live.command("swap", &TABLE);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "swapped", "{finished:?}");
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_process_that_follows_swaps_when_asked() {
    let live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&["prepare", "--follow", "--table", "public.orders"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    let (finished, reports) = live.command("swap", &TABLE);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "swapped", "{finished:?}");
    running.wait(LIMIT).expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_running_repack_is_stopped_by_stop_and_undone_by_abort() {
    let live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--postpone-swap"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    let refused = live.repack(&TABLE);
    refused.0.expect_code(1);
    assert!(refused.1[0]["reason"].as_str().unwrap().contains("another process"), "{:?}", refused.1);
    let asked = live.program.json(&["stop", "--connection", "live"], LIMIT);
    assert_eq!(asked["asked"][0], "live: public.orders");
    running.wait(LIMIT).expect_code(130);
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--postpone-swap"]);
    until("it runs again", LIMIT, || async {
        live.admin.value("SELECT count(*) FROM pg_replication_slots WHERE active").await == "1"
    })
    .await;
    let (finished, reports) = live.command("abort", &TABLE);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "aborted", "{finished:?}");
    running.wait(LIMIT);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_column_added_meanwhile_is_noticed_and_nothing_is_lost() {
    let live = Live::new(ORDERS, "").await;
    for change in [
        "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7",
        "CREATE INDEX orders_late ON orders (customer)",
        "GRANT TRUNCATE ON orders TO reader",
        "ALTER TABLE item ADD COLUMN second bigint REFERENCES orders",
    ] {
        live.command("prepare", &TABLE).0.expect_code(0);
        live.owner.exec(change).await;
        let before = live.admin.table_hash("orders").await;
        let running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
        let finished = running.wait(LIMIT).expect_code(0);
        assert!(finished.stderr.contains("begins anew"), "{change}: {finished:?}");
        assert_eq!(live.admin.table_hash("orders").await, before, "{change}");
        live.assert_clean().await;
    }
    assert_eq!(
        live.admin.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_late'").await,
        "1"
    );
    assert_eq!(live.admin.value("SELECT has_table_privilege('reader', 'orders', 'TRUNCATE')").await, "t");
}

#[tokio::test]
async fn a_change_under_a_following_process_ends_its_swap() {
    let live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&[
        "repack",
        "--table",
        "public.orders",
        "--postpone-swap",
        "--on-failure",
        "abort",
    ]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    live.owner
        .exec("ALTER TABLE orders ALTER COLUMN big SET DEFAULT 'x'; COMMENT ON COLUMN orders.big IS 'new'")
        .await;
    let (swap, _) = live.command("swap", &TABLE);
    swap.expect_code(1);
    let finished = running.wait(LIMIT).expect_code(1);
    assert!(finished.stdout.contains("was changed while"), "{finished:?}");
    live.assert_clean().await;
    assert_eq!(live.admin.value("SELECT col_description('orders'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'big'").await, "new");
}

#[tokio::test]
async fn a_swap_of_a_table_that_was_changed_is_refused_and_copies_nothing() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    let shadow =
        "SELECT 'repcloud_new.orders'::regclass::oid::text || pg_relation_filenode('repcloud_new.orders')";
    let before = live.admin.value(shadow).await;
    live.owner.exec("ALTER TABLE orders ADD COLUMN extra int").await;
    let (finished, reports) = live.command("swap", &TABLE);
    let finished = finished.expect_code(3);
    assert_eq!(reports[0]["outcome"], "refused", "{finished:?}");
    for part in ["public.orders cannot be exchanged", "was changed since", "`prepare`", "`abort`"] {
        assert!(finished.stdout.contains(part), "{part}: {finished:?}");
    }
    assert_eq!(live.admin.value(shadow).await, before, "what is prepared is as it was");
    assert_eq!(live.state().await, "verified");
    live.command("prepare", &TABLE).0.expect_code(0);
    live.command("swap", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_catch_up_that_comes_no_nearer_is_given_up() {
    let live = Live::new(ORDERS, "check_time = \"100ms\"").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live.session("writer").await.exec("UPDATE orders SET total = total + 1").await;
    // Nothing is applied while it is held.
    live.admin.exec("BEGIN; LOCK TABLE repcloud_new.orders IN EXCLUSIVE MODE").await;
    let (finished, reports) = live.repack(&TABLE);
    live.admin.exec("ROLLBACK").await;
    let finished = finished.expect_code(1);
    let reason = reports[0]["reason"].to_string();
    assert!(reason.contains("cannot be caught up: for 3 s") && reason.contains("of WAL"), "{reason}");
    assert!(finished.stderr.contains("it does not converge"), "{finished:?}");
    assert_eq!(live.state().await, "verified", "what is prepared stays");
    live.repack(&TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn several_tables_go_most_bloat_first_and_one_that_fails_does_not_stop_the_rest() {
    let table = |name: &str, keep: u32| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, v text); \
             INSERT INTO {name} SELECT i, repeat('x', 100) FROM generate_series(1, 6000) i; \
             DELETE FROM {name} WHERE id % 10 >= {keep}; "
        )
    };
    let schema = table("a_little", 8)
        + &table("b_most", 1)
        + &table("c_refused", 3).replace("CREATE TABLE", "CREATE UNLOGGED TABLE")
        + &table("d_half", 5);
    let live = Live::new(&schema, "").await;
    live.owner.exec("SELECT pg_stat_force_next_flush()").await;
    for name in ["a_little", "b_most", "c_refused", "d_half"] {
        live.owner.exec(&format!("VACUUM ANALYZE {name}")).await;
    }
    let named = ["a_little", "b_most", "c_refused", "d_half"].map(|name| format!("public.{name}"));
    let arguments: Vec<&str> = named.iter().flat_map(|name| ["--table", name.as_str()]).collect();
    let (finished, reports) = live.repack(&arguments);
    let finished = finished.expect_code(4);
    let told: Vec<String> =
        reports.iter().map(|r| format!("{} {}", r["table"], r["outcome"]).replace('"', "")).collect();
    assert_eq!(
        told,
        [
            "public.b_most swapped",
            "public.c_refused refused",
            "public.d_half swapped",
            "public.a_little swapped"
        ],
        "{finished:?}"
    );
    live.assert_clean().await;
}

#[tokio::test]
async fn an_idle_reader_makes_nobody_wait_longer_than_one_attempt() {
    let live = Live::new(ORDERS, "lock_timeout = \"100ms\"").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM orders").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--attempts", "1000", "--json"]);
    until("it tries to swap", LIMIT, || async { live.state().await == "verified" }).await;
    let writer = live.session("writer").await;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        let one = Instant::now();
        writer.exec("UPDATE orders SET total = total + 1 WHERE id = 11").await;
        slowest = slowest.max(one.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a client waited {slowest:?}");
    let pid = idle.value("SELECT pg_backend_pid()").await;
    until("the one in the way is named", LIMIT, || async {
        let status = live.program.json(&["status"], LIMIT);
        status["repacks"][0]["blocked_by"][0].as_i64() == pid.parse().ok()
    })
    .await;
    idle.exec("COMMIT").await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stderr.contains(&format!("pid {pid}")), "{finished:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn locks_that_are_never_granted_end_it_with_the_name_of_the_one_in_the_way() {
    let live = Live::new(ORDERS, "lock_timeout = \"50ms\"").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM orders").await;
    let pid = idle.value("SELECT pg_backend_pid()").await;
    let (finished, reports) = live.repack(&["--table", "public.orders", "--attempts", "2"]);
    finished.expect_code(1);
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("2 attempts") && reason.contains(&format!("pid {pid}")), "{reason}");
    live.command("abort", &TABLE).0.expect_code(0);
    idle.exec("COMMIT").await;
    live.assert_clean().await;
}

#[tokio::test]
async fn those_in_the_way_are_ended_only_where_that_is_wanted() {
    let live = Live::new(ORDERS, "lock_timeout = \"200ms\"\ndeadlock_resolution = \"kill_query\"").await;
    live.admin.exec("GRANT reader TO app").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM orders").await;
    let bystander = live.session("reader").await;
    live.owner.exec("CREATE TABLE elsewhere (id int); GRANT SELECT ON elsewhere TO reader").await;
    bystander.exec("BEGIN; SELECT count(*) FROM elsewhere").await;
    let (finished, reports) = live.repack(&["--table", "public.orders", "--attempts", "5"]);
    let finished = finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "swapped", "{finished:?}");
    assert!(idle.try_exec("SELECT 1").await.is_err(), "it was in the way");
    bystander.exec("COMMIT").await;
}

#[tokio::test]
async fn a_truncate_in_the_middle_of_it_is_followed() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    let writer = live.session("writer").await;
    live.owner.exec("TRUNCATE orders, item; INSERT INTO orders (customer, code, total) SELECT 1, 'after ' || i, i FROM generate_series(1, 300) i").await;
    writer.exec("UPDATE orders SET total = 0 WHERE total < 50").await;
    let before = live.admin.table_hash("orders").await;
    let (finished, _) = live.command("swap", &TABLE);
    finished.expect_code(0);
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_truncate_in_the_copy_begins_it_anew() {
    let live = Live::new(ORDERS, "throttle_file = \"env:HOLD\"").await;
    let hold = live.program.home().join("hold");
    std::fs::write(&hold, "").unwrap();
    let Live { cluster, owner, admin, program } = live;
    let live = Live { cluster, owner, admin, program: program.env("HOLD", hold.to_str().unwrap()) };
    let running = live.program.spawn(&["repack", "--table", "public.orders"]);
    until("the copy is held up", LIMIT, || async {
        // The pre-flight's slot comes first, and no table of ours.
        live.admin.value("SELECT to_regclass('repcloud.repack') IS NOT NULL").await == "t"
            && live.admin.value("SELECT count(*) FROM repcloud.repack WHERE copied_at_lsn > '0/0'").await
                == "1"
    })
    .await;
    live.owner.exec("UPDATE orders SET total = 1; TRUNCATE orders, item; INSERT INTO orders (customer, code) VALUES (1, 'only')").await;
    std::fs::remove_file(&hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.value("SELECT string_agg(code, ',') FROM orders").await, "only");
    live.assert_clean().await;
}

#[tokio::test]
async fn frozen_under_the_lock_it_does_not_keep_it() {
    let live = Live::new(ORDERS, "").await;
    let running = live.program.spawn(&[
        "repack",
        "--table",
        "public.orders",
        "--postpone-swap",
        "--max-lock-ms",
        "1500",
        "--attempts",
        "50",
    ]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    // The exchange is made slow, so that there is a moment to freeze it in.
    live.admin
        .exec(
            "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.6); END';
             CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
        )
        .await;
    live.admin.exec("UPDATE repcloud.repack SET request = 'swap'").await;
    until("it holds the lock", LIMIT, || async {
        let sql = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        live.admin.value(sql).await != "0"
    })
    .await;
    running.signal(Signal::STOP);
    live.admin.exec("DROP EVENT TRIGGER slow").await;
    let began = Instant::now();
    live.session("writer").await.exec("UPDATE orders SET total = total + 1 WHERE id = 1").await;
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(5), "the application waited {waited:?}");
    running.signal(Signal::CONT);
    let before = live.admin.table_hash("orders").await;
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn the_schemas_come_and_go() {
    let live = Live::new(ORDERS, "").await;
    live.program.run(&["create-schema"], LIMIT).expect_code(0);
    live.program.run(&["create-schema"], LIMIT).expect_code(0);
    live.command("prepare", &TABLE).0.expect_code(0);
    live.program.run(&["drop-schema", "--connection", "live"], LIMIT).expect_code(0);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'";
    assert_eq!(live.admin.value(left).await, "0");
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_publication").await, "0");
    live.program.run(&["drop-schema"], LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_prepared_copy_can_be_compared_and_a_difference_is_found() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live.session("writer")
        .await
        .exec("UPDATE orders SET total = total + 1 WHERE id < 1000; DELETE FROM orders WHERE id = 5999")
        .await;
    let verify = ["verify", "--connection", "live", "--table", "public.orders"];
    let report = live.program.json(&verify, LIMIT);
    assert_eq!((report["rows"].as_u64(), report["differences"].as_u64()), (Some(2999), Some(0)), "{report}");
    // One row changed, one missing, one too many: behind our back.
    live.admin.exec("UPDATE repcloud_new.orders SET total = 0 WHERE id = 2001; DELETE FROM repcloud_new.orders WHERE id = 2003; INSERT INTO repcloud_new.orders (id, customer, code) VALUES (1000000, 1, 'x')").await;
    let finished = live.program.run(&[verify.as_slice(), &["--json"]].concat(), LIMIT).expect_code(1);
    assert_eq!(super::reports(&finished.stdout)[0]["differences"], 3);
    live.command("abort", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_swap_whose_session_is_ended_is_tried_again() {
    let live = Live::new(ORDERS, "lock_timeout = \"400ms\"").await;
    let before = live.admin.table_hash("orders").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM orders").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--attempts", "1000", "--json"]);
    let end = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l WHERE NOT l.granted \
         AND l.mode = 'AccessExclusiveLock' AND l.relation = 'orders'::regclass";
    until("the session of the swap is ended", LIMIT, || async { live.admin.value(end).await == "1" }).await;
    idle.exec("COMMIT").await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert!(finished.stdout.contains("swapped"), "{finished:?}");
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}
/// On a terminal, as `script` makes one.
#[tokio::test]
async fn a_terminal_shows_a_line_unless_it_is_not_wanted() {
    let (live, hold) = Live::held(ORDERS, "").await;
    for (options, shown) in [("", true), (" --no-progress", false)] {
        let seen = live.program.home().join(format!("seen{shown}"));
        let program = format!("{} repack --table public.orders{options}", env!("CARGO_BIN_EXE_repcloud"));
        let mut running = std::process::Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &program])
            .arg(&seen)
            .env("REPCLOUD_HOME", live.program.home())
            .env("HOLD", &hold)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        live.copy_rests().await;
        let text = || String::from_utf8_lossy(&std::fs::read(&seen).unwrap_or_default()).into_owned();
        if shown {
            until("the line is there", LIMIT, || async { text().contains("rests: ") }).await;
        }
        live.command("abort", &TABLE).0.expect_code(0);
        running.wait().unwrap();
        assert_eq!(text().contains("public.orders  copy ["), shown, "{}", text());
    }
}
