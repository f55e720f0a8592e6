//! Whether everything the source writes into a table reaches the stream. Where it did not, for whatever time, the target
//! has a gap that nothing later fills: the table is marked as one that needs another copy, and never goes on in silence.

use std::collections::BTreeSet;

use crate::apply::checkpoint::{self, StreamKey, TableRecord, TableState};
use crate::apply::error::reset_command;
use crate::apply::parked_store;
use crate::capture::publish::{self, ExistingPublication};
use crate::capture::setup::{self, LockLimits};
use crate::catalog::read_tables;
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::queue_setup;
use crate::flow::resolve;
use crate::flow::work::TableWork;
use crate::model::name::parse_table_name;
use crate::model::{Events, TableName};
use crate::pg::Session;

/// Our publications as they are; `None` where the DBA made the publication, which pre-flight checks as a whole.
async fn ours(
    source: &Session,
    options: &StreamOptions,
) -> Result<Option<Vec<ExistingPublication>>, FlowError> {
    // A queue that has a gap is seen by its ticks, and at the start.
    if options.publication.is_some() || options.by_triggers() {
        return Ok(None);
    }
    let name = options.default_name();
    let names = [publish::insert_publication(&name), name];
    Ok(Some(setup::read_publications(source, &names).await?))
}

fn unpublished(there: &[ExistingPublication], work: &TableWork) -> bool {
    let published: BTreeSet<&TableName> =
        there.iter().flat_map(|p| &p.tables).map(|table| &table.name).collect();
    work.published().iter().any(|table| !published.contains(table))
}

/// Taken out of the publications, or dropped and made anew under its name. A table that is gone writes nothing.
async fn has_gap(
    source: &Session,
    there: &[ExistingPublication],
    work: &TableWork,
) -> Result<bool, FlowError> {
    let tables = work.published();
    Ok(unpublished(there, work) && read_tables(source, &tables).await?.len() == tables.len())
}

/// Marks the tables whose changes are not, or not all, in the stream. To be called before the publications are completed,
/// which hides the gap, and while the stream runs.
pub(crate) async fn mark_gaps(
    source: &Session,
    target: &Session,
    options: &StreamOptions,
    work: &[TableWork],
    events: &Events,
) -> Result<(), FlowError> {
    let key = &options.key;
    let there = ours(source, options).await?;
    for record in checkpoint::read_tables(target, key).await? {
        let name = &record.target_table;
        let follows = matches!(record.state, TableState::Streaming | TableState::Parked);
        let source_table = &record.source_table;
        let why = match work.iter().find(|w| w.target.to_string() == *name) {
            // A copy that was cut off or is asked for begins after the publications are complete.
            Some(_) if !follows => continue,
            Some(work) => match &there {
                Some(there) if has_gap(source, there, work).await? => format!(
                    "source table {source_table} was taken out of the publication or made anew, so that changes of it have passed by"
                ),
                _ => continue,
            },
            None if record.state == TableState::Parked
                && still_published((source, target), options, &record, &there).await? =>
            {
                continue;
            }
            None if record.state == TableState::Streaming
                && still_published((source, target), options, &record, &there).await? =>
            {
                wait_for_its_entry(target, key, &record, events).await?;
                continue;
            }
            None if is_gone(source, source_table).await? => {
                give_up_gone(target, key, &record, events).await?;
                continue;
            }
            None if !follows && record.state != TableState::Copying => continue,
            None => format!(
                "source table {source_table} is not replicated any more (no entry of the configuration takes it, or it cannot be published), so that changes of it pass by"
            ),
        };
        let Ok(table) = parse_table_name(name) else { continue };
        unfollow(target, key, &table, &why, events).await?;
    }
    Ok(())
}

async fn is_gone(source: &Session, table: &str) -> Result<bool, FlowError> {
    let Ok(name) = parse_table_name(table) else { return Ok(false) };
    Ok(resolve::relations(source, std::iter::once(&name)).await?.is_empty())
}

/// No entry names it, a wildcard took it: that the target table is left over is said once, and until it is dropped by `status`.
async fn give_up_gone(
    target: &Session,
    key: &StreamKey,
    record: &TableRecord,
    events: &Events,
) -> Result<(), FlowError> {
    let Ok(table) = parse_table_name(&record.target_table) else { return Ok(()) };
    let gone = FlowError::SourceGone {
        source_table: record.source_table.clone(),
        target_table: table.clone(),
        source_name: key.source.clone(),
    };
    let why = gone.to_string();
    if record.state == TableState::NeedsCopy && record.error.as_ref() == Some(&why) {
        return Ok(());
    }
    parked_store::give_up(target, key, std::slice::from_ref(&table), &why).await?;
    events.warning(format!("target table {table} is not followed any more: {why}"));
    Ok(())
}

/// Marks a target table as one that needs another copy because of changes that passed by.
pub(crate) async fn unfollow(
    target: &Session,
    key: &StreamKey,
    table: &TableName,
    why: &str,
    events: &Events,
) -> Result<(), FlowError> {
    let why = format!("{why}; copy it again, {}", reset_command(&key.source, table, "recopy"));
    parked_store::give_up(target, key, std::slice::from_ref(table), &why).await?;
    events.warning(format!("target table {table} is not followed any more: {why}"));
    Ok(())
}

/// Its changes still come: nothing is lost yet.
async fn still_published(
    (source, target): (&Session, &Session),
    options: &StreamOptions,
    record: &TableRecord,
    there: &Option<Vec<ExistingPublication>>,
) -> Result<bool, FlowError> {
    let tables = checkpoint::known_storage(target, &options.key, record).await?;
    if options.by_triggers() {
        return Ok(!tables.is_empty() && queue_setup::still_follows(options, source, &tables).await?);
    }
    let Some(there) = there else { return Ok(false) };
    let published = |table: &TableName| there.iter().flat_map(|p| &p.tables).any(|t| t.name == *table);
    Ok(!tables.is_empty() && tables.iter().all(published))
}

/// An entry that was left out may be a slip, and a copy may take days: the changes wait until it is back, or the table is dropped
/// from the stream, or they are too many.
async fn wait_for_its_entry(
    target: &Session,
    key: &StreamKey,
    record: &TableRecord,
    events: &Events,
) -> Result<(), FlowError> {
    let TableRecord { source_table, target_table: name, .. } = record;
    let Ok(table) = parse_table_name(name) else { return Ok(()) };
    let why = format!(
        "no entry of the configuration takes source table {source_table} any more; its changes wait for the entry to come back, up to the limit of \
         parked changes (`repcloud drop-table {name}` ends its replication)"
    );
    parked_store::park(target, key, std::slice::from_ref(&table), &table, &why).await?;
    events.warning(format!("target table {name} is parked: {why}"));
    Ok(())
}

/// Tables that lost their replica identity while they were published: the application's UPDATE and DELETE fail from then on.
const WITHOUT_IDENTITY: &str = "\
SELECT n.nspname::text, c.relname::text
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid AND c.relkind = 'r'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = $1 AND c.relreplident <> 'f'
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
 ORDER BY 1, 2";

async fn harmed(source: &Session, options: &StreamOptions) -> Result<Vec<TableName>, FlowError> {
    let failed = |e: tokio_postgres::Error| FlowError::Source(e.into());
    let rows = source.query(WITHOUT_IDENTITY, &[&options.default_name()]).await.map_err(failed)?;
    rows.iter()
        .map(|row| Ok(TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?)))
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// Takes those tables out of our publication, whatever becomes of the stream: the application comes first.
pub(crate) async fn withdraw(
    source: &Session,
    options: &StreamOptions,
    events: &Events,
) -> Result<(), FlowError> {
    let Some(there) = ours(source, options).await? else { return Ok(()) };
    let tables = harmed(source, options).await?;
    if tables.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = there.into_iter().filter(|p| p.name == options.default_name()).collect();
    let statements = publish::drop_table_statements(&all, &tables);
    setup::run_statements(source, &statements, &tables, LockLimits::default()).await?;
    for table in &tables {
        events.warning(format!(
            "source table {table} lost its replica identity, so that UPDATE and DELETE of the application failed while it was published; \
             it is taken out of publication {}",
            options.default_name()
        ));
    }
    Ok(())
}
