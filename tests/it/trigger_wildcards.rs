//! `schema.*` of a stream by triggers takes what a table that is named may be taken with.

use crate::support::cluster::Pair;
use crate::support::db::assert_same;
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;
use crate::triggers::stream;

const WILDCARD: &str = "mode = \"dml\"\ntables = [\"shop.*\"]";

#[tokio::test]
async fn a_wildcard_takes_what_trigger_and_select_allow_and_names_the_grant_for_the_rest() {
    let schema = "CREATE SCHEMA shop; CREATE TABLE shop.given (id int PRIMARY KEY, v text); CREATE TABLE shop.keyless (id int);
        CREATE TABLE shop.kept (id int PRIMARY KEY); CREATE UNLOGGED TABLE shop.fleeting (id int PRIMARY KEY);
        CREATE TABLE shop.parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE shop.part PARTITION OF shop.parts DEFAULT;
        INSERT INTO shop.given SELECT i, 'first' FROM generate_series(1, 20) i; INSERT INTO shop.keyless VALUES (1);
        CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE app TO app; GRANT USAGE ON SCHEMA shop TO app;
        GRANT TRIGGER, SELECT ON shop.given, shop.keyless, shop.fleeting, shop.parts, shop.part TO app; GRANT SELECT ON shop.kept TO app";
    let mut stream = Stream::over(Pair::start(), schema, "", &[WILDCARD]).await;
    let text = configuration(&stream.pair, &[WILDCARD]).replacen(
        "[connections.prod]\n",
        "[connections.prod]\ncapture = \"trigger\"\n",
        1,
    );
    stream.program = Repcloud::new(&text.replacen("user = \"postgres\"", "user = \"app\"", 1));
    let told = stream.catch_up().stderr;
    assert!(told.contains("leaves out") && told.contains("GRANT TRIGGER ON shop.kept TO app"), "{told}");
    assert!(told.contains("ALTER TABLE shop.fleeting SET LOGGED"), "{told}");
    assert!(!told.contains("GRANT postgres"), "{told}");
    stream
        .source
        .exec("UPDATE shop.given SET v = 'x' WHERE id < 5; INSERT INTO shop.keyless VALUES (2); INSERT INTO shop.parts VALUES (1)")
        .await;
    stream.catch_up();
    for table in ["shop.given", "shop.keyless", "shop.parts"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    assert_eq!(stream.target.value("SELECT to_regclass('shop.kept') IS NULL").await, "t");
    stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(0);
    stream.source.exec("GRANT TRIGGER ON shop.kept TO app; INSERT INTO shop.kept VALUES (7)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "shop.kept").await;
}

#[tokio::test]
async fn a_wildcard_that_matches_nothing_yet_waits_for_its_first_table() {
    let stream = stream(Pair::start(), "CREATE SCHEMA shop", &[WILDCARD]).await;
    for _ in 0..2 {
        stream.catch_up();
    }
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    stream.source.exec("CREATE TABLE shop.t (id int PRIMARY KEY); INSERT INTO shop.t VALUES (1)").await;
    wait::until("the table is taken in", LIMIT, async || {
        let sql = "SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'";
        stream.target.value(sql).await == "1"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("INSERT INTO shop.t VALUES (2)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "shop.t").await;
}
