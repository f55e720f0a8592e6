//! What is published of a source, and how; pure.
//!
//! A publication changes what the application may do: UPDATE and DELETE of a published table fail when its
//! replica identity is missing, or when a row filter or column list speaks of a column outside it. So a table is
//! published only where neither can happen, and what stands in the way is a [`Finding`] with the statement that
//! helps.
//!
//! Two publications, both made before the slot and kept as long as it: `<name>` sends every operation,
//! `<name>_ins` only INSERT. Both always exist, even empty: pgoutput looks publications up as they were at
//! the moment it decodes, and fails on changes older than a publication it is told to use.

mod checks;
mod finding;
mod ready_made;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{TableDef, TableKind};
use crate::model::{Oid, TableName, quote_ident};

pub use checks::check_source;
pub use finding::Finding;
pub use ready_made::check_ready_made;

/// First version with row filters (`server_version_num`).
const ROW_FILTERS: i32 = 150_000;

/// What the source server and our role on it are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// `server_version_num`.
    pub version: i32,
    /// `current_user`.
    pub role: String,
    /// `current_database()`.
    pub database: String,
    /// May use replication slots: superuser, REPLICATION, or a member of a managed service's role for it.
    pub may_replicate: bool,
    /// The managed service's role that gives replication (`rds_replication`), when the server has it.
    pub replication_role: Option<String>,
    /// CREATE on the database.
    pub may_create: bool,
    /// `wal_level`.
    pub wal_level: String,
    /// `max_replication_slots`, and how many exist.
    pub slots: (i32, i64),
    /// `max_wal_senders`, and how many run.
    pub wal_senders: (i32, i64),
}

/// What our role may do with one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFacts {
    /// Owns it, also through membership: what a publication needs.
    pub owned: bool,
    /// USAGE on its schema.
    pub schema_usable: bool,
    /// SELECT on it.
    pub selectable: bool,
    /// Row-level security hides rows from us.
    pub row_security: bool,
}

/// A row filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// As configured.
    pub sql: String,
    /// As the server prints it.
    pub normalised: String,
    /// The table's columns it speaks of, as the server sees it.
    pub columns: Vec<String>,
}

/// A source table as one configured entry wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedTable {
    /// The table.
    pub table: TableDef,
    /// Definitions of its leaf partitions; empty for an ordinary table.
    pub leaves: Vec<TableDef>,
    /// Only rows for which this holds.
    pub condition: Option<Condition>,
    /// Only these columns (cut by us, never by the publication).
    pub columns: Option<Vec<String>>,
    /// The target's key instead of the identity.
    pub key: Option<Vec<String>>,
    /// Only INSERT.
    pub insert_only: bool,
}

impl WantedTable {
    /// The tables that hold the rows: the leaves of a partitioned table, else the table itself.
    pub fn storage(&self) -> &[TableDef] {
        match self.table.kind {
            TableKind::Partitioned => &self.leaves,
            _ => std::slice::from_ref(&self.table),
        }
    }
}

/// A publication as it is on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingPublication {
    /// Name.
    pub name: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Publishes INSERT, UPDATE, DELETE, TRUNCATE.
    pub operations: [bool; 4],
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// The tables it covers, however they got into it.
    pub tables: Vec<PublishedTable>,
}

/// One table of an [`ExistingPublication`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// Name.
    pub name: TableName,
    /// Row filter as the server prints it.
    pub filter: Option<String>,
    /// It has a column list.
    pub column_list: bool,
}

/// What to run on the source so that the wanted tables are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationPlan {
    /// Names for `publication_names` of START_REPLICATION.
    pub publications: Vec<String>,
    /// Statements, one transaction; empty when all is as wanted.
    pub statements: Vec<String>,
    /// Tables the statements add.
    pub added: Vec<TableName>,
    /// Published by us but wanted by nobody any more (see [`drop_table_statements`]).
    pub superfluous: Vec<TableName>,
}

/// The publication of tables of which only INSERT is sent.
pub fn insert_publication(name: &str) -> String {
    format!("{name}_ins")
}

/// The statements that publish `wanted` under `name`, or everything that stands in the way.
///
/// `facts` holds an entry for every table of [`WantedTable::storage`] by oid; `existing` the publications of our
/// two names that are there.
pub fn plan(
    name: &str,
    source: &SourceFacts,
    facts: &BTreeMap<Oid, TableFacts>,
    wanted: &[WantedTable],
    existing: &[ExistingPublication],
) -> Result<PublicationPlan, Vec<Finding>> {
    let mut findings = checks::check_publishing(source);
    for table in wanted {
        checks::check_table(table, source, facts, &mut findings);
    }
    let entries = entries(wanted, &mut findings);
    let names = [name.to_owned(), insert_publication(name)];
    let mut plan = PublicationPlan { publications: names.to_vec(), ..PublicationPlan::default() };
    for (publication, insert_only) in names.iter().zip([false, true]) {
        let there = existing.iter().find(|p| &p.name == publication);
        extend(&mut plan, publication, insert_only, &entries, there, &mut findings);
    }
    if findings.is_empty() { Ok(plan) } else { Err(findings) }
}

/// One table of a publication of ours.
struct Entry {
    name: TableName,
    condition: Option<Condition>,
    insert_only: bool,
}

impl Entry {
    /// ONLY: children of an inheritance parent are tables of their own.
    fn sql(&self) -> String {
        match &self.condition {
            Some(condition) => format!("ONLY {} WHERE ({})", self.name, condition.sql),
            None => format!("ONLY {}", self.name),
        }
    }
}

/// What keeps the tables from being read in one stream, however it reads.
pub fn contradictions(wanted: &[WantedTable]) -> Vec<Finding> {
    let mut findings = Vec::new();
    entries(wanted, &mut findings);
    findings
}

/// Storage tables by name, each once; a source table may feed several targets.
fn entries(wanted: &[WantedTable], findings: &mut Vec<Finding>) -> BTreeMap<TableName, Entry> {
    let mut entries: BTreeMap<TableName, Entry> = BTreeMap::new();
    let mut told: BTreeSet<&TableName> = BTreeSet::new();
    for wanted in wanted {
        for storage in wanted.storage() {
            let new = Entry {
                name: storage.name.clone(),
                condition: wanted.condition.clone(),
                insert_only: wanted.insert_only,
            };
            let Some(old) = entries.get(&storage.name) else {
                entries.insert(storage.name.clone(), new);
                continue;
            };
            let normalised = |e: &Entry| e.condition.as_ref().map(|c| c.normalised.clone());
            let problem = if normalised(old) != normalised(&new) {
                "two entries want it with different conditions, and a stream reads a table under one; \
                 give both the same condition, or put one into a stream of its own"
            } else if old.insert_only != new.insert_only {
                "one entry wants all its changes and another only its inserts; let both want the same, or put \
                 one into a stream of its own"
            } else {
                continue;
            };
            if told.insert(&wanted.table.name) {
                findings.push(Finding::new(&wanted.table.name, problem));
            }
        }
    }
    entries
}

/// Adds to the plan what makes `publication` hold those of `all` that belong into it.
fn extend(
    plan: &mut PublicationPlan,
    publication: &str,
    insert_only: bool,
    all: &BTreeMap<TableName, Entry>,
    there: Option<&ExistingPublication>,
    findings: &mut Vec<Finding>,
) {
    let quoted = quote_ident(publication);
    let entries: Vec<&Entry> = all.values().filter(|e| e.insert_only == insert_only).collect();
    let operations = if insert_only { "insert" } else { "insert, update, delete, truncate" };
    let options = format!("(publish = '{operations}', publish_via_partition_root = false)");
    let Some(there) = there else {
        let tables: Vec<String> = entries.iter().map(|e| e.sql()).collect();
        let list =
            if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", tables.join(", ")) };
        plan.statements.push(format!("CREATE PUBLICATION {quoted}{list} WITH {options}"));
        plan.added.extend(entries.iter().map(|e| e.name.clone()));
        return;
    };
    if there.all_tables {
        let problem = format!("publication {quoted} bears the name of ours but is FOR ALL TABLES");
        findings.push(Finding::of_source(problem).help(format!("DROP PUBLICATION {quoted}")));
        return;
    }
    if there.operations != [true, !insert_only, !insert_only, !insert_only] || there.via_root {
        plan.statements.push(format!("ALTER PUBLICATION {quoted} SET {options}"));
    }
    for table in &there.tables {
        match all.get(&table.name) {
            Some(entry) if entry.insert_only != insert_only => {
                // It moves to the other publication: in both, it would be published with every operation.
                let drop = format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {}", table.name);
                plan.statements.push(drop);
            }
            Some(_) => {}
            None => plan.superfluous.push(table.name.clone()),
        }
    }
    let mut missing = Vec::new();
    for entry in entries {
        match there.tables.iter().find(|t| t.name == entry.name) {
            None => missing.push(entry),
            Some(table) => check_same(&quoted, entry, table, findings),
        }
    }
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().map(|e| e.sql()).collect();
        plan.statements.push(format!("ALTER PUBLICATION {quoted} ADD TABLE {}", list.join(", ")));
        plan.added.extend(missing.iter().map(|e| e.name.clone()));
    }
}

/// A table that is in our publication already must be there as wanted: with another filter its rows on the
/// target are other rows, which only a new copy puts right.
fn check_same(publication: &str, entry: &Entry, table: &PublishedTable, findings: &mut Vec<Finding>) {
    let drop = format!("ALTER PUBLICATION {publication} DROP TABLE ONLY {}", table.name);
    if table.column_list {
        let problem = format!("publication {publication} was given a column list for it, which we never do");
        findings.push(Finding::new(&table.name, problem).help(drop));
    } else if table.filter != entry.condition.as_ref().map(|c| c.normalised.clone()) {
        let problem = "its `condition` is not the one it was copied with; take it out, then copy it \
                       again (`repcloud reset` with --recopy)";
        findings.push(Finding::new(&table.name, problem).help(drop));
    }
}

/// Statements that take tables out of our publications; `existing` as for [`plan`].
pub fn drop_table_statements(existing: &[ExistingPublication], tables: &[TableName]) -> Vec<String> {
    let mut statements = Vec::new();
    for publication in existing.iter().filter(|p| !p.all_tables) {
        for table in publication.tables.iter().filter(|t| tables.contains(&t.name)) {
            let quoted = quote_ident(&publication.name);
            statements.push(format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {}", table.name));
        }
    }
    statements
}
