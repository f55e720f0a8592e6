//! What a dry run shows.

use super::*;
use crate::model::TableName;
use crate::repack::plan::{IndexBuild, KeyKind, LockStep, RowKey};
use crate::repack::preflight::space::forecast;
use crate::repack::select::tests::table;

fn plan() -> RepackPlan {
    RepackPlan {
        shadow: TableName::new("repcloud", "t"),
        old: TableName::new("repcloud_old", "t"),
        create: vec!["CREATE TABLE repcloud.t (\nid int)".into()],
        copy_columns: vec!["id".into()],
        key: RowKey {
            kind: KeyKind::PrimaryKey,
            index: Some("t_pkey".into()),
            columns: vec!["id".into()],
            identity: None,
        },
        indexes: vec![IndexBuild {
            name: "t_pkey".into(),
            statements: vec!["CREATE UNIQUE INDEX t_pkey ON repcloud.t (id)".into()],
            attach: vec!["ALTER TABLE repcloud.t ADD PRIMARY KEY USING INDEX t_pkey".into()],
            is_key: true,
            is_constraint: true,
            bytes_before: 1,
        }],
        finish: vec![],
        refresh: vec![],
        locks: vec![LockStep { object: "table s.t".into(), statement: "LOCK TABLE s.t".into() }],
        exchange: vec!["ALTER TABLE s.t SET SCHEMA repcloud_old".into()],
        after: vec![],
        drop_old: vec!["DROP TABLE repcloud_old.t".into()],
        forecast_ms: 7.2,
        scan_ms: 0.0,
    }
}

fn facts() -> TableFacts {
    TableFacts {
        heap_bytes: 400 << 20,
        index_bytes: 80 << 20,
        new_heap_bytes: 100 << 20,
        rows: Some(1e6),
        ..table("t", Some((300 << 20, 75.0)))
    }
}

#[test]
fn a_plan_is_shown_with_what_it_needs() {
    let (facts, plan) = (facts(), plan());
    let forecast = forecast(&facts);
    let lock = LockForecast::new(&plan, 2.0);
    let run = DryRun {
        table: &facts,
        findings: &[],
        plan: Some(&plan),
        lock: Some(lock),
        forecast: &forecast,
        jobs: 1,
    };
    let expected = "\
table s.t
  size       heap 400 MB, TOAST 0 B, indexes 80.0 MB; about 1000000 rows
  bloat      about 300 MB of the heap (75 %)
  afterwards about 100 MB and 40.0 MB of indexes
  disk       about 290 MB for the time of the repack, 150 MB of it WAL, and what others write meanwhile
  time       roughly 3 s, 12 ms of it locked
  locked     2 statements 7.2 ms, reading the definitions 2 times 4.0 ms; and the last changes
  before the exchange:
    CREATE TABLE repcloud.t (
      id int);
    CREATE UNIQUE INDEX t_pkey ON repcloud.t (id);
    ALTER TABLE repcloud.t ADD PRIMARY KEY USING INDEX t_pkey;
  locks of the exchange, in this order:
    LOCK TABLE s.t;
  exchange:
    ALTER TABLE s.t SET SCHEMA repcloud_old;
  at last:
    DROP TABLE repcloud_old.t;
";
    assert_eq!(run.text(), expected);
    let json = serde_json::to_value(run.json()).unwrap();
    assert_eq!((json["outcome"].as_str(), json["lock_ms"].as_f64()), (Some("dry-run"), Some(11.2)));
    assert_eq!(
        (json["lock"]["statements"].as_u64(), json["lock"]["readings_ms"].as_f64()),
        (Some(2), Some(4.0))
    );
    assert_eq!(json["bytes_before"], 480 << 20);
    assert_eq!(json["bytes_after"], 140 << 20);
    assert_eq!(json["plan"]["locks"], serde_json::json!(["LOCK TABLE s.t"]));
    for key in
        ["rows_copied", "changes_replayed", "catch_up_seconds", "swap_attempts", "total_seconds", "capture"]
    {
        assert!(!json[key].is_null(), "{key}");
    }
}

#[test]
fn what_locks_the_table_grows_with_what_is_done_and_read() {
    let plan = plan();
    let small = LockForecast::new(&plan, 2.0);
    let more = RepackPlan {
        exchange: vec!["CREATE OR REPLACE VIEW s.v AS SELECT 1".into(); 50],
        forecast_ms: 30.0,
        scan_ms: 5.0,
        ..plan
    };
    let large = LockForecast::new(&more, 9.0);
    assert_eq!((large.statements, large.total_ms()), (51, 53.0));
    assert!(large.total_ms() > small.total_ms());
    assert_eq!(
        large.to_string(),
        "51 statements 30.0 ms, rows that are checked 5.0 ms, reading the definitions 2 times 18.0 ms; and the last changes"
    );
}

#[test]
fn a_refusal_is_shown_with_everything_that_is_known() {
    let facts = TableFacts { bloat: None, rows: None, ..facts() };
    let name = &facts.name;
    let findings =
        [Finding::refuse("key", name, "no key").help("add one"), Finding::warn("space", name, "large")];
    let forecast = forecast(&facts);
    let run =
        DryRun { table: &facts, findings: &findings, plan: None, lock: None, forecast: &forecast, jobs: 2 };
    let text = run.text();
    for line in [
        "  bloat      unknown: there are no statistics (ANALYZE the table)\n",
        "  outcome    refused, nothing would be changed\n",
        "  refused because:\n    table s.t: no key; add one\n",
        "  to be known:\n    table s.t: large\n",
        "rows unknown\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("exchange"), "{text}");
    let json = serde_json::to_value(run.json()).unwrap();
    assert_eq!(
        (json["outcome"].as_str(), json["reason"].as_str()),
        (Some("refused"), Some("table s.t: no key; add one"))
    );
    assert_eq!(json["findings"][1]["severity"], "warn");
    assert!(json["plan"].is_null() && json["bloat"].is_null());
}

#[test]
fn long_and_short_times_are_for_people() {
    for (seconds, text) in [(0.0, "1 s"), (119.0, "119 s"), (120.5, "3 min"), (9000.0, "2.5 h")] {
        assert_eq!(duration(seconds), text);
    }
}
