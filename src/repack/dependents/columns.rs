//! Columns: types, defaults, generated columns, storage, statistics, grants, comments. Pure.
//!
//! `LIKE` makes names, types, collations, NOT NULL, defaults, generation expressions, storage and compression; dropped columns vanish, so
//! everything else is carried by name.

use serde::{Deserialize, Serialize};

use super::grants::{Grant, acl, column_statements, foreign_grantor};
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, options};

pub(super) const KIND: Kind = Kind {
    title: "columns with defaults, generated columns, storage, compression, statistics targets, n_distinct, grants and comments",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. The server's own mark among the options (`pg_attver`, `proto-notes/repack.md`) is no setting of anybody's. A default
/// names no columns: with 0 for the relation the server does not make a list of all their names for each (3 ms of 900, before PostgreSQL 18).
pub(super) const QUERY: &str = concat!(
    "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null, \
       a.attidentity::text AS identity, a.attgenerated::text AS generated, \
       pg_get_expr(d.adbin, CASE WHEN a.attgenerated = '' THEN 0 ELSE d.adrelid END) AS expression, a.attstorage::text AS storage, \
       a.attcompression::text AS compression, nullif(a.attstattarget, -1) AS statistics_target, \
       CASE WHEN a.attoptions IS NULL THEN '{}' ELSE (SELECT coalesce(array_agg(o ORDER BY n), '{}') FROM unnest(a.attoptions) WITH ORDINALITY AS u(o, n) \
        WHERE o NOT LIKE 'pg\\_attver=%') END AS options, \
       (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co \
        JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation) AS collation, \
       NOT a.attislocal OR a.attinhcount > 0 AS inherited, a.attislocal AS local, ",
    acl!("a.attacl"),
    " AS grants, \
       col_description(a.attrelid, a.attnum) AS comment \
     FROM pg_attribute a LEFT JOIN LATERAL (SELECT * FROM pg_attrdef WHERE adrelid = a.attrelid AND adnum = a.attnum OFFSET 0) d ON true \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
);

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Identity: `a` always, `d` by default, empty for none.
    pub identity: String,
    /// Generated: `s` stored, `v` virtual, empty for none.
    pub generated: String,
    /// The default, or the generation expression.
    pub expression: Option<String>,
    /// `pg_attribute.attstorage`.
    pub storage: String,
    /// `pg_attribute.attcompression`, empty for the default.
    pub compression: String,
    /// Its own statistics target.
    pub statistics_target: Option<i32>,
    /// `n_distinct=…` and the like.
    pub options: Vec<String>,
    /// Its collation.
    pub collation: Option<String>,
    /// It comes from a parent table.
    pub inherited: bool,
    /// It is the table's own (too).
    pub local: bool,
    /// Grants on the column alone.
    pub grants: Option<Vec<Grant>>,
    /// Comment.
    pub comment: Option<String>,
}

impl Column {
    /// Computed by the server, never written.
    pub fn is_generated(&self) -> bool {
        !self.generated.is_empty()
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    for column in &inventory.columns {
        let object = format!("column {}.{}", inventory.table, quote_ident(&column.name));
        if let Some(grant) = foreign_grantor(column.grants.as_deref().unwrap_or_default(), &inventory.owner) {
            refusals.push(Refusal::new(
                object,
                format!(
                    "role {} granted {} on it, and {} is not a member of that role",
                    grant.grantor, grant.privilege, inventory.head.role
                ),
            ));
        }
    }
    if inventory.columns.iter().all(Column::is_generated) {
        refusals.push(Refusal::new(format!("table {}", inventory.table), "it has no column to copy"));
    }
}

fn claims(_: &Inventory, _: &Dependent) -> bool {
    false
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let shadow = draft.shadow.to_string();
    let table = inventory.table.to_string();
    for column in &inventory.columns {
        let name = quote_ident(&column.name);
        // A default of the shadow that draws from a sequence of the table would keep people from dropping the table meanwhile.
        if let Some(default) =
            column.expression.as_deref().filter(|d| !column.is_generated() && d.contains("nextval("))
        {
            draft.alter_shadow(format!("ALTER COLUMN {name} DROP DEFAULT"));
            draft.alter_new(format!("ALTER COLUMN {name} SET DEFAULT {default}"));
        }
        if let Some(target) = column.statistics_target {
            draft.alter_shadow(format!("ALTER COLUMN {name} SET STATISTICS {target}"));
        }
        if !column.options.is_empty() {
            let list = options("", &column.options).join(", ");
            draft.alter_shadow(format!("ALTER COLUMN {name} SET ({list})"));
        }
        draft.finish.extend(comment(&format!("COLUMN {shadow}.{name}"), column.comment.as_deref()));
        let grants = column.grants.as_deref().unwrap_or_default();
        if grants.iter().any(|grant| grant.grantor != inventory.owner) {
            for grant in column_statements(grants, &column.name, &format!("TABLE {table}"), &inventory.owner)
            {
                draft.exchange(Phase::Grants, grant);
            }
        } else {
            draft.finish.extend(column_statements(
                grants,
                &column.name,
                &format!("TABLE {shadow}"),
                &inventory.owner,
            ));
        }
    }
    Ok(())
}
