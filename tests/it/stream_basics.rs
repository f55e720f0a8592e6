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
