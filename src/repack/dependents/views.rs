//! Views that name the table, or a materialized view that is made again with it, themselves. A view keeps its oid under CREATE OR REPLACE, so views over it, its grants, comments, defaults and
//! INSTEAD OF triggers stay by themselves. Pure.

use serde::{Deserialize, Serialize};

use super::depend::{depending, exchanged};
use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::options;

pub(super) const KIND: Kind = Kind {
    title: "views (chains, recursive, security_barrier, security_invoker, check options), with all that hangs on them",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. `uses`: what a view reads.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", rules AS (SELECT DISTINCT n.objid AS oid FROM exchanged e, ",
    depending!("pg_rewrite", on "pg_class", "e.oid"),
    " n), \
     direct AS (SELECT v.oid, r.oid AS rule FROM rules JOIN pg_rewrite r ON r.oid = rules.oid AND r.rulename = '_RETURN' \
       JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v') \
     SELECT v.oid::int8 AS oid, n.nspname AS schema, v.relname AS name, v.relnatts AS columns, pg_get_viewdef(v.oid) AS definition, \
       coalesce(v.reloptions, '{}') AS options, pg_get_userbyid(v.relowner) AS owner, \
       pg_has_role(v.relowner, 'USAGE') AS may_alter, has_schema_privilege(n.oid, 'CREATE') AS may_create, \
       (SELECT coalesce(json_agg(DISTINCT d.refobjid::int8), '[]') FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass \
          AND d.objid = direct.rule AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> direct.oid) AS uses \
     FROM direct JOIN pg_class v ON v.oid = direct.oid JOIN pg_namespace n ON n.oid = v.relnamespace \
     ORDER BY n.nspname, v.relname"
);

/// One view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many columns it has.
    pub columns: u32,
    /// Its query as the server prints it.
    pub definition: String,
    /// `security_barrier=true` and the like.
    pub options: Vec<String>,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may create in its schema, which CREATE OR REPLACE VIEW asks for.
    pub may_create: bool,
    /// Oids of the relations that it reads.
    pub uses: Vec<u32>,
}

impl View {
    /// Its name.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }

    /// What locking and replacing it takes: its columns are checked, and their dependencies written, one by one.
    fn replace_ms(&self) -> f64 {
        0.35 + 0.012 * self.columns as f64
    }

    /// Without WITH, OR REPLACE would drop the options.
    fn replace(&self) -> String {
        let with = match options("", &self.options) {
            list if list.is_empty() => String::new(),
            list => format!(" WITH ({})", list.join(", ")),
        };
        let query = self.definition.trim_end().trim_end_matches(';');
        format!("CREATE OR REPLACE VIEW {}{with} AS {query}", self.place())
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for view in &inventory.views {
        let object = format!("view {}", view.place());
        if !view.may_alter {
            refusals.push(Refusal::without_rights(&object, "it belongs", &view.owner, &role));
        }
        if !view.may_create {
            refusals.push(Refusal::without_create(&object, &view.schema, &role));
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_rewrite"
        && dependent.rule.as_deref() == Some("_RETURN")
        // A view over the row type cannot be replaced: its column would change type.
        && dependent.part_class != "pg_type"
        && inventory.views.iter().any(|view| Some(view.oid) == dependent.relation_oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for view in outer_first(&inventory.views) {
        draft.lock_view(&view.place(), &view.owner);
        draft.exchange(Phase::Repoint, view.replace());
        draft.forecast_ms += view.replace_ms();
    }
    Ok(())
}

/// Readers lock a view before what it reads.
fn outer_first(views: &[View]) -> Vec<&View> {
    let mut ordered: Vec<&View> = Vec::with_capacity(views.len());
    let mut waiting: Vec<&View> = views.iter().collect();
    while !waiting.is_empty() {
        let (used, free): (Vec<&View>, Vec<&View>) = waiting.iter().partition(|view| {
            waiting.iter().any(|other| other.oid != view.oid && other.uses.contains(&view.oid))
        });
        if free.is_empty() {
            // Views cannot use one another in a circle; should they, any order will do.
            ordered.extend(used);
            break;
        }
        ordered.extend(free);
        waiting = used;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(oid: u32, uses: &[u32]) -> View {
        View {
            oid,
            schema: "public".into(),
            name: format!("v{oid}"),
            columns: 1,
            definition: " SELECT 1;".into(),
            options: vec!["security_barrier=true".into()],
            owner: "app".into(),
            may_alter: true,
            may_create: true,
            uses: uses.to_vec(),
        }
    }

    #[test]
    fn locks_go_from_outer_to_inner() {
        let views = [view(1, &[]), view(2, &[1]), view(3, &[2, 1]), view(4, &[])];
        let order: Vec<u32> = outer_first(&views).iter().map(|view| view.oid).collect();
        assert_eq!(order, [3, 4, 2, 1]);
    }

    #[test]
    fn a_view_of_many_columns_takes_longer() {
        let wide = View { columns: 900, ..view(1, &[]) };
        assert!(view(1, &[]).replace_ms() < 0.5 && wide.replace_ms() > 10.0, "{}", wide.replace_ms());
    }

    #[test]
    fn options_survive_the_replacement() {
        assert_eq!(
            view(1, &[]).replace(),
            "CREATE OR REPLACE VIEW public.v1 WITH (security_barrier='true') AS  SELECT 1"
        );
    }
}
