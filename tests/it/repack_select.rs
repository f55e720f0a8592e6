//! Which tables a repack takes, and what it expects of them.

use repcloud::model::TableName;
use repcloud::repack::options::{Selection, TableRules, TableSettings};
use repcloud::repack::select::{Chosen, select};

use crate::support::owner::Owner;

fn names(chosen: &Chosen) -> Vec<String> {
    chosen.tables.iter().map(|table| table.name.to_string()).collect()
}

async fn choose(owner: &Owner, selection: &Selection) -> Chosen {
    select(&owner.session, selection, &TableRules::default()).await.unwrap()
}

#[tokio::test]
async fn bloat_is_estimated_close_to_what_a_rewrite_gives_back() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE TABLE mixed (id int8 PRIMARY KEY, flag bool, note text, n numeric, at timestamptz); \
             INSERT INTO mixed SELECT i, i % 2 = 0, CASE WHEN i % 3 > 0 THEN repeat('x', i % 200) END, i / 7.0, now() \
               FROM generate_series(1, 40000) i; \
             CREATE TABLE plain (a int4 PRIMARY KEY, b int8 NOT NULL); \
             INSERT INTO plain SELECT i, i FROM generate_series(1, 40000) i; \
             CREATE TABLE airy (id int4 PRIMARY KEY, note text) WITH (fillfactor = 50); \
             INSERT INTO airy SELECT i, repeat('y', 90) FROM generate_series(1, 20000) i; \
             CREATE TABLE lean (id int4 PRIMARY KEY, note text); \
             INSERT INTO lean SELECT i, md5(i::text) FROM generate_series(1, 20000) i; \
             DELETE FROM mixed WHERE id % 2 = 0; DELETE FROM plain WHERE a % 4 > 0; DELETE FROM airy WHERE id % 2 = 0",
        )
        .await;
    // What was counted of the changes must not arrive after what VACUUM counts (PostgreSQL 15 can be told).
    owner.app.exec("SELECT pg_stat_force_next_flush()").await;
    for table in ["mixed", "plain", "airy", "lean"] {
        owner.app.exec(&format!("VACUUM ANALYZE {table}")).await;
    }
    let chosen = choose(&owner, &Selection::default()).await;
    assert_eq!(chosen.tables.len(), 4);
    let bytes: Vec<u64> = chosen.tables.iter().filter_map(|table| table.bloat).map(|b| b.bytes).collect();
    assert!(bytes.len() == 4 && bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
    for table in &chosen.tables {
        let name = &table.name;
        owner.app.exec(&format!("VACUUM FULL {name}")).await;
        let left: f64 = owner.app.value(&format!("SELECT pg_relation_size('{name}')")).await.parse().unwrap();
        let expected = table.new_heap_bytes as f64;
        assert!((expected / left - 1.0).abs() < 0.08, "{name}: expected {expected}, a rewrite leaves {left}");
        let bloat = table.bloat.unwrap();
        assert_eq!(bloat.bytes, table.heap_bytes - table.new_heap_bytes.min(table.heap_bytes), "{name}");
        let rows: f64 = owner.app.value(&format!("SELECT count(*) FROM {name}")).await.parse().unwrap();
        assert_eq!(table.rows, Some(rows), "{name}");
    }
    let lean = chosen.tables.iter().find(|table| table.name.table == "lean").unwrap();
    assert!(lean.bloat.unwrap().percent < 3.0, "{lean:?}");
    // Another fillfactor makes the new heap larger, not the bloat.
    let rules = TableRules {
        tables: [(lean.name.clone(), TableSettings { fillfactor: Some(50), ..TableSettings::default() })]
            .into(),
        ..TableRules::default()
    };
    let again = select(&owner.session, &Selection::default(), &rules).await.unwrap();
    let airy = again.tables.iter().find(|table| table.name.table == "lean").unwrap();
    assert!(airy.new_heap_bytes > lean.new_heap_bytes * 19 / 10, "{airy:?}");
}

#[tokio::test]
async fn a_table_without_statistics_is_unknown_and_one_that_is_locked_does_not_wait() {
    let owner = Owner::start().await;
    owner.app.exec("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 999) i").await;
    let table = owner.table("t").await;
    assert_eq!(table.bloat, None);
    assert_eq!(table.new_heap_bytes, table.heap_bytes);
    assert!(table.heap_bytes > 0 && table.index_bytes > 0);
    owner.app.exec("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let locked = owner.table("t").await;
    owner.app.exec("ROLLBACK").await;
    assert_eq!((locked.oid, locked.name), (table.oid, table.name));
}

#[tokio::test]
async fn names_schemas_and_everything() {
    let owner = Owner::start().await;
    owner
        .admin
        .exec(
            "CREATE TABLE public.theirs (id int PRIMARY KEY); CREATE SCHEMA sales AUTHORIZATION app; \
             CREATE SCHEMA repcloud AUTHORIZATION app; CREATE SCHEMA repcloud_old AUTHORIZATION app",
        )
        .await;
    owner
        .app
        .exec(
            "CREATE TABLE public.\"Big Table\" (id int PRIMARY KEY); CREATE TABLE sales.orders (id int PRIMARY KEY); \
             CREATE TABLE sales.parts (id int PRIMARY KEY) PARTITION BY RANGE (id); \
             CREATE TABLE sales.part PARTITION OF sales.parts DEFAULT; \
             CREATE UNLOGGED TABLE sales.unlogged (id int PRIMARY KEY); CREATE VIEW sales.v AS SELECT 1 AS one; \
             CREATE TABLE repcloud.state (id int PRIMARY KEY); CREATE TABLE repcloud_old.gone (id int PRIMARY KEY); \
             CREATE TEMP TABLE mine (id int PRIMARY KEY)",
        )
        .await;
    let all = choose(&owner, &Selection::default()).await;
    assert_eq!(
        (names(&all), all.left_out),
        (vec!["public.\"Big Table\"".into(), "sales.orders".into(), "sales.part".into()], vec![])
    );
    let schema = Selection { schemas: vec!["sales".into()], ..Selection::default() };
    let sales = choose(&owner, &schema).await;
    assert_eq!(names(&sales), ["sales.orders", "sales.part"]);
    let left: Vec<&str> = sales.left_out.iter().map(|(table, _)| table.table.as_str()).collect();
    assert_eq!(left, ["parts", "unlogged"]);
    let named = Selection {
        tables: vec![TableName::new("public", "theirs"), TableName::new("sales", "v")],
        ..Selection::default()
    };
    let chosen = choose(&owner, &named).await;
    assert_eq!(names(&chosen), ["public.theirs", "sales.v"], "pre-flight refuses what was named");
    let wrong = Selection {
        tables: vec![TableName::new("sales", "orders"), TableName::new("sales", "Orders")],
        schemas: vec!["sale".into()],
        ..Selection::default()
    };
    let chosen = choose(&owner, &wrong).await;
    assert_eq!(names(&chosen), ["sales.orders"]);
    let missing: Vec<String> = chosen.missing.iter().map(|m| format!("{}: {}", m.asked, m.reason)).collect();
    assert_eq!(
        missing,
        [
            "sales.\"Orders\": table sales.\"Orders\" does not exist (or the name is written otherwise)",
            "sale.*: schema sale does not exist (or the name is written otherwise)"
        ]
    );
}
