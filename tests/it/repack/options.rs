//! Keys of the configuration and options of the command line: each has a test that fails without it.

use repcloud::repack::dependents::KINDS;

use super::{Live, ORDERS};

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

#[test]
fn the_readme_lists_what_is_carried_over() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("<!-- kinds:").unwrap();
    let (list, _) = rest.split_once("<!-- /kinds -->").unwrap();
    let listed: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    let titles: Vec<&str> = KINDS.iter().map(|kind| kind.title).collect();
    assert_eq!(listed, titles, "left: README.md, right: the titles of repack::dependents::KINDS");
}
