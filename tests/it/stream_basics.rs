//! A stream from nothing: tables made, rows copied, changes followed.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream};
use crate::support::wait::until;

#[tokio::test]
async fn rows_and_changes_arrive() {
    let stream = Stream::new(
        "CREATE TABLE public.orders (id bigint PRIMARY KEY, total numeric(10,2), note text);
         CREATE INDEX ON public.orders (total);
         INSERT INTO public.orders SELECT i, i * 1.5, 'note ' || i FROM generate_series(1, 1000) i",
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\"]"],
    )
    .await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.orders").await;
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
}

#[tokio::test]
async fn a_table_that_others_refer_to_on_the_target_is_truncated_too() {
    // On the source nothing refers to it; on the target a foreign key does, which the stream must neither obey nor trigger.
    let stream = Stream::new(
        "CREATE TABLE public.parent (id int PRIMARY KEY);
         CREATE TABLE public.child (id int PRIMARY KEY, parent int);
         INSERT INTO parent SELECT generate_series(1, 5); INSERT INTO child SELECT i, i FROM generate_series(1, 5) i",
        "CREATE TABLE public.parent (id int PRIMARY KEY);
         CREATE TABLE public.child (id int PRIMARY KEY, parent int REFERENCES public.parent ON DELETE CASCADE)",
        &["mode = \"dml\"\ntables = [\"public.parent\", \"public.child\"]"],
    )
    .await;
    stream.catch_up();
    stream.source.exec("TRUNCATE parent; INSERT INTO parent VALUES (3)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.parent").await;
    assert_same(&stream.source, &stream.target, "public.child").await;
}

#[tokio::test]
async fn a_refused_copy_of_many_new_rows_ends_the_stream_and_writes_nothing() {
    let stream = Stream::new(
        "CREATE TABLE public.t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a')",
        "",
        &["mode = \"dml\"\ntables = [\"public.t\"]"],
    )
    .await;
    stream.catch_up();
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    stream.source.exec("INSERT INTO t VALUES (2, 'b')").await;
    until("the stream runs", LIMIT, async || stream.target.value("SELECT count(*) FROM t").await == "2")
        .await;
    // COPY, which takes many rows, is refused before it takes any.
    stream.target.exec("ALTER TABLE t RENAME COLUMN note TO other").await;
    stream.source.exec("INSERT INTO t SELECT i, 'many' FROM generate_series(3, 1000) i").await;
    let finished = running.wait(LIMIT).expect_code(1);
    assert!(finished.stderr.contains("note"), "{finished:?}");
    stream.target.exec("ALTER TABLE t RENAME COLUMN other TO note").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "public.t").await;
}
