//! The settings of `repack`: on a connection, and in `table_conf`.

use std::time::Duration;

use super::*;
use crate::repack::options::{DeadlockResolution, RepackSettings, Selection, TableSettings, ThrottleOptions};

const ONE: &str = "[connections.a]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"d\"\n";

/// `ONE` with a file of settings of single tables.
fn with_file(text: &str) -> Result<Loaded, Vec<Finding>> {
    let file = (PathBuf::from("/c/table_conf/my_a.toml"), text.to_owned());
    read_with(ONE, &Fake { files: [file].into(), ..Fake::default() })
}

#[test]
fn every_key_is_read() {
    let text = format!(
        r#"{ONE}
schemas = ["sales", '"Big"']
tables = ["public.orders", "mart.*"]
max_replay_rows = 500
lock_timeout = "250ms"
check_time = "1min"
analyze_tables = false
deadlock_resolution = "kill_query"
throttle_lag = "30s"
throttle_query = "select true"
throttle_file = "pause"
max_wal_rate = "50MB"
maintenance_work_mem = "1GB"
index_workers = 3
"#
    );
    let loaded = read(&text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let repack = &loaded.settings.connections["a"].repack;
    let selection = Selection {
        tables: vec![TableName::new("public", "orders")],
        schemas: vec!["sales".into(), "Big".into(), "mart".into()],
        ..Selection::default()
    };
    assert_eq!(repack.selection, selection);
    let settings = RepackSettings {
        max_replay_rows: 500,
        lock_timeout: Duration::from_millis(250),
        check_time: Duration::from_secs(60),
        analyze_tables: false,
        deadlock_resolution: DeadlockResolution::KillQuery,
        throttle: ThrottleOptions {
            lag: Some(Duration::from_secs(30)),
            query: Some("select true".into()),
            file: Some("/c/pause".into()),
            max_wal_rate: Some(50 << 20),
        },
        maintenance_work_mem: Some("1048576kB".into()),
        index_workers: Some(3),
        ..RepackSettings::default()
    };
    assert_eq!(repack.settings, settings);
}

#[test]
fn no_means_no_in_either_writing() {
    for (written, expected) in
        [("\"yes\"", true), ("\"no\"", false), ("true", true), ("false", false), ("\"false\"", false)]
    {
        let loaded = read(&format!("{ONE}analyze_tables = {written}\n")).unwrap();
        assert_eq!(loaded.settings.connections["a"].repack.settings.analyze_tables, expected, "{written}");
    }
}

#[test]
fn what_is_wrong_is_reported_with_line_and_key() {
    let text = format!(
        "{ONE}schemas = \"sales\"\ntables = [\"orders\"]\nmax_replay_rows = 0\nlock_timeout = 500\n\
         check_time = \"0s\"\nanalyze_tables = \"maybe\"\ndeadlock_resolution = \"kill\"\n\
         throttle_query = \"\"\nmaintenance_work_mem = \"64\"\nindex_workers = \"2\"\n"
    );
    let expected = [
        "5: connections.a.schemas: expected a list of strings, found a string",
        "6: connections.a.tables: \"orders\" is not a table like \"public.orders\" or \"sales.*\"",
        "7: connections.a.max_replay_rows: 0 is not a whole number from 1 to 100000000",
        "8: connections.a.lock_timeout: expected a string, found a whole number",
        "9: connections.a.check_time: \"0s\" is not a time like \"500ms\" or \"10s\"",
        "10: connections.a.analyze_tables: \"maybe\" is not yes or no; write true or false, without quotes",
        "11: connections.a.deadlock_resolution: \"kill\" is not a value it can have; use one of: nothing, \
         cancel_query, kill_query",
        "12: connections.a.throttle_query: is empty; give a value, or remove the key",
        "13: connections.a.maintenance_work_mem: \"64\" is not a size from \"1MB\" to \"2047GB\", with its unit",
        "14: connections.a.index_workers: expected a whole number from 1 to 64, found a string",
    ];
    assert_eq!(errors(&text), expected);
}

#[test]
fn a_table_conf_sets_each_level_alone_and_the_columns() {
    let text = "[storage.sales.orders]\nfillfactor = 70\n[storage.mart]\nfillfactor = 80\n\
                [sales.orders]\ndoc.cleanup_nulls = true\nmeta.cleanup_nulls = false\n\
                meta.remove_keys = [\"k\", \"it's\"]\n[sales.\"Big Table\"]\ndoc.cleanup_nulls = true\n";
    let loaded = with_file(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let rules = &loaded.settings.connections["a"].repack.rules;
    let orders = TableSettings {
        fillfactor: Some(70),
        cleanup_nulls: vec!["doc".into()],
        remove_keys: vec![("meta".into(), vec!["k".into(), "it's".into()])],
    };
    assert_eq!(rules.of(&TableName::new("sales", "orders")), orders);
    assert_eq!(rules.of(&TableName::new("sales", "Big Table")).cleanup_nulls, ["doc"]);
    let fillfactor = |schema: &str| rules.of(&TableName::new(schema, "x")).fillfactor;
    assert_eq!((fillfactor("mart"), fillfactor("sales")), (Some(80), None));
    let everywhere = with_file("[storage]\nfillfactor = 95\n").unwrap();
    let rules = &everywhere.settings.connections["a"].repack.rules;
    assert_eq!(rules.of(&TableName::new("x", "y")).fillfactor, Some(95));
}

#[test]
fn everything_wrong_with_a_table_conf_is_reported_at_once() {
    let text = "[storage]\nfillfactor = 5\nfill = 3\n[storage.sales.orders]\nfillfactor = \"70\"\n\
                [storage.sales.orders.id]\nfillfactor = 70\n\
                [sales]\nx = 1\n[sales.orders]\ny = true\ndoc.cleanup_nulls = \"perhaps\"\n\
                doc.remove_keys = \"k\"\ndoc.remove_key = [\"k\"]\n";
    let findings: Vec<String> = with_file(text).unwrap_err().iter().map(ToString::to_string).collect();
    let expected = [
        "2: storage.fillfactor: 5 is not a whole number from 10 to 100",
        "3: storage.fill: expected a section, found a whole number; see the example of a table_conf file",
        "5: storage.sales.orders.fillfactor: expected a whole number from 10 to 100, found a string",
        "6: storage.sales.orders.id: a table is the last level of storage; remove it",
        "9: sales.x: expected a section, found a whole number; see the example of a table_conf file",
        "11: sales.orders.y: expected a section, found true or false; see the example of a table_conf file",
        "12: sales.orders.doc.cleanup_nulls: \"perhaps\" is not yes or no; write true or false, without quotes",
        "13: sales.orders.doc.remove_keys: expected a list of strings, found a string",
        "14: sales.orders.doc.remove_key: unknown key; did you mean \"remove_keys\"?",
    ];
    assert_eq!(findings, expected.map(|line| format!("/c/table_conf/my_a.toml:{line}")));
    assert_eq!(with_file("[storage\n").unwrap_err().len(), 1);
}

#[test]
fn rpcl_wrote_numbers_as_strings_in_a_table_conf_too() {
    let text = format!("pid_dir = \"/p\"\n{ONE}");
    let conf = "[storage.s]\nfillfactor = \"70\"\nother = 1\n";
    let file = (PathBuf::from("/c/table_conf/my_a.toml"), conf.to_owned());
    let loaded = read_with(&text, &Fake { files: [file].into(), ..Fake::default() }).unwrap();
    let rules = &loaded.settings.connections["a"].repack.rules;
    assert_eq!(rules.of(&TableName::new("s", "t")).fillfactor, Some(70));
    assert!(loaded.warnings.iter().any(|w| w.key == "storage.s.other"), "{:?}", loaded.warnings);
}
