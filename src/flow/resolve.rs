//! The tables that the entries of a stream name.

use std::collections::BTreeMap;

use crate::apply::checkpoint::TableRecord;
use crate::apply::route::Delivery;
use crate::capture::publish::{self, Finding, WantedTable};
use crate::capture::setup::{self, TableRequest};
use crate::catalog::{TableKind, list_tables};
use crate::flow::error::FlowError;
use crate::flow::options::{EntryOptions, StreamOptions};
use crate::flow::queues::source_error;
use crate::flow::{plugin, queue_rights};
use crate::model::{Oid, TableName, TablePattern, quote_ident};
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

/// What keeps each of the tables from being published or, by triggers, from being captured; the number of queries does not depend on
/// their number.
pub(crate) async fn refusals(
    source: &Session,
    options: &StreamOptions,
    entry: &EntryOptions,
    requests: &[TableRequest],
) -> Result<Vec<(TableName, Vec<Finding>)>, FlowError> {
    let (wanted, findings) = setup::read_wanted(source, requests).await?;
    let hindrances = match options.by_triggers() {
        true => queue_rights::refusals(source, &wanted).await?,
        false => unpublishable(source, options, &wanted).await?,
    };
    let refused = |name: &TableName| -> Vec<Finding> {
        let Some(table) = wanted.iter().find(|w| w.table.name == *name) else {
            return findings.iter().filter(|f| f.table.as_ref() == Some(name)).cloned().collect();
        };
        let its = hindrances.iter().filter(|(of, _)| of == name);
        let mut found: Vec<Finding> = its.flat_map(|(_, findings)| findings.clone()).collect();
        found.extend(stamp_in_use(entry, table));
        found
    };
    Ok(requests.iter().map(|r| (r.name.clone(), refused(&r.name))).collect())
}

/// What keeps each of the tables from being published.
async fn unpublishable(
    source: &Session,
    options: &StreamOptions,
    wanted: &[WantedTable],
) -> Result<Vec<(TableName, Vec<Finding>)>, FlowError> {
    let server = setup::read_source(source).await?;
    let facts = setup::read_table_facts(source, wanted).await?;
    let publication = options.default_name();
    let of = |table: &WantedTable| {
        publish::plan(&publication, &server, &facts, std::slice::from_ref(table), &[])
            .err()
            .unwrap_or_default()
    };
    Ok(wanted.iter().map(|table| (table.table.name.clone(), of(table))).collect())
}

/// The table has a column of its own where logdel would write.
pub(crate) fn stamp_in_use(entry: &EntryOptions, table: &WantedTable) -> Option<Finding> {
    let stamp = &entry.deleted_column;
    (entry.delivery == Delivery::LogDel && table.table.column(stamp).is_some()).then(|| {
        let problem = format!("it has a column {} of its own, where logdel writes", quote_ident(stamp));
        Finding::new(&table.table.name, problem + "; choose another deleted_column in an entry for it")
    })
}

/// `schema.*` leaves the table out: the stream, in the way in which it reads, cannot take it.
pub(crate) async fn leaves_out(
    source: &Session,
    options: &StreamOptions,
    entry: &EntryOptions,
    table: &TableName,
) -> Result<bool, FlowError> {
    let request = TableRequest { condition: None, ..request(entry, table.clone()) };
    let options = plugin::as_it_reads(options, source).await?;
    let refused = refusals(source, &options, entry, &[request]).await?;
    Ok(refused.iter().any(|(_, findings)| !findings.is_empty()))
}

pub(crate) fn request(entry: &EntryOptions, name: TableName) -> TableRequest {
    TableRequest {
        name,
        condition: entry.condition.clone(),
        columns: entry.columns.clone(),
        key: entry.key.clone(),
        insert_only: entry.insert_only,
    }
}

/// The relations that bear these names now.
const NOW: &str = "\
SELECT n.nspname::text, c.relname::text, c.oid
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN unnest($1::text[], $2::text[]) AS w (s, t) ON w.s = n.nspname AND w.t = c.relname";

/// Those of `names` that are there on the source.
pub(crate) async fn relations(
    source: &Session,
    names: impl Iterator<Item = &TableName>,
) -> Result<BTreeMap<TableName, Oid>, FlowError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        names.map(|n| (n.schema.as_str(), n.table.as_str())).unzip();
    let rows = source.query(NOW, &[&schemas, &tables]).await.map_err(source_error)?;
    let read = |row: &tokio_postgres::Row| -> Result<(TableName, Oid), tokio_postgres::Error> {
        Ok((TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?), row.try_get(2)?))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(source_error)
}

/// A table that an entry names is not on the source, and the stream is to go on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It was followed: its target table stands aside.
    Gone,
    /// A person took it out of the stream.
    TakenOut,
}

/// What an absent table of `target` is; `None`: a name that was never there, perhaps misspelt. Pure.
pub(crate) fn absent(
    source: &TableName,
    target: &TableName,
    records: &[TableRecord],
    dropped: &[String],
) -> Option<Absent> {
    let (source, target) = (source.to_string(), target.to_string());
    let known = |r: &TableRecord| r.target_table == target && r.source_table == source;
    match records.iter().any(known) {
        true => Some(Absent::Gone),
        false => dropped.contains(&target).then_some(Absent::TakenOut),
    }
}
