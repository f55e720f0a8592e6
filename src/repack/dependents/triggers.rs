//! Triggers, without the internal ones that make constraints work. On the shadow they are disabled until the exchange: the applier's
//! rows must not fire them. A constraint trigger FROM the table (of another table, or of itself) can name it only after the exchange, and is made
//! in it. Pure.

use serde::{Deserialize, Serialize};

use super::depend::depending;
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, exchange_after};

pub(super) const KIND: Kind = Kind {
    title: "triggers and constraint triggers (WHEN, column lists, transition tables, deferrable, also those of other tables FROM the table) with their state and comments",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. Triggers that fill our own queue stay on the old table and go with it.
pub(super) const QUERY: &str = concat!(
    "WITH triggers AS (SELECT oid FROM pg_trigger WHERE tgrelid = $1 UNION SELECT n.objid FROM pg_class c, ",
    depending!("pg_trigger", on "pg_class", "c.oid"),
    " n WHERE c.oid = $1) SELECT t.oid::int8 AS oid, t.tgname AS name, pg_get_triggerdef(t.oid) AS definition, \
       t.tgenabled::text AS enabled, t.tgparentid <> 0 AS inherited, t.tgconstrrelid = $1 AS from_ours, \
       t.tgrelid = $1 AS own, n.nspname AS schema, c.relname AS table, pg_get_userbyid(c.relowner) AS owner, \
       pg_has_role(c.relowner, 'USAGE') AS may_alter, has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       has_function_privilege(t.tgfoid, 'EXECUTE') AS may_execute, \
       format('%I.%I', fn.nspname, f.proname) AS function, obj_description(t.oid, 'pg_trigger') AS comment \
     FROM triggers JOIN pg_trigger t ON t.oid = triggers.oid JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace fn ON fn.oid = f.pronamespace \
     WHERE (t.tgrelid = $1 OR t.tgconstrrelid = $1 AND n.nspname NOT IN ('repcloud_new', 'repcloud_old')) AND NOT t.tgisinternal \
       AND NOT (fn.nspname = 'repcloud' AND f.proname IN ('queue_' || $1::text || '_row', 'queue_' || $1::text || '_truncate')) ORDER BY n.nspname, c.relname, t.tgname"
);

/// One trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// CREATE TRIGGER as the server prints it.
    pub definition: String,
    /// `pg_trigger.tgenabled`: `O` origin, `R` replica, `A` always, `D` disabled.
    pub enabled: String,
    /// It comes from a partitioned table.
    pub inherited: bool,
    /// A constraint trigger FROM the table of the inventory.
    pub from_ours: bool,
    /// It is on the table of the inventory.
    pub own: bool,
    /// Schema of the table it is on.
    pub schema: String,
    /// The table it is on.
    pub table: String,
    /// Owner of that table.
    pub owner: String,
    /// Our role has the rights of that owner.
    pub may_alter: bool,
    /// Our role may LOCK that table.
    pub may_lock: bool,
    /// Our role may execute its function.
    pub may_execute: bool,
    /// Its function.
    pub function: String,
    /// Comment.
    pub comment: Option<String>,
}

impl Trigger {
    /// The table it is on.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// The subcommand that gives it its state.
    fn switch(&self) -> String {
        let word = match self.enabled.as_str() {
            "D" => "DISABLE",
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => "ENABLE",
        };
        format!("{word} TRIGGER {}", quote_ident(&self.name))
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    for trigger in &inventory.triggers {
        let object = format!("trigger {} on {}", quote_ident(&trigger.name), trigger.place());
        if !trigger.own && !trigger.may_alter {
            let role = quote_ident(&inventory.head.role);
            let belongs = format!("it is FROM {}, its table belongs", inventory.table);
            refusals.push(Refusal::without_rights(&object, belongs, &trigger.owner, &role));
        }
        if !trigger.may_execute {
            let role = quote_ident(&inventory.head.role);
            refusals.push(
                Refusal::new(
                    &object,
                    format!("role {role} may not execute its function {}", trigger.function),
                )
                .remedy(format!("GRANT EXECUTE ON FUNCTION {}() TO {role}", trigger.function)),
            );
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_trigger" && inventory.triggers.iter().any(|trigger| trigger.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for trigger in &inventory.triggers {
        let name = quote_ident(&trigger.name);
        if trigger.from_ours {
            make_in_exchange(trigger, draft);
            continue;
        }
        let shadow = draft.shadow.to_string();
        if trigger.inherited {
            // ATTACH makes it, in the state of the partitioned table's.
            let table = &inventory.table;
            draft.alter_other(Phase::AlterAttached, table, trigger.switch());
            let object = format!("TRIGGER {name} ON {table}");
            if let Some(statement) = comment(&object, trigger.comment.as_deref()) {
                draft.exchange(Phase::Comments, statement);
            }
            continue;
        }
        let moved = exchange_after(&trigger.definition, "ON", &inventory.head.sql_name, &shadow).ok_or_else(
            || PlanError::Definition {
                object: format!("trigger {name}"),
                table: inventory.table.to_string(),
            },
        )?;
        // One message, so one transaction: it never stands there enabled.
        draft.finish.push(format!("{moved}; ALTER TABLE {shadow} DISABLE TRIGGER {name}"));
        draft.finish.extend(comment(&format!("TRIGGER {name} ON {shadow}"), trigger.comment.as_deref()));
        if trigger.enabled != "D" {
            draft.alter_new(trigger.switch());
        }
        draft.forecast_ms += 0.1;
    }
    Ok(())
}

/// The text is right as it stands once the names have moved.
fn make_in_exchange(trigger: &Trigger, draft: &mut Draft<'_>) {
    let (name, place) = (quote_ident(&trigger.name), trigger.place());
    if !trigger.own {
        draft.lock_child(&place, &trigger.owner, trigger.may_lock);
        draft.exchange(Phase::LetGo, format!("DROP TRIGGER {name} ON {place}"));
    }
    draft.exchange(Phase::Return, trigger.definition.clone());
    if trigger.enabled != "O" {
        draft.exchange(Phase::Return, format!("ALTER TABLE {place} {}", trigger.switch()));
    }
    if let Some(comment) = comment(&format!("TRIGGER {name} ON {place}"), trigger.comment.as_deref()) {
        draft.exchange(Phase::Comments, comment);
    }
    draft.forecast_ms += 0.4;
}
