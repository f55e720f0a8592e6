//! A target table as DDL, from the source's definition; pure.
//!
//! Kept: columns with type and collation, NOT NULL, generated columns (always STORED: that is what every
//! supported version can make), identity (always BY DEFAULT, so that the stream's values are accepted), CHECK,
//! primary key, unique and exclusion constraints, indexes. Left out: foreign keys, triggers, defaults (the
//! stream brings every value; a default would name sequences and functions of the source), partitioning.

mod grants;
mod indexes;
mod objects;
mod scan;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::catalog::table_def::{ColumnDef, IdentityKind, TableDef};
use crate::catalog::type_def::TypeMap;
use crate::model::{RetryAdvice, TableName, quote_ident};

pub use objects::{MadeWhenMissing, ObjectKind, Requirement};
pub use statement::{Makes, NamedStatement};

/// How the target table differs from the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOptions {
    /// Its name.
    pub name: TableName,
    /// Only these columns; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Its key instead of the source's identity.
    pub key: Option<Vec<String>>,
    /// logdel: the column that says when a row was deleted. Unique and exclusion constraints other than the
    /// key's then hold for live rows only.
    pub deleted_column: Option<String>,
    /// All indexes; false: only the key's.
    pub all_indexes: bool,
    /// Owner of the table; `None`: who makes it.
    pub owner: Option<String>,
    /// `select, insert to analysts`, each.
    pub grants: Vec<String>,
}

impl TargetOptions {
    /// The same table under this name, with everything.
    pub fn named(name: TableName) -> Self {
        TargetOptions {
            name,
            columns: None,
            key: None,
            deleted_column: None,
            all_indexes: true,
            owner: None,
            grants: Vec::new(),
        }
    }
}

/// Everything that makes a target table, in the order in which it is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDdl {
    /// The table.
    pub name: TableName,
    /// What must be there and only a person can make.
    pub requires: Vec<Requirement>,
    /// Schema and types, in dependency order; one that exists is kept as it is.
    pub objects: Vec<MadeWhenMissing>,
    /// `CREATE TABLE`.
    pub create_table: String,
    /// The index by which the applier finds rows, made after the first rows and before any change is applied; `None`: a
    /// table without a key.
    pub key: Option<NamedStatement>,
    /// Owner and grants.
    pub settings: Vec<String>,
    /// Secondary indexes and constraints, made after the rows.
    pub after_rows: Vec<NamedStatement>,
    /// What the source has and the target does not get, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// Something of the source's table that the target does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `index "x"`, `constraint "y"`.
    pub object: String,
    /// Why.
    pub reason: &'static str,
}

/// A target table that cannot be made as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DdlError {
    /// `columns` or `key` names a column the source does not have.
    #[error("table {table} has no column {column}; correct `{setting}`")]
    UnknownColumn {
        /// Source table.
        table: TableName,
        /// Quoted column.
        column: String,
        /// Which setting named it.
        setting: &'static str,
    },
    /// A key column that `columns` leaves out.
    #[error("column {column} of the key of table {table} is not among `columns`; add it there")]
    KeyNotSelected {
        /// Source table.
        table: TableName,
        /// Quoted column.
        column: String,
    },
    /// The source has a column of the deleted column's name.
    #[error("table {table} has a column {column} of its own; choose another `deleted_column`")]
    DeletedColumnTaken {
        /// Source table.
        table: TableName,
        /// Quoted column.
        column: String,
    },
    /// A grant that is not `privileges to roles`.
    #[error("\"{grant}\" is not a grant: {problem}; write for example \"select, insert to analysts\"")]
    Grant {
        /// As configured.
        grant: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An index definition that does not read as PostgreSQL prints them.
    #[error(
        "the definition of index {index} of table {table} cannot be read; set `indexes = false` \
             or make the target table yourself"
    )]
    Index {
        /// Source table.
        table: TableName,
        /// Quoted index.
        index: String,
    },
}

impl DdlError {
    /// Always a person's turn.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }
}

/// The statements that make the target of `source`. `types` holds the types of its columns.
pub fn target_ddl(
    source: &TableDef,
    types: &TypeMap,
    options: &TargetOptions,
) -> Result<TargetDdl, DdlError> {
    let columns = selected_columns(source, options)?;
    let names: BTreeSet<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let mut left_out = Vec::new();
    let built = indexes::statements(source, options, &names, &mut left_out)?;
    let checks = checks(source, options, &names, &mut left_out);
    let mut after_rows = built.after_rows;
    after_rows.extend(checks.later);
    Ok(TargetDdl {
        name: options.name.clone(),
        requires: objects::requirements(&columns, types),
        objects: objects::to_make(&options.name.schema, &columns, types),
        create_table: create_table(&columns, &checks.inline, options),
        key: built.key,
        settings: settings(options)?,
        after_rows,
        left_out,
    })
}

/// The columns the target gets, in the source's order.
fn selected_columns<'a>(
    source: &'a TableDef,
    options: &TargetOptions,
) -> Result<Vec<&'a ColumnDef>, DdlError> {
    let named = [("columns", &options.columns), ("key", &options.key)];
    for (setting, names) in named {
        if let Some(name) = names.iter().flatten().find(|name| source.column(name).is_none()) {
            let column = quote_ident(name);
            return Err(DdlError::UnknownColumn { table: source.name.clone(), column, setting });
        }
    }
    if let Some(deleted) = options.deleted_column.as_ref().filter(|name| source.column(name).is_some()) {
        return Err(DdlError::DeletedColumnTaken {
            table: source.name.clone(),
            column: quote_ident(deleted),
        });
    }
    let wanted = |c: &&ColumnDef| options.columns.as_ref().is_none_or(|names| names.contains(&c.name));
    Ok(source.columns.iter().filter(wanted).collect())
}

fn create_table(columns: &[&ColumnDef], checks: &[String], options: &TargetOptions) -> String {
    let mut lines: Vec<String> = columns.iter().map(|c| column_line(c)).collect();
    if let Some(deleted) = &options.deleted_column {
        lines.push(format!("{} timestamp with time zone", quote_ident(deleted)));
    }
    lines.extend(checks.iter().cloned());
    format!("CREATE TABLE {} (\n  {}\n)", options.name, lines.join(",\n  "))
}

fn column_line(column: &ColumnDef) -> String {
    let mut line = format!("{} {}", quote_ident(&column.name), column.type_sql);
    if let Some(collation) = &column.collation {
        line.push_str(&format!(" COLLATE {collation}"));
    }
    if let Some(expression) = &column.generated {
        line.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
    }
    if column.identity != IdentityKind::None {
        line.push_str(" GENERATED BY DEFAULT AS IDENTITY");
    }
    if column.not_null {
        line.push_str(" NOT NULL");
    }
    line
}

/// CHECK constraints: those that hold for every row, and those that existing rows may break.
struct Checks {
    inline: Vec<String>,
    later: Vec<NamedStatement>,
}

fn checks(
    source: &TableDef,
    options: &TargetOptions,
    selected: &BTreeSet<&str>,
    left_out: &mut Vec<LeftOut>,
) -> Checks {
    let mut checks = Checks { inline: Vec::new(), later: Vec::new() };
    for constraint in &source.constraints {
        let object = || format!("constraint {}", quote_ident(&constraint.name));
        match constraint.kind {
            'f' => left_out.push(LeftOut { object: object(), reason: "targets get no foreign keys" }),
            'c' if !constraint.columns.iter().all(|c| selected.contains(c.as_str())) => {
                left_out.push(LeftOut { object: object(), reason: "it needs a column that is not selected" });
            }
            'c' => {
                let (name, definition) = (&constraint.name, &constraint.definition);
                if constraint.validated {
                    checks.inline.push(format!("CONSTRAINT {} {definition}", quote_ident(name)));
                } else {
                    // In CREATE TABLE the server ignores NOT VALID, and the copied rows would be refused.
                    let makes = Makes::Constraint(definition.clone());
                    checks.later.push(NamedStatement::new(&options.name, name.clone(), makes));
                }
            }
            _ => {}
        }
    }
    checks
}

fn settings(options: &TargetOptions) -> Result<Vec<String>, DdlError> {
    let mut statements = Vec::new();
    if let Some(owner) = &options.owner {
        statements.push(format!("ALTER TABLE {} OWNER TO {}", options.name, quote_ident(owner)));
    }
    for grant in &options.grants {
        statements.push(grants::statement(&options.name, grant)?);
    }
    Ok(statements)
}
