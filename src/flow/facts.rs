//! Reads the facts on which a stream's start depends (`start`), from both databases.

use std::collections::BTreeMap;

use crate::apply::checkpoint::Checkpoint;
use crate::capture::{publish, setup};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::queues;
use crate::flow::start::{CheckpointFacts, Phase, SlotFacts, SlotPlace, SystemFacts};
use crate::model::Lsn;
use crate::pg::replication::ReplicationClient;
use crate::pg::{PgError, Session};

fn source_error(error: impl Into<PgError>) -> FlowError {
    FlowError::Source(error.into())
}

/// The source's identity and the history of its timeline.
pub(crate) async fn read_system(client: &mut ReplicationClient) -> Result<SystemFacts, FlowError> {
    let identity = client.identify_system().await.map_err(source_error)?;
    let history = client.timeline_history(identity.timeline).await.map_err(source_error)?;
    Ok(SystemFacts {
        system_id: identity.system_id,
        timeline: identity.timeline,
        history: history.switches.iter().map(|s| (s.timeline, s.at)).collect(),
    })
}

/// The session that reads the slot, where one is read, and the source's identity; or why it cannot be read.
pub(crate) async fn connect(
    options: &StreamOptions,
    source: &Session,
    slot_there: bool,
) -> Result<(Option<ReplicationClient>, SystemFacts), FlowError> {
    if options.by_triggers() {
        return Ok((None, queues::read_system(source).await?));
    }
    let findings = publish::check_source(&setup::read_source(source).await?, if slot_there { 0 } else { 1 });
    if !findings.is_empty() {
        return Err(FlowError::refused_by_source(&findings));
    }
    let mut replication = ReplicationClient::connect(&options.source).await.map_err(FlowError::Source)?;
    let system = read_system(&mut replication).await?;
    Ok((Some(replication), system))
}

/// A slot with what `status` shows of it besides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlotRow {
    pub(crate) facts: SlotFacts,
    /// `wal_status`.
    pub(crate) wal_status: Option<String>,
    /// Bytes of WAL kept for it.
    pub(crate) retained: u64,
    /// Bytes that may still be written before it is in danger; `None` without a limit.
    pub(crate) safe: Option<u64>,
    /// The source's end of WAL.
    pub(crate) source_end: Lsn,
    /// Of a stream by triggers: since when rows wait that no tick shows; `None` with a slot.
    pub(crate) waiting_seconds: Option<f64>,
    /// Likewise: where the WAL was at each tick.
    pub(crate) places: BTreeMap<u64, Lsn>,
}

/// The stream's slot, or its ticks and queues.
pub(crate) async fn read_place(
    source: &Session,
    options: &StreamOptions,
) -> Result<Option<SlotRow>, FlowError> {
    match options.by_triggers() {
        true => queues::read_standing(source, options).await,
        false => read_slot(source, &options.slot()).await,
    }
}

/// The position row as the start's decision takes it.
pub(crate) fn of_checkpoint(row: Checkpoint) -> CheckpointFacts {
    CheckpointFacts {
        phase: if row.ready { Phase::Ready } else { Phase::Creating },
        system_id: row.system_id,
        timeline: row.timeline,
        slot: row.slot,
        applied: row.applied,
    }
}

/// Reads the slot of the server that is called `name`, whosever it is; `None` when it does not exist.
pub(crate) async fn read_slot(source: &Session, name: &str) -> Result<Option<SlotRow>, FlowError> {
    let version = source.server_version();
    let invalid = if version >= 170_000 { "invalidation_reason IS NOT NULL" } else { "false" };
    let synced = if version >= 170_000 { "synced OR failover" } else { "false" };
    let sql = format!(
        "SELECT plugin::text, nullif(database, current_database())::text, active_pid, coalesce(confirmed_flush_lsn, '0/0')::text, \
         coalesce(wal_status = 'lost', false) OR {invalid}, {synced}, wal_status, safe_wal_size, \
         greatest(0, pg_wal_lsn_diff(w.e, restart_lsn))::int8, w.e::text, slot_type = 'physical' \
         FROM pg_replication_slots, (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) AS w(e) \
         WHERE slot_name = $1"
    );
    let row = source.query_opt(&sql, &[&name]).await.map_err(source_error)?;
    let Some(row) = row else { return Ok(None) };
    let read = || -> Result<SlotRow, tokio_postgres::Error> {
        let confirmed: String = row.try_get(3)?;
        let end: String = row.try_get(9)?;
        Ok(SlotRow {
            facts: SlotFacts {
                plugin: row.try_get::<_, Option<String>>(0)?.unwrap_or_default(),
                place: match (row.try_get(10)?, row.try_get(1)?) {
                    (true, _) => SlotPlace::Physical,
                    (false, Some(database)) => SlotPlace::Elsewhere(database),
                    (false, None) => SlotPlace::Here,
                },
                active_pid: row.try_get(2)?,
                confirmed: confirmed.parse().unwrap_or_default(),
                lost: row.try_get(4)?,
                synced: row.try_get(5)?,
            },
            wal_status: row.try_get(6)?,
            safe: row.try_get::<_, Option<i64>>(7)?.map(|b| u64::try_from(b).unwrap_or(0)),
            retained: row.try_get::<_, Option<i64>>(8)?.and_then(|b| u64::try_from(b).ok()).unwrap_or(0),
            source_end: end.parse().unwrap_or_default(),
            waiting_seconds: None,
            places: BTreeMap::new(),
        })
    };
    read().map(Some).map_err(source_error)
}

/// The transactions a new slot has to wait for, of all databases, named for a person; without age and state where our role may not see them.
pub(crate) async fn running_transactions(source: &Session) -> Result<Vec<String>, FlowError> {
    let rows = source
        .query(
            "SELECT concat_ws(', ', format('pid %s (%s', pid, coalesce(nullif(application_name, ''), 'no application name')), 'user ' || usename, \
             'open for ' || extract(epoch FROM now() - xact_start)::int8 || ' s', state) || ')' FROM pg_stat_activity \
             WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
             UNION ALL SELECT format('prepared transaction %L (database %I, %s s)', gid, database, \
             extract(epoch FROM now() - prepared)::int8) FROM pg_prepared_xacts",
            &[],
        )
        .await
        .map_err(source_error)?;
    rows.iter().map(|row| row.try_get(0).map_err(source_error)).collect()
}

/// What has committed on the source by now ends before this position.
pub(crate) async fn source_end(source: &Session) -> Result<Lsn, FlowError> {
    let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text";
    let row = source.query_one(sql, &[]).await.map_err(source_error)?;
    let text: String = row.try_get(0).map_err(source_error)?;
    Ok(past_page_header(text.parse().unwrap_or_default()))
}

/// What has been written, durably, up to now.
pub(crate) async fn written_end(source: &Session) -> Result<Lsn, FlowError> {
    let sql = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text";
    let row = source.query_one(sql, &[]).await.map_err(source_error)?;
    let text: String = row.try_get(0).map_err(source_error)?;
    Ok(text.parse().unwrap_or_default())
}

/// The insert position skips a fresh page's header; what is sent ends before it until something is written there.
pub(crate) fn past_page_header(lsn: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    /// A segment's first page has the long header (`SizeOfXLogLongPHD`).
    const LONGEST_HEADER: u64 = 40;
    if lsn.0 % PAGE <= LONGEST_HEADER { Lsn(lsn.0 - lsn.0 % PAGE) } else { lsn }
}

/// True when the role may let triggers and foreign keys rest; tried, not guessed.
pub(crate) async fn may_use_replica_role(target: &Session) -> Result<bool, FlowError> {
    match target.batch_execute("SET session_replication_role = replica").await {
        Ok(()) => {
            let back = target.batch_execute("RESET session_replication_role").await;
            back.map(|()| true).map_err(|e| FlowError::Target(e.into()))
        }
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) => {
            Ok(false)
        }
        Err(error) => Err(FlowError::Target(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_page_header_is_the_page_start() {
        assert_eq!(past_page_header(Lsn(8192 * 3 + 24)), Lsn(8192 * 3));
        assert_eq!(past_page_header(Lsn(8192 * 3 + 48)), Lsn(8192 * 3 + 48));
    }
}
