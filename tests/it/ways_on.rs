//! What a person is told to do must be what helps.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};

const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.t\"]";
const SCHEMA: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i";

#[tokio::test]
async fn a_default_that_differs_from_row_to_row_needs_another_copy() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    stream.catch_up();
    stream
        .source
        .exec("ALTER TABLE t ADD COLUMN made timestamptz DEFAULT clock_timestamp(); INSERT INTO t VALUES (11, 'new')")
        .await;
    let parked = stream.try_catch_up().expect_code(4);
    assert!(parked.stderr.contains("older rows"), "{parked:?}");
    stream.target.exec("ALTER TABLE t ADD COLUMN made timestamptz").await;
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.t", "--recopy", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_lost_publication_has_a_way_on() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    stream.catch_up();
    stream.source.exec("DROP PUBLICATION repcloud_prod__copy; UPDATE t SET v = 'other' WHERE id = 1").await;
    let told = stream.try_catch_up().expect_code(1);
    assert!(told.stderr.contains("reset --source prod --all --recopy"), "{told:?}");
    stream.program.run(&["reset", "--source", "prod", "--all", "--recopy", "--yes"], LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}
