//! A repack from beginning to end.

use super::{Live, ORDERS};

#[tokio::test]
async fn a_bloated_table_is_rebuilt_and_nothing_of_it_is_lost() {
    let live = Live::new(ORDERS, "").await;
    let before = live.admin.table_hash("orders").await;
    let oid = live.admin.value("SELECT 'orders'::regclass::oid").await;
    let (finished, reports) = live.repack(&["--table", "public.orders"]);
    let finished = finished.expect_code(0);
    assert_eq!(reports.len(), 1, "{finished:?}");
    let report = &reports[0];
    assert_eq!(report["outcome"], "swapped", "{finished:?}");
    assert_eq!((report["table"].as_str(), report["capture"].as_str()), (Some("public.orders"), Some("slot")));
    assert_eq!(report["rows_copied"], 3000);
    assert!(report["bytes_after"].as_i64() < report["bytes_before"].as_i64(), "{report}");
    assert!(
        report["lock_ms"].as_f64().unwrap() > 0.0 && report["swap_attempts"].as_u64() >= Some(1),
        "{report}"
    );
    assert_eq!(live.admin.table_hash("orders").await, before);
    assert_ne!(live.admin.value("SELECT 'orders'::regclass::oid").await, oid, "it is another table");
    live.assert_clean().await;
    // What hung on it still does.
    let writer = live.session("writer").await;
    writer.exec("INSERT INTO orders (customer, code, total) VALUES (1, 'new', 150)").await;
    assert_eq!(
        live.admin.value("SELECT id || ' ' || twice FROM orders WHERE code = 'new'").await,
        "6001 300.00"
    );
    let refused = writer.try_exec("INSERT INTO orders (customer, code) VALUES (99, 'x')").await;
    assert!(refused.unwrap_err().starts_with("23503"), "the foreign key to customer");
    let refused = writer.try_exec("INSERT INTO orders (customer, code) VALUES (1, 'c1')").await;
    assert!(refused.unwrap_err().starts_with("23505"), "the unique code");
    writer.exec("DELETE FROM orders WHERE id = 1").await;
    assert_eq!(live.admin.value("SELECT count(*) FROM item WHERE orders = 1").await, "0", "the cascade");
    let reader = live.session("reader").await;
    assert_eq!(
        reader.value("SELECT n FROM big_count").await,
        live.admin.value("SELECT count(*) FROM orders WHERE total > 100").await
    );
}

#[tokio::test]
async fn it_says_what_has_another_identity() {
    let live = Live::new(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION \"to all\" FOR TABLE t",
        "",
    )
    .await;
    let old = live.admin.value("SELECT 't'::regclass::oid").await;
    let finished = live.program.run(&["repack", "--table", "public.t"], super::LIMIT).expect_code(0);
    let new = live.admin.value("SELECT 't'::regclass::oid").await;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for text in [format!("public.t has oid {new} (it was {old})"), "published by \"to all\":".into()] {
        assert!(said.contains(&text), "{text}: {said}");
    }
}

#[tokio::test]
async fn it_can_be_done_again_and_again() {
    let live = Live::new(ORDERS, "tables = [\"public.orders\", \"public.customer\"]").await;
    for round in 0..3 {
        let (finished, reports) = live.repack(&[]);
        finished.expect_code(0);
        let outcomes: Vec<_> = reports.iter().map(|r| r["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["swapped", "swapped"], "round {round}");
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_repacked_is_refused_and_does_not_stop_the_others() {
    let live = Live::new(
        "CREATE TABLE good (id int PRIMARY KEY, v text); INSERT INTO good SELECT i, 'v' FROM generate_series(1, 100) i;
         CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('a')",
        "",
    )
    .await;
    let (finished, reports) = live.repack(&["--table", "public.good", "--table", "public.keyless"]);
    finished.expect_code(4);
    let outcome = |table: &str| {
        let report = reports.iter().find(|r| r["table"] == table).unwrap();
        (report["outcome"].as_str().unwrap().to_owned(), report["reason"].to_string())
    };
    assert_eq!(outcome("public.good").0, "swapped");
    assert_eq!(outcome("public.keyless").0, "refused");
    live.assert_clean().await;
    let (finished, _) = live.repack(&["--table", "public.keyless"]);
    finished.expect_code(3);
}

#[tokio::test]
async fn a_name_that_needs_quotes_is_a_name() {
    let live = Live::new(
        "CREATE SCHEMA \"Odd \"\"one\"; CREATE TABLE \"Odd \"\"one\".\"select\" (\"Id\" int PRIMARY KEY, \"a b\" text);
         CREATE INDEX \"I x\" ON \"Odd \"\"one\".\"select\" (\"a b\");
         INSERT INTO \"Odd \"\"one\".\"select\" SELECT i, 'v' || i FROM generate_series(1, 500) i;
         CREATE TABLE checkpoint (id int PRIMARY KEY); INSERT INTO checkpoint VALUES (7)",
        "",
    )
    .await;
    let table = "\"Odd \"\"one\".\"select\"";
    let before = live.admin.table_hash(table).await;
    let (finished, reports) = live.repack(&["--table", table, "--table", "public.checkpoint"]);
    finished.expect_code(0);
    assert_eq!(reports[0]["outcome"], "swapped");
    assert_eq!(live.admin.table_hash(table).await, before);
    assert_eq!(live.admin.value("SELECT id FROM public.checkpoint").await, "7");
    live.assert_clean().await;
}
