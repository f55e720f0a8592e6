//! Locks on target tables that a copy waits for: in short pieces, so that whoever asks why it stands is told, and not for ever.

use crate::capture::setup;
use crate::copy::CopyError;
use crate::flow::error::FlowError;
use crate::model::{Events, TableName};
use crate::pg::Session;

/// One wait; in between it is told who is in the way.
const ONE_WAIT: &str = "10s";
/// It is told in the first wait, and again after so many.
const TOLD_EVERY: usize = 6;
/// After so many the copy ends with the server's error, and is begun again.
const WAITS: usize = 90;

/// Does `work`, which can be repeated, on `target`, where it takes locks on `table`.
pub(crate) async fn patiently<T>(
    target: &Session,
    table: &TableName,
    events: &Events,
    work: impl AsyncFn() -> Result<T, CopyError>,
) -> Result<T, FlowError> {
    let limit = async |limit: &str| {
        let set = format!("SET lock_timeout = '{limit}'");
        target.batch_execute(&set).await.map_err(|e| FlowError::Target(e.into()))
    };
    limit(ONE_WAIT).await?;
    for wait in 1..WAITS {
        match work().await {
            Err(error) if error.is_locked() && wait % TOLD_EVERY != 1 => {}
            Err(error) if error.is_locked() => {
                let holders = setup::lock_holders(target, std::slice::from_ref(table), true).await?;
                events.warning(format!(
                    "the copy of target table {table} waits for a lock on it, held by {}",
                    if holders.is_empty() { "nobody any more".to_owned() } else { holders.join(", ") }
                ));
            }
            done => {
                limit("0").await?;
                return Ok(done?);
            }
        }
    }
    let done = work().await;
    limit("0").await?;
    Ok(done?)
}
