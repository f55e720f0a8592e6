//! Streams that read queues which triggers fill.

use crate::crash::kill::{MOSTLY_SOURCE, MOSTLY_TARGET, killed_at_random_moments};
use crate::crash::load::{ENTRIES, Load, SCHEMA, durable_pair};
use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration, connection};
use crate::support::wait;

/// What stands on the source: triggers, functions and queues, slots and publications.
pub(crate) const LEFT: &str =
    "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!repcloud%') || ' ' ||
    (SELECT count(*) FROM pg_proc WHERE proname LIKE 'queue\\_%') || ' ' ||
    (SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'queue\\_%') || ' ' ||
    (SELECT count(*) FROM pg_replication_slots) || ' ' || (SELECT count(*) FROM pg_publication)";

/// The same configuration, but for the way the source is read.
pub(crate) fn by_triggers(stream: &mut Stream, entries: &[&str]) {
    let text = configuration(&stream.pair, entries);
    let text = text.replacen("[connections.prod]\n", "[connections.prod]\ncapture = \"trigger\"\n", 1);
    stream.program = Repcloud::new(&text);
}

pub(crate) async fn stream(pair: Pair, schema: &str, entries: &[&str]) -> Stream {
    let mut stream = Stream::over(pair, schema, "", entries).await;
    by_triggers(&mut stream, entries);
    stream
}

const ORDERS: &str = "CREATE TABLE public.orders (id bigint PRIMARY KEY, total numeric(10,2), note text);
     ALTER TABLE orders REPLICA IDENTITY NOTHING;
     INSERT INTO public.orders SELECT i, i * 1.5, 'note ' || i FROM generate_series(1, 1000) i";

#[tokio::test]
async fn rows_and_changes_arrive_without_a_slot_and_removal_leaves_nothing() {
    let entries = &["mode = \"dml\"\ntables = [\"public.orders\"]"];
    let stream = stream(Pair::start(), ORDERS, entries).await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
    assert_eq!(stream.source.value(LEFT).await, "2 2 1 0 0");
    stream
        .source
        .exec(
            "INSERT INTO orders VALUES (2001, 1, NULL), (2002, 2, '');
             UPDATE orders SET total = total + 1 WHERE id % 3 = 0;
             DELETE FROM orders WHERE id % 7 = 0;
             UPDATE orders SET id = id + 10000 WHERE id % 11 = 0",
        )
        .await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
    let queue = "SELECT 'repcloud.queue_' || 'public.orders'::regclass::oid";
    let queue = stream.source.value(queue).await;
    assert_eq!(
        stream.source.value(&format!("SELECT count(*) FROM {queue}")).await,
        "0",
        "rows that are applied go"
    );
    stream.source.exec("TRUNCATE orders; INSERT INTO orders VALUES (1, 1, 'again')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
    let dropped = ["drop-table", "public.orders", "--yes"];
    stream.program.run(&dropped, LIMIT).expect_code(0);
    assert_eq!(stream.source.value(LEFT).await, "0 0 0 0 0");
    stream.program.run(&["drop-schema", "--connection", "prod"], LIMIT).expect_code(0);
    assert_eq!(
        stream.source.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'").await,
        "0"
    );
}

#[tokio::test]
async fn whoever_keeps_the_triggers_from_a_table_is_named() {
    let stream = stream(Pair::start(), ORDERS, &["mode = \"dml\"\ntables = [\"public.orders\"]"]).await;
    let writer = Db::connect(&stream.pair.source, "app").await;
    writer.exec("BEGIN; UPDATE orders SET total = 0 WHERE id = 1").await;
    let pid = writer.value("SELECT pg_backend_pid()").await;
    let running = stream.program.spawn(&["stream", "--source", "prod", "--until", "caught-up"]);
    let told = format!("sessions that hold one: pid {pid}");
    wait::until("the writer is named", LIMIT, async || running.stderr().contains(&told)).await;
    writer.exec("COMMIT").await;
    running.wait(LIMIT).expect_code(0);
    assert_same(&stream.source, &stream.target, "public.orders").await;
}

/// Nothing queued what was written into the new table.
#[tokio::test]
async fn a_table_that_was_made_anew_needs_another_copy() {
    let stream = stream(Pair::start(), ORDERS, &["mode = \"dml\"\ntables = [\"public.orders\"]"]).await;
    stream.catch_up();
    stream.source.exec(&format!("DROP TABLE orders; {ORDERS}; DELETE FROM orders WHERE id > 10")).await;
    for _ in 0..2 {
        let told = stream.try_catch_up().expect_code(4);
        assert!(told.stderr.contains("public.orders needs another copy"), "{told:?}");
    }
    let reset = ["reset", "--source", "prod", "--table", "public.orders", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
}

#[tokio::test]
async fn a_stream_that_reads_a_slot_is_not_switched_to_triggers() {
    let entries = &["mode = \"dml\"\ntables = [\"public.orders\"]"];
    let schema = "CREATE TABLE public.orders (id int PRIMARY KEY)";
    let mut stream = Stream::over(Pair::start(), schema, "", entries).await;
    stream.catch_up();
    by_triggers(&mut stream, entries);
    let refused = stream.try_catch_up().expect_code(3);
    assert!(refused.stderr.contains("cannot read triggers instead"), "{refused:?}");
    stream.program = Repcloud::new(&configuration(&stream.pair, entries));
    stream.source.exec("INSERT INTO orders VALUES (1)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
}

/// Its triggers and its queue belong to the stream.
#[tokio::test]
async fn a_table_that_a_stream_reads_by_triggers_is_not_repacked() {
    let stream = stream(Pair::start(), ORDERS, &["mode = \"dml\"\ntables = [\"public.orders\"]"]).await;
    stream.catch_up();
    stream.source.exec("UPDATE orders SET total = total + 1").await;
    for command in [&["repack"][..], &["repack", "--capture", "slot"], &["repack", "--dry-run"], &["prepare"]]
    {
        let table = ["--connection", "prod", "--table", "public.orders"];
        let refused = stream.program.run(&[command, &table].concat(), LIMIT).expect_code(3);
        let told = format!("{}{}", refused.stdout, refused.stderr);
        assert!(told.contains("read by triggers for"), "{command:?}: {refused:?}");
    }
    let drop = stream.program.run(&["drop-schema", "--connection", "prod"], LIMIT).expect_code(3);
    assert!(drop.stderr.contains("repcloud drop-table"), "{drop:?}");
    let abort = ["abort", "--connection", "prod", "--table", "public.orders"];
    stream.program.run(&abort, LIMIT).expect_code(0);
    assert_eq!(stream.source.value(LEFT).await, "2 2 1 0 0");
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_killed_at_random_moments_nothing_is_lost_or_doubled() {
    let source = builder("source").setting("fsync", "on");
    let mut stream = stream(durable_pair(source), SCHEMA, ENTRIES).await;
    stream.catch_up();
    let load = Load::start(&stream.pair.source, 2);
    killed_at_random_moments(&mut stream, load, MOSTLY_TARGET).await;
    assert_eq!(stream.source.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}

/// Transactions that were not flushed are undone by a crash of the source, and their ids are given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_crashes_of_a_source_with_asynchronous_writers_lose_and_double_nothing() {
    let source = builder("source").setting("fsync", "on").setting("wal_writer_delay", "10s");
    let mut stream = stream(durable_pair(source), SCHEMA, ENTRIES).await;
    stream.catch_up();
    let load = Load::asynchronous(&stream.pair.source, 2);
    let acknowledged = killed_at_random_moments(&mut stream, load, MOSTLY_SOURCE).await;
    let kept: u64 = stream.source.value("SELECT count(*) FROM events").await.parse().unwrap();
    assert!(kept < acknowledged, "no crash undid anything: {kept} of {acknowledged}");
}

#[tokio::test]
async fn several_targets_read_one_queue_and_removing_one_leaves_the_others_whole() {
    let stream = Stream::new(ORDERS, "CREATE DATABASE second", &[]).await;
    let second = Db::connect(&stream.pair.target, "second").await;
    let program = |name: &str, database: &str| {
        let source =
            connection("prod", &stream.pair.source, "app").replacen("]\n", "]\ncapture = \"trigger\"\n", 1);
        let target = connection(name, &stream.pair.target, database);
        let entry =
            format!("source = \"prod\"\ntarget = \"{name}\"\nmode = \"dml\"\ntables = [\"public.orders\"]");
        Repcloud::new(&format!("{source}{target}[[replicate]]\n{entry}\n"))
    };
    let (copy, other) = (program("copy", "app"), program("other", "second"));
    let catch_up = |program: &Repcloud| {
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0)
    };
    catch_up(&copy);
    catch_up(&other);
    assert_eq!(stream.source.value(LEFT).await, "2 2 1 0 0", "one queue");
    stream.source.exec("UPDATE orders SET note = 'changed' WHERE id < 100").await;
    catch_up(&copy);
    // The other target has not read them: they stay.
    let queue = stream.source.value("SELECT 'repcloud.queue_' || 'public.orders'::regclass::oid").await;
    assert_eq!(stream.source.value(&format!("SELECT count(*) FROM {queue}")).await, "99");
    copy.run(&["drop-table", "public.orders", "--yes"], LIMIT).expect_code(0);
    assert_eq!(stream.source.value(LEFT).await, "2 2 1 0 0", "the other's queue stays");
    stream.source.exec("DELETE FROM orders WHERE id > 500").await;
    catch_up(&other);
    assert_same(&stream.source, &second, "public.orders").await;
    assert_eq!(stream.source.value(&format!("SELECT count(*) FROM {queue}")).await, "0");
}

/// The role may not drop by name what only the owner may, and makes no trigger fire always.
#[tokio::test]
async fn the_rights_trigger_and_select_are_enough_and_what_they_miss_is_said() {
    let entries = &["mode = \"dml\"\ntables = [\"public.orders\"]"];
    let mut stream = Stream::over(Pair::start(), ORDERS, "", entries).await;
    stream
        .source
        .exec("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE app TO app; GRANT TRIGGER, SELECT ON orders TO app")
        .await;
    let text = configuration(&stream.pair, entries).replacen(
        "[connections.prod]\n",
        "[connections.prod]\ncapture = \"trigger\"\n",
        1,
    );
    stream.program = Repcloud::new(&text.replacen("user = \"postgres\"", "user = \"app\"", 1));
    let told = stream.catch_up().stderr;
    assert!(told.contains("do not fire for sessions with session_replication_role = replica"), "{told}");
    stream.source.exec("UPDATE orders SET note = 'changed' WHERE id < 100").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
    stream.program.run(&["drop-table", "public.orders", "--yes"], LIMIT).expect_code(0);
    assert_eq!(stream.source.value(LEFT).await, "0 0 0 0 0");
}

#[tokio::test]
async fn a_table_that_joins_is_copied_and_followed_and_order_holds_across_tables() {
    let schema = "CREATE TABLE public.parent (id int PRIMARY KEY); CREATE TABLE public.child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
         INSERT INTO parent SELECT generate_series(1, 50); INSERT INTO child SELECT i, i FROM generate_series(1, 50) i";
    let mut stream = stream(Pair::start(), schema, &["mode = \"dml\"\ntables = [\"public.parent\"]"]).await;
    stream.catch_up();
    stream.source.exec("INSERT INTO parent VALUES (51); INSERT INTO child VALUES (51, 51)").await;
    by_triggers(&mut stream, &["mode = \"dml\"\ntables = [\"public.parent\", \"public.child\"]"]);
    stream.catch_up();
    stream.source.exec("DELETE FROM parent WHERE id < 10; INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1); UPDATE child SET parent = 1 WHERE id = 20").await;
    stream.catch_up();
    for table in ["public.parent", "public.child"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
}
