//! A table that joins a running stream, or is copied again: its rows are copied beside the stream, under a snapshot of
//! its own, while its changes wait in the target. Nobody waits for it.

use tokio::sync::mpsc;

use crate::apply::checkpoint::TableState;
use crate::apply::writers;
use crate::capture::trigger::SharedTick;
use crate::flow::error::FlowError;
use crate::flow::first_rows::{self, CopyFailed, FirstRows};
use crate::flow::options::StreamOptions;
use crate::flow::queues;
use crate::flow::slot::{self, Making, SlotKind};
use crate::flow::status::Board;
use crate::flow::stream::{connect_source, connect_target};
use crate::flow::work::TableWork;
use crate::model::{Events, TableName};
use crate::pg::replication::ReplicationClient;

/// A table to copy beside the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joining {
    /// Target table.
    pub(crate) table: TableName,
    /// Rows of an earlier, unfinished copy go.
    pub(crate) empty: bool,
}

/// The name of a temporary slot. A process that was killed while its own was made may have left it until the source
/// notices: hence the process number.
pub(crate) fn temporary_slot(options: &StreamOptions) -> String {
    format!("{}_{}", options.default_name().chars().take(48).collect::<String>(), std::process::id())
}

/// Copies the rows of `joining`, by triggers under a snapshot that `ticks` shares with the reader. When it returns, the tables are parked: what waits for them is to be applied. The
/// stream, from before this begins, must keep their changes.
pub(crate) async fn join(
    options: &StreamOptions,
    work: &[TableWork],
    joining: &[Joining],
    (making, ticks): (&Making, Option<&mpsc::Sender<SharedTick>>),
    (events, board): (&Events, &Board),
) -> Result<(), CopyFailed> {
    let source = connect_source(options).await?;
    let target = connect_target(options).await?;
    writers::mark_writer(&target, &options.key).await.map_err(FlowError::Target)?;
    let snapshot = match ticks {
        Some(ticks) => queues::shared_snapshot(options, ticks).await?,
        None => loop {
            match snapshot(options, &source, making, events).await {
                // The others go on meanwhile; the tables' changes wait already.
                Err(error @ FlowError::SlotTimeout { .. }) => {
                    events.warning(format!("{error}; trying again"));
                }
                result => break result?,
            }
        },
    };
    let snapshot = snapshot.then(TableState::Parked);
    let wanted = |w: &&TableWork| joining.iter().any(|j| j.table == w.target);
    let work: Vec<&TableWork> = work.iter().filter(wanted).collect();
    for work in &work {
        let empty = joining.iter().any(|j| j.table == work.target && j.empty);
        let begun =
            first_rows::begin(&target, &source, &options.key, work, snapshot.at(), empty, events).await;
        begun.map_err(CopyFailed::of(&work.target))?;
    }
    snapshot.copy(options, &target, &work, events, board).await?;
    Ok(snapshot.release().await?)
}

async fn snapshot(
    options: &StreamOptions,
    source: &crate::pg::Session,
    making: &Making,
    events: &Events,
) -> Result<FirstRows, FlowError> {
    let mut replication = ReplicationClient::connect(&options.source).await.map_err(FlowError::Source)?;
    let kind = SlotKind { temporary: true, failover: false, plugin: options.plugin() };
    let name = temporary_slot(options);
    let slot = slot::create(&mut replication, source, &name, kind, making, events).await?;
    let exported = slot.snapshot_name.unwrap_or_default();
    let held = FirstRows::hold(&options.source, &exported, slot.consistent_point).await?;
    replication.drop_slot(&name, false).await.map_err(FlowError::Source)?;
    Ok(held)
}
