//! Copying first rows under a snapshot, and what can go wrong on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use repcloud::catalog::ddl::{TargetDdl, TargetOptions, target_ddl};
use repcloud::catalog::{read_table, read_types};
use repcloud::copy::indexes::build_indexes;
use repcloud::copy::target::{Prepared, analyze, empty_table, prepare_table, rows_exist};
use repcloud::copy::{
    CopyError, CopyFormat, CopySpec, PageRange, choose_format, copy_chunk, read_heap, split,
};
use repcloud::model::TableName;
use tokio_postgres::Client;

use crate::cluster::Cluster;

const TYPES: &str = r#"
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE SCHEMA "App";
CREATE TYPE "App"."Mood" AS ENUM ('it''s', 'b\s');
CREATE DOMAIN "App".code AS varchar(9) CHECK (VALUE <> '');
CREATE TYPE "App".pair AS (a int, "B b" text);
CREATE TYPE "App".span AS RANGE (subtype = float8);
CREATE TABLE "App"."All ""Types""" (
  id bigint PRIMARY KEY, n numeric, n2 numeric(10,2), f4 real, f8 double precision, d date, t time, tz timetz,
  ts timestamp, tstz timestamptz, i interval, b bytea, j json, jb jsonb, ia int[], ta text[], m "App"."Mood",
  ma "App"."Mood"[], dom "App".code, p "App".pair, pa "App".pair[], r int4range, tr tstzrange, mr int4multirange,
  own "App".span, ci public.citext, h public.hstore, tv tsvector, tq tsquery, bt bit(3), vb varbit, ip inet,
  net cidr, mac macaddr, x xml, mo money, pt point, poly polygon, q "char", c5 char(5), u uuid, l pg_lsn,
  s text, bo boolean, g bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE INDEX "by S" ON "App"."All ""Types""" (s);
"#;

const ROWS: &[&str] = &[
    r#"1, 'NaN', -1.50, 'NaN', '-0', 'infinity', '24:00', '12:00+05:30', 'infinity', '-infinity',
       '-1 year 2 mons -3 days 04:05:06.789', '\x00ff5c', ' { "a" : 1, "a" : "\u0000" } ', '{"k": 1.00}',
       '[5:6]={1,NULL}', ARRAY['', NULL, 'NULL', 'a"b\c', E'\n\t'], 'it''s', ARRAY['b\s', NULL]::"App"."Mood"[],
       'x', ROW(NULL, E'a"\\\n,')::"App".pair, ARRAY[ROW(1, '')]::"App".pair[], '[1,5)', '(,2020-01-01 00:00+00]',
       '{[1,2),[5,9)}', '[-Infinity,1.5)', 'MiXeD', '"a b"=>NULL, "c"=>"\"d"', '''it'' b:1A', '''a'' & !b', B'101',
       B'', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '<a b="c">&amp;</a>', '-12.34', '(1e-300,2)',
       '((0,0),(1,1),(1,0))', 'Z', 'ab', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '16/B374D848', E'\\N', true"#,
    r#"2, 'Infinity', 1e7, '1e-45', '1.7976931348623157e308', '4713-01-01 BC', '00:00', '00:00-15:59',
       '0044-03-15 12:00:00.000001 BC', '294276-12-31 23:59:59.999999+00', '178000000 years', '', 'null', 'null',
       '{{1,2},{3,4}}', '{}', NULL, '{}', NULL, ROW(1, 'x')::"App".pair, '{}', 'empty', 'empty', '{}', 'empty', '',
       '', '', '', B'000', B'1', '192.168.0.1', '::/0', NULL, '<?xml version="1.0"?><z/>', '0', '(NaN,Infinity)',
       '((0,0))', '', '', NULL, '0/0', '', false"#,
    r"3, '1e-1000', 0, '-Infinity', '5e-324'",
];

fn all_types() -> TableName {
    TableName::new("App", "All \"Types\"")
}

/// A source and a target with the types' table made on the source.
async fn source_and_target(cluster: &Cluster) -> (Client, Client) {
    cluster.create_database("source").await;
    cluster.create_database("target").await;
    let (source, target) = (cluster.connect("source").await, cluster.connect("target").await);
    source.batch_execute("SET search_path = public").await.unwrap();
    source.batch_execute(TYPES).await.unwrap();
    source.batch_execute("SET search_path = pg_catalog").await.unwrap();
    (source, target)
}

async fn ddl(source: &Client, name: &TableName, options: &TargetOptions) -> TargetDdl {
    let table = read_table(source, name).await.unwrap().unwrap();
    let oids: Vec<u32> = table.columns.iter().map(|c| c.type_oid).collect();
    target_ddl(&table, &read_types(source, &oids).await.unwrap(), options).unwrap()
}

/// Whole-table copy of `from` (which holds rows) to `to`, same columns, under the format that fits.
async fn spec(source: &Client, target: &Client, from: &TableName, to: &TableName) -> CopySpec {
    let (here, there) =
        (read_table(source, from).await.unwrap().unwrap(), read_table(target, to).await.unwrap().unwrap());
    let columns: Vec<_> = here.columns.iter().filter(|c| c.generated.is_none()).collect();
    let columns: Vec<_> = columns.iter().filter_map(|c| Some((*c, there.column(&c.name)?))).collect();
    let names: Vec<String> = columns.iter().map(|(c, _)| c.name.clone()).collect();
    CopySpec {
        source: from.clone(),
        columns: names.clone(),
        condition: None,
        target: to.clone(),
        target_columns: names,
        format: choose_format(&columns, 150_000, 150_000),
        filenode: read_heap(source, from).await.unwrap().filenode,
        stall_limit: Duration::from_secs(60),
    }
}

async fn content(client: &Client, table: &TableName) -> (i64, Option<String>) {
    let query = format!(
        "SELECT count(*), md5(string_agg(whole_row::text, E'\\n' ORDER BY id)) FROM {table} whole_row"
    );
    let row = client.query_one(&query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn begin_under(client: &Client, snapshot: &str) {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.batch_execute(&format!("{begin}; SET TRANSACTION SNAPSHOT '{snapshot}'")).await.unwrap();
}

async fn export(holder: &Client) -> String {
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    holder.query_one("SELECT pg_export_snapshot()", &[]).await.unwrap().get(0)
}

/// Copies all chunks on two pairs of sessions.
async fn copy_all(cluster: &Cluster, snapshot: &str, spec: &CopySpec, ranges: &[PageRange]) -> u64 {
    let worker = async |turn: usize| {
        let (from, into) = (cluster.connect("source").await, cluster.connect("target").await);
        begin_under(&from, snapshot).await;
        let mut rows = 0;
        for range in ranges.iter().skip(turn).step_by(2) {
            rows += copy_chunk(&from, &into, spec, *range).await.unwrap().rows;
        }
        rows
    };
    let (a, b) = futures_util::future::join(worker(0), worker(1)).await;
    a + b
}

/// Keeps changing the table until told to stop; counts transactions.
fn writer(client: Client, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    let table = all_types();
    tokio::spawn(async move {
        let mut id = 1_000_000;
        while !stop.load(Ordering::Relaxed) {
            id += 1;
            let sql = format!(
                "BEGIN; INSERT INTO {table} (id, s) VALUES ({id}, 'late'); \
                 UPDATE {table} SET s = s || 'x' WHERE id % 7 = {id} % 7 AND id < 100; \
                 DELETE FROM {table} WHERE id = {id} % 500 + 10; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[tokio::test]
async fn the_target_equals_the_snapshot_while_writers_write() {
    let cluster = Cluster::start().await;
    let (source, target) = source_and_target(&cluster).await;
    let name = all_types();
    for row in ROWS {
        source.execute(&format!("INSERT INTO {name} VALUES ({row})"), &[]).await.unwrap();
    }
    let fill = format!(
        "INSERT INTO {name} (id, s, m, ci) SELECT g, pg_catalog.repeat(g::text, 20), 'it''s', 'Ab' \
         FROM pg_catalog.generate_series(10, 20000) g"
    );
    source.batch_execute(&fill).await.unwrap();

    let options = TargetOptions::named(name.clone());
    let ddl = ddl(&source, &name, &options).await;
    let missing = prepare_table(&target, &ddl).await.unwrap_err().to_string();
    assert!(missing.contains("CREATE EXTENSION"), "{missing}");
    target
        .batch_execute("CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION hstore SCHEMA public")
        .await
        .unwrap();
    assert_eq!(prepare_table(&target, &ddl).await, Ok(Prepared::Made));
    assert_eq!(prepare_table(&target, &ddl).await, Ok(Prepared::Existed));
    assert_eq!(rows_exist(&target, &name).await, Ok(false));

    let spec = spec(&source, &target, &name, &name).await;
    assert_eq!(spec.format, CopyFormat::Text);
    let heap = read_heap(&source, &name).await.unwrap();
    let ranges = split(heap.pages, heap.page_bytes, 16 * u64::from(heap.page_bytes));
    assert!(ranges.len() > 10, "{}", ranges.len());
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = writer(cluster.connect("source").await, Arc::clone(&stop), Arc::clone(&count));
    let some_writes = async |more: u64| {
        let (goal, deadline) =
            (count.load(Ordering::Relaxed) + more, Instant::now() + Duration::from_secs(60));
        while count.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "the writer does not write");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    some_writes(5).await;
    let snapshot = export(&source).await;
    some_writes(5).await;
    let rows = copy_all(&cluster, &snapshot, &spec, &ranges).await;
    some_writes(1).await;
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();

    let expected = content(&source, &name).await;
    source.batch_execute("COMMIT").await.unwrap();
    assert_eq!(content(&target, &name).await, expected);
    assert_eq!(i64::try_from(rows).unwrap(), expected.0);
    assert_ne!(content(&source, &name).await, expected, "the source has moved on");

    for _ in 0..2 {
        build_indexes(&target, &ddl).await.unwrap();
    }
    analyze(&target, &name).await.unwrap();
    let made = read_table(&target, &name).await.unwrap().unwrap();
    assert_eq!(made.indexes.len(), 2);
    assert_eq!(rows_exist(&target, &name).await, Ok(true));
    empty_table(&target, &name).await.unwrap();
    assert_eq!(rows_exist(&target, &name).await, Ok(false));
}

#[tokio::test]
async fn leaves_go_to_one_target_in_binary_with_their_condition() {
    let cluster = Cluster::start().await;
    let (source, target) = source_and_target(&cluster).await;
    source
        .batch_execute(
            r#"CREATE TABLE "App".root (id int, "K" numeric, ts timestamptz[], f float8, j jsonb, PRIMARY KEY (id))
                 PARTITION BY RANGE (id);
               CREATE TABLE "App"."leaf 1" (j jsonb, f float8, id int NOT NULL, "K" numeric, ts timestamptz[]);
               ALTER TABLE "App".root ATTACH PARTITION "App"."leaf 1" FOR VALUES FROM (0) TO (100);
               CREATE TABLE "App".leaf2 PARTITION OF "App".root DEFAULT;
               INSERT INTO "App".root SELECT g, CASE g % 3 WHEN 0 THEN 'NaN' ELSE g::numeric / 7 END,
                 ARRAY['infinity', pg_catalog.to_timestamp(g)], '-0', NULL FROM pg_catalog.generate_series(1, 300) g"#,
        )
        .await
        .unwrap();
    let root = TableName::new("App", "root");
    let mart = TableName::new("mart", "Root copy");
    let ddl = ddl(&source, &root, &TargetOptions::named(mart.clone())).await;
    assert_eq!(prepare_table(&target, &ddl).await, Ok(Prepared::Made));
    let snapshot = export(&source).await;
    for leaf in read_table(&source, &root).await.unwrap().unwrap().leaves {
        let mut spec = spec(&source, &target, &leaf, &mart).await;
        assert_eq!(spec.format, CopyFormat::Binary);
        spec.condition = Some("id % 2 = 0 OR id = 1".into());
        copy_all(&cluster, &snapshot, &spec, &split(1, 8192, 1)).await;
    }
    let expected = "SELECT count(*), md5(string_agg(whole_row::text, E'\\n' ORDER BY id)) FROM \"App\".root whole_row WHERE id % 2 = 0 OR id = 1";
    let row = source.query_one(expected, &[]).await.unwrap();
    assert_eq!(content(&target, &mart).await, (row.get(0), row.get(1)));
    assert_eq!(row.get::<_, i64>(0), 151);
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_values_and_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    let (source, target) = source_and_target(&cluster).await;
    let t = TableName::new("public", "t");
    source
        .batch_execute(
            "CREATE TABLE public.t (id int PRIMARY KEY, v text);
             INSERT INTO public.t SELECT g, 'secret' || g FROM generate_series(1, 5000) g",
        )
        .await
        .unwrap();
    let ddl = ddl(&source, &t, &TargetOptions::named(t.clone())).await;
    prepare_table(&target, &ddl).await.unwrap();
    let good = spec(&source, &target, &t, &t).await;
    let copy = async |spec: &CopySpec| {
        let snapshot = export(&source).await;
        let from = cluster.connect("source").await;
        begin_under(&from, &snapshot).await;
        let answer = copy_chunk(&from, &target, spec, PageRange::ALL).await;
        source.batch_execute("COMMIT").await.unwrap();
        answer
    };
    // The source fails in the middle.
    let error =
        copy(&CopySpec { condition: Some("1 / (id - 4000) < 1".into()), ..good.clone() }).await.unwrap_err();
    assert!(matches!(&error, CopyError::Server { what, .. } if what.contains("source")), "{error}");
    assert_eq!(rows_exist(&target, &t).await, Ok(false));
    // The target refuses a row.
    target.batch_execute("ALTER TABLE public.t ADD CONSTRAINT small CHECK (id < 4000)").await.unwrap();
    let error = copy(&good).await.unwrap_err().to_string();
    assert!(error.contains("small") && error.contains("23514") && !error.contains("secret"), "{error}");
    target
        .batch_execute("ALTER TABLE public.t DROP CONSTRAINT small, ALTER v TYPE int USING 1")
        .await
        .unwrap();
    let text = CopySpec { format: CopyFormat::Text, ..good.clone() };
    let error = copy(&text).await.unwrap_err().to_string();
    assert!(error.contains("22P02") && !error.contains("secret"), "{error}");
    assert_eq!(rows_exist(&target, &t).await, Ok(false));
    // The target drops rows silently.
    target
        .batch_execute(
            "ALTER TABLE public.t ALTER v TYPE text;
             CREATE FUNCTION public.drop() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN IF NEW.id = 7 THEN RETURN NULL; END IF; RETURN NEW; END';
             CREATE TRIGGER d BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.drop()",
        )
        .await
        .unwrap();
    for spec in [&good, &text] {
        let error = copy(spec).await.unwrap_err();
        assert_eq!(error, CopyError::Count { table: t.clone(), sent: 5000, stored: 4999 });
        empty_table(&target, &t).await.unwrap();
    }
    let raise = "'BEGIN RAISE EXCEPTION ''% is bad'', NEW.v; END'";
    let replace =
        format!("CREATE OR REPLACE FUNCTION public.drop() RETURNS trigger LANGUAGE plpgsql AS {raise}");
    target.batch_execute(&replace).await.unwrap();
    let error = copy(&good).await.unwrap_err().to_string();
    assert!(error.contains("P0001") && !error.contains("secret"), "{error}");
    target.batch_execute("DROP TRIGGER d ON public.t").await.unwrap();
    let none = CopySpec { condition: Some("false".into()), ..good.clone() };
    assert_eq!(copy(&none).await.unwrap().rows, 0);
    // The heap is replaced after its pages were counted.
    source.batch_execute("VACUUM FULL public.t").await.unwrap();
    assert_eq!(copy(&good).await, Err(CopyError::Rewritten { table: t.clone() }));
    let good = spec(&source, &target, &t, &t).await;
    assert_eq!(copy(&good).await.unwrap().rows, 5000);
    assert_eq!(content(&target, &t).await, content(&source, &t).await);
}

#[tokio::test]
async fn a_table_that_foreign_keys_keep_full_is_told_from_one_that_is_locked() {
    let cluster = Cluster::start().await;
    let admin = cluster.connect("postgres").await;
    admin
        .batch_execute(
            "CREATE ROLE plain LOGIN; CREATE SCHEMA mart AUTHORIZATION plain; SET ROLE plain;
             CREATE TABLE mart.t (id int PRIMARY KEY); INSERT INTO mart.t VALUES (1), (2);
             CREATE TABLE mart.mine (id int REFERENCES mart.t); INSERT INTO mart.mine VALUES (1)",
        )
        .await
        .unwrap();
    let plain = cluster.connect_as("postgres", "plain").await;
    let name = TableName::new("mart", "t");
    let told = empty_table(&plain, &name).await.unwrap_err().to_string();
    assert!(told.contains("mine_id_fkey on mart.mine"), "{told}");
    assert_eq!(content(&plain, &name).await.0, 2);
    let locked = cluster.connect("postgres").await;
    locked.batch_execute("BEGIN; LOCK TABLE mart.t IN SHARE MODE").await.unwrap();
    plain.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
    let told = empty_table(&plain, &name).await.unwrap_err().to_string();
    assert!(told.contains("lock timeout") && !told.contains("foreign keys"), "{told}");
}
