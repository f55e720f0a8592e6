//! Triggers, without the internal ones that make constraints work. On the shadow they are disabled until the exchange: the applier's
//! rows must not fire them. Pure.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, exchange_after};

pub(super) const KIND: Kind = Kind {
    title: "triggers and constraint triggers (WHEN, column lists, transition tables, deferrable) with their state and comments",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. Triggers that fill our own queue stay on the old table and go with it.
pub(super) const QUERY: &str = "SELECT t.oid::int8 AS oid, t.tgname AS name, pg_get_triggerdef(t.oid) AS definition, \
       t.tgenabled::text AS enabled, t.tgparentid <> 0 AS inherited, t.tgconstrrelid = t.tgrelid AS from_itself, \
       has_function_privilege(t.tgfoid, 'EXECUTE') AS may_execute, \
       format('%I.%I', fn.nspname, f.proname) AS function, obj_description(t.oid, 'pg_trigger') AS comment \
     FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace fn ON fn.oid = f.pronamespace \
     WHERE t.tgrelid = $1 AND NOT t.tgisinternal \
       AND NOT (fn.nspname = 'repcloud' AND f.proname IN ('queue_' || $1::text || '_row', 'queue_' || $1::text || '_truncate')) ORDER BY t.tgname";

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
    /// A constraint trigger FROM its own table.
    pub from_itself: bool,
    /// Our role may execute its function.
    pub may_execute: bool,
    /// Its function.
    pub function: String,
    /// Comment.
    pub comment: Option<String>,
}

impl Trigger {
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
        let object = format!("trigger {} on {}", quote_ident(&trigger.name), inventory.table);
        if trigger.from_itself {
            refusals.push(Refusal::new(
                &object,
                "it is a constraint trigger FROM its own table; not supported yet",
            ));
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
