//! Tables that appear in a schema of which an entry takes every table: the running stream notices them and begins again with them.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::apply::checkpoint;
use crate::capture::publish::{self, Finding};
use crate::capture::setup::{self, TableRequest};
use crate::catalog::{TableKind, list_tables};
use crate::flow::entries::join;
use crate::flow::error::FlowError;
use crate::flow::options::{EntryOptions, StreamOptions};
use crate::flow::resolve;
use crate::flow::work::TableWork;
use crate::model::{Events, TableName, TablePattern};
use crate::pg::Session;

/// How often the schemas are listed: one query each.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// In how many looks tables that could not be taken are looked at anew: a key may have been added.
const AGAIN_AFTER: u32 = 6;

/// Returns once there is a table that the stream can take in: it is to begin again at its position, which takes it in. What cannot
/// be taken is told once; `left_out` was told already.
pub(crate) async fn arrive(
    options: &StreamOptions,
    (source, target): (&Session, &Session),
    work: &[TableWork],
    left_out: &[TableName],
    events: &Events,
) -> Result<(), FlowError> {
    let mut told: BTreeSet<TableName> = left_out.iter().cloned().collect();
    for look in 1_u32.. {
        sleep(LOOK_EVERY).await;
        for (entry, schema, names) in unknown(options, (source, target), work).await? {
            if names.iter().all(|name| told.contains(name)) && look % AGAIN_AFTER != 0 {
                continue;
            }
            let mut fit = Vec::new();
            for (name, findings) in refusals(source, options, entry, &names).await? {
                if findings.is_empty() {
                    fit.push(name);
                } else if told.insert(name) {
                    events.warning(format!("{schema} leaves out {}, which is new", join(&findings)));
                }
            }
            if fit.is_empty() {
                continue;
            }
            let list = fit.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let Some(hindrance) = hindrance((source, target), options).await? else {
                events.info(format!(
                    "new in {schema}: {list}; taken in, first rows are copied beside the stream"
                ));
                return Ok(());
            };
            if !fit.iter().all(|name| told.contains(name)) {
                events.warning(format!(
                    "new in {schema}: {list}; not taken in yet, because the stream could not begin again: {hindrance}"
                ));
                told.extend(fit);
            }
        }
    }
    Ok(())
}

/// By entry and schema, the tables that the stream does not have and that nobody took out of it.
async fn unknown<'a>(
    options: &'a StreamOptions,
    (source, target): (&Session, &Session),
    work: &[TableWork],
) -> Result<Vec<(&'a EntryOptions, &'a TablePattern, Vec<TableName>)>, FlowError> {
    let mut found = Vec::new();
    let dropped = checkpoint::read_dropped(target, &options.key).await?;
    for entry in &options.entries {
        for pattern in &entry.tables {
            let TablePattern::Schema(schema) = pattern else { continue };
            let known = |name: &TableName| {
                work.iter().any(|w| w.source.name == *name) || dropped.contains(&name.to_string())
            };
            let tables = list_tables(source, schema).await?.into_iter();
            let names: Vec<TableName> = tables
                .filter(|(name, kind)| {
                    matches!(kind, TableKind::Ordinary | TableKind::Partitioned) && !known(name)
                })
                .map(|(name, _)| name)
                .collect();
            if !names.is_empty() {
                found.push((entry, pattern, names));
            }
        }
    }
    Ok(found)
}

/// What keeps each of the tables out; nothing where the stream would take it in.
async fn refusals(
    source: &Session,
    options: &StreamOptions,
    entry: &EntryOptions,
    names: &[TableName],
) -> Result<Vec<(TableName, Vec<Finding>)>, FlowError> {
    let request =
        |name: &TableName| TableRequest { condition: None, ..resolve::request(entry, name.clone()) };
    let requests: Vec<TableRequest> = names.iter().map(request).collect();
    let mut refused = resolve::refusals(source, options, entry, &requests).await?;
    let Some(given) = &options.publication else { return Ok(refused) };
    // We add nothing to a publication of the DBA's.
    let there = setup::read_publications(source, std::slice::from_ref(given)).await?;
    let (server, (wanted, _)) =
        (setup::read_source(source).await?, setup::read_wanted(source, &requests).await?);
    let facts = setup::read_table_facts(source, &wanted).await?;
    for (name, findings) in &mut refused {
        let wanted = wanted.iter().find(|w| w.table.name == *name);
        let wanted = wanted.map(std::slice::from_ref).unwrap_or_default();
        findings.extend(publish::check_ready_made(given, there.first(), &server, &facts, wanted));
    }
    Ok(refused)
}

/// Why the stream, once ended, would be refused: a table that an entry names may have come to lack what the stream needs, and the others
/// go on as long as it runs. One that is gone stands aside.
async fn hindrance(
    (source, target): (&Session, &Session),
    options: &StreamOptions,
) -> Result<Option<String>, FlowError> {
    let records = checkpoint::read_tables(target, &options.key).await?;
    let dropped = checkpoint::read_dropped(target, &options.key).await?;
    for entry in &options.entries {
        let named = entry.tables.iter().filter_map(|pattern| match pattern {
            TablePattern::Table(name) => Some(resolve::request(entry, name.clone())),
            TablePattern::Schema(_) => None,
        });
        let mut named: Vec<TableRequest> = named.collect();
        let there = resolve::relations(source, named.iter().map(|request| &request.name)).await?;
        named.retain(|TableRequest { name, .. }| {
            let target = entry.target_table.as_ref().unwrap_or(name);
            there.contains_key(name) || resolve::absent(name, target, &records, &dropped).is_none()
        });
        let findings: Vec<Finding> = match options.by_triggers() || options.publication.is_some() {
            true => setup::read_wanted(source, &named).await?.1,
            false => {
                let refused = resolve::refusals(source, options, entry, &named).await?;
                refused.into_iter().flat_map(|(_, findings)| findings).collect()
            }
        };
        if !findings.is_empty() {
            return Ok(Some(join(&findings)));
        }
    }
    Ok(None)
}
