//! The relation of the target into which a table's rows went, as `repcloud.table_state` knows it.
//!
//! Another relation may come to bear the name: a table that was dropped and made again holds none of the rows. A repack makes
//! another relation too, with the rows; it writes that down in the transaction of its exchange ([`exchange`]).

use tokio_postgres::Client;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::catalog::own_tables_readable;
use crate::model::{Oid, TableName};

/// A table that is kept up, and the relation that bears its name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borne {
    /// Target table.
    pub table: TableName,
    /// The relation that the rows went into; `None`: nobody wrote it down.
    pub known: Option<Oid>,
    /// The one that is there.
    pub now: Oid,
}

/// In one statement: what an exchange changes, in the catalog and here, is seen whole or not at all.
const BORNE: &str = "\
SELECT w.place, CASE WHEN t.state_oid = t.tableoid THEN t.target_oid END, c.oid
  FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS w (name, s, r, place)
  JOIN repcloud.table_state t ON t.source = $1 AND t.target = $2 AND t.target_table = w.name AND t.state IN ('streaming', 'parked')
  JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.r";

/// Those of `tables` that are kept up and are there.
pub async fn read_borne(
    client: &Client,
    key: &StreamKey,
    tables: &[TableName],
) -> Result<Vec<Borne>, StateError> {
    let written: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|t| (t.schema.as_str(), t.table.as_str())).unzip();
    let rows = client.query(BORNE, &[&key.source, &key.target, &written, &schemas, &names]).await?;
    let mut borne = Vec::with_capacity(rows.len());
    for row in rows {
        let place: i64 = row.try_get(0)?;
        let table = usize::try_from(place - 1).ok().and_then(|index| tables.get(index));
        let (known, now) = (row.try_get(1)?, row.try_get(2)?);
        borne.extend(table.map(|table| Borne { table: table.clone(), known, now }));
    }
    Ok(borne)
}

/// Writes down that the rows of `table` are in the relation that bears its name; unless something else than `known` stands there by now.
pub async fn record(
    client: &Client,
    key: &StreamKey,
    table: &TableName,
    known: Option<Oid>,
) -> Result<(), StateError> {
    let sql = "UPDATE repcloud.table_state t SET state_oid = t.tableoid, target_oid = \
               (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $4 AND c.relname = $5) \
               WHERE source = $1 AND target = $2 AND target_table = $3 \
                 AND (CASE WHEN t.state_oid = t.tableoid THEN t.target_oid END) IS NOT DISTINCT FROM $6";
    let (name, schema) = (table.to_string(), &table.schema);
    client.execute(sql, &[&key.source, &key.target, &name, schema, &table.table, &known]).await?;
    Ok(())
}

/// A repack made `now` of `before`. Where its role could not write that down here ([`exchange`]), its own state tells it.
pub async fn was_repacked(client: &Client, before: Oid, now: Oid) -> Result<bool, StateError> {
    if !own_tables_readable(client, &["repack"]).await? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM repcloud.repack WHERE table_oid = $1 AND shadow_oid = $2 AND state IN ('swapped', 'cleaned'))";
    Ok(client.query_one(sql, &[&before, &now]).await?.try_get(0)?)
}

/// The statement by which a repack of `table` writes down, in the transaction that exchanges the two, that the rows are in its copy
/// now; `None`: no stream keeps its state here, or our role may not write it.
pub async fn exchange(client: &Client, table: Oid) -> Result<Option<String>, tokio_postgres::Error> {
    let may = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'state_oid' AND NOT a.attisdropped \
               WHERE n.nspname = 'repcloud' AND c.relname = 'table_state' \
                 AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE'))";
    let may: bool = client.query_one(may, &[]).await?.try_get(0)?;
    Ok(may.then(|| {
        format!(
            "UPDATE repcloud.table_state t SET target_oid = r.shadow_oid FROM repcloud.repack r \
             WHERE r.table_oid = {table} AND t.target_oid = r.table_oid AND t.state_oid = t.tableoid"
        )
    }))
}
