//! A stream that reads queues which triggers fill: what takes the place of publication, slot and WAL position.
//!
//! The consumer is called as the slot would be. Its position is the number of a tick; what a slot keeps as WAL, the queues
//! keep as rows. How the rows become changes is `capture::trigger`'s.

use tokio::sync::watch;

use crate::apply::checkpoint::{self, TableState};
use crate::apply::writers;
use crate::capture::publish::Finding;
use crate::capture::setup::{self, Captured, SetupError};
use crate::capture::trigger::stream_cleaner::clean;
use crate::capture::trigger::stream_ticks::{self, StreamConsumer};
use crate::capture::trigger::{QueueTable, StreamReader, StreamTable};
use crate::capture::{CaptureError, Written};
use crate::catalog::{TableDef, TableKind};
use crate::flow::error::FlowError;
use crate::flow::facts::SlotRow;
use crate::flow::first_rows::FirstRows;
use crate::flow::followed;
use crate::flow::options::StreamOptions;
use crate::flow::pipeline::BATCH_CHANGES;
use crate::flow::slot::HeldSnapshot;
use crate::flow::start::{SlotFacts, SystemFacts};
use crate::flow::work::TableWork;
use crate::model::{Events, Lsn, Oid, ReplicaIdentity, quote_ident};
use crate::pg::{self, Session};

/// What the facts call the plugin of a stream by triggers.
pub(crate) const PLUGIN: &str = "triggers";

/// How often the triggers' locks are tried for, a few seconds each time.
const LOCK_ROUNDS: usize = 20;

fn source_error(error: tokio_postgres::Error) -> FlowError {
    FlowError::Source(error.into())
}

/// The tables that hold the rows.
fn storage(work: &TableWork) -> &[TableDef] {
    if work.leaves.is_empty() { std::slice::from_ref(&work.source) } else { &work.leaves }
}

/// The tables to capture, each once.
fn captured(work: &[TableWork]) -> Vec<&TableDef> {
    let mut tables: Vec<&TableDef> = work.iter().flat_map(storage).collect();
    tables.sort_by_key(|t| t.oid);
    tables.dedup_by_key(|t| t.oid);
    tables
}

/// The stream as a reader of queues.
pub(crate) fn consumer(options: &StreamOptions, work: &[TableWork], generation: i64) -> StreamConsumer {
    let queues = captured(work).into_iter().map(|t| t.oid).collect();
    StreamConsumer { name: options.slot(), queues, generation }
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
    Ok(standing.map(|standing| SlotRow {
        facts: SlotFacts {
            plugin: PLUGIN.to_owned(),
            same_database: true,
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
    }))
}

/// The number that the reader gives its next snapshot, which is taken after this is asked.
pub(crate) async fn next_tick(source: &Session, options: &StreamOptions) -> Result<Lsn, FlowError> {
    let standing = stream_ticks::standing(source, &options.slot()).await.map_err(FlowError::Source)?;
    Ok(Lsn(standing.map_or(1, |s| s.last + 1)))
}

/// Of a table that may be captured: our role owns it.
type Owned = Vec<(Oid, bool)>;

/// Our role and its rights on a table: owner, TRIGGER, SELECT, rows hidden by row-level security, USAGE on the schema.
const RIGHTS: &str = "\
SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), current_user::text
  FROM pg_catalog.pg_class c WHERE c.oid = $1";

/// What our rights are on each table, or everything that stands in the way.
pub(crate) async fn check(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
) -> Result<Owned, FlowError> {
    let (owned, findings) = examine(options, source, work).await?;
    if findings.is_empty() { Ok(owned) } else { Err(FlowError::refused_by_source(&findings)) }
}

/// What our rights are on each table, and everything that stands in the way, with the statements that help.
pub(crate) async fn examine(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
) -> Result<(Owned, Vec<Finding>), FlowError> {
    let mut findings = given(options);
    findings.extend(work.iter().filter(|w| w.entry.condition.is_some()).map(|w| {
        let problem =
            "a `condition` with capture = \"trigger\" is not built yet; take it away, or read a slot";
        Finding::new(&w.source.name, problem)
    }));
    let mut owned = Vec::new();
    for table in captured(work) {
        if !matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned) {
            findings.push(Finding::new(&table.name, "it is not a table, and has no changes of its own"));
            continue;
        }
        let row = source.query_one(RIGHTS, &[&table.oid]).await.map_err(source_error)?;
        let right = |index: usize| row.try_get::<_, bool>(index).map_err(source_error);
        owned.push((table.oid, right(0)?));
        let role = quote_ident(row.try_get(5).map_err(source_error)?);
        let name = &table.name;
        let schema = quote_ident(&name.schema);
        for (missing, problem, help) in [
            (
                !right(4)?,
                "our role may not use its schema",
                format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
            ),
            (
                !right(1)?,
                "our role lacks the right TRIGGER on it",
                format!("GRANT TRIGGER ON {name} TO {role}"),
            ),
            (
                !right(2)?,
                "our role lacks the right SELECT on it",
                format!("GRANT SELECT ON {name} TO {role}"),
            ),
            (
                right(3)?,
                "row-level security hides rows from our role",
                format!("ALTER ROLE {role} BYPASSRLS"),
            ),
            (
                table.persistence == 'u',
                "it is UNLOGGED: a crash of the source would empty it and its queue, and not the target",
                format!("ALTER TABLE {name} SET LOGGED"),
            ),
        ] {
            if missing {
                findings.push(Finding::new(name, problem).help(help));
            }
        }
        if is_taken(source, table.oid).await? {
            let problem = "a repack has its triggers on it; start again when that has ended";
            findings.push(Finding::new(name, problem));
        }
    }
    Ok((owned, findings))
}

fn given(options: &StreamOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, is_given) in
        [("slot_name", options.slot_name.is_some()), ("publication", options.publication.is_some())]
    {
        if is_given {
            findings.push(Finding::of_source(format!(
                "{key} is configured, and triggers use none; take it away"
            )));
        }
    }
    findings
}

/// The table has a queue that no stream reads.
async fn is_taken(source: &Session, table: Oid) -> Result<bool, FlowError> {
    if !setup::read_queue(source, table).await?.queue {
        return Ok(false);
    }
    let there = "SELECT pg_catalog.to_regclass('repcloud.reads') IS NOT NULL";
    let row = source.query_one(there, &[]).await.map_err(source_error)?;
    if !row.try_get::<_, bool>(0).map_err(source_error)? {
        return Ok(true);
    }
    let sql = "SELECT NOT EXISTS (SELECT FROM repcloud.reads WHERE queue = $1)";
    let row = source.query_one(sql, &[&table]).await.map_err(source_error)?;
    row.try_get(0).map_err(source_error)
}

/// Every table's writes are queued, and wait for us.
pub(crate) async fn is_subscribed(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
) -> Result<bool, FlowError> {
    if !stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM repcloud.reads WHERE consumer = $1 AND queue = $2)";
    for table in captured(work) {
        let row = source.query_one(sql, &[&options.slot(), &table.oid]).await.map_err(source_error)?;
        let there = setup::read_queue(source, table.oid).await?;
        if !there.queue || !there.fires || !row.try_get::<_, bool>(0).map_err(source_error)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Marks the tables that were made anew under their name: nothing queued what was written into them so far. To be called before
/// they are subscribed, which hides it.
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
    let sql = "SELECT count(*) = cardinality($2::oid[]) FROM repcloud.reads WHERE consumer = $1 AND queue = ANY ($2)";
    for work in work.iter().filter(follows) {
        let tables: Vec<Oid> = storage(work).iter().map(|t| t.oid).collect();
        let row = source.query_one(sql, &[&options.slot(), &tables]).await.map_err(source_error)?;
        if row.try_get(0).map_err(source_error)? {
            continue;
        }
        let name = &work.source.name;
        let why = format!("source table {name} was made anew, so that changes of it have passed by");
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
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1)";
    let row = source.query_one(sql, &[&options.slot()]).await.map_err(source_error)?;
    if !row.try_get::<_, bool>(0).map_err(source_error)? {
        return Ok(());
    }
    let (slot, name) = (options.slot(), &options.key.source);
    Err(FlowError::Refused(vec![format!(
        "the stream reads slot \"{slot}\", which is there; it cannot read triggers instead and lose nothing: go on with capture = \"slot\", \
         or take all its tables out (repcloud drop-table --archive) and begin anew with triggers; `repcloud status` shows the stream of {name}"
    )]))
}

/// Makes what is missing: schema, queues, triggers. An attempt that gets no lock is told, and made again.
pub(crate) async fn subscribe(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    events: &Events,
) -> Result<(), FlowError> {
    let owned = check(options, source, work).await?;
    checkpoint::ensure_schema(source).await?;
    let is_owned = |table: &TableDef| owned.iter().any(|(oid, owned)| *oid == table.oid && *owned);
    let tables: Vec<Captured<'_>> =
        captured(work).into_iter().map(|table| Captured { table, owned: is_owned(table) }).collect();
    for table in tables.iter().filter(|t| !t.owned) {
        events.warning(format!(
            "source table {}: our role does not own it, so its triggers do not fire for sessions with session_replication_role = replica; \
             what such sessions write (replicated rows, some restores) is missed",
            table.table.name
        ));
    }
    for _ in 1..LOCK_ROUNDS {
        match setup::subscribe(source, &options.slot(), &tables).await {
            Err(error @ SetupError::Locked { .. }) => {
                events.warning(format!("source: {error}; trying again"))
            }
            result => return made(events, result?),
        }
    }
    made(events, setup::subscribe(source, &options.slot(), &tables).await?)
}

fn made(events: &Events, queues: usize) -> Result<(), FlowError> {
    events.info(format!("triggers and queues made for {queues} tables"));
    Ok(())
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

/// Reads behind `from`. The stream's lock must be held and the position be taken over as `consumer.generation`.
pub(crate) async fn open_reader(
    options: &StreamOptions,
    work: &[TableWork],
    consumer: StreamConsumer,
    copied: &[(String, Lsn)],
    from: Lsn,
    written: watch::Receiver<Written>,
) -> Result<StreamReader, FlowError> {
    let (session, cleaning) = (connect(options).await?, connect(options).await?);
    let ticks = stream_ticks::adopt(&session, &consumer, from.0).await.map_err(reading)?;
    let tables = captured(work).into_iter().map(|table| stream_table(table, work, copied)).collect();
    let opened = StreamReader::open(session, cleaning, tables, consumer, ticks, BATCH_CHANGES, written).await;
    opened.map_err(reading)
}

fn reading(error: CaptureError) -> FlowError {
    match error {
        CaptureError::Source(error) => FlowError::Source(error),
        error => FlowError::Capture(error),
    }
}

/// A session of the reader's, which the stream's next owner ends.
async fn connect(options: &StreamOptions) -> Result<Session, FlowError> {
    let session = pg::connect(&options.source).await.map_err(FlowError::Source)?;
    writers::mark_writer(&session, &options.key).await.map_err(FlowError::Source)?;
    Ok(session)
}

fn stream_table(table: &TableDef, work: &[TableWork], copied: &[(String, Lsn)]) -> StreamTable {
    let fed: Vec<&TableWork> =
        work.iter().filter(|w| storage(w).iter().any(|t| t.oid == table.oid)).collect();
    let copied_at = |w: &&TableWork| {
        let name = w.target.to_string();
        copied.iter().find(|(target, _)| *target == name).map_or(Lsn::INVALID, |(_, at)| *at)
    };
    StreamTable {
        table: QueueTable::new(table),
        copied_at: fed.iter().map(copied_at).min().unwrap_or_default(),
        insert_only: !fed.is_empty() && fed.iter().all(|w| w.entry.insert_only),
    }
}

/// Removes what is durable, once the stream has ended.
pub(crate) async fn clean_up(
    source: &Session,
    consumer: &StreamConsumer,
    durable: Lsn,
) -> Result<(), FlowError> {
    clean(source, consumer, durable).await.map_err(FlowError::Source)
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
