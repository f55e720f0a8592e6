//! CHECK constraints: those that hold are on the shadow before the rows, those that are NOT VALID come after them. Pure.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal, inheritance};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::Draft;
use crate::repack::plan::text::comment;

pub(super) const KIND: Kind =
    Kind { title: "CHECK constraints, also NOT VALID and NO INHERIT, with comments", refuse, claims, plan };

/// $1 the table's oid. `n`: the named NOT NULL constraints of PostgreSQL 18, which LIKE copies.
pub(super) const QUERY: &str = "SELECT c.oid::int8 AS oid, c.conname AS name, c.contype::text AS type, \
       pg_get_constraintdef(c.oid) AS definition, c.convalidated AS validated, c.conislocal AS local, \
       NOT c.conislocal OR c.coninhcount > 0 AS inherited, obj_description(c.oid, 'pg_constraint') AS comment \
     FROM pg_constraint c WHERE c.conrelid = $1 AND c.contype IN ('c', 'n') ORDER BY c.conname, c.oid";

/// One CHECK constraint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// `c`: CHECK, `n`: NOT NULL.
    #[serde(rename = "type")]
    pub kind: String,
    /// As ALTER TABLE … ADD CONSTRAINT takes it.
    pub definition: String,
    /// Every row is known to satisfy it.
    pub validated: bool,
    /// It comes from a parent table.
    pub inherited: bool,
    /// It is the table's own (too).
    pub local: bool,
    /// Comment.
    pub comment: Option<String>,
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    for check in inventory.checks.iter().filter(|check| check.kind == "n" && !check.validated) {
        refusals.push(
            Refusal::new(
                format!("constraint {} on {}", quote_ident(&check.name), inventory.table),
                "it is a NOT NULL constraint that is NOT VALID; not supported yet",
            )
            .remedy("ALTER TABLE … VALIDATE CONSTRAINT"),
        );
    }
}

fn claims(_: &Inventory, _: &Dependent) -> bool {
    false
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for check in &inventory.checks {
        let name = quote_ident(&check.name);
        if check.kind == "c" && !inheritance::makes(inventory, check) {
            let add = format!("ADD CONSTRAINT {name} {}", check.definition);
            if check.validated {
                draft.alter_shadow(add);
            } else {
                // Old rows may violate it. Were it there before, the copy would fail.
                draft.settle_shadow(add);
            }
        }
        let object = format!("CONSTRAINT {name} ON {}", draft.shadow);
        draft.finish.extend(comment(&object, check.comment.as_deref()));
    }
    Ok(())
}
