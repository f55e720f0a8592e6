use super::Live;
#[tokio::test]
async fn smoke() {
    let live = Live::new("CREATE TABLE a (id int PRIMARY KEY, v text, n numeric); CREATE INDEX ON a (v); INSERT INTO a SELECT i, 'v'||i, i FROM generate_series(1,20000) i; DELETE FROM a WHERE id%2=0; ANALYZE", "").await;
    let before = live.admin.table_hash("a").await;
    let (finished, reports) = live.repack(&["--table", "public.a"]);
    println!("{}\n{:?}", finished.stderr, reports);
    finished.expect_code(0);
    assert_eq!(live.admin.table_hash("a").await, before);
    live.assert_clean().await;
}
