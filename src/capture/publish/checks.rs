//! Pre-flight: what would harm the source, or could not work.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, ROW_FILTERS, SourceFacts, TableFacts, WantedTable};
use crate::catalog::{IndexDef, TableDef, TableKind};
use crate::model::{Oid, ReplicaIdentity, quote_ident};

/// From this version on the server fails UPDATE and DELETE of a table with REPLICA IDENTITY FULL whose generated
/// columns are not published.
const GENERATED_IN_IDENTITY: i32 = 180_000;

/// What a slot capture needs of the server and our role, whatever the tables. `new_slots`: how many slots are
/// to be made (0: the slot is there); as many walsenders more are needed.
pub fn check_source(source: &SourceFacts, new_slots: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let role = quote_ident(&source.role);
    if source.wal_level != "logical" {
        let problem = format!(
            "the source's wal_level is {}, a slot needs logical (the server must be restarted after it)",
            source.wal_level
        );
        findings.push(Finding::of_source(problem).help("ALTER SYSTEM SET wal_level = 'logical'"));
    }
    if !source.may_replicate {
        let finding = Finding::of_source(format!("role {role} may not use replication slots"));
        findings.push(match &source.replication_role {
            Some(group) => finding.help(format!("GRANT {} TO {role}", quote_ident(group))),
            None => finding.help(format!("ALTER ROLE {role} REPLICATION")),
        });
    }
    for (setting, (limit, used), what) in [
        ("max_replication_slots", source.slots, "replication slots exist"),
        ("max_wal_senders", source.wal_senders, "walsenders run"),
    ] {
        if i64::from(limit) - used < new_slots {
            let problem = format!(
                "{used} of the {limit} {what} that {setting} allows, {new_slots} more needed (drop one that \
                 nobody uses, or raise the limit and restart the server)"
            );
            let raise = format!("ALTER SYSTEM SET {setting} = {}", used + new_slots + 5);
            findings.push(Finding::of_source(problem).help(raise));
        }
    }
    findings
}

/// What making a publication needs, whatever the tables.
pub(super) fn check_publishing(source: &SourceFacts) -> Vec<Finding> {
    if source.may_create {
        return Vec::new();
    }
    let (role, database) = (quote_ident(&source.role), quote_ident(&source.database));
    let problem = format!(
        "role {role} may not make a publication in database {database} (or let the owner make one and set \
         `publication`)"
    );
    vec![Finding::of_source(problem).help(format!("GRANT CREATE ON DATABASE {database} TO {role}"))]
}

/// Everything about one wanted table that only we must be allowed to do, and [`check_shape`].
pub(super) fn check_table(
    wanted: &WantedTable,
    source: &SourceFacts,
    facts: &BTreeMap<Oid, TableFacts>,
    findings: &mut Vec<Finding>,
) {
    let before = findings.len();
    check_shape(wanted, source, findings);
    let role = quote_ident(&source.role);
    // A kind of table that cannot be published at all is no matter of rights.
    if findings[before..].iter().any(|f| f.statements.is_empty()) {
        return;
    }
    for table in wanted.storage() {
        if facts.get(&table.oid).is_some_and(|f| !f.owned) {
            let owner = quote_ident(&table.owner);
            let problem =
                format!("only its owner can publish it, and role {role} is not a member of {owner}");
            findings.push(Finding::new(&table.name, problem).help(format!("GRANT {owner} TO {role}")));
        }
    }
    check_reading(wanted, source, facts, findings);
}

/// What the copy of the first rows needs.
pub(super) fn check_reading(
    wanted: &WantedTable,
    source: &SourceFacts,
    facts: &BTreeMap<Oid, TableFacts>,
    findings: &mut Vec<Finding>,
) {
    let role = quote_ident(&source.role);
    for table in wanted.storage() {
        let name = &table.name;
        let Some(facts) = facts.get(&table.oid) else { continue };
        if !facts.schema_usable {
            let schema = quote_ident(&name.schema);
            let problem = format!("role {role} may not use its schema");
            findings
                .push(Finding::new(name, problem).help(format!("GRANT USAGE ON SCHEMA {schema} TO {role}")));
        }
        if !facts.selectable {
            let problem = format!("role {role} may not read it");
            findings.push(Finding::new(name, problem).help(format!("GRANT SELECT ON {name} TO {role}")));
        }
        if facts.row_security {
            let problem = format!("row-level security hides rows of it from role {role}");
            findings.push(Finding::new(name, problem).help(format!("ALTER ROLE {role} BYPASSRLS")));
        }
    }
}

/// What the table itself must be like, whoever publishes it.
pub(super) fn check_shape(wanted: &WantedTable, source: &SourceFacts, findings: &mut Vec<Finding>) {
    let root = &wanted.table;
    if let Some(problem) = not_replicated(root) {
        findings.push(Finding::new(&root.name, problem.0).help_all(problem.1));
        return;
    }
    for leaf in &wanted.leaves {
        if let Some((problem, help)) = not_replicated(leaf) {
            let problem = format!("a partition of {}: {problem}", root.name);
            findings.push(Finding::new(&leaf.name, problem).help_all(help));
        }
    }
    if wanted.condition.is_some() && source.version < ROW_FILTERS {
        let problem = "its `condition` needs row filters, which PostgreSQL 14 does not have; leave it out, or \
                       set `capture = \"trigger\"`";
        findings.push(Finding::new(&root.name, problem));
    }
    check_named_columns(wanted, findings);
    if !wanted.insert_only {
        for table in wanted.storage() {
            check_identity(wanted, table, source.version, findings);
        }
    }
}

impl Finding {
    fn help_all(mut self, statements: Vec<String>) -> Self {
        self.statements.extend(statements);
        self
    }
}

/// Why a relation has no changes to replicate, and what helps.
fn not_replicated(table: &TableDef) -> Option<(String, Vec<String>)> {
    /// `FirstNormalObjectId`: below are the server's own objects, which publications refuse.
    const FIRST_NORMAL_OID: Oid = 16_384;
    let kind = match table.kind {
        TableKind::Ordinary | TableKind::Partitioned => None,
        TableKind::Other('v') => Some("a view has no changes of its own; replicate the tables beneath"),
        TableKind::Other('m') => {
            Some("a materialized view has no changes of its own; replicate the tables beneath")
        }
        TableKind::Other('f') => Some("a foreign table's rows are not here; replicate it where they are"),
        TableKind::Other(_) => Some("it is not a table"),
    };
    if let Some(problem) = kind {
        return Some((problem.to_owned(), Vec::new()));
    }
    if table.oid < FIRST_NORMAL_OID || table.name.schema == "information_schema" {
        return Some(("system tables are not replicated".to_owned(), Vec::new()));
    }
    match table.persistence {
        'u' => Some((
            "changes of an unlogged table are not in the log".to_owned(),
            vec![format!("ALTER TABLE {} SET LOGGED", table.name)],
        )),
        't' => Some(("a temporary table belongs to one session".to_owned(), Vec::new())),
        _ => None,
    }
}

fn check_named_columns(wanted: &WantedTable, findings: &mut Vec<Finding>) {
    let table = &wanted.table;
    for (setting, names) in [("columns", &wanted.columns), ("key", &wanted.key)] {
        for name in names.iter().flatten().filter(|name| table.column(name).is_none()) {
            let problem = format!("`{setting}` names column {}, which it does not have", quote_ident(name));
            findings.push(Finding::new(&table.name, problem));
        }
    }
    let Some(columns) = &wanted.columns else { return };
    let key = match (&wanted.key, table.identity) {
        (Some(key), _) => key.clone(),
        // Rows are then told apart by all selected columns, or by the primary key where that is selected.
        (None, ReplicaIdentity::Full) => return,
        (None, _) => table.identity_columns().unwrap_or_default(),
    };
    if let Some(name) = key.iter().find(|name| !columns.contains(name)) {
        let problem = format!("`columns` leaves out {}, by which its rows are told apart", quote_ident(name));
        findings.push(Finding::new(&table.name, problem));
    }
}

/// The old row of UPDATE and DELETE must be identified, by what the condition and the key need.
fn check_identity(wanted: &WantedTable, table: &TableDef, version: i32, findings: &mut Vec<Finding>) {
    let name = &table.name;
    let full = format!("ALTER TABLE {name} REPLICA IDENTITY FULL");
    let Some(identity) = table.identity_columns() else {
        let problem = format!(
            "{}; if it were published, the application's UPDATE and DELETE would fail (or add a primary key, \
             or replicate only its inserts)",
            why_no_identity(table)
        );
        findings.push(Finding::new(name, problem).help_all(identity_statements(table, version)));
        return;
    };
    let is_full = table.identity == ReplicaIdentity::Full;
    let generated: Vec<&str> =
        table.columns.iter().filter(|c| c.generated.is_some()).map(|c| c.name.as_str()).collect();
    if is_full && !generated.is_empty() && version >= GENERATED_IN_IDENTITY {
        let problem = "its replica identity is FULL and it has generated columns, which are not published: the \
                       application's UPDATE and DELETE would fail (or replicate only its inserts)";
        findings.push(Finding::new(name, problem).help_all(keyed_identity_statements(table)));
        return;
    }
    if !is_full && identity.iter().any(|c| generated.contains(&c.as_str())) {
        let problem = "its replica identity has a generated column, which is not published";
        findings.push(Finding::new(name, problem).help_all(identity_statements(table, version)));
        return;
    }
    if is_full {
        return;
    }
    let covered: BTreeSet<&String> = identity.iter().collect();
    if let Some(condition) = &wanted.condition
        && let Some(column) = condition.columns.iter().find(|c| !covered.contains(c))
    {
        let problem = format!(
            "its `condition` needs column {}, which is not in the replica identity: the application's UPDATE \
             and DELETE would fail (or set `capture = \"trigger\"`)",
            quote_ident(column)
        );
        findings.push(Finding::new(name, problem).help(full.clone()));
    }
    if wanted.key.as_ref().is_some_and(|key| key.iter().collect::<BTreeSet<_>>() != covered) {
        let problem = "its `key` is not its replica identity, so changes do not carry it";
        findings.push(Finding::new(name, problem).help(full));
    }
}

fn why_no_identity(table: &TableDef) -> &'static str {
    let primary = table.indexes.iter().find(|i| i.primary);
    match table.identity {
        ReplicaIdentity::Nothing => "its replica identity is NOTHING",
        ReplicaIdentity::Index => "the index of its replica identity is gone or not valid",
        _ if primary.is_some_and(|i| !i.immediate) => {
            "its primary key is deferrable, which cannot be a replica identity"
        }
        _ => "it has no primary key and no replica identity",
    }
}

/// Statements that give the table a usable identity, the cheapest for the source first.
fn identity_statements(table: &TableDef, version: i32) -> Vec<String> {
    let mut statements = keyed_identity_statements(table);
    let has_generated = table.columns.iter().any(|c| c.generated.is_some());
    if !(has_generated && version >= GENERATED_IN_IDENTITY) {
        statements.push(format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.name));
    }
    statements
}

fn keyed_identity_statements(table: &TableDef) -> Vec<String> {
    let usable: Vec<&IndexDef> = table.indexes.iter().filter(|i| can_identify(table, i)).collect();
    match usable.iter().find(|i| i.primary).or(usable.first()) {
        Some(index) if index.primary => vec![format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", table.name)],
        Some(index) => {
            let index = quote_ident(&index.name);
            vec![format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {index}", table.name)]
        }
        None => Vec::new(),
    }
}

/// The server's rules for REPLICA IDENTITY USING INDEX, and no generated column.
fn can_identify(table: &TableDef, index: &IndexDef) -> bool {
    let stored = |name: &Option<String>| {
        let column = name.as_ref().and_then(|n| table.column(n));
        column.is_some_and(|c| c.not_null && c.generated.is_none())
    };
    index.unique
        && index.valid
        && index.immediate
        && !index.exclusion
        && index.predicate.is_none()
        && index.columns.iter().all(stored)
}
