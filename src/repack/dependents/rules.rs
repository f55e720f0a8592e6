//! Rules: those of the table, and those of other tables and of views that name it. A rule's text is right as it stands once the names
//! have moved, so all are made in the exchange. Pure.

use serde::{Deserialize, Serialize};

use super::depend::{depending, exchanged, naming};
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::comment;

pub(super) const KIND: Kind = Kind {
    title: "rules of the table with their state and comments; rules of views and other tables that name the table or a materialized view of it",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. One that names only a materialized view of the table is among them: that is another one afterwards.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", named AS (SELECT oid FROM pg_rewrite WHERE ev_class = $1 UNION ",
    naming!("pg_rewrite"),
    ") SELECT r.oid::int8 AS oid, r.rulename AS name, n.nspname AS schema, c.relname AS table, c.oid = $1 AS own, \
       c.relkind::text AS kind, pg_get_ruledef(r.oid) AS definition, r.ev_enabled::text AS enabled, \
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS may_alter, \
       has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       obj_description(r.oid, 'pg_rewrite') AS comment \
     FROM named JOIN pg_rewrite r ON r.oid = named.oid AND r.rulename <> '_RETURN' \
     JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE r.ev_class = $1 OR n.nspname NOT IN ('repcloud_new', 'repcloud_old') \
     ORDER BY n.nspname, c.relname, r.rulename"
);

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Schema of the relation it is on.
    pub schema: String,
    /// The relation it is on.
    pub table: String,
    /// That is the table of the inventory.
    pub own: bool,
    /// `pg_class.relkind` of that relation.
    pub kind: String,
    /// CREATE RULE as the server prints it.
    pub definition: String,
    /// `pg_rewrite.ev_enabled`: `O` origin, `R` replica, `A` always, `D` disabled.
    pub enabled: String,
    /// Owner of the relation it is on.
    pub owner: String,
    /// Our role has the rights of that owner.
    pub may_alter: bool,
    /// Our role may lock that relation in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// Comment.
    pub comment: Option<String>,
}

impl Rule {
    /// The relation it is on.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// OR REPLACE keeps state and comment.
    fn replace(&self) -> Option<String> {
        let rest = self.definition.strip_prefix("CREATE RULE ")?;
        Some(format!("CREATE OR REPLACE RULE {}", statement(rest)))
    }
}

fn statement(text: &str) -> &str {
    text.trim_end().trim_end_matches(';')
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for rule in inventory.rules.iter().filter(|rule| !rule.own && !rule.may_alter) {
        let object = format!("rule {} on {}", quote_ident(&rule.name), rule.place());
        let belongs = format!("it names {}, {} belongs", inventory.table, rule.place());
        refusals.push(Refusal::without_rights(object, belongs, &rule.owner, &role));
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_rewrite" && inventory.rules.iter().any(|rule| rule.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for rule in &inventory.rules {
        let (name, place) = (quote_ident(&rule.name), rule.place());
        draft.forecast_ms += 0.4;
        if rule.own {
            draft.exchange(Phase::Repoint, statement(&rule.definition).to_owned());
            let state = match rule.enabled.as_str() {
                "D" => Some("DISABLE RULE"),
                "R" => Some("ENABLE REPLICA RULE"),
                "A" => Some("ENABLE ALWAYS RULE"),
                _ => None,
            };
            if let Some(state) = state {
                draft.exchange(Phase::Repoint, format!("ALTER TABLE {place} {state} {name}"));
            }
            if let Some(text) = comment(&format!("RULE {name} ON {place}"), rule.comment.as_deref()) {
                draft.exchange(Phase::Repoint, text);
            }
            continue;
        }
        if rule.kind == "v" {
            draft.lock_view(&place, &rule.owner);
        } else {
            draft.lock_namer(&place, &rule.owner, rule.may_lock);
        }
        let replaced = rule.replace().ok_or_else(|| PlanError::Definition {
            object: format!("rule {name} on {place}"),
            table: place.to_string(),
        })?;
        draft.exchange(Phase::Repoint, replaced);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_elsewhere_is_replaced_in_its_own_words() {
        let rule = Rule {
            oid: 1,
            name: "r".into(),
            schema: "public".into(),
            table: "v".into(),
            own: false,
            kind: "v".into(),
            definition: "CREATE RULE r AS\n    ON INSERT TO public.v DO INSTEAD  INSERT INTO public.t (a)\n  VALUES (new.a);".into(),
            enabled: "O".into(),
            owner: "app".into(),
            may_alter: true,
            may_lock: true,
            comment: None,
        };
        assert_eq!(
            rule.replace().unwrap(),
            "CREATE OR REPLACE RULE r AS\n    ON INSERT TO public.v DO INSTEAD  INSERT INTO public.t (a)\n  VALUES (new.a)"
        );
        assert_eq!(Rule { definition: "CREATE VIEW".into(), ..rule }.replace(), None);
    }
}
