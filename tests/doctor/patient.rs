//! Two servers with names that need care, a role without more than it needs, and the program.

use repcloud::cluster::{Cluster, StopMode};
use serde_json::Value;

use crate::support::cluster::Pair;
use crate::support::db::Db;
use crate::support::process::Repcloud;
use crate::support::stream::LIMIT;

/// A name of 63 bytes with everything that must be quoted.
fn name(begin: &str) -> String {
    let mut name = format!("{begin} \"of\" O'Neil; Ö 100% -- ");
    while name.len() < 63 {
        name.push('x');
    }
    name
}

/// As an SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As a TOML string.
pub(crate) fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(crate) struct Patient {
    pub(crate) pair: Pair,
    pub(crate) program: Repcloud,
    database: String,
    role: String,
    owner: String,
    schema: String,
    table: String,
}

impl Patient {
    pub(crate) async fn start() -> Self {
        let pair = Pair::start();
        let patient = Patient {
            pair,
            program: Repcloud::new(""),
            database: name("db"),
            role: name("role"),
            owner: name("owner"),
            schema: name("schema"),
            table: name("table"),
        };
        patient.pair.create_database(&patient.database);
        for at in ["prod", "copy"] {
            let roles = patient.filled("CREATE ROLE {role} LOGIN REPLICATION; CREATE ROLE {owner}");
            patient.db(at).await.exec(&roles).await;
        }
        patient
    }

    pub(crate) fn cluster(&self, at: &str) -> &Cluster {
        if at == "prod" { &self.pair.source } else { &self.pair.target }
    }

    /// A session as superuser.
    pub(crate) async fn db(&self, at: &str) -> Db {
        Db::connect(self.cluster(at), &self.database).await
    }

    pub(crate) fn restart(&mut self, at: &str) {
        let cluster = if at == "prod" { &mut self.pair.source } else { &mut self.pair.target };
        cluster.restart(StopMode::Fast).expect("the server restarts");
    }

    /// `{role}`, `{owner}`, `{db}`, `{s}` (the schema) and `{t}` (the table in it) as SQL writes them.
    pub(crate) fn filled(&self, text: &str) -> String {
        text.replace("{role}", &quoted(&self.role))
            .replace("{owner}", &quoted(&self.owner))
            .replace("{db}", &quoted(&self.database))
            .replace("{s}", &quoted(&self.schema))
            .replace("{t}", &format!("{}.{}", quoted(&self.schema), quoted(&self.table)))
    }

    /// As a database is that nothing is wrong with, but for what has to be made.
    pub(crate) async fn heal(&self) {
        for at in ["prod", "copy"] {
            let db = self.db(at).await;
            db.exec("ALTER SYSTEM RESET ALL").await;
            db.exec("SELECT pg_reload_conf()").await;
            let publications = db.query_text("SELECT quote_ident(pubname) FROM pg_publication").await;
            for publication in publications.iter().flatten().flatten() {
                db.exec(&format!("DROP PUBLICATION {publication}")).await;
            }
            db.exec(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; SET client_min_messages = error",
            )
            .await;
            let healthy = "DROP SCHEMA IF EXISTS {s} CASCADE; DROP SCHEMA IF EXISTS repcloud CASCADE; \
                 DROP EXTENSION IF EXISTS citext CASCADE; DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA {s} AUTHORIZATION {role}; \
                 ALTER ROLE {role} LOGIN REPLICATION NOBYPASSRLS; ALTER ROLE {role} IN DATABASE {db} RESET ALL; \
                 GRANT CONNECT ON DATABASE {db} TO PUBLIC; GRANT CREATE, TEMPORARY ON DATABASE {db} TO {role}; REVOKE {owner} FROM {role}";
            db.exec(&self.filled(healthy)).await;
        }
    }

    /// `prod` with these keys; an entry's body without its tables, or none, and then `prod` is there to be repacked.
    pub(crate) fn configure(&self, keys: &str, entry: Option<&str>) {
        let mut text = String::new();
        let tables = format!("tables = [{}]\n", toml(&self.filled("{t}")));
        for at in ["prod", "copy"] {
            let cluster = self.cluster(at);
            text.push_str(&format!(
                "[connections.{at}]\nhost = \"{}\"\nport = {}\nuser = {}\ndatabase = {}\n",
                cluster.socket_dir().display(),
                cluster.port(),
                toml(&self.role),
                toml(&self.database)
            ));
            if at == "prod" {
                text.push_str(&format!("{keys}\n"));
                if entry.is_none() {
                    text.push_str(&tables);
                }
            }
        }
        if let Some(entry) = entry {
            text.push_str(&format!("[[replicate]]\nsource = \"prod\"\ntarget = \"copy\"\n{entry}\n{tables}"));
        }
        self.program.write("config/default.toml", &text);
    }

    /// The checks of one connection.
    pub(crate) fn checks(&self, at: &str) -> Vec<Value> {
        let mut report = self.program.json(&["doctor", "--connection", at], LIMIT);
        match report["connections"][0]["checks"].take() {
            Value::Array(checks) => checks,
            other => panic!("no checks: {other}"),
        }
    }
}

/// The statements of a check.
pub(crate) fn statements(check: &Value) -> Vec<String> {
    let statements = check["statements"].as_array().expect("statements");
    statements.iter().map(|s| s.as_str().expect("a statement").to_owned()).collect()
}
