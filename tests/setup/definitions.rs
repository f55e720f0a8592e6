//! Reading definitions, and making target tables from them.

use repcloud::catalog::ddl::{Requirement, TargetDdl, TargetOptions, target_ddl};
use repcloud::catalog::{TableDef, TableKind, list_tables, read_table, read_tables, read_types};
use repcloud::model::TableName;
use tokio_postgres::Client;

use crate::cluster::Cluster;

const SCHEMA: &str = r#"
CREATE SCHEMA "App Data";
CREATE EXTENSION citext SCHEMA public;
CREATE EXTENSION btree_gist SCHEMA public;
CREATE TYPE "App Data"."Mood" AS ENUM ('it''s fine', 'back\slash', 'x');
CREATE DOMAIN "App Data".code AS varchar(3) NOT NULL CHECK (VALUE <> 'bad');
CREATE DOMAIN "App Data".codes AS "App Data".code[];
CREATE TYPE "App Data".pair AS (a int, "B b" "App Data"."Mood", c text COLLATE "C");
CREATE TYPE "App Data".jpair AS (a int, j json);
CREATE TYPE "App Data".span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = "App Data".spans);
CREATE TABLE "App Data"."Order Items" (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "Select" integer NOT NULL DEFAULT 7,
  gone integer,
  mood "App Data"."Mood", moods "App Data"."Mood"[],
  code "App Data".code, codes "App Data".codes,
  pair "App Data".pair, jpair "App Data".jpair,
  span "App Data".span, spans "App Data".spans,
  price numeric(10,2), doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
  c5 char(5), v3 varchar(3), b3 bit(3), q "char",
  name text COLLATE "C", nick public.citext,
  j json, jb jsonb, p point, x xml, js json[], ts timestamptz, during tstzrange,
  active boolean,
  CONSTRAINT positive CHECK (price > 0),
  CONSTRAINT one_name UNIQUE (name) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT "no overlap" EXCLUDE USING gist ("Select" WITH =, during WITH &&) WHERE (active) DEFERRABLE
);
ALTER TABLE "App Data"."Order Items" DROP COLUMN gone;
ALTER TABLE "App Data"."Order Items" ADD CONSTRAINT "later" CHECK ("Select" > 0) NOT VALID;
CREATE UNIQUE INDEX "odd WHERE" ON "App Data"."Order Items" (lower(name) text_pattern_ops, v3 DESC NULLS LAST)
  INCLUDE (b3) WHERE active OR v3 = ' WHERE ';
CREATE INDEX ON "App Data"."Order Items" USING gin (jb) WITH (fastupdate = off);
CREATE UNIQUE INDEX ON "App Data"."Order Items" (ts) WHERE active;
CREATE TABLE "App Data".other (id int PRIMARY KEY REFERENCES "App Data".other ON DELETE CASCADE, d serial);
CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON "App Data".other FOR EACH ROW EXECUTE FUNCTION public.nothing();
ALTER TABLE "App Data".other ENABLE ROW LEVEL SECURITY;
CREATE TABLE "App Data".parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE "App Data".parts_1 PARTITION OF "App Data".parts FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
CREATE TABLE "App Data"."parts_1 A" PARTITION OF "App Data".parts_1 DEFAULT;
CREATE TABLE "App Data".parts_2 PARTITION OF "App Data".parts DEFAULT;
CREATE VIEW "App Data".v AS SELECT 1 AS one;
"#;

fn items() -> TableName {
    TableName::new("App Data", "Order Items")
}

async fn source_and_target(cluster: &Cluster) -> (Client, Client) {
    cluster.create_database("source").await;
    cluster.create_database("target").await;
    let source = cluster.connect("source").await;
    source.batch_execute("SET search_path = public, pg_catalog").await.unwrap();
    source.batch_execute(SCHEMA).await.unwrap();
    (source, cluster.connect("target").await)
}

async fn ddl_of(client: &Client, name: &TableName, options: &TargetOptions) -> TargetDdl {
    let table = read_table(client, name).await.unwrap().unwrap();
    let oids: Vec<u32> = table.columns.iter().map(|c| c.type_oid).collect();
    target_ddl(&table, &read_types(client, &oids).await.unwrap(), options).unwrap()
}

async fn make(target: &Client, ddl: &TargetDdl) {
    let objects = ddl.objects.iter().map(|o| &o.sql);
    let key = ddl.key.iter().map(|s| &s.sql);
    let after = ddl.after_rows.iter().map(|s| &s.sql);
    let statements = objects.chain([&ddl.create_table]).chain(key).chain(&ddl.settings).chain(after);
    for sql in statements {
        target.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
}

fn column<'a>(table: &'a TableDef, name: &str) -> &'a repcloud::catalog::ColumnDef {
    table.column(name).unwrap_or_else(|| panic!("no column {name}"))
}

#[tokio::test]
async fn definitions_are_complete_whatever_the_search_path_is() {
    let cluster = Cluster::start().await;
    let (source, _) = source_and_target(&cluster).await;
    source.batch_execute("SET search_path = \"App Data\", public").await.unwrap();
    let wanted = [
        TableName::new("App Data", "parts"),
        TableName::new("App Data", "missing"),
        items(),
        TableName::new("App Data", "other"),
        TableName::new("App Data", "v"),
        TableName::new("App Data", "parts"),
    ];
    let tables = read_tables(&source, &wanted).await.unwrap();
    let names: Vec<&str> = tables.iter().map(|t| t.name.table.as_str()).collect();
    assert_eq!(names, ["parts", "Order Items", "other", "v"]);
    let [parts, items, other, view] = &tables[..] else { unreachable!() };

    assert_eq!(parts.kind, TableKind::Partitioned);
    let leaves: Vec<&str> = parts.leaves.iter().map(|l| l.table.as_str()).collect();
    assert_eq!(leaves, ["parts_1 A", "parts_2"]);
    assert_eq!(parts.primary_key().unwrap(), ["id", "k"]);
    assert_eq!(view.kind, TableKind::Other('v'));
    assert_eq!(other.row_security, (true, false));
    assert_eq!((other.triggers.len(), other.triggers[0].row), (1, true));
    let foreign = other.constraints.iter().find(|c| c.kind == 'f').unwrap();
    assert_eq!((foreign.references.as_ref(), foreign.actions), (Some(&other.name), Some(('c', 'a'))));
    assert_eq!(other.constraints.iter().find(|c| c.kind == 'p').unwrap().actions, None);
    assert!(other.column("d").unwrap().default.as_ref().unwrap().contains("nextval"));

    for (name, type_sql, input, equality) in [
        ("mood", "\"App Data\".\"Mood\"", "\"App Data\".\"Mood\"", true),
        ("moods", "\"App Data\".\"Mood\"[]", "\"App Data\".\"Mood\"[]", true),
        ("code", "\"App Data\".code", "character varying", true),
        ("codes", "\"App Data\".codes", "\"App Data\".code[]", true),
        ("pair", "\"App Data\".pair", "\"App Data\".pair", true),
        ("jpair", "\"App Data\".jpair", "\"App Data\".jpair", false),
        ("span", "\"App Data\".span", "\"App Data\".span", true),
        ("spans", "\"App Data\".spans", "\"App Data\".spans", true),
        ("price", "numeric(10,2)", "numeric", true),
        ("c5", "character(5)", "bpchar", true),
        ("v3", "character varying(3)", "character varying", true),
        ("b3", "bit(3)", "\"bit\"", true),
        ("q", "\"char\"", "\"char\"", true),
        ("nick", "public.citext", "public.citext", true),
        ("j", "json", "json", false),
        ("js", "json[]", "json[]", false),
        ("jb", "jsonb", "jsonb", true),
        ("p", "point", "point", false),
        ("x", "xml", "xml", false),
        ("during", "tstzrange", "tstzrange", true),
    ] {
        let c = column(items, name);
        assert_eq!(
            (c.type_sql.as_str(), c.input_type_sql.as_str(), c.has_equality),
            (type_sql, input, equality),
            "{name}"
        );
    }
    assert_eq!(column(items, "name").collation.as_deref(), Some("pg_catalog.\"C\""));
    assert_eq!(column(items, "mood").attnum, 4, "a dropped column keeps its number");
    assert!(column(items, "doubled").generated.is_some());
    let odd = items.indexes.iter().find(|i| i.name == "odd WHERE").unwrap();
    assert_eq!(odd.columns, [None, Some("v3".to_owned())]);
    assert_eq!(odd.referenced, ["v3", "b3", "name", "active"]);
    assert!(!items.constraints.iter().find(|c| c.name == "later").unwrap().validated);

    let path: String = source.query_one("SHOW search_path", &[]).await.unwrap().get(0);
    assert_eq!(path, "\"App Data\", public", "the session's own path is put back");
    let listed = list_tables(&source, "App Data").await.unwrap();
    let listed: Vec<&str> = listed.iter().map(|(n, _)| n.table.as_str()).collect();
    assert_eq!(listed, ["Order Items", "other", "parts", "v"]);
}

#[tokio::test]
async fn a_target_made_from_a_source_reads_like_it() {
    let cluster = Cluster::start().await;
    let (source, target) = source_and_target(&cluster).await;
    let ddl = ddl_of(&source, &items(), &TargetOptions::named(items())).await;
    let citext = Requirement::Type { name: "public.citext".into(), extension: Some("citext".into()) };
    assert!(ddl.requires.contains(&citext), "{:?}", ddl.requires);
    target
        .batch_execute("CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION btree_gist SCHEMA public")
        .await
        .unwrap();
    make(&target, &ddl).await;
    let from = read_table(&source, &items()).await.unwrap().unwrap();
    let made = read_table(&target, &items()).await.unwrap().unwrap();
    let shape = |t: &TableDef| -> Vec<String> {
        let line = |c: &repcloud::catalog::ColumnDef| {
            format!("{} {} {} {:?} {:?}", c.name, c.type_sql, c.not_null, c.collation, c.generated)
        };
        t.columns.iter().map(line).collect()
    };
    assert_eq!(shape(&made), shape(&from));
    assert_eq!(made.indexes, from.indexes);
    assert_eq!(made.constraints, from.constraints);
    assert!(made.columns.iter().all(|c| c.default.is_none()));
    assert_eq!(column(&made, "id").identity, repcloud::catalog::IdentityKind::ByDefault);
}

#[tokio::test]
async fn logdel_constrains_live_rows_only_and_selected_columns_take_their_indexes_along() {
    let cluster = Cluster::start().await;
    let (source, target) = source_and_target(&cluster).await;
    target
        .batch_execute("CREATE ROLE mart; CREATE ROLE readers; CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION btree_gist SCHEMA public")
        .await
        .unwrap();
    let mut options = TargetOptions::named(TableName::new("mart", "Items"));
    options.deleted_column = Some("repcloud_source_deleted".into());
    options.owner = Some("mart".into());
    options.grants = vec!["select to readers".into()];
    let mut ddl = ddl_of(&source, &items(), &options).await;
    // The owner needs CREATE on a schema that does not exist yet.
    ddl.objects[0].sql.push_str("; GRANT CREATE, USAGE ON SCHEMA mart TO mart");
    make(&target, &ddl).await;
    let made = read_table(&target, &options.name).await.unwrap().unwrap();
    assert_eq!(made.owner, "mart");
    let live = "repcloud_source_deleted IS NULL";
    for index in made.indexes.iter().filter(|i| (i.unique || i.exclusion) && !i.primary) {
        assert!(index.predicate.as_ref().is_some_and(|p| p.contains(live)), "{index:?}");
    }
    assert_eq!(made.indexes.len(), 6);
    assert!(made.indexes.iter().any(|i| i.name == "Items_odd WHERE"));
    assert!(made.constraints.iter().any(|c| c.kind == 'x' && c.deferrable));

    let mut few = TargetOptions::named(TableName::new("mart", "few"));
    few.columns = Some(vec!["price".into(), "id".into(), "jb".into()]);
    few.key = Some(vec!["id".into(), "price".into()]);
    let ddl = ddl_of(&source, &items(), &few).await;
    make(&target, &ddl).await;
    let made = read_table(&target, &few.name).await.unwrap().unwrap();
    assert_eq!(made.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "price", "jb"]);
    let indexes: Vec<&str> = made.indexes.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(indexes, ["few_pkey", "few_jb_idx", "few_repcloud_key"]);
    assert!(ddl.left_out.iter().any(|l| l.object == "index one_name"));
    let names: Vec<&str> = made.constraints.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["few_pkey", "positive"]);

    let root = TableName::new("App Data", "parts");
    make(&target, &ddl_of(&source, &root, &TargetOptions::named(root.clone())).await).await;
    let made = read_table(&target, &root).await.unwrap().unwrap();
    assert_eq!((made.kind, made.primary_key()), (TableKind::Ordinary, Some(vec!["id".into(), "k".into()])));
}
