//! The preparation of a stream by triggers, where it differs from one that reads a slot.

use std::time::Duration;

use crate::apply::checkpoint::{self, TableState};
use crate::capture::publish::WantedTable;
use crate::capture::setup;
use crate::capture::trigger::StreamTable;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::first_rows::FirstRows;
use crate::flow::options::StreamOptions;
use crate::flow::prepare::Preparation;
use crate::flow::queue_rights;
use crate::flow::queue_setup;
use crate::flow::queues;
use crate::flow::work::TableWork;
use crate::model::{Events, Lsn, TableName};
use crate::pg::Session;

/// How often it is looked whether the source has written a position.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Until a stream by triggers is to begin again, for tables whose triggers are made or for the position that it was to reach; `joins`:
/// it begins again anyway when tables are copied, and not before.
pub(crate) async fn begins_again(
    options: &StreamOptions,
    (waiting, joins): (&(Vec<TableWork>, Vec<WantedTable>), bool),
    (source, awaited): (&Session, Option<Lsn>),
    events: &Events,
) -> Result<(), FlowError> {
    if joins {
        joined_later(options, waiting, events).await?;
        return std::future::pending().await;
    }
    tokio::select! {
        result = joined_later(options, waiting, events) => result,
        result = source_gets_to(source, awaited) => result,
    }
}

/// Makes triggers for tables that join, beside the stream, which then begins again with them; never ends where none joins.
async fn joined_later(
    options: &StreamOptions,
    (work, wanted): &(Vec<TableWork>, Vec<WantedTable>),
    events: &Events,
) -> Result<(), FlowError> {
    if work.is_empty() {
        return std::future::pending().await;
    }
    queue_setup::subscribe_beside(options, work, wanted, events).await
}

/// Until the source has written the WAL up to the position that is waited for: a snapshot that is taken then shows all that
/// committed before it. Never ends where none is.
async fn source_gets_to(source: &Session, awaited: Option<Lsn>) -> Result<(), FlowError> {
    let Some(position) = awaited else { return std::future::pending().await };
    while facts::written_end(source).await? < position {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

impl Preparation<'_> {
    /// What stands in the way of triggers; `true`: every table has them.
    pub(crate) async fn check_queues(&self) -> Result<bool, FlowError> {
        let (options, source) = (self.options, self.source);
        queue_rights::check(options, source, &self.work, &self.wanted).await?;
        let missing = queue_setup::unsubscribed(options, source, &self.work, &self.wanted).await?;
        // What queues share is there before the first of them, which a wildcard may find later.
        Ok(missing.is_empty() && setup::shared_is_there(source).await?)
    }

    /// What is read of the queues; nothing with a slot.
    pub(crate) async fn queued_tables(&self) -> Result<Vec<StreamTable>, FlowError> {
        if !self.options.by_triggers() {
            return Ok(Vec::new());
        }
        let sessions = (self.source, self.target);
        queues::tables(self.options, sessions, &self.work, &self.wanted, &self.joining).await
    }

    /// A snapshot of the source, written down as a tick.
    pub(crate) async fn tick(&self) -> Result<FirstRows, FlowError> {
        let before = checkpoint::read(self.target, &self.options.key).await?;
        // The owner that we are about to become.
        let generation = before.map_or(1, |row| row.generation + 1);
        let consumer = queues::consumer(self.source, self.options, generation).await?;
        queues::snapshot(self.options, self.source, &consumer).await
    }

    /// By triggers: tables whose triggers are not there yet are left to be made beside a stream that runs already, since a lock
    /// may have to be waited for.
    pub(crate) async fn let_wait(&mut self) -> Result<(), FlowError> {
        let (options, key) = (self.options, &self.options.key);
        let runs = checkpoint::read(self.target, key).await?.is_some_and(|c| c.ready);
        if !options.by_triggers() || !runs {
            return Ok(());
        }
        let records = checkpoint::read_tables(self.target, key).await?;
        queue_setup::check_conditions(options, self.source, &self.work, &self.wanted, &records).await?;
        let missing = queue_setup::unsubscribed(options, self.source, &self.work, &self.wanted).await?;
        let aside = |table: &TableName| {
            let record = records.iter().find(|r| r.target_table == table.to_string());
            record.is_some_and(|r| matches!(r.state, TableState::NeedsCopy | TableState::Failed))
        };
        self.waiting = missing.into_iter().map(|w| w.target.clone()).filter(|table| !aside(table)).collect();
        self.published = true;
        Ok(())
    }
}
