//! What is known of a stream from outside: the running process's own word, the target's state, the source's slot.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::apply::checkpoint::{self, Checkpoint, TableRecord};
use crate::apply::state_read;
use crate::flow::error::FlowError;
use crate::flow::facts::{self, SlotRow};
use crate::flow::monitor::CAUGHT_UP_BYTES;
use crate::flow::options::StreamOptions;
use crate::flow::plugin;
use crate::flow::start;
use crate::flow::view::{StreamState, StreamView, TableView};
use crate::model::{Lsn, TablePattern};
use crate::pg::{self, ConnectOptions};

/// A database that does not answer for so long is shown as an error.
const CONTACT_LIMIT: Duration = Duration::from_secs(4);

/// What the target holds of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
struct TargetState {
    checkpoint: Option<Checkpoint>,
    tables: Vec<TableRecord>,
    conflicts: HashMap<String, u64>,
    seconds_behind: Option<f64>,
}

/// Asks both databases, side by side and for a short time, and adds what the process of the stream says of itself.
/// A database that does not answer is named in `error`.
pub async fn read(options: &StreamOptions, running: Option<StreamView>) -> StreamView {
    let (slot, target) = tokio::join!(
        limited("source", &options.source, read_slot(options)),
        limited("target", &options.target, read_target(options))
    );
    merge(options, running, slot, target)
}

async fn limited<T>(
    what: &str,
    options: &ConnectOptions,
    work: impl Future<Output = Result<T, FlowError>>,
) -> Result<T, String> {
    match timeout(CONTACT_LIMIT, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => {
            Err(format!("{what} {} does not answer within {} s", options.target(), CONTACT_LIMIT.as_secs()))
        }
    }
}

async fn read_slot(options: &StreamOptions) -> Result<Option<SlotRow>, FlowError> {
    let source = pg::connect(&options.source).await.map_err(FlowError::Source)?;
    let options = plugin::as_it_reads(options, &source).await?;
    match facts::read_place(&source, &options).await? {
        // Its figures are another's.
        Some(slot) => match start::not_ours(&options.slot(), options.slot_name.is_some(), &slot.facts) {
            Some(reason) => Err(FlowError::Stopped(reason)),
            None => Ok(Some(slot)),
        },
        None => Ok(None),
    }
}

async fn read_target(options: &StreamOptions) -> Result<TargetState, FlowError> {
    let target = pg::connect(&options.target).await.map_err(FlowError::Target)?;
    if checkpoint::schema_version(&target).await?.is_none() {
        return Ok(TargetState::default());
    }
    let key = &options.key;
    Ok(TargetState {
        checkpoint: checkpoint::read(&target, key).await?,
        tables: checkpoint::read_tables(&target, key).await?,
        conflicts: state_read::conflict_counts(&target, key).await?,
        seconds_behind: state_read::seconds_behind(&target, key).await?,
    })
}

/// One view from all that is known. A process that runs knows best how far it is; the databases know the rest.
fn merge(
    options: &StreamOptions,
    running: Option<StreamView>,
    slot: Result<Option<SlotRow>, String>,
    target: Result<TargetState, String>,
) -> StreamView {
    let mut view = running.unwrap_or_default();
    let process = view.pid.is_some();
    view.source.clone_from(&options.key.source);
    view.target.clone_from(&options.key.target);
    "slot".clone_into(&mut view.capture);
    view.slot = options.slot();
    if !process {
        (view.lag_bytes, view.lag_seconds, view.seconds_to_slot_loss) = (0, 0.0, None);
    }
    let mut errors: Vec<String> = view.error.take().into_iter().collect();
    let state = match target {
        Ok(state) => state,
        Err(error) => {
            errors.push(error);
            TargetState::default()
        }
    };
    if let Some(row) = &state.checkpoint {
        view.applied_lsn = view.applied_lsn.max(row.applied);
        view.changes_applied = view.changes_applied.max(u64::try_from(row.changes).unwrap_or(0));
    }
    match slot {
        Ok(Some(slot)) => {
            if slot.waiting_seconds.is_some() {
                "trigger".clone_into(&mut view.capture);
            }
            show_slot(&mut view, &slot, &state, process);
        }
        Ok(None) => {
            view.slot_status = None;
            if options.by_triggers() {
                "trigger".clone_into(&mut view.capture);
            }
            if state.checkpoint.as_ref().is_some_and(|c| c.ready) && options.by_triggers() {
                errors.push("the source knows nothing of the stream's triggers and queues".to_owned());
            } else if state.checkpoint.as_ref().is_some_and(|c| c.ready) {
                errors.push(format!("slot \"{}\" does not exist on the source", view.slot));
            }
        }
        Err(error) => {
            if options.by_triggers() {
                // Numbers of ticks, and no places in the WAL.
                "trigger".clone_into(&mut view.capture);
                (view.received_lsn, view.applied_lsn, view.confirmed_lsn) =
                    (Lsn::INVALID, Lsn::INVALID, Lsn::INVALID);
            }
            errors.push(error);
        }
    }
    view.tables = tables(options, std::mem::take(&mut view.tables), &state);
    errors.dedup();
    view.error = (!errors.is_empty()).then(|| errors.join("; "));
    view
}

fn show_slot(view: &mut StreamView, slot: &SlotRow, state: &TargetState, process: bool) {
    view.confirmed_lsn = slot.facts.confirmed;
    view.retained_wal_bytes = slot.retained;
    view.slot_status.clone_from(&slot.wal_status);
    view.received_lsn = view.received_lsn.max(view.applied_lsn);
    if let Some(seconds) = slot.waiting_seconds {
        (view.lag_bytes, view.lag_seconds) = (0, seconds);
        // Its own positions are the numbers of ticks: shown is where the WAL was at them.
        let place = |tick: u64| slot.places.get(&tick).copied().unwrap_or(Lsn::INVALID);
        view.applied_lsn = place(state.checkpoint.as_ref().map_or(0, |c| c.applied.0));
        (view.received_lsn, view.confirmed_lsn) = (place(slot.source_end.0), place(slot.facts.confirmed.0));
        return;
    }
    if process || view.applied_lsn == Lsn::INVALID {
        return;
    }
    view.lag_bytes = slot.source_end.bytes_since(view.applied_lsn);
    view.lag_seconds = match view.lag_bytes {
        ..=CAUGHT_UP_BYTES => 0.0,
        _ => state.seconds_behind.unwrap_or(0.0).max(0.0),
    };
    if slot.facts.active_pid.is_some() {
        // Somebody reads it: a process of another host or home.
        view.state = match view.lag_bytes {
            ..=CAUGHT_UP_BYTES => StreamState::Streaming,
            _ => StreamState::CatchingUp,
        };
    }
}

/// The tables the target knows, those of the running process, and those that are configured by name, each once.
fn tables(options: &StreamOptions, shown: Vec<TableView>, state: &TargetState) -> Vec<TableView> {
    let mut tables = shown;
    for record in &state.tables {
        match tables.iter_mut().find(|t| t.target_table == record.target_table) {
            Some(table) => table.show(record),
            None => {
                let mut table = TableView::default();
                table.show(record);
                tables.push(table);
            }
        }
    }
    for entry in &options.entries {
        for pattern in &entry.tables {
            let TablePattern::Table(name) = pattern else { continue };
            let target = entry.target_table.as_ref().unwrap_or(name).to_string();
            if tables.iter().any(|t| t.target_table == target) {
                continue;
            }
            tables.push(TableView {
                source_table: name.to_string(),
                target_table: target,
                mode: entry.mode().to_owned(),
                state: "waiting".to_owned(),
                ..TableView::default()
            });
        }
    }
    for table in &mut tables {
        table.conflicts = state.conflicts.get(&table.target_table).copied().unwrap_or(table.conflicts);
    }
    tables.sort_by(|a, b| a.target_table.cmp(&b.target_table));
    tables
}
