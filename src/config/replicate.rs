//! `[[replicate]]`.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::document::{Reader, Section};
use super::not_built::Part;
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

/// Reads the entry with this number, from 1. `None` when something it cannot be without is missing or wrong,
/// which has then been reported.
pub(super) fn read<'d>(
    reader: &Reader<'_>,
    number: usize,
    line: usize,
    table: &'d DeTable<'d>,
) -> Option<ReadEntry> {
    let section = Section::new(reader, Part::Replicate, format!("replicate[{number}]"), line, table);
    let source = required(&section, "source", section.name_text("source"), "a connection");
    let target = required(&section, "target", section.name_text("target"), "another connection");
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
    (source?, target?, mode?, tables?);
    Some(ReadEntry { entry, name, lines })
}

fn required<T>(section: &Section<'_, '_>, key: &'static str, value: Option<T>, what: &str) -> Option<T> {
    if !section.has(key) {
        section.error(key, "is missing", format!("give {what}"));
    }
    value
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
