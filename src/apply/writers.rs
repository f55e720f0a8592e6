//! The sessions that write for a stream, so that its next owner can end what an earlier one left.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::pg::PgError;

/// The first key of the advisory lock that sessions writing for a stream share.
const WRITERS: i32 = 7_300_103;

/// Marks `session` as one that writes for the stream, for as long as it lasts: [`end_writers`] finds it.
pub async fn mark_writer(session: &Client, key: &StreamKey) -> Result<(), PgError> {
    let lock = "SELECT pg_catalog.pg_advisory_lock_shared($1, pg_catalog.hashtext($2 || '__' || $3))";
    session.execute(lock, &[&WRITERS, &key.source, &key.target]).await?;
    Ok(())
}

/// Lets others read in the server's list of sessions which process holds the stream.
pub async fn sign(session: &Client) -> Result<(), PgError> {
    let sql = "SELECT pg_catalog.set_config('application_name', pg_catalog.current_setting('application_name') || $1, false)";
    session.execute(sql, &[&format!(", process {}", std::process::id())]).await?;
    Ok(())
}

/// Ends the writing sessions that an earlier owner of the stream left, and waits until they are gone; to be called by
/// the holder of the stream's lock, before the position is read.
///
/// A process that was killed leaves sessions whose server has not noticed, with a statement that still runs or waits; a
/// frozen one leaves an open transaction. Their locks would hold us up, and a COMMIT that is still under way would move
/// the position after we have read it.
pub async fn end_writers(client: &Client, key: &StreamKey) -> Result<(), StateError> {
    const LIMIT: Duration = Duration::from_secs(20);
    const PAUSE: Duration = Duration::from_millis(20);
    let sql = "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_locks \
               WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
               AND classid = $1::int4::int8::oid AND objid::int8 = pg_catalog.hashtext($2 || '__' || $3)::int8 & 4294967295 \
               AND objsubid = 2 AND pid <> pg_catalog.pg_backend_pid()";
    let gone = async {
        while client.query_one(sql, &[&WRITERS, &key.source, &key.target]).await?.try_get::<_, i64>(0)? > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    let during = "waiting for the end of sessions that an earlier process of this stream left";
    timeout(LIMIT, gone).await.unwrap_or_else(|_| Err(PgError::timeout(during, LIMIT).into()))
}
