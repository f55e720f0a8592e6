//! What holds between the parts of a configuration. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::Reader;
use super::replicate::ReadEntry;
use super::settings::Connection;
use crate::model::TablePattern;

/// Reports every contradiction between connections and entries. A connection that could not be read is not among
/// `connections`; what concerns it is left for when it can.
pub(super) fn check(reader: &Reader<'_>, connections: &BTreeMap<String, Connection>, entries: &[ReadEntry]) {
    let mut fed = Fed::default();
    for read in entries {
        let source = connections.get(&read.entry.source);
        let target = connections.get(&read.entry.target);
        if let (Some(source), Some(target)) = (source, target) {
            if source.same_database(target) {
                same_database(reader, read);
            } else {
                fed.add(reader, read, source, target);
            }
        }
    }
    for connection in connections.values() {
        slots(reader, connection, connections, entries);
    }
}

/// Source and target are one database: each table needs another name there.
fn same_database(reader: &Reader<'_>, read: &ReadEntry) {
    let entry = &read.entry;
    let differs = match (entry.tables.as_slice(), &entry.target_table) {
        ([TablePattern::Table(table)], Some(target)) => table != target,
        // An unfitting target_table has been reported already.
        (_, Some(_)) => true,
        (_, None) => false,
    };
    if !differs {
        reader.error(
            read.line_of("target"),
            format!("{}.target", read.name),
            "is the database of the source, so the tables would feed themselves",
            "choose another target, or give each table an entry with its own target_table",
        );
    }
}

/// Which entry feeds which table of which database.
#[derive(Default)]
struct Fed<'a>(Vec<Feed<'a>>);

struct Feed<'a> {
    read: &'a ReadEntry,
    source: &'a Connection,
    target: &'a Connection,
    /// What is fed on the target: a table by its name there, or all tables of a schema.
    tables: TablePattern,
    /// Whether the names on the target are those of the source.
    renamed: bool,
}

impl<'a> Fed<'a> {
    /// Adds an entry's tables; reports each that is fed already.
    fn add(
        &mut self,
        reader: &Reader<'_>,
        read: &'a ReadEntry,
        source: &'a Connection,
        target: &'a Connection,
    ) {
        for pattern in &read.entry.tables {
            // With more than one table it has been reported, and is taken as not given.
            let renamed = match (read.entry.tables.as_slice(), &read.entry.target_table) {
                ([TablePattern::Table(_)], Some(table)) => Some(TablePattern::Table(table.clone())),
                _ => None,
            };
            let feed = Feed {
                read,
                source,
                target,
                renamed: renamed.is_some(),
                tables: renamed.unwrap_or_else(|| pattern.clone()),
            };
            if let Some(other) = self.0.iter().find(|other| other.meets(&feed)) {
                let (problem, advice) = if std::ptr::eq(other.read, read) {
                    (format!("names {} twice", overlap(&other.tables, &feed.tables)), "name it once")
                } else {
                    let by = format!("{} (line {})", other.read.name, other.read.entry.line);
                    let table = overlap(&other.tables, &feed.tables);
                    (format!("feeds {table} of \"{}\", which {by} feeds already", target.name), {
                        "remove one of them, or give it another target_table"
                    })
                };
                reader.error(read.line_of("tables"), format!("{}.tables", read.name), problem, advice);
            }
            self.0.push(feed);
        }
    }
}

impl Feed<'_> {
    /// True when both certainly feed one table. What two sources have in a schema is known only when they are
    /// read, so a schema meets only what comes from the same source under its own name.
    fn meets(&self, other: &Feed<'_>) -> bool {
        let from_one_source = self.source.same_database(other.source);
        self.target.same_database(other.target)
            && match (&self.tables, &other.tables) {
                (TablePattern::Table(a), TablePattern::Table(b)) => a == b,
                (TablePattern::Schema(a), TablePattern::Schema(b)) => from_one_source && a == b,
                (TablePattern::Schema(schema), TablePattern::Table(table)) => {
                    from_one_source && !other.renamed && *schema == table.schema
                }
                (TablePattern::Table(table), TablePattern::Schema(schema)) => {
                    from_one_source && !self.renamed && *schema == table.schema
                }
            }
    }
}

/// The narrower of two names that meet.
fn overlap<'a>(a: &'a TablePattern, b: &'a TablePattern) -> &'a TablePattern {
    if matches!(a, TablePattern::Table(_)) { a } else { b }
}

/// A slot made by the DBA serves one target; keys about slots belong to sources.
fn slots(
    reader: &Reader<'_>,
    connection: &Connection,
    connections: &BTreeMap<String, Connection>,
    entries: &[ReadEntry],
) {
    let path = |key: &str| format!("connections.{}.{key}", connection.name);
    let targets: BTreeSet<&str> = entries
        .iter()
        .filter(|read| read.entry.source == connection.name)
        .map(|read| read.entry.target.as_str())
        .collect();
    if let Some(slot) = &connection.slot_name {
        if targets.len() > 1 {
            let names = targets.iter().copied().collect::<Vec<_>>().join(", ");
            reader.error(
                connection.line,
                path("slot_name"),
                format!("one slot cannot serve several targets ({names})"),
                "give each target a connection of its own to this source, each with its slot",
            );
        }
        let twin = connections.values().find(|other| {
            other.name < connection.name
                && other.slot_name.as_ref() == Some(slot)
                && (&other.host, other.port) == (&connection.host, connection.port)
        });
        if let Some(twin) = twin {
            reader.error(
                connection.line,
                path("slot_name"),
                format!("the slot \"{slot}\" is that of connection \"{}\"", twin.name),
                "a slot has one reader: give each connection its own",
            );
        }
    }
    if targets.is_empty() && !entries.is_empty() {
        let set = [
            ("slot_name", connection.slot_name.is_some()),
            ("publication", connection.publication.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
            reader.warn(connection.line, path(key), "has no effect: no entry has this source", "");
        }
    }
}
