//! `table_conf/<config>_<connection>.toml`: what `repack` does to single tables, as rpcl wrote it.
//!
//! Names are those of the catalog, unchanged, in TOML's own quotes where TOML needs them: `[sales."Big Table"]`.

use toml::de::{DeTable, DeValue};

use super::not_built::Part;
use super::reader::Reader;
use super::section::{Section, kind};
use crate::model::TableName;
use crate::repack::options::{TableRules, TableSettings};

/// Reads a whole file; what is wrong with it has been reported.
pub(super) fn read(reader: &Reader<'_>, document: &DeTable<'_>) -> TableRules {
    let mut rules = TableRules::default();
    for (name, table, line) in sections(reader, "", document, &[]) {
        if name == "storage" {
            storage(reader, table, line, &mut rules);
            continue;
        }
        for (table_name, columns, _) in sections(reader, name, table, &[]) {
            let key = format!("{name}.{table_name}");
            let settings = rules.tables.entry(TableName::new(name, table_name)).or_default();
            for (column, rule, line) in sections(reader, &key, columns, &[]) {
                column_rule(reader, format!("{key}.{column}"), line, column, rule, settings);
            }
        }
    }
    rules
}

/// `[storage]`, `[storage.SCHEMA]` and `[storage.SCHEMA.TABLE]`.
fn storage(reader: &Reader<'_>, table: &DeTable<'_>, line: usize, rules: &mut TableRules) {
    const OWN: &[&str] = &["fillfactor"];
    rules.fillfactor = fillfactor(reader, "storage".to_owned(), line, table);
    for (schema, table, line) in sections(reader, "storage", table, OWN) {
        let key = format!("storage.{schema}");
        if let Some(fillfactor) = fillfactor(reader, key.clone(), line, table) {
            rules.schemas.insert(schema.to_owned(), fillfactor);
        }
        for (name, table, line) in sections(reader, &key, table, OWN) {
            let key = format!("{key}.{name}");
            let fillfactor = fillfactor(reader, key.clone(), line, table);
            // Nothing is below a table.
            for (column, _, line) in sections(reader, &key, table, OWN) {
                reader.error(
                    line,
                    format!("{key}.{column}"),
                    "a table is the last level of storage",
                    "remove it",
                );
            }
            if fillfactor.is_some() {
                rules.tables.entry(TableName::new(schema, name)).or_default().fillfactor = fillfactor;
            }
        }
    }
}

fn fillfactor(reader: &Reader<'_>, name: String, line: usize, table: &DeTable<'_>) -> Option<u32> {
    let section = Section::new(reader, Part::TableConf, name, line, table);
    section.integer("fillfactor", 10..=100).and_then(|number| u32::try_from(number).ok())
}

fn column_rule(
    reader: &Reader<'_>,
    name: String,
    line: usize,
    column: &str,
    rule: &DeTable<'_>,
    settings: &mut TableSettings,
) {
    let section = Section::new(reader, Part::TableConf, name, line, rule);
    if section.switch("cleanup_nulls") == Some(true) {
        settings.cleanup_nulls.push(column.to_owned());
    }
    let key = |text: &str| Some(text.to_owned());
    if let Some(keys) = section.list("remove_keys", "a key", key).filter(|keys| !keys.is_empty()) {
        settings.remove_keys.push((column.to_owned(), keys));
    }
    section.finish();
}

/// The sections of a section with their names and lines; what is neither one nor among `own` is reported.
fn sections<'d>(
    reader: &Reader<'_>,
    path: &str,
    table: &'d DeTable<'d>,
    own: &[&str],
) -> Vec<(&'d str, &'d DeTable<'d>, usize)> {
    let mut found = Vec::new();
    for (key, value) in table.iter() {
        let (name, line) = (key.get_ref().as_ref(), reader.line_of(key.span().start));
        match value.get_ref() {
            DeValue::Table(table) => found.push((name, table, line)),
            _ if own.contains(&name) => {}
            other => {
                let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                // rpcl looked for what it knew and ignored the rest.
                if reader.rpcl {
                    reader.warn(line, key, "unknown key, so it has no effect", "remove it");
                } else {
                    let problem = format!("expected a section, found {}", kind(other));
                    reader.error(line, key, problem, "see the example of a table_conf file");
                }
            }
        }
    }
    found
}
