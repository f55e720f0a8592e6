//! The name of a stream's slot is taken by a slot that can be none of this source's.

use crate::support::db::{Db, assert_same};
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration};

const TABLE: &str = "CREATE TABLE public.t (id int PRIMARY KEY, v text);
     INSERT INTO t SELECT i, 'first' FROM generate_series(1, 50) i";
const DML: &str = "mode = \"dml\"\ntables = [\"public.t\"]";

async fn stream() -> Stream {
    let stream = Stream::new(TABLE, "", &[DML]).await;
    stream.source.exec("CREATE DATABASE other").await;
    stream
}

fn with_keys(stream: &Stream, keys: &str) -> Repcloud {
    let text = configuration(&stream.pair, &[DML]);
    Repcloud::new(&text.replacen("[connections.prod]\n", &format!("[connections.prod]\n{keys}\n"), 1))
}

/// The statement that the text prints behind SELECT.
fn printed(text: &str) -> String {
    let from = text.find("SELECT pg_create_logical_replication_slot(").expect("a statement");
    let statement = &text[from..];
    statement[..=statement.find(')').unwrap()].to_owned()
}

#[tokio::test]
async fn a_slot_of_another_database_is_named_with_it_and_each_way_out_works() {
    let mut stream = stream().await;
    let other = Db::connect(&stream.pair.source, "other").await;
    other.exec("SELECT pg_create_logical_replication_slot('repcloud_prod__copy', 'pgoutput')").await;
    for keys in ["", "capture = \"slot\"", "capture = \"auto\""] {
        let refused =
            with_keys(&stream, keys).run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT);
        let told = refused.expect_code(3).stderr;
        assert!(told.contains("belongs to database \"other\"") && told.contains("slot_name"), "{told}");
    }
    let told = stream.try_catch_up().expect_code(3).stderr;
    assert_eq!(
        stream.target.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'repcloud'").await,
        "0"
    );
    // A slot of another name, as printed.
    let make = printed(&told);
    assert!(told.contains("slot_name = \"repcloud_prod__copy_2\""), "{told}");
    stream.source.exec("CREATE PUBLICATION theirs FOR TABLE t").await;
    stream.source.exec(&make).await;
    stream.program = with_keys(&stream, "publication = \"theirs\"\nslot_name = \"repcloud_prod__copy_2\"");
    stream.catch_up();
    stream.source.exec("UPDATE t SET v = 'x' WHERE id < 10").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
    // Another database's slot is neither shown as ours nor dropped with our last table.
    stream.program.run(&["drop-table", "public.t", "--yes"], LIMIT).expect_code(0);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'repcloud_prod__copy'";
    assert_eq!(stream.source.value(slots).await, "1");
}

/// Triggers use no slot: another database's of that name is none that this stream reads.
#[tokio::test]
async fn a_slot_of_another_database_does_not_keep_a_stream_from_triggers() {
    let stream = stream().await;
    let other = Db::connect(&stream.pair.source, "other").await;
    other.exec("SELECT pg_create_logical_replication_slot('repcloud_prod__copy', 'pgoutput')").await;
    for keys in ["capture = \"trigger\"", "capture = \"auto\""] {
        let program = with_keys(&stream, keys);
        stream.source.exec("UPDATE t SET v = v || 'x' WHERE id < 10").await;
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0);
        assert_same(&stream.source, &stream.target, "t").await;
    }
}

#[tokio::test]
async fn a_slot_that_is_taken_over_by_another_database_stops_a_stream_that_had_begun() {
    let stream = stream().await;
    stream.catch_up();
    stream.source.exec("SELECT pg_drop_replication_slot('repcloud_prod__copy')").await;
    let other = Db::connect(&stream.pair.source, "other").await;
    other.exec("SELECT pg_create_logical_replication_slot('repcloud_prod__copy', 'pgoutput')").await;
    let told = stream.try_catch_up().expect_code(1).stderr;
    assert!(told.contains("belongs to database \"other\"") && told.contains("--all --recopy"), "{told}");
    let status = stream.program.json(&["status"], LIMIT);
    let error = status["streams"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("belongs to database \"other\""), "{status}");
}

#[tokio::test]
async fn a_slot_name_of_a_physical_slot_or_of_another_plugin_says_which() {
    let stream = stream().await;
    for sql in [
        "CREATE PUBLICATION theirs FOR TABLE t",
        "SELECT pg_create_physical_replication_slot('standby')",
        "SELECT pg_create_logical_replication_slot('testing', 'test_decoding')",
    ] {
        stream.source.exec(sql).await;
    }
    let try_with = |slot: &str| {
        let program = with_keys(&stream, &format!("publication = \"theirs\"\nslot_name = \"{slot}\""));
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT)
    };
    let told = try_with("standby").expect_code(3).stderr;
    assert!(told.contains("\"standby\" is a physical one"), "{told}");
    stream.source.exec(&printed(&told)).await;
    try_with("standby_2").expect_code(0);
    assert_same(&stream.source, &stream.target, "t").await;
    let told = try_with("testing").expect_code(1).stderr;
    assert!(told.contains("standby_2"), "{told}");
    stream.target.exec("DROP SCHEMA repcloud CASCADE; DROP TABLE t").await;
    let told = try_with("testing").expect_code(3).stderr;
    assert!(
        told.contains("made for plugin test_decoding") && told.contains("pgoutput is to read it"),
        "{told}"
    );
}
