//! `--column-order`: the new table's columns in a given order. Pure.
//!
//! `LIKE` keeps the order, so the columns are written out. Everything else is carried by name; what is not, because it counts columns, is refused.

use std::collections::BTreeSet;

use super::{Column, Inventory, Refusal};
use crate::model::quote_ident;

/// Why the columns cannot have this order.
pub(crate) fn refusals(inventory: &Inventory, order: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if order.is_empty() {
        return refusals;
    }
    let table = format!("table {}", inventory.table);
    let there: BTreeSet<&str> = inventory.columns.iter().map(|column| column.name.as_str()).collect();
    let wanted: BTreeSet<&str> = order.iter().map(String::as_str).collect();
    let mut say = |names: Vec<String>, what: &str| {
        if !names.is_empty() {
            refusals.push(Refusal::new(&table, format!("--column-order {what} {}", names.join(", "))));
        }
    };
    let quoted = |names: BTreeSet<&str>| names.into_iter().map(quote_ident).collect();
    say(quoted(&wanted - &there), "names columns that it does not have:");
    say(quoted(&there - &wanted), "must name every column; it leaves out");
    if order.len() > wanted.len() {
        refusals.push(Refusal::new(&table, "--column-order names a column twice"));
    }
    for (object, text) in texts(inventory) {
        if counts_columns(text, &inventory.head.sql_name) {
            refusals.push(
                Refusal::new(
                    object,
                    "it counts the columns of the table, or uses its whole row, and would mean something else with --column-order",
                )
                .remedy("write it with the names of the columns"),
            );
        }
    }
    refusals
}

/// Definitions that name the table and are made again.
fn texts(inventory: &Inventory) -> Vec<(String, &str)> {
    let mut texts: Vec<(String, &str)> = Vec::new();
    texts.extend(inventory.views.iter().map(|v| (format!("view {}", v.place()), v.definition.as_str())));
    texts.extend(
        inventory
            .rules
            .iter()
            .map(|r| (format!("rule {} on {}", quote_ident(&r.name), r.place()), r.definition.as_str())),
    );
    texts.extend(
        inventory.functions.iter().map(|f| (format!("function {}", f.signature), f.definition.as_str())),
    );
    for policy in &inventory.policies {
        let object = format!("policy {} on {}", quote_ident(&policy.name), policy.place());
        texts
            .extend(policy.visible.iter().chain(&policy.checked).map(|text| (object.clone(), text.as_str())));
    }
    texts.extend(inventory.checks.iter().map(|c| {
        (format!("constraint {} on {}", quote_ident(&c.name), inventory.table), c.definition.as_str())
    }));
    texts.extend(
        inventory.indexes.iter().map(|i| (format!("index {}", quote_ident(&i.name)), i.definition.as_str())),
    );
    texts
}

/// The table's whole row (`x.*`), or an alias with names for its columns (`FROM public.t x(a, b)`, which the server prints without
/// a space before the list).
fn counts_columns(text: &str, table: &str) -> bool {
    if text.contains(".*") {
        return true;
    }
    text.match_indices(table).any(|(at, name)| {
        let rest = text.get(at + name.len()..).unwrap_or_default();
        let Some(alias) = rest.strip_prefix(' ') else { return false };
        let end = match alias.strip_prefix('"') {
            Some(inner) => inner.find('"').map(|end| end + 2),
            None => Some(alias.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(0)),
        };
        end.filter(|end| *end > 0).and_then(|end| alias.get(end..)).is_some_and(|rest| rest.starts_with('('))
    })
}

/// The columns in this order, for CREATE TABLE.
pub(crate) fn definitions(inventory: &Inventory, order: &[String]) -> String {
    let column = |name: &String| inventory.columns.iter().find(|column| column.name == *name);
    let mut parts: Vec<String> = order.iter().filter_map(column).map(|c| definition(inventory, c)).collect();
    let not_null = inventory.checks.iter().filter(|check| check.kind == "n");
    parts.extend(
        not_null.map(|check| format!("CONSTRAINT {} {}", quote_ident(&check.name), check.definition)),
    );
    parts.join(", ")
}

/// One column, for CREATE TABLE and ADD COLUMN.
pub(super) fn definition(inventory: &Inventory, column: &Column) -> String {
    let mut text = format!("{} {}", quote_ident(&column.name), column.type_name);
    match column.compression.as_str() {
        "p" => text.push_str(" COMPRESSION pglz"),
        "l" => text.push_str(" COMPRESSION lz4"),
        _ => {}
    }
    if let Some(collation) = &column.collation {
        text.push_str(&format!(" COLLATE {collation}"));
    }
    match (column.generated.as_str(), &column.expression) {
        ("s", Some(expression)) => text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED")),
        ("v", Some(expression)) => text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) VIRTUAL")),
        (_, Some(expression)) => text.push_str(&format!(" DEFAULT {expression}")),
        (_, None) => {}
    }
    // From PostgreSQL 18 on these have names and are written out below the columns.
    if column.not_null && !inventory.checks.iter().any(|check| check.kind == "n") {
        text.push_str(" NOT NULL");
    }
    text
}

/// Storage of the columns, which CREATE TABLE takes only from PostgreSQL 16 on.
pub(crate) fn storages(inventory: &Inventory) -> impl Iterator<Item = String> + '_ {
    inventory.columns.iter().filter_map(|column| {
        let storage = match column.storage.as_str() {
            "e" => "EXTERNAL",
            "m" => "MAIN",
            "x" => "EXTENDED",
            "p" => "PLAIN",
            _ => return None,
        };
        Some(format!("ALTER COLUMN {} SET STORAGE {storage}", quote_ident(&column.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_count_columns_are_known() {
        for text in ["FROM public.t x(a, b)", "FROM public.t \"X y\"(a)", "row_to_json(t.*)"] {
            assert!(counts_columns(text, "public.t"), "{text}");
        }
        for text in [
            "INSERT INTO public.t (a, b) VALUES (1, 2)",
            "FROM public.t x WHERE (x.a = 1)",
            "FROM public.t",
            "FROM (public.t JOIN u USING (a))",
            "FROM public.t\n  WHERE (a = 1)",
        ] {
            assert!(!counts_columns(text, "public.t"), "{text}");
        }
    }
}
