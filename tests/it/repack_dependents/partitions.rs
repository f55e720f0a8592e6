//! Partitions of every sort come back to their place: dump, rows and sequences are the same after as before.

use repcloud::model::TableName;

use super::world::World;

async fn come_back(cases: &[(&str, &str)]) {
    let world = World::start().await;
    for (name, schema) in cases {
        let case = world.case(name).await;
        case.app.exec(schema).await;
        case.repack(&TableName::new("public", "t")).await;
    }
}

#[tokio::test]
async fn bounds() {
    come_back(&[
        (
            "range",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TABLE t2 PARTITION OF p FOR VALUES FROM (100) TO (200); INSERT INTO p SELECT i, 'x' FROM generate_series(0, 199) i",
        ),
        (
            "list_with_null",
            "CREATE TABLE p (k text, v int) PARTITION BY LIST (k); CREATE TABLE t PARTITION OF p FOR VALUES IN ('a', NULL); \
             INSERT INTO p VALUES ('a', 1), (NULL, 2)",
        ),
        (
            "hash",
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY HASH (id); CREATE TABLE t PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
             CREATE TABLE t2 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO p SELECT generate_series(0, 199)",
        ),
        (
            "beside_a_default",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TABLE d PARTITION OF p DEFAULT; INSERT INTO p SELECT i, 'x' FROM generate_series(0, 199) i",
        ),
        (
            "a_default",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t2 PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TABLE t PARTITION OF p DEFAULT; INSERT INTO p SELECT i, 'x' FROM generate_series(0, 199) i",
        ),
        (
            "a_default_alone",
            "CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE t PARTITION OF p DEFAULT; INSERT INTO p VALUES (1)",
        ),
        (
            "nested",
            "CREATE TABLE g (a int, b text, c date) PARTITION BY RANGE (a); CREATE TABLE p (gone int, b text, a int, c date) PARTITION BY LIST (b); \
             ALTER TABLE p DROP gone; ALTER TABLE g ATTACH PARTITION p FOR VALUES FROM (0) TO (10); \
             CREATE TABLE t PARTITION OF p FOR VALUES IN ('x'); INSERT INTO g VALUES (1, 'x', '2020-01-01'), (2, 'x', NULL)",
        ),
        (
            "by_expression",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (lower(v), id); \
             CREATE TABLE t PARTITION OF p FOR VALUES FROM (MINVALUE, MINVALUE) TO ('m', 5); INSERT INTO p VALUES (1, 'A'), (4, 'm')",
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_a_partition_inherits() {
    come_back(&[
        (
            "indexes",
            "CREATE TABLE p (id int, a int, b text, PRIMARY KEY (id), UNIQUE (id, a)) PARTITION BY RANGE (id); CREATE INDEX pi ON p (lower(b)); \
             CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE INDEX own ON t (a) WHERE a > 1; \
             ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey; ALTER TABLE t CLUSTER ON t_pkey; INSERT INTO p SELECT i, i, 'x' FROM generate_series(1, 50) i",
        ),
        (
            "attached_with_own_names",
            "CREATE TABLE p (id int PRIMARY KEY, a int NOT NULL CHECK (a > 0), s serial) PARTITION BY RANGE (id); CREATE INDEX pi ON p (a); \
             CREATE TABLE t (s int NOT NULL, a int NOT NULL DEFAULT 7, gone text, id int NOT NULL, CONSTRAINT mine PRIMARY KEY (id), \
               CONSTRAINT p_a_check CHECK (a > 0), CHECK (a < 1000)); CREATE INDEX odd ON t (a); ALTER TABLE t DROP gone; \
             ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (0) TO (100); COMMENT ON INDEX odd IS 'odd'; INSERT INTO p VALUES (1, 2), (3, 4)",
        ),
        (
            "row_triggers",
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TABLE p (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TRIGGER up AFTER UPDATE ON p FOR EACH ROW EXECUTE FUNCTION tf(); CREATE TRIGGER off BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION tf(); \
             CREATE TRIGGER always AFTER DELETE ON p FOR EACH ROW EXECUTE FUNCTION tf(); ALTER TABLE t DISABLE TRIGGER off; ALTER TABLE t ENABLE ALWAYS TRIGGER always; \
             CREATE TRIGGER mine BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tf(); COMMENT ON TRIGGER up ON t IS 'up'; INSERT INTO p VALUES (1, 1)",
        ),
        (
            "outgoing_foreign_key",
            "CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r SELECT generate_series(1, 50); \
             CREATE TABLE p (id int PRIMARY KEY, r int REFERENCES r ON DELETE CASCADE, q int) PARTITION BY RANGE (id); \
             CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); ALTER TABLE t ADD CONSTRAINT q FOREIGN KEY (q) REFERENCES r; \
             COMMENT ON CONSTRAINT p_r_fkey ON t IS 'fk'; INSERT INTO p SELECT i, i, i FROM generate_series(1, 50) i",
        ),
        (
            "the_leaf_is_referenced",
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TABLE c (id int REFERENCES t); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
        ),
        (
            "views_policies_and_grants",
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE VIEW whole AS SELECT * FROM p; CREATE VIEW part AS SELECT id FROM t; GRANT SELECT ON t TO reader; ALTER TABLE t ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY pol ON t USING (id > 0); CREATE STATISTICS st ON id, v FROM t; INSERT INTO p VALUES (1, 'a')",
        ),
    ])
    .await;
}

#[tokio::test]
async fn publications_of_the_partitioned_table_and_of_the_partition() {
    let world = World::start().await;
    let case = world.case("published").await;
    case.app
        .exec(
            "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE PUBLICATION by_root FOR TABLE p WITH (publish_via_partition_root = true); CREATE PUBLICATION by_leaf FOR TABLE p; \
             CREATE PUBLICATION leaf_only FOR TABLE t (id) WHERE (id > 5); INSERT INTO p VALUES (1, 'a')",
        )
        .await;
    let listed =
        "SELECT pubname, tablename, attnames::text, rowfilter FROM pg_publication_tables ORDER BY 1, 2";
    let before = case.admin.query_text(listed).await;
    case.repack(&TableName::new("public", "t")).await;
    assert_eq!(case.admin.query_text(listed).await, before);
}

#[tokio::test]
async fn the_partition_constraint_spares_the_scan() {
    let world = World::start().await;
    let case = world.case("scan").await;
    case.app
        .exec(
            "CREATE TABLE g (a int, b text) PARTITION BY RANGE (a); CREATE TABLE p PARTITION OF g FOR VALUES FROM (0) TO (10) PARTITION BY LIST (b); \
             CREATE TABLE t PARTITION OF p FOR VALUES IN ('x'); INSERT INTO g VALUES (1, 'x')",
        )
        .await;
    case.admin.exec("ALTER DATABASE scan SET log_min_messages = debug1").await;
    case.repack(&TableName::new("public", "t")).await;
    let log = world.cluster.log_text();
    assert!(log.contains("partition constraint for table \"t\" is implied by existing constraints"), "{log}");
}
