//! How rows are told apart: the table is published for UPDATE and DELETE, which without a usable replica identity would
//! make the application's own statements fail. Pure.

use super::finding::Finding;
use crate::catalog::{IndexDef, TableDef};
use crate::model::{ReplicaIdentity, quote_ident};

const CHECK: &str = "key";

/// From this version on the server fails UPDATE and DELETE of a table with REPLICA IDENTITY FULL whose generated
/// columns are not published.
const GENERATED_IN_IDENTITY: i32 = 180_000;

/// Refuses a table whose rows cannot be told apart, with the statement that helps.
pub fn judge(table: &TableDef, version: i32) -> Vec<Finding> {
    let Some(identity) = table.identity_columns() else {
        let problem = format!("{}: once it is published, UPDATE and DELETE would fail", without(table));
        return vec![refuse(table, problem)];
    };
    let generated = |name: &String| table.column(name).is_some_and(|c| c.generated.is_some());
    if table.identity != ReplicaIdentity::Full {
        if identity.iter().any(generated) {
            let problem = "its replica identity has a generated column, which is not published: UPDATE and DELETE \
                           would fail";
            return vec![refuse(table, problem.to_owned())];
        }
        return Vec::new();
    }
    if version >= GENERATED_IN_IDENTITY && table.columns.iter().any(|c| c.generated.is_some()) {
        let problem = "its replica identity is FULL and it has generated columns, which are not published: UPDATE and \
                       DELETE would fail";
        return vec![refuse(table, problem.to_owned())];
    }
    if candidates(table).next().is_some() {
        return Vec::new();
    }
    let without_equality: Vec<String> = table
        .columns
        .iter()
        .filter(|c| c.generated.is_none() && !c.has_equality)
        .map(|c| format!("{} ({})", quote_ident(&c.name), c.type_sql))
        .collect();
    if without_equality.is_empty() {
        let problem = "it has no key, so each change looks for its row by every column, and reads the whole copy for it";
        return vec![Finding::warn(CHECK, &table.name, problem).help("add a primary key")];
    }
    let problem = format!(
        "it has no key, and rows cannot be told apart by every column: {} cannot be compared",
        without_equality.join(", ")
    );
    vec![Finding::refuse(CHECK, &table.name, problem).help("add a primary key")]
}

fn refuse(table: &TableDef, problem: String) -> Finding {
    let name = &table.name;
    let remedy = match candidates(table).next() {
        Some(index) if index.primary => format!("run: ALTER TABLE {name} REPLICA IDENTITY DEFAULT"),
        Some(index) => {
            format!("run: ALTER TABLE {name} REPLICA IDENTITY USING INDEX {}", quote_ident(&index.name))
        }
        None => "add a primary key, or a unique index over columns that are NOT NULL".to_owned(),
    };
    Finding::refuse(CHECK, name, problem).help(remedy)
}

fn without(table: &TableDef) -> &'static str {
    match table.identity {
        ReplicaIdentity::Nothing => "its replica identity is NOTHING",
        ReplicaIdentity::Index => "the index of its replica identity is gone or not valid",
        _ if table.indexes.iter().any(|index| index.primary) => {
            "its primary key is deferrable, which cannot be a replica identity"
        }
        _ => "it has neither a primary key nor a replica identity",
    }
}

/// The indexes that can be a replica identity, the primary key's first: unique, whole, immediate, over stored columns
/// that are NOT NULL.
fn candidates(table: &TableDef) -> impl Iterator<Item = &IndexDef> {
    let stored = |name: &Option<String>| {
        let column = name.as_ref().and_then(|name| table.column(name));
        column.is_some_and(|column| column.not_null && column.generated.is_none())
    };
    table.indexes.iter().filter(move |index| {
        index.unique
            && index.valid
            && index.immediate
            && !index.exclusion
            && index.predicate.is_none()
            && !index.columns.is_empty()
            && index.columns.iter().all(stored)
    })
}
