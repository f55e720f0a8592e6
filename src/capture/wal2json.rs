//! What wal2json's decoder has to know of the tables it reads.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::setup::{SetupError, server};
use crate::catalog::TableDef;
use crate::decode::wal2json::{ColumnDetail, KnownTable, loses_numbers};
use crate::model::{Oid, Relation, RelationColumn, ReplicaIdentity, quote_ident};

/// Columns whose values can lie outside the row: what may be missing in an update.
const MAY_BE_LEFT_OUT: &str = "\
SELECT a.attrelid, a.attnum
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attlen = -1 AND a.attnum > 0 AND NOT a.attisdropped";

/// A storage table (an ordinary table, or a leaf) of which changes are read, and whether only inserts are.
pub type Wanted<'a> = (&'a TableDef, bool);

/// The tables as the decoder wants them; each once, a table that several entries want all of is wanted whole.
pub async fn known_tables(client: &Client, wanted: &[Wanted<'_>]) -> Result<Vec<KnownTable>, SetupError> {
    let oids: Vec<Oid> = wanted.iter().map(|(table, _)| table.oid).collect();
    let what = "reading which columns can lie outside the row";
    let mut left_out: BTreeMap<Oid, BTreeSet<i16>> = BTreeMap::new();
    for row in client.query(MAY_BE_LEFT_OUT, &[&oids]).await.map_err(server(what))? {
        let (table, attnum) = (row.try_get(0).map_err(server(what))?, row.try_get(1).map_err(server(what))?);
        left_out.entry(table).or_default().insert(attnum);
    }
    let mut tables: BTreeMap<Oid, KnownTable> = BTreeMap::new();
    for (table, insert_only) in wanted {
        let none = BTreeSet::new();
        let known = known_table(table, left_out.get(&table.oid).unwrap_or(&none), *insert_only);
        tables.entry(table.oid).and_modify(|t| t.insert_only &= insert_only).or_insert(known);
    }
    Ok(tables.into_values().collect())
}

fn known_table(table: &TableDef, left_out: &BTreeSet<i16>, insert_only: bool) -> KnownTable {
    let identity = table.identity_columns().unwrap_or_default();
    let stored = || table.columns.iter().filter(|c| c.generated.is_none());
    let columns = stored().map(|c| RelationColumn {
        name: c.name.clone(),
        type_oid: c.type_oid,
        type_modifier: c.type_modifier,
        in_identity: table.identity == ReplicaIdentity::Full || identity.contains(&c.name),
    });
    KnownTable {
        relation: Relation {
            oid: table.oid,
            name: table.name.clone(),
            identity: table.identity,
            columns: columns.collect(),
        },
        details: stored()
            .map(|c| ColumnDetail { attnum: c.attnum, may_be_left_out: left_out.contains(&c.attnum) })
            .collect(),
        generated: table.columns.iter().filter(|c| c.generated.is_some()).map(|c| c.name.clone()).collect(),
        insert_only,
    }
}

/// The columns among `columns` (all: `None`) that can hold NaN or an infinity which wal2json 2.5 sends as null.
pub fn lossy_columns(table: &TableDef, columns: Option<&[String]>) -> Vec<String> {
    table
        .columns
        .iter()
        .filter(|c| c.generated.is_none() && loses_numbers(c.type_oid))
        .filter(|c| columns.is_none_or(|names| names.contains(&c.name)))
        .map(|c| format!("{}.{}", table.name, quote_ident(&c.name)))
        .collect()
}
