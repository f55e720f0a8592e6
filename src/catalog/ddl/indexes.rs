//! The key, and the other indexes and constraints, of a target table.

use std::collections::BTreeSet;

use super::scan::{find_top_level, split_top_level};
use super::statement::fit;
use super::{DdlError, LeftOut, Makes, NamedStatement, TargetOptions};
use crate::catalog::table_def::{ConstraintDef, IndexDef, TableDef};
use crate::model::{ReplicaIdentity, TableName, quote_ident};

/// What [`statements`] makes.
pub(super) struct Built {
    pub(super) key: Option<NamedStatement>,
    pub(super) after_rows: Vec<NamedStatement>,
}

/// Statements for all indexes of `source` that the target gets.
pub(super) fn statements(
    source: &TableDef,
    options: &TargetOptions,
    selected: &BTreeSet<&str>,
    left_out: &mut Vec<LeftOut>,
) -> Result<Built, DdlError> {
    let key = key_of(source, options);
    if let Some(name) = key.columns().into_iter().find(|c| !selected.contains(c)) {
        return Err(DdlError::KeyNotSelected { table: source.name.clone(), column: quote_ident(name) });
    }
    let mut built = Built { key: None, after_rows: Vec::new() };
    if let Key::Columns(columns) = key {
        built.key = Some(unique_index(&options.name, columns));
    }
    for index in &source.indexes {
        let is_key = matches!(key, Key::Index(chosen) if chosen.name == index.name);
        if !is_key && !options.all_indexes {
            continue;
        }
        match one(source, options, selected, index, is_key)? {
            Ok(statement) if is_key => built.key = Some(statement),
            Ok(statement) => built.after_rows.push(statement),
            Err(reason) => {
                left_out.push(LeftOut { object: format!("index {}", quote_ident(&index.name)), reason });
            }
        }
    }
    Ok(built)
}

/// By what the target's rows are found.
#[derive(Clone, Copy)]
enum Key<'a> {
    None,
    Index(&'a IndexDef),
    /// Columns of the `key` setting for which the source has no unique index.
    Columns(&'a [String]),
}

impl<'a> Key<'a> {
    fn columns(&self) -> Vec<&'a str> {
        match self {
            Key::None => Vec::new(),
            Key::Index(index) => index.columns.iter().flatten().map(String::as_str).collect(),
            Key::Columns(columns) => columns.iter().map(String::as_str).collect(),
        }
    }
}

/// The `key` setting, else the identity's index, else (FULL, NOTHING) the primary key.
fn key_of<'a>(source: &'a TableDef, options: &'a TargetOptions) -> Key<'a> {
    if let Some(columns) = &options.key {
        let wanted: BTreeSet<&String> = columns.iter().collect();
        let same = |index: &&IndexDef| {
            index.unique
                && index.valid
                && !index.exclusion
                && index.predicate.is_none()
                && index.columns.iter().all(Option::is_some)
                && index.columns.iter().flatten().collect::<BTreeSet<_>>() == wanted
        };
        return source.indexes.iter().find(same).map_or(Key::Columns(columns), Key::Index);
    }
    let chosen = |index: &&IndexDef| match source.identity {
        ReplicaIdentity::Index => index.replica_identity && index.valid,
        _ => index.primary && index.valid,
    };
    source.indexes.iter().find(chosen).map_or(Key::None, Key::Index)
}

fn unique_index(table: &TableName, columns: &[String]) -> NamedStatement {
    let name = fit(&format!("{}_repcloud_key", table.table));
    let columns: Vec<String> = columns.iter().map(|c| quote_ident(c)).collect();
    NamedStatement::new(
        table,
        name,
        Makes::Index { unique: true, body: format!(" ({})", columns.join(", ")) },
    )
}

/// The statement for one index, or the reason why the target does not get it.
fn one(
    source: &TableDef,
    options: &TargetOptions,
    selected: &BTreeSet<&str>,
    index: &IndexDef,
    is_key: bool,
) -> Result<Result<NamedStatement, &'static str>, DdlError> {
    if !index.valid {
        return Ok(Err("it is not valid on the source"));
    }
    if !index.referenced.iter().all(|c| selected.contains(c.as_str())) {
        return Ok(Err("it needs a column that is not selected"));
    }
    let constraint =
        source.constraints.iter().find(|c| c.name == index.name && matches!(c.kind, 'p' | 'u' | 'x'));
    let live_only = options.deleted_column.as_deref().filter(|_| !is_key);
    let name = target_index_name(&index.name, &source.name, &options.name);
    let makes = match (constraint, live_only) {
        // WITHOUT OVERLAPS: neither a partial constraint nor, as a unique gist index, an index of its own.
        (Some(_), Some(_)) if index.exclusion && index.unique => {
            return Ok(Err("a key WITHOUT OVERLAPS cannot be limited to live rows"));
        }
        (Some(constraint), Some(deleted)) if index.exclusion => exclusion_of_live_rows(constraint, deleted),
        (Some(constraint), None) => Makes::Constraint(constraint.definition.clone()),
        // A unique constraint cannot be partial, an index can.
        _ => {
            let deleted = live_only.filter(|_| index.unique);
            create_index(index, deleted).ok_or_else(|| DdlError::Index {
                table: source.name.clone(),
                index: quote_ident(&index.name),
            })?
        }
    };
    Ok(Ok(NamedStatement::new(&options.name, name, makes)))
}

/// The source's definition; unique among live rows when `deleted` is given. `None` when the definition does not read as expected.
fn create_index(index: &IndexDef, deleted: Option<&str>) -> Option<Makes> {
    let from = find_top_level(&index.definition, " USING ")?;
    let (body, predicate) = split_top_level(&index.definition[from..], " WHERE ");
    let predicate = live(predicate.strip_prefix(" WHERE "), deleted);
    Some(Makes::Index { unique: index.unique, body: format!("{body}{predicate}") })
}

fn exclusion_of_live_rows(constraint: &ConstraintDef, deleted: &str) -> Makes {
    let (rest, timing) = split_top_level(&constraint.definition, " DEFERRABLE");
    let (body, predicate) = split_top_level(rest, " WHERE ");
    let predicate = live(predicate.strip_prefix(" WHERE "), Some(deleted));
    Makes::Constraint(format!("{body}{predicate}{timing}"))
}

/// ` WHERE (…)` of a predicate and the condition that the row is not deleted.
fn live(predicate: Option<&str>, deleted: Option<&str>) -> String {
    let deleted = deleted.map(|column| format!("{} IS NULL", quote_ident(column)));
    match (predicate, deleted) {
        (None, None) => String::new(),
        (Some(predicate), None) => format!(" WHERE {predicate}"),
        (None, Some(deleted)) => format!(" WHERE ({deleted})"),
        (Some(predicate), Some(deleted)) => format!(" WHERE ({predicate} AND {deleted})"),
    }
}

/// The source's index name where the table keeps schema and name. Elsewhere the name begins with the target
/// table's, because several targets may share a schema, in which index names are unique.
fn target_index_name(index: &str, source: &TableName, target: &TableName) -> String {
    if source == target {
        return index.to_owned();
    }
    match index.strip_prefix(source.table.as_str()).filter(|rest| rest.starts_with('_')) {
        Some(rest) => fit(&format!("{}{rest}", target.table)),
        None => fit(&format!("{}_{index}", target.table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_names_follow_the_target_table() {
        let source = TableName::new("public", "orders");
        let mart = TableName::new("mart", "o2");
        assert_eq!(target_index_name("orders_pkey", &source, &source), "orders_pkey");
        assert_eq!(target_index_name("orders_pkey", &source, &mart), "o2_pkey");
        assert_eq!(target_index_name("ordersx", &source, &mart), "o2_ordersx");
    }
}
