//! Functions and procedures whose body (`BEGIN ATOMIC`, `RETURN`) is bound to the table. OR REPLACE binds them to the new one; owner, grants,
//! comment and whatever uses them stay. Pure.
//!
//! A function cannot be locked: a call that waits inside one for the exchange goes on with the old table. What it reads is as at the
//! exchange; what it writes would be lost, so a guard on the old table refuses it with 40001, and the application tries again.

use serde::{Deserialize, Serialize};

use super::depend::{depending, exchanged};
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};

pub(super) const KIND: Kind = Kind {
    title: "functions and procedures whose body is bound to the table (BEGIN ATOMIC, RETURN); a call that waits in one for the exchange and writes gets 40001 once",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", named AS (SELECT n.objid AS oid FROM exchanged e, ",
    depending!("pg_proc", on "pg_class", "e.oid"),
    " n UNION SELECT n.objid FROM pg_constraint c, ",
    depending!("pg_proc", on "pg_constraint", "c.oid"),
    " n WHERE c.conrelid = $1) SELECT p.oid::int8 AS oid, p.oid::regprocedure::text AS signature, n.nspname AS schema, \
       pg_get_functiondef(p.oid) AS definition, pg_get_userbyid(p.proowner) AS owner, \
       pg_has_role(p.proowner, 'USAGE') AS may_alter, has_schema_privilege(n.oid, 'CREATE') AS may_create \
     FROM named JOIN pg_proc p ON p.oid = named.oid AND p.prokind IN ('f', 'p') JOIN pg_namespace n ON n.oid = p.pronamespace \
     ORDER BY p.oid::regprocedure::text"
);

/// One function or procedure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// Its oid.
    pub oid: u32,
    /// Name and argument types.
    pub signature: String,
    /// Its schema.
    pub schema: String,
    /// CREATE OR REPLACE as the server prints it.
    pub definition: String,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may create in its schema, which OR REPLACE asks for.
    pub may_create: bool,
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for function in &inventory.functions {
        let object = format!("function {}", function.signature);
        if !function.may_alter {
            let belongs = "its body is bound to the table, it belongs";
            refusals.push(Refusal::without_rights(object, belongs, &function.owner, &role));
        } else if !function.may_create {
            refusals.push(Refusal::without_create(object, &function.schema, &role));
        }
    }
}

/// One that also has the row type in its signature cannot be replaced: that dependency stays unclaimed.
fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_proc"
        && dependent.part_class != "pg_type"
        && inventory.functions.iter().any(|function| function.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for function in &inventory.functions {
        draft.exchange(Phase::Repoint, function.definition.trim_end().to_owned());
        draft.forecast_ms += 0.4;
    }
    if !inventory.functions.is_empty() {
        guard(inventory, draft);
    }
    Ok(())
}

/// Cascades of foreign keys that the old table still has for a moment pass: they come from other triggers.
fn guard(inventory: &Inventory, draft: &mut Draft<'_>) {
    let old = draft.old.clone();
    let function = format!("{}.repcloud_guard_{}()", quote_ident(&old.schema), inventory.oid);
    draft.exchange(
        Phase::Leave,
        format!(
            "CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN IF pg_catalog.pg_trigger_depth() = 1 THEN RAISE EXCEPTION USING ERRCODE = ''40001'', \
             MESSAGE = ''the table was rebuilt while this statement waited; try again''; END IF; RETURN NULL; END'"
        ),
    );
    draft.exchange(
        Phase::Leave,
        format!(
            "CREATE TRIGGER repcloud_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {old} \
             FOR EACH STATEMENT EXECUTE FUNCTION {function}"
        ),
    );
    draft.drop_old.push(format!("DROP FUNCTION {function}"));
    draft.forecast_ms += 0.5;
}
