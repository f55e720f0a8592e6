//! A server with plain roles, a database a case, and a whole repack of a quiet table.

use repcloud::cluster::Cluster;
use repcloud::model::{TableName, quote_ident};
use repcloud::pg::{ConnectOptions, Session};
use repcloud::repack::dependents::{Inventory, read, read_here};
use repcloud::repack::fingerprint::{Fingerprint, expected, fingerprint};
use repcloud::repack::plan::{PlanOptions, RepackPlan, plan};

use crate::support::cluster::builder;
use crate::support::db::Db;

/// The roles: `app` owns, is no superuser, and is a member of `team`; `other` is a stranger.
const ROLES: &str = "CREATE ROLE app LOGIN; CREATE ROLE team; GRANT team TO app; CREATE ROLE other LOGIN; \
     CREATE ROLE reader LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE \"Big Role\"; GRANT \"Big Role\" TO app";

/// What every database has.
const BASE: &str = "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO app, team; \
     GRANT USAGE ON SCHEMA public TO PUBLIC";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
}

impl World {
    pub(crate) async fn start() -> Self {
        let cluster = builder("repack").start().expect("the server starts");
        cluster.create_database("base").expect("database");
        Db::connect(&cluster, "postgres").await.exec(ROLES).await;
        Db::connect(&cluster, "base").await.exec(BASE).await;
        World { cluster }
    }

    /// A database of its own.
    pub(crate) async fn case(&self, name: &str) -> Case<'_> {
        let admin = Db::connect(&self.cluster, "postgres").await;
        admin.exec(&format!("CREATE DATABASE {name} TEMPLATE base")).await;
        admin.exec(&format!("GRANT CREATE ON DATABASE {name} TO app")).await;
        Case {
            world: self,
            database: name.to_owned(),
            admin: Db::connect(&self.cluster, name).await,
            app: self.user(name, "app").await,
        }
    }

    pub(crate) async fn user(&self, database: &str, role: &str) -> Db {
        let conninfo = self.cluster.conninfo(database).replace("user=postgres", &format!("user={role}"));
        Db::connect_to(&conninfo).await
    }
}

/// pg_dump's schema, as a sorted list of paragraphs, without the schemas of a repack.
pub(crate) fn dump(cluster: &Cluster, database: &str) -> Vec<String> {
    let output = cluster
        .client("pg_dump")
        .unwrap()
        .args(["-s", "-N", "repcloud", "-N", "repcloud_new", "-N", "repcloud_old", "-d", database])
        .output()
        .unwrap();
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect();
    let mut paragraphs: Vec<String> = lines
        .split(|line| line.is_empty())
        .filter(|paragraph| !paragraph.is_empty())
        .map(|paragraph| paragraph.join("\n"))
        .collect();
    paragraphs.sort();
    paragraphs
}

/// One database.
pub(crate) struct Case<'a> {
    world: &'a World,
    pub(crate) database: String,
    pub(crate) admin: Db,
    pub(crate) app: Db,
}

/// What a repack should leave as it was.
#[derive(Debug, PartialEq)]
struct Picture {
    dump: Vec<String>,
    rows: String,
    /// Whether they are filled, and with what.
    views: Vec<String>,
    sequences: Vec<Vec<Option<String>>>,
}

impl Case<'_> {
    /// A session of the product, as `app`.
    pub(crate) async fn session(&self) -> Session {
        let cluster = &self.world.cluster;
        let host = cluster.socket_dir().display().to_string();
        repcloud::pg::connect(&ConnectOptions::new(host, cluster.port(), "app", &self.database))
            .await
            .unwrap()
    }

    pub(crate) async fn inventory(&self, table: &TableName) -> Inventory {
        read(&self.session().await, table).await.unwrap()
    }

    /// The refusals of `public.t`, as texts.
    pub(crate) async fn refusals(&self) -> Vec<String> {
        let inventory = self.inventory(&TableName::new("public", "t")).await;
        inventory.refusals().iter().map(ToString::to_string).collect()
    }

    async fn picture(&self, table: &TableName) -> Picture {
        let filled =
            "SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews WHERE ispopulated ORDER BY 1";
        let mut views = Vec::new();
        for view in self.admin.query_text(filled).await.into_iter().flatten().flatten() {
            views.push(format!("{view} {}", self.admin.table_hash(&view).await));
        }
        Picture {
            dump: dump(&self.world.cluster, &self.database),
            rows: self.admin.table_hash(&table.to_string()).await,
            views,
            sequences: self
                .admin
                .query_text(
                    "SELECT schemaname, sequencename, last_value FROM pg_sequences \
                     WHERE schemaname NOT LIKE 'repcloud%' ORDER BY 1, 2",
                )
                .await,
        }
    }

    /// Repacks `table` and compares everything before with everything after.
    pub(crate) async fn repack(&self, table: &TableName) -> RepackPlan {
        self.repack_with(table, &PlanOptions::default()).await
    }

    pub(crate) async fn repack_with(&self, table: &TableName, options: &PlanOptions) -> RepackPlan {
        let label = format!("{} {table}", self.database);
        let before = self.picture(table).await;
        let session = self.session().await;
        let inventory = read(&session, table).await.unwrap();
        let steps = plan(&inventory, options).unwrap_or_else(|error| panic!("{label}: {error}"));
        let stored = serde_json::to_string(&steps).unwrap();
        assert_eq!(serde_json::from_str::<RepackPlan>(&stored).unwrap(), steps, "{label}");
        let wanted = expected(&inventory, options);
        self.build(&session, table, &steps).await;
        let again = read(&session, table).await.unwrap();
        assert_eq!(
            fingerprint(&inventory).differences(&fingerprint(&again)),
            [""; 0],
            "{label}: a shadow shows"
        );
        assert_eq!(again.refusals(), [], "{label}");
        exchange(&session, table, &steps, &wanted).await;
        for step in &steps.after {
            exec(&session, &step.statement).await;
        }
        let behind = self
            .admin
            .query_text(
                "SELECT conname FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid \
                 WHERE contype = 'f' AND conrelid <> confrelid AND relnamespace = 'repcloud_old'::regnamespace \
                 UNION ALL SELECT conname FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid \
                 WHERE contype = 'f' AND conrelid <> confrelid AND relnamespace = 'repcloud_old'::regnamespace",
            )
            .await;
        assert!(behind.is_empty(), "{label}: foreign keys stay with the old table: {behind:?}");
        for statement in &steps.drop_old {
            exec(&session, statement).await;
        }
        // Without CASCADE: nothing may be left in them.
        exec(&session, "DROP SCHEMA repcloud_old; DROP SCHEMA repcloud_new").await;
        let inventory = read(&session, table).await.unwrap();
        let now = fingerprint(&inventory);
        assert_eq!(wanted.differences(&now), [""; 0], "{label}");
        assert_eq!(Fingerprint::from_text(&now.to_text()).unwrap(), wanted, "{label}");
        if *options == PlanOptions::default() {
            same(&label, &before, &self.picture(table).await);
        }
        steps
    }

    /// The new table with its rows and indexes, beside the old one.
    pub(crate) async fn build(&self, session: &Session, table: &TableName, steps: &RepackPlan) {
        exec(session, "CREATE SCHEMA repcloud_new; CREATE SCHEMA repcloud_old").await;
        for statement in &steps.create {
            exec(session, statement).await;
        }
        let columns: Vec<String> = steps.copy_columns.iter().map(|column| quote_ident(column)).collect();
        let columns = columns.join(", ");
        exec(
            session,
            &format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ONLY {table}",
                steps.shadow
            ),
        )
        .await;
        for index in &steps.indexes {
            for statement in &index.statements {
                exec(session, statement).await;
            }
        }
        for statement in steps.indexes.iter().flat_map(|index| &index.attach).chain(&steps.finish) {
            exec(session, statement).await;
        }
        exec(session, &format!("VACUUM (ANALYZE) {}", steps.shadow)).await;
        for view in &steps.refresh {
            exec(session, &format!("REFRESH MATERIALIZED VIEW {view}")).await;
        }
    }
}

async fn exchange(session: &Session, table: &TableName, steps: &RepackPlan, wanted: &Fingerprint) {
    lock(session, steps).await;
    exchange_locked(session, table, steps, wanted).await;
}

/// Begins the exchange: its locks.
pub(crate) async fn lock(session: &Session, steps: &RepackPlan) {
    exec(session, "BEGIN; SET LOCAL lock_timeout = '2s'").await;
    for lock in &steps.locks {
        exec(session, &lock.statement).await;
    }
}

/// The rest of it.
pub(crate) async fn exchange_locked(
    session: &Session,
    table: &TableName,
    steps: &RepackPlan,
    wanted: &Fingerprint,
) {
    exec(session, "SET CONSTRAINTS ALL IMMEDIATE").await;
    for statement in &steps.exchange {
        exec(session, statement).await;
    }
    let inside = fingerprint(&read_here(session, table).await.unwrap());
    assert_eq!(wanted.differences_in_exchange(&inside), [""; 0], "{table}: in the exchange");
    exec(session, "COMMIT").await;
}

pub(crate) async fn exec(session: &Session, sql: &str) {
    if let Err(error) = session.batch_execute(sql).await {
        panic!("{sql}\n{:?}", error.as_db_error().map(|db| (db.code(), db.message(), db.detail())));
    }
}

fn same(label: &str, before: &Picture, after: &Picture) {
    let gone: Vec<&String> = before.dump.iter().filter(|p| !after.dump.contains(p)).collect();
    let new: Vec<&String> = after.dump.iter().filter(|p| !before.dump.contains(p)).collect();
    assert!(gone.is_empty() && new.is_empty(), "{label}: the dump changed\ngone: {gone:#?}\nnew: {new:#?}");
    assert_eq!(before.dump, after.dump, "{label}");
    assert_eq!(before.rows, after.rows, "{label}");
    assert_eq!(before.views, after.views, "{label}");
    assert_eq!(before.sequences, after.sequences, "{label}");
}
