//! Tables that appear in a schema of which the stream takes every table, while it runs.

use crate::support::db::assert_same;
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;

const SCHEMA: &str = "CREATE SCHEMA shop; CREATE TABLE shop.old (id int PRIMARY KEY, v text);
     INSERT INTO shop.old SELECT i, 'first' FROM generate_series(1, 20) i; CREATE TABLE public.named (id int PRIMARY KEY)";
const ENTRIES: &[&str] =
    &["mode = \"dml\"\ntables = [\"shop.*\"]", "mode = \"dml\"\ntables = [\"public.named\"]"];

/// `keyless`: a table without a key is taken in as well.
async fn a_new_table_is_taken_in(stream: Stream, keyless: bool) {
    let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
    let streams = "SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'";
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    stream
        .source
        .exec("CREATE TABLE shop.keyless (id int); CREATE TABLE shop.fresh (id int PRIMARY KEY, v text); INSERT INTO shop.fresh VALUES (1, 'early')")
        .await;
    wait::until("the new table streams", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value(streams).await == if keyless { "4" } else { "3" }
    })
    .await;
    stream.source.exec("INSERT INTO shop.fresh VALUES (2, 'late'); UPDATE shop.fresh SET v = 'x' WHERE id = 1; DELETE FROM shop.old WHERE id = 3").await;
    wait::until("its changes arrive", LIMIT, async || {
        stream.target.value("SELECT string_agg(id || v, ',' ORDER BY id) FROM shop.fresh").await == "1x,2late"
    })
    .await;
    let told = running.stderr();
    assert!(told.contains("new in shop.*: shop.fresh"), "{told}");
    assert_eq!(told.contains("leaves out"), !keyless, "{told}");
    assert!(told.contains("shop.keyless"), "{told}");
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    for table in ["shop.old", "shop.fresh"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    let there = stream.target.value("SELECT to_regclass('shop.keyless') IS NOT NULL").await;
    assert_eq!(there == "t", keyless);
}

#[tokio::test]
async fn a_new_table_of_a_wildcard_is_taken_in_while_the_stream_runs() {
    a_new_table_is_taken_in(Stream::new(SCHEMA, "", ENTRIES).await, false).await;
}

#[tokio::test]
async fn a_new_table_of_a_wildcard_is_taken_in_by_triggers_too() {
    let mut stream = Stream::new(SCHEMA, "", ENTRIES).await;
    let text = configuration(&stream.pair, ENTRIES);
    let text = text.replacen("[connections.prod]\n", "[connections.prod]\ncapture = \"trigger\"\n", 1);
    stream.program = Repcloud::new(&text);
    a_new_table_is_taken_in(stream, true).await;
}

/// A stream that could not begin again is not ended for the sake of a new table.
#[tokio::test]
async fn a_new_table_waits_where_the_stream_could_not_begin_again() {
    let stream = Stream::new(SCHEMA, "", ENTRIES).await;
    let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from slot")).await;
    stream
        .source
        .exec("ALTER TABLE public.named DROP CONSTRAINT named_pkey; CREATE TABLE shop.fresh (id int PRIMARY KEY); INSERT INTO shop.old VALUES (50, 'x')")
        .await;
    wait::until("it says so", LIMIT, async || running.stderr().contains("shop.fresh; not taken in yet"))
        .await;
    let told = running.stderr();
    assert!(told.contains("public.named"), "{told}");
    wait::until("the others go on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM shop.old WHERE id = 50").await == "1"
    })
    .await;
    assert!(running.is_running());
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}
