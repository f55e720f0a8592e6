//! What pre-flight finds about tables, rights and publications, as the tables' plain owner.

use std::time::Duration;

use repcloud::catalog::read_table;
use repcloud::repack::preflight::{
    Severity, check, check_server, check_table, is_refused, key, kind, large_objects, leftovers,
    publications, rights, row_security, server, transactions,
};

use crate::support::cluster::{builder, major};
use crate::support::owner::{Owner, lines};
use crate::support::process::Repcloud;

#[tokio::test]
async fn a_plain_owner_with_replication_has_nothing_against_it_and_nothing_is_written() {
    let owner = Owner::start().await;
    owner.app.exec("CREATE TABLE t (id int PRIMARY KEY, v text); ANALYZE t").await;
    let table = owner.table("t").await;
    let found = check(&owner.session, &owner.options, &table).await.unwrap();
    assert!(found.is_empty(), "{:?}", lines(&found));
    for left in ["pg_replication_slots", "pg_publication", "pg_namespace WHERE nspname LIKE 'repcloud%'"] {
        assert_eq!(owner.admin.value(&format!("SELECT count(*) FROM {left}")).await, "0", "{left}");
    }
}

#[tokio::test]
async fn everything_a_role_lacks_is_said_at_once() {
    let owner = Owner::start().await;
    owner
        .admin
        .exec(
            "CREATE TABLE theirs (id int); ALTER TABLE theirs ENABLE ROW LEVEL SECURITY; \
             GRANT SELECT ON theirs TO app; ALTER ROLE app NOREPLICATION; REVOKE CREATE ON DATABASE shop FROM app; \
             REVOKE CREATE ON SCHEMA public FROM app; CREATE SCHEMA repcloud; \
             CREATE PUBLICATION everything FOR ALL TABLES",
        )
        .await;
    let table = owner.table("theirs").await;
    // With triggers to fall back to, a slot that may not be had is only a warning.
    let mut options = owner.options.clone();
    options.settings.capture.asked = repcloud::capture::auto::Asked::Slot;
    let found = check(&owner.session, &options, &table).await.unwrap();
    let found = lines(&found);
    let expected = [
        "run: GRANT CREATE ON DATABASE shop TO app",
        "run: GRANT USAGE, CREATE ON SCHEMA repcloud TO app",
        "publication everything: it is FOR ALL TABLES",
        "run: ALTER ROLE app REPLICATION",
        "run: GRANT postgres TO app",
        "run: GRANT CREATE ON SCHEMA public TO app",
        "hides rows from role app, which is not its owner; run: ALTER ROLE app BYPASSRLS",
        "it has neither a primary key nor a replica identity",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, word) in found.iter().zip(expected) {
        assert!(line.starts_with("Refuse") && line.contains(word), "{word}: {found:#?}");
    }
}

#[tokio::test]
async fn only_a_permanent_table_that_stands_alone_is_taken() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); \
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); \
             CREATE TABLE part PARTITION OF parts DEFAULT; \
             CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); \
             CREATE TYPE shape AS (id int); CREATE TABLE typed OF shape (PRIMARY KEY (id)); \
             CREATE VIEW view AS SELECT 1 AS one; CREATE MATERIALIZED VIEW mat AS SELECT 1 AS one; \
             CREATE TABLE extended (id int PRIMARY KEY)",
        )
        .await;
    owner
        .admin
        .exec(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; \
             CREATE FOREIGN TABLE public.distant (id int) SERVER s; ALTER EXTENSION plpgsql ADD TABLE extended",
        )
        .await;
    for (name, word) in [
        ("unlogged", "no slot sees its changes"),
        ("typed", "it is a table OF type shape"),
        ("view", "it is a view"),
        ("mat", "it is a materialized view"),
        ("extended", "it belongs to extension plpgsql"),
        ("distant", "it is a foreign table"),
    ] {
        let table = owner.table(name).await;
        let found =
            kind::check(&owner.session, &table, &repcloud::capture::auto::CaptureOptions::default().ways())
                .await
                .unwrap();
        assert!(found.len() == 1 && found[0].problem.contains(word), "{name}: {:?}", lines(&found));
        assert!(is_refused(&found), "{name}");
        // The checks that follow cope with every kind.
        assert!(is_refused(&check_table(&owner.session, &owner.options, &table).await.unwrap()), "{name}");
    }
}

#[tokio::test]
async fn rows_must_be_told_apart_and_the_statement_that_helps_is_given() {
    let owner = Owner::start().await;
    let cases = [
        ("id int PRIMARY KEY", "", None),
        ("id int", "", Some((Severity::Refuse, "add a primary key, or a unique index"))),
        (
            "id int NOT NULL UNIQUE",
            "",
            Some((Severity::Refuse, "run: ALTER TABLE public.t REPLICA IDENTITY USING INDEX t_id_key")),
        ),
        ("id int NOT NULL UNIQUE", "ALTER TABLE t REPLICA IDENTITY USING INDEX t_id_key", None),
        ("id int UNIQUE", "", Some((Severity::Refuse, "add a primary key, or a unique index"))),
        ("id int PRIMARY KEY DEFERRABLE", "", Some((Severity::Refuse, "deferrable"))),
        (
            "id int PRIMARY KEY",
            "ALTER TABLE t REPLICA IDENTITY NOTHING",
            Some((Severity::Refuse, "run: ALTER TABLE public.t REPLICA IDENTITY DEFAULT")),
        ),
        ("id int PRIMARY KEY, doc json", "ALTER TABLE t REPLICA IDENTITY FULL", None),
        (
            "id int, v text",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            Some((Severity::Warn, "reads the whole copy")),
        ),
        (
            "id int, doc json, at point",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            Some((Severity::Refuse, "doc (json), at (point) cannot be compared")),
        ),
    ];
    for (columns, more, expected) in cases {
        owner.app.exec(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t ({columns}); {more}")).await;
        let definition = read_table(&owner.session, &owner.table("t").await.name).await.unwrap().unwrap();
        let found = key::judge(&definition, i32::try_from(major() * 10_000).unwrap());
        match expected {
            None => assert!(found.is_empty(), "{columns} {more}: {:?}", lines(&found)),
            Some((severity, word)) => {
                assert!(found.len() == 1, "{columns} {more}: {:?}", lines(&found));
                assert!(found[0].to_string().contains(word), "{columns} {more}: {:?}", lines(&found));
                assert_eq!(found[0].severity, severity, "{columns} {more}");
            }
        }
    }
}

#[tokio::test]
async fn hidden_rows_large_objects_and_leftovers_are_named() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE TABLE secured (id int PRIMARY KEY, picture oid); ALTER TABLE secured ENABLE ROW LEVEL SECURITY; \
             CREATE TABLE \"Left\" (id int PRIMARY KEY)",
        )
        .await;
    let secured = owner.table("secured").await;
    let session = &owner.session;
    assert_eq!(row_security::check(session, &secured).await.unwrap(), [], "the owner sees every row");
    owner.app.exec("ALTER TABLE secured FORCE ROW LEVEL SECURITY").await;
    let found = row_security::check(session, &secured).await.unwrap();
    assert!(is_refused(&found) && found[0].problem.contains("is forced"), "{:?}", lines(&found));
    let definition = read_table(session, &secured.name).await.unwrap().unwrap();
    let found = large_objects::judge(&definition);
    assert!(!is_refused(&found) && found[0].problem.starts_with("picture may point"), "{:?}", lines(&found));

    let table = owner.table("Left").await;
    assert_eq!(leftovers::check(session, &owner.options, &table).await.unwrap(), []);
    let database = server::read(session).await.unwrap().database_oid;
    let slot = repcloud::repack::state::slot_name(database, table.oid);
    owner
        .app
        .exec(&format!(
            "CREATE SCHEMA repcloud_new; CREATE TABLE repcloud_new.\"Left\" (id int); CREATE PUBLICATION {slot}"
        ))
        .await;
    owner.app.exec(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
    let found = leftovers::check(session, &owner.options, &table).await.unwrap();
    assert!(found.len() == 1 && is_refused(&found), "{:?}", lines(&found));
    let line = found[0].to_string();
    for word in [
        &format!("publication {slot}"),
        &format!("slot {slot}"),
        "table repcloud_new.\"Left\"",
        "run: repcloud abort --connection prod --table 'public.\"Left\"'",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[tokio::test]
async fn publications_that_would_publish_the_copy_are_refused() {
    let owner = Owner::start().await;
    owner.admin.exec("CREATE PUBLICATION harmless; CREATE SCHEMA repcloud AUTHORIZATION app").await;
    assert_eq!(publications::check(&owner.session).await.unwrap(), []);
    if major() >= 15 {
        owner.admin.exec("CREATE PUBLICATION \"In Schema\" FOR TABLES IN SCHEMA repcloud, public").await;
    }
    owner.admin.exec("CREATE PUBLICATION everything FOR ALL TABLES").await;
    let found = check_server(&owner.session, &owner.options).await.unwrap();
    let text = lines(&found).join("\n");
    assert!(text.contains("Refuse publications: publication everything: it is FOR ALL TABLES"), "{text}");
    if major() >= 15 {
        assert!(
            text.contains("run: ALTER PUBLICATION \"In Schema\" DROP TABLES IN SCHEMA repcloud"),
            "{text}"
        );
        assert_eq!(found.len(), 2, "{text}");
    }
}

#[tokio::test]
async fn open_and_prepared_transactions_are_named_without_their_values() {
    let owner = Owner::over(builder("transactions").setting("max_prepared_transactions", "5")).await;
    owner.app.exec("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int); INSERT INTO t VALUES (1, 'a')").await;
    let table = owner.table("t").await;
    assert_eq!(transactions::check(&owner.session, &table, Duration::ZERO).await.unwrap(), []);
    let pid = owner.app.value("SELECT pg_backend_pid()").await;
    owner.app.exec("BEGIN; UPDATE t SET v = 'my secret' WHERE id = 1").await;
    owner.admin.exec("BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION 'it''s'").await;
    let found = transactions::check(&owner.session, &table, Duration::ZERO).await.unwrap();
    let text = lines(&found);
    assert_eq!(found.len(), 2, "{text:?}");
    assert!(
        text[0].starts_with(&format!("Warn transactions: pid {pid}: a transaction of role app")),
        "{text:?}"
    );
    for word in ["RowExclusiveLock on public.t", "UPDATE t SET v = ? WHERE id = ?", "idle in transaction"] {
        assert!(text[0].contains(word), "{word}: {text:?}");
    }
    assert!(!text[0].contains("secret"), "{text:?}");
    assert!(text[1].contains("Refuse transactions: prepared transaction 'it''s'"), "{text:?}");
    assert!(text[1].contains("ROLLBACK PREPARED 'it''s'"), "{text:?}");
    // Young ones are nobody's concern, but a prepared one is mentioned.
    let found = transactions::check(&owner.session, &table, Duration::from_secs(3600)).await.unwrap();
    assert!(found.len() == 1 && !is_refused(&found), "{:?}", lines(&found));
    owner.app.exec("ROLLBACK").await;
    owner.admin.exec("ROLLBACK PREPARED 'it''s'").await;
}

#[tokio::test]
async fn the_schema_of_the_table_must_take_the_copy() {
    let owner = Owner::start().await;
    owner
        .admin
        .exec(
            "CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY); ALTER TABLE closed.t OWNER TO app; \
             GRANT USAGE ON SCHEMA closed TO app",
        )
        .await;
    let table = {
        let selection =
            repcloud::repack::options::Selection { schemas: vec!["closed".into()], ..Default::default() };
        let chosen = repcloud::repack::select::select(&owner.session, &selection, &owner.options.rules).await;
        chosen.unwrap().tables.remove(0)
    };
    let facts = server::read(&owner.session).await.unwrap();
    let found = rights::check(&owner.session, &table, &facts).await.unwrap();
    assert_eq!(
        lines(&found),
        [
            "Refuse rights: table closed.t: role app may not make tables in its schema, to which the copy must go; run: \
          GRANT CREATE ON SCHEMA closed TO app"
        ]
    );
}

#[tokio::test]
async fn a_dry_run_shows_plan_and_refusals_and_writes_nothing() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE TABLE good (id int PRIMARY KEY, v text); INSERT INTO good SELECT i, repeat('x', 100) FROM \
             generate_series(1, 5000) i; DELETE FROM good WHERE id % 2 = 0; ANALYZE good; \
             CREATE TABLE ruled (id int PRIMARY KEY); CREATE FUNCTION f(ruled) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             CREATE PUBLICATION mine FOR TABLE good",
        )
        .await;
    owner.admin.exec("CREATE PUBLICATION everything FOR ALL TABLES").await;
    let connection = format!(
        "[connections.prod]\nhost = \"{}\"\nport = {}\nuser = \"app\"\ndatabase = \"shop\"\n",
        owner.cluster.socket_dir().display(),
        owner.cluster.port()
    );
    let program = Repcloud::new(&connection);
    let limit = Duration::from_secs(60);
    let refused = program.run(&["repack", "--dry-run"], limit).expect_code(3);
    assert_eq!(
        refused.stdout.matches("publication everything").count(),
        2,
        "once a table: {}",
        refused.stdout
    );
    assert!(refused.stdout.contains("uses the table's row type"), "{}", refused.stdout);
    owner.admin.exec("DROP PUBLICATION everything").await;
    let partly = program.run(&["repack", "--dry-run", "--json"], limit).expect_code(4);
    let lines: Vec<serde_json::Value> =
        partly.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", partly.stdout);
    assert_eq!((&lines[0]["table"], &lines[0]["outcome"]), (&"public.good".into(), &"dry-run".into()));
    assert_eq!((&lines[1]["table"], &lines[1]["outcome"]), (&"public.ruled".into(), &"refused".into()));
    let percent = lines[0]["bloat"]["percent"].as_f64().unwrap();
    assert!((40.0..60.0).contains(&percent), "{percent}");
    let good = program.run(&["prepare", "--dry-run", "--table", "public.good"], limit).expect_code(0);
    assert!(
        good.stdout.contains("  exchange:\n") && good.stdout.contains("SET SCHEMA repcloud_old"),
        "{}",
        good.stdout
    );
    let missing = program.run(&["repack", "--dry-run", "--table", "public.gone"], limit).expect_code(3);
    assert!(missing.stdout.contains("table public.gone does not exist"), "{}", missing.stdout);
    assert_eq!(
        owner.admin.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'").await,
        "0"
    );
}
