//! Leaves one source transaction out of a stream that has stopped at it.

use crate::apply::{checkpoint, parked_store, skip};
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::hold::hold_stream;
use crate::flow::options::StreamOptions;
use crate::flow::stream::{connect_source, connect_target};
use crate::flow::{plugin, queues};
use crate::model::Lsn;

/// Asks for the transaction whose commit record starts at `lsn` to be left out. The stream must not run; its next run
/// leaves the transaction out and keeps its changes in `repcloud.conflict`. Returns the target tables that are left without
/// it where the rest of the transaction is in the target already; none where all of it is left out.
pub async fn request(options: &StreamOptions, lsn: Lsn) -> Result<Vec<String>, FlowError> {
    let target = connect_target(options).await?;
    let key = &options.key;
    let refuse = |text: String| Err(FlowError::Refused(vec![text]));
    let row = match checkpoint::schema_version(&target).await? {
        Some(_) => {
            checkpoint::ensure_schema(&target).await?;
            checkpoint::read(&target, key).await?
        }
        None => None,
    };
    let Some(row) = row.filter(|row| row.ready) else {
        return refuse(format!(
            "the stream {} → {} has not begun, there is nothing to leave out",
            key.source, key.target
        ));
    };
    hold_stream(&target, key).await?;
    let waiting =
        if lsn < row.applied { parked_store::waiting(&target, key, lsn).await? } else { Vec::new() };
    if lsn < row.applied && waiting.is_empty() {
        return refuse(format!(
            "{lsn} lies before the position {} of {} → {}: that transaction is in the target already",
            row.applied, key.source, key.target
        ));
    }
    let source = connect_source(options).await?;
    let options = &plugin::as_it_reads(options, &source).await?;
    let end = match options.by_triggers() {
        true => queues::next_tick(&source, options).await?,
        false => facts::source_end(&source).await?,
    };
    if lsn > end {
        return refuse(format!(
            "{lsn} lies beyond the source's end of WAL {end}: there is no such transaction yet"
        ));
    }
    skip::write_skip(&target, key, lsn).await?;
    target.close().await.map_err(FlowError::Target)?;
    Ok(waiting)
}
