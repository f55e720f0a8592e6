//! Target tables that are other relations than those that the rows went into: dropped and made again, by hand or by a tool, or another
//! table was given the name. Nothing tells which rows such a table holds, so it needs another copy.
//!
//! A repack of the target table makes another relation of it too, and says so; VACUUM FULL, CLUSTER and pg_repack make none. One that is
//! not there at all waits for its name (`routing`).

use crate::apply::checkpoint::StreamKey;
use crate::apply::target_relation::{self, Borne};
use crate::flow::error::FlowError;
use crate::flow::work::TableWork;
use crate::model::TableName;
use crate::pg::Session;

/// A finding for each table of `work` that was made again. Writes the relation of those down of which nobody did.
pub(crate) async fn find(
    target: &Session,
    key: &StreamKey,
    work: &[TableWork],
) -> Result<Vec<FlowError>, FlowError> {
    let names: Vec<TableName> = work.iter().map(|w| w.target.clone()).collect();
    let mut found = Vec::new();
    for Borne { table, known, now } in target_relation::read_borne(target, key, &names).await? {
        match known {
            Some(before) if before == now => {}
            Some(before) if !target_relation::was_repacked(target, before, now).await? => {
                found.push(FlowError::Remade { target_table: table, source_name: key.source.clone() });
            }
            // Copied by a version that did not write it down, restored from a dump, accepted by a person, or repacked.
            known => target_relation::record(target, key, &table, known).await?,
        }
    }
    Ok(found)
}
