//! Queues and triggers on the source, for a stream: whether they are there, and how they are made and removed. What keeps a table
//! from having them is `queue_rights`.

use std::time::Duration;

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::capture::publish::{Condition, Finding, WantedTable};
use crate::capture::setup::{self, Captured, SetupError};
use crate::capture::trigger::stream_ticks;
use crate::catalog::{TableDef, read_tables};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::queues::{connect, source_error, storage};
use crate::flow::work::TableWork;
use crate::model::{Events, Oid, TableName};
use crate::pg::Session;

/// How often the triggers' locks are tried for before a stream begins, a few seconds each time.
const LOCK_ROUNDS: usize = 20;

/// The first pause before it is tried again beside a running stream.
const BESIDE_PAUSE: Duration = Duration::from_secs(5);

/// The tables of `work` whose writes are not all queued for us yet.
pub(crate) async fn unsubscribed<'w>(
    options: &StreamOptions,
    source: &Session,
    work: &'w [TableWork],
    wanted: &[WantedTable],
) -> Result<Vec<&'w TableWork>, FlowError> {
    let reads = stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)?;
    let mut missing = Vec::new();
    for work in work {
        if !reads
            || !is_followed(options, source, &oids(storage(work))).await?
            || !has_condition(options, source, work, wanted).await?
        {
            missing.push(work);
        }
    }
    Ok(missing)
}

/// The condition of the entry is the one that is written down with the queues.
async fn has_condition(
    options: &StreamOptions,
    source: &Session,
    work: &TableWork,
    wanted: &[WantedTable],
) -> Result<bool, FlowError> {
    let sql = "SELECT NOT EXISTS (SELECT FROM repcloud.reads WHERE consumer = $1 AND queue = ANY ($2) AND condition IS DISTINCT FROM $3)";
    let condition = condition(wanted, &work.source.name).map(|c| c.normalised.as_str());
    let tables = oids(storage(work));
    let row = source.query_one(sql, &[&options.slot(), &tables, &condition]).await.map_err(source_error)?;
    row.try_get(0).map_err(source_error)
}

/// A table whose rows were copied under another condition than it has now is refused: other rows belong to it.
pub(crate) async fn check_conditions(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
    records: &[TableRecord],
) -> Result<(), FlowError> {
    if !stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        return Ok(());
    }
    let copied = |work: &&TableWork| {
        let record = records.iter().find(|r| r.target_table == work.target.to_string());
        record.is_some_and(|r| matches!(r.state, TableState::Streaming | TableState::Parked))
    };
    let mut findings = Vec::new();
    for work in work.iter().filter(copied) {
        if !has_condition(options, source, work, wanted).await? {
            let problem = format!(
                "its `condition` is not the one it was copied with; copy it again with `repcloud reset --source {} --table {} --recopy`",
                options.key.source, work.target
            );
            findings.push(Finding::new(&work.source.name, problem));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(FlowError::refused_by_source(&findings)) }
}

pub(crate) fn oids(tables: &[TableDef]) -> Vec<Oid> {
    tables.iter().map(|t| t.oid).collect()
}

/// Every write into these tables is queued, and waits for us. Schema `repcloud` must be there.
pub(crate) async fn is_followed(
    options: &StreamOptions,
    source: &Session,
    tables: &[Oid],
) -> Result<bool, FlowError> {
    let sql = "SELECT count(*) = cardinality($2::oid[]) FROM repcloud.reads WHERE consumer = $1 AND queue = ANY ($2)";
    let row = source.query_one(sql, &[&options.slot(), &tables]).await.map_err(source_error)?;
    if !row.try_get::<_, bool>(0).map_err(source_error)? {
        return Ok(false);
    }
    for table in tables {
        let there = setup::read_queue(source, *table).await?;
        if !there.queue || !there.fires {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As [`is_followed`], by name: of tables that no entry takes any more.
pub(crate) async fn still_follows(
    options: &StreamOptions,
    source: &Session,
    tables: &[TableName],
) -> Result<bool, FlowError> {
    if !stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        return Ok(false);
    }
    let there = read_tables(source, tables).await?;
    Ok(there.len() == tables.len() && is_followed(options, source, &oids(&there)).await?)
}

/// What a table is captured with.
pub(crate) fn condition<'c>(wanted: &'c [WantedTable], source: &TableName) -> Option<&'c Condition> {
    wanted.iter().find(|w| w.table.name == *source).and_then(|w| w.condition.as_ref())
}

/// Makes what is missing for a stream that begins: schema, queues, triggers. An attempt that gets no lock is told, and made again.
pub(crate) async fn subscribe(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
    events: &Events,
) -> Result<(), FlowError> {
    checkpoint::ensure_schema(source).await?;
    setup::make_shared(source).await?;
    let mut made = 0;
    for work in work {
        let mut rounds = 1..LOCK_ROUNDS;
        loop {
            match subscribe_table(options, source, work, wanted, events).await {
                Err(FlowError::Setup(error @ SetupError::Locked { .. })) if rounds.next().is_some() => {
                    events.warning(format!("source: {error}; trying again"));
                }
                queues => break made += queues?,
            }
        }
    }
    events.info(format!("triggers and queues made for {made} tables"));
    Ok(())
}

/// Makes what is missing of one table's queues; returns how many were.
async fn subscribe_table(
    options: &StreamOptions,
    source: &Session,
    work: &TableWork,
    wanted: &[WantedTable],
    events: &Events,
) -> Result<usize, FlowError> {
    let condition = condition(wanted, &work.source.name).map(|c| c.normalised.as_str());
    let mut made = 0;
    for table in storage(work) {
        let owned = setup::owns(source, table.oid).await?;
        let captured = Captured { table, owned, condition };
        if !setup::subscribe(source, &options.slot(), &captured).await? {
            continue;
        }
        made += 1;
        if !owned {
            events.warning(format!(
                "source table {}: our role does not own it, so its triggers do not fire for sessions with session_replication_role = replica; \
                 what such sessions write (replicated rows, some restores) is missed",
                table.name
            ));
        }
    }
    Ok(made)
}

/// Makes the queues of tables that join a stream beside it: its other tables go on while a lock is waited for. Returns once some
/// table has what it needs.
pub(crate) async fn subscribe_beside(
    options: &StreamOptions,
    work: &[TableWork],
    wanted: &[WantedTable],
    events: &Events,
) -> Result<(), FlowError> {
    let source = connect(options).await?;
    let mut pause = BESIDE_PAUSE;
    loop {
        let mut got = false;
        for work in work {
            match subscribe_table(options, &source, work, wanted, events).await {
                Ok(_) => got = true,
                Err(FlowError::Setup(error @ SetupError::Locked { .. })) => events.warning(format!(
                    "source: {error}; target table {} joins later, trying again in {} s",
                    work.target,
                    pause.as_secs()
                )),
                Err(error) => return Err(error),
            }
        }
        if got {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BESIDE_PAUSE * 12);
    }
}

/// Takes the stream out as a reader, of the queues of `tables` or of all; queues without a reader go, with their triggers.
pub(crate) async fn leave(
    options: &StreamOptions,
    source: &Session,
    tables: Option<&[Oid]>,
    events: &Events,
) -> Result<(), FlowError> {
    let removed = setup::unsubscribe(source, &options.slot(), tables).await?;
    if removed > 0 {
        events.info(format!("triggers and queues of {removed} tables dropped"));
    }
    Ok(())
}
