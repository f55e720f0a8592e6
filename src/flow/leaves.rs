//! Partitions that came or went: a change of shape that the stream itself does not tell.
//!
//! A leaf that was attached may bring rows, and takes rows that were never published; the rows of one that was detached or
//! dropped stay on the target. Both are noticed by comparing with the leaves of the copy, at the start and while changes flow.

use crate::apply::checkpoint::{self, StreamKey};
use crate::catalog::TableKind;
use crate::flow::error::FlowError;
use crate::flow::work::TableWork;
use crate::model::TableName;
use crate::pg::Session;

/// The leaves to remember with the rows copied from them; `None` for a table that is not partitioned.
fn leaves(work: &TableWork) -> Option<Vec<String>> {
    (work.source.kind == TableKind::Partitioned).then(|| names(&work.published()))
}

fn names(tables: &[TableName]) -> Vec<String> {
    tables.iter().map(ToString::to_string).collect()
}

/// Remembers from which leaves `work`'s rows are about to come.
pub(crate) async fn record(target: &Session, key: &StreamKey, work: &TableWork) -> Result<(), FlowError> {
    Ok(checkpoint::write_leaves(target, key, &work.target, leaves(work).as_deref()).await?)
}

/// Compares the leaves there are with those of the copy; a finding for each table whose leaves are others.
pub(crate) async fn changed(
    target: &Session,
    key: &StreamKey,
    work: &[TableWork],
) -> Result<Vec<FlowError>, FlowError> {
    let mut found = Vec::new();
    for (target_table, known) in checkpoint::read_leaves(target, key).await? {
        let Some(work) = work.iter().find(|w| w.target.to_string() == target_table) else { continue };
        found.extend(compare(key, work, &known, &leaves(work).unwrap_or_default()).err());
    }
    Ok(found)
}

/// Compares `now` with the leaves that are published for `work`.
pub(crate) fn check_published(key: &StreamKey, work: &TableWork, now: &[TableName]) -> Result<(), FlowError> {
    compare(key, work, &names(&work.published()), &names(now))
}

fn compare(key: &StreamKey, work: &TableWork, known: &[String], now: &[String]) -> Result<(), FlowError> {
    let Some(changes) = changes(known, now) else { return Ok(()) };
    Err(FlowError::PartitionsChanged {
        source_table: work.source.name.clone(),
        target_table: work.target.clone(),
        source_name: key.source.clone(),
        changes,
    })
}

/// What came and what went, in words; `None` when nothing did.
fn changes(known: &[String], now: &[String]) -> Option<String> {
    let came = now.iter().filter(|leaf| !known.contains(leaf)).map(|leaf| format!("{leaf} was attached"));
    let went = known.iter().filter(|leaf| !now.contains(leaf)).map(|leaf| format!("{leaf} has gone"));
    let all: Vec<String> = came.chain(went).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn what_came_and_went_is_named_whatever_the_order() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(changes(&list(&["a", "b"]), &list(&["b", "a"])), None);
        assert_eq!(
            changes(&list(&["a", "b"]), &list(&["b", "c"])).as_deref(),
            Some("c was attached, a has gone")
        );
    }
}
