//! Position rows of lanes (see `lanes`). The first lane's is the stream's own row, the others stand beside it under names of
//! their own: how many there are is how many lanes there are.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::apply::checkpoint::{StateError, StreamKey};
use crate::apply::lanes;
use crate::model::Lsn;

/// The rows of all lanes of the stream $1 → $2. No connection's name has a space.
pub(super) const OF_ALL_LANES: &str =
    "source = $1 AND (target = $2 OR pg_catalog.starts_with(target, $2::text || ' lane '))";

/// The position of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePosition {
    /// Under which its row stands.
    pub key: StreamKey,
    /// See [`crate::apply::checkpoint::Checkpoint::generation`]; one for all lanes.
    pub generation: i64,
    /// Everything of this lane that committed on the source before it is in the target.
    pub applied: Lsn,
}

/// Under which the row of lane `number` stands; they are counted from 0.
fn lane_key(key: &StreamKey, number: usize) -> StreamKey {
    match number {
        0 => key.clone(),
        _ => StreamKey { target: format!("{} lane {}", key.target, number + 1), ..key.clone() },
    }
}

/// Takes all lanes of a stream over, as [`crate::apply::checkpoint::take_over`] does with the one of others. Makes `wanted` lanes of
/// them where they stand level; else there are as many as before.
pub async fn take_over_lanes(
    client: &Client,
    key: &StreamKey,
    wanted: usize,
) -> Result<Vec<LanePosition>, StateError> {
    client.batch_execute("BEGIN").await?;
    let taken = take_over_in_transaction(client, key, wanted).await;
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    taken
}

async fn take_over_in_transaction(
    client: &Client,
    key: &StreamKey,
    wanted: usize,
) -> Result<Vec<LanePosition>, StateError> {
    let sql = format!(
        "UPDATE repcloud.checkpoint SET generation = generation + 1 WHERE {OF_ALL_LANES} RETURNING target, generation, applied_lsn"
    );
    let mut found = Vec::new();
    for row in client.query(&sql, &[&key.source, &key.target]).await? {
        let key = StreamKey { target: row.try_get(0)?, ..key.clone() };
        let applied = Lsn(u64::from(row.try_get::<_, PgLsn>(2)?));
        found.push(LanePosition { key, generation: row.try_get(1)?, applied });
    }
    let mut positions = Vec::with_capacity(found.len());
    for number in 0..found.len().max(1) {
        let key = lane_key(key, number);
        let lane = found.iter().find(|lane| lane.key == key);
        let damaged = || StateError::Damaged(format!("the position of {} → {}", key.source, key.target));
        positions.push(lane.cloned().ok_or_else(damaged)?);
    }
    let reached: Vec<Lsn> = positions.iter().map(|lane| lane.applied).collect();
    let count = lanes::how_many(&reached, wanted);
    if count == positions.len() {
        return Ok(positions);
    }
    change_number(client, key, count).await?;
    positions.truncate(1);
    let first = positions.clone();
    let more = first.iter().flat_map(|first| {
        (1..count).map(|number| LanePosition { key: lane_key(key, number), ..first.clone() })
    });
    positions.extend(more);
    Ok(positions)
}

async fn change_number(client: &Client, key: &StreamKey, count: usize) -> Result<(), StateError> {
    let fewer = "WITH gone AS (DELETE FROM repcloud.checkpoint WHERE source = $1 AND pg_catalog.starts_with(target, $2::text || ' lane ') RETURNING changes) \
                 UPDATE repcloud.checkpoint SET changes = changes + (SELECT coalesce(sum(changes), 0)::int8 FROM gone) WHERE source = $1 AND target = $2";
    client.execute(fewer, &[&key.source, &key.target]).await?;
    let more = "INSERT INTO repcloud.checkpoint (source, target, slot, phase, system_id, timeline, generation, applied_lsn, commit_time) \
                SELECT source, $3, slot, phase, system_id, timeline, generation, applied_lsn, commit_time \
                FROM repcloud.checkpoint WHERE source = $1 AND target = $2";
    for number in 1..count {
        client.execute(more, &[&key.source, &key.target, &lane_key(key, number).target]).await?;
    }
    Ok(())
}

/// What all lanes of a stream have reached; `None` when its slot was not made yet.
pub async fn lowest(client: &Client, key: &StreamKey) -> Result<Option<Lsn>, StateError> {
    let sql =
        format!("SELECT min(applied_lsn) FROM repcloud.checkpoint WHERE {OF_ALL_LANES} AND phase = 'ready'");
    let row = client.query_one(&sql, &[&key.source, &key.target]).await?;
    Ok(row.try_get::<_, Option<PgLsn>>(0)?.map(|at| Lsn(u64::from(at))))
}

/// Changes that the lanes of a stream have written together since its slot was made.
pub async fn changes(client: &Client, key: &StreamKey) -> Result<u64, StateError> {
    let sql = format!("SELECT coalesce(sum(changes), 0)::int8 FROM repcloud.checkpoint WHERE {OF_ALL_LANES}");
    let row = client.query_one(&sql, &[&key.source, &key.target]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}
