//! Keys of the connection and options of `repack`, each with what is different because of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const ORDERS_TABLE: [&str; 2] = ["--table", "public.orders"];

/// 54 MB of heap in four pieces, though there are few rows: most of each page is left free.
const WIDE: &str =
    "CREATE TABLE wide (id int PRIMARY KEY, v text, a int, b int, c int) WITH (fillfactor = 10);
    INSERT INTO wide SELECT i, repeat('x', 100), i, i, i FROM generate_series(1, 40000) i;
    CREATE INDEX ON wide (a); CREATE INDEX ON wide (b); CREATE INDEX ON wide (c); ANALYZE";

const SMALL: &str = "CREATE TABLE small (id int PRIMARY KEY, v int); INSERT INTO small SELECT i, i FROM generate_series(1, 100) i;
    ANALYZE";

#[tokio::test]
async fn jobs_is_how_many_sessions_copy() {
    let (live, hold) = Live::held(WIDE, "").await;
    for jobs in ["3", "1"] {
        std::fs::write(&hold, "").unwrap();
        let running = live.program.spawn(&["repack", "--table", "public.wide", "--jobs", jobs]);
        live.copy_rests().await;
        let copying = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%SET enable_parallel_append = off' AND pid <> pg_backend_pid()";
        until("the sessions are there", LIMIT, || async { live.admin.value(copying).await == jobs }).await;
        std::fs::remove_file(&hold).unwrap();
        running.wait(LIMIT).expect_code(0);
    }
}

#[tokio::test]
async fn indexes_are_built_by_so_many_sessions_with_so_much_memory() {
    let (live, hold) = Live::held(WIDE, "index_workers = 3\nmaintenance_work_mem = \"7MB\"").await;
    live.admin
        .exec(
            "CREATE TABLE public.built (tag text, memory text);
             CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$BEGIN INSERT INTO public.built VALUES (tg_tag, current_setting('maintenance_work_mem')); END$$;
             CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION note()",
        )
        .await;
    let running = live.program.spawn(&["repack", "--table", "public.wide", "--jobs", "1"]);
    live.copy_rests().await;
    live.admin.exec("BEGIN; LOCK TABLE repcloud_new.wide IN ROW EXCLUSIVE MODE").await;
    std::fs::remove_file(&hold).unwrap();
    let building =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE%INDEX%'";
    let other = crate::support::db::Db::connect(&live.cluster, "app").await;
    until("three wait", LIMIT, || async { other.value(building).await == "3" }).await;
    live.admin.exec("COMMIT").await;
    running.wait(LIMIT).expect_code(0);
    let seen =
        live.admin.value("SELECT count(*) || ' ' || string_agg(DISTINCT memory, ',') FROM built").await;
    assert_eq!(seen, "4 7MB");
}

#[tokio::test]
async fn check_time_is_how_often_it_is_looked_whether_it_can_be_caught_up() {
    let live = Live::new(ORDERS, "check_time = \"200ms\"").await;
    let running = live.program.spawn(&["repack", "--json", "--table", "public.orders", "--postpone-swap"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    // The row cannot be changed in the copy.
    live.admin.exec("BEGIN; SELECT * FROM repcloud_new.orders WHERE id = 1 FOR UPDATE").await;
    live.session("writer").await.exec("UPDATE orders SET total = 1 WHERE id = 1").await;
    live.command("swap", &ORDERS_TABLE).0.expect_code(1);
    let finished = running.wait(LIMIT).expect_code(1);
    assert!(finished.stderr.contains("of WAL left to apply"), "{finished:?}");
    assert!(finished.stdout.contains("cannot be caught up: for 6 s"), "{finished:?}");
    live.admin.exec("ROLLBACK").await;
    live.command("abort", &ORDERS_TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_replica_whose_lag_cannot_be_seen_refuses_a_throttle_by_lag() {
    let live = Live::new(SMALL, "throttle_lag = \"30s\"").await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut receiver = live.cluster.client("pg_receivewal").unwrap();
    receiver.args(["--no-loop", "--directory"]).arg(folder.path());
    let mut receiver = receiver.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    until("the receiver streams", LIMIT, || async { live.admin.value(streaming).await == "1" }).await;
    let (finished, reports) = live.repack(&["--table", "public.small"]);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    finished.expect_code(3);
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("throttle_lag") && reason.contains("GRANT pg_monitor"), "{reason}");
}

#[tokio::test]
async fn max_wal_rate_holds_up_the_copy_while_others_write() {
    let (live, hold) = Live::held(SMALL, "max_wal_rate = \"1kB\"").await;
    live.owner.exec("CREATE TABLE noise (v text)").await;
    let running = live.program.spawn(&["repack", "--table", "public.small"]);
    live.copy_rests().await;
    let noise = "INSERT INTO noise SELECT repeat('x', 100) FROM generate_series(1, 1000)";
    let why = "SELECT coalesce(max(throttled_by), '') FROM repcloud.repack";
    // The rate is measured over a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        live.owner.exec(noise).await;
    }
    std::fs::remove_file(&hold).unwrap();
    until("the copy rests for the WAL", LIMIT, || async {
        live.owner.exec(noise).await;
        live.admin.value(why).await.starts_with("max_wal_rate")
    })
    .await;
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn verify_says_how_much_is_compared() {
    for (level, code) in [("off", 0), ("full", 1), ("sample", 1)] {
        let (live, hold) = Live::held(SMALL, "").await;
        let running = live.program.spawn(&["repack", "--json", "--table", "public.small", "--verify", level]);
        live.copy_rests().await;
        live.admin.exec("INSERT INTO repcloud_new.small VALUES (-1, 0)").await;
        std::fs::remove_file(&hold).unwrap();
        let finished = running.wait(LIMIT).expect_code(code);
        assert_eq!(finished.stdout.contains("1 rows of the rebuilt"), code == 1, "{level}: {finished:?}");
        assert_eq!(finished.stderr.contains("rows compared"), code == 1, "{level}: {finished:?}");
    }
    let live = Live::new(WIDE, "").await;
    for (level, all) in [("full", true), ("sample", false)] {
        let finished = live.program.run(&["repack", "--table", "public.wide", "--verify", level], LIMIT);
        let finished = finished.expect_code(0);
        assert_eq!(finished.stderr.contains(" 40000 rows compared, 0 differences"), all, "{finished:?}");
        assert!(finished.stderr.contains("rows compared, 0 differences"), "{finished:?}");
    }
}

#[tokio::test]
async fn outside_of_the_window_it_waits_and_swap_need_not() {
    let live = Live::new(SMALL, "").await;
    let now = jiff::Zoned::now();
    let (before, after) = ((now.hour() + 23) % 24, (now.hour() + 2) % 24);
    let open = format!("{before:02}:00-{after:02}:00");
    live.repack(&["--table", "public.small", "--window", &open]).0.expect_code(0);
    let closed = format!("{after:02}:00-{:02}:00", (after + 1) % 24);
    let running = live.program.spawn(&["repack", "--table", "public.small", "--window", &closed]);
    until("it waits for the window", LIMIT, || async {
        running.stderr().contains("ready; waiting for the window")
    })
    .await;
    assert_eq!(live.state().await, "verified");
    live.command("swap", &["--table", "public.small"]).0.expect_code(0);
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_schema_is_all_its_tables() {
    let live = Live::new(
        &format!("{SMALL}; CREATE SCHEMA sales; CREATE TABLE sales.a (id int PRIMARY KEY); CREATE TABLE sales.b (id int PRIMARY KEY)"),
        "schemas = [\"public\"]",
    )
    .await;
    for (arguments, expected) in [
        (["--schema", "sales"].as_slice(), ["sales.a", "sales.b"].as_slice()),
        (&["--table", "sales.*"], &["sales.a", "sales.b"]),
        (&[], &["public.small"]),
    ] {
        let (finished, reports) = live.repack(arguments);
        finished.expect_code(0);
        let mut tables: Vec<_> = reports.iter().map(|report| report["table"].as_str().unwrap()).collect();
        tables.sort_unstable();
        assert_eq!(tables, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn max_lock_ms_is_the_limit_of_the_whole_exchange() {
    let live = Live::new(SMALL, "").await;
    live.admin
        .exec(
            "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
                 IF current_setting('lock_timeout') <> '10s' THEN PERFORM pg_sleep(0.5); END IF; END$$;
             CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
        )
        .await;
    let table = ["--table", "public.small", "--attempts", "2", "--max-lock-ms"];
    let (finished, reports) = live.repack(&[table.as_slice(), &["300"]].concat());
    finished.expect_code(1);
    let reason = reports[0]["reason"].as_str().unwrap();
    assert!(reason.contains("was not done within 300 ms in 2 attempts"), "{reason}");
    assert!(reason.contains("while exchanging the two tables"), "{reason}");
    let (finished, reports) = live.repack(&[table.as_slice(), &["20000"]].concat());
    finished.expect_code(0);
    assert!(reports[0]["lock_ms"].as_f64().unwrap() > 300.0, "{:?}", reports[0]);
}

#[tokio::test]
async fn what_failed_is_kept_or_undone() {
    let live = Live::new(SMALL, "lock_timeout = \"50ms\"").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM small").await;
    let arguments = ["--table", "public.small", "--attempts", "1", "--on-failure"];
    let (finished, reports) = live.repack(&[arguments.as_slice(), &["keep"]].concat());
    finished.expect_code(1);
    assert_eq!((live.state().await.as_str(), reports[0]["outcome"].as_str()), ("verified", Some("failed")));
    let (finished, reports) = live.repack(&[arguments.as_slice(), &["abort"]].concat());
    finished.expect_code(1);
    assert_eq!((live.state().await.as_str(), reports[0]["outcome"].as_str()), ("abandoned", Some("failed")));
    live.assert_clean().await;
}

#[tokio::test]
async fn lock_timeout_is_how_long_one_attempt_waits() {
    let live = Live::new(SMALL, "lock_timeout = \"123ms\"").await;
    let idle = live.session("reader").await;
    idle.exec("BEGIN; SELECT count(*) FROM small").await;
    let running = live.program.spawn(&["repack", "--table", "public.small", "--attempts", "1000"]);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%SET LOCAL lock_timeout = 123;%'";
    until("it waits for the lock", LIMIT, || async { live.admin.value(waiting).await == "1" }).await;
    idle.exec("COMMIT").await;
    running.wait(LIMIT).expect_code(0);
    // Never longer than half of the server's deadlock_timeout: then it would be a client who is ended.
    let long = Live::new(SMALL, "lock_timeout = \"3s\"").await;
    let (finished, _) = long.repack(&["--table", "public.small"]);
    assert!(finished.expect_code(0).stderr.contains("lock_timeout is cut to 500 ms"));
}

#[tokio::test]
async fn max_replay_rows_is_how_many_changes_one_transaction_applies() {
    let (live, hold) = Live::held(SMALL, "max_replay_rows = 5").await;
    let running = live.program.spawn(&["repack", "--table", "public.small"]);
    live.copy_rests().await;
    let writer = live.session("writer").await;
    for id in 1..=100 {
        writer.exec(&format!("UPDATE small SET v = -1 WHERE id = {id}")).await;
    }
    std::fs::remove_file(&hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    let transactions: u32 =
        live.admin.value("SELECT count(DISTINCT xmin::text) FROM small WHERE v = -1").await.parse().unwrap();
    assert!(transactions >= 20, "100 changes were applied in {transactions} transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_query_ends_the_statement_in_the_way_and_no_more() {
    let live = Live::new(ORDERS, "lock_timeout = \"200ms\"\ndeadlock_resolution = \"cancel_query\"").await;
    let long = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    for allowed in [false, true] {
        if allowed {
            live.admin.exec("GRANT reader TO app").await;
        }
        let running = live.program.spawn(&[
            "repack",
            "--json",
            "--table",
            "public.orders",
            "--postpone-swap",
            "--attempts",
            "2",
            "--on-failure",
            "abort",
        ]);
        until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        let reader = live.session("reader").await;
        let pid = reader.value("SELECT pg_backend_pid()").await;
        let blocked = tokio::spawn(async move {
            let result = reader.try_exec("SELECT count(*), pg_sleep(60) FROM orders").await;
            (reader, result)
        });
        until("the long query runs", LIMIT, || async { live.admin.value(long).await == "1" }).await;
        tokio::task::block_in_place(|| live.command("swap", &ORDERS_TABLE));
        let finished = running.wait(LIMIT).expect_code(if allowed { 0 } else { 1 });
        if !allowed {
            // It is named, with the reason, and nothing happens to it.
            assert!(finished.stdout.contains("could not be ended"), "{finished:?}");
            assert_eq!(live.admin.value(long).await, "1");
            live.admin.exec(&format!("SELECT pg_cancel_backend({pid})")).await;
        }
        let (reader, result) = blocked.await.unwrap();
        assert!(result.unwrap_err().starts_with("57014"), "it was cancelled");
        reader.exec("SELECT 1").await;
    }
    live.assert_clean().await;
}

#[tokio::test]
async fn swap_and_abort_refuse_what_they_would_not_do() {
    let live = Live::new(SMALL, "").await;
    let table = ["--table", "public.small"];
    live.command("prepare", &table).0.expect_code(0);
    for (command, option) in [
        ("swap", ["--dry-run"].as_slice()),
        ("abort", &["--dry-run"]),
        ("swap", &["--postpone-swap"]),
        ("abort", &["--min-bloat", "10"]),
        ("swap", &["--min-size", "1GB"]),
        ("abort", &["--window", "01:00-02:00"]),
        ("abort", &["--on-failure", "abort"]),
    ] {
        let (finished, reports) = live.command(command, &[table.as_slice(), option].concat());
        assert!(finished.stderr.contains(option[0]), "{finished:?}");
        finished.expect_code(2);
        assert_eq!((reports.len(), live.state().await.as_str()), (0, "verified"), "{command} {option:?}");
    }
    live.command("abort", &table).0.expect_code(0);
}

#[tokio::test]
async fn names_that_are_not_there_are_refused() {
    let live = Live::new(SMALL, "").await;
    for (arguments, code, says) in [
        (["--connection", "other"].as_slice(), 2, "there is no connection \"other\""),
        (&["--connection", "live", "--table", "public.nothing"], 3, "public.nothing does not exist"),
        (&["--schema", "nothing"], 3, "schema nothing does not exist"),
    ] {
        let (finished, reports) = live.repack(arguments);
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert!(told.contains(says), "{arguments:?}: {finished:?}");
        finished.expect_code(code);
        assert_eq!(reports.len(), usize::from(code == 3));
    }
    let (finished, reports) =
        live.repack(&["--connection", "live", "--table", "public.small", "--capture", "slot"]);
    finished.expect_code(0);
    assert_eq!(reports[0]["capture"], "slot");
}
