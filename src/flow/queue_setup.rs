//! Queues and triggers on the source, for a stream: what keeps a table from having them, whether they are there, and how they
//! are made and removed.

use std::time::Duration;

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::capture::publish::{self, Condition, Finding, WantedTable};
use crate::capture::setup::{self, Captured, SetupError};
use crate::capture::trigger::stream_ticks;
use crate::catalog::{TableDef, TableKind, read_tables};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::queues::{connect, source_error, storage};
use crate::flow::work::TableWork;
use crate::model::{Events, Oid, TableName, quote_ident};
use crate::pg::Session;

/// How often the triggers' locks are tried for before a stream begins, a few seconds each time.
const LOCK_ROUNDS: usize = 20;

/// The first pause before it is tried again beside a running stream.
const BESIDE_PAUSE: Duration = Duration::from_secs(5);

/// The tables to capture, each once.
fn captured(work: &[TableWork]) -> Vec<&TableDef> {
    let mut tables: Vec<&TableDef> = work.iter().flat_map(storage).collect();
    tables.sort_by_key(|t| t.oid);
    tables.dedup_by_key(|t| t.oid);
    tables
}

/// What a role that does not own schema `repcloud` needs there, as far as it is there.
const SCHEMA_RIGHTS: &str = "\
SELECT n.nspowner::regrole::text, current_user::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.has_schema_privilege(n.oid, 'CREATE'),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname IN ('tick', 'reads')
                AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                     AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'version'
                AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'queue_seq'
                AND NOT pg_catalog.has_sequence_privilege(c.oid, 'USAGE'))
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname = 'repcloud' AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')";

/// Refuses a role that may not use the schema `repcloud` of another one; nothing in it could be read.
pub(crate) async fn check_rights(source: &Session) -> Result<(), FlowError> {
    let Some(row) = source.query_opt(SCHEMA_RIGHTS, &[]).await.map_err(source_error)? else {
        return Ok(setup::update_shared(source).await?);
    };
    let read = || -> Result<(String, Vec<String>), tokio_postgres::Error> {
        let (owner, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let role = quote_ident(&role);
        let mut grants = Vec::new();
        if !row.try_get::<_, bool>(2)? || !row.try_get::<_, bool>(3)? {
            grants.push(format!("GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}"));
        }
        for (index, rights, kind) in
            [(4, "SELECT, INSERT, UPDATE, DELETE", ""), (5, "SELECT", ""), (6, "USAGE", "SEQUENCE ")]
        {
            for name in row.try_get::<_, Vec<String>>(index)? {
                grants.push(format!("GRANT {rights} ON {kind}repcloud.{name} TO {role}"));
            }
        }
        Ok((owner, grants))
    };
    let (owner, grants) = read().map_err(source_error)?;
    if grants.is_empty() {
        return Ok(());
    }
    let problem = format!("schema repcloud belongs to {owner}, and our role may not use it");
    let finding = Finding::of_source(problem).help(grants.join("; "));
    Err(FlowError::refused_by_source(&[finding]))
}

/// Of a table that may be captured: our role owns it.
type Owned = Vec<(Oid, bool)>;

/// Our role and its rights on a table: owner, TRIGGER, SELECT, rows hidden by row-level security, USAGE on the schema.
const TABLE_RIGHTS: &str = "\
SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), current_user::text
  FROM pg_catalog.pg_class c WHERE c.oid = $1";

/// Refuses what keeps tables from being captured.
pub(crate) async fn check(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
) -> Result<(), FlowError> {
    let (_, findings) = examine(options, source, work, wanted).await?;
    if findings.is_empty() { Ok(()) } else { Err(FlowError::refused_by_source(&findings)) }
}

/// Which tables our role owns, and everything that keeps them from being captured, with the statements that help.
pub(crate) async fn examine(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
) -> Result<(Owned, Vec<Finding>), FlowError> {
    let mut findings = given(options);
    findings.extend(publish::contradictions(wanted));
    for table in wanted {
        if let Some(condition) = &table.condition {
            findings.extend(setup::check_immutable(source, &table.table.name, &condition.sql).await?);
        }
    }
    let mut owned = Vec::new();
    for table in captured(work) {
        if !matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned) {
            findings.push(Finding::new(&table.name, "it is not a table, and has no changes of its own"));
            continue;
        }
        owned.push((table.oid, examine_rights(source, table, &mut findings).await?));
        if is_taken(source, table.oid).await? {
            let problem = "a repack has its triggers on it; start again when that has ended";
            findings.push(Finding::new(&table.name, problem));
        }
    }
    Ok((owned, findings))
}

/// Whether our role owns the table; what it lacks otherwise goes into `findings`.
async fn examine_rights(
    source: &Session,
    table: &TableDef,
    findings: &mut Vec<Finding>,
) -> Result<bool, FlowError> {
    let row = source.query_one(TABLE_RIGHTS, &[&table.oid]).await.map_err(source_error)?;
    let right = |index: usize| row.try_get::<_, bool>(index).map_err(source_error);
    let role = quote_ident(row.try_get(5).map_err(source_error)?);
    let name = &table.name;
    let schema = quote_ident(&name.schema);
    for (missing, problem, help) in [
        (!right(4)?, "our role may not use its schema", format!("GRANT USAGE ON SCHEMA {schema} TO {role}")),
        (!right(1)?, "our role lacks the right TRIGGER on it", format!("GRANT TRIGGER ON {name} TO {role}")),
        (!right(2)?, "our role lacks the right SELECT on it", format!("GRANT SELECT ON {name} TO {role}")),
        (right(3)?, "row-level security hides rows from our role", format!("ALTER ROLE {role} BYPASSRLS")),
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
    right(0)
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
    if !setup::is_there(source, "repcloud.reads").await? {
        return Ok(true);
    }
    let sql = "SELECT NOT EXISTS (SELECT FROM repcloud.reads WHERE queue = $1)";
    let row = source.query_one(sql, &[&table]).await.map_err(source_error)?;
    row.try_get(0).map_err(source_error)
}

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
