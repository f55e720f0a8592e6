//! Stops replicating a table and removes what it left.
//!
//! Order: the table is marked first, so that a stream that is started after a crash in between stops instead of going
//! on with a gap; then the source; then, in one transaction, the table and its mark. Every step can be repeated.

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::capture::publish::{self, insert_publication};
use crate::capture::setup::{self, LockLimits, SetupError};
use crate::catalog::{TableDef, TableKind, read_table, read_tables};
use crate::flow::error::FlowError;
use crate::flow::hold::hold_stream;
use crate::flow::options::StreamOptions;
use crate::flow::own_rights;
use crate::flow::stream::{connect_source, connect_target};
use crate::flow::{emptied, plugin, queue_setup};
use crate::model::name::parse_table_name;
use crate::model::{Events, TableName};
use crate::pg::Session;

const MARK: &str = "drop-table was begun and not finished; run it again";

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// It was the stream's last table: slot and publications of ours are gone too.
    pub last: bool,
    /// Things that are not ours and were left.
    pub left: Vec<String>,
}

/// What [`drop_table`] would do now, one line each, for a person. Nothing is changed.
pub async fn effects(
    options: &StreamOptions,
    table: &TableName,
    archive: bool,
) -> Result<Vec<String>, FlowError> {
    let target = connect_target(options).await?;
    let key = &options.key;
    let records = checkpoint::read_tables(&target, key).await?;
    target.close().await.map_err(FlowError::Target)?;
    let rows = if archive { "its rows stay as a plain table" } else { "it is dropped with its rows" };
    let mut effects =
        vec![format!("{} → {}: {table} is no longer replicated, {rows}", key.source, key.target)];
    if records.iter().all(|r| r.target_table == table.to_string()) {
        effects.push("it is the stream's last table: slot and publications that are ours go too".to_owned());
    }
    Ok(effects)
}

/// Stops replicating `table` of the target; with `archive` its rows stay as a plain table.
pub async fn drop_table(
    options: &StreamOptions,
    table: &TableName,
    archive: bool,
    events: &Events,
) -> Result<Dropped, FlowError> {
    let target = connect_target(options).await?;
    let key = &options.key;
    own_rights::check(&target).await?;
    checkpoint::ensure_schema(&target).await?;
    hold_stream(&target, key).await?;
    let mut records = checkpoint::read_tables(&target, key).await?;
    let name = table.to_string();
    let Some(index) = records.iter().position(|r| r.target_table == name) else {
        return Err(FlowError::Refused(vec![format!(
            "{} → {} does not know target table {name}",
            key.source, key.target
        )]));
    };
    let record = records.swap_remove(index);
    let last = records.is_empty();
    let source = connect_source(options).await?;
    checkpoint::set_table_state(&target, key, table, TableState::NeedsCopy, Some(MARK)).await?;
    let left = match clear_source(options, &source, &record, &records, events).await {
        Err(error @ FlowError::Setup(SetupError::Locked { .. }))
            if is_untouched(options, &source, &record, last).await? =>
        {
            checkpoint::set_table_state(&target, key, table, record.state, record.error.as_deref()).await?;
            events
                .warning(format!("target table {table} stays in the stream as it was; drop it again later"));
            return Err(error);
        }
        left => left?,
    };
    forget(options, &target, table, archive, last).await?;
    target.close().await.map_err(FlowError::Target)?;
    Ok(Dropped { last, left })
}

/// Nothing was changed on the source, so that the table may go on.
async fn is_untouched(
    options: &StreamOptions,
    source: &Session,
    record: &TableRecord,
    last: bool,
) -> Result<bool, FlowError> {
    if plugin::as_it_reads(options, source).await?.by_triggers() {
        let tables = storage(source, &record.source_table).await?;
        return queue_setup::still_follows(options, source, &tables).await;
    }
    // With the last table the slot went first.
    Ok(!last)
}

/// Publications and, after the last table, slot and publications. Returns what belongs to the DBA and stays.
async fn clear_source(
    options: &StreamOptions,
    source: &Session,
    record: &TableRecord,
    others: &[TableRecord],
    events: &Events,
) -> Result<Vec<String>, FlowError> {
    let mut left = Vec::new();
    let mut needed = Vec::new();
    for other in others {
        needed.extend(storage(source, &other.source_table).await?);
    }
    let mut unneeded = storage(source, &record.source_table).await?;
    unneeded.retain(|name| !needed.contains(name));
    if plugin::as_it_reads(options, source).await?.by_triggers() {
        let tables = read_tables(source, &unneeded).await?;
        let oids: Vec<_> = tables.iter().map(|table| table.oid).collect();
        queue_setup::leave(options, source, Some(&oids), events).await?;
        if others.is_empty() {
            queue_setup::leave(options, source, None, events).await?;
            emptied::drop_empty_schema(source, events).await?;
        }
        return Ok(left);
    }
    let ours = [options.default_name(), insert_publication(&options.default_name())];
    if others.is_empty() {
        match &options.slot_name {
            Some(given) => left.push(format!("slot \"{given}\"")),
            None if setup::drop_slot(source, &options.slot()).await? => {
                events.info(format!("slot \"{}\" dropped", options.slot()));
            }
            None => {}
        }
    }
    if let Some(given) = &options.publication {
        left.push(format!("publication \"{given}\""));
        return Ok(left);
    }
    if others.is_empty() {
        setup::drop_publications(source, &ours, LockLimits::default()).await?;
        return Ok(left);
    }
    let existing = setup::read_publications(source, &ours).await?;
    let statements = publish::drop_table_statements(&existing, &unneeded);
    setup::run_statements(source, &statements, &unneeded, LockLimits::default()).await?;
    Ok(left)
}

/// The tables that hold the rows of a source table: none when it is gone.
async fn storage(source: &Session, name: &str) -> Result<Vec<TableName>, FlowError> {
    let name =
        parse_table_name(name).map_err(|e| FlowError::Internal(format!("table name \"{name}\": {e}")))?;
    Ok(match read_table(source, &name).await? {
        Some(TableDef { kind: TableKind::Partitioned, leaves, .. }) => leaves,
        Some(table) => vec![table.name],
        None => Vec::new(),
    })
}

async fn forget(
    options: &StreamOptions,
    target: &Session,
    table: &TableName,
    archive: bool,
    last: bool,
) -> Result<(), FlowError> {
    let failed = |e: tokio_postgres::Error| FlowError::Target(e.into());
    let key = &options.key;
    target.batch_execute("BEGIN; SET LOCAL lock_timeout = '30s'").await.map_err(failed)?;
    let work = async {
        if !archive {
            target.execute(&format!("DROP TABLE IF EXISTS {table}"), &[]).await.map_err(failed)?;
        }
        checkpoint::forget(target, key, Some(table)).await?;
        if last {
            checkpoint::forget(target, key, None).await?;
        }
        // Else a wildcard would bring it back at the next start.
        checkpoint::set_dropped(target, key, table, true).await?;
        Ok::<(), FlowError>(())
    };
    match work.await {
        Ok(()) => target.batch_execute("COMMIT").await.map_err(failed),
        // The first error tells what happened; the session ends with us anyway.
        Err(error) => Err(error),
    }
}
