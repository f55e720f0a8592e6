//! Makes target tables and what belongs to them.

use tokio_postgres::Client;

use crate::catalog::ddl::{ObjectKind, Requirement, TargetDdl};
use crate::copy::error::{CopyError, server};
use crate::model::TableName;
use crate::sql::empty::empty;

/// What [`prepare_table`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// It was not there and is now, empty and without an index.
    Made,
    /// It was there, and nothing was changed.
    Existed,
}

/// Makes the target table with its schema and types, in one transaction; a table, schema or type that is there
/// stays as it is. Its key comes with the other indexes, by [`build_indexes`](crate::copy::indexes::build_indexes). `target` is not in a transaction.
/// Locks are waited for as the session's `lock_timeout` says.
pub async fn prepare_table(target: &Client, ddl: &TargetDdl) -> Result<Prepared, CopyError> {
    if exists(target, ddl, Known::Table, &ddl.name.to_string()).await? {
        return Ok(Prepared::Existed);
    }
    check_requirements(target, ddl).await?;
    run(target, &ddl.name, "BEGIN").await?;
    let made = make(target, ddl).await;
    if made.is_ok() {
        run(target, &ddl.name, "COMMIT").await?;
        return Ok(Prepared::Made);
    }
    // The first error tells what happened; when ROLLBACK fails too the connection is gone.
    run(target, &ddl.name, "ROLLBACK").await.and(made).map(|()| Prepared::Made)
}

async fn make(target: &Client, ddl: &TargetDdl) -> Result<(), CopyError> {
    for object in &ddl.objects {
        let kind = match object.kind {
            ObjectKind::Schema => Known::Schema,
            ObjectKind::Type => Known::Type,
        };
        // Asked first, because CREATE SCHEMA IF NOT EXISTS needs CREATE on the database even when it exists.
        if !exists(target, ddl, kind, &object.name).await? {
            run(target, &ddl.name, &object.sql).await?;
        }
    }
    run(target, &ddl.name, &ddl.create_table).await?;
    for setting in &ddl.settings {
        run(target, &ddl.name, setting).await?;
    }
    Ok(())
}

/// Lets the target's planner know the rows.
pub async fn analyze(target: &Client, table: &TableName) -> Result<(), CopyError> {
    run(target, table, &format!("ANALYZE {table}")).await
}

/// Whether the table holds a row that this session can see.
pub async fn rows_exist(client: &Client, table: &TableName) -> Result<bool, CopyError> {
    let what = "looking for rows";
    let query = format!("SELECT EXISTS (SELECT FROM {table})");
    let row = client.query_one(&query, &[]).await.map_err(server(what, table))?;
    row.try_get(0).map_err(server(what, table))
}

/// Removes all rows. Only for a table whose rows are ours and unfinished by `repcloud.table_state`.
pub async fn empty_table(target: &Client, table: &TableName) -> Result<(), CopyError> {
    // Its cut-off copy may stand beside finished ones that refer to it.
    let emptied = run(target, table, &empty(&[table.to_string().as_str()], false, true)).await;
    let Err(error) = emptied else { return Ok(()) };
    // A lock that is not granted, or a broken connection, is not about foreign keys.
    if !error.is_without_right() {
        return Err(error);
    }
    let keys = "SELECT string_agg(format('%I on %s', conname, conrelid::regclass), ', ' ORDER BY conname) FROM pg_catalog.pg_constraint \
                WHERE contype = 'f' AND confrelid = $1::text::regclass AND conrelid <> confrelid";
    match target
        .query_one(keys, &[&table.to_string()])
        .await
        .and_then(|row| row.try_get::<_, Option<String>>(0))
    {
        Ok(Some(keys)) => Err(CopyError::Referenced { table: table.clone(), keys, error: Box::new(error) }),
        _ => Err(error),
    }
}

/// Why [`empty_table`] and a copy into the table would fail, with what helps; `None`: they would not, or the table is not there.
/// `replica_role`: the session may let foreign keys rest.
pub async fn hindrance(
    target: &Client,
    table: &TableName,
    replica_role: bool,
) -> Result<Option<String>, CopyError> {
    let failed = server("looking into the target", table);
    let query = "\
        SELECT c.relkind IN ('r', 'p'), quote_ident(current_user), \
               array_to_string(ARRAY(SELECT p FROM unnest(ARRAY['TRUNCATE', 'DELETE', 'INSERT']) p \
                                      WHERE NOT has_table_privilege(c.oid, p)), ', '), \
               has_schema_privilege(c.relnamespace, 'USAGE'), k.names, k.drops \
          FROM pg_catalog.pg_class c, \
               (SELECT string_agg(format('%I on %s', conname, conrelid::regclass), ', ' ORDER BY conname), \
                       string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I;', conrelid::regclass, conname), ' ' ORDER BY conname) \
                  FROM pg_catalog.pg_constraint \
                 WHERE contype = 'f' AND confrelid = to_regclass($1::text) AND conrelid <> confrelid AND conparentid = 0) k (names, drops) \
         WHERE c.oid = to_regclass($1::text)";
    let read = async {
        let Some(row) = target.query_opt(query, &[&table.to_string()]).await? else { return Ok(None) };
        Ok(Some(Emptying {
            is_table: row.try_get(0)?,
            role: row.try_get(1)?,
            lacks: row.try_get(2)?,
            schema_usable: row.try_get(3)?,
            keys: row.try_get::<_, Option<String>>(4)?.zip(row.try_get(5)?),
            replica_role,
        }))
    };
    let facts = read.await.map_err(failed)?;
    Ok(facts.and_then(|facts| facts.hindrance(table)))
}

/// What emptying a table depends on.
struct Emptying {
    is_table: bool,
    role: String,
    /// Rights that are missing.
    lacks: String,
    schema_usable: bool,
    /// Foreign keys of other tables that refer to it, and the statements that drop them.
    keys: Option<(String, String)>,
    replica_role: bool,
}

impl Emptying {
    fn hindrance(&self, table: &TableName) -> Option<String> {
        let role = &self.role;
        let why = match &self.keys {
            _ if !self.is_table => "it is not a table; rename or drop it".to_owned(),
            _ if !self.schema_usable => {
                let schema = crate::model::quote_ident(&table.schema);
                format!(
                    "role {role} may not use its schema; run on the target: GRANT USAGE ON SCHEMA {schema} TO {role};"
                )
            }
            _ if !self.lacks.is_empty() => {
                let lacks = &self.lacks;
                format!(
                    "role {role} lacks {lacks} on it; run on the target: GRANT {lacks} ON {table} TO {role};"
                )
            }
            Some((names, drops)) if !self.replica_role => format!(
                "foreign keys refer to it ({names}), and role {role} may not let them rest; run on the target: {drops} or \
                 GRANT SET ON PARAMETER session_replication_role TO {role}; (PostgreSQL 15)"
            ),
            _ => return None,
        };
        Some(format!("target table {table} cannot be emptied to be copied again: {why}"))
    }
}

/// Checks that our role may make the table, and that what only a person can make (extension types, collations) is there.
pub async fn check_requirements(target: &Client, ddl: &TargetDdl) -> Result<(), CopyError> {
    check_right_to_make(target, &ddl.name).await?;
    for requirement in &ddl.requires {
        let (kind, name) = match requirement {
            Requirement::Type { name, .. } => (Known::Type, name),
            Requirement::Collation { name } => (Known::Collation, name),
        };
        if exists(target, ddl, kind, name).await? {
            continue;
        }
        let (what, remedy) = match requirement {
            Requirement::Type { name, extension: Some(extension) } => {
                let extension = crate::model::quote_ident(extension);
                let remedy =
                    format!("have its owner run there: CREATE EXTENSION {extension} (in the same schema)");
                (format!("type {name}"), remedy)
            }
            Requirement::Type { name, extension: None } => {
                (format!("type {name}"), "make it there first".to_owned())
            }
            Requirement::Collation { name } => {
                (format!("collation {name}"), "make it there first, or make the table yourself".to_owned())
            }
        };
        return Err(CopyError::Missing { table: ddl.name.clone(), what, remedy });
    }
    Ok(())
}

/// In its schema, or, where that is missing, in the database.
async fn check_right_to_make(target: &Client, table: &TableName) -> Result<(), CopyError> {
    let failed = server("looking into the target", table);
    let query = "\
        SELECT quote_ident(current_user), quote_ident(current_database()), n.oid IS NULL, \
               CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE') \
                    ELSE has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE') END \
          FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1::text";
    let read = async {
        let row = target.query_one(query, &[&table.schema]).await?;
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (role, database, missing, may): (String, String, bool, bool) = read.await.map_err(failed)?;
    if may {
        return Ok(());
    }
    let grant = match missing {
        true => format!("GRANT CREATE ON DATABASE {database} TO {role}"),
        false => {
            format!("GRANT USAGE, CREATE ON SCHEMA {} TO {role}", crate::model::quote_ident(&table.schema))
        }
    };
    Err(CopyError::MayNotMake { table: table.clone(), role, grant })
}

/// Kinds of objects that are looked for by qualified name.
#[derive(Clone, Copy)]
enum Known {
    Table,
    Schema,
    Type,
    Collation,
}

async fn exists(target: &Client, ddl: &TargetDdl, kind: Known, name: &str) -> Result<bool, CopyError> {
    let what = "looking into the target";
    let query = match kind {
        Known::Table => "SELECT pg_catalog.to_regclass($1::text) IS NOT NULL",
        Known::Schema => "SELECT pg_catalog.to_regnamespace($1::text) IS NOT NULL",
        Known::Type => "SELECT pg_catalog.to_regtype($1::text) IS NOT NULL",
        Known::Collation => "SELECT pg_catalog.to_regcollation($1::text) IS NOT NULL",
    };
    let row = target.query_one(query, &[&name]).await.map_err(server(what, &ddl.name))?;
    row.try_get(0).map_err(server(what, &ddl.name))
}

pub(super) async fn run(target: &Client, table: &TableName, sql: &str) -> Result<(), CopyError> {
    // `execute` takes one statement only.
    let first_line = sql.lines().next().unwrap_or_default();
    target.execute(sql, &[]).await.map(drop).map_err(server(format!("`{first_line}` on the target"), table))
}
