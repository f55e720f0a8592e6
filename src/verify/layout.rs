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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::table_def::IdentityKind;
    use crate::model::{ReplicaIdentity, TableName};

    fn col(name: &str, type_sql: &str) -> ColumnDef {
        ColumnDef {
            name: name.into(),
            attnum: 1,
            type_oid: 0,
            type_modifier: -1,
            type_sql: type_sql.into(),
            input_type_sql: type_sql.into(),
            has_equality: type_sql != "json",
            collation: None,
            not_null: true,
            default: None,
            generated: None,
            identity: IdentityKind::None,
        }
    }

    fn table(columns: Vec<ColumnDef>) -> TableDef {
        TableDef {
            oid: 1,
            name: TableName::new("public", "t"),
            kind: TableKind::Ordinary,
            persistence: 'p',
            owner: "o".into(),
            columns,
            indexes: Vec::new(),
            constraints: Vec::new(),
            identity: ReplicaIdentity::Default,
            triggers: Vec::new(),
            row_security: (false, false),
            leaves: Vec::new(),
            pages: 0,
            estimated_rows: -1.0,
        }
    }

    fn spec(key: &[&str]) -> VerifySpec {
        let name = TableName::new("public", "t");
        VerifySpec::new(name.clone(), name, key.iter().map(|k| (*k).to_owned()).collect())
    }

    fn walk(source: ColumnDef, target: ColumnDef) -> Walk {
        plan(&spec(&["k"]), &table(vec![source]), &table(vec![target]), true).unwrap().walk
    }

    #[test]
    fn only_types_with_one_order_are_walked_in_it() {
        for (ours, theirs, expected) in [
            ("integer", "integer", Walk::Ordered),
            ("integer", "bigint", Walk::HashedKey),
            ("uuid", "uuid", Walk::Ordered),
            ("text", "text", Walk::HashedKey),
            ("public.mood", "public.mood", Walk::HashedKey),
            ("json", "json", Walk::HashedKey),
        ] {
            assert_eq!(walk(col("k", ours), col("k", theirs)), expected, "{ours} and {theirs}");
        }
        let c = || ColumnDef { collation: Some("pg_catalog.\"C\"".into()), ..col("k", "text") };
        assert_eq!(walk(c(), c()), Walk::Ordered);
        assert_eq!(walk(c(), col("k", "text")), Walk::HashedKey);
    }

    #[test]
    fn text_in_an_ordered_key_needs_one_encoding() {
        let both = table(vec![col("a", "integer"), col("b", "text")]);
        let with = |same| plan(&spec(&["a", "b"]), &both, &both, same).unwrap().walk;
        assert_eq!((with(true), with(false)), (Walk::Ordered, Walk::HashedKey));
    }

    #[test]
    fn a_key_that_may_be_null_is_no_key() {
        let nullable = ColumnDef { not_null: false, ..col("k", "integer") };
        assert_eq!(walk(col("k", "integer"), nullable.clone()), Walk::HashedRow);
        assert_eq!(walk(nullable, col("k", "integer")), Walk::HashedRow);
    }

    #[test]
    fn generated_columns_are_left_out_and_keys_taken_in() {
        let generated = ColumnDef { generated: Some("1".into()), ..col("g", "integer") };
        let both = table(vec![col("k", "integer"), col("v", "text"), generated]);
        assert_eq!(plan(&spec(&["k"]), &both, &both, true).unwrap().columns, ["k", "v"]);
        let some = VerifySpec { columns: vec!["g".into()], ..spec(&["k"]) };
        assert_eq!(plan(&some, &both, &both, true).unwrap().columns, ["g", "k"]);
    }

    #[test]
    fn missing_columns_are_named() {
        let (source, target) =
            (table(vec![col("k", "integer"), col("A b", "text")]), table(vec![col("k", "integer")]));
        let error = plan(&spec(&["k"]), &source, &target, true).unwrap_err();
        assert!(error.to_string().starts_with("target table public.t has no column \"A b\""), "{error}");
        let deleted =
            VerifySpec { deleted_column: Some("gone".into()), columns: vec!["k".into()], ..spec(&["k"]) };
        assert!(plan(&deleted, &source, &target, true).is_err());
    }
}
