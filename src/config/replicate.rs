//! `[[replicate]]`.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::nearest::nearest;
use super::not_built::Part;
use super::reader::Reader;
use super::section::Section;
use super::settings::{DEFAULT_DELETED_COLUMN, Mode, OnConflict, OnSchemaChange, Publish, ReplicateEntry};
use super::values;
use crate::model::TablePattern;
use crate::model::name::{parse_table_name, parse_table_pattern};

const MODES: &[(&str, Mode)] = &[("dml", Mode::Dml), ("logdel", Mode::Logdel)];
const ON_CONFLICT: &[(&str, OnConflict)] =
    &[("stop", OnConflict::Stop), ("log", OnConflict::Log), ("overwrite", OnConflict::Overwrite)];

impl Mode {
    /// The mode as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Dml => "dml",
            Mode::Logdel => "logdel",
        }
    }
}

/// An entry as far as it could be read, and where its keys stand, for the rules between entries.
pub(super) struct ReadEntry {
    pub(super) entry: ReplicateEntry,
    /// `replicate[N]`, N from 1.
    pub(super) name: String,
    lines: BTreeMap<&'static str, usize>,
}

impl ReadEntry {
    /// The line of a key, or of the entry.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.entry.line)
    }
}

/// Reads the entry with this number, from 1; `connections` are the names there are. `None` when something it cannot be without is missing or wrong,
/// which has then been reported.
pub(super) fn read<'d>(
    reader: &Reader<'_>,
    number: usize,
    line: usize,
    table: &'d DeTable<'d>,
    connections: &BTreeSet<&str>,
) -> Option<ReadEntry> {
    let section = Section::new(reader, Part::Replicate, format!("replicate[{number}]"), line, table);
    let source = connection(&section, "source", connections, "a connection");
    let target = connection(&section, "target", connections, "another connection");
    let mode = required(&section, "mode", section.choice("mode", MODES), "dml or logdel");
    let pattern = |text: &str| parse_table_pattern(text).ok();
    let tables = section.list("tables", "a table like \"public.orders\" or \"sales.*\"", pattern);
    let tables = required(&section, "tables", tables, "the tables to replicate");
    let target_table =
        section.parsed("target_table", "a table like \"public.orders\"", |text| parse_table_name(text).ok());
    let copy = section.boolean("copy").unwrap_or(true);
    let on_conflict = section.choice("on_conflict", ON_CONFLICT);
    let entry = ReplicateEntry {
        line,
        source: source.clone().unwrap_or_default(),
        target: target.clone().unwrap_or_default(),
        mode: mode.unwrap_or(Mode::Dml),
        tables: tables.clone().unwrap_or_default(),
        target_table,
        columns: section.list("columns", "a column's SQL name", values::identifier),
        condition: section.name_text("condition"),
        key: section.list("key", "a column's SQL name", values::identifier),
        copy,
        indexes: section.boolean("indexes").unwrap_or(true),
        owner: section.parsed("owner", "a role's SQL name", values::identifier),
        grants: section
            .list("grants", "a grant like \"select to analysts\"", values::grant)
            .unwrap_or_default(),
        deleted_column: section
            .parsed("deleted_column", "a column's SQL name", values::identifier)
            .unwrap_or_else(|| DEFAULT_DELETED_COLUMN.to_owned()),
        // Rows that were never copied are missing or there already: that is no reason to stop.
        on_conflict: on_conflict.unwrap_or(if copy { OnConflict::Stop } else { OnConflict::Log }),
        on_schema_change: section
            .choice("on_schema_change", &[("stop", OnSchemaChange::Stop)])
            .unwrap_or_default(),
        publish: section
            .choice("publish", &[("all", Publish::All), ("insert", Publish::Insert)])
            .unwrap_or_default(),
    };
    contradictions(&section, &entry, mode.is_some());
    let keys = ["source", "target", "tables", "target_table"];
    let lines = keys.into_iter().map(|key| (key, section.line_of(key))).collect();
    let name = section.name.clone();
    section.finish();
    let complete = source.is_some() && target.is_some() && mode.is_some() && tables.is_some();
    complete.then_some(ReadEntry { entry, name, lines })
}

fn required<T>(section: &Section<'_, '_>, key: &'static str, value: Option<T>, what: &str) -> Option<T> {
    if !section.has(key) {
        section.error(key, "is missing", format!("give {what}"));
    }
    value
}

/// The name of a connection that is there; another one is reported, by where it came from if not from the file.
fn connection(
    section: &Section<'_, '_>,
    key: &'static str,
    connections: &BTreeSet<&str>,
    what: &str,
) -> Option<String> {
    let text = required(section, key, section.text(key), what)?;
    if connections.contains(text.text.as_str()) {
        return Some(text.text);
    }
    let advice = match nearest(&text.text, connections.iter().copied()) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => "name one of the [connections.NAME] sections, or add it".to_owned(),
    };
    section.error(key, format!("there is no connection {}", text.shown()), advice);
    None
}

/// What an entry contradicts within itself.
fn contradictions(section: &Section<'_, '_>, entry: &ReplicateEntry, mode_known: bool) {
    for key in ["tables", "columns", "key"] {
        if section.list_is_empty(key) {
            section.error(key, "is empty", "name at least one, or remove the key");
        }
    }
    let one_table = matches!(entry.tables.as_slice(), [TablePattern::Table(_)]);
    if section.has("target_table") && !entry.tables.is_empty() && !one_table {
        section.error(
            "target_table",
            "goes with one table only",
            "give the table an entry of its own, or remove target_table",
        );
    }
    for (key, names) in [("columns", &entry.columns), ("key", &entry.key)] {
        let mut seen = BTreeSet::new();
        for name in names.iter().flatten().filter(|name| !seen.insert(*name)) {
            section.error(key, format!("names the column \"{name}\" twice"), "name it once");
        }
    }
    if let (Some(columns), Some(key)) = (&entry.columns, &entry.key) {
        for name in key.iter().filter(|name| !columns.contains(name)) {
            section.error("columns", format!("lacks \"{name}\", a column of key"), "add it");
        }
    }
    if mode_known && section.has("deleted_column") && entry.mode != Mode::Logdel {
        section.error("deleted_column", "goes with mode \"logdel\" only", "remove it");
    }
    if mode_known && entry.mode == Mode::Logdel {
        if entry.columns.iter().flatten().any(|name| *name == entry.deleted_column) {
            let problem =
                format!("names \"{}\", which is the column of deletion times", entry.deleted_column);
            section.error("columns", problem, "choose another deleted_column");
        }
        if entry.publish == Publish::Insert {
            let problem = "\"insert\" leaves out the deletes that mode \"logdel\" keeps";
            section.error("publish", problem, "use mode \"dml\", or publish \"all\"");
        }
    }
}
