//! What is written to: schemas, tables, extensions. Pure judgement of what was read.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Check, Remedy};
use super::own_schema::create_on_database;
use super::remedies::Need;
use super::server::ServerFacts;
use crate::model::{Oid, TableName, quote_ident};
use crate::pg::{PgError, Session};

/// Our rights on what a stream writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TargetFacts {
    /// Of each schema that is there: USAGE and CREATE.
    pub(super) schemas: BTreeMap<String, (bool, bool)>,
    /// Of each table that is there: what is missing of SELECT, INSERT, UPDATE, DELETE, TRUNCATE.
    pub(super) tables: BTreeMap<TableName, Vec<String>>,
    /// `session_replication_role` may be set.
    pub(super) replica_role: bool,
}

const SCHEMAS: &str = "\
SELECT n.nspname::text, has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE')
  FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY ($1::text[])";

const TABLES: &str = "\
SELECT n.nspname::text, c.relname::text,
       array(SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) WITH ORDINALITY AS w (p, i)
              WHERE NOT has_table_privilege(c.oid, p) ORDER BY i)
  FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name";

/// Reads them for the target tables of a connection's streams.
pub(super) async fn read(
    session: &Session,
    tables: &BTreeSet<TableName>,
    replica_role: bool,
) -> Result<TargetFacts, PgError> {
    let names: Vec<&str> = tables.iter().map(|t| t.schema.as_str()).collect();
    let mut facts = TargetFacts { replica_role, ..TargetFacts::default() };
    for row in session.query(SCHEMAS, &[&names]).await? {
        facts.schemas.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    let schemas: Vec<&str> = tables.iter().map(|t| t.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|t| t.table.as_str()).collect();
    for row in session.query(TABLES, &[&schemas, &names]).await? {
        let name = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        facts.tables.insert(name, row.try_get(2)?);
    }
    Ok(facts)
}

/// What is missing to write to these tables.
pub(super) fn judge(server: &ServerFacts, facts: &TargetFacts, tables: &BTreeSet<TableName>) -> Vec<Check> {
    let role = quote_ident(&server.role);
    let mut checks = Vec::new();
    let mut schemas_told = BTreeSet::new();
    for table in tables {
        match (facts.tables.get(table), facts.schemas.get(&table.schema)) {
            (Some(missing), schema) => checks.push(existing(table, missing, schema, &role)),
            (None, Some((usage, create))) => {
                let name = format!("schema {}", quote_ident(&table.schema));
                if !schemas_told.insert(&table.schema) {
                    continue;
                }
                let schema = quote_ident(&table.schema);
                checks.push(match usage & create {
                    true => Check::ok(&name, "tables can be made in it"),
                    false => Check::fail(&name, format!("role {role} may not make table {table} in it"))
                        .help(Remedy::run([format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")])),
                });
            }
            (None, None) => {
                if schemas_told.insert(&table.schema) && !server.may_create {
                    checks.push(create_on_database(server));
                }
            }
        }
    }
    checks.push(replica_role(server, facts));
    checks
}

fn existing(table: &TableName, missing: &[String], schema: Option<&(bool, bool)>, role: &str) -> Check {
    let name = format!("table {table}");
    let mut statements = Vec::new();
    let mut problems = Vec::new();
    if schema.is_some_and(|(usage, _)| !usage) {
        problems.push("USAGE on its schema".to_owned());
        statements.push(format!("GRANT USAGE ON SCHEMA {} TO {role}", quote_ident(&table.schema)));
    }
    if !missing.is_empty() {
        problems.push(missing.join(", "));
        // All of them: what it has already, it keeps.
        statements.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {table} TO {role}"));
    }
    match statements.is_empty() {
        true => Check::ok(&name, "can be written to"),
        false => Check::fail(&name, format!("role {role} lacks {}", problems.join(" and ")))
            .help(Remedy::run(statements)),
    }
}

/// Without it foreign keys and triggers of the target stay awake: strict all the same, but tables may be refused.
fn replica_role(server: &ServerFacts, facts: &TargetFacts) -> Check {
    const NAME: &str = "session_replication_role";
    const GRANTABLE: u32 = 150_000;
    if facts.replica_role {
        return Check::ok(
            NAME,
            "may be set: triggers and foreign keys of the target rest while changes are written",
        );
    }
    let check = Check::warn(
        NAME,
        "may not be set: triggers and foreign keys of the target stay awake, tables whose triggers change rows are refused",
    );
    match server.version >= GRANTABLE {
        true => check.help(server.mend(&Need::ReplicaRole(server.role.clone()))),
        false => check.help(Remedy::note("only a superuser may set it before PostgreSQL 15")),
    }
}

/// An extension that a table's columns or indexes need, and the schema it is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) schema: String,
}

const NEEDED: &str = "\
SELECT DISTINCT e.extname::text, n.nspname::text
  FROM (SELECT 'pg_catalog.pg_type'::regclass AS class, t.needed AS object
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_type y ON y.oid = a.atttypid,
               unnest(ARRAY[y.oid, y.typelem, y.typbasetype]) AS t (needed)
         WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 'pg_catalog.pg_opclass'::regclass, c.class
          FROM pg_catalog.pg_index i, unnest(i.indclass::oid[]) AS c (class)
         WHERE i.indrelid = ANY ($1::oid[])) AS used
  JOIN pg_catalog.pg_depend d ON d.classid = used.class AND d.objid = used.object AND d.deptype = 'e'
  JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 ORDER BY 1";

/// The extensions that these source tables need.
pub(super) async fn needed(source: &Session, tables: &[Oid]) -> Result<BTreeSet<Extension>, PgError> {
    let mut found = BTreeSet::new();
    for row in source.query(NEEDED, &[&tables.to_vec()]).await? {
        found.insert(Extension { name: row.try_get(0)?, schema: row.try_get(1)? });
    }
    Ok(found)
}

const THERE: &str = "\
SELECT a.name::text, n.nspname::text
  FROM pg_catalog.pg_available_extensions a
  LEFT JOIN pg_catalog.pg_extension e ON e.extname = a.name
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE a.name = ANY ($1::text[])";

/// Where each of them is on the target; `None`: it can be made.
pub(super) async fn there(
    target: &Session,
    needed: &BTreeSet<Extension>,
) -> Result<BTreeMap<String, Option<String>>, PgError> {
    let names: Vec<&str> = needed.iter().map(|e| e.name.as_str()).collect();
    let mut found = BTreeMap::new();
    for row in target.query(THERE, &[&names]).await? {
        found.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(found)
}

/// Types are written with their schema, so an extension has to be in the same one.
pub(super) fn judge_extensions(
    needed: &BTreeSet<Extension>,
    there: &BTreeMap<String, Option<String>>,
) -> Vec<Check> {
    let one = |wanted: &Extension| {
        let check = format!("extension {}", wanted.name);
        let (name, schema) = (quote_ident(&wanted.name), quote_ident(&wanted.schema));
        match there.get(&wanted.name) {
            Some(Some(at)) if *at == wanted.schema => Check::ok(&check, "there"),
            Some(Some(at)) => {
                let text = format!("in schema {} here, in {schema} on the source", quote_ident(at));
                Check::fail(&check, text)
                    .help(Remedy::run([format!("ALTER EXTENSION {name} SET SCHEMA {schema}")]))
            }
            Some(None) => {
                Check::fail(&check, "the source's tables use it, and this database does not have it").help(
                    Remedy::run([
                        format!("CREATE SCHEMA IF NOT EXISTS {schema}"),
                        format!("CREATE EXTENSION {name} WITH SCHEMA {schema}"),
                    ]),
                )
            }
            None => Check::fail(&check, "the source's tables use it, and this server does not offer it")
                .help(Remedy::note("install its package on the server, or choose a server that offers it")),
        }
    };
    needed.iter().map(one).collect()
}
