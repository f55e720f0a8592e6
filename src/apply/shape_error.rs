//! A source table that changed its shape, in words. Pure.

use crate::model::TableName;

/// The source described a table in a way the target does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The source sends a column the target lacks.
    #[error(
        "source column {column} of {source_table} has no column in target table {target}; add it there and start again, or name the wanted columns in the configuration"
    )]
    ColumnAdded {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target: TableName,
        /// Column.
        column: String,
    },
    /// The source no longer sends a column the target has.
    #[error(
        "column {column} is gone from source table {source_table} but still in target table {target}; drop it there, or accept the target as it is"
    )]
    ColumnDropped {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target: TableName,
        /// Column.
        column: String,
    },
    /// The type changed.
    #[error(
        "column {column} of source table {source_table} changed its type; change it in target table {target} likewise, then accept it"
    )]
    TypeChanged {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target: TableName,
        /// Column.
        column: String,
    },
    /// A key column is missing.
    #[error(
        "key column {column} of target table {target} is not among the columns of source table {source_table}"
    )]
    KeyMissing {
        /// Source table.
        source_table: TableName,
        /// Target table.
        target: TableName,
        /// Column.
        column: String,
    },
}

impl ShapeError {
    /// The target table it is about.
    pub fn target(&self) -> &TableName {
        match self {
            ShapeError::ColumnAdded { target, .. }
            | ShapeError::ColumnDropped { target, .. }
            | ShapeError::TypeChanged { target, .. }
            | ShapeError::KeyMissing { target, .. } => target,
        }
    }
}
