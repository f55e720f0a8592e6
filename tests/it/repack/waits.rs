//! What happens to a table, and beside it, while its finished copy waits for the exchange.

use super::{LIMIT, Live};
use crate::support::wait::until;

const T: [&str; 2] = ["--table", "public.t"];

const PARTS: &str = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
     CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (1000);
     CREATE TABLE d PARTITION OF p DEFAULT;
     INSERT INTO p SELECT i, 'v' FROM generate_series(1, 300) i; ANALYZE";

/// Ways in which the table is gone, and what is said of it.
const GONE: [(&str, &str); 4] = [
    ("DROP TABLE p", "the table was dropped"),
    ("DROP TABLE t", "the table was dropped"),
    ("ALTER TABLE t RENAME TO tt", "the table is public.tt now; repack it under that name"),
    ("ALTER TABLE t RENAME TO tt; CREATE TABLE t (id int)", "the table is public.tt now"),
];

/// Ways in which it was changed, and what of it is named.
const CHANGED: [(&str, &str); 2] = [
    ("ALTER TABLE p RENAME TO q", "place of table public.t in public.q"),
    ("ALTER TABLE p DETACH PARTITION t", "place of table public.t in public.p"),
];

#[tokio::test]
async fn what_became_of_a_prepared_table_is_said_by_name() {
    for (ddl, what) in CHANGED.into_iter().chain(GONE) {
        let live = Live::new(PARTS, "").await;
        live.command("prepare", &T).0.expect_code(0);
        live.owner.exec(ddl).await;
        let (finished, reports) = live.command("swap", &T);
        let reason = reports[0]["reason"].as_str().unwrap();
        assert!(reason.contains(what), "{ddl}: {finished:?}");
        let gone = reason.contains("the repack of public.t cannot go on");
        assert_eq!(finished.code(), if gone { 1 } else { 3 }, "{ddl}: {finished:?}");
        if !gone {
            assert!(reason.contains("`repcloud repack` or `prepare` copies it"), "{ddl}: {finished:?}");
            live.command("abort", &T).0.expect_code(0);
        }
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn what_became_of_a_table_that_waits_is_said_by_name() {
    for (ddl, what) in CHANGED.into_iter().chain(GONE) {
        let live = Live::new(PARTS, "").await;
        let running = live.program.spawn(&["repack", "--table", "public.t", "--postpone-swap", "--json"]);
        until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        live.owner.exec(ddl).await;
        let swap = live.command("swap", &T).0;
        let finished = running.wait(LIMIT).expect_code(1);
        assert!(finished.stdout.contains(what), "{ddl}: {finished:?}");
        if what.starts_with("place") {
            assert!(finished.stdout.contains("was changed while it was being repacked"), "{finished:?}");
            assert!(swap.stdout.contains(what), "{ddl}: {swap:?}");
            swap.expect_code(1);
            live.command("abort", &T).0.expect_code(0);
        }
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn the_default_partition_beside_it_may_come_go_and_change_its_name() {
    let live = Live::new(PARTS, "").await;
    for ddl in [
        "ALTER TABLE d RENAME TO dd",
        "ALTER TABLE p DETACH PARTITION dd",
        "ALTER TABLE p ATTACH PARTITION dd DEFAULT",
    ] {
        let running = live.program.spawn(&["repack", "--table", "public.t", "--postpone-swap"]);
        until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        live.owner.exec(ddl).await;
        live.command("swap", &T).0.expect_code(0);
        running.wait(LIMIT).expect_code(0);
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn a_materialized_view_that_is_filled_or_emptied_meanwhile_stays_so() {
    let live = Live::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 300) i;
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t WITH NO DATA;
         CREATE MATERIALIZED VIEW f AS SELECT count(*) AS n FROM t; ANALYZE",
        "",
    )
    .await;
    let populated = "SELECT string_agg(relname || ' ' || relispopulated, ',' ORDER BY relname) FROM pg_class WHERE relkind = 'm'";
    for (ddl, after) in [
        ("REFRESH MATERIALIZED VIEW m", "f true,m true"),
        ("REFRESH MATERIALIZED VIEW f", "f true,m true"),
        ("REFRESH MATERIALIZED VIEW m WITH NO DATA", "f true,m false"),
    ] {
        let running = live.program.spawn(&["repack", "--table", "public.t", "--postpone-swap"]);
        until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        live.owner.exec(ddl).await;
        let swap = live.command("swap", &T).0;
        let finished = running.wait(LIMIT).expect_code(0);
        swap.expect_code(0);
        assert_eq!(live.admin.value(populated).await, after, "{ddl}: {finished:?}");
        live.assert_clean().await;
    }
    // The same where nobody applies changes meanwhile.
    live.command("prepare", &T).0.expect_code(0);
    live.owner.exec("REFRESH MATERIALIZED VIEW m; REFRESH MATERIALIZED VIEW f WITH NO DATA").await;
    live.command("swap", &T).0.expect_code(0);
    assert_eq!(live.admin.value(populated).await, "f false,m true");
    assert_eq!(live.admin.value("SELECT n FROM m").await, "300");
    live.assert_clean().await;
}

#[tokio::test]
async fn changes_are_counted_on_over_processes_and_lost_connections() {
    let live = Live::new("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 300) i; ANALYZE", "").await;
    let update = |from: u32| format!("UPDATE t SET v = 'w' WHERE id BETWEEN {from} AND {}", from + 49);
    live.command("prepare", &T).0.expect_code(0);
    live.owner.exec(&update(1)).await;
    let reports = live.command("prepare", &T).1;
    assert_eq!(reports[0]["changes_replayed"], 50);
    live.owner.exec(&update(51)).await;
    let running = live.program.spawn(&["repack", "--table", "public.t", "--postpone-swap", "--json"]);
    let replayed = || live.program.json(&["status"], LIMIT)["repacks"][0]["changes_replayed"].as_i64();
    until("they are applied", LIMIT, || async { replayed() == Some(100) }).await;
    live.admin
        .exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND application_name LIKE 'repcloud%'")
        .await;
    live.owner.exec(&update(101)).await;
    until("they are applied after the cut", LIMIT, || async { replayed() == Some(150) }).await;
    live.owner.exec(&update(151)).await;
    let reports = live.command("swap", &T).1;
    assert_eq!(reports[0]["changes_replayed"], 200, "{reports:?}");
    let finished = running.wait(LIMIT).expect_code(0);
    assert_eq!(super::reports(&finished.stdout)[0]["changes_replayed"], 200, "{finished:?}");
    assert_eq!(replayed(), Some(200));
}

/// As many columns as a table may have, and some more than half of what one statement can join.
#[tokio::test]
async fn a_table_of_very_many_columns_is_compared_too() {
    let columns: Vec<String> = (1..1600).map(|i| format!("c{i} int")).collect();
    let live = Live::new(
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, {}); INSERT INTO t (id, c1) SELECT i, i FROM generate_series(1, 60) i; ANALYZE",
            columns.join(", ")
        ),
        "",
    )
    .await;
    live.command("prepare", &[&T[..], &["--verify", "full"]].concat()).0.expect_code(0);
    live.owner.exec("UPDATE t SET c7 = id, c1500 = 3 WHERE id < 10; DELETE FROM t WHERE id > 58; INSERT INTO t (id, c3) VALUES (100, 1)").await;
    let verify = ["verify", "--connection", "live", "--table", "public.t", "--json"];
    let same = live.program.run(&verify, LIMIT).expect_code(0);
    assert_eq!(super::reports(&same.stdout)[0]["rows"], 59, "{same:?}");
    live.admin.exec("UPDATE repcloud_new.t SET c2 = 0, c1598 = 0 WHERE id = 20; UPDATE repcloud_new.t SET c900 = 0 WHERE id = 21").await;
    let different = live.program.run(&verify, LIMIT).expect_code(1);
    assert_eq!(super::reports(&different.stdout)[0]["differences"], 2, "{different:?}");
    live.command("abort", &T).0.expect_code(0);
    let before = live.admin.table_hash("t").await;
    live.repack(&[&T[..], &["--verify", "full", "--max-lock-ms", "20000"]].concat()).0.expect_code(0);
    assert_eq!(live.admin.table_hash("t").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn policies_and_rules_that_name_only_a_materialized_view_follow_it() {
    let live = Live::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 30) i;
         CREATE MATERIALIZED VIEW m AS SELECT id FROM t; CREATE TABLE o (a int);
         CREATE POLICY p ON o USING (a IN (SELECT id FROM m)); ALTER TABLE o ENABLE ROW LEVEL SECURITY;
         INSERT INTO o VALUES (1), (100); GRANT SELECT ON m, o TO reader;
         CREATE TABLE w (a int); INSERT INTO w VALUES (1);
         CREATE RULE r AS ON DELETE TO w DO ALSO INSERT INTO o SELECT max(id) FROM m; ANALYZE",
        "",
    )
    .await;
    let reader = live.session("reader").await;
    assert_eq!(reader.value("SELECT count(*) FROM o").await, "1");
    live.repack(&T).0.expect_code(0);
    live.owner.exec("INSERT INTO t VALUES (100, 'v'); REFRESH MATERIALIZED VIEW m").await;
    assert_eq!(reader.value("SELECT count(*) FROM o").await, "2", "the policy reads the new view");
    live.owner.exec("DELETE FROM w").await;
    assert_eq!(live.owner.value("SELECT count(*) FROM o WHERE a = 100").await, "2", "so does the rule");
    live.assert_clean().await;
}

#[tokio::test]
async fn what_another_repack_makes_of_it_is_said_as_it_is() {
    let live = Live::new(PARTS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.t", "--postpone-swap"]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    live.owner.exec("COMMENT ON TABLE t IS 'new'").await;
    live.command("swap", &T).0.expect_code(1);
    let text = running.wait(LIMIT).expect_code(1);
    assert!(text.stdout.contains("`repcloud repack` begins anew"), "{text:?}");
    assert!(!text.stdout.contains("goes on with it"), "{text:?}");
    let again = live.repack(&T).0.expect_code(0);
    assert!(again.stderr.contains("it begins anew"), "{again:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn the_head_line_is_not_said_twice() {
    let live = Live::new(PARTS, "").await;
    live.owner.exec("CREATE FUNCTION f(t) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION g(t) RETURNS int LANGUAGE sql AS 'SELECT 2'").await;
    let refused = live.program.run(&["repack", T[0], T[1]], LIMIT).expect_code(3);
    assert!(refused.stdout.contains("reason: 2 findings:\n"), "{refused:?}");
    assert_eq!(refused.stdout.matches("nothing was changed").count(), 1, "{refused:?}");
    let refused = live.program.run(&["swap", T[0], T[1]], LIMIT).expect_code(3);
    assert_eq!(refused.stdout.matches("nothing was changed").count(), 1, "{refused:?}");
}

#[tokio::test]
async fn rows_that_were_never_counted_have_no_number() {
    let live = Live::new("CREATE TABLE t (id int PRIMARY KEY) WITH (autovacuum_enabled = off); INSERT INTO t SELECT generate_series(1, 50)", "").await;
    let told = live.repack(&T).0.expect_code(0);
    assert!(told.stderr.contains("copying its rows; how many is not known"), "{told:?}");
}
