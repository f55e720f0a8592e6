//! A table whose changes did not all reach the stream is said to need another copy; it never goes on with a gap.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;
use crate::triggers::by_triggers;

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

/// As some tools for schema changes do: the rows on the target are those of the table that had the name before.
#[tokio::test]
async fn a_table_that_takes_the_name_of_another_needs_another_copy() {
    const EXCHANGE: &str = "BEGIN; ALTER TABLE other RENAME TO aside; ALTER TABLE good RENAME TO other; \
        ALTER TABLE aside RENAME TO good; ALTER INDEX other_pkey RENAME TO aside_pkey; ALTER INDEX good_pkey RENAME TO other_pkey; \
        ALTER INDEX aside_pkey RENAME TO good_pkey; COMMIT; UPDATE other SET v = 'x' WHERE id = 1; INSERT INTO good VALUES (50, 'y')";
    for capture in ["slot", "trigger"] {
        let mut stream = Stream::new(TABLES, "", &[BOTH]).await;
        if capture == "trigger" {
            by_triggers(&mut stream, &[BOTH]);
        }
        stream.catch_up();
        stream.source.exec(EXCHANGE).await;
        stream.try_catch_up().expect_code(4);
        assert_eq!(
            (state(&stream, "good").await, state(&stream, "other").await),
            ("needs_copy".into(), "needs_copy".into()),
            "{capture}"
        );
        let reset = ["reset", "--source", "prod", "--all", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        // And while it runs: one is renamed away, another that was followed beside it takes its place.
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        wait::until("both are copied", LIMIT, async || {
            state(&stream, "good").await == "streaming" && state(&stream, "other").await == "streaming"
        })
        .await;
        assert_same(&stream.source, &stream.target, "other").await;
        stream.source.exec("ALTER TABLE other RENAME TO gone; ALTER INDEX other_pkey RENAME TO gone_pkey; ALTER TABLE good RENAME TO other; ALTER INDEX good_pkey RENAME TO other_pkey; INSERT INTO other VALUES (60, 'z')").await;
        wait::until("it is noticed", LIMIT, async || state(&stream, "other").await == "needs_copy").await;
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        stream.try_catch_up();
        assert_same(&stream.source, &stream.target, "other").await;
    }
}

/// What waits for it would not make its rows certain again, and the other tables are not to stand still for it.
#[tokio::test]
async fn partitions_of_a_parked_table_change_and_the_others_go_on() {
    const SCHEMA: &str = "CREATE TABLE public.other (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE public.part_1 PARTITION OF other FOR VALUES FROM (0) TO (100); INSERT INTO other VALUES (1, 'first');
        CREATE TABLE public.good (id int PRIMARY KEY, v text)";
    let stream =
        Stream::new(SCHEMA, "", &["mode = \"dml\"\ntables = [\"public.good\", \"public.other\"]"]).await;
    stream.catch_up();
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    stream.target.exec("DELETE FROM other").await;
    stream.source.exec("UPDATE other SET v = 'x'").await;
    wait::until("it is parked", LIMIT, async || state(&stream, "other").await == "parked").await;
    wait::until("it streams on", LIMIT, async || {
        running.stderr().matches("streaming from slot").count() == 2
    })
    .await;
    stream.source.exec("CREATE TABLE part_2 PARTITION OF other FOR VALUES FROM (100) TO (200)").await;
    wait::until("it needs a copy", LIMIT, async || state(&stream, "other").await == "needs_copy").await;
    stream.source.exec("INSERT INTO good VALUES (1, 'x')").await;
    wait::until("the other goes on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM good").await == "1"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

/// A slip in the configuration must not cost a copy of days.
#[tokio::test]
async fn changes_of_a_table_that_is_out_of_the_configuration_wait_for_its_entry() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    let configure =
        |entry: &str| stream.program.write("config/default.toml", &configuration(&stream.pair, &[entry]));
    configure(ONE);
    stream
        .source
        .exec("INSERT INTO other VALUES (11, 'while away'); UPDATE other SET v = 'x' WHERE id = 3")
        .await;
    let told = stream.catch_up();
    assert!(
        told.stderr.contains("target table public.other is parked")
            && told.stderr.contains("drop-table public.other"),
        "{told:?}"
    );
    stream.source.exec("DELETE FROM other WHERE id = 5; INSERT INTO good VALUES (2, 'x')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "good").await;
    assert_eq!(state(&stream, "other").await, "parked");
    assert_eq!(stream.target.value("SELECT count(*) FROM other").await, "10", "nothing is applied");
    configure(BOTH);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "other").await;
    // Not published meanwhile: then its changes have passed by.
    configure(ONE);
    stream
        .source
        .exec("ALTER PUBLICATION repcloud_prod__copy DROP TABLE other; INSERT INTO other VALUES (12, 'lost')")
        .await;
    let told = stream.catch_up();
    assert!(told.stderr.contains("public.other is not followed any more"), "{told:?}");
    configure(BOTH);
    needs_copy_then_equal(&stream).await;
}

#[tokio::test]
async fn changes_of_a_table_without_an_entry_do_not_wait_without_limit() {
    let mut stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    stream.program.write("config/default.toml", &configuration(&stream.pair, &[ONE]));
    stream.program = stream.program.env("REPCLOUD_PARK_CHANGES", "50");
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it is parked", LIMIT, async || running.stderr().contains("public.other is parked")).await;
    stream.source.exec("INSERT INTO other SELECT i FROM generate_series(1000, 1100) i").await;
    wait::until("it is given up", LIMIT, async || running.stderr().contains("public.other is given up"))
        .await;
    assert_eq!(state(&stream, "other").await, "needs_copy");
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.parked").await, "0");
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_table_that_was_dropped_from_the_stream_does_not_come_back_by_a_wildcard() {
    let stream = Stream::new(TABLES, "", &[BOTH]).await;
    stream.catch_up();
    stream.program.run(&["drop-table", "public.other", "--yes"], LIMIT).expect_code(0);
    let told = stream.catch_up();
    assert!(told.stderr.contains("passes over public.other"), "{told:?}");
    assert_eq!(stream.target.value("SELECT to_regclass('public.other') IS NULL").await, "t");
    let reset = ["reset", "--source", "prod", "--all", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_eq!(stream.target.value("SELECT to_regclass('public.other') IS NULL").await, "t");
    // Asked for, it comes back, and stays.
    let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    for _ in 0..2 {
        stream.catch_up();
        assert_same(&stream.source, &stream.target, "other").await;
    }
    // So does one that an entry names.
    stream.program.run(&["drop-table", "public.other", "--yes"], LIMIT).expect_code(0);
    let named = "mode = \"dml\"\ntables = [\"public.good\", \"public.other\"]";
    for entry in [named, BOTH] {
        stream.program.write("config/default.toml", &configuration(&stream.pair, &[entry]));
        stream.catch_up();
        assert_same(&stream.source, &stream.target, "other").await;
    }
}

#[tokio::test]
async fn logdel_leaves_out_a_table_with_a_column_of_that_name() {
    let own = format!("{TABLES}; CREATE TABLE public.own (id int PRIMARY KEY, repcloud_source_deleted text)");
    let stream = Stream::new(&own, "", &["mode = \"logdel\"\ntables = [\"public.*\"]"]).await;
    let told = stream.catch_up();
    assert!(told.stderr.contains("public.* leaves out table public.own"), "{told:?}");
    assert_eq!(stream.target.value("SELECT count(*) FROM good").await, "1");
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
    // `public.*` leaves it out now; it is said all the same.
    let told = stream.try_catch_up().expect_code(4);
    assert!(told.stderr.contains("public.other needs another copy"), "{told:?}");
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
