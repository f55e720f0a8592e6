//! The tables that the entries of a stream name.

use crate::catalog::{TableKind, list_tables};
use crate::flow::error::FlowError;
use crate::flow::options::{EntryOptions, StreamOptions};
use crate::model::{TableName, TablePattern};
use crate::pg::Session;

/// A source table and the target table it feeds, as configured.
pub(crate) struct Configured<'a> {
    pub(crate) source: TableName,
    pub(crate) target: TableName,
    pub(crate) entry: &'a EntryOptions,
}

/// The tables of every entry, each target once; schemas resolved on the source, whether the mode can take the table
/// or not.
pub(crate) async fn configured<'a>(
    source: &Session,
    options: &'a StreamOptions,
) -> Result<Vec<Configured<'a>>, FlowError> {
    let mut tables: Vec<Configured<'a>> = Vec::new();
    for entry in &options.entries {
        for pattern in &entry.tables {
            let names = match pattern {
                TablePattern::Table(name) => vec![name.clone()],
                TablePattern::Schema(schema) => list_tables(source, schema)
                    .await?
                    .into_iter()
                    .filter(|(_, kind)| matches!(kind, TableKind::Ordinary | TableKind::Partitioned))
                    .map(|(name, _)| name)
                    .collect(),
            };
            for name in names {
                let target = entry.target_table.clone().unwrap_or_else(|| name.clone());
                if !tables.iter().any(|known| known.target == target) {
                    tables.push(Configured { source: name, target, entry });
                }
            }
        }
    }
    Ok(tables)
}
