//! Triggers that fire before those that queue changes: what they change would be queued before its cause.

use super::finding::{Finding, Severity};
use crate::capture::auto::Way;
use crate::capture::setup::{self, SetupError};
use crate::model::{Oid, TableName};
use crate::pg::Session;

/// Refuses a table with such triggers where changes are read by triggers; where they may come to be, it is told.
///
/// # Errors
/// The server could not be asked.
pub(crate) async fn check(
    session: &Session,
    (table, name): (Oid, &TableName),
    ways: &[Way],
) -> Result<Vec<Finding>, SetupError> {
    if !ways.contains(&Way::Triggers) {
        return Ok(Vec::new());
    }
    let severity = if ways == [Way::Triggers] { Severity::Refuse } else { Severity::Warn };
    let of = |(_, rename): (Oid, String)| {
        let problem = format!("{}; so it cannot be repacked by triggers", setup::FIRES_FIRST);
        Finding::new("firing", severity, format!("table {name}"), problem).help(format!("run: {rename}"))
    };
    Ok(setup::earlier_triggers(session, &[table]).await?.into_iter().map(of).collect())
}
