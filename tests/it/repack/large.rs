//! What is there in great numbers: columns with defaults, and what a person need not wait for.

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

/// The server makes a list of all column names for each expression it prints: that must not be asked of it for a thousand defaults,
/// twice under the lock.
#[tokio::test]
async fn a_table_of_very_many_defaults_is_exchanged_within_the_usual_limit() {
    let columns: Vec<String> = (1..=1000).map(|i| format!("c{i} int DEFAULT {i}")).collect();
    let schema = format!(
        "CREATE TABLE wide (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED, {}); \
         INSERT INTO wide (id) SELECT generate_series(1, 20)",
        columns.join(", ")
    );
    let live = Live::new(&schema, "").await;
    let columns = "SELECT count(*) || ' ' || md5(string_agg(pg_get_expr(d.adbin, d.adrelid), ',' ORDER BY d.adnum)) \
                   FROM pg_attrdef d WHERE d.adrelid = 'wide'::regclass";
    let (rows, before) = (live.admin.table_hash("wide").await, live.admin.value(columns).await);
    // Most of it is not under the lock, whose limit is the one that counts.
    live.program.run(&["repack", "--table", "public.wide"], 3 * LIMIT).expect_code(0);
    assert_eq!(live.admin.value(columns).await, before);
    assert_eq!(live.admin.table_hash("wide").await, rows);
    live.assert_clean().await;
}

#[tokio::test]
async fn who_ends_it_does_not_wait_for_the_catalogs() {
    let live = Live::new(ORDERS, "").await;
    for command in ["repack", "prepare"] {
        // Whoever prints the view's query waits for this.
        live.owner.exec("BEGIN; ALTER VIEW big_orders SET (security_barrier = true)").await;
        let running = live.program.spawn(&[command, "--json", "--table", "public.orders"]);
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pg_get_viewdef%' \
                     AND application_name LIKE 'repcloud%'";
        until("it waits for the catalogs", LIMIT, || async { live.admin.value(waits).await == "1" }).await;
        running.terminate();
        let finished = running.wait(LIMIT).expect_code(130);
        assert!(finished.stdout.contains("\"stopped; "), "{command}: {finished:?}");
        until("nobody waits any more", LIMIT, || async { live.admin.value(waits).await == "0" }).await;
        live.owner.exec("ROLLBACK").await;
    }
    live.repack(&["--table", "public.orders"]).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn views_over_views_come_back_with_what_reads_them() {
    let live = Live::new(ORDERS, "").await;
    live.owner
        .exec("CREATE VIEW both_of AS SELECT o.id, b.code FROM orders o JOIN big_orders b USING (id); \
               CREATE VIEW all_three AS SELECT o.id, t.code FROM orders o JOIN both_of t USING (id) JOIN item i ON i.orders = o.id")
        .await;
    let rows = "SELECT count(*) || ' ' || sum(id) FROM all_three";
    let before = live.admin.value(rows).await;
    live.repack(&["--table", "public.orders"]).0.expect_code(0);
    assert_eq!(live.admin.value(rows).await, before);
    let reads = "SELECT count(DISTINCT d.refobjid) FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
                 WHERE d.refobjid = 'orders'::regclass AND r.ev_class IN ('big_orders'::regclass, 'both_of'::regclass, 'all_three'::regclass)";
    assert_eq!(live.admin.value(reads).await, "1");
    live.assert_clean().await;
}
