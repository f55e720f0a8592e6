//! Who stands in the way of a lock we wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::model::Oid;
use crate::pg::Session;
use crate::repack::error::RepackError;
use crate::repack::options::DeadlockResolution;

/// How often it is looked while a lock is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// The first look: most locks are granted by then.
const FIRST_LOOK: Duration = Duration::from_millis(3);

/// The sessions seen in the way, by process id, each with what a person needs to find it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blockers(BTreeMap<i32, String>);

impl Blockers {
    /// Their process ids.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.0.keys().copied().collect()
    }

    /// For a person.
    pub(crate) fn described(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }
}

/// Who holds a lock on the relations, for an attempt that was over before anybody was seen.
pub(crate) async fn holders(
    session: &Session,
    relations: &[Oid],
    seen: &mut Blockers,
) -> Result<(), RepackError> {
    let sql = "SELECT DISTINCT l.pid, pg_catalog.format('pid %s', l.pid) FROM pg_catalog.pg_locks l \
               WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1::oid[]) AND l.pid <> pg_catalog.pg_backend_pid() \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    for row in session.query(sql, &[&relations]).await? {
        seen.0.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

/// Looks who blocks `waiting` (a server process id) until dropped, and deals with them as configured. Only those that are
/// in the way right now are touched, each once.
pub(crate) async fn watch(
    session: &Session,
    waiting: i32,
    resolution: DeadlockResolution,
    patience: Duration,
    seen: &mut Blockers,
) -> Result<std::convert::Infallible, RepackError> {
    // A role without pg_read_all_stats sees of others' sessions the pid only.
    let sql = "SELECT b.pid, pg_catalog.format('pid %s (%s%s%s%s)', b.pid, coalesce(nullif(a.application_name, ''), \
                   a.backend_type, 'details hidden'), \
                   ', user ' || a.usename::text, ', ' || a.state, \
                   ', transaction open for ' || extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::int8 || ' s') \
               FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b(pid) \
               LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid WHERE b.pid <> 0";
    let act = match resolution {
        DeadlockResolution::Nothing => None,
        DeadlockResolution::CancelQuery => Some("SELECT pg_catalog.pg_cancel_backend($1)"),
        DeadlockResolution::KillQuery => Some("SELECT pg_catalog.pg_terminate_backend($1)"),
    };
    let mut dealt_with = Vec::new();
    let began = tokio::time::Instant::now();
    let mut pause = FIRST_LOOK;
    loop {
        sleep(pause).await;
        pause = LOOK_EVERY;
        for row in session.query(sql, &[&waiting]).await? {
            let (pid, described): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
            // What was said of it before says why it could not be ended.
            if !dealt_with.contains(&pid) {
                seen.0.insert(pid, described);
            }
            let Some(act) = act.filter(|_| began.elapsed() >= patience && !dealt_with.contains(&pid)) else {
                continue;
            };
            dealt_with.push(pid);
            if let Err(error) = session.query_one(act, &[&pid]).await {
                // Not allowed, or of another kind of process: it stays in the way and is named.
                let reason = crate::pg::PgError::from(error).to_string();
                seen.0.entry(pid).and_modify(|d| d.push_str(&format!("; could not be ended: {reason}")));
            }
        }
    }
}
