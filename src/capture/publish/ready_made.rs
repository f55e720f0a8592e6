//! A publication that somebody else made for us (`publication = "…"`): we own it not and change it not.

use std::collections::BTreeMap;

use super::{ExistingPublication, Finding, SourceFacts, TableFacts, WantedTable, checks};
use crate::catalog::TableKind;
use crate::model::{Oid, quote_ident};

/// What keeps the stream from using the ready-made publication `name` for `wanted`; `existing` is what the
/// source has under that name.
pub fn check_ready_made(
    name: &str,
    existing: Option<&ExistingPublication>,
    source: &SourceFacts,
    facts: &BTreeMap<Oid, TableFacts>,
    wanted: &[WantedTable],
) -> Vec<Finding> {
    let quoted = quote_ident(name);
    let mut findings = Vec::new();
    for table in wanted {
        checks::check_shape(table, source, &mut findings);
        checks::check_reading(table, source, facts, &mut findings);
    }
    let Some(publication) = existing else {
        let problem = format!("publication {quoted} does not exist; make it, or leave out `publication`");
        let tables: Vec<String> =
            wanted.iter().flat_map(WantedTable::storage).map(|t| format!("ONLY {}", t.name)).collect();
        let create = format!("CREATE PUBLICATION {quoted} FOR TABLE {}", tables.join(", "));
        findings.push(Finding::of_source(problem).help(create));
        return findings;
    };
    check_operations(publication, wanted, &mut findings);
    for table in wanted {
        check_table(publication, table, &mut findings);
    }
    findings
}

fn check_operations(publication: &ExistingPublication, wanted: &[WantedTable], findings: &mut Vec<Finding>) {
    let quoted = quote_ident(&publication.name);
    // An insert-only entry is served by any publication that sends inserts: its stream drops the rest.
    let all = wanted.iter().any(|w| !w.insert_only);
    let needed = [true, all, all, all];
    let names = ["insert", "update", "delete", "truncate"];
    let missing: Vec<&str> =
        (0..4).filter(|&i| needed[i] && !publication.operations[i]).map(|i| names[i]).collect();
    if !missing.is_empty() {
        let problem = format!("publication {quoted} does not publish {}", missing.join(", "));
        let help = format!("ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate')");
        findings.push(Finding::of_source(problem).help(help));
    }
    if publication.via_root && wanted.iter().any(|w| w.table.kind == TableKind::Partitioned) {
        let problem = format!(
            "publication {quoted} publishes partitions as their root, and then a TRUNCATE of one partition is \
             never sent"
        );
        let help = format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = false)");
        findings.push(Finding::of_source(problem).help(help));
    }
}

fn check_table(publication: &ExistingPublication, wanted: &WantedTable, findings: &mut Vec<Finding>) {
    let quoted = quote_ident(&publication.name);
    for storage in wanted.storage() {
        let name = &storage.name;
        let covered = |t: &&super::PublishedTable| {
            // Published as its root, the leaf is covered, and `check_operations` has told how it should be.
            t.name == *name || publication.via_root && t.name == wanted.table.name
        };
        let filter = wanted.condition.as_ref();
        let clause = filter.map(|c| format!(" WHERE ({})", c.sql)).unwrap_or_default();
        let add = format!("ALTER PUBLICATION {quoted} ADD TABLE ONLY {name}{clause}");
        let Some(published) = publication.tables.iter().find(covered) else {
            let problem = format!("publication {quoted} does not cover it");
            findings.push(Finding::new(name, problem).help(add));
            continue;
        };
        let again = format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {name}; {add}");
        if published.column_list {
            let problem = format!("publication {quoted} gives it a column list; columns are cut by us");
            findings.push(Finding::new(name, problem).help(again));
        } else if published.filter.as_ref() != filter.map(|c| &c.normalised) {
            let problem = format!("publication {quoted} has another row filter for it than its `condition`");
            findings.push(Finding::new(name, problem).help(again));
        }
    }
}
