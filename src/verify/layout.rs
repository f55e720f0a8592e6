//! How two tables can be compared: which columns, in which order. Pure.

use crate::catalog::table_def::{ColumnDef, TableDef, TableKind};
use crate::model::quote_ident;
use crate::verify::error::{Place, VerifyError};
use crate::verify::spec::VerifySpec;

/// How the tables are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// In ranges of the key, along an index where there is one.
    Ordered,
    /// By a hash of the key: the two servers need not agree on the key's order, or could not use an index for it.
    HashedKey,
    /// By a hash of the row: there is no key.
    HashedRow,
}

/// One key column, the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    pub(crate) order: Order,
    /// Type by whose equality a row is found again; `None`: by its text.
    pub(crate) equal_as: Option<String>,
}

/// How a key column is ordered, the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// By its type, named as a cast needs it.
    Native(String),
    /// By the bytes of its text.
    Bytes,
}

/// What both sides have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) walk: Walk,
    pub(crate) columns: Vec<String>,
    /// Empty for [`Walk::HashedRow`].
    pub(crate) key: Vec<KeyColumn>,
}

/// Types with one order on every server: no collation, no labels that could be sorted otherwise.
const NATIVE: &[&str] = &[
    "bigint",
    "boolean",
    "bytea",
    "date",
    "double precision",
    "integer",
    "numeric",
    "oid",
    "real",
    "smallint",
    "time without time zone",
    "timestamp with time zone",
    "timestamp without time zone",
    "uuid",
];

/// Chooses columns and walk. `same_encoding`: the two databases store text in the same encoding.
pub(crate) fn plan(
    spec: &VerifySpec,
    source: &TableDef,
    target: &TableDef,
    same_encoding: bool,
) -> Result<Layout, VerifyError> {
    for (place, table) in [(Place::Source, source), (Place::Target, target)] {
        if let TableKind::Other(_) = table.kind {
            return Err(VerifyError::NotATable { place, table: table.name.clone() });
        }
    }
    let mut columns = if spec.columns.is_empty() {
        source.columns.iter().filter(|c| c.generated.is_none()).map(|c| c.name.clone()).collect()
    } else {
        spec.columns.clone()
    };
    for name in &spec.key {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    for name in &columns {
        column(source, name, Place::Source)?;
        column(target, name, Place::Target)?;
    }
    if let Some(name) = &spec.deleted_column {
        column(target, name, Place::Target)?;
    }
    let mut key = Vec::new();
    let mut index_may_help = false;
    for (at, name) in spec.key.iter().enumerate() {
        let (ours, theirs) = (column(source, name, Place::Source)?, column(target, name, Place::Target)?);
        if !(ours.not_null && theirs.not_null) {
            return Ok(Layout { walk: Walk::HashedRow, columns, key: Vec::new() });
        }
        let one = key_column(ours, theirs);
        if at == 0 {
            index_may_help = one.order != Order::Bytes || (is_c(ours) && is_c(theirs));
        }
        key.push(one);
    }
    let walk = match key.is_empty() {
        true => Walk::HashedRow,
        false if index_may_help && (same_encoding || key.iter().all(|k| k.order != Order::Bytes)) => {
            Walk::Ordered
        }
        false => Walk::HashedKey,
    };
    Ok(Layout { walk, columns, key })
}

fn column<'a>(table: &'a TableDef, name: &str, place: Place) -> Result<&'a ColumnDef, VerifyError> {
    table.column(name).ok_or_else(|| VerifyError::NoColumn {
        place,
        table: table.name.clone(),
        column: quote_ident(name),
    })
}

fn key_column(source: &ColumnDef, target: &ColumnDef) -> KeyColumn {
    let same = source.input_type_sql == target.input_type_sql;
    let name = source.name.clone();
    let equal_as =
        (same && source.has_equality && target.has_equality).then(|| source.input_type_sql.clone());
    let order = match &equal_as {
        Some(native) if NATIVE.contains(&native.as_str()) => Order::Native(native.clone()),
        _ => Order::Bytes,
    };
    KeyColumn { name, order, equal_as }
}

/// An index on the column is in the order of bytes.
fn is_c(column: &ColumnDef) -> bool {
    matches!(column.collation.as_deref(), Some("\"C\"" | "pg_catalog.\"C\""))
        && matches!(column.input_type_sql.as_str(), "text" | "character varying")
}

/// SQL for "this column of the table is NULL".
pub(crate) fn is_null(table: &TableDef, column: &str) -> String {
    format!("{}.{} IS NULL", quote_ident(&table.name.table), quote_ident(column))
}
