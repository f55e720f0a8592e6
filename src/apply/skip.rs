//! `repcloud.skip`: transactions that a person has asked to leave out, by the start of their commit record.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::model::Lsn;
use crate::pg::PgError;

/// The transactions to leave out that were not met yet.
pub async fn read_skips(client: &Client, key: &StreamKey) -> Result<Vec<Lsn>, StateError> {
    let rows = client
        .query(
            "SELECT commit_lsn FROM repcloud.skip WHERE source = $1 AND target = $2 AND skipped_at IS NULL ORDER BY 1",
            &[&key.source, &key.target],
        )
        .await?;
    rows.iter().map(|row| Ok(Lsn(u64::from(row.try_get::<_, PgLsn>(0)?)))).collect()
}

/// Asks for a transaction to be left out.
pub async fn write_skip(client: &Client, key: &StreamKey, commit_lsn: Lsn) -> Result<(), StateError> {
    client
        .execute(
            "INSERT INTO repcloud.skip (source, target, commit_lsn) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&key.source, &key.target, &PgLsn::from(commit_lsn.0)],
        )
        .await?;
    Ok(())
}

/// Notes that a transaction was left out, in whatever transaction the session is: the one that moves the position.
pub(crate) async fn mark_skipped(client: &Client, key: &StreamKey, commit_lsn: Lsn) -> Result<(), PgError> {
    client
        .execute(
            "UPDATE repcloud.skip SET skipped_at = now() WHERE source = $1 AND target = $2 AND commit_lsn = $3",
            &[&key.source, &key.target, &PgLsn::from(commit_lsn.0)],
        )
        .await?;
    Ok(())
}

/// Removes and names the requests that the position has passed without meeting their transaction. One whose changes
/// wait in `repcloud.parked` will be met.
pub async fn remove_unmatched(client: &Client, key: &StreamKey) -> Result<Vec<Lsn>, StateError> {
    let rows = client
        .query(
            "DELETE FROM repcloud.skip s USING repcloud.checkpoint c WHERE s.source = $1 AND s.target = $2 \
             AND c.source = s.source AND c.target = s.target AND c.phase = 'ready' \
             AND s.skipped_at IS NULL AND s.commit_lsn < c.applied_lsn \
             AND NOT EXISTS (SELECT FROM repcloud.parked p WHERE p.source = s.source AND p.target = s.target AND p.commit_lsn = s.commit_lsn) RETURNING s.commit_lsn",
            &[&key.source, &key.target],
        )
        .await?;
    rows.iter().map(|row| Ok(Lsn(u64::from(row.try_get::<_, PgLsn>(0)?)))).collect()
}
