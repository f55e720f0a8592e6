//! A stream that reads the table by triggers would read on from the old table.

use super::finding::Finding;
use crate::capture::setup::{self, SetupError};
use crate::model::{Oid, TableName};
use crate::pg::Session;

/// Refuses a table that streams read by triggers.
///
/// # Errors
/// The server could not be asked.
pub(crate) async fn check(
    session: &Session,
    table: Oid,
    name: &TableName,
) -> Result<Vec<Finding>, SetupError> {
    let readers = setup::stream_readers(session, table).await?;
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let problem = format!(
        "its changes are read by triggers for {}, which would lose them with the old table",
        readers.join(", ")
    );
    let help = "take it out of the stream first (repcloud drop-table --archive), or let the stream read a slot (capture = \"slot\")";
    Ok(vec![Finding::refuse("streams", name, problem).help(help.to_owned())])
}
