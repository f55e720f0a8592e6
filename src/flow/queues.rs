//! A stream that reads queues which triggers fill: what takes the place of publication, slot and WAL position.
//!
//! The consumer is called as the slot would be. Its position is the number of a tick; what a slot keeps as WAL, the queues
//! keep as rows. How the rows become changes is `capture::trigger`'s, how the triggers come to be `queue_setup`'s.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot, watch};

use crate::apply::checkpoint::{self, TableState};
use crate::apply::writers;
use crate::capture::publish::{Condition, WantedTable};
use crate::capture::setup;
use crate::capture::trigger::stream_cleaner::clean;
use crate::capture::trigger::stream_ticks::{self, StreamConsumer};
use crate::capture::trigger::{QueueTable, SharedTick, StreamReader, StreamTable};
use crate::capture::{CaptureError, Written};
use crate::catalog::{TableDef, read_tables};
use crate::flow::error::FlowError;
use crate::flow::facts::{self, SlotRow};
use crate::flow::first_rows::FirstRows;
use crate::flow::followed;
use crate::flow::join::Joining;
use crate::flow::options::StreamOptions;
use crate::flow::pipeline::BATCH_CHANGES;
use crate::flow::queue_setup::{condition, is_followed, oids};
use crate::flow::slot::HeldSnapshot;
use crate::flow::start::{SlotFacts, SlotPlace, SystemFacts};
use crate::flow::work::TableWork;
use crate::model::{Events, Lsn, Oid, ReplicaIdentity};
use crate::pg::{self, Session};

/// What the facts call the plugin of a stream by triggers.
pub(crate) const PLUGIN: &str = "triggers";

pub(crate) fn source_error(error: tokio_postgres::Error) -> FlowError {
    FlowError::Source(error.into())
}

/// The tables that hold the rows.
pub(crate) fn storage(work: &TableWork) -> &[TableDef] {
    if work.leaves.is_empty() { std::slice::from_ref(&work.source) } else { &work.leaves }
}

/// The stream as a reader of the queues that are there: those of tables that wait for a copy too, whose rows it removes.
pub(crate) async fn consumer(
    source: &Session,
    options: &StreamOptions,
    generation: i64,
) -> Result<StreamConsumer, FlowError> {
    let sql = "SELECT queue FROM repcloud.reads WHERE consumer = $1 \
               AND pg_catalog.to_regclass('repcloud.queue_' || queue) IS NOT NULL ORDER BY 1";
    let rows = source.query(sql, &[&options.slot()]).await.map_err(source_error)?;
    let queues = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(source_error)?;
    Ok(StreamConsumer { name: options.slot(), queues, generation })
}

/// Whole rows are queued, so every table is as if its replica identity were FULL.
pub(crate) fn knows_whole_rows(work: &mut TableWork) {
    work.source.identity = ReplicaIdentity::Full;
    work.leaves.iter_mut().for_each(|leaf| leaf.identity = ReplicaIdentity::Full);
}

/// The system, as far as a role without REPLICATION can see it. There are no timelines: that the last tick is there says that
/// everything up to it is.
pub(crate) async fn read_system(source: &Session) -> Result<SystemFacts, FlowError> {
    let sql = "SELECT CASE WHEN pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') \
               THEN (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) ELSE 'unknown' END";
    let row = source.query_one(sql, &[]).await.map_err(source_error)?;
    Ok(SystemFacts { system_id: row.try_get(0).map_err(source_error)?, timeline: 0, history: Vec::new() })
}

/// The ticks and queues, in the words in which a slot is described; `None` before the first tick.
pub(crate) async fn read_standing(
    source: &Session,
    options: &StreamOptions,
) -> Result<Option<SlotRow>, FlowError> {
    let standing = stream_ticks::standing(source, &options.slot()).await.map_err(FlowError::Source)?;
    let Some(standing) = standing else { return Ok(None) };
    let places = stream_ticks::places(source, &options.slot()).await.map_err(FlowError::Source)?;
    Ok(Some(SlotRow {
        facts: SlotFacts {
            plugin: PLUGIN.to_owned(),
            place: SlotPlace::Here,
            active_pid: None,
            confirmed: Lsn(standing.first),
            lost: false,
            synced: false,
        },
        wal_status: None,
        retained: standing.bytes,
        safe: None,
        source_end: Lsn(standing.last),
        waiting_seconds: Some(standing.waiting_seconds),
        places,
    }))
}

/// The number that the reader gives its next snapshot, which is taken after this is asked.
pub(crate) async fn next_tick(source: &Session, options: &StreamOptions) -> Result<Lsn, FlowError> {
    let standing = stream_ticks::standing(source, &options.slot()).await.map_err(FlowError::Source)?;
    Ok(Lsn(standing.map_or(1, |s| s.last + 1)))
}

/// Marks the tables that were made anew under their name, or whose triggers are gone: nothing queued what was written into them so
/// far. To be called before they are subscribed, which hides it.
pub(crate) async fn mark_gaps(
    source: &Session,
    target: &Session,
    options: &StreamOptions,
    work: &[TableWork],
    events: &Events,
) -> Result<(), FlowError> {
    let key = &options.key;
    if !stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        return Ok(());
    }
    let records = checkpoint::read_tables(target, key).await?;
    let follows = |w: &&TableWork| {
        let record = records.iter().find(|r| r.target_table == w.target.to_string());
        record.is_some_and(|r| matches!(r.state, TableState::Streaming | TableState::Parked))
    };
    for work in work.iter().filter(follows) {
        if is_followed(options, source, &oids(storage(work))).await? {
            continue;
        }
        let name = &work.source.name;
        let why = format!(
            "source table {name} was made anew or lost its triggers, so that changes of it have passed by"
        );
        followed::unfollow(target, key, &work.target, &why, events).await?;
    }
    Ok(())
}

/// A stream that reads a slot cannot read triggers from one start to the next: what lies between would be lost.
pub(crate) async fn refuse_change_of_capture(
    source: &Session,
    options: &StreamOptions,
) -> Result<(), FlowError> {
    if stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        return Ok(());
    }
    let slot = facts::read_slot(source, &options.slot()).await?;
    if slot.is_none_or(|slot| slot.facts.place != SlotPlace::Here) {
        return Ok(());
    }
    let (slot, name) = (options.slot(), &options.key.source);
    Err(FlowError::Refused(vec![format!(
        "the stream reads slot \"{slot}\", which is there; it cannot read triggers instead and lose nothing: go on with capture = \"slot\", \
         or take all its tables out (repcloud drop-table --archive) and begin anew with triggers; `repcloud status` shows the stream of {name}"
    )]))
}

/// A snapshot for a copy, and the tick that shows the same.
pub(crate) async fn snapshot(
    options: &StreamOptions,
    source: &Session,
    consumer: &StreamConsumer,
) -> Result<FirstRows, FlowError> {
    let standing = stream_ticks::standing(source, &consumer.name).await.map_err(FlowError::Source)?;
    let (held, shown) = HeldSnapshot::take(&options.source).await?;
    let number = standing.map_or(1, |s| s.last + 1);
    waits_for_disk(source).await?;
    stream_ticks::write(source, consumer, number, Some(&shown)).await?;
    Ok(FirstRows::held(held, Lsn(number)))
}

async fn waits_for_disk(source: &Session) -> Result<(), FlowError> {
    source.batch_execute("SET synchronous_commit = on").await.map_err(source_error)
}

/// Reads `tables` behind `from`; with what asks it for ticks to copy under. The stream's lock must be held and the position be taken
/// over as `consumer.generation`.
pub(crate) async fn open_reader(
    options: &StreamOptions,
    tables: Vec<StreamTable>,
    consumer: StreamConsumer,
    from: Lsn,
    written: watch::Receiver<Written>,
) -> Result<(StreamReader, mpsc::Sender<SharedTick>), FlowError> {
    let (session, cleaning) = (connect(options).await?, connect(options).await?);
    let ticks = stream_ticks::adopt(&session, &consumer, from.0).await.map_err(reading)?;
    let (ask, asked) = mpsc::channel(1);
    let (sessions, tables) = ((session, cleaning), (tables, asked));
    let opened = StreamReader::open(sessions, tables, consumer, ticks, BATCH_CHANGES, written).await;
    Ok((opened.map_err(reading)?, ask))
}

/// A snapshot for a copy beside the stream, which its reader writes down as a tick.
pub(crate) async fn shared_snapshot(
    options: &StreamOptions,
    reader: &mpsc::Sender<SharedTick>,
) -> Result<FirstRows, FlowError> {
    let (ready_in, ready) = oneshot::channel();
    let (shown_in, shown) = oneshot::channel();
    let (number_in, number) = oneshot::channel();
    let asked = reader.send(SharedTick { ready: ready_in, shown, number: number_in }).await;
    if asked.is_ok() && ready.await.is_ok() {
        let (held, snapshot) = HeldSnapshot::take(&options.source).await?;
        if shown_in.send(snapshot).is_ok()
            && let Ok(number) = number.await
        {
            return Ok(FirstRows::held(held, Lsn(number)));
        }
    }
    // The reader has ended, and so does the stream, which knows why.
    std::future::pending().await
}

fn reading(error: CaptureError) -> FlowError {
    match error {
        CaptureError::Source(error) => FlowError::Source(error),
        error => FlowError::Capture(error),
    }
}

/// A session of the reader's, which the stream's next owner ends.
pub(crate) async fn connect(options: &StreamOptions) -> Result<Session, FlowError> {
    let session = pg::connect(&options.source).await.map_err(FlowError::Source)?;
    writers::mark_writer(&session, &options.key).await.map_err(FlowError::Source)?;
    Ok(session)
}

/// The tables whose changes the stream wants: those that stream, those whose changes wait, also for their entry of the
/// configuration, and those that are copied beside it.
pub(crate) async fn tables(
    options: &StreamOptions,
    (source, target): (&Session, &Session),
    work: &[TableWork],
    wanted: &[WantedTable],
    joining: &[Joining],
) -> Result<Vec<StreamTable>, FlowError> {
    let mut records = checkpoint::read_tables(target, &options.key).await?;
    records.retain(|r| matches!(r.state, TableState::Streaming | TableState::Parked));
    let mut tables: BTreeMap<Oid, StreamTable> = BTreeMap::new();
    for record in &records {
        let work = work.iter().find(|w| w.target.to_string() == record.target_table);
        let (there, condition) = match work {
            Some(work) => (storage(work).to_vec(), condition(wanted, &work.source.name).cloned()),
            None => {
                let names = checkpoint::known_storage(target, &options.key, record).await?;
                let there = read_tables(source, &names).await?;
                let condition = copied_under(options, source, &there).await?;
                (there, condition)
            }
        };
        let insert_only = work.is_some_and(|w| w.entry.insert_only);
        for table in there {
            let new = StreamTable {
                table: QueueTable::new(&table),
                copied_at: record.copied_at,
                insert_only,
                condition: condition.clone(),
            };
            let known = tables.entry(table.oid).or_insert(new);
            known.copied_at = known.copied_at.min(record.copied_at);
            known.insert_only &= insert_only;
        }
    }
    for work in work.iter().filter(|w| joining.iter().any(|j| j.table == w.target)) {
        for table in storage(work) {
            let new = StreamTable {
                table: QueueTable::new(table),
                copied_at: StreamTable::NOT_COPIED,
                insert_only: work.entry.insert_only,
                condition: condition(wanted, &work.source.name).cloned(),
            };
            tables.entry(table.oid).or_insert(new).insert_only &= work.entry.insert_only;
        }
    }
    Ok(tables.into_values().collect())
}

/// The condition under which the rows of these tables were copied.
async fn copied_under(
    options: &StreamOptions,
    source: &Session,
    tables: &[TableDef],
) -> Result<Option<Condition>, FlowError> {
    let Some(table) = tables.first() else { return Ok(None) };
    let sql = "SELECT condition FROM repcloud.reads WHERE consumer = $1 AND queue = $2";
    let row = source.query_opt(sql, &[&options.slot(), &table.oid]).await.map_err(source_error)?;
    let Some(sql) = row.map_or(Ok(None), |row| row.try_get::<_, Option<String>>(0)).map_err(source_error)?
    else {
        return Ok(None);
    };
    match setup::read_condition(source, &table.name, &sql).await? {
        Ok(condition) => Ok(Some(condition)),
        Err(finding) => Err(FlowError::refused_by_source(&[finding])),
    }
}

/// Removes what is durable, once the stream has ended.
pub(crate) async fn clean_up(
    options: &StreamOptions,
    source: &Session,
    generation: i64,
    durable: Lsn,
) -> Result<(), FlowError> {
    let consumer = consumer(source, options, generation).await?;
    clean(source, &consumer, durable).await.map_err(FlowError::Source)
}
