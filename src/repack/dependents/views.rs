//! Views that name the table, or a materialized view that is made again with it, themselves. A view keeps its oid under CREATE OR REPLACE, so views over it, its grants, comments, defaults and
//! INSTEAD OF triggers stay by themselves. Pure.

use serde::{Deserialize, Serialize};

use super::matviews::exchanged;
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

/// $1 the table's oid. `uses`: the views a view reads, of the same list.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", direct AS (SELECT DISTINCT r.ev_class AS oid FROM pg_rewrite r \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM exchanged) \
       JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' WHERE r.rulename = '_RETURN'), \
     reads AS (SELECT DISTINCT r.ev_class AS oid, d.refobjid AS uses FROM pg_rewrite r \
       JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         AND d.refclassid = 'pg_class'::regclass \
       WHERE r.rulename = '_RETURN' AND r.ev_class IN (SELECT oid FROM direct) AND d.refobjid <> r.ev_class) \
     SELECT v.oid::int8 AS oid, n.nspname AS schema, v.relname AS name, pg_get_viewdef(v.oid) AS definition, \
       coalesce(v.reloptions, '{}') AS options, pg_get_userbyid(v.relowner) AS owner, \
       pg_has_role(v.relowner, 'USAGE') AS may_alter, has_schema_privilege(n.oid, 'CREATE') AS may_create, \
       (SELECT coalesce(json_agg(u.uses::int8 ORDER BY u.uses), '[]') FROM reads u \
        WHERE u.oid = v.oid AND u.uses IN (SELECT oid FROM direct)) AS uses \
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
    /// Oids of those of these views that it reads.
    pub uses: Vec<u32>,
}

impl View {
    /// Its name.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
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
        draft.forecast_ms += 0.4;
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
    fn options_survive_the_replacement() {
        assert_eq!(
            view(1, &[]).replace(),
            "CREATE OR REPLACE VIEW public.v1 WITH (security_barrier='true') AS  SELECT 1"
        );
    }
}
