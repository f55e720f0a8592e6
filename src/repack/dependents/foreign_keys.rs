//! Foreign keys of the table, of others to it, and to itself. Pure.
//!
//! None may exist on the shadow before the exchange: it would check clients against a table that lags. In the exchange they are made NOT VALID
//! (which scans nothing); those that were valid are validated after it.

use serde::{Deserialize, Serialize};

use super::depend::depending;
use super::partitions::SCAN_MS;
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::comment;
use crate::repack::plan::{AfterKind, PlanError};

pub(super) const KIND: Kind = Kind {
    title: "foreign keys of the table, to it and to itself, also deferrable and NOT VALID, with comments",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. No index leads from a table to the keys that reference it, but a dependency on its columns does.
pub(super) const QUERY: &str = concat!(
    "WITH keys AS (SELECT oid FROM pg_constraint WHERE conrelid = $1 UNION SELECT n.objid FROM pg_class c, ",
    depending!("pg_constraint", on "pg_class", "c.oid"),
    " n WHERE c.oid = $1) SELECT c.oid::int8 AS oid, c.conname AS name, rn.nspname AS schema, r.relname AS table, \
       fn.nspname AS referenced_schema, f.relname AS referenced_table, c.conrelid = $1 AS own, \
       c.confrelid = $1 AS incoming, pg_get_constraintdef(c.oid) AS definition, c.convalidated AS validated, \
       obj_description(c.oid, 'pg_constraint') AS comment, \
       r.relkind::text AS kind, f.relkind::text AS referenced_kind, c.conparentid <> 0 AS inherited, \
       (SELECT p.conname FROM pg_constraint p WHERE p.oid = c.conparentid) AS parent_name, \
       pg_has_role(r.relowner, 'USAGE') AS may_alter, pg_get_userbyid(r.relowner) AS owner, \
       has_table_privilege(f.oid, 'REFERENCES') OR NOT EXISTS (SELECT FROM unnest(c.confkey) AS k(attnum) \
         WHERE NOT has_column_privilege(f.oid, k.attnum, 'REFERENCES')) AS may_reference, \
       has_table_privilege(f.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       has_table_privilege(r.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock_referencing, \
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = c.oid AND t.tgenabled <> 'O') AS triggers_changed \
     FROM keys JOIN pg_constraint c ON c.oid = keys.oid JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace \
     JOIN pg_class f ON f.oid = c.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace \
     WHERE c.contype = 'f' AND (c.conrelid = $1 OR c.confrelid = $1) \
     ORDER BY rn.nspname, r.relname, c.conname"
);

/// One foreign key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Schema of the referencing table.
    pub schema: String,
    /// The referencing table.
    pub table: String,
    /// Schema of the referenced table.
    pub referenced_schema: String,
    /// The referenced table.
    pub referenced_table: String,
    /// The table of the inventory is the referencing one.
    pub own: bool,
    /// The table of the inventory is the referenced one.
    pub incoming: bool,
    /// As ALTER TABLE … ADD CONSTRAINT takes it.
    pub definition: String,
    /// Every row is known to satisfy it.
    pub validated: bool,
    /// Comment.
    pub comment: Option<String>,
    /// `pg_class.relkind` of the referencing table.
    pub kind: String,
    /// `pg_class.relkind` of the referenced table.
    pub referenced_kind: String,
    /// It is a part of a foreign key of a partitioned table.
    pub inherited: bool,
    /// The name of that foreign key.
    pub parent_name: Option<String>,
    /// Our role has the rights of the referencing table's owner.
    pub may_alter: bool,
    /// The referencing table's owner.
    pub owner: String,
    /// Our role has REFERENCES on the referenced table.
    pub may_reference: bool,
    /// Our role may lock the referenced table in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// Our role may lock the referencing table so.
    pub may_lock_referencing: bool,
    /// A superuser has changed the state of its internal triggers.
    pub triggers_changed: bool,
}

impl ForeignKey {
    /// The referencing table.
    pub fn referencing(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// The referenced table.
    pub fn referenced(&self) -> TableName {
        TableName::new(&self.referenced_schema, &self.referenced_table)
    }

    fn add(&self) -> String {
        let name = quote_ident(&self.name);
        // A NOT VALID key is printed so already; one that is NOT ENFORCED (PostgreSQL 18) is never checked.
        let checked = self.definition.ends_with(" NOT VALID") || self.definition.ends_with(" NOT ENFORCED");
        let suffix = if checked { "" } else { " NOT VALID" };
        format!("ADD CONSTRAINT {name} {}{suffix}", self.definition)
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    for key in &inventory.foreign_keys {
        let object = format!("foreign key {} on {}", quote_ident(&key.name), key.referencing());
        let role = quote_ident(&inventory.head.role);
        if key.triggers_changed {
            let reason =
                "a superuser has disabled its internal triggers, which only a superuser can do again";
            refusals.push(Refusal::new(&object, reason));
        }
        if !key.own && key.kind == "r" && key.inherited && !inventory.partition_of.is_empty() {
            let reason = "it references the partitioned table of this partition, which cannot be detached while rows reference it; not supported yet";
            refusals.push(Refusal::new(&object, reason).remedy("drop it for the time of the repack"));
        } else if !key.own && (key.kind != "r" || key.inherited) {
            refusals
                .push(Refusal::new(&object, "its table is partitioned or a partition; not supported yet"));
        } else if !key.own && !key.may_alter {
            refusals.push(Refusal::without_rights(&object, "its table belongs", &key.owner, &role));
        }
        if key.own && !key.incoming && !key.may_reference {
            let referenced = key.referenced();
            refusals.push(
                Refusal::new(&object, format!("role {role} has no REFERENCES on {referenced}"))
                    .remedy(format!("GRANT REFERENCES ON {referenced} TO {role}")),
            );
        }
        if key.own && key.inherited && key.parent_name.as_ref() != Some(&key.name) {
            let reason = format!(
                "it is part of {} of the partitioned table, under whose name it would be made again",
                key.parent_name.as_deref().map(quote_ident).unwrap_or_default()
            );
            refusals.push(Refusal::new(&object, reason).remedy("ALTER TABLE … RENAME CONSTRAINT"));
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_constraint" && inventory.foreign_keys.iter().any(|key| key.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for key in &inventory.foreign_keys {
        let referencing = key.referencing();
        let name = quote_ident(&key.name);
        if key.own && key.inherited {
            // ATTACH makes it and checks every row. One made before would be taken over only if it were valid, and then it
            // would check clients against a table that lags.
            let bytes: i64 = inventory.partition_of.iter().map(|partition| partition.bytes).sum();
            draft.scan_ms += bytes.max(0) as f64 * SCAN_MS;
            leave_referenced(key, draft);
        } else if key.own {
            draft.alter_new(key.add());
            draft.forecast_ms += 0.5;
            if !key.incoming {
                leave_referenced(key, draft);
            }
        } else {
            draft.lock_child(&referencing, &key.owner, key.may_lock_referencing);
            draft.alter_other(Phase::LetGo, &referencing, format!("DROP CONSTRAINT {name}"));
            draft.alter_other(Phase::AlterOthers, &referencing, key.add());
            draft.forecast_ms += 0.8;
        }
        let object = format!("CONSTRAINT {name} ON {referencing}");
        if let Some(statement) = comment(&object, key.comment.as_deref()) {
            draft.exchange(Phase::Comments, statement);
        }
        if key.validated && !(key.own && key.inherited) {
            draft.after(
                AfterKind::Validate,
                &format!("foreign key {name} on {referencing}"),
                format!("ALTER TABLE {referencing} VALIDATE CONSTRAINT {name}"),
            );
        }
    }
    Ok(())
}

/// The old table's key still acts on clients that delete in the referenced table. Dropping it takes ACCESS EXCLUSIVE there: with the
/// exchange when we may have that lock before it, otherwise right after, on its own.
fn leave_referenced(key: &ForeignKey, draft: &mut Draft<'_>) {
    let name = quote_ident(&key.name);
    let old = draft.old.clone();
    if key.may_lock && key.referenced_kind == "r" {
        draft.lock_referenced(&key.referenced());
        draft.alter_other(Phase::Leave, &old, format!("DROP CONSTRAINT {name}"));
    } else {
        draft.after(
            AfterKind::DropForeignKey,
            &format!("foreign key {name} on {old}"),
            format!("ALTER TABLE {old} DROP CONSTRAINT {name}"),
        );
    }
}
