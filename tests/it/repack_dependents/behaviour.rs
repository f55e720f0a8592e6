//! After an exchange the database acts as before: sequences go on, keys and checks hold, triggers fire, the old table disturbs nobody.

use repcloud::model::TableName;
use repcloud::repack::fingerprint::fingerprint;
use repcloud::repack::plan::{PlanOptions, plan};

use super::world::{World, exec};

fn t() -> TableName {
    TableName::new("public", "t")
}

#[tokio::test]
async fn sequences_keys_and_triggers_work() {
    let world = World::start().await;
    let case = world.case("works").await;
    case.app
        .exec(
            "CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r VALUES (1), (2), (3); \
             CREATE TABLE log (what text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
               'BEGIN INSERT INTO public.log VALUES (TG_OP || '' '' || TG_TABLE_SCHEMA); RETURN NULL; END'; \
             CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (INCREMENT 10) PRIMARY KEY, s serial, \
               r int REFERENCES r, v int CHECK (v > 0)); INSERT INTO t (r, v) VALUES (1, 1), (2, 2); \
             CREATE TABLE c (t int REFERENCES t); INSERT INTO c VALUES (1); \
             CREATE TRIGGER tell AFTER INSERT OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION tell(); \
             CREATE VIEW w AS SELECT id, s, r, v FROM t",
        )
        .await;
    case.repack(&t()).await;
    let app = &case.app;
    assert_eq!(app.value("SELECT count(*) FROM log").await, "0", "the copy fired no trigger");
    assert_eq!(app.value("INSERT INTO t (r, v) VALUES (3, 3) RETURNING id || ' ' || s").await, "21 3");
    assert_eq!(app.value("INSERT INTO w (r, v) VALUES (3, 4) RETURNING id || ' ' || s").await, "31 4");
    assert_eq!(app.value("SELECT string_agg(what, ',') FROM log").await, "INSERT public,INSERT public");
    for (statement, code) in [
        ("INSERT INTO t (id, v) VALUES (7, 7)", "428C9"),
        ("INSERT INTO t (v) VALUES (0)", "23514"),
        ("INSERT INTO t (r, v) VALUES (9, 1)", "23503"),
        ("DELETE FROM t WHERE id = 1", "23503"),
        ("INSERT INTO c VALUES (5)", "23503"),
        ("DELETE FROM r WHERE id = 3", "23503"),
        ("UPDATE t SET id = DEFAULT WHERE id = 1", "23503"),
    ] {
        let error = app.try_exec(statement).await.expect_err(statement);
        assert!(error.starts_with(code), "{statement}: {error}");
    }
    app.exec("DELETE FROM t WHERE id = 11; DELETE FROM r WHERE id = 2").await;
    let unvalidated = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated";
    assert_eq!(app.value(unvalidated).await, "0");
}

#[tokio::test]
async fn changes_of_the_table_show_in_the_fingerprint() {
    let world = World::start().await;
    let case = world.case("changes").await;
    case.app
        .exec(
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE r (id int PRIMARY KEY); \
             CREATE TABLE t (id int PRIMARY KEY, a int, b text); CREATE VIEW v AS SELECT id FROM t; CREATE TABLE c (a int)",
        )
        .await;
    let mut before = fingerprint(&case.inventory(&t()).await);
    for (statement, object) in [
        ("ALTER TABLE t ADD COLUMN z int", "column public.t.z"),
        ("ALTER TABLE t ALTER a TYPE bigint", "column public.t.a"),
        ("ALTER TABLE t ALTER a SET DEFAULT 4", "column public.t.a"),
        ("ALTER TABLE t ALTER b SET STATISTICS 10", "column public.t.b"),
        ("ALTER TABLE t SET (fillfactor = 50)", "options of table public.t"),
        ("CREATE INDEX i ON t (a)", "index public.i"),
        ("GRANT SELECT ON t TO reader", "grants of table public.t"),
        ("GRANT SELECT (a) ON t TO writer", "column public.t.a"),
        ("COMMENT ON TABLE t IS 'x'", "comment of table public.t"),
        (
            "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES r NOT VALID",
            "foreign key f on public.t",
        ),
        ("ALTER TABLE t VALIDATE CONSTRAINT f", "validity of foreign key f on public.t"),
        ("ALTER TABLE c ADD CONSTRAINT g FOREIGN KEY (a) REFERENCES t", "foreign key g on public.c"),
        ("CREATE OR REPLACE VIEW v AS SELECT id FROM t WHERE id > 0", "view public.v"),
        ("CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION tf()", "trigger x on public.t"),
        ("ALTER TABLE t DISABLE TRIGGER x", "trigger x on public.t"),
        ("CREATE RULE ru AS ON DELETE TO t DO INSTEAD NOTHING", "rule ru on public.t"),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "replica identity of table public.t"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "row security of table public.t"),
        ("ALTER TABLE t FORCE ROW LEVEL SECURITY", "force row security of table public.t"),
        ("CREATE POLICY po ON t USING (id > 0)", "policy po on public.t"),
        ("ALTER POLICY po ON t TO reader", "policy po on public.t"),
        ("ALTER TABLE t DISABLE RULE ru", "rule ru on public.t"),
        (
            "CREATE FUNCTION at() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM t)",
            "function public.at()",
        ),
        ("CREATE MATERIALIZED VIEW m AS SELECT id FROM t", "materialized view public.m"),
        ("CREATE INDEX mi ON m (id)", "materialized view public.m"),
        ("GRANT SELECT (id) ON m TO writer", "materialized view public.m"),
        ("CREATE DOMAIN d AS t", "type public.d"),
        ("ALTER TABLE t OWNER TO team", "owner of table public.t"),
    ] {
        case.app.exec(statement).await;
        let after = fingerprint(&case.inventory(&t()).await);
        let differences = before.differences(&after);
        assert!(differences.iter().any(|name| name == object), "{statement}: {differences:?}");
        let validity = object.starts_with("validity");
        assert_eq!(before.differences_in_exchange(&after).is_empty(), validity, "{statement}");
        before = after;
    }
    // Whether a view is filled is no change of the table: a REFRESH while the repack waits is followed, and compared in the exchange.
    case.app.exec("REFRESH MATERIALIZED VIEW m WITH NO DATA").await;
    let after = fingerprint(&case.inventory(&t()).await);
    assert_eq!(before.differences(&after), Vec::<String>::new());
    assert!(!before.differences_in_exchange(&after).is_empty());
}

#[tokio::test]
async fn a_plan_that_is_given_up_leaves_nothing() {
    let world = World::start().await;
    let case = world.case("given_up").await;
    case.app
        .exec(
            "CREATE TABLE r (id int PRIMARY KEY); \
             CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, r int REFERENCES r); \
             CREATE TABLE c (t int REFERENCES t); CREATE VIEW v AS SELECT id FROM t; INSERT INTO t (r) VALUES (NULL)",
        )
        .await;
    let session = case.session().await;
    let inventory = case.inventory(&t()).await;
    let steps = plan(&inventory, &PlanOptions::default()).unwrap();
    exec(&session, "CREATE SCHEMA repcloud_new; CREATE SCHEMA repcloud_old").await;
    let online =
        steps.create.iter().chain(steps.indexes.iter().flat_map(|i| i.statements.iter().chain(&i.attach)));
    for statement in online.chain(&steps.finish) {
        exec(&session, statement).await;
    }
    exec(&session, "BEGIN").await;
    for statement in steps.locks.iter().map(|lock| &lock.statement).chain(&steps.exchange) {
        exec(&session, statement).await;
    }
    exec(&session, "ROLLBACK; DROP SCHEMA repcloud_new CASCADE; DROP SCHEMA repcloud_old").await;
    let again = case.inventory(&t()).await;
    assert_eq!(again.oid, inventory.oid);
    assert_eq!(fingerprint(&inventory).differences(&fingerprint(&again)), [""; 0]);
    assert_eq!(case.app.value("INSERT INTO t (r) VALUES (NULL) RETURNING id || ' ' || s").await, "2 2");
}

#[tokio::test]
async fn what_the_plan_cannot_do_it_says() {
    let world = World::start().await;
    let case = world.case("says").await;
    case.app.exec("CREATE TABLE t (id int PRIMARY KEY); CREATE DOMAIN d AS t").await;
    let inventory = case.inventory(&t()).await;
    let error = plan(&inventory, &PlanOptions::default()).unwrap_err().to_string();
    assert!(error.contains("public.t cannot be repacked: type public.d"), "{error}");
    case.app.exec("DROP DOMAIN d").await;
    let inventory = case.inventory(&t()).await;
    for options in [
        PlanOptions { fillfactor: Some(5), ..PlanOptions::default() },
        PlanOptions { tablespace: Some("nowhere".into()), ..PlanOptions::default() },
    ] {
        assert!(plan(&inventory, &options).is_err(), "{options:?}");
    }
    let session = case.session().await;
    let missing = repcloud::repack::dependents::read(&session, &TableName::new("public", "missing")).await;
    assert!(missing.unwrap_err().to_string().contains("public.missing does not exist"));
    let status =
        session.query_one("SELECT pg_catalog.txid_current_if_assigned() IS NULL", &[]).await.unwrap();
    assert!(status.get::<_, bool>(0), "no transaction is left open");
}
