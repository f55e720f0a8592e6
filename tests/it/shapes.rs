//! The source's tables change their shape: the stream stops where it must, goes on when the target follows, and loses
//! nothing on the way.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};

const DML: &str = "mode = \"dml\"\ntables = [\"public.t\"]";

async fn stream() -> Stream {
    let stream = Stream::new(
        "CREATE TABLE public.t (id int PRIMARY KEY, a text, b varchar(10)); INSERT INTO t VALUES (1, 'a', 'b'), (2, 'a', 'b')",
        "",
        &[DML],
    )
    .await;
    stream.catch_up();
    stream
}

/// Runs `sql` before and after statements that change rows in the old and the new shape.
async fn around(stream: &Stream, before: &str, change: &str, after: &str) {
    for sql in [before, change, after] {
        stream.source.exec(sql).await;
    }
}

#[tokio::test]
async fn an_added_column_stops_with_the_statement_and_goes_on() {
    let stream = stream().await;
    // Met by a running stream, whose pre-flight is over.
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    crate::support::wait::until("it streams", LIMIT, async || {
        running.stderr().contains("streaming from slot")
    })
    .await;
    around(
        &stream,
        "INSERT INTO t VALUES (3, 'x', 'y')",
        "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 7",
        "INSERT INTO t VALUES (4, 'x', 'y', 8); UPDATE t SET c = 9 WHERE id = 1",
    )
    .await;
    crate::support::wait::until("the table is parked", LIMIT, async || {
        running.stderr().contains("is parked")
    })
    .await;
    running.terminate();
    let stopped = running.wait(LIMIT);
    assert!(stopped.stderr.contains("source column c of public.t has no column"), "{stopped:?}");
    // The next start knows the whole statement.
    let refused = stream.try_catch_up().expect_code(4);
    let (_, statement) = refused.stderr.split_once("run on the target: ").expect("a statement that helps");
    let (statement, _) = statement.split_once(';').unwrap();
    stream.target.exec(statement).await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
    // The new column is known from here on.
    stream.source.exec("ALTER TABLE t DROP COLUMN c; INSERT INTO t VALUES (5)").await;
    assert!(stream.try_catch_up().expect_code(4).stderr.contains("column c is gone"));
}

#[tokio::test]
async fn a_dropped_column_stops_until_it_is_dropped_on_the_target() {
    let stream = stream().await;
    around(
        &stream,
        "INSERT INTO t VALUES (3, 'x', 'y')",
        "ALTER TABLE t DROP COLUMN b",
        "INSERT INTO t VALUES (4, 'x'); UPDATE t SET a = 'z' WHERE id = 2",
    )
    .await;
    let stopped = stream.try_catch_up().expect_code(4);
    assert!(stopped.stderr.contains("column b is gone from source table public.t"), "{stopped:?}");
    stream.target.exec("ALTER TABLE t DROP COLUMN b").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_dropped_column_may_stay_on_the_target_when_a_person_says_so() {
    let stream = stream().await;
    around(
        &stream,
        "INSERT INTO t VALUES (3, 'x', 'y')",
        "ALTER TABLE t DROP COLUMN b",
        "INSERT INTO t VALUES (4, 'x'); UPDATE t SET a = 'z' WHERE id = 2",
    )
    .await;
    stream.try_catch_up().expect_code(4);
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.t", "--accept-target", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    let rows =
        stream.target.value("SELECT string_agg(concat_ws(' ', id, a, b), ',' ORDER BY id) FROM t").await;
    assert_eq!(rows, "1 a b,2 z b,3 x y,4 x");
}

#[tokio::test]
async fn a_changed_type_stops_until_the_target_is_accepted() {
    let stream = stream().await;
    around(
        &stream,
        "INSERT INTO t VALUES (3, 'x', 'y')",
        "ALTER TABLE t ALTER COLUMN b TYPE varchar(20)",
        "INSERT INTO t VALUES (4, 'x', 'longer than before')",
    )
    .await;
    let stopped = stream.try_catch_up().expect_code(4);
    assert!(stopped.stderr.contains("column b of source table public.t changed its type"), "{stopped:?}");
    stream.target.exec("ALTER TABLE t ALTER COLUMN b TYPE varchar(20)").await;
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.t", "--accept-target", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
    // Accepted once, not for ever.
    stream.source.exec("ALTER TABLE t ALTER COLUMN b TYPE text; INSERT INTO t VALUES (5, 'x', 'y')").await;
    assert!(stream.try_catch_up().expect_code(4).stderr.contains("changed its type"));
    // A new copy takes the new shape whatever is still on its way.
    stream.target.exec("ALTER TABLE t ALTER COLUMN b TYPE text").await;
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.t", "--recopy", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_renamed_column_keeps_its_values() {
    let stream = stream().await;
    around(
        &stream,
        "INSERT INTO t VALUES (3, 'x', 'y')",
        "ALTER TABLE t RENAME COLUMN b TO bb",
        "INSERT INTO t VALUES (4, 'x', 'y')",
    )
    .await;
    let refused = stream.try_catch_up().expect_code(4);
    assert!(refused.stderr.contains("ALTER TABLE public.t RENAME COLUMN b TO bb"), "{refused:?}");
    stream.target.exec("ALTER TABLE t RENAME COLUMN b TO bb").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn what_changes_no_shape_changes_nothing() {
    let stream = stream().await;
    for (id, sql) in [
        "ANALYZE t",
        "ALTER TABLE t ALTER COLUMN a SET STATISTICS 10",
        "CREATE INDEX ON t (a)",
        "ALTER TABLE t ADD CHECK (id > 0)",
        "VACUUM FULL t",
    ]
    .into_iter()
    .enumerate()
    {
        stream.source.exec(sql).await;
        stream.source.exec(&format!("INSERT INTO t VALUES (10 + {id}, 'x', 'y')")).await;
        stream.catch_up();
    }
    assert_same(&stream.source, &stream.target, "t").await;
}
