//! Catch-ups that several sessions share.

use super::load::{Load, assert_journal, schema};
use super::{LIMIT, Live};
use crate::support::db::Db;
use crate::support::process::Running;
use crate::support::scaled;
use crate::support::wait::until;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL, pad text); \
     INSERT INTO t SELECT i, i, repeat('x', 50) FROM generate_series(1, 2000) i; DELETE FROM t WHERE id % 2 = 0; ANALYZE t";
const CAPTURES: [&str; 2] = ["slot", "trigger"];
/// How many lanes there are: a position row each.
const LANES: &str = "SELECT count(*) FROM repcloud.checkpoint";

async fn live(schema: &str, capture: &str) -> Live {
    Live::new(schema, &format!("capture = \"{capture}\"")).await
}

impl Live {
    /// A repack that is ready for the exchange and goes on applying.
    async fn following(&self, jobs: &str) -> Running {
        let arguments =
            ["repack", "--table", "public.t", "--postpone-swap", "--verify", "full", "--jobs", jobs];
        let running = self.program.spawn(&arguments);
        until("it is ready", LIMIT, || async { self.state().await == "verified" }).await;
        running
    }

    fn swapped(&self, running: Running) {
        let swap = || (self.command("swap", &["--table", "public.t"]), running.wait(LIMIT));
        let ((swap, _), finished) = tokio::task::block_in_place(swap);
        swap.expect_code(0);
        finished.expect_code(0);
    }
}

#[tokio::test]
async fn a_table_whose_rows_may_stand_in_each_other_s_way_has_one_lane() {
    let live = live(
        "CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE plain (id bigint PRIMARY KEY, u text); CREATE INDEX ON plain (u);
         CREATE TABLE pair (a text, b uuid, c int, PRIMARY KEY (a, b), UNIQUE (c, b, a));
         CREATE TABLE other_unique (id int PRIMARY KEY, u int UNIQUE);
         CREATE TABLE other_expression (id int PRIMARY KEY, u text); CREATE UNIQUE INDEX ON other_expression (lower(u));
         CREATE TABLE other_exclusion (id int PRIMARY KEY, b box, EXCLUDE USING gist (b WITH &&));
         CREATE TABLE amount (id numeric PRIMARY KEY);
         CREATE TABLE collated (id text COLLATE insensitive PRIMARY KEY);
         CREATE TABLE keyless (id int); ALTER TABLE keyless REPLICA IDENTITY FULL",
        "slot",
    )
    .await;
    for (table, jobs, lanes, why) in [
        ("plain", "1", "1", None),
        ("plain", "2", "2", None),
        ("plain", "9", "4", None),
        ("pair", "3", "3", None),
        ("other_unique", "2", "1", Some("other_unique_u_key")),
        ("other_expression", "2", "1", Some("other_expression_lower_idx")),
        ("other_exclusion", "2", "1", Some("other_exclusion_b_excl")),
        ("amount", "2", "1", Some("\"id\"")),
        ("collated", "2", "1", Some("\"id\"")),
        ("keyless", "2", "1", Some("no key")),
    ] {
        let name = format!("public.{table}");
        let (finished, _) = live.command("prepare", &["--table", &name, "--jobs", jobs]);
        let finished = finished.expect_code(0);
        assert_eq!(live.admin.value(LANES).await, lanes, "{table}, --jobs {jobs}: {finished:?}");
        let said = match why {
            Some(_) => "one session applies changes: ".to_owned(),
            None if lanes == "1" => "one session applies changes".to_owned(),
            None => format!("{lanes} sessions apply changes"),
        };
        assert!(finished.stderr.contains(&said), "{table}, --jobs {jobs}: {finished:?}");
        assert!(finished.stderr.contains(why.unwrap_or_default()), "{table}: {finished:?}");
        live.command("abort", &["--table", &name]).0.expect_code(0);
        live.assert_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_under_load_every_table_holds_what_was_written() {
    for capture in CAPTURES {
        let without_unique =
            schema(scaled(2_000, 50_000)).replace(" UNIQUE DEFERRABLE INITIALLY DEFERRED", "");
        let live = live(&without_unique, capture).await;
        let load = Load::start(&live, 3).await;
        let arguments = [
            "--table",
            "public.t0",
            "--table",
            "public.t1",
            "--jobs",
            "3",
            "--attempts",
            "200",
            "--verify",
            "full",
        ];
        let (finished, reports) = tokio::task::block_in_place(|| live.repack(&arguments));
        let finished = finished.expect_code(0);
        assert!(reports.iter().all(|r| r["outcome"] == "swapped"), "{capture}: {finished:?}");
        assert_eq!(finished.stderr.matches("3 sessions apply changes").count(), 2, "{finished:?}");
        let journal = load.finish().await;
        assert_journal(&live, &journal).await;
        live.assert_clean().await;
    }
}

/// One lane waits for a row lock while the others go on.
async fn held_in_one_lane(live: &Live, capture: &str) -> Db {
    let holder = live.session("app").await;
    holder.exec("BEGIN; SELECT FROM repcloud_new.t WHERE id = 1 FOR UPDATE").await;
    live.owner.exec("UPDATE t SET v = v + 1 WHERE id < 200").await;
    // Ticks are numbers that stand where positions of the WAL do.
    let here = match capture {
        "slot" => "SELECT pg_current_wal_lsn()",
        _ => "SELECT '0/0'::pg_lsn + max(number) FROM repcloud.tick",
    };
    let here = live.admin.value(here).await;
    live.owner.exec("BEGIN; UPDATE t SET v = v + 1 WHERE id > 1 AND id < 100; DELETE FROM t WHERE id BETWEEN 100 AND 120; COMMIT").await;
    let apart =
        format!("SELECT max(applied_lsn) > greatest(min(applied_lsn), '{here}') FROM repcloud.checkpoint");
    until("a lane is ahead", LIMIT, || async { live.admin.value(&apart).await == "t" }).await;
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_lanes_apart_each_goes_on_from_its_own_position_whatever_jobs_are_asked_for() {
    for capture in CAPTURES {
        for jobs in ["1", "4"] {
            let live = live(T, capture).await;
            let running = live.following("2").await;
            assert_eq!(live.admin.value(LANES).await, "2");
            let holder = held_in_one_lane(&live, capture).await;
            running.kill();
            live.owner.exec("UPDATE t SET v = v + 1, pad = 'later' WHERE id < 300; INSERT INTO t VALUES (2, 0, 'new')").await;
            holder.exec("ROLLBACK").await;
            let running =
                live.program.spawn(&["repack", "--table", "public.t", "--verify", "full", "--jobs", jobs]);
            let finished = tokio::task::block_in_place(|| running.wait(LIMIT)).expect_code(0);
            assert!(
                finished
                    .stderr
                    .contains(&format!("2 sessions apply changes, as before: another number ({jobs})")),
                "the number is stored: {finished:?}"
            );
            let wrong = "SELECT count(*) FROM t WHERE v <> id + (id > 1 AND id < 100)::int + (id < 200)::int + (id < 300)::int AND id <> 2";
            assert_eq!(live.admin.value(wrong).await, "0", "{capture}, --jobs {jobs}");
            assert_eq!(live.admin.value("SELECT count(*) FROM t").await, "991");
            live.assert_clean().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_lanes_stand_level_another_number_may_follow() {
    let live = live(T, "slot").await;
    for (jobs, lanes) in [("3", "3"), ("4", "4"), ("1", "1"), ("2", "2")] {
        live.command("prepare", &["--table", "public.t", "--jobs", jobs]).0.expect_code(0);
        assert_eq!(live.admin.value(LANES).await, lanes);
        live.owner.exec("UPDATE t SET v = v + 1; UPDATE t SET id = -id WHERE id < 10; UPDATE t SET id = -id WHERE id < 0").await;
    }
    let replayed = live.program.json(&["status"], LIMIT)["repacks"][0]["changes_replayed"].as_u64();
    assert!(replayed >= Some(3_000), "by all lanes, also those that have gone: {replayed:?}");
    let before = live.admin.table_hash("t").await;
    live.command("swap", &["--table", "public.t", "--jobs", "2"]).0.expect_code(0);
    assert_eq!(live.admin.table_hash("t").await, before);
    live.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_keys_and_truncate_amid_a_catch_up_come_in_their_order() {
    for capture in CAPTURES {
        let live = live(T, capture).await;
        let running = live.following("3").await;
        assert_eq!(live.admin.value(LANES).await, "3");
        // All lanes wait, so that what follows is a backlog.
        let holder = live.session("app").await;
        holder.exec("BEGIN; LOCK TABLE repcloud_new.t IN SHARE MODE").await;
        let write = async |sql: &str| live.owner.exec(sql).await;
        for round in 0..4 {
            for id in (1..60).step_by(2) {
                write(&format!("UPDATE t SET v = v + {round} WHERE id = {id}")).await;
            }
            // Keys wander between the lanes, alone and with other changes of the same transaction.
            write("UPDATE t SET id = 100001 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 100001").await;
            write("BEGIN; DELETE FROM t WHERE id = 5; UPDATE t SET id = 5 WHERE id = 7; INSERT INTO t VALUES (7, 7, 'seven'); UPDATE t SET v = 0 WHERE id BETWEEN 20 AND 40; COMMIT").await;
            if round == 1 {
                write("TRUNCATE t").await;
                for id in 1..60 {
                    write(&format!("INSERT INTO t VALUES ({id}, 0, 'anew')")).await;
                }
            }
            if round == 2 {
                write("BEGIN; DELETE FROM t WHERE id < 10; TRUNCATE t; INSERT INTO t SELECT i, 0, repeat('y', 900) FROM generate_series(1, 3000) i; UPDATE t SET id = -id WHERE id < 100; UPDATE t SET id = -id WHERE id < 0; COMMIT").await;
            }
        }
        let expected = live.admin.table_hash("t").await;
        holder.exec("ROLLBACK").await;
        live.swapped(running);
        assert_eq!(live.admin.table_hash("t").await, expected, "{capture}");
        live.assert_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_in_one_lane_stops_all() {
    let live = live(T, "slot").await;
    let running = live.following("2").await;
    assert_eq!(live.admin.value(LANES).await, "2");
    live.admin.exec("DELETE FROM repcloud_new.t WHERE id = 11").await;
    for id in (1..100).step_by(2) {
        live.owner.exec(&format!("UPDATE t SET v = v + 1 WHERE id = {id}")).await;
    }
    let finished = tokio::task::block_in_place(|| running.wait(LIMIT)).expect_code(1);
    assert!(finished.stdout.contains("the row is not there"), "{finished:?}");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state IS NOT NULL AND query ILIKE '%repcloud%'";
    until("no lane is left", LIMIT, || async { live.admin.value(sessions).await == "0" }).await;
    live.command("abort", &["--table", "public.t"]).0.expect_code(0);
    live.assert_clean().await;
}
