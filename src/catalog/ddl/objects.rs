//! What a table needs around it: schema, types, collations.

use crate::catalog::table_def::ColumnDef;
use crate::catalog::type_def::{TypeDef, TypeKind, TypeMap};
use crate::model::{quote_ident, quote_literal};

/// A schema or type that is made when the target does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeWhenMissing {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name as SQL, qualified.
    pub name: String,
    /// The statement that makes it.
    pub sql: String,
}

/// Kinds of [`MadeWhenMissing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A schema.
    Schema,
    /// A type.
    Type,
}

/// Something the target must have before its table can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// A type that we cannot make.
    Type {
        /// Qualified name as SQL.
        name: String,
        /// The extension that brings it; `None`: a base type, or a table's row type.
        extension: Option<String>,
    },
    /// A collation.
    Collation {
        /// Qualified name as SQL.
        name: String,
    },
}

/// What must exist, without doubles.
pub(super) fn requirements(columns: &[&ColumnDef], types: &TypeMap) -> Vec<Requirement> {
    let mut found: Vec<Requirement> = Vec::new();
    let mut add = |requirement| {
        if !found.contains(&requirement) {
            found.push(requirement);
        }
    };
    for type_def in user_types(columns, types) {
        let made_elsewhere = type_def.extension.is_some()
            || matches!(type_def.kind, TypeKind::Base | TypeKind::Composite { of_relation: true, .. });
        if made_elsewhere {
            let (name, extension) = (type_def.qualified(), type_def.extension.clone());
            add(Requirement::Type { name, extension });
        } else if let TypeKind::Domain { collation: Some(name), .. } = &type_def.kind {
            add(Requirement::Collation { name: name.clone() });
        }
    }
    for name in columns.iter().filter_map(|c| c.collation.clone()) {
        add(Requirement::Collation { name });
    }
    found
}

/// The table's schema and the types it needs with their schemas, each before what uses it.
pub(super) fn to_make(schema: &str, columns: &[&ColumnDef], types: &TypeMap) -> Vec<MadeWhenMissing> {
    let mut made = vec![schema_object(schema)];
    for type_def in user_types(columns, types) {
        let Some(sql) = create_type(type_def) else { continue };
        let schema = schema_object(&type_def.schema);
        if !made.contains(&schema) {
            made.push(schema);
        }
        made.push(MadeWhenMissing { kind: ObjectKind::Type, name: type_def.qualified(), sql });
    }
    made
}

fn schema_object(schema: &str) -> MadeWhenMissing {
    let name = quote_ident(schema);
    // IF NOT EXISTS for the case that another session makes it meanwhile.
    let sql = format!("CREATE SCHEMA IF NOT EXISTS {name}");
    MadeWhenMissing { kind: ObjectKind::Schema, name, sql }
}

/// Types outside the server's own, each after its parts; parts of an extension's types come with it.
fn user_types<'a>(columns: &[&ColumnDef], types: &'a TypeMap) -> Vec<&'a TypeDef> {
    let wanted: Vec<u32> = columns.iter().map(|c| c.type_oid).collect();
    types.in_creation_order(&wanted).into_iter().filter(|t| !t.built_in()).collect()
}

/// `None` for what is made otherwise: with another type, a table or an extension.
fn create_type(type_def: &TypeDef) -> Option<String> {
    let name = type_def.qualified();
    if type_def.extension.is_some() {
        return None;
    }
    Some(match &type_def.kind {
        TypeKind::Enum(labels) => {
            let labels: Vec<String> = labels.iter().map(|l| quote_literal(l)).collect();
            format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", "))
        }
        TypeKind::Domain { base_sql, not_null, collation, checks, .. } => {
            let mut sql = format!("CREATE DOMAIN {name} AS {base_sql}");
            if let Some(collation) = collation {
                sql.push_str(&format!(" COLLATE {collation}"));
            }
            if *not_null {
                sql.push_str(" NOT NULL");
            }
            for check in checks {
                sql.push_str(&format!(" {check}"));
            }
            sql
        }
        TypeKind::Composite { fields, of_relation: false, .. } => {
            format!("CREATE TYPE {name} AS ({})", fields.join(", "))
        }
        TypeKind::Range { options, .. } => format!("CREATE TYPE {name} AS RANGE ({})", options.join(", ")),
        _ => return None,
    })
}
