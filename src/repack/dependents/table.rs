//! The table itself: owner, grants, options, tablespace, comment, marks; and what sort of table it is. Pure.

use serde::{Deserialize, Serialize};

use super::grants::{Acl, Grant, acl, foreign_grantor};
use super::{Dependent, Inventory, Kind, Refusal, column_order, inheritance};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::plan::text::{comment, options};

pub(super) const KIND: Kind = Kind {
    title: "owner (also a role ours is a member of), grants with grant options, comment, storage parameters (also of TOAST), tablespace, replica identity, CLUSTER mark",
    refuse,
    claims,
    plan,
};

/// $1 schema, $2 table.
pub(super) const QUERY: &str = concat!(
    "SELECT c.oid::int8 AS oid, pg_get_userbyid(c.relowner) AS owner, json_build_object(\
       'sql_name', format('%I.%I', n.nspname, c.relname), \
       'role', current_user, 'database', current_database(), \
       'role_is_owner', pg_has_role(c.relowner, 'USAGE'), \
       'may_create_in_database', has_database_privilege(current_database(), 'CREATE'), \
       'may_select', has_table_privilege(c.oid, 'SELECT'), \
       'may_lock', has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), \
       'may_create_in_schema', has_schema_privilege(n.oid, 'CREATE'), \
       'kind', c.relkind, 'persistence', c.relpersistence, 'partition', c.relispartition, \
       'access_method', (SELECT amname FROM pg_am WHERE oid = c.relam), \
       'typed', CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END, \
       'parents', (SELECT coalesce(json_agg(inhparent::regclass::text ORDER BY inhseqno), '[]') \
                   FROM pg_inherits WHERE inhrelid = c.oid), \
       'extension', (SELECT e.extname FROM pg_extension e WHERE c.oid = ANY (e.extconfig) OR EXISTS \
                     (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                      AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid) LIMIT 1), \
       'row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity, \
       'security_labels', EXISTS (SELECT FROM pg_seclabel l \
                                  WHERE l.classoid = 'pg_class'::regclass AND l.objoid = c.oid), \
       'subscribed', EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = c.oid), \
       'options', coalesce(to_json(c.reloptions), '[]'), \
       'toast_options', coalesce((SELECT to_json(t.reloptions) FROM pg_class t WHERE t.oid = c.reltoastrelid), '[]'), \
       'tablespace', coalesce(s.spcname, ds.spcname), \
       'may_use_tablespace', s.oid IS NULL OR has_tablespace_privilege(s.oid, 'CREATE'), \
       'tablespaces', (SELECT json_agg(t.spcname ORDER BY t.spcname) FROM pg_tablespace t \
                       WHERE t.oid = d.dattablespace OR has_tablespace_privilege(t.oid, 'CREATE')), \
       'replica_identity', c.relreplident, \
       'comment', obj_description(c.oid, 'pg_class'), \
       'grants', ",
    acl!("c.relacl"),
    ", \
       'standard_grants', ",
    acl!("acldefault('r', c.relowner)"),
    ", \
       'preset_grants', (SELECT coalesce(json_agg(g), '[]') FROM pg_default_acl p, \
            LATERAL json_array_elements(",
    acl!("p.defaclacl"),
    ") AS g \
            WHERE p.defaclobjtype = 'r' AND p.defaclrole = current_user::regrole \
            AND p.defaclnamespace IN (0, coalesce(to_regnamespace('repcloud_new')::oid, 0))), \
       'preset_sequence_grants', (SELECT coalesce(json_agg(g), '[]') FROM pg_default_acl p, \
            LATERAL json_array_elements(",
    acl!("p.defaclacl"),
    ") AS g \
            WHERE p.defaclobjtype = 'S' AND p.defaclrole = current_user::regrole \
            AND p.defaclnamespace IN (0, coalesce(to_regnamespace('repcloud_new')::oid, 0))), \
       'standard_sequence_grants', ",
    acl!("acldefault('s', c.relowner)"),
    ") AS head \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_database d ON d.datname = current_database() \
     JOIN pg_tablespace ds ON ds.oid = d.dattablespace \
     LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace AND c.reltablespace <> 0 \
     WHERE n.nspname = $1 AND c.relname = $2"
);

/// What [`QUERY`] gives.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) oid: u32,
    pub(super) owner: String,
    pub(super) head: Head,
}

/// The table's own settings, and the rights of our role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The table as the server writes it in definitions.
    pub sql_name: String,
    /// Our role.
    pub role: String,
    /// The database.
    pub database: String,
    /// Our role is the owner or inherits its rights.
    pub role_is_owner: bool,
    /// Our role has CREATE on the database.
    pub may_create_in_database: bool,
    /// Our role has CREATE on the table's schema.
    pub may_create_in_schema: bool,
    /// Our role may read all columns.
    pub may_select: bool,
    /// Our role may LOCK TABLE … IN ACCESS EXCLUSIVE MODE: not every owner, he can revoke his own rights.
    pub may_lock: bool,
    /// `pg_class.relkind`.
    pub kind: String,
    /// `pg_class.relpersistence`.
    pub persistence: String,
    /// It is a partition.
    pub partition: bool,
    /// The table access method, `heap` nearly always.
    pub access_method: Option<String>,
    /// The type of a typed table.
    pub typed: Option<String>,
    /// Tables it inherits from (or is a partition of).
    pub parents: Vec<String>,
    /// The extension it belongs to, as a member or a configuration table.
    pub extension: Option<String>,
    /// Row level security is enabled.
    pub row_security: bool,
    /// It is forced on the owner.
    pub force_row_security: bool,
    /// It has security labels.
    pub security_labels: bool,
    /// A subscription writes into it.
    pub subscribed: bool,
    /// `name=value` each.
    pub options: Vec<String>,
    /// Those of its TOAST table.
    pub toast_options: Vec<String>,
    /// Its tablespace, the database's when it has none of its own.
    pub tablespace: String,
    /// Our role may create in it.
    pub may_use_tablespace: bool,
    /// Tablespaces our role may create in.
    pub tablespaces: Vec<String>,
    /// `pg_class.relreplident`.
    pub replica_identity: String,
    /// Comment.
    pub comment: Option<String>,
    /// Grants; `None`: never changed.
    pub grants: Option<Vec<Grant>>,
    /// What a table's owner has when nothing was granted.
    pub standard_grants: Vec<Grant>,
    /// What ALTER DEFAULT PRIVILEGES gives on tables our role makes.
    pub preset_grants: Vec<Grant>,
    /// The same for sequences.
    pub preset_sequence_grants: Vec<Grant>,
    /// What a sequence's owner has when nothing was granted.
    pub standard_sequence_grants: Vec<Grant>,
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let Inventory { table, head, .. } = inventory;
    let mut refuse = |reason: String, remedy: Option<&str>| {
        refusals.push(Refusal { object: format!("table {table}"), reason, remedy: remedy.map(Into::into) });
    };
    match (head.kind.as_str(), head.persistence.as_str()) {
        ("p", _) => {
            refuse("it is partitioned and holds no rows of its own".into(), Some("repack its partitions"))
        }
        ("f", _) => refuse("it is a foreign table".into(), Some("repack it on its own server")),
        ("r", "t") => refuse("it is temporary".into(), None),
        ("r", _) => {}
        _ => refuse("it is no table".into(), None),
    }
    if let Some(method) = head.access_method.as_deref().filter(|method| *method != "heap") {
        refuse(format!("its access method is {method}, only heap is supported"), None);
    }
    if let Some(of) = &head.typed {
        refuse(format!("it is a table OF {of}; not supported yet"), Some("ALTER TABLE … NOT OF"));
    }
    if let Some(extension) = &head.extension {
        refuse(format!("it belongs to extension {extension}"), None);
    }
    if head.security_labels {
        refuse("it has security labels".into(), None);
    }
    if head.subscribed {
        refuse("a subscription of this server writes into it".into(), None);
    }
    rights(inventory, refusals);
}

fn rights(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let Inventory { table, owner, head, .. } = inventory;
    let role = quote_ident(&head.role);
    if !head.role_is_owner {
        let reason = format!("role {role} is not its owner {owner} and does not inherit the owner's rights");
        refusals.push(
            Refusal::new(format!("table {table}"), reason)
                .remedy(format!("GRANT {} TO {role}, or connect as the owner", quote_ident(owner))),
        );
    }
    if head.role_is_owner && !head.may_select {
        refusals.push(
            Refusal::new(format!("table {table}"), format!("role {role} has no SELECT on it"))
                .remedy(format!("GRANT SELECT ON {table} TO {role}")),
        );
    }
    if !head.may_create_in_database {
        let database = quote_ident(&head.database);
        refusals.push(
            Refusal::new(
                format!("database {database}"),
                format!("role {role} has no CREATE on it, so schema repcloud cannot be made"),
            )
            .remedy(format!("GRANT CREATE ON DATABASE {database} TO {role}")),
        );
    }
    if !head.may_create_in_schema {
        let schema = quote_ident(&table.schema);
        refusals.push(
            Refusal::new(
                format!("schema {schema}"),
                format!("role {role} has no CREATE on it, so the new table cannot be moved into it"),
            )
            .remedy(format!("GRANT CREATE ON SCHEMA {schema} TO {role}")),
        );
    }
    if !head.may_use_tablespace {
        let tablespace = quote_ident(&head.tablespace);
        refusals.push(
            Refusal::new(format!("tablespace {tablespace}"), format!("role {role} has no CREATE on it"))
                .remedy(format!("GRANT CREATE ON TABLESPACE {tablespace} TO {role}")),
        );
    }
    if let Some(grant) = foreign_grantor(head.grants.as_deref().unwrap_or_default(), owner) {
        refusals.push(Refusal::new(
            format!("table {table}"),
            format!(
                "role {} granted {} on it, and {role} is not a member of that role",
                grant.grantor, grant.privilege
            ),
        ));
    }
}

fn claims(_: &Inventory, _: &Dependent) -> bool {
    false
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let Inventory { table, owner, head, .. } = inventory;
    let shadow = draft.shadow.to_string();
    let wanted = draft.storage_options();
    let order = &draft.options.column_order;
    let columns = if order.is_empty() {
        format!("LIKE {table} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION")
    } else {
        column_order::definitions(inventory, order)
    };
    let sort = if head.persistence == "u" { "UNLOGGED TABLE" } else { "TABLE" };
    let options = wanted.loading().join(", ");
    let tablespace = quote_ident(draft.options.tablespace.as_deref().unwrap_or(&head.tablespace));
    let storage = format!("USING heap WITH ({options}) TABLESPACE {tablespace}");
    if inheritance::is_child(inventory) {
        inheritance::create(inventory, draft, (sort, &storage), &options);
    } else {
        draft.create.push(format!("CREATE {sort} {shadow} ({columns}) {storage}"));
    }
    if !draft.options.column_order.is_empty() {
        column_order::storages(inventory).for_each(|storage| draft.alter_shadow(storage));
    }
    if *owner != head.role {
        let schema = quote_ident(&draft.shadow.schema);
        draft.create.push(format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {}", quote_ident(owner)));
        draft.alter_shadow(format!("OWNER TO {}", quote_ident(owner)));
    }
    // Without an index to use, an UPDATE of a table in a publication FOR ALL TABLES would fail.
    draft.alter_shadow("REPLICA IDENTITY FULL".into());
    wanted.settle(draft);
    match (head.replica_identity.as_str(), inventory.indexes.iter().find(|i| i.is_replica_identity)) {
        ("f", _) => {}
        ("i", Some(index)) => {
            draft.settle_shadow(format!("REPLICA IDENTITY USING INDEX {}", quote_ident(&index.name)))
        }
        ("d", _) if inventory.indexes.iter().any(|i| i.is_primary() && i.immediate) => {
            draft.settle_shadow("REPLICA IDENTITY DEFAULT".into());
        }
        // Nothing identifies rows: right for the table, but our own replay still updates the shadow.
        ("n", _) => draft.alter_new("REPLICA IDENTITY NOTHING".into()),
        _ => draft.alter_new("REPLICA IDENTITY DEFAULT".into()),
    }
    if let Some(index) = inventory.indexes.iter().find(|index| index.is_clustered) {
        draft.settle_shadow(format!("CLUSTER ON {}", quote_ident(&index.name)));
    }
    draft.finish.extend(comment(&format!("TABLE {shadow}"), head.comment.as_deref()));
    let grants = Acl {
        grants: head.grants.as_deref(),
        standard: &head.standard_grants,
        preset: &head.preset_grants,
        owner,
    };
    if grants.waits_for_exchange() {
        for statement in grants.statements(&format!("TABLE {table}")) {
            draft.exchange(Phase::Grants, statement);
        }
    } else {
        draft.finish.extend(grants.statements(&format!("TABLE {shadow}")));
    }
    draft.lock_table(table, owner, head.may_lock);
    draft.exchange(Phase::Move, format!("ALTER TABLE {table} SET SCHEMA {}", quote_ident(&draft.old.schema)));
    draft.exchange(Phase::Move, format!("ALTER TABLE {shadow} SET SCHEMA {}", quote_ident(&table.schema)));
    draft.drop_old.push(format!("DROP TABLE {}", draft.old));
    Ok(())
}

/// Reloptions of a shadow: while it is loaded, and afterwards.
#[derive(Debug)]
pub(crate) struct StorageOptions {
    own: Vec<String>,
    toast: Vec<String>,
}

impl StorageOptions {
    /// The table's own options with what the plan changes, in the order the catalogs keep.
    pub(crate) fn new(head: &Head, fillfactor: Option<u32>) -> Self {
        let mut own = head.options.clone();
        if let Some(percent) = fillfactor {
            let wanted = format!("fillfactor={percent}");
            match own.iter_mut().find(|option| option.starts_with("fillfactor=")) {
                Some(option) => *option = wanted,
                None => own.push(wanted),
            }
        }
        StorageOptions { own, toast: head.toast_options.clone() }
    }

    /// The table's own, without those of TOAST.
    pub(crate) fn into_own(self) -> Vec<String> {
        self.own
    }

    /// While rows are loaded, autovacuum would only be in the way.
    fn loading(&self) -> Vec<String> {
        let off = |reloptions: &[String]| {
            let mut loading: Vec<String> =
                reloptions.iter().filter(|option| !is_autovacuum(option)).cloned().collect();
            loading.push("autovacuum_enabled=false".into());
            loading
        };
        let mut list = options("", &off(&self.own));
        list.extend(options("toast.", &off(&self.toast)));
        list
    }

    /// SET appends what it changes, and pg_dump prints in the order kept: so that one with autovacuum's switch in the middle comes out as
    /// it was, everything is reset and set again, in one ALTER TABLE.
    fn settle(&self, draft: &mut Draft<'_>) {
        for (prefix, reloptions) in [("", &self.own), ("toast.", &self.toast)] {
            if !reloptions.iter().any(|option| is_autovacuum(option)) {
                draft.settle_shadow(format!("RESET ({prefix}autovacuum_enabled)"));
                continue;
            }
            let names: Vec<String> = reloptions
                .iter()
                .filter_map(|option| option.split_once('='))
                .map(|(name, _)| format!("{prefix}{}", quote_ident(name)))
                .collect();
            draft.settle_shadow(format!("RESET ({})", names.join(", ")));
            draft.settle_shadow(format!("SET ({})", options(prefix, reloptions).join(", ")));
        }
    }
}

fn is_autovacuum(option: &str) -> bool {
    option.starts_with("autovacuum_enabled=")
}
