//! Columns that may point to large objects. Pure.

use super::finding::Finding;
use crate::catalog::TableDef;
use crate::model::{Oid, quote_ident};

const CHECK: &str = "large_objects";
/// `OIDOID`, and `OIDARRAYOID`.
const OID_TYPES: [Oid; 2] = [26, 1028];

/// Large objects stay where they are; the copy points to the same ones.
pub fn judge(table: &TableDef) -> Vec<Finding> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .filter(|c| OID_TYPES.contains(&c.type_oid) || c.type_sql == "lo" || c.type_sql.ends_with(".lo"))
        .map(|c| quote_ident(&c.name))
        .collect();
    if columns.is_empty() {
        return Vec::new();
    }
    let problem = format!(
        "{} may point to large objects: these are neither moved nor made smaller",
        columns.join(", ")
    );
    vec![Finding::warn(CHECK, &table.name, problem).help("run vacuumlo only when no repack is under way")]
}
