//! Source tables whose place was taken by another one that is followed, or that was there beside it: renamed tables. The stream
//! knows tables by name, and the rows on the target are those of the table that had the name before.
//!
//! A repack makes another relation of a table too, with the same rows; the old one is gone then, or rests in `repcloud_old`.

use crate::apply::checkpoint::{self, StreamKey, TableRecord, TableState};
use crate::flow::error::FlowError;
use crate::flow::queues::source_error;
use crate::flow::resolve::relations;
use crate::flow::work::TableWork;
use crate::model::Oid;
use crate::pg::Session;

/// The relations that are still there, but for old tables of a repack.
const STILL_THERE: &str = "\
SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY ($1) AND n.nspname <> 'repcloud_old'";

/// A finding for each table of `work` that is another one than that its rows came from, or that is gone. Remembers the relation of the
/// others.
pub(crate) async fn find(
    (source, target): (&Session, &Session),
    key: &StreamKey,
    work: &[TableWork],
) -> Result<Vec<FlowError>, FlowError> {
    let records = checkpoint::read_tables(target, key).await?;
    let now = relations(source, work.iter().map(|w| &w.source.name)).await?;
    let (mut moved, mut found) = (Vec::new(), Vec::new());
    for work in work {
        let name = work.target.to_string();
        let follows = |r: &&TableRecord| {
            r.target_table == name && matches!(r.state, TableState::Streaming | TableState::Parked)
        };
        let Some(record) = records.iter().find(follows) else { continue };
        let Some(now) = now.get(&work.source.name) else {
            // What is written into it under another name passes by.
            found.push(FlowError::SourceGone {
                source_table: record.source_table.clone(),
                target_table: work.target.clone(),
                source_name: key.source.clone(),
            });
            continue;
        };
        if record.source_oid != Some(*now) {
            moved.push((work, record, *now));
        }
    }
    let there = still_there(source, moved.iter().filter_map(|(_, record, _)| record.source_oid)).await?;
    for (work, record, now) in moved {
        if is_another(&records, record, now, &there) {
            found.push(FlowError::Replaced {
                source_table: work.source.name.clone(),
                target_table: work.target.clone(),
                source_name: key.source.clone(),
            });
        } else {
            checkpoint::set_source_oid(target, key, &work.target, now).await?;
        }
    }
    Ok(found)
}

async fn still_there(source: &Session, oids: impl Iterator<Item = Oid>) -> Result<Vec<Oid>, FlowError> {
    let oids: Vec<Oid> = oids.collect();
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = source.query(STILL_THERE, &[&oids]).await.map_err(source_error)?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(source_error)
}

/// The relation `now` was another followed table, or the one that the rows came from has kept living under another name. Pure.
fn is_another(records: &[TableRecord], record: &TableRecord, now: Oid, there: &[Oid]) -> bool {
    let Some(before) = record.source_oid else { return false };
    let was_of_another =
        |other: &TableRecord| other.source_table != record.source_table && other.source_oid == Some(now);
    there.contains(&before) || records.iter().any(was_of_another)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    fn record(name: &str, source_oid: Option<Oid>) -> TableRecord {
        TableRecord {
            target_table: name.to_owned(),
            source_table: name.to_owned(),
            source_oid,
            target_oid: None,
            mode: "dml".to_owned(),
            state: TableState::Streaming,
            copied_at: Lsn::INVALID,
            made_by_us: true,
            known_columns: None,
            rows_copied: 0,
            rows_total: 0,
            error: None,
            parked_with: None,
            parked_changes: 0,
            parked_bytes: 0,
        }
    }

    #[test]
    fn a_renamed_table_is_another_one_and_a_repacked_one_is_not() {
        let all = [record("a", Some(1)), record("b", Some(2)), record("c", None)];
        for (which, now, there, expected) in [
            (0, 2, &[1, 2][..], true),
            // Its old table was dropped, and a followed one took its place.
            (0, 2, &[2][..], true),
            // One that was not followed took its place, and it was put aside.
            (0, 9, &[1, 2][..], true),
            // Repacked.
            (0, 9, &[2][..], false),
            // Copied by a version that did not write it down.
            (2, 9, &[1, 2][..], false),
        ] {
            assert_eq!(is_another(&all, &all[which], now, there), expected, "{which} {now} {there:?}");
        }
    }
}
