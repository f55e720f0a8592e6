//! Several tables are named, and not all of them can be taken: each has its line, the others are done.

use serde_json::Value;

use super::{LIMIT, Live};
use crate::support::process::Finished;

const TWO: &str = "CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one SELECT generate_series(1, 100);
    CREATE TABLE two (id int PRIMARY KEY); INSERT INTO two SELECT generate_series(1, 200); ANALYZE";

const GOOD: [&str; 2] = ["--table", "public.one"];
const BOTH: [&str; 4] = ["--table", "public.one", "--table", "public.two"];
const MISSPELT: [&str; 4] = ["--table", "public.one", "--table", "public.tow"];

/// Table and outcome of each line, in alphabetical order.
fn told(reports: &[Value]) -> Vec<String> {
    let mut told: Vec<String> = reports
        .iter()
        .map(|r| format!("{} {}", r["table"].as_str().unwrap(), r["outcome"].as_str().unwrap()))
        .collect();
    told.sort();
    told
}

fn reason<'a>(reports: &'a [Value], table: &str) -> &'a str {
    reports.iter().find(|report| report["table"] == table).unwrap()["reason"].as_str().unwrap()
}

fn expect(result: (Finished, Vec<Value>), code: i32, lines: &[&str]) -> Vec<Value> {
    let finished = result.0.expect_code(code);
    assert_eq!(told(&result.1), lines, "{finished:?}");
    result.1
}

#[tokio::test]
async fn a_table_that_is_not_there_has_its_line_and_the_others_are_done() {
    let live = Live::new(TWO, "").await;
    for (command, done) in [("repack", "swapped"), ("prepare", "prepared"), ("swap", "swapped")] {
        let lines = [&format!("public.one {done}"), "public.tow refused"];
        let reports = expect(live.command(command, &MISSPELT), 4, &lines);
        let reason = reason(&reports, "public.tow");
        assert!(reason.contains("table public.tow does not exist"), "{command}: {reason}");
    }
    for command in ["repack", "prepare", "swap"] {
        expect(live.command(command, &["--table", "public.tow"]), 3, &["public.tow refused"]);
        let text = live.program.run(&[command, "--table", "public.tow"], LIMIT).expect_code(3);
        let line = "public.tow: refused, nothing was changed\n  reason: table public.tow does not exist";
        assert!(text.stdout.contains(line), "{command}: {text:?}");
    }
    let dry = [MISSPELT.as_slice(), &["--dry-run"]].concat();
    expect(live.repack(&dry), 4, &["public.one dry-run", "public.tow refused"]);
    expect(live.repack(&dry[2..]), 3, &["public.tow refused"]);
    let schemas = ["--schema", "pubic", "--table", "public.one"];
    let reports = expect(live.repack(&schemas), 4, &["pubic.* refused", "public.one swapped"]);
    assert!(reason(&reports, "pubic.*").contains("schema pubic does not exist"), "{reports:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn a_table_that_is_not_prepared_has_its_line_and_the_others_are_exchanged() {
    let live = Live::new(TWO, "tables = [\"public.one\", \"public.two\"]").await;
    expect(live.command("swap", &BOTH), 3, &["public.one refused", "public.two refused"]);
    live.command("prepare", &GOOD).0.expect_code(0);
    let compared =
        live.program.run(&[["verify", "--connection", "live", "--json"].as_slice(), &BOTH].concat(), LIMIT);
    let compared = compared.expect_code(4);
    let lines = super::reports(&compared.stdout);
    assert_eq!(lines.len(), 2, "{compared:?}");
    assert!(lines[0]["table"] == "public.one" && lines[0]["rows"] == 100, "{compared:?}");
    assert!(lines[0]["error"].is_null(), "{compared:?}");
    let error = lines[1]["error"].as_str().unwrap();
    assert!(lines[1]["table"] == "public.two" && error.contains("repcloud prepare"), "{compared:?}");
    let none = ["verify", "--connection", "live", "--table", "public.two"];
    live.program.run(&none, LIMIT).expect_code(3);
    let reports = expect(live.command("swap", &BOTH), 4, &["public.one swapped", "public.two refused"]);
    assert!(reason(&reports, "public.two").contains("it is not prepared"), "{reports:?}");
    // Nobody named the other one: what is prepared is all that was asked for.
    live.command("prepare", &GOOD).0.expect_code(0);
    expect(live.command("swap", &[]), 0, &["public.one swapped"]);
    live.assert_clean().await;
}

#[tokio::test]
async fn an_abort_says_where_there_was_nothing_to_undo() {
    let live = Live::new(TWO, "").await;
    live.command("prepare", &GOOD).0.expect_code(0);
    let both: Vec<&str> = ["abort"].into_iter().chain(BOTH).collect();
    let text = live.program.run(&both, LIMIT).expect_code(0);
    assert_eq!(text.stdout, "public.one: undone\npublic.two: there was nothing to undo\n", "{text:?}");
    let again = live.command("abort", &[BOTH.as_slice(), &["--table", "public.tow"]].concat());
    let lines = ["public.one aborted", "public.tow refused", "public.two aborted"];
    let reports = expect(again, 4, &lines);
    for table in ["public.one", "public.two"] {
        assert_eq!(reason(&reports, table), "there was nothing to undo", "{reports:?}");
    }
    assert_eq!(reason(&reports, "public.tow"), "table public.tow does not exist");
    // It may be repeated when the table is gone.
    live.owner.exec("DROP TABLE one").await;
    expect(live.command("abort", &["--table", "public.one"]), 0, &["public.one aborted"]);
    expect(live.command("abort", &["--table", "public.tow"]), 3, &["public.tow refused"]);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_partitioned_table_is_compared_partition_by_partition() {
    let live = Live::new(
        "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (1000);
         INSERT INTO p SELECT i, 'v' FROM generate_series(1, 300) i; ANALYZE",
        "",
    )
    .await;
    let whole = ["--table", "public.p"];
    live.command("prepare", &whole).0.expect_code(0);
    let verify = [["verify", "--connection", "live", "--json"].as_slice(), &whole].concat();
    let compared = live.program.run(&verify, LIMIT).expect_code(0);
    let lines: Vec<String> =
        super::reports(&compared.stdout).iter().map(|l| format!("{} {}", l["table"], l["rows"])).collect();
    assert_eq!(lines, ["\"public.p1\" 99", "\"public.p2\" 201"], "{compared:?}");
    live.command("abort", &whole).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn names_that_two_copies_would_share_are_refused_before_anything_is_written() {
    let schema = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, v text);
         CREATE INDEX same ON a.t (v); CREATE TABLE b.t (id int PRIMARY KEY, v text);
         CREATE TABLE b.u (id int PRIMARY KEY, v text); CREATE INDEX same ON b.u (v); CREATE TABLE b.good (id int PRIMARY KEY);
         INSERT INTO a.t SELECT i, 'v' FROM generate_series(1, 300) i; ANALYZE";
    let live = Live::new(schema, "").await;
    let one = ["--table", "a.t"];
    let rest = ["--table", "b.t", "--table", "b.u", "--table", "b.good"];
    live.command("prepare", &one).0.expect_code(0);
    let lines = ["b.good prepared", "b.t refused", "b.u refused"];
    let reports = expect(live.command("prepare", &rest), 4, &lines);
    for (table, name) in [("b.t", "relation t"), ("b.u", "relation same")] {
        let told = format!("the repack of a.t is not finished, and both have a {name},");
        let reason = reason(&reports, table);
        assert!(
            reason.contains(&told) && reason.contains("repcloud abort --connection live --table a.t"),
            "{reason}"
        );
    }
    live.command("swap", &[]).0.expect_code(0);
    // One after the other they can be taken in one run.
    let all = [one.as_slice(), &rest].concat();
    live.repack(&all).0.expect_code(0);
    live.assert_clean().await;
}

#[tokio::test]
async fn a_role_without_rights_to_our_schema_hears_everything_at_once() {
    let live = Live::new("CREATE TABLE t (id int, v text); CREATE VIEW x AS SELECT t FROM t", "").await;
    live.admin.exec("CREATE SCHEMA repcloud; CREATE TABLE repcloud.repack (id int)").await;
    let (finished, reports) = live.repack(&["--table", "public.t"]);
    let finished = finished.expect_code(3);
    let reason = reports[0]["reason"].as_str().unwrap();
    for part in ["role app may not use it", "neither a primary key nor a replica identity", "view public.x"] {
        assert!(reason.contains(part), "{part}: {finished:?}");
    }
}
