//! Plain inheritance comes back: what is a table's own stays its own, what it inherits stays inherited.

use repcloud::model::TableName;
use repcloud::repack::plan::PlanOptions;

use super::world::World;

#[tokio::test]
async fn children_and_parents() {
    let world = World::start().await;
    for (name, schema) in [
        (
            "child",
            "CREATE TABLE p (id int NOT NULL, a text DEFAULT 'p' CHECK (a <> ''), g int GENERATED ALWAYS AS (id * 2) STORED); \
             CREATE TABLE t (own int DEFAULT 3, CHECK (own > 0)) INHERITS (p); ALTER TABLE p ADD later text COLLATE \"C\"; \
             ALTER TABLE t ALTER a SET DEFAULT 't', ALTER a SET STORAGE EXTERNAL, ADD last int; CREATE INDEX ON t (own); \
             INSERT INTO t (id, later) SELECT i, 'x' FROM generate_series(1, 40) i; INSERT INTO p (id) VALUES (1)",
        ),
        (
            "child_with_toast_options",
            "CREATE TABLE p (id int PRIMARY KEY, a text); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (p) \
               WITH (fillfactor = 70, toast.autovacuum_vacuum_threshold = 5); COMMENT ON COLUMN t.a IS 'a'; INSERT INTO t VALUES (1, 'x')",
        ),
        (
            "child_by_alter",
            "CREATE TABLE p (id int, a text, CONSTRAINT k CHECK (id > 0)); CREATE TABLE t (a text, gone int, id int, CONSTRAINT k CHECK (id > 0)); \
             ALTER TABLE t DROP gone; ALTER TABLE t INHERIT p; INSERT INTO t VALUES ('x', 1)",
        ),
        (
            "parent",
            "CREATE TABLE t (id int PRIMARY KEY, a text DEFAULT 't', CHECK (id > 0), CHECK (id < 999) NO INHERIT); \
             CREATE TABLE c1 (b int) INHERITS (t); CREATE TABLE c2 (a text DEFAULT 'mine') INHERITS (t); CREATE VIEW w AS SELECT * FROM t; \
             INSERT INTO t VALUES (1, 'x'); INSERT INTO c1 VALUES (2, 'y', 3); INSERT INTO c2 VALUES (3, 'z')",
        ),
        (
            "between",
            "CREATE TABLE p (id int NOT NULL); CREATE TABLE t (s serial) INHERITS (p); CREATE TABLE c (z int) INHERITS (t); \
             INSERT INTO p VALUES (1); INSERT INTO t VALUES (2); INSERT INTO c VALUES (3)",
        ),
    ] {
        let case = world.case(name).await;
        case.app.exec(schema).await;
        case.repack(&TableName::new("public", "t")).await;
    }
}

#[tokio::test]
async fn a_child_can_have_its_columns_in_another_order() {
    let world = World::start().await;
    let case = world.case("ordered").await;
    case.app
        .exec("CREATE TABLE p (a bool, b bigint); CREATE TABLE t (c int) INHERITS (p); INSERT INTO t VALUES (true, 2, 3)")
        .await;
    let column_order = ["b", "c", "a"].map(str::to_owned).to_vec();
    case.repack_with(&TableName::new("public", "t"), &PlanOptions { column_order, ..PlanOptions::default() })
        .await;
    let rows = "SELECT b, c, a::text FROM t UNION ALL SELECT b, 0, a::text FROM p";
    assert_eq!(case.admin.query_text(rows).await.len(), 2);
}
