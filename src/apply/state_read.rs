//! What others than the stream itself want to know of its state in the target: `status`, and who holds it.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::model::Lsn;

/// Rows of `repcloud.conflict` by target table.
pub async fn conflict_counts(client: &Client, key: &StreamKey) -> Result<HashMap<String, u64>, StateError> {
    let rows = client
        .query(
            "SELECT target_table, count(*) FROM repcloud.conflict WHERE source = $1 AND target = $2 GROUP BY 1",
            &[&key.source, &key.target],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let count: i64 = row.try_get(1)?;
            Ok((row.try_get(0)?, u64::try_from(count).unwrap_or(0)))
        })
        .collect()
}

/// Seconds since the last applied transaction committed on the source; `None` before the first.
pub async fn seconds_behind(client: &Client, key: &StreamKey) -> Result<Option<f64>, StateError> {
    let row = client
        .query_opt(
            "SELECT extract(epoch FROM clock_timestamp() - commit_time)::float8 FROM repcloud.checkpoint WHERE source = $1 AND target = $2",
            &[&key.source, &key.target],
        )
        .await?;
    Ok(row.map(|row| row.try_get::<_, Option<f64>>(0)).transpose()?.flatten())
}

/// The session that holds the stream, named for a person; `None` when nobody does, or when it cannot be seen.
pub async fn lock_holder(client: &Client, key: &StreamKey) -> Result<Option<String>, StateError> {
    let row = client
        .query_opt(
            "SELECT format('session %s of the target, %s%s', l.pid, coalesce(nullif(a.application_name, ''), 'no application name'), \
                    coalesce(' from ' || a.client_addr::text, '')) \
             FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND l.objsubid = 2 \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
             AND l.classid = 7300102 AND l.objid::int8::bit(32) = pg_catalog.hashtext($1 || '__' || $2)::bit(32) LIMIT 1",
            &[&key.source, &key.target],
        )
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The position somebody waits for; `None` while nobody has asked for any, or before the stream has begun.
pub async fn wanted_position(client: &Client, key: &StreamKey) -> Result<Option<Lsn>, StateError> {
    let sql = "SELECT wanted_lsn FROM repcloud.durability WHERE source = $1 AND target = $2";
    let row = client.query_opt(sql, &[&key.source, &key.target]).await?;
    Ok(row.map(|row| row.try_get::<_, PgLsn>(0)).transpose()?.map(|lsn| Lsn(u64::from(lsn))))
}

/// Asks the running stream not to wait with writing its position once it has received everything before `lsn`.
pub async fn want_position(client: &Client, key: &StreamKey, lsn: Lsn) -> Result<(), StateError> {
    let sql = "UPDATE repcloud.durability SET wanted_lsn = $3 WHERE source = $1 AND target = $2 AND wanted_lsn < $3";
    client.execute(sql, &[&key.source, &key.target, &PgLsn::from(lsn.0)]).await?;
    Ok(())
}

/// The sources whose streams into `target` know this target table.
pub async fn streams_of_table(
    client: &Client,
    target: &str,
    target_table: &str,
) -> Result<Vec<String>, StateError> {
    let sql = "SELECT source FROM repcloud.table_state WHERE target = $1 AND target_table = $2 ORDER BY 1";
    let rows = client.query(sql, &[&target, &target_table]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
