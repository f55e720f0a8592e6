//! `cleanup_nulls` and `remove_keys`: what is taken out of json columns while a table is rebuilt. Pure.
//!
//! - `cleanup_nulls` (json, jsonb): every object field whose value is null, at any depth, objects inside arrays included.
//!   A null that is an element of an array stays, and so does a document that is null itself: as the server's
//!   `json_strip_nulls` and `jsonb_strip_nulls` do it.
//! - `remove_keys` (jsonb): these keys of the document itself, where it is an object. Deeper objects keep theirs, and
//!   an array or a scalar is left as it is (the bare operator would take strings out of an array, and fail on a
//!   scalar).
//!
//! A column may have both. The same expression goes over copied rows, replayed rows and, where the tables are compared,
//! the old rows: it does not change what it has already been applied to.

use std::collections::BTreeMap;

use super::options::TableSettings;
use super::preflight::Finding;
use crate::catalog::{ColumnDef, TableDef};
use crate::model::{ReplicaIdentity, quote_ident, quote_literal};

const CHECK: &str = "cleanup";

/// What is done to the columns of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleanup {
    columns: BTreeMap<String, ColumnCleanup>,
}

/// What is done to one column.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ColumnCleanup {
    binary: bool,
    strip_nulls: bool,
    keys: Vec<String>,
}

/// What becomes of a value of `column` on its way into the new table: SQL with `{}` where the value stands; `None`: nothing.
/// For a rule that cannot be honoured `None` too: pre-flight has refused the table.
pub fn rewrite(table: &TableDef, settings: &TableSettings, column: &str) -> Option<String> {
    let (cleanup, _) = Cleanup::plan(table, settings);
    cleanup.touches(column).then(|| cleanup.expression(column, "{}"))
}

impl Cleanup {
    /// From a table's settings; every one that cannot be honoured is a finding that refuses the table.
    pub fn plan(table: &TableDef, settings: &TableSettings) -> (Cleanup, Vec<Finding>) {
        let mut cleanup = Cleanup::default();
        let mut findings = Vec::new();
        let nulls = settings.cleanup_nulls.iter().map(|column| (column, "cleanup_nulls", None));
        let keys = settings.remove_keys.iter().map(|(column, keys)| (column, "remove_keys", Some(keys)));
        for (name, rule, keys) in nulls.chain(keys) {
            match judge(table, name, rule) {
                Err(problem) => findings
                    .push(Finding::refuse(CHECK, &table.name, problem).help("change its table_conf file")),
                Ok(binary) => {
                    let column = cleanup.columns.entry(name.clone()).or_insert_with(|| ColumnCleanup {
                        binary,
                        strip_nulls: false,
                        keys: Vec::new(),
                    });
                    match keys {
                        Some(keys) => column.keys.extend(keys.iter().cloned()),
                        None => column.strip_nulls = true,
                    }
                }
            }
        }
        (cleanup, findings)
    }

    /// Rows are taken as they are.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Something is taken out of this column.
    pub fn touches(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// The expression for a column in place of `value`, SQL of the column's type: `t.doc`, or `v.c3::jsonb` around a
    /// parameter. Of a column that is not touched `value` itself.
    pub fn expression(&self, column: &str, value: &str) -> String {
        self.columns.get(column).map_or_else(|| value.to_owned(), |cleanup| cleanup.expression(value))
    }

    /// The list for `INSERT INTO … (columns) SELECT list`, each column prefixed (`t.`) and quoted.
    pub fn select_list(&self, columns: &[&str], prefix: &str) -> String {
        let list: Vec<String> = columns
            .iter()
            .map(|column| self.expression(column, &format!("{prefix}{}", quote_ident(column))))
            .collect();
        list.join(", ")
    }
}

impl ColumnCleanup {
    fn expression(&self, value: &str) -> String {
        let mut sql = value.to_owned();
        if !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|key| literal(key)).collect();
            sql = format!(
                "CASE pg_catalog.jsonb_typeof({sql}) WHEN 'object' THEN {sql} OPERATOR(pg_catalog.-) \
                 ARRAY[{}]::pg_catalog.text[] ELSE {sql} END",
                keys.join(", ")
            );
        }
        if self.strip_nulls {
            let function = if self.binary { "jsonb_strip_nulls" } else { "json_strip_nulls" };
            sql = format!("pg_catalog.{function}({sql})");
        }
        sql
    }
}

/// Whether the column is jsonb (and not json), or why the rule cannot be honoured.
fn judge(table: &TableDef, name: &str, rule: &str) -> Result<bool, String> {
    let quoted = quote_ident(name);
    let Some(column) = table.column(name) else {
        return Err(format!("{rule} names column {quoted}, which it does not have"));
    };
    let binary = match (base_type(column), rule) {
        ("jsonb", _) => true,
        ("json", "cleanup_nulls") => false,
        (_, "cleanup_nulls") => {
            return Err(format!("{rule} is for json and jsonb, and column {quoted} is {}", column.type_sql));
        }
        _ => return Err(format!("{rule} is for jsonb, and column {quoted} is {}", column.type_sql)),
    };
    if column.generated.is_some() {
        return Err(format!("{rule} names column {quoted}, which is generated from others"));
    }
    let key = match table.identity {
        ReplicaIdentity::Full => table.primary_key(),
        _ => table.identity_columns(),
    };
    match key {
        Some(key) if !key.iter().any(|column| column == name) => Ok(binary),
        Some(_) => Err(format!("{rule} names column {quoted}, by which its rows are found")),
        None => Err(format!("{rule} would change rows that without a key are found by all their columns")),
    }
}

/// The type beneath a domain.
fn base_type(column: &ColumnDef) -> &str {
    let name = column.input_type_sql.as_str();
    name.strip_prefix("pg_catalog.").unwrap_or(name)
}

/// A string constant, whatever `standard_conforming_strings` is. It never holds `{}`, which stands for a value.
fn literal(text: &str) -> String {
    let quoted = quote_literal(text);
    if !quoted.contains('{') {
        return quoted;
    }
    format!("E{}", quoted.trim_start_matches('E').replace('{', "\\x7b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(strip_nulls: bool, keys: &[&str], binary: bool) -> Cleanup {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Cleanup { columns: [("doc".to_owned(), ColumnCleanup { binary, strip_nulls, keys })].into() }
    }

    #[test]
    fn expressions_wrap_a_column_or_a_parameter() {
        assert_eq!(column(true, &[], false).expression("doc", "t.doc"), "pg_catalog.json_strip_nulls(t.doc)");
        assert_eq!(
            column(true, &["a", "it's"], true).expression("doc", "v.c1::jsonb"),
            "pg_catalog.jsonb_strip_nulls(CASE pg_catalog.jsonb_typeof(v.c1::jsonb) WHEN 'object' THEN v.c1::jsonb \
             OPERATOR(pg_catalog.-) ARRAY['a', 'it''s']::pg_catalog.text[] ELSE v.c1::jsonb END)"
        );
        let cleanup = column(true, &[], true);
        assert_eq!(
            cleanup.select_list(&["id", "doc", "Big"], "t."),
            "t.id, pg_catalog.jsonb_strip_nulls(t.doc), t.\"Big\""
        );
        assert!(cleanup.touches("doc") && !cleanup.touches("id") && !cleanup.is_empty());
    }

    #[test]
    fn keys_are_constants_whatever_is_in_them() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(literal("a{}1"), "E'a\\x7b}1'");
    }
}
