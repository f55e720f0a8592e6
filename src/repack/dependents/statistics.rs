//! Extended statistics. They do not move with their table: each has its own SET SCHEMA. Pure.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, exchange_after};

pub(super) const KIND: Kind =
    Kind { title: "extended statistics with targets and comments", refuse, claims, plan };

/// $1 the table's oid.
pub(super) const QUERY: &str = "SELECT s.oid::int8 AS oid, n.nspname AS schema, s.stxname AS name, \
       format('%I.%I', n.nspname, s.stxname) AS sql_name, pg_get_statisticsobjdef(s.oid) AS definition, \
       nullif(s.stxstattarget, -1) AS target, pg_get_userbyid(s.stxowner) AS owner, \
       pg_has_role(s.stxowner, 'USAGE') AS may_alter, has_schema_privilege(n.oid, 'CREATE') AS may_create, \
       obj_description(s.oid, 'pg_statistic_ext') AS comment \
     FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1 \
     ORDER BY n.nspname, s.stxname";

/// One object of extended statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its name as the server writes it in the definition.
    pub sql_name: String,
    /// CREATE STATISTICS as the server prints it.
    pub definition: String,
    /// Its own target.
    pub target: Option<i32>,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may create in its schema.
    pub may_create: bool,
    /// Comment.
    pub comment: Option<String>,
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for (at, statistics) in inventory.statistics.iter().enumerate() {
        let object = format!("statistics {}", statistics.sql_name);
        if !statistics.may_alter {
            refusals.push(Refusal::new(
                &object,
                format!(
                    "they belong to {}, and {role} does not inherit that role's rights",
                    statistics.owner
                ),
            ));
        }
        if !statistics.may_create {
            refusals.push(Refusal::new(&object, format!("role {role} has no CREATE on their schema")));
        }
        if inventory.statistics.iter().take(at).any(|other| other.name == statistics.name) {
            let reason = "other statistics of the table have the same name in another schema, and both would be built in one";
            refusals.push(Refusal::new(&object, reason).remedy("rename one of them"));
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_statistic_ext" && inventory.statistics.iter().any(|s| s.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for statistics in &inventory.statistics {
        let shadow = draft.shadow.clone();
        carry(statistics, (&inventory.head.sql_name, &shadow), &inventory.head.role, draft)?;
    }
    Ok(())
}

/// Statistics of a relation that the server calls `from`, made again for `to` by `role`.
pub(super) fn carry(
    statistics: &Statistics,
    (from, to): (&str, &TableName),
    role: &str,
    draft: &mut Draft<'_>,
) -> Result<(), PlanError> {
    let place = TableName::new(&statistics.schema, &statistics.name);
    let new = TableName::new(&draft.shadow.schema, &statistics.name);
    let moved = exchange_after(&statistics.definition, "FROM", from, &to.to_string())
        .and_then(|text| exchange_after(&text, "STATISTICS", &statistics.sql_name, &new.to_string()))
        .ok_or_else(|| PlanError::Definition {
            object: format!("statistics {place}"),
            table: from.to_owned(),
        })?;
    draft.finish.push(moved);
    if let Some(target) = statistics.target {
        draft.finish.push(format!("ALTER STATISTICS {new} SET STATISTICS {target}"));
    }
    if statistics.owner != role {
        draft.finish.push(format!("ALTER STATISTICS {new} OWNER TO {}", quote_ident(&statistics.owner)));
    }
    draft.finish.extend(comment(&format!("STATISTICS {new}"), statistics.comment.as_deref()));
    let aside = quote_ident(&draft.old.schema);
    draft.exchange(Phase::Aside, format!("ALTER STATISTICS {place} SET SCHEMA {aside}"));
    let home = quote_ident(&statistics.schema);
    draft.exchange(Phase::Return, format!("ALTER STATISTICS {new} SET SCHEMA {home}"));
    draft.forecast_ms += 0.3;
    Ok(())
}
