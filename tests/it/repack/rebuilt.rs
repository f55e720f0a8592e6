//! What is to be different in the new table: the order of rows and columns, the tablespace.

use serde_json::Value;

use super::{LIMIT, Live};
use crate::support::db::Db;
use crate::support::wait::until;

const T: [&str; 2] = ["--table", "public.t"];

/// Rows lie in the order of `id`, and are updated so that `v` has no order.
const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, flag bool NOT NULL, v int NOT NULL, big bigint NOT NULL, n text); \
     CREATE INDEX t_v ON t (v DESC, id); \
     INSERT INTO t SELECT i, true, (i * 7919) % 1000, i, md5(i::text) FROM generate_series(1, 20000) i; ANALYZE t";

/// Rows that lie before one they should follow.
async fn out_of_order(db: &Db, order: &str) -> String {
    db.value(&format!(
        "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY ctid) a, row_number() OVER (ORDER BY {order}) b FROM t) s WHERE a <> b"
    ))
    .await
}

#[tokio::test]
async fn rows_are_written_in_the_order_asked_for() {
    let live = Live::new(ROWS, "").await;
    let before = live.admin.table_hash("public.t").await;
    let (finished, _) = live.repack(&[&T[..], &["--order-by", "v desc, id", "--verify", "full"]].concat());
    finished.expect_code(0);
    assert_eq!(out_of_order(&live.admin, "v DESC, id").await, "0");
    assert_eq!(live.admin.table_hash("public.t").await, before);
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_index WHERE indisclustered").await, "0");
    live.assert_clean().await;
}

#[tokio::test]
async fn changes_during_an_ordered_copy_are_not_lost() {
    let (live, hold) = Live::held(ROWS, "").await;
    let running =
        live.program.spawn(&["repack", "--table", "public.t", "--order-by", "n", "--verify", "full"]);
    live.copy_rests().await;
    let writer = live.session("writer").await;
    writer.exec("UPDATE t SET n = 'changed' WHERE id % 3 = 0").await;
    writer.exec("DELETE FROM t WHERE id % 5 = 0").await;
    let expected = live.admin.table_hash("public.t").await;
    std::fs::remove_file(hold).unwrap();
    running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.table_hash("public.t").await, expected);
}

#[tokio::test]
async fn columns_that_cannot_be_sorted_or_ordered_are_refused() {
    let live =
        Live::new(&format!("{ROWS}; ALTER TABLE t ADD p point; CREATE VIEW w AS SELECT x.a FROM t x(a)"), "")
            .await;
    for (options, words) in [
        (["--order-by", "nothing"], "nothing"),
        (["--order-by", "p"], "point"),
        (["--tablespace", "nowhere"], "nowhere"),
        (["--tablespace", "pg_global"], "pg_global"),
        (["--column-order", "id,id,v"], "leaves out"),
        (["--column-order", "v,id,flag,big,n,p"], "view public.w"),
    ] {
        let (finished, reports) = live.repack(&[&T[..], &options].concat());
        finished.expect_code(3);
        assert!(reports[0]["reason"].to_string().contains(words), "{options:?}: {reports:?}");
        let (dry, _) = live.repack(&[&T[..], &options, &["--dry-run"]].concat());
        dry.expect_code(3);
    }
}

#[tokio::test]
async fn the_table_and_its_indexes_move_to_the_tablespace() {
    let live = Live::new(ROWS, "").await;
    live.admin.exec("SET allow_in_place_tablespaces = on").await;
    live.admin.exec("CREATE TABLESPACE fast LOCATION ''").await;
    let options = [&T[..], &["--tablespace", "fast"]].concat();
    live.repack(&options).0.expect_code(3);
    live.admin.exec("GRANT CREATE ON TABLESPACE fast TO app").await;
    live.repack(&options).0.expect_code(0);
    let there = "SELECT count(*) FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace \
         WHERE spcname = 'fast' AND relname IN ('t', 't_pkey', 't_v')";
    assert_eq!(live.admin.value(there).await, "3");
    live.repack(&T).0.expect_code(0);
    assert_eq!(live.admin.value(there).await, "3", "without the option they stay where they are");
}

#[tokio::test]
async fn a_dry_run_tells_of_padding_and_the_order_it_names_removes_it() {
    let live = Live::new(ROWS, "").await;
    let dry = [&T[..], &["--dry-run"]].concat();
    let padding = |live: &Live| live.repack(&dry).1[0]["padding"].clone();
    let before = padding(&live);
    let order: Vec<&str> =
        before["best_order"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(order, ["big", "id", "v", "flag", "n"], "{before}");
    assert!(before["saving"].as_f64().unwrap() > 2.0, "{before}");
    let order = order.join(",");
    let text =
        live.program.run(&[&["repack"], &T[..], &["--column-order", &order]].concat(), LIMIT).expect_code(0);
    assert!(text.stdout.contains("cached plan must not change result type"), "{text:?}");
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(live.admin.value(columns).await, "big,id,v,flag,n");
    assert_eq!(padding(&live)["saving"], 0.0);
}

/// With a view, a publication's column list, statistics and grants, all of which know columns by number.
#[tokio::test]
async fn what_counts_columns_elsewhere_is_made_again_by_name() {
    let live = Live::new(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, a text COLLATE \"C\" NOT NULL DEFAULT 'x', \
           b int CHECK (b > 0), c int GENERATED ALWAYS AS (b * 2) STORED, d text COMPRESSION pglz); ALTER TABLE t DROP gone; \
         ALTER TABLE t ALTER d SET STORAGE EXTERNAL; GRANT SELECT (b) ON t TO reader; COMMENT ON COLUMN t.b IS 'b'; \
         CREATE STATISTICS st ON a, b FROM t; CREATE VIEW w AS SELECT a, b FROM t WHERE b > 1; \
         CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT min(b) FROM t; END; \
         INSERT INTO t (b, d) SELECT i, 'd' || i FROM generate_series(1, 50) i",
        "",
    )
    .await;
    live.admin.exec("GRANT CREATE ON DATABASE app TO app").await;
    live.owner.exec("CREATE PUBLICATION p FOR TABLE t (id, a, b)").await;
    let picture = "SELECT md5(string_agg(id || a || b || c || d, ',' ORDER BY id)), (SELECT string_agg(a || b, ',' ORDER BY b) FROM w), one(), \
         (SELECT array_agg(x ORDER BY x)::text FROM pg_publication_tables, unnest(attnames) x), \
         (SELECT string_agg(concat(attname, atttypid, attcollation, attstorage, attcompression, attnotnull, attidentity, attgenerated), ',' \
            ORDER BY attname) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped) FROM t";
    let before = live.admin.query_text(picture).await;
    live.repack(&[&T[..], &["--column-order", "c,d,b,a,id", "--verify", "full"]].concat()).0.expect_code(0);
    assert_eq!(live.admin.query_text(picture).await, before);
    let comment = "SELECT col_description('t'::regclass, attnum) || has_column_privilege('reader', 't', 'b', 'SELECT') \
         FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'b'";
    assert_eq!(live.admin.value(comment).await, "btrue");
    live.owner.exec("DROP PUBLICATION p").await;
    live.assert_clean().await;
}

#[tokio::test]
async fn what_was_begun_goes_on_the_same_way_or_refuses_another() {
    let (live, hold) = Live::held(ROWS, "").await;
    let running = live.program.spawn(&["repack", "--table", "public.t", "--order-by", "v desc,id"]);
    live.copy_rests().await;
    running.kill();
    std::fs::remove_file(hold).unwrap();
    until("its session has ended", LIMIT, || async {
        live.admin.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND pid NOT IN (SELECT pid FROM pg_stat_activity WHERE state = 'idle' AND backend_type = 'client backend')").await == "0"
    })
    .await;
    let (other, reports) = live.repack(&[&T[..], &["--order-by", "id"]].concat());
    other.expect_code(3);
    assert!(reports[0]["reason"].to_string().contains("--order-by v desc,id"), "{reports:?}");
    live.repack(&T).0.expect_code(0);
    assert_eq!(out_of_order(&live.admin, "v DESC, id").await, "0");
    live.assert_clean().await;
}

#[tokio::test]
async fn an_order_of_columns_that_is_the_old_one_is_no_news() {
    let live =
        Live::new("CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x')", "").await;
    for (order, news) in [("a,b", false), ("b,a", true)] {
        let arguments = [&["repack"][..], &T, &["--column-order", order]].concat();
        let text = live.program.run(&arguments, LIMIT).expect_code(0);
        assert_eq!(text.stdout.contains("have another order"), news, "{order}: {text:?}");
    }
    live.assert_clean().await;
}
