//! A table whose changes did not all reach the stream is said to need another copy; it never goes on with a gap.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;

const TABLES: &str = "
    CREATE TABLE public.good (id int PRIMARY KEY, v text);
    CREATE TABLE public.other (id int PRIMARY KEY, v text);
    INSERT INTO good VALUES (1, 'first');
    INSERT INTO other SELECT i, 'first' FROM generate_series(1, 10) i";
const BOTH: &str = "mode = \"dml\"\ntables = [\"public.*\"]";
const ONE: &str = "mode = \"dml\"\ntables = [\"public.good\"]";

async fn state(stream: &Stream, table: &str) -> String {
    let sql = format!("SELECT state FROM repcloud.table_state WHERE target_table = 'public.{table}'");
    stream.target.value(&sql).await
}

async fn needs_copy_then_equal(stream: &Stream) {
    let told = stream.try_catch_up().expect_code(4);
    assert!(told.stderr.contains("reset --source prod --table public.other --recopy"), "{told:?}");
    assert_eq!(state(stream, "other").await, "needs_copy");
    assert_same(&stream.source, &stream.target, "good").await;
    let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "other").await;
}

#[tokio::test]
async fn a_table_that_was_out_of_the_publication_needs_another_copy() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    stream.source.exec("ALTER PUBLICATION repcloud_prod__copy DROP TABLE other; INSERT INTO other VALUES (11, 'lost'); INSERT INTO good VALUES (2, 'x')").await;
    needs_copy_then_equal(&stream).await;
    // Dropped and made anew: other rows under the old name.
    stream.source.exec("DROP TABLE other; CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'anew')").await;
    needs_copy_then_equal(&stream).await;
}

#[tokio::test]
async fn a_table_that_was_out_of_the_configuration_needs_another_copy() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    let less = Stream {
        program: crate::support::process::Repcloud::new(&crate::support::stream::configuration(
            &stream.pair,
            &[ONE],
        )),
        ..stream
    };
    less.source.exec("INSERT INTO other VALUES (11, 'while away')").await;
    let told = less.catch_up();
    assert!(told.stderr.contains("public.other is not followed any more"), "{told:?}");
    let more = crate::support::stream::configuration(&less.pair, &[BOTH]);
    let stream = Stream { program: crate::support::process::Repcloud::new(&more), ..less };
    needs_copy_then_equal(&stream).await;
}

#[tokio::test]
async fn a_table_that_loses_its_identity_is_taken_out_of_the_publication() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from slot")).await;
    stream.source.exec("ALTER TABLE other DROP CONSTRAINT other_pkey").await;
    wait::until("it is given up", LIMIT, async || state(&stream, "other").await == "needs_copy").await;
    stream
        .source
        .exec("UPDATE other SET v = 'the application goes on'; INSERT INTO good VALUES (2, 'x')")
        .await;
    wait::until("the others go on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM good WHERE id = 2").await == "1"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("ALTER TABLE other ADD PRIMARY KEY (id)").await;
    needs_copy_then_equal(&stream).await;
}

#[tokio::test]
async fn a_reset_of_all_does_not_touch_tables_that_the_stream_leaves_out() {
    let own = "CREATE TABLE public.keyless (id int); INSERT INTO keyless VALUES (42)";
    let stream = Stream::new(&format!("{TABLES}; CREATE TABLE public.keyless (id int)"), own, &[BOTH]).await;
    stream.catch_up();
    let reset = ["reset", "--source", "prod", "--all", "--recopy", "--yes"];
    let told = stream.program.run(&reset, LIMIT).expect_code(0);
    assert!(told.stdout.contains("public.other") && !told.stdout.contains("keyless"), "{told:?}");
    // Now the mode can take it: rows that are not ours are refused, as ever.
    stream.source.exec("ALTER TABLE keyless REPLICA IDENTITY FULL").await;
    let refused = stream.try_catch_up();
    assert!(refused.code() != 0 && refused.stderr.contains("already holds rows"), "{refused:?}");
    assert_eq!(stream.target.value("SELECT id FROM keyless").await, "42");
}
