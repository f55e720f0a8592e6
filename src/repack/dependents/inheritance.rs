//! Plain inheritance: the table as a child of another, and as the parent of others. Pure.
//!
//! A child's shadow is born under an empty template and gets the columns and checks it only inherits from there: so they stay inherited ones, and
//! nobody sees the shadow through the parent before the exchange.

use serde::{Deserialize, Serialize};

use super::{Check, Column, Dependent, Inventory, Kind, Refusal, column_order};
use crate::model::{Oid, TableName, quote_ident};
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::{PlanError, SHADOW_SCHEMA};

pub(super) const KIND: Kind = Kind {
    title: "inheritance: children of the table, and the table as a child, each of one parent",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. Partitions have a kind of their own.
pub(super) const QUERY: &str = "SELECT i.inhparent <> $1 AS above, o.oid::int8 AS relation_oid, n.nspname AS schema, o.relname AS table, \
       o.relkind::text AS kind, pg_get_userbyid(o.relowner) AS owner, pg_has_role(o.relowner, 'USAGE') AS may_alter, \
       has_table_privilege(o.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       (SELECT count(*) FROM pg_inherits x WHERE x.inhrelid = i.inhrelid) AS parents \
     FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition \
     JOIN pg_class o ON o.oid = CASE WHEN i.inhparent = $1 THEN i.inhrelid ELSE i.inhparent END \
     JOIN pg_namespace n ON n.oid = o.relnamespace \
     WHERE i.inhparent = $1 OR i.inhrelid = $1 ORDER BY 1, n.nspname, o.relname";

/// Another table in a line of inheritance with ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relative {
    /// It is a parent, else a child.
    pub above: bool,
    /// Its oid.
    pub relation_oid: Oid,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// `pg_class.relkind`.
    pub kind: String,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may lock it in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// How many parents the child of the two has.
    pub parents: i64,
}

impl Relative {
    fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

/// The empty parent of the shadow of a child.
pub(crate) fn template(table: Oid) -> TableName {
    TableName::new(SHADOW_SCHEMA, format!("parent of {table}"))
}

/// True when the table is a child.
pub(super) fn is_child(inventory: &Inventory) -> bool {
    inventory.relatives.iter().any(|relative| relative.above)
}

/// It comes from the parent alone.
fn only_inherited(inventory: &Inventory, inherited: bool, local: bool) -> bool {
    is_child(inventory) && inherited && !local
}

/// The check is made by the template.
pub(super) fn makes(inventory: &Inventory, check: &Check) -> bool {
    only_inherited(inventory, check.inherited, check.local)
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for relative in &inventory.relatives {
        let object = format!("table {}", relative.name());
        let what = if relative.above { "the table inherits from it" } else { "it inherits from the table" };
        if relative.kind != "r" {
            refusals.push(Refusal::new(
                &object,
                format!("{what}, and it is no ordinary table; not supported yet"),
            ));
        }
        if relative.parents > 1 {
            let reason =
                format!("{what} and from others, and the order of parents would change; not supported yet");
            let reason = if relative.above {
                "the table inherits from it and from others, and their order would change; not supported yet"
                    .to_owned()
            } else {
                reason
            };
            refusals.push(Refusal::new(&object, reason));
        }
        if !relative.may_alter {
            refusals.push(Refusal::without_rights(
                &object,
                format!("{what}; it belongs"),
                &relative.owner,
                &role,
            ));
        }
    }
    if !is_child(inventory) {
        return;
    }
    for check in &inventory.checks {
        let object = format!("constraint {} on {}", quote_ident(&check.name), inventory.table);
        if makes(inventory, check) && !check.validated {
            let reason = "it is inherited and NOT VALID; not supported yet";
            refusals.push(Refusal::new(object, reason).remedy("ALTER TABLE … VALIDATE CONSTRAINT"));
        } else if check.kind == "n" {
            refusals.push(Refusal::new(
                object,
                "it is a named NOT NULL constraint of a child; not supported yet",
            ));
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_class"
        && dependent.part_class == "pg_class"
        && inventory.relatives.iter().any(|child| !child.above && child.relation_oid == dependent.oid)
}

/// Makes the shadow of a child; `sort` and `storage` are the words of CREATE TABLE before and behind the name, `options` its storage parameters.
pub(super) fn create(
    inventory: &Inventory,
    draft: &mut Draft<'_>,
    (sort, storage): (&str, &str),
    options: &str,
) {
    let (shadow, template) = (draft.shadow.to_string(), template(inventory.oid));
    draft.create.push(format!("CREATE TABLE {template} ()"));
    draft.create.push(format!("CREATE {sort} {shadow} () INHERITS ({template}) {storage}"));
    let order = &draft.options.column_order;
    let place = |column: &Column| order.iter().position(|name| *name == column.name);
    let mut columns: Vec<&Column> = inventory.columns.iter().collect();
    columns.sort_by_key(|column| place(column));
    for column in columns {
        let inherited = only_inherited(inventory, column.inherited, column.local);
        let table = if inherited { template.to_string() } else { shadow.clone() };
        let definition = column_order::definition(inventory, column);
        draft.create.push(format!("ALTER TABLE {table} ADD COLUMN {definition}"));
    }
    for check in inventory.checks.iter().filter(|check| check.kind == "c" && makes(inventory, check)) {
        let name = quote_ident(&check.name);
        draft.create.push(format!("ALTER TABLE {template} ADD CONSTRAINT {name} {}", check.definition));
    }
    // Those of TOAST had no table to be set on while there were no columns.
    draft.create.push(format!("ALTER TABLE {shadow} SET ({options})"));
    column_order::storages(inventory).for_each(|storage| draft.alter_shadow(storage));
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let table = &inventory.table;
    for relative in &inventory.relatives {
        let other = relative.name();
        if relative.above {
            // Exclusively: who writes through it would else go on into the old table.
            draft.lock_parent(&other, &relative.owner, relative.may_lock);
            draft.exchange(Phase::LetGo, format!("ALTER TABLE {table} NO INHERIT {other}"));
            let template = template(inventory.oid);
            draft.exchange(Phase::Attach, format!("ALTER TABLE {table} INHERIT {other}"));
            draft.exchange(Phase::Attach, format!("ALTER TABLE {table} NO INHERIT {template}"));
            draft.drop_old.push(format!("DROP TABLE {template}"));
        } else {
            draft.lock_below(&other, &relative.owner, relative.may_lock);
            let old = draft.old.clone();
            // In this order, so that its columns are never without a parent: they would become its own.
            draft.exchange(Phase::Attach, format!("ALTER TABLE {other} INHERIT {table}"));
            draft.exchange(Phase::Attach, format!("ALTER TABLE {other} NO INHERIT {old}"));
        }
        draft.forecast_ms += 1.0;
    }
    Ok(())
}
