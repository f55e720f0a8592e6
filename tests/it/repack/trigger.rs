//! Repacks that read a queue filled by triggers, as a role that may use no slot.

use super::{Capture, LIMIT, Live, THROTTLED, connect};
use crate::support::wait::until;

const SMALL: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, f float8, b bytea, d timestamptz, i interval, m money); \
     INSERT INTO t SELECT i, 'v' || i, i / 3.0, '\\x00ff', '2020-02-03 04:05:06.789+00', '1 year 2 days', 12.5 FROM generate_series(1, 2000) i; \
     DELETE FROM t WHERE id % 2 = 0; ANALYZE t";

const T: &[&str] = &["repack", "--json", "--table", "public.t", "--verify", "full"];

/// With the copy held up, and triggers there.
async fn held() -> (Live, std::path::PathBuf) {
    Live::by(Capture::Trigger, SMALL, THROTTLED).await.hold()
}

#[tokio::test]
async fn auto_falls_back_to_triggers_and_says_why() {
    let live = Live::new(SMALL, "").await;
    live.admin.exec("ALTER ROLE app NOREPLICATION").await;
    let before = live.admin.table_hash("public.t").await;
    let (finished, reports) = live.repack(&["--table", "public.t"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_eq!(
        (reports[0]["outcome"].as_str(), reports[0]["capture"].as_str()),
        (Some("swapped"), Some("trigger"))
    );
    assert!(finished.stderr.contains("role app may not use replication slots"), "{finished:?}");
    assert_eq!(live.admin.table_hash("public.t").await, before);
    live.assert_clean().await;
    // What was asked for is kept to.
    let (refused, _) = live.repack(&["--table", "public.t", "--capture", "slot"]);
    refused.expect_code(3);
}

#[tokio::test]
async fn a_subtransaction_in_progress_and_a_low_number_that_commits_late_are_not_lost() {
    let (live, hold) = held().await;
    let running = live.program.spawn(T);
    live.copy_rests().await;
    let (early, late) = (connect(&live.cluster, "writer").await, connect(&live.cluster, "writer").await);
    // The lower number, in a subtransaction that has ended, of a transaction that has not.
    early.exec("BEGIN").await;
    early.exec("SAVEPOINT s").await;
    early.exec("UPDATE t SET v = 'early' WHERE id = 1").await;
    early.exec("RELEASE s").await;
    late.exec("UPDATE t SET v = 'late' WHERE id = 3").await;
    std::fs::remove_file(&hold).unwrap();
    until("the later one was applied, over several batches", LIMIT, || async {
        let applied = "SELECT count(*) FROM repcloud.checkpoint WHERE applied_lsn > '0/2' AND changes >= 1";
        live.admin.value(applied).await == "1"
    })
    .await;
    early.exec("INSERT INTO t (id, v) VALUES (10001, 'more')").await;
    early.exec("COMMIT").await;
    let expected = live.admin.table_hash("public.t").await;
    let finished = running.wait(LIMIT);
    finished.expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
    assert_eq!(live.admin.value("SELECT v FROM t WHERE id = 1").await, "early");
    live.assert_clean().await;
}

#[tokio::test]
async fn values_do_not_depend_on_the_writers_settings() {
    let (live, hold) = held().await;
    let running = live.program.spawn(T);
    live.copy_rests().await;
    let odd = connect(&live.cluster, "writer").await;
    for setting in [
        "SET \"DateStyle\" = 'SQL, DMY'",
        "SET \"IntervalStyle\" = 'sql_standard'",
        "SET \"TimeZone\" = 'Asia/Kathmandu'",
        "SET extra_float_digits = -15",
        "SET bytea_output = 'escape'",
        "SET search_path = pg_temp",
    ] {
        odd.exec(setting).await;
    }
    odd.exec("INSERT INTO public.t VALUES (5000, E'a\\\\b\"c,(d) \\n', 0.1 + 0.2, '\\x5c00', '2021-12-11 10:09:08.7+05:45', '-1 mon 3 days', 0.99)").await;
    odd.exec("UPDATE public.t SET f = 1.0 / 3, d = d + interval '1 day', v = '' WHERE id < 100").await;
    odd.exec("UPDATE public.t SET v = NULL, b = NULL, f = NULL, d = NULL, i = NULL, m = NULL WHERE id = 101")
        .await;
    odd.exec("UPDATE public.t SET id = -id WHERE id BETWEEN 200 AND 300").await;
    let expected = live.admin.table_hash("public.t").await;
    std::fs::remove_file(&hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_trigger_that_was_off_for_a_while_ends_the_repack() {
    let (live, hold) = held().await;
    let running = live.program.spawn(T);
    live.copy_rests().await;
    live.owner.exec("ALTER TABLE t DISABLE TRIGGER \"!repcloud_row\"").await;
    live.owner.exec("UPDATE t SET v = 'not queued' WHERE id = 1").await;
    live.owner.exec("ALTER TABLE t ENABLE ALWAYS TRIGGER \"!repcloud_row\"").await;
    std::fs::remove_file(&hold).unwrap();
    let finished = running.wait(LIMIT);
    assert_ne!(finished.code(), 0);
    assert!(finished.stdout.contains("changed"), "{finished:?}");
    live.command("abort", &["--table", "public.t"]).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn killed_in_each_state_it_goes_on() {
    for state in ["shadow_ready", "verified"] {
        let (live, hold) = held().await;
        let postponed = [T, &["--postpone-swap"]].concat();
        let running = live.program.spawn(&postponed);
        live.copy_rests().await;
        live.owner.exec("UPDATE t SET v = 'one' WHERE id < 50").await;
        if state == "verified" {
            std::fs::remove_file(&hold).unwrap();
            until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        }
        running.kill();
        let _may_be_gone = std::fs::remove_file(&hold);
        live.owner.exec("UPDATE t SET v = 'two' WHERE id < 30; DELETE FROM t WHERE id = 7").await;
        let expected = live.admin.table_hash("public.t").await;
        let (finished, reports) = live.repack(&["--table", "public.t"]);
        finished.expect_code(0);
        assert_eq!(reports[0]["capture"], "trigger");
        assert_eq!(live.admin.table_hash("public.t").await, expected, "{state}");
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn abort_and_drop_schema_leave_nothing_while_writers_run() {
    let (live, _hold) = held().await;
    let running = live.program.spawn(T);
    live.copy_rests().await;
    let writer = connect(&live.cluster, "writer").await;
    writer.exec("BEGIN; UPDATE t SET v = 'open' WHERE id = 1; COMMIT").await;
    running.kill();
    let (finished, _) = live.command("abort", &["--table", "public.t"]);
    finished.expect_code(0);
    live.assert_clean().await;
    writer.exec("UPDATE t SET v = 'after' WHERE id = 1").await;
    live.program.run(&["drop-schema"], LIMIT).expect_code(0);
    assert_eq!(
        live.admin.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'").await,
        "0"
    );
}

/// Transactions that were not flushed are undone by a crash, and their ids are given again. What was applied must be none of them.
#[tokio::test]
async fn crashes_of_the_source_under_asynchronous_writers_lose_and_repeat_nothing() {
    let Live { mut cluster, owner, admin, program } = Live::by(Capture::Trigger, SMALL, "").await;
    admin.exec("ALTER SYSTEM SET wal_writer_delay = '10s'").await;
    admin.exec("SELECT pg_reload_conf()").await;
    drop(owner);
    let mut running = program.spawn(&[T, &["--postpone-swap"]].concat());
    let changes = "SELECT coalesce((SELECT changes FROM repcloud.checkpoint WHERE target = '(repack)' AND phase = 'ready'), 0)";
    let ready = "SELECT count(*) FROM pg_tables WHERE tablename = 'repack' AND schemaname = 'repcloud'";
    until("its state is there", LIMIT, || async { admin.value(ready).await == "1" }).await;
    let state = "SELECT coalesce((SELECT state FROM repcloud.repack), '')";
    until("it is ready", LIMIT, || async { admin.value(state).await == "verified" }).await;
    drop(admin);
    for round in 0..3 {
        let (watcher, writer) = (connect(&cluster, "postgres").await, connect(&cluster, "writer").await);
        writer.exec("SET synchronous_commit = off").await;
        let before: i64 = watcher.value(changes).await.parse().unwrap();
        for i in 0..60 {
            writer.exec(&format!("UPDATE t SET v = '{round} {i}' WHERE id = {}", 2 * i + 1)).await;
            writer
                .exec(&format!("INSERT INTO t (id, v) VALUES ({}, 'new')", 100_000 + round * 1000 + i))
                .await;
        }
        until("some of it is applied", LIMIT, || {
            assert!(running.is_running(), "it has ended: {} {}", running.stdout(), running.stderr());
            async { watcher.value(changes).await.parse::<i64>().unwrap() > before }
        })
        .await;
        for i in 0..20 {
            writer.exec(&format!("UPDATE t SET v = 'perhaps lost' WHERE id = {}", 2 * i + 1)).await;
        }
        drop((watcher, writer));
        cluster.kill().unwrap();
        cluster.start().unwrap();
    }
    let (owner, admin) = (connect(&cluster, "app").await, connect(&cluster, "postgres").await);
    let live = Live { cluster, owner, admin, program };
    let expected = live.admin.table_hash("public.t").await;
    live.command("swap", &["--table", "public.t"]).0.expect_code(0);
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
    live.assert_clean().await;
}

#[tokio::test]
async fn an_unlogged_table_is_rebuilt_and_stays_unlogged() {
    let unlogged = "CREATE UNLOGGED TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, s serial, v text); \
         INSERT INTO t (v) SELECT 'v' || i FROM generate_series(1, 2000) i; DELETE FROM t WHERE id % 2 = 0; ANALYZE t";
    let (live, hold) = Live::by(Capture::Trigger, unlogged, THROTTLED).await.hold();
    let running = live.program.spawn(T);
    live.copy_rests().await;
    live.owner.exec("INSERT INTO t (v) VALUES ('new'); UPDATE t SET v = 'x' WHERE id < 20; DELETE FROM t WHERE id = 21").await;
    let expected = live.admin.table_hash("public.t").await;
    let queue = "SELECT relpersistence FROM pg_class WHERE relname LIKE 'queue\\_%' AND relkind = 'r'";
    assert_eq!(live.admin.value(queue).await, "u");
    std::fs::remove_file(&hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
    assert_eq!(live.admin.value("SELECT relpersistence FROM pg_class WHERE oid = 't'::regclass").await, "u");
    live.owner.exec("INSERT INTO t (v) VALUES ('after')").await;
    live.assert_clean().await;
    // What a slot cannot see is refused where one is used.
    live.repack(&["--table", "public.t", "--capture", "auto"]).0.expect_code(3);
}

/// What it changes would be queued before its cause.
#[tokio::test]
async fn a_trigger_that_fires_before_ours_is_refused_and_one_that_changes_other_rows_is_not() {
    let (live, hold) = held().await;
    live.admin
        .exec(
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER \"!a\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE FUNCTION next() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                IF pg_trigger_depth() = 1 THEN UPDATE public.t SET v = v || '+' WHERE id = NEW.id + 2; END IF; RETURN NULL; END$$;
             CREATE TRIGGER next AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION next()",
        )
        .await;
    let (refused, _) = live.repack(&["--table", "public.t"]);
    let rename = "ALTER TRIGGER \"!a\" ON public.t RENAME TO \"t_!a\"";
    let told = format!("{}{}", refused.stdout, refused.stderr).replace("\\\"", "\"");
    assert!(refused.code() == 3 && told.contains(rename), "{refused:?}");
    live.admin.exec(rename).await;
    let running = live.program.spawn(T);
    live.copy_rests().await;
    live.admin.exec("UPDATE t SET v = v || '.' WHERE id < 1000").await;
    let expected = live.admin.table_hash("public.t").await;
    std::fs::remove_file(&hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
    live.assert_clean().await;
}
