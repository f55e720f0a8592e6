//! Everything of the whitelist on one table, twice in a row; and names that need care.

use repcloud::model::TableName;
use repcloud::repack::plan::{KeyKind, PlanOptions};

use super::world::World;

pub(crate) const EVERYTHING: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE);
    INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 30) i;
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''seen''; RETURN NEW; END';
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE SEQUENCE free;
    CREATE TABLE t (
        id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 2) PRIMARY KEY,
        gone text,
        serial serial,
        odd int DEFAULT nextval('free'),
        customer int REFERENCES customers ON DELETE CASCADE,
        email text REFERENCES customers (email) DEFERRABLE INITIALLY DEFERRED,
        up bigint REFERENCES t,
        span int4range,
        amount numeric(12,2) DEFAULT 1.50 CHECK (amount > 0),
        twice numeric GENERATED ALWAYS AS (amount * 2) STORED,
        doc jsonb DEFAULT '{}',
        note text COLLATE \"C\",
        UNIQUE (serial, odd) DEFERRABLE,
        EXCLUDE USING gist (span WITH &&)
    ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false);
    ALTER TABLE t DROP COLUMN gone;
    INSERT INTO t (customer, email, span) SELECT i, 'c' || i, int4range(i, i + 1) FROM generate_series(1, 30) i;
    DELETE FROM t WHERE serial % 3 = 0; COMMIT;
    ALTER TABLE t ADD CONSTRAINT later CHECK (amount > 2) NOT VALID,
        ALTER doc SET STATISTICS 300, ALTER note SET STORAGE EXTERNAL, ALTER note SET (n_distinct = -1);
    CREATE INDEX by_note ON t (lower(note), amount DESC) WHERE amount > 1;
    CREATE INDEX by_doc ON t USING gin (doc);
    CREATE UNIQUE INDEX by_pair ON t (id, serial) INCLUDE (note);
    ALTER INDEX by_note ALTER COLUMN 1 SET STATISTICS 222;
    ALTER TABLE t CLUSTER ON by_pair;
    ALTER TABLE t REPLICA IDENTITY USING INDEX by_pair;
    CREATE STATISTICS pairs (dependencies, mcv) ON customer, email FROM t;
    CREATE TABLE lines (n int PRIMARY KEY, t_id bigint REFERENCES t ON DELETE CASCADE);
    INSERT INTO lines VALUES (1, 100), (2, 102);
    CREATE TRIGGER stamp BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE TRIGGER off AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION nothing();
    ALTER TABLE t DISABLE TRIGGER off;
    CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE TABLE counted (n int DEFAULT nextval('t_id_seq'), m int DEFAULT nextval('t_serial_seq'));
    CREATE CONSTRAINT TRIGGER from_t AFTER INSERT ON counted FROM t FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE VIEW v1 AS SELECT id, amount, note FROM t WHERE amount > 0 WITH CHECK OPTION;
    CREATE VIEW v2 WITH (security_barrier) AS SELECT v1.id, t.email FROM v1 JOIN t USING (id);
    CREATE VIEW v3 AS SELECT * FROM v2;
    CREATE MATERIALIZED VIEW m1 AS SELECT customer, count(*) AS n FROM t GROUP BY customer;
    CREATE UNIQUE INDEX m1_customer ON m1 (customer); GRANT SELECT ON m1 TO reader; COMMENT ON MATERIALIZED VIEW m1 IS 'counted';
    CREATE MATERIALIZED VIEW m2 AS SELECT sum(n) AS n FROM m1; CREATE MATERIALIZED VIEW m3 AS SELECT id FROM v1 WITH NO DATA;
    CREATE VIEW v4 AS SELECT m1.n, t.id FROM m1 JOIN t USING (customer); GRANT SELECT ON v4 TO reader;
    CREATE TABLE audit (id bigint, note text);
    CREATE RULE kept AS ON DELETE TO t WHERE old.amount > 1000000 DO INSTEAD NOTHING;
    CREATE RULE told AS ON UPDATE TO t DO ALSO INSERT INTO audit VALUES (old.id, old.note); ALTER TABLE t DISABLE RULE told;
    CREATE RULE by_view AS ON INSERT TO v3 DO INSTEAD INSERT INTO t (amount) VALUES (9);
    ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON t FOR SELECT USING (true);
    CREATE POLICY written ON t FOR INSERT TO writer WITH CHECK (amount < (SELECT max(x.id) FROM t AS x));
    CREATE POLICY of_audit ON audit USING (id IN (SELECT id FROM t));
    COMMENT ON RULE told ON t IS 'told'; COMMENT ON POLICY written ON t IS 'written';
    CREATE FUNCTION total() RETURNS numeric LANGUAGE sql RETURN (SELECT sum(amount) FROM t);
    CREATE PROCEDURE forget(n bigint) LANGUAGE sql BEGIN ATOMIC DELETE FROM t WHERE id = n; END;
    GRANT EXECUTE ON PROCEDURE forget(bigint) TO writer; COMMENT ON FUNCTION total() IS 'total';
    CREATE PUBLICATION pub FOR TABLE t (id, serial, amount, note), customers;
    GRANT SELECT ON t, v1, v2, v3 TO reader; GRANT INSERT, UPDATE ON t TO writer WITH GRANT OPTION;
    GRANT SELECT (id, note) ON t TO writer; GRANT INSERT ON counted TO writer; GRANT USAGE ON SEQUENCE t_id_seq, t_serial_seq, free TO writer;
    COMMENT ON TABLE t IS 'everything'; COMMENT ON COLUMN t.note IS 'note'; COMMENT ON INDEX by_doc IS 'doc';
    COMMENT ON CONSTRAINT later ON t IS 'later'; COMMENT ON TRIGGER off ON t IS 'off'; COMMENT ON STATISTICS pairs IS 'pairs';
    COMMENT ON CONSTRAINT lines_t_id_fkey ON lines IS 'in'; COMMENT ON CONSTRAINT t_up_fkey ON t IS 'self'";

#[tokio::test]
async fn everything_at_once_again_and_again() {
    let world = World::start().await;
    let case = world.case("everything").await;
    case.app.exec(EVERYTHING).await;
    for round in 0..2 {
        // What they hold is compared, and the writer has written.
        case.app.exec("REFRESH MATERIALIZED VIEW m1; REFRESH MATERIALIZED VIEW m2").await;
        let steps = case.repack(&TableName::new("public", "t")).await;
        assert_eq!(steps.key.kind, KeyKind::UniqueIndex, "round {round}");
        assert_eq!(steps.key.columns, ["id", "serial"]);
        assert!(!steps.copy_columns.contains(&"twice".to_owned()), "{:?}", steps.copy_columns);
        assert!(steps.indexes.iter().any(|index| index.is_key && index.name == "by_pair"));
        let order: Vec<&str> = steps.locks.iter().map(|lock| lock.object.as_str()).collect();
        assert_eq!(
            order,
            [
                "view public.v2",
                "view public.v4",
                "view public.v1",
                "view public.v3",
                "materialized view public.m2",
                "materialized view public.m1",
                "table public.audit",
                "table public.counted",
                "table public.lines",
                "table public.t",
                "sequence public.t_id_seq",
                "sequence public.t_serial_seq",
                "table public.customers",
            ],
            "readers and writers take them in this order"
        );
        let writer = world.user("everything", "writer").await;
        writer.exec("INSERT INTO t (customer, amount, span) VALUES (1, 5, NULL)").await;
        writer.exec("INSERT INTO counted DEFAULT VALUES").await;
        let drawn = "SELECT (SELECT max(n) FROM counted) = last_value FROM t_id_seq";
        assert_eq!(case.admin.value(drawn).await, "t");
        assert_eq!(writer.value("SELECT note FROM t ORDER BY id DESC LIMIT 1").await, "seen");
        let reader = world.user("everything", "reader").await;
        reader
            .exec("SELECT * FROM v3; SELECT * FROM v1; SELECT * FROM v4; SELECT * FROM m1; SELECT * FROM t")
            .await;
    }
}

#[tokio::test]
async fn names_that_need_care() {
    let world = World::start().await;
    let long = "ä".repeat(31);
    for (number, schema, table, column) in [
        (1, "public", "select", "order"),
        (2, "Odd \"schema\"", "a \"table\" ON x.y", "MiXed"),
        (3, "public", long.as_str(), long.as_str()),
        (4, "s.t", "u.v'w\\", "; DROP TABLE x; --"),
        (5, "user", "between", "setof"),
    ] {
        let case = world.case(&format!("names_{number}")).await;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (s, t, c) = (quoted(schema), quoted(table), quoted(column));
        let key = quoted(&format!("{column}k"));
        let index = quoted(&format!("i {table}").chars().take(25).collect::<String>());
        case.app
            .exec(&format!(
                "CREATE SCHEMA IF NOT EXISTS {s}; SET search_path = {s}; \
                 CREATE FUNCTION {t}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TABLE {t} ({c} int GENERATED ALWAYS AS IDENTITY CONSTRAINT {key} PRIMARY KEY, n int, u serial, \
                   up int CONSTRAINT \"up {index_name}\" REFERENCES {t}, CONSTRAINT \"chk'\" CHECK ({c} > 0)); \
                 INSERT INTO {t} (n) SELECT generate_series(1, 9); \
                 CREATE INDEX {index} ON {t} ({c}, (n + 1)) WHERE n > 2; COMMENT ON COLUMN {t}.{c} IS 'it''s'; \
                 CREATE STATISTICS {c} ON n, {c} FROM {t}; CREATE TABLE \"Child\" (a int REFERENCES {t}); \
                 CREATE VIEW \"View of {view}\" AS SELECT {c}, n FROM {t}; \
                 CREATE TRIGGER {c} BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}(); \
                 GRANT SELECT ({c}) ON {t} TO \"Big Role\"; CREATE PUBLICATION {t} FOR TABLE {t} ({c})",
                index_name = number,
                view = number,
            ))
            .await;
        case.repack(&TableName::new(schema, table)).await;
    }
}

#[tokio::test]
async fn an_invalid_index_is_left_out() {
    let world = World::start().await;
    let case = world.case("invalid").await;
    case.app.exec("CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1), (1, 1)").await;
    assert!(case.app.try_exec("CREATE UNIQUE INDEX CONCURRENTLY broken ON t (id)").await.is_err());
    let name = TableName::new("public", "t");
    let inventory = case.inventory(&name).await;
    assert!(inventory.indexes.iter().any(|index| index.name == "broken" && !index.valid));
    let steps =
        case.repack_with(&name, &PlanOptions { fillfactor: Some(90), ..PlanOptions::default() }).await;
    assert!(steps.indexes.is_empty());
    let left = case.app.value("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'").await;
    assert_eq!(left, "0");
    assert_eq!((steps.key.kind, steps.key.columns), (KeyKind::Full, vec!["id".to_owned(), "v".to_owned()]));
    let identity = steps.key.identity.unwrap();
    case.app.exec(&identity.set).await;
    case.app.exec(&identity.restore).await;
}
