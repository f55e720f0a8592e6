//! A stream from nothing: tables made, rows copied, changes followed.

use crate::support::db::assert_same;
use crate::support::stream::Stream;

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
