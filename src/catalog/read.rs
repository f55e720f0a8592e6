//! Reads table and type definitions. Thin: the queries are in `queries/`, what follows from them is in the
//! pure files beside. Works on PostgreSQL 14 to 18.

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::catalog::error::CatalogError;
use crate::catalog::table_def::{TableDef, TableKind};
use crate::catalog::type_def::TypeMap;
use crate::model::{Oid, TableName};

/// The search_path under which the catalogs print every name outside `pg_catalog` with its schema. (`pg_temp`
/// last: otherwise it is searched first, and a temporary table could hide another.)
const PRINTING_PATH: &str = "pg_catalog, pg_temp";

/// One table, `None` when it does not exist.
pub async fn read_table(client: &Client, name: &TableName) -> Result<Option<TableDef>, CatalogError> {
    Ok(read_tables(client, std::slice::from_ref(name)).await?.into_iter().next())
}

/// Tables in the order asked for, each once, those that do not exist left out; the number of queries does not depend on
/// the number of tables. Partitions are named in [`TableDef::leaves`], not read: ask for them by name.
pub async fn read_tables(client: &Client, names: &[TableName]) -> Result<Vec<TableDef>, CatalogError> {
    let mut seen = BTreeSet::new();
    let names: Vec<TableName> = names.iter().filter(|name| seen.insert(*name)).cloned().collect();
    with_printing_path(client, async {
        let mut tables = rows::tables(client, &names).await?;
        let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
        let columns = rows::columns(client, &oids).await?;
        let mut type_oids: BTreeSet<Oid> = BTreeSet::new();
        for column in columns.values().flatten() {
            type_oids.insert(column.type_oid);
        }
        let types = rows::types(client, &type_oids.into_iter().collect::<Vec<_>>()).await?;
        let mut parts = rows::Parts {
            columns,
            indexes: rows::indexes(client, &oids).await?,
            constraints: rows::constraints(client, &oids).await?,
            triggers: rows::triggers(client, &oids).await?,
            leaves: rows::leaves(client, &roots(&tables)).await?,
        };
        for table in &mut tables {
            parts.move_into(table, &types);
        }
        Ok(tables)
    })
    .await
}

/// The types with these oids and all they are built from (see [`TypeMap`]).
pub async fn read_types(client: &Client, oids: &[Oid]) -> Result<TypeMap, CatalogError> {
    with_printing_path(client, rows::types(client, oids)).await
}

/// Tables, views and foreign tables of a schema by name, partitions left out (their root stands for them).
pub async fn list_tables(client: &Client, schema: &str) -> Result<Vec<(TableName, TableKind)>, CatalogError> {
    let what = "the tables of a schema";
    let rows =
        client.query(include_str!("queries/list.sql"), &[&schema]).await.map_err(rows::server(what))?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(0).map_err(rows::server(what))?;
            let kind: String = row.try_get(1).map_err(rows::server(what))?;
            Ok((TableName::new(schema, name), rows::table_kind(&kind)))
        })
        .collect()
}

/// True when all these tables of our own schema are there and our role may look into them.
pub async fn own_tables_readable(client: &Client, tables: &[&str]) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT count(*) = cardinality($1::text[]) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'repcloud' AND c.relname::text = ANY ($1) AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
         AND pg_catalog.has_table_privilege(c.oid, 'SELECT')";
    client.query_one(sql, &[&tables]).await?.try_get(0)
}

/// `server_version_num`: 150019 for 15.19.
pub async fn server_version_num(client: &Client) -> Result<i32, CatalogError> {
    let what = "the server's version";
    let query = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";
    let row = client.query_one(query, &[]).await.map_err(rows::server(what))?;
    row.try_get(0).map_err(rows::server(what))
}

fn roots(tables: &[TableDef]) -> Vec<Oid> {
    tables.iter().filter(|t| t.kind == TableKind::Partitioned).map(|t| t.oid).collect()
}

/// Runs `read` under [`PRINTING_PATH`] and puts the session's own search_path back. Sessions of this program
/// are pinned to `pg_catalog` already, where this changes nothing another task on the session could notice.
async fn with_printing_path<T>(
    client: &Client,
    read: impl Future<Output = Result<T, CatalogError>>,
) -> Result<T, CatalogError> {
    let what = "the search path";
    let now = "SELECT pg_catalog.current_setting('search_path')";
    let before: String =
        client.query_one(now, &[]).await.and_then(|row| row.try_get(0)).map_err(rows::server(what))?;
    if matches!(before.as_str(), "pg_catalog" | PRINTING_PATH) {
        return read.await;
    }
    set_path(client, PRINTING_PATH).await?;
    let answer = read.await;
    match (answer, set_path(client, &before).await) {
        (Ok(answer), Ok(())) => Ok(answer),
        // In a failed transaction the path cannot be set back, nor need it: the server does at ROLLBACK.
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
    }
}

async fn set_path(client: &Client, path: &str) -> Result<(), CatalogError> {
    let set = "SELECT pg_catalog.set_config('search_path', $1, false)";
    client.query(set, &[&path]).await.map(drop).map_err(rows::server("the search path"))
}

/// What was read, by table.
type ByTable<T> = BTreeMap<Oid, Vec<T>>;
