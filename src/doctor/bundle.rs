//! Everything support needs: what was found, how the servers are set, what our tables say. No secret, and no row of anybody's.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::pg::{self, ConnectOptions, PgError, Session};

/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a database says of its settings, slots and streams.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseState {
    /// The connection's name.
    pub name: String,
    /// By topic; a topic that could not be read says why.
    pub topics: Map<String, Value>,
}

/// Topic and query. Queries give columns that hold no row of a user's table, no password and no statement's text: of settings only
/// the server's own that were changed and are no connection strings or commands; of our own tables no error, which may name a value's column, but
/// never the value.
const TOPICS: &[(&str, &str)] = &[
    ("version", "SELECT pg_catalog.version() AS version"),
    (
        "settings",
        "SELECT name, setting, unit, source FROM pg_catalog.pg_settings \
          WHERE source NOT IN ('default', 'client', 'session') AND strpos(name, '.') = 0 \
            AND name !~* '(conninfo|command|passphrase|password|secret|token|key|_file$|_dir|directories|ident)' \
          ORDER BY name",
    ),
    (
        "slots",
        "SELECT slot_name, plugin, slot_type, database = current_database() AS here, active, temporary, wal_status, \
                safe_wal_size, restart_lsn::text, confirmed_flush_lsn::text \
           FROM pg_catalog.pg_replication_slots ORDER BY slot_name",
    ),
    (
        "walsenders",
        "SELECT state, sync_state, sent_lsn::text, write_lsn::text, flush_lsn::text, replay_lsn::text \
           FROM pg_catalog.pg_stat_replication ORDER BY pid",
    ),
    (
        "publications",
        "SELECT pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot \
           FROM pg_catalog.pg_publication WHERE pubname LIKE 'repcloud%' ORDER BY pubname",
    ),
    ("extensions", "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY extname"),
    (
        "role",
        "SELECT rolsuper, rolreplication, rolcreaterole, rolcreatedb, rolbypassrls, rolconnlimit \
           FROM pg_catalog.pg_roles WHERE rolname = current_user",
    ),
    (
        "waiting",
        "SELECT wait_event_type, wait_event, state, count(*) AS sessions, \
                max(extract(epoch FROM clock_timestamp() - xact_start))::int8 AS oldest_transaction_seconds \
           FROM pg_catalog.pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC",
    ),
];

/// Of our own schema, where it is there.
const OURS: &[(&str, &str)] = &[
    ("checkpoint", "SELECT to_jsonb(c) - 'error' AS row FROM repcloud.checkpoint c"),
    ("table_state", "SELECT to_jsonb(t) - 'error' - 'known_columns' AS row FROM repcloud.table_state t"),
    ("repack", "SELECT to_jsonb(r) - 'fingerprint' - 'after' - 'error' AS row FROM repcloud.repack r"),
];

impl DatabaseState {
    /// Reads all topics. Every one that cannot be read says why, and the others follow.
    pub async fn read(name: &str, connect: &ConnectOptions) -> Self {
        let mut topics = Map::new();
        match timeout(LIMIT, Box::pin(collect(connect, &mut topics))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => drop(topics.insert("error".to_owned(), error.to_string().into())),
            Err(_) => drop(topics.insert("error".to_owned(), "no answer in time".into())),
        }
        DatabaseState { name: name.to_owned(), topics }
    }
}

async fn collect(connect: &ConnectOptions, topics: &mut Map<String, Value>) -> Result<(), PgError> {
    let session = pg::connect(connect).await?;
    for (topic, sql) in TOPICS {
        topics.insert((*topic).to_owned(), read_topic(&session, sql).await);
    }
    for (table, sql) in OURS {
        let there = "SELECT pg_catalog.to_regclass('repcloud.' || $1) IS NOT NULL";
        if session.query_one(there, &[table]).await?.try_get(0)? {
            topics.insert(format!("repcloud.{table}"), read_topic(&session, sql).await);
        }
    }
    session.close().await
}

async fn read_topic(session: &Session, sql: &str) -> Value {
    let wrapped = format!("SELECT coalesce(json_agg(q), '[]')::text FROM ({sql}) q");
    let answer = async {
        let text: String = session.query_one(&wrapped, &[]).await?.try_get(0)?;
        Ok::<_, PgError>(serde_json::from_str(&text).unwrap_or(Value::Null))
    };
    answer.await.unwrap_or_else(|error| json!({ "error": error.to_string() }))
}
