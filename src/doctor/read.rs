//! Asks a server what the checks judge.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_postgres::SimpleQueryMessage;

use super::platform::{Platform, ROLES, Traits, detect};
use super::server::ServerFacts;
use crate::pg::replication::ReplicationClient;
use crate::pg::{self, ConnectOptions, PgError, Session};

const SERVER: &str = "\
SELECT current_user::text, current_database()::text, r.rolsuper, pg_catalog.pg_is_in_recovery(),
       pg_catalog.getdatabaseencoding()::text, pg_catalog.has_database_privilege(current_database(), 'CREATE'),
       current_setting('default_transaction_read_only')::bool,
       array(SELECT s.rolname::text FROM pg_catalog.pg_roles s WHERE s.rolsuper ORDER BY 1)
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

const TRAITS: &str = "\
SELECT array(SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[]) ORDER BY 1),
       EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = 'aurora_version'),
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname IN ('heroku_ext', '_heroku'))";

/// Settings the checks look at; those a version does not have are missing.
const SETTINGS: &[&str] = &[
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_slot_wal_keep_size",
    "wal_sender_timeout",
    "idle_replication_slot_timeout",
    "output_plugin_libraries",
];

const USED: &str = "\
SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots), (SELECT count(*) FROM pg_catalog.pg_stat_replication)";

/// What it says of itself.
pub(super) async fn server(session: &Session) -> Result<ServerFacts, PgError> {
    let row = session.query_one(SERVER, &[]).await?;
    let used = session.query_one(USED, &[]).await?;
    let names: Vec<&str> = SETTINGS.to_vec();
    let sql = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1::text[])";
    let mut settings = BTreeMap::new();
    for row in session.query(sql, &[&names]).await? {
        settings.insert(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
    }
    Ok(ServerFacts {
        version: session.server_version(),
        is_tls: session.is_tls(),
        role: row.try_get(0)?,
        database: row.try_get(1)?,
        superuser: row.try_get(2)?,
        in_recovery: row.try_get(3)?,
        encoding: row.try_get(4)?,
        may_create: row.try_get(5)?,
        read_only: row.try_get(6)?,
        slots_used: used.try_get(0)?,
        senders_used: used.try_get(1)?,
        settings,
        platform: platform(session).await?,
        superusers: row.try_get(7)?,
        skew: skew(session).await?,
    })
}

async fn platform(session: &Session) -> Result<Platform, PgError> {
    let row = session.query_one(TRAITS, &[&ROLES.to_vec()]).await?;
    Ok(detect(&Traits { roles: row.try_get(0)?, aurora: row.try_get(1)?, heroku: row.try_get(2)? }))
}

/// How far the server's clock is ahead of ours, in seconds; the way there and back is no skew.
async fn skew(session: &Session) -> Result<f64, PgError> {
    let sql = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8";
    let mut best = (Duration::MAX, 0.0);
    for _ in 0..3 {
        let began = Instant::now();
        let theirs: f64 = session.query_one(sql, &[]).await?.try_get(0)?;
        let took = began.elapsed();
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - took / 2;
        if took < best.0 {
            best = (took, theirs - ours.as_secs_f64());
        }
    }
    Ok(best.1)
}

/// True when a pooler gives us another session for each transaction: two sessions of ours that are open at once have the same process
/// there. Our sessions keep settings, locks and snapshots, which none of that survives.
///
/// In the simple protocol, which such a pooler passes on whole.
pub(super) async fn is_shared(session: &Session, connect: &ConnectOptions) -> Result<bool, PgError> {
    const PID: &str = "SELECT pg_catalog.pg_backend_pid()";
    let other = pg::connect(connect).await?;
    let mut pids = Vec::new();
    for asked in [session, &other, session] {
        let answer = asked.simple_query(PID).await?;
        pids.extend(answer.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }));
    }
    other.close().await?;
    Ok(are_shared(&pids))
}

/// Of the processes that answered two sessions in turn: the first, the second, and the first again. Pure.
fn are_shared(pids: &[String]) -> bool {
    match pids {
        [first, second, again] => first == second || first != again,
        _ => false,
    }
}

/// True when a pooler stands between: it answers the login with a process number of its own.
pub(super) async fn is_pooled(connect: &ConnectOptions) -> Result<bool, PgError> {
    let mut replication = ReplicationClient::connect(connect).await?;
    let told = replication.backend_pid().to_string();
    let rows = replication.simple_query("SELECT pg_catalog.pg_backend_pid()").await?;
    replication.close().await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Option::as_deref) != Some(told.as_str()))
}

#[cfg(test)]
mod tests {
    use super::are_shared;

    #[test]
    fn a_session_that_is_ours_alone_keeps_its_process() {
        let shared = |pids: &[&str]| are_shared(&pids.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert!(!shared(&["7", "8", "7"]));
        assert!(shared(&["7", "7", "7"]) && shared(&["7", "8", "9"]) && shared(&["7", "8", "8"]));
        assert!(!shared(&["7"]), "nothing is said where nothing was answered");
    }
}
