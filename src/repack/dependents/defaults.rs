//! Defaults of other tables that draw from an identity sequence of the table. The sequence is another one after the exchange, so they are
//! set again in it; their tables are locked before, so nobody draws from the old one any more. Pure.

use serde::{Deserialize, Serialize};

use super::depend::depending;
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};

pub(super) const KIND: Kind = Kind {
    title: "defaults of other tables that draw from an identity sequence of the table",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid.
pub(super) const QUERY: &str = concat!(
    "WITH drawing AS (SELECT DISTINCT n.objid AS oid FROM (SELECT s.objid FROM pg_depend s WHERE s.refclassid = 'pg_class'::regclass \
         AND s.refobjid = $1 AND s.refobjsubid > 0 AND s.classid = 'pg_class'::regclass AND s.deptype = 'i' OFFSET 0) s, ",
    depending!("pg_attrdef", on "pg_class", "s.objid"),
    " n) SELECT a.oid::int8 AS oid, n.nspname AS schema, c.relname AS table, u.attname AS column, \
       pg_get_expr(a.adbin, 0) AS expression, pg_get_userbyid(c.relowner) AS owner, \
       pg_has_role(c.relowner, 'USAGE') AS may_alter, has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock \
     FROM drawing JOIN pg_attrdef a ON a.oid = drawing.oid AND a.adrelid <> $1 \
     JOIN pg_class c ON c.oid = a.adrelid AND c.relkind = 'r' JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_attribute u ON u.attrelid = a.adrelid AND u.attnum = a.adnum AND u.attgenerated = '' \
     WHERE n.nspname NOT IN ('repcloud_new', 'repcloud_old') ORDER BY n.nspname, c.relname, u.attname"
);

/// One default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Default {
    /// Its oid.
    pub oid: u32,
    /// Schema of its table.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Its column.
    pub column: String,
    /// The default as SQL.
    pub expression: String,
    /// Owner of its table.
    pub owner: String,
    /// Our role has the rights of that owner.
    pub may_alter: bool,
    /// Our role may LOCK that table.
    pub may_lock: bool,
}

impl Default {
    /// Its table.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for default in inventory.defaults.iter().filter(|default| !default.may_alter) {
        let object = format!("column {}.{}", default.place(), quote_ident(&default.column));
        let belongs = format!("its default draws from a sequence of {}, its table belongs", inventory.table);
        refusals.push(Refusal::without_rights(object, belongs, &default.owner, &role));
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_attrdef" && inventory.defaults.iter().any(|default| default.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for default in &inventory.defaults {
        let place = default.place();
        draft.lock_child(&place, &default.owner, default.may_lock);
        let (column, expression) = (quote_ident(&default.column), &default.expression);
        let subcommand = format!("ALTER COLUMN {column} SET DEFAULT {expression}");
        draft.alter_other(Phase::AlterOthers, &place, subcommand);
        draft.forecast_ms += 0.3;
    }
    Ok(())
}
