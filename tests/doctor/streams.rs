//! What `doctor` says of a stream's slot, of its wildcards and of rows that are in the way of its first copy.

use serde_json::Value;

use crate::support::cluster::Pair;
use crate::support::db::Db;
use crate::support::stream::{LIMIT, Stream, configuration};

const DML: &str = "mode = \"dml\"\ntables = [\"public.t\"]";
const TABLE: &str = "CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";

/// With these keys on the source's connection.
fn configure(stream: &Stream, keys: &str, entries: &[&str]) {
    let text = configuration(&stream.pair, entries);
    let text = text.replacen("[connections.prod]\n", &format!("[connections.prod]\n{keys}\n"), 1);
    stream.program.write("config/default.toml", &text);
}

fn checks(stream: &Stream, at: &str) -> Vec<Value> {
    let mut report = stream.program.json(&["doctor", "--connection", at], LIMIT);
    match report["connections"][0]["checks"].take() {
        Value::Array(checks) => checks,
        other => panic!("no checks: {other}"),
    }
}

fn of(stream: &Stream, at: &str, name: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = checks(stream, at).into_iter().filter(|c| c["check"] == name);
    all.map(|c| (text(&c["level"]), text(&c["detail"]), text(&c["remedy"]))).collect()
}

#[track_caller]
fn says(stream: &Stream, slot: &str, what: &str, help: &str) {
    let found = of(stream, "prod", &format!("slot {slot}"));
    assert!(
        found
            .iter()
            .any(|(level, detail, remedy)| level == "fail" && detail.contains(what) && remedy.contains(help)),
        "{what}: {found:#?}"
    );
}

#[tokio::test]
async fn a_slot_that_a_start_would_stop_at_is_a_failure() {
    let stream = Stream::new(TABLE, "", &[DML]).await;
    let ours = "repcloud_prod__copy";
    stream.source.exec("CREATE DATABASE other").await;
    let other = Db::connect(&stream.pair.source, "other").await;
    let make = format!("SELECT pg_create_logical_replication_slot('{ours}', 'pgoutput')");
    other.exec(&make).await;
    says(&stream, ours, "belongs to database \"other\"", "slot_name");
    other.exec(&format!("SELECT pg_drop_replication_slot('{ours}')")).await;
    stream.source.exec(&make).await;
    says(&stream, ours, "the target knows nothing of it", "pg_drop_replication_slot");
    stream.source.exec(&format!("SELECT pg_drop_replication_slot('{ours}')")).await;
    stream.catch_up();
    assert_eq!(of(&stream, "prod", &format!("slot {ours}")), []);
    // The process that works on it is no stranger.
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    crate::support::wait::until("it streams", LIMIT, async || {
        running.stderr().contains("streaming from slot")
    })
    .await;
    assert_eq!(of(&stream, "prod", &format!("slot {ours}")), []);
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec(&format!("SELECT pg_drop_replication_slot('{ours}')")).await;
    says(&stream, ours, "is gone from the source", "--all --recopy");
    stream.program.run(&["doctor"], LIMIT).expect_code(3);
}

#[tokio::test]
async fn a_slot_name_that_cannot_be_read_is_a_failure() {
    let stream = Stream::new(TABLE, "", &[DML]).await;
    for sql in [
        "CREATE PUBLICATION theirs FOR TABLE t",
        "SELECT pg_create_physical_replication_slot('standby')",
        "SELECT pg_create_logical_replication_slot('testing', 'test_decoding')",
        "SELECT pg_create_logical_replication_slot('good', 'pgoutput')",
    ] {
        stream.source.exec(sql).await;
    }
    let given =
        |slot: &str| configure(&stream, &format!("publication = \"theirs\"\nslot_name = \"{slot}\""), &[DML]);
    for (slot, what, help) in [
        ("standby", "is a physical one", "pg_create_logical_replication_slot('standby_2', 'pgoutput')"),
        ("testing", "made for plugin test_decoding", "pg_drop_replication_slot('testing')"),
        (
            "missing",
            "does not exist on the source",
            "pg_create_logical_replication_slot('missing', 'pgoutput')",
        ),
    ] {
        given(slot);
        says(&stream, slot, what, help);
    }
    given("good");
    assert_eq!(of(&stream, "prod", "slot good"), []);
    stream.catch_up();
    stream.source.exec("SELECT pg_drop_replication_slot('good')").await;
    says(&stream, "good", "is gone from the source", "reset --source prod --all");
}

#[tokio::test]
async fn rows_in_the_way_of_a_first_copy_are_a_failure_until_the_stream_knows_the_table() {
    let stream = Stream::new(
        TABLE,
        "CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (5, 'theirs')",
        &[DML],
    )
    .await;
    let found = of(&stream, "copy", "table public.t");
    assert!(
        matches!(found.as_slice(), [(level, detail, remedy)] if level == "fail" && detail.contains("already holds rows") && remedy.contains("TRUNCATE public.t")),
        "{found:#?}"
    );
    stream.try_catch_up().expect_code(3);
    stream.target.exec("TRUNCATE t").await;
    assert_eq!(of(&stream, "copy", "table public.t"), []);
    stream.catch_up();
    assert_eq!(of(&stream, "copy", "table public.t"), []);
    // With copy = false they are the first rows.
    stream.target.exec("DROP SCHEMA repcloud CASCADE").await;
    configure(&stream, "", &["mode = \"dml\"\ntables = [\"public.t\"]\ncopy = false"]);
    assert_eq!(of(&stream, "copy", "table public.t"), []);
}

#[tokio::test]
async fn what_a_wildcard_leaves_out_is_asked_of_no_target() {
    let wildcard = "mode = \"dml\"\ntables = [\"shop.*\"]";
    let schema =
        "CREATE SCHEMA shop; CREATE TABLE shop.t (id int PRIMARY KEY); CREATE TABLE shop.keyless (id int)";
    // It would not fit, and holds rows.
    let target =
        "CREATE SCHEMA shop; CREATE TABLE shop.keyless (other int); INSERT INTO shop.keyless VALUES (1)";
    let stream = Stream::new(schema, target, &[wildcard]).await;
    assert_eq!(of(&stream, "copy", "table shop.keyless"), []);
    let left = of(&stream, "prod", "table shop.keyless");
    assert!(left.iter().all(|(level, ..)| level == "warn") && !left.is_empty(), "{left:#?}");
    stream.program.run(&["doctor"], LIMIT).expect_code(0);
    stream.catch_up();
    // By triggers it is taken, and then it matters.
    configure(&stream, "capture = \"trigger\"", &[wildcard]);
    let found = of(&stream, "copy", "table shop.keyless");
    assert!(found.iter().any(|(level, ..)| level == "fail"), "{found:#?}");
}

/// A stream that reads a slot keeps nothing in its source.
#[tokio::test]
async fn schema_repcloud_of_another_role_is_no_matter_of_a_stream_by_slot() {
    let schema = "CREATE ROLE app LOGIN REPLICATION; CREATE TABLE public.t (id int PRIMARY KEY); ALTER TABLE t OWNER TO app;
        GRANT CREATE ON DATABASE app TO app; INSERT INTO t VALUES (1); CREATE SCHEMA repcloud;
        CREATE TABLE repcloud.version (version int); CREATE TABLE repcloud.reads (consumer text, queue oid, condition text);
        CREATE TABLE repcloud.tick (consumer text)";
    let stream = Stream::over(Pair::start(), schema, "", &[DML]).await;
    for keys in ["capture = \"slot\"", "capture = \"auto\""] {
        let text = configuration(&stream.pair, &[DML]).replacen("user = \"postgres\"", "user = \"app\"", 1);
        let text = text.replacen("[connections.prod]\n", &format!("[connections.prod]\n{keys}\n"), 1);
        stream.program.write("config/default.toml", &text);
        let failed: Vec<Value> = checks(&stream, "prod").into_iter().filter(|c| c["ok"] == false).collect();
        assert_eq!(failed, Vec::<Value>::new());
        stream.catch_up();
        stream.source.exec("INSERT INTO t SELECT max(id) + 1 FROM t").await;
        stream.catch_up();
        stream.program.run(&["status"], LIMIT).expect_code(0);
        stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(0);
        stream.program.run(&["drop-table", "public.t", "--yes"], LIMIT).expect_code(0);
    }
    let text = configuration(&stream.pair, &[DML]).replacen("user = \"postgres\"", "user = \"app\"", 1);
    let text = text.replacen("[connections.prod]\n", "[connections.prod]\ncapture = \"trigger\"\n", 1);
    stream.program.write("config/default.toml", &text);
    assert!(checks(&stream, "prod").iter().any(|c| c["check"] == "schema repcloud" && c["ok"] == false));
}
