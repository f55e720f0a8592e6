//! Somebody touches what is ours, or sets what our sessions must not inherit, while a repack is under way.

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

#[tokio::test]
async fn a_change_that_was_not_published_is_not_lost() {
    let live = Live::new(ORDERS, "").await;
    let publication = "SELECT pubname FROM pg_publication WHERE pubname !~ '_ins$'";
    for meddling in [
        &["DROP TABLE orders", "ADD TABLE orders"][..],
        &["SET (publish = 'insert')"],
        &["SET (publish = 'insert')", "SET (publish = 'insert, update, delete, truncate')"],
    ] {
        live.command("prepare", &TABLE).0.expect_code(0);
        let name = live.admin.value(publication).await;
        live.owner.exec(&format!("ALTER PUBLICATION {name} {}", meddling[0])).await;
        live.session("writer").await.exec("UPDATE orders SET total = total + 1 WHERE id = 7").await;
        if let Some(back) = meddling.get(1) {
            live.owner.exec(&format!("ALTER PUBLICATION {name} {back}")).await;
        }
        let before = live.admin.table_hash("orders").await;
        let refused = live.command("swap", &TABLE).0.expect_code(3);
        assert!(refused.stdout.contains("its publication was changed"), "{refused:?}");
        live.repack(&TABLE).0.expect_code(0);
        assert_eq!(live.admin.table_hash("orders").await, before, "{meddling:?}");
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn a_publication_dropped_while_prepared_begins_anew() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    let drop = "SELECT 'DROP PUBLICATION ' || string_agg(pubname, ', ') FROM pg_publication";
    let drop = live.admin.value(drop).await;
    live.owner.exec(&drop).await;
    live.session("writer").await.exec("UPDATE orders SET total = total + 1 WHERE id = 7").await;
    let before = live.admin.table_hash("orders").await;
    live.command("swap", &TABLE).0.expect_code(3);
    live.repack(&TABLE).0.expect_code(0);
    assert_eq!(live.admin.table_hash("orders").await, before);
    live.assert_clean().await;
}

#[tokio::test]
async fn settings_of_the_role_do_not_change_what_is_replayed() {
    let schema = "CREATE TABLE an (id int PRIMARY KEY, a text[], f float8[]);
        INSERT INTO an SELECT g, ARRAY['a', NULL], ARRAY[1.5, NULL] FROM generate_series(1, 500) g;
        CREATE VIEW of_an AS SELECT id, a FROM an";
    let live = Live::new(schema, "").await;
    for setting in ["array_nulls = off", "quote_all_identifiers = on", "transform_null_equals = on"] {
        live.admin.exec(&format!("ALTER ROLE app SET {setting}")).await;
    }
    live.command("prepare", &["--table", "public.an"]).0.expect_code(0);
    live.session("writer")
        .await
        .exec("UPDATE an SET a = ARRAY['x', NULL], f = ARRAY[NULL, 2] WHERE id = 77")
        .await;
    live.command("swap", &["--table", "public.an"]).0.expect_code(0);
    assert_eq!(
        live.admin.value("SELECT (a[2] IS NULL AND f[1] IS NULL)::text FROM an WHERE id = 77").await,
        "true"
    );
    live.assert_clean().await;
}

#[tokio::test]
async fn an_abort_asks_nothing_of_the_table() {
    let live = Live::new(ORDERS, "").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live.owner.exec("CREATE MATERIALIZED VIEW late AS SELECT count(*) FROM orders").await;
    live.command("abort", &TABLE).0.expect_code(0);
    live.owner.exec("DROP MATERIALIZED VIEW late").await;
    live.command("prepare", &TABLE).0.expect_code(0);
    live.admin.exec("ALTER TABLE orders OWNER TO postgres").await;
    live.command("abort", &[]).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn nobody_waits_for_a_slot_that_is_not_wanted_any_more() {
    let live = Live::new(ORDERS, "").await;
    let old = live.session("writer").await;
    old.exec("BEGIN; UPDATE orders SET total = total WHERE id = 1").await;
    let running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
    until("it waits", LIMIT, || async { running.stderr().contains("has waited") }).await;
    live.program.run(&["stop", "--connection", "live"], LIMIT).expect_code(0);
    running.wait(LIMIT).expect_code(130);
    assert_eq!(live.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    old.exec("COMMIT").await;
    live.command("repack", &TABLE).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_database_that_is_read_only_by_default_is_refused_and_status_says_when_it_cannot_look() {
    let live = Live::new(ORDERS, "").await;
    live.admin.exec("ALTER DATABASE app SET default_transaction_read_only = on").await;
    let (refused, reports) = live.repack(&TABLE);
    refused.expect_code(3);
    assert!(reports[0]["reason"].as_str().unwrap().contains("read-only by default"), "{reports:?}");
    live.program.run(&["status"], LIMIT).expect_code(0);
    live.admin.exec("ALTER ROLE app NOLOGIN").await;
    let blind = live.program.run(&["status", "--json"], LIMIT).expect_code(1);
    assert_eq!(blind.stdout, "");
}

#[tokio::test]
async fn the_application_may_drop_a_table_whose_copy_is_prepared() {
    let schema = "CREATE TABLE s (id serial PRIMARY KEY, n bigserial, v text);
        INSERT INTO s (v) SELECT 'v' FROM generate_series(1, 100)";
    let live = Live::new(schema, "").await;
    let table = ["--table", "public.s"];
    live.command("prepare", &table).0.expect_code(0);
    live.command("swap", &table).0.expect_code(0);
    live.session("writer").await.exec("INSERT INTO s (v) VALUES ('next')").await;
    assert_eq!(live.admin.value("SELECT id || ' ' || n FROM s WHERE v = 'next'").await, "101 101");
    live.command("prepare", &table).0.expect_code(0);
    live.owner.exec("DROP TABLE s").await;
    live.command("abort", &table).0.expect_code(0);
    live.assert_clean().await;
}
