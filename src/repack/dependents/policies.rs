//! Policies of row level security: the table's own, and those of other tables that name it. On the shadow none is in the way: the owner is
//! exempt, and FORCE comes in the exchange. Pure.

use serde::{Deserialize, Serialize};

use super::depend::{depending, exchanged, naming};
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::comment;

pub(super) const KIND: Kind = Kind {
    title: "row level security (ENABLE, FORCE) with policies (roles, commands, USING, WITH CHECK) and comments; policies of other tables that name the table or a materialized view of it",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. One that names only a materialized view of the table is among them: that is another one afterwards.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", named AS (SELECT oid FROM pg_policy WHERE polrelid = $1 UNION ",
    naming!("pg_policy"),
    ") SELECT p.oid::int8 AS oid, p.polname AS name, n.nspname AS schema, c.relname AS table, c.oid = $1 AS own, \
       p.polpermissive AS permissive, p.polcmd::text AS command, \
       (SELECT json_agg(CASE u.role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(u.role)) END ORDER BY u.n) \
        FROM unnest(p.polroles) WITH ORDINALITY AS u(role, n)) AS roles, \
       pg_get_expr(p.polqual, p.polrelid) AS visible, pg_get_expr(p.polwithcheck, p.polrelid) AS checked, \
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS may_alter, \
       has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       obj_description(p.oid, 'pg_policy') AS comment \
     FROM named JOIN pg_policy p ON p.oid = named.oid \
     JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE p.polrelid = $1 OR n.nspname NOT IN ('repcloud_new', 'repcloud_old') \
     ORDER BY n.nspname, c.relname, p.polname"
);

/// One policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Schema of the table it is on.
    pub schema: String,
    /// The table it is on.
    pub table: String,
    /// That is the table of the inventory.
    pub own: bool,
    /// PERMISSIVE, else RESTRICTIVE.
    pub permissive: bool,
    /// `pg_policy.polcmd`: `r`, `a`, `w`, `d`, or `*` for all.
    pub command: String,
    /// Roles as SQL names them.
    pub roles: Vec<String>,
    /// USING.
    pub visible: Option<String>,
    /// WITH CHECK.
    pub checked: Option<String>,
    /// Owner of the table it is on.
    pub owner: String,
    /// Our role has the rights of that owner.
    pub may_alter: bool,
    /// Our role may lock that table in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// Comment.
    pub comment: Option<String>,
}

impl Policy {
    /// The table it is on.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    fn expressions(&self) -> String {
        let visible = self.visible.as_ref().map(|text| format!(" USING ({text})"));
        let checked = self.checked.as_ref().map(|text| format!(" WITH CHECK ({text})"));
        format!("{}{}", visible.unwrap_or_default(), checked.unwrap_or_default())
    }

    fn create(&self, on: &TableName) -> String {
        let sort = if self.permissive { "PERMISSIVE" } else { "RESTRICTIVE" };
        let command = match self.command.as_str() {
            "r" => "SELECT",
            "a" => "INSERT",
            "w" => "UPDATE",
            "d" => "DELETE",
            _ => "ALL",
        };
        let (name, roles) = (quote_ident(&self.name), self.roles.join(", "));
        format!("CREATE POLICY {name} ON {on} AS {sort} FOR {command} TO {roles}{}", self.expressions())
    }

    /// What its expressions say about the table itself, or about its row type, is right only when the names have moved.
    fn waits_for_exchange(&self, inventory: &Inventory) -> bool {
        let by_type = |other: &Dependent| {
            other.class == "pg_policy" && other.oid == self.oid && other.part_class == "pg_type"
        };
        self.expressions().contains(&inventory.head.sql_name) || inventory.others.iter().any(by_type)
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for policy in inventory.policies.iter().filter(|policy| !policy.own && !policy.may_alter) {
        let object = format!("policy {} on {}", quote_ident(&policy.name), policy.place());
        let belongs = format!("it names {}, its table belongs", inventory.table);
        refusals.push(Refusal::without_rights(object, belongs, &policy.owner, &role));
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_policy" && inventory.policies.iter().any(|policy| policy.oid == dependent.oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    if inventory.head.row_security {
        draft.settle_shadow("ENABLE ROW LEVEL SECURITY".into());
    }
    if inventory.head.force_row_security {
        draft.alter_new("FORCE ROW LEVEL SECURITY".into());
    }
    for policy in &inventory.policies {
        let name = quote_ident(&policy.name);
        if !policy.own {
            let place = policy.place();
            draft.lock_namer(&place, &policy.owner, policy.may_lock);
            draft.exchange(Phase::Repoint, format!("ALTER POLICY {name} ON {place}{}", policy.expressions()));
            draft.forecast_ms += 0.4;
        } else if policy.waits_for_exchange(inventory) {
            draft.exchange(Phase::Repoint, policy.create(&inventory.table));
            let object = format!("POLICY {name} ON {}", inventory.table);
            if let Some(statement) = comment(&object, policy.comment.as_deref()) {
                draft.exchange(Phase::Repoint, statement);
            }
            draft.forecast_ms += 0.3;
        } else {
            let shadow = draft.shadow.clone();
            draft.finish.push(policy.create(&shadow));
            draft.finish.extend(comment(&format!("POLICY {name} ON {shadow}"), policy.comment.as_deref()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_it_was() {
        let mut policy = Policy {
            oid: 1,
            name: "mine".into(),
            schema: "public".into(),
            table: "t".into(),
            own: true,
            permissive: false,
            command: "w".into(),
            roles: vec!["PUBLIC".into(), "\"Big\"".into()],
            visible: Some("(a > 0)".into()),
            checked: Some("(a < 9)".into()),
            owner: "app".into(),
            may_alter: true,
            may_lock: true,
            comment: None,
        };
        let shadow = TableName::new("repcloud_new", "t");
        assert_eq!(
            policy.create(&shadow),
            "CREATE POLICY mine ON repcloud_new.t AS RESTRICTIVE FOR UPDATE TO PUBLIC, \"Big\" USING ((a > 0)) WITH CHECK ((a < 9))"
        );
        (policy.permissive, policy.command, policy.visible) = (true, "a".into(), None);
        assert_eq!(
            policy.create(&shadow),
            "CREATE POLICY mine ON repcloud_new.t AS PERMISSIVE FOR INSERT TO PUBLIC, \"Big\" WITH CHECK ((a < 9))"
        );
    }
}
