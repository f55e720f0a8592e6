//! Materialized views that read the table themselves, or read such a one. Their query cannot be replaced, so each is made again over the
//! shadow, without rows; it is filled shortly before the exchange and moved in it. One over a view of the table needs nothing: a view keeps its oid. Pure.

use serde::{Deserialize, Serialize};

use super::depend::{depending, exchanged};
use super::grants::{Acl, Grant, acl, column_statements, foreign_grantor};
use super::{Column, Dependent, Index, Inventory, Kind, Refusal, Statistics, statistics};
use crate::model::{TableName, quote_ident, quote_literal};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, exchange_after, exchange_name, insert_before, options};

pub(super) const KIND: Kind = Kind {
    title: "materialized views, also over one another, with indexes, statistics, options, grants and comments; they are filled anew just before the exchange",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. Columns, indexes and statistics have the queries of their kinds.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    " SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, format('%I.%I', n.nspname, c.relname) AS sql_name, \
       pg_get_viewdef(c.oid) AS definition, c.relispopulated AS populated, coalesce(c.reloptions, '{}') AS options, \
       coalesce(t.reloptions, '{}') AS toast_options, am.amname AS access_method, coalesce(s.spcname, ds.spcname) AS tablespace, \
       s.oid IS NULL OR has_tablespace_privilege(s.oid, 'CREATE') AS may_use_tablespace, \
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS may_alter, \
       has_schema_privilege(n.oid, 'CREATE') AS may_create, obj_description(c.oid, 'pg_class') AS comment, \
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
         AND d.refclassid = 'pg_extension'::regclass) AS of_extension, \
       EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = c.oid) AS security_labels, \
       (SELECT coalesce(json_agg(DISTINCT d.refobjid::int8), '[]') FROM pg_rewrite r JOIN pg_depend d \
          ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass \
        WHERE r.ev_class = c.oid AND d.refobjid <> c.oid AND d.refobjid IN (SELECT oid FROM exchanged)) AS uses, ",
    acl!("c.relacl"),
    " AS grants, ",
    acl!("acldefault('r', c.relowner)"),
    " AS standard_grants \
     FROM exchanged e JOIN pg_class c ON c.oid = e.oid AND c.relkind = 'm' JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_am am ON am.oid = c.relam JOIN pg_database b ON b.datname = current_database() \
     JOIN pg_tablespace ds ON ds.oid = b.dattablespace LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace AND c.reltablespace <> 0 \
     LEFT JOIN pg_class t ON t.oid = c.reltoastrelid ORDER BY n.nspname, c.relname"
);

/// One materialized view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matview {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its name as the server writes it in definitions.
    pub sql_name: String,
    /// Its query as the server prints it.
    pub definition: String,
    /// It can be read.
    pub populated: bool,
    /// `name=value` each.
    pub options: Vec<String>,
    /// Those of its TOAST table.
    pub toast_options: Vec<String>,
    /// Its table access method.
    pub access_method: String,
    /// Its tablespace, the database's when it has none of its own.
    pub tablespace: String,
    /// Our role may create in it.
    pub may_use_tablespace: bool,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may create in its schema.
    pub may_create: bool,
    /// Comment.
    pub comment: Option<String>,
    /// An extension owns it.
    pub of_extension: bool,
    /// It has security labels.
    pub security_labels: bool,
    /// Oids of the table and of those of these materialized views that it reads.
    pub uses: Vec<u32>,
    /// Grants; `None`: never changed.
    pub grants: Option<Vec<Grant>>,
    /// What its owner has when nothing was granted.
    pub standard_grants: Vec<Grant>,
    /// Its columns.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Its indexes.
    #[serde(default)]
    pub indexes: Vec<Index>,
    /// Its extended statistics.
    #[serde(default)]
    pub statistics: Vec<Statistics>,
}

impl Matview {
    /// Its name.
    pub fn place(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }

    fn relation_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.indexes.iter().map(|index| index.name.as_str()))
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let mut names: Vec<&str> = vec![&inventory.table.table];
    names.extend(inventory.indexes.iter().map(|index| index.name.as_str()));
    names.extend(inventory.sequences.iter().map(|sequence| sequence.name.as_str()));
    let mut statistics: Vec<&str> = inventory.statistics.iter().map(|s| s.name.as_str()).collect();
    for view in &inventory.matviews {
        let object = format!("materialized view {}", view.place());
        let mut add = |reason: &str, remedy: &str| {
            let refusal = Refusal::new(&object, reason);
            refusals.push(if remedy.is_empty() { refusal } else { refusal.remedy(remedy) });
        };
        if view.schema == crate::repack::plan::SHADOW_SCHEMA {
            add("the repack of another table made it", "finish or abort that first");
            continue;
        }
        let mut own: Vec<&str> = view.relation_names().collect();
        let mut own_statistics: Vec<&str> = view.statistics.iter().map(|s| s.name.as_str()).collect();
        if own.iter().any(|name| names.contains(name))
            || own_statistics.iter().any(|name| statistics.contains(name))
        {
            add(
                "its name, or that of an index or statistics of it, is in another schema one of the table's or of another materialized view's, and all are built in one schema",
                "rename it",
            );
        }
        names.append(&mut own);
        statistics.append(&mut own_statistics);
        if view.of_extension {
            add("it belongs to an extension", "");
        }
        if view.security_labels {
            add("it has security labels", "");
        }
        refuse_contents(inventory, view, &mut add);
        rights(inventory, view, refusals);
    }
}

/// What it would hold is not what it holds.
fn refuse_contents(inventory: &Inventory, view: &Matview, add: &mut impl FnMut(&str, &str)) {
    let read = |other: &&Matview| view.uses.contains(&other.oid);
    if view.populated && inventory.matviews.iter().filter(read).any(|other| !other.populated) {
        add(
            "it is filled, but reads one that is not, so it cannot be filled again",
            "REFRESH the one it reads",
        );
    }
    let constant = |name: &str| view.definition.contains(&format!("{}::regclass", quote_literal(name)));
    if constant(&inventory.head.sql_name) || inventory.matviews.iter().any(|other| constant(&other.sql_name))
    {
        add(
            "its query has a regclass constant of the table, which cannot be pointed at the new one",
            "drop it and make it again afterwards",
        );
    }
    if inventory.head.force_row_security {
        add(
            "the table forces row level security on its owner, which begins only with the exchange",
            "ALTER TABLE … NO FORCE ROW LEVEL SECURITY, or drop the view meanwhile",
        );
    } else if inventory.head.row_security && view.owner != inventory.owner {
        add(
            "it does not belong to the table's owner, and the table has row level security",
            "drop it and make it again afterwards",
        );
    }
}

fn rights(inventory: &Inventory, view: &Matview, refusals: &mut Vec<Refusal>) {
    let object = format!("materialized view {}", view.place());
    let role = quote_ident(&inventory.head.role);
    if !view.may_alter {
        refusals.push(Refusal::without_rights(&object, "it belongs", &view.owner, &role));
    }
    if !view.may_create {
        refusals.push(Refusal::without_create(&object, &view.schema, &role));
    }
    let spaces = view.indexes.iter().map(|index| (&index.tablespace, index.may_use_tablespace));
    for (space, _) in spaces.chain([(&view.tablespace, view.may_use_tablespace)]).filter(|(_, may)| !may) {
        let space = quote_ident(space);
        refusals.push(
            Refusal::new(&object, format!("role {role} has no CREATE on tablespace {space}"))
                .remedy(format!("GRANT CREATE ON TABLESPACE {space} TO {role}")),
        );
    }
    let lists = view.columns.iter().map(|column| &column.grants).chain([&view.grants]);
    for grant in lists.flatten().filter_map(|grants| foreign_grantor(grants, &view.owner)) {
        let (grantor, privilege) = (&grant.grantor, &grant.privilege);
        let reason =
            format!("role {grantor} granted {privilege} on it, and {role} is not a member of that role");
        refusals.push(Refusal::new(&object, reason));
    }
}

/// Its own rule; its statistics move as it does.
fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    let own_rule = dependent.class == "pg_rewrite" && dependent.part_class != "pg_type";
    own_rule && inventory.matviews.iter().any(|view| Some(view.oid) == dependent.relation_oid)
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let ordered = inner_first(&inventory.matviews);
    for view in ordered.iter().rev() {
        draft.lock_matview(&view.place(), &view.owner);
    }
    for view in &ordered {
        let new = TableName::new(&draft.shadow.schema, &view.name);
        make(inventory, view, &new, draft)?;
        for index in view.indexes.iter().filter(|index| index.valid) {
            build(index, view, &new, draft)?;
        }
        alter(view, &new, draft);
        for statistics in &view.statistics {
            statistics::carry(statistics, (&view.sql_name, &new), &inventory.head.role, draft)?;
        }
        grants(inventory, view, &new, draft);
        let (old, home) = (quote_ident(&draft.old.schema), quote_ident(&view.schema));
        draft.exchange(Phase::Aside, format!("ALTER MATERIALIZED VIEW {} SET SCHEMA {old}", view.place()));
        draft.exchange(Phase::Return, format!("ALTER MATERIALIZED VIEW {new} SET SCHEMA {home}"));
        draft.forecast_ms += 0.5;
        if view.populated {
            draft.refresh.push(new);
        }
    }
    if !ordered.is_empty() {
        let old = |view: &&Matview| TableName::new(&draft.old.schema, &view.name).to_string();
        let names: Vec<String> = ordered.iter().map(old).collect();
        draft.drop_old.insert(0, format!("DROP MATERIALIZED VIEW {}", names.join(", ")));
    }
    Ok(())
}

/// Without rows.
fn make(
    inventory: &Inventory,
    view: &Matview,
    new: &TableName,
    draft: &mut Draft<'_>,
) -> Result<(), PlanError> {
    let shadow = draft.shadow.to_string();
    let mut query =
        exchange_name(view.definition.trim_end().trim_end_matches(';'), &inventory.head.sql_name, &shadow);
    for other in inventory.matviews.iter().filter(|other| view.uses.contains(&other.oid)) {
        let name = TableName::new(&draft.shadow.schema, &other.name).to_string();
        query = exchange_name(&query, &other.sql_name, &name);
    }
    if query == view.definition.trim_end().trim_end_matches(';') {
        return Err(PlanError::Definition {
            object: format!("materialized view {}", view.place()),
            table: inventory.table.to_string(),
        });
    }
    let mut list = options("", &view.options);
    list.extend(options("toast.", &view.toast_options));
    let with = if list.is_empty() { String::new() } else { format!(" WITH ({})", list.join(", ")) };
    draft.finish.push(format!(
        "CREATE MATERIALIZED VIEW {new} USING {}{with} TABLESPACE {} AS {query} WITH NO DATA",
        quote_ident(&view.access_method),
        quote_ident(&view.tablespace),
    ));
    if view.owner != inventory.head.role {
        let (schema, owner) = (quote_ident(&draft.shadow.schema), quote_ident(&view.owner));
        draft.finish.push(format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {owner}"));
        draft.finish.push(format!("ALTER MATERIALIZED VIEW {new} OWNER TO {owner}"));
    }
    draft.finish.extend(comment(&format!("MATERIALIZED VIEW {new}"), view.comment.as_deref()));
    Ok(())
}

fn build(index: &Index, view: &Matview, new: &TableName, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let moved =
        exchange_after(&index.definition, "ON", &view.sql_name, &new.to_string()).ok_or_else(|| {
            PlanError::Definition {
                object: format!("index {}", TableName::new(&view.schema, &index.name)),
                table: view.place().to_string(),
            }
        })?;
    let space = format!("TABLESPACE {}", quote_ident(&index.tablespace));
    draft.finish.push(insert_before(&moved, &["WHERE"], &space));
    let name = TableName::new(&new.schema, &index.name);
    for target in &index.targets {
        let (number, target) = (target.number, target.target);
        draft.finish.push(format!("ALTER INDEX {name} ALTER COLUMN {number} SET STATISTICS {target}"));
    }
    draft.finish.extend(comment(&format!("INDEX {name}"), index.comment.as_deref()));
    if index.is_clustered {
        draft.finish.push(format!("ALTER MATERIALIZED VIEW {new} CLUSTER ON {}", quote_ident(&index.name)));
    }
    Ok(())
}

/// Settings and comments of its columns.
fn alter(view: &Matview, new: &TableName, draft: &mut Draft<'_>) {
    let mut subcommands = Vec::new();
    for column in &view.columns {
        let name = quote_ident(&column.name);
        let storage = match column.storage.as_str() {
            "e" => "EXTERNAL",
            "m" => "MAIN",
            "x" => "EXTENDED",
            _ => "PLAIN",
        };
        subcommands.push(format!("ALTER COLUMN {name} SET STORAGE {storage}"));
        match column.compression.as_str() {
            "p" => subcommands.push(format!("ALTER COLUMN {name} SET COMPRESSION pglz")),
            "l" => subcommands.push(format!("ALTER COLUMN {name} SET COMPRESSION lz4")),
            _ => {}
        }
        if let Some(target) = column.statistics_target {
            subcommands.push(format!("ALTER COLUMN {name} SET STATISTICS {target}"));
        }
        if !column.options.is_empty() {
            let list = options("", &column.options).join(", ");
            subcommands.push(format!("ALTER COLUMN {name} SET ({list})"));
        }
        draft.finish.extend(comment(&format!("COLUMN {new}.{name}"), column.comment.as_deref()));
    }
    if !subcommands.is_empty() {
        draft.finish.push(format!("ALTER MATERIALIZED VIEW {new} {}", subcommands.join(", ")));
    }
}

fn grants(inventory: &Inventory, view: &Matview, new: &TableName, draft: &mut Draft<'_>) {
    let acl = Acl {
        grants: view.grants.as_deref(),
        standard: &view.standard_grants,
        preset: &inventory.head.preset_grants,
        owner: &view.owner,
    };
    let other_grantor = |column: &Column| column.grants.iter().flatten().any(|g| g.grantor != view.owner);
    let waits = acl.waits_for_exchange() || view.columns.iter().any(other_grantor);
    let object = if waits { format!("TABLE {}", view.place()) } else { format!("TABLE {new}") };
    let mut statements = acl.statements(&object);
    for column in &view.columns {
        let grants = column.grants.as_deref().unwrap_or_default();
        statements.extend(column_statements(grants, &column.name, &object, &view.owner));
    }
    for statement in statements {
        if waits {
            draft.exchange(Phase::Grants, statement);
        } else {
            draft.finish.push(statement);
        }
    }
}

/// Each after those it reads.
fn inner_first(views: &[Matview]) -> Vec<&Matview> {
    let mut ordered: Vec<&Matview> = Vec::with_capacity(views.len());
    let mut waiting: Vec<&Matview> = views.iter().collect();
    while !waiting.is_empty() {
        let (blocked, free): (Vec<&Matview>, Vec<&Matview>) =
            waiting.iter().partition(|view| waiting.iter().any(|other| view.uses.contains(&other.oid)));
        // They cannot read one another in a circle; should they, any order will do.
        let stuck = free.is_empty();
        ordered.extend(if stuck { &blocked } else { &free });
        waiting = if stuck { Vec::new() } else { blocked };
    }
    ordered
}
