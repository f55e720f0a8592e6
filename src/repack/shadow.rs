//! Makes what a repack needs beside the table (shadow, publication, slot) and removes it again.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::apply::checkpoint;
use crate::apply::writers;
use crate::capture::setup::{self, LockLimits, SetupError, TableRequest};
use crate::capture::trigger::stream_ticks;
use crate::capture::trigger::tick::{self, Consumer};
use crate::capture::{Plugin, publish};
use crate::catalog::TableDef;
use crate::flow::FlowError;
use crate::flow::slot::{self, HeldSnapshot, Making, SlotKind};
use crate::model::{Events, Lsn, Oid, TableName};
use crate::pg::replication::ReplicationClient;
use crate::pg::{ConnectOptions, Session};
use crate::repack::dependents::inheritance;
use crate::repack::error::{RepackError, doing};
use crate::repack::leftover;
use crate::repack::plan::{OLD_SCHEMA, RepackPlan, SHADOW_SCHEMA};
use crate::repack::state::{self, RepackRow};

/// The schema of what is being made. Not `repcloud`, where a table called `checkpoint` would meet ours.
pub(crate) const OURS: &str = SHADOW_SCHEMA;
/// The schema of what was exchanged.
pub(crate) const OLD: &str = OLD_SCHEMA;

/// Schemas and state tables.
pub(crate) async fn ensure_schemas(session: &Session) -> Result<(), RepackError> {
    checkpoint::ensure_schema(session).await?;
    state::ensure_table(session).await?;
    for schema in [OURS, OLD] {
        // Asked first: CREATE … IF NOT EXISTS wants the right to create even where there is nothing to do.
        let there = "SELECT pg_catalog.to_regnamespace($1) IS NOT NULL";
        if !session.query_one(there, &[&schema]).await?.try_get::<_, bool>(0)? {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
            session.batch_execute(&sql).await.map_err(doing(format!("making schema {schema}")))?;
        }
    }
    Ok(())
}

/// Removes our schemas, and nothing that a person put into them: then they stay, with an error that names what is there.
pub(crate) async fn drop_schemas(session: &Session) -> Result<(), RepackError> {
    let streams =
        "SELECT source || ' → ' || target FROM repcloud.checkpoint WHERE target NOT LIKE '(repack)%'";
    if state::exists(session).await? {
        let rows = session.query(streams, &[]).await?;
        let names: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if !names.is_empty() {
            return Err(RepackError::Refused(vec![format!(
                "schema repcloud holds the position of {}; end these streams first (repcloud drop-table)",
                names.join(", ")
            )]));
        }
    }
    let names: Vec<String> =
        stream_ticks::readers(session).await?.into_iter().map(|(consumer, _)| consumer).collect();
    if !names.is_empty() {
        return Err(RepackError::Refused(vec![format!(
            "schema repcloud holds the queues of {}, which streams read by triggers; end these streams first (repcloud drop-table)",
            names.join(", ")
        )]));
    }
    leftover::drop_copies(session).await?;
    let there = "SELECT pg_catalog.to_regnamespace('repcloud') IS NOT NULL";
    if !session.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let tables = checkpoint::TABLES.map(|t| format!("repcloud.{t}"));
    let sql = format!(
        "DROP TABLE IF EXISTS {}; DROP SEQUENCE IF EXISTS repcloud.queue_seq; DROP SCHEMA repcloud",
        tables.join(", ")
    );
    bounded(session, &sql, "dropping schema repcloud").await
}

/// Makes the empty shadow and writes it down, in one transaction.
pub(crate) async fn make(session: &Session, table: Oid, plan: &RepackPlan) -> Result<(), RepackError> {
    let made = make_in_transaction(session, table, plan).await;
    if made.is_err() {
        // The first error tells more than one of the rollback would; a broken connection shows at its next use.
        let _rolled_back = session.batch_execute("ROLLBACK").await;
    }
    made
}

async fn make_in_transaction(session: &Session, table: Oid, plan: &RepackPlan) -> Result<(), RepackError> {
    session
        .batch_execute("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '10s'")
        .await?;
    for statement in &plan.create {
        session.batch_execute(statement).await.map_err(doing(format!("making {}", plan.shadow)))?;
    }
    let oid = relation_oid(session, &plan.shadow)
        .await?
        .ok_or_else(|| RepackError::Internal(format!("{} is not there after it was made", plan.shadow)))?;
    state::set_shadow(session, table, oid).await?;
    session.batch_execute("COMMIT").await.map_err(doing("committing the shadow"))
}

/// The oid of the table, index or view of this name.
pub(crate) async fn relation_oid(session: &Session, name: &TableName) -> Result<Option<Oid>, RepackError> {
    let sql = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2";
    let row = session.query_opt(sql, &[&name.schema, &name.table]).await?;
    row.map(|row| row.try_get(0)).transpose().map_err(RepackError::from)
}

/// What became of the table that was repacked as `table`; `None`: it still is that one.
pub(crate) async fn whereabouts(
    session: &Session,
    oid: Oid,
    table: &TableName,
) -> Result<Option<String>, RepackError> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let Some(row) = session.query_opt(sql, &[&oid]).await? else {
        return Ok(Some("the table was dropped".to_owned()));
    };
    let now = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
    Ok((now != *table).then(|| format!("the table is {now} now; repack it under that name")))
}

/// Publication, then slot, then position: in this order nothing of the table's changes is missed. Returns the snapshot
/// of the slot's beginning.
pub(crate) async fn make_slot(
    session: &Session,
    connect: &ConnectOptions,
    row: &RepackRow,
    plugin: Plugin,
    events: &Events,
) -> Result<HeldSnapshot, RepackError> {
    publish(session, row).await?;
    state::set_published(session, row.table_oid, &publications(&row.slot)).await?;
    let mut replication = ReplicationClient::connect(connect).await?;
    let system = replication.identify_system().await?;
    let key = state::key(&row.slot);
    checkpoint::forget(session, &key, None).await?;
    checkpoint::record_intention(session, &key, &row.slot, &system.system_id, system.timeline).await?;
    let kind = SlotKind { temporary: false, failover: false, plugin };
    let made = slot::create(&mut replication, session, &row.slot, kind, &Making::default(), events).await?;
    let at = made.consistent_point;
    let snapshot = HeldSnapshot::hold(connect, &made.snapshot_name.unwrap_or_default()).await?;
    checkpoint::record_slot(session, &key, at).await?;
    state::set_copied_at(session, row.table_oid, at).await?;
    replication.close().await?;
    Ok(snapshot)
}

/// How long transactions that write to the table are waited for when triggers are made.
const TRIGGER_LIMIT: Duration = Duration::from_secs(300);

/// Queue and triggers, then a snapshot, then its tick: in this order nothing of the table's changes is missed. Returns the
/// snapshot.
pub(crate) async fn make_queue(
    session: &Session,
    connect: &ConnectOptions,
    row: &RepackRow,
    source: &TableDef,
    events: &Events,
) -> Result<HeldSnapshot, RepackError> {
    let system = "SELECT system_identifier::text, timeline_id::int8 FROM pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint()";
    let (system_id, timeline) = match session.query_opt(system, &[]).await {
        Ok(Some(found)) => (found.try_get(0)?, found.try_get::<_, i64>(1)?),
        // A role may be kept from these functions; ticks alone tell whether the queue is ours.
        Ok(None) | Err(_) => (String::new(), 0),
    };
    let began = Instant::now();
    while let Err(error) = setup::create_queue(session, source).await {
        if !matches!(error, SetupError::Locked { .. }) || began.elapsed() > TRIGGER_LIMIT {
            return Err(error.into());
        }
        events.warning(format!(
            "{}: triggers have waited {} s: {error}",
            row.table,
            began.elapsed().as_secs()
        ));
    }
    let key = state::key(&row.slot);
    checkpoint::forget(session, &key, None).await?;
    checkpoint::record_intention(session, &key, &row.slot, &system_id, u32::try_from(timeline).unwrap_or(0))
        .await?;
    let (snapshot, shown) = HeldSnapshot::take(connect).await?;
    let consumer = Consumer { name: row.slot.clone(), queue: row.table_oid, generation: 0 };
    tick::write(session, &consumer, FIRST_TICK, Some(&shown)).await.map_err(FlowError::Capture)?;
    let at = Lsn(FIRST_TICK);
    checkpoint::record_slot(session, &key, at).await?;
    state::set_copied_at(session, row.table_oid, at).await?;
    Ok(snapshot)
}

/// The tick that stands for the copy.
const FIRST_TICK: u64 = 1;

/// What there is of the queue: `None` without one; else whether it goes on from our position.
pub(crate) async fn queue_is_usable(
    session: &Session,
    table: Oid,
    slot: &str,
    known: bool,
) -> Result<Option<bool>, RepackError> {
    let facts = setup::read_queue(session, table).await?;
    if !facts.queue {
        return Ok(facts.triggers.then_some(false));
    }
    let applied = if known { applied(session, slot).await? } else { None };
    let known_there = match applied {
        Some(applied) => tick::read(session, slot, applied.0).await?.is_some(),
        None => false,
    };
    Ok(Some(facts.armed && known_there))
}

async fn publish(session: &Session, row: &RepackRow) -> Result<(), RepackError> {
    let request = TableRequest {
        name: row.table.clone(),
        condition: None,
        columns: None,
        key: None,
        insert_only: false,
    };
    let refused = |findings: &[publish::Finding]| {
        RepackError::Refused(findings.iter().map(ToString::to_string).collect())
    };
    let (wanted, findings) = setup::read_wanted(session, std::slice::from_ref(&request)).await?;
    if !findings.is_empty() {
        return Err(refused(&findings));
    }
    let source = setup::read_source(session).await?;
    let facts = setup::read_table_facts(session, &wanted).await?;
    let names = [row.slot.clone(), publish::insert_publication(&row.slot)];
    let existing = setup::read_publications(session, &names).await?;
    let plan = publish::plan(&row.slot, &source, &facts, &wanted, &existing).map_err(|f| refused(&f))?;
    setup::apply_plan(session, &plan, &wanted, LockLimits::default()).await?;
    Ok(())
}

/// The publications of a repack: as of a stream, two.
pub(crate) fn publications(slot: &str) -> Vec<String> {
    vec![slot.to_owned(), publish::insert_publication(slot)]
}

/// Removes slot, publications, queue with its triggers, and position. What is gone already is no error.
pub(crate) async fn remove_capture(session: &Session, table: Oid, slot: &str) -> Result<(), RepackError> {
    let key = state::key(slot);
    end_followers(session, slot).await?;
    setup::drop_queue(session, table, slot).await?;
    setup::drop_slot(session, slot).await?;
    setup::drop_publications(session, &publications(slot), LockLimits::default()).await?;
    checkpoint::forget(session, &key, None).await?;
    Ok(())
}

/// Ends the sessions that applied changes before: those of a process that was killed or is frozen, or our own whose connections
/// fell silent, may not have been noticed by the server yet. Only the holder of the table's lock calls this.
pub(crate) async fn end_followers(session: &Session, slot: &str) -> Result<(), RepackError> {
    writers::end_writers(session, &state::key(slot)).await?;
    end_walsender(session, slot).await
}

/// Ends the process that reads the slot and waits until it is gone.
async fn end_walsender(session: &Session, slot: &str) -> Result<(), RepackError> {
    const LIMIT: Duration = Duration::from_secs(20);
    let sql = "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
               WHERE slot_name = $1 AND active_pid IS NOT NULL";
    let gone = async {
        while !session.query(sql, &[&slot]).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap_or_else(|_| {
        Err(RepackError::TimedOut {
            what: format!("ending the session that reads slot \"{slot}\""),
            seconds: LIMIT.as_secs(),
        })
    })
}

/// Ends sessions of ours that still use the shadow: those of a process that was frozen, stopped or killed in the middle of a copy or an
/// index. Only the holder of the table's lock calls this. A relation that is no shadow (any more) is left alone. Returns the sessions
/// that have not ended.
async fn end_users(session: &Session, shadow: Oid) -> Result<Vec<i32>, RepackError> {
    const LIMIT: Duration = Duration::from_secs(10);
    let sql = "SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
               WHERE a.usename = current_user AND a.application_name LIKE 'repcloud %' AND a.pid <> pg_catalog.pg_backend_pid() \
               AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' \
                   AND l.relation = $1 AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = $1 \
                       AND c.relnamespace = pg_catalog.to_regnamespace($2)) \
                   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))";
    let began = Instant::now();
    loop {
        let rows = session.query(sql, &[&shadow, &OURS]).await?;
        if rows.is_empty() || began.elapsed() > LIMIT {
            return Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same for one that takes over the shadow as another process left it: what that one had asked the server for would go on beside it.
pub(crate) async fn take_over(session: &Session, shadow: Oid, table: &TableName) -> Result<(), RepackError> {
    let began = Instant::now();
    let left: Vec<String> = end_users(session, shadow).await?.iter().map(ToString::to_string).collect();
    if left.is_empty() {
        return Ok(());
    }
    let what = format!(
        "ending what an earlier process began on the copy of {table} (server processes {})",
        left.join(", ")
    );
    Err(RepackError::TimedOut { what, seconds: began.elapsed().as_secs() })
}

/// Drops the shadow; nobody but us uses it, so it waits only for an autovacuum that gives way.
pub(crate) async fn drop_shadow(
    session: &Session,
    table: Oid,
    shadow: &TableName,
) -> Result<(), RepackError> {
    if let Some(oid) = relation_oid(session, shadow).await? {
        // One that does not end is met again when the lock is asked for.
        end_users(session, oid).await?;
    }
    // The materialized views that were made over it; what anybody else made over it stays in the way.
    let over = "WITH RECURSIVE over(oid) AS (SELECT pg_catalog.to_regclass($1)::oid UNION SELECT r.ev_class FROM over o \
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid \
          AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
        JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
        WHERE c.relkind = 'm' AND c.relnamespace = pg_catalog.to_regnamespace($2)) \
        SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', $2, c.relname), ', ') \
        FROM over JOIN pg_catalog.pg_class c ON c.oid = over.oid AND c.relkind = 'm'";
    let views: Option<String> = session.query_one(over, &[&shadow.to_string(), &OURS]).await?.try_get(0)?;
    let views = views.map_or_else(String::new, |views| format!("DROP MATERIALIZED VIEW {views}; "));
    let template = inheritance::template(table);
    let drop = format!("{views}DROP TABLE IF EXISTS {shadow}, {template}");
    bounded(session, &drop, &format!("dropping {shadow}")).await
}

/// A statement that wants locks, in bounded attempts with pauses in between, so that nobody queues behind it for long.
pub(crate) async fn bounded(session: &Session, statement: &str, what: &str) -> Result<(), RepackError> {
    const ATTEMPTS: u32 = 40;
    const ATTEMPT_MS: u32 = 100;
    let sql = format!(
        "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = {ATTEMPT_MS}; {statement}; COMMIT"
    );
    let mut attempt = 1;
    loop {
        let Err(error) = session.batch_execute(&sql).await else { return Ok(()) };
        let waits = error
            .code()
            .is_some_and(|c| *c == SqlState::LOCK_NOT_AVAILABLE || *c == SqlState::T_R_DEADLOCK_DETECTED);
        session.batch_execute("ROLLBACK").await?;
        if !waits || attempt == ATTEMPTS {
            return Err(doing(what)(error));
        }
        let pause = Duration::from_millis(50).saturating_mul(attempt.min(10));
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        attempt += 1;
    }
}

/// Changes that are in the shadow, counted since the copy, whichever process applied them.
pub(crate) async fn replayed(session: &Session, slot: &str) -> Result<u64, RepackError> {
    Ok(checkpoint::changes(session, &state::key(slot)).await?)
}

/// What is in the shadow as a whole, from the position rows; `None` before the slot was made.
pub(crate) async fn applied(session: &Session, slot: &str) -> Result<Option<Lsn>, RepackError> {
    Ok(checkpoint::lowest(session, &state::key(slot)).await?)
}
