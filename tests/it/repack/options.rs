//! Keys of the configuration and options of the command line that no other test would miss.

use repcloud::repack::dependents::KINDS;

use super::{LIMIT, Live, ORDERS};
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

#[tokio::test]
async fn analyze_tables_says_whether_the_new_table_has_statistics() {
    for (value, expected) in [("yes", "t"), ("no", "f")] {
        let live = Live::new(ORDERS, &format!("analyze_tables = \"{value}\"")).await;
        live.admin.exec("ALTER SYSTEM SET autovacuum = off").await;
        live.admin.exec("SELECT pg_reload_conf()").await;
        live.repack(&TABLE).0.expect_code(0);
        let known =
            "SELECT count(*) > 0 FROM pg_statistic WHERE starelid = 'orders'::regclass AND stawidth > 0";
        assert_eq!(live.admin.value(known).await, expected, "analyze_tables = {value}");
    }
}

#[tokio::test]
async fn the_fillfactor_of_the_innermost_level_holds() {
    let all = "[storage]\nfillfactor = 90\n";
    let schema = "[storage.public]\nfillfactor = 80\n";
    let table = "[storage.public.orders]\nfillfactor = 70\n";
    let live = Live::new(ORDERS, "").await;
    for (text, expected) in [
        (all.to_owned(), "{fillfactor=90}"),
        (schema.to_owned(), "{fillfactor=80}"),
        (table.to_owned(), "{fillfactor=70}"),
        (format!("{all}{schema}"), "{fillfactor=80}"),
        (format!("{all}{schema}{table}"), "{fillfactor=70}"),
    ] {
        live.program.write("config/table_conf/default_live.toml", &text);
        live.repack(&TABLE).0.expect_code(0);
        let options = "SELECT reloptions FROM pg_class WHERE oid = 'orders'::regclass";
        assert_eq!(live.admin.value(options).await, expected, "{text}");
    }
}

#[tokio::test]
async fn only_tables_of_a_size_and_with_a_bloat_are_taken() {
    let live = Live::new(ORDERS, "tables = [\"public.orders\", \"public.customer\"]").await;
    for limit in [["--min-size", "200kB"], ["--min-bloat", "20"]] {
        let (finished, reports) = live.repack(&[limit.as_slice(), &["--dry-run"]].concat());
        finished.expect_code(0);
        let tables: Vec<_> = reports.iter().map(|report| report["table"].as_str().unwrap()).collect();
        assert_eq!(tables, ["public.orders"], "{limit:?}");
    }
}

#[tokio::test]
async fn a_dry_run_says_beforehand_how_long_many_views_lock_the_table() {
    let live = Live::new(ORDERS, "").await;
    let forecast = || {
        let (finished, reports) = live.repack(&["--table", "public.orders", "--dry-run"]);
        finished.expect_code(0);
        let lock = reports[0]["lock"].clone();
        let parts = ["statements_ms", "scans_ms", "readings_ms"].map(|part| lock[part].as_f64().unwrap());
        let total = reports[0]["lock_ms"].as_f64().unwrap();
        assert!((parts.iter().sum::<f64>() - total).abs() < 0.05, "{reports:?}");
        (parts[0], parts[2])
    };
    let few = forecast();
    live.owner
        .exec("DO $$BEGIN FOR i IN 1..200 LOOP EXECUTE format('CREATE VIEW many%s AS SELECT id, total FROM orders', i); END LOOP; END$$")
        .await;
    let many = forecast();
    assert!(few.0 < 20.0 && many.0 - few.0 > 50.0 && many.1 > few.1, "{few:?}, with 200 views {many:?}");
    let wide: Vec<String> = (1..=300).map(|i| format!("id AS c{i}")).collect();
    live.owner.exec(&format!("CREATE VIEW wide AS SELECT {} FROM orders", wide.join(", "))).await;
    let wider = forecast();
    assert!(wider.0 - many.0 > 3.0, "{many:?}, with one of 300 columns {wider:?}");
    let text = live.program.run(&["repack", "--table", "public.orders", "--dry-run"], LIMIT).expect_code(0);
    let lines: Vec<&str> = text.stdout.lines().filter(|line| line.contains("locked")).collect();
    assert!(lines[0].contains(" ms of it locked") && lines[1].contains(" statements "), "{lines:?}");
    assert!(lines[1].contains("reading the definitions 2 times"), "{lines:?}");
}

#[test]
fn the_readme_lists_what_is_carried_over() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("<!-- kinds:").unwrap();
    let (list, _) = rest.split_once("<!-- /kinds -->").unwrap();
    let listed: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    let titles: Vec<&str> = KINDS.iter().map(|kind| kind.title).collect();
    assert_eq!(listed, titles, "left: README.md, right: the titles of repack::dependents::KINDS");
}

#[tokio::test]
async fn a_throttle_query_holds_up_the_copy_until_it_answers_otherwise() {
    let live = Live::new(
        &format!("{ORDERS}; CREATE TABLE hold (held bool NOT NULL); INSERT INTO hold VALUES (true)"),
        "throttle_query = \"select held from public.hold\"",
    )
    .await;
    let running = live.program.spawn(&["repack", "--table", "public.orders"]);
    until("the copy rests and says why", LIMIT, || async {
        let why = "SELECT coalesce((SELECT throttled_by FROM repcloud.repack), '')";
        let there = live.admin.value("SELECT to_regclass('repcloud.repack') IS NOT NULL").await == "t";
        there && live.admin.value(why).await.contains("throttle_query")
    })
    .await;
    live.admin.exec("UPDATE hold SET held = false").await;
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_slot_that_holds_back_too_much_ends_it_and_leaves_nothing_where_that_is_wanted() {
    let live = Live::new(ORDERS, "max_retained_wal = \"1MB\"").await;
    let running = live.program.spawn(&[
        "repack",
        "--table",
        "public.orders",
        "--postpone-swap",
        "--on-failure",
        "abort",
    ]);
    until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    // An open transaction with changes keeps the slot where it is.
    let open = live.session("writer").await;
    open.exec("BEGIN; UPDATE orders SET total = total + 1 WHERE id = 1").await;
    live.owner.exec("CREATE TABLE noise AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i").await;
    let finished = running.wait(LIMIT).expect_code(1);
    assert!(finished.stdout.contains("max_retained_wal"), "{finished:?}");
    open.exec("COMMIT").await;
    live.assert_clean().await;
}
